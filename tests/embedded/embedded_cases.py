"""Flows that are embedded, with rows for them, and what the public methods say of these."""

import numpy as np
import registry

import npflows
from npflows.support import below, integer, interval, ordered, periodic, positive, real, simplex

N = 37
"""More rows than a vector has lanes, and no multiple of them."""


def with_support(dtype="float32", **options):
    """A spline flow with every kind of column and group."""
    rising, parts = ordered(), simplex(2.0)
    columns = [positive(1.0), below(3.0), interval(0, 2), periodic(0, 6.0), real(), rising, rising, parts, parts]
    return registry.randomize(
        npflows.NeuralSplineFlow(9, 2, (12,), support=columns, dtype=dtype, rng=0, **options), strength=0.3
    )


def with_integers(dtype="float32", **options):
    columns = [integer(0, 5), real(), integer(-3, 3), positive()]
    return registry.randomize(npflows.MAF(4, 2, (12,), support=columns, dtype=dtype, rng=0, **options), strength=0.3)


def small(dtype="float32", **options):
    return registry.randomize(npflows.MAF(3, 2, (8,), dtype=dtype, rng=0, **options), strength=0.5)


def rows_of(flow, seed=4):
    """Rows (n, dim), in and out of the support and with NaN, and their conditions or None."""
    rng = np.random.default_rng(seed)
    condition = rng.normal(size=(N, flow.condition_dim)) if flow.condition_dim else None
    x = flow.sample(N, 1, condition=condition).reshape(N, -1).astype(np.float64)
    x[3, 0], x[4, -1], x[5, 0], x[6, -1] = np.nan, 1e30, -np.inf, -2.5
    if condition is not None:
        condition[7, 0], condition[8, -1], condition[9, 0] = np.nan, np.inf, 1e4
    return x, condition


def entered(density, x, condition):
    """log_prob and gradients of all rows at once, by the entry."""
    out, grad = np.empty(len(x)), np.empty(x.shape)
    dcondition = None if condition is None else np.empty(condition.shape)
    density.log_prob_and_grad_rows(x, grad, out, condition, dcondition)
    return out, grad, dcondition


def entered_alone(density, x, condition):
    """The same, row by row."""
    out, grad = np.empty(len(x)), np.empty(x.shape)
    dcondition = None if condition is None else np.empty(condition.shape)
    for i in range(len(x)):
        given = (None, None) if condition is None else (condition[i], dcondition[i])
        out[i] = density.log_prob_and_grad(x[i], grad[i], *given)
    return out, grad, dcondition


def public(flow, x, condition):
    """The same by the flow's own methods."""
    shaped = x.reshape(len(x), *flow.input_shape)
    if condition is None:
        out, grad = flow.log_prob_and_grad(shaped)
        return out, grad.reshape(x.shape), None
    out, grad, dcondition = flow.log_prob_and_grad(shaped, condition, wrt="both")
    return out, grad.reshape(x.shape), dcondition
