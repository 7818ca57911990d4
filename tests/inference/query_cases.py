"""Flows whose densities are known exactly or by brute force, for the tests of the queries."""

import functools

import numpy as np
import scipy.stats
from registry import randomize

from npflows import MAF, LULinear, NormalizingFlow

F8 = {"dtype": "float64"}


@functools.cache
def gaussian(dim, dtype="float64"):
    """A correlated normal distribution as a flow, its mean and its covariance."""
    rng = np.random.default_rng(dim)
    layer = LULinear(dim, "natural", dtype=dtype)
    layer.params = np.concatenate([0.4 * rng.normal(size=dim * dim), rng.normal(size=dim)])
    flow = NormalizingFlow([layer], dtype=dtype)
    flow.standardize.set(rng.normal(size=dim), np.exp(0.5 * rng.normal(size=dim)))
    mean = flow.inverse(np.zeros((1, dim)))[0][0]
    root = (flow.inverse(np.eye(dim))[0] - mean).T
    return flow, mean, root @ root.T


def normal(mean, covariance, columns):
    return scipy.stats.multivariate_normal(mean[columns], covariance[np.ix_(columns, columns)])


def given_normal(mean, covariance, columns, given):
    """The normal distribution of some columns where others have given values."""
    held = list(given)
    slope = covariance[np.ix_(columns, held)] @ np.linalg.inv(covariance[np.ix_(held, held)])
    middle = mean[columns] + slope @ (np.array(list(given.values())) - mean[held])
    return scipy.stats.multivariate_normal(
        middle, covariance[np.ix_(columns, columns)] - slope @ covariance[np.ix_(held, columns)]
    )


@functools.cache
def curved(dim, **options):
    """A smooth flow that is not normal."""
    options = {"activation": "tanh", "dtype": "float64", "rng": 0, **options}
    return randomize(MAF(dim, 2, (12,), **options), seed=dim, strength=0.7)


def points_of(flow, n):
    """n points of each column between the outer quantiles of samples, as axes."""
    low, high = np.quantile(flow.sample(4000, 1), (0.02, 0.98), axis=0)
    return [np.linspace(*ends, n) for ends in zip(low, high)]


def brute_force(flow, fixed, n=600):
    """The density at values {column: value} of a flow of two or three columns, from a regular grid over the others."""
    free = [i for i in range(flow.input_dim) if i not in fixed]
    samples = flow.sample(4000, 2)
    low, high = samples[:, free].min(0), samples[:, free].max(0)
    axes = [np.linspace(a - 0.7 * (b - a), b + 0.7 * (b - a), n) for a, b in zip(low, high)]
    rows = np.empty((n ** len(free), flow.input_dim))
    rows[:, free] = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(free))
    rows[:, list(fixed)] = list(fixed.values())
    return np.exp(flow.log_prob(rows)).sum() * np.prod([axis[1] - axis[0] for axis in axes])


def deviations(result, expected):
    """Errors in units of the errors that were stated."""
    return (result.density - expected) / result.error
