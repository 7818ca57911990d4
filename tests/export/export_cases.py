"""Inputs of exported flows, what must come out, and graphs evaluated by NumPy."""

import numpy as np
from registry import condition, flat, latent

from npflows import MAF, NeuralSplineFlow, support
from npflows.export.graph import PRIMITIVES, in_order
from npflows.export.tracing import Cells

ROWS = 5
WHATS = ("log_prob", "log_prob_and_grad", "forward", "inverse", "sample")


def every_support(dtype="float64"):
    """A flow of columns of every kind, whole numbers among them, with a condition."""
    columns = {
        0: support.positive(2.0),
        1: support.interval(-1.0, 3.0),
        2: support.periodic(0.0, 360.0),
        3: support.integer(-2, 3),
        5: support.below(1.0),
        (6, 7): support.ordered(),
        (8, 9): support.simplex(2.0),
    }
    flow = NeuralSplineFlow(10, 2, (8,), 4, linear="permutation", support=columns, condition_dim=2, rng=1, dtype=dtype,
                            columns=list("abcdefghij"))  # fmt: skip
    flow.params = flow.params + 0.5 * np.random.default_rng(2).normal(size=flow.num_params)
    flow.standardize_condition([1.0, -2.0], [0.5, 3.0], 2.0)
    return flow


def awkward(dtype="float64"):
    """The flow of every support, and rows of which some have NaN, infinity, values outside, or a condition like that."""
    flow = every_support(dtype)
    c = np.random.default_rng(3).normal(size=(12, 2))
    x = flow.sample(12, 4, condition=c)
    x[1, 0], x[2, 4], x[3, 4], x[4, 1], x[5, 3], x[6, 6] = np.nan, np.nan, np.inf, -7.0, 1.5, 1e6
    x[7, 8:10], x[8, 3], x[9, 2] = 1.5, 99.0, 1e4
    c[10], c[11] = [np.nan, 0.0], [np.inf, 0.0]
    return flow, x, c


def far(dtype="float64"):
    """A flow on the line, and rows whose density leaves the range of numbers."""
    flow = MAF(3, 2, (8,), scale_activation="none", activation="tanh", rng=1, dtype=dtype)
    flow.params = flow.params + 3 * np.random.default_rng(2).normal(size=flow.num_params)
    return flow, np.array([[0.0, 0.1, 0.2], [1e300, 0.0, 0.0], [np.inf, 0.0, 0.0], [0.0, np.nan, 0.0]])


def expected(flow, what, x, c):
    """The inputs of an exported flow, and what must come out, by name; nothing of samples."""
    n = len(x)
    rows = np.reshape(x, (n, *flow.input_shape))
    given = {} if c is None else {"condition": c}
    if what == "log_prob":
        return {"x": x, **given}, {"log_prob": flow.log_prob(rows, c)}
    if what == "log_prob_and_grad":
        found = flow.log_prob_and_grad(rows, c, wrt="x" if c is None else "both")
        return {"x": x, **given}, dict(zip(("log_prob", "dx", "dcondition"), (found[0], flat(found[1]), *found[2:])))
    if what == "forward":
        z, log_det = flow.forward(rows, c)
        return {"x": x, **given}, {"z": flat(z), "log_det": log_det}
    z = latent(flow, n)
    if what == "sample":
        return {"normals": np.random.default_rng(1).normal(size=z.shape), **given}, {}
    back, log_det = flow.inverse(np.reshape(z, (n, *flow.input_shape)), c)
    return {"z": z, **given}, {"x": flat(back).astype(float), "log_det": log_det}


def cases(flow):
    """Rows and conditions for a flow of the registry."""
    c = condition(flow, ROWS)
    return flat(flow.sample(ROWS, 3, condition=c)).astype(float), c


def assert_close(found, wanted, tolerance):
    """Numbers agree, relative to their size where that is above 1; NaN and infinity alike."""
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        got = np.reshape(found[name], values.shape)
        np.testing.assert_allclose(got, values, rtol=tolerance, atol=tolerance, err_msg=name)


def evaluate(traced, inputs):
    """The outputs of what was traced, for inputs (n, ...) by name."""
    if not isinstance(traced, Cells):
        return _evaluate(traced, inputs)
    n, draws = len(next(iter(inputs.values()))), len(traced.places)
    each = {name: np.repeat(values, draws, axis=0) for name, values in inputs.items()}
    points = _evaluate(traced.point, {**each, "place": np.tile(traced.places, (n, 1))})
    return _evaluate(traced.mean, {name: np.reshape(points[name], (n, *node.shape))
                                   for name, node in traced.mean.inputs.items()})  # fmt: skip


def _evaluate(graph, inputs):
    values = {id(node): inputs[name] for name, node in graph.inputs.items()}
    n = len(next(iter(inputs.values())))
    with np.errstate(all="ignore"):
        for node in in_order(list(graph.outputs.values())):
            if node.op == "constant":
                values[id(node)] = node.attributes["value"]
            elif node.op != "input":
                given = [values[id(i)] for i in node.inputs]
                if node.op == "concat":
                    given = [np.broadcast_to(v, (n, *i.shape)) for v, i in zip(given, node.inputs)]
                values[id(node)] = PRIMITIVES[node.op](*given, **node.attributes)
    return {name: np.broadcast_to(values[id(node)], (n, *node.shape)) for name, node in graph.outputs.items()}
