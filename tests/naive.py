"""Slow, obvious NumPy twins of every layer, network and base distribution, in float64, from their named parameters."""

import functools

import numpy as np
import scipy.stats

from npflows import (
    CouplingLayer,
    Cylinder,
    IAFLayer,
    MAFLayer,
    Normal,
    NormalizingFlow,
    Permutation,
    Standardize,
    StudentT,
    Uniform,
    support,
)

ACTIVATIONS = {
    "relu": lambda h: np.maximum(h, 0),
    "tanh": np.tanh,
    "silu": lambda h: h / (1 + np.exp(-h)),
    "elu": lambda h: np.where(h > 0, h, np.expm1(np.minimum(h, 0))),
    "leaky_relu": lambda h: np.where(h > 0, h, 0.01 * h),
}


def mlp(params, x, condition, activation, prefix="network.", residual_blocks=0):
    """The network of parameters weight_0, bias_0, condition_weight, weight_1, ... at x (n, n_in).

    With residual blocks, layers 1 and 2, 3 and 4, ... each add to what entered them.
    """
    params = {name.removeprefix(prefix): value.astype(np.float64) for name, value in params.items()}
    h = x @ params["weight_0"].T + params["bias_0"]
    if condition is not None:
        h = h + condition @ params["condition_weight"].T
    entered, last = h, sum(name.startswith("weight_") for name in params) - 1
    for i in range(1, last + 1):
        h = ACTIVATIONS[activation](h) @ params[f"weight_{i}"].T + params[f"bias_{i}"]
        if residual_blocks and i % 2 == 0 and i < last:
            h = entered = h + entered
    return h


def made(network, x, condition=None):
    """The outputs (n, input_dim) of a MADE."""
    raw = mlp(network.named_params(), x[:, network.order], condition, network.activation, "", network.residual_blocks)
    raw = raw.reshape(len(x), network.input_dim, network.output_multiplier)
    outputs = np.empty_like(raw)
    outputs[:, network.order] = raw
    return tuple(np.moveaxis(outputs, 2, 0))


def _affine(layer, inputs, condition):
    """Shift and log-scale of an affine layer's values, in the order in which its network, at `inputs`, gives them."""
    params = layer.named_params()
    gain = params.pop("gain", np.ones(1)).astype(np.float64)
    raw = mlp(params, inputs, condition, layer.activation, residual_blocks=layer.residual_blocks)
    shift, scale = raw[:, 0::2], raw[:, 1::2]
    return shift, scale if layer.scale_activation == "none" else gain * np.tanh(scale)


def _shift_and_scale(layer, x, condition):
    """Shift and log-scale (n, input_dim) of an autoregressive layer at the input x of its network."""
    shift, scale = np.empty_like(x), np.empty_like(x)
    shift[:, layer.order], scale[:, layer.order] = _affine(layer, x[:, layer.order], condition)
    return shift, scale


def _one_feature_after_the_other(layer, solve, like, condition):
    """Solve x = solve(x, shift(x), scale(x)) in as many passes of the whole network as there are features."""
    x = np.zeros_like(like)
    for _ in range(layer.input_dim):
        x = solve(*_shift_and_scale(layer, x, condition))
    return x, _shift_and_scale(layer, x, condition)[1]


@functools.singledispatch
def forward(layer, x, condition=None):
    """(y, log_det) of a layer or flow, data to latent."""
    raise NotImplementedError(f"write the naive twin of {type(layer).__name__}")


@functools.singledispatch
def inverse(layer, y, condition=None):
    """(x, log_det) of a layer or flow, latent to data."""
    raise NotImplementedError(f"write the naive twin of {type(layer).__name__}")


@forward.register
def _(layer: Standardize, x, condition=None):
    return (x - layer.loc) / layer.scale, np.full(len(x), -np.log(layer.scale).sum())


@inverse.register
def _(layer: Standardize, y, condition=None):
    return y * layer.scale + layer.loc, np.full(len(y), np.log(layer.scale).sum())


@forward.register
def _(layer: Permutation, x, condition=None):
    return x[:, layer.order], np.zeros(len(x))


@inverse.register
def _(layer: Permutation, y, condition=None):
    return y[:, np.argsort(layer.order)], np.zeros(len(y))


@forward.register
def _(layer: CouplingLayer, x, condition=None):
    moved, y = layer.mask == 0, x.copy()
    shift, scale = _affine(layer, x[:, ~moved], condition)
    y[:, moved] = x[:, moved] * np.exp(scale) + shift
    return y, scale.sum(1)


@inverse.register
def _(layer: CouplingLayer, y, condition=None):
    moved, x = layer.mask == 0, y.copy()
    shift, scale = _affine(layer, y[:, ~moved], condition)
    x[:, moved] = (y[:, moved] - shift) * np.exp(-scale)
    return x, -scale.sum(1)


@forward.register
def _(layer: MAFLayer, x, condition=None):
    shift, scale = _shift_and_scale(layer, x, condition)
    return (x - shift) * np.exp(-scale), -scale.sum(1)


@inverse.register
def _(layer: MAFLayer, y, condition=None):
    x, scale = _one_feature_after_the_other(layer, lambda shift, scale: y * np.exp(scale) + shift, y, condition)
    return x, scale.sum(1)


@forward.register
def _(layer: IAFLayer, x, condition=None):
    z, scale = _one_feature_after_the_other(layer, lambda shift, scale: (x - shift) * np.exp(-scale), x, condition)
    return z, -scale.sum(1)


@inverse.register
def _(layer: IAFLayer, y, condition=None):
    shift, scale = _shift_and_scale(layer, y, condition)
    return y * np.exp(scale) + shift, scale.sum(1)


def _chain(layers, step, x, condition):
    """One layer after the other, each on the first values, as many as it takes."""
    x, log_det = np.array(x, float), np.zeros(len(x))
    for layer in layers:
        n = layer.input_dim
        x[:, :n], more = step(layer, x[:, :n], condition if layer.condition_dim else None)
        log_det = log_det + more
    return x, log_det


def _context(flow, condition):
    """What the layers of a flow see of a condition: standardized, and embedded where there is an embedding."""
    if flow.conditioning.table.shape[1]:
        condition = (condition - flow.conditioning.table[0]) / flow.conditioning.table[1]
    if flow.conditioning.embedding is None:
        return condition
    params = {name: value for name, value in flow.named_params().items() if name.startswith("embedding.")}
    return mlp(params, condition, None, flow.conditioning.embedding.activation, "embedding.")


def to_unconstrained(flow, x):
    """Columns of any support on the line, and the log-determinant."""
    t, log_det = np.array(x, float), np.zeros(len(x))
    for d, column in enumerate(flow.support or ()):
        v = t[:, d].copy()
        if isinstance(column, support.Positive):
            t[:, d] = np.log(v - column.lower)
            log_det -= np.log(v - column.lower)
        elif isinstance(column, support.Interval):
            u, width = (v - column.low) / (column.high - column.low), column.high - column.low
            t[:, d] = np.log(u / (1 - u))
            log_det -= np.log(u * (1 - u) * width)
        elif isinstance(column, support.Periodic):
            width, bound = column.high - column.low, flow.preprocessing.bound
            t[:, d] = ((v - column.low) % width / width * 2 - 1) * bound
            log_det += np.log(2 * bound / width)
    return t, log_det


def from_unconstrained(flow, t):
    """The inverse of `enter`."""
    x, log_det = np.array(t, float), np.zeros(len(t))
    for d, column in enumerate(flow.support or ()):
        if isinstance(column, support.Positive):
            x[:, d] = column.lower + np.exp(t[:, d])
        elif isinstance(column, support.Interval):
            x[:, d] = column.low + (column.high - column.low) / (1 + np.exp(-t[:, d]))
        elif isinstance(column, support.Periodic):
            x[:, d] = column.low + (column.high - column.low) * (t[:, d] / flow.preprocessing.bound + 1) / 2
    return x, log_det - to_unconstrained(flow, x)[1]


@forward.register
def _(flow: NormalizingFlow, x, condition=None):
    t, entering = to_unconstrained(flow, x)
    z, log_det = _chain(flow.flow_layers, forward, t, _context(flow, condition))
    return z, log_det + entering


@inverse.register
def _(flow: NormalizingFlow, y, condition=None):
    t, log_det = _chain(flow.flow_layers[::-1], inverse, y, _context(flow, condition))
    x, leaving = from_unconstrained(flow, t)
    return x, log_det + leaving


@functools.singledispatch
def distribution(base):
    """SciPy's distribution of the columns of a base."""
    raise NotImplementedError(f"write the naive twin of {type(base).__name__}")


@distribution.register
def _(base: Normal):
    params = base.named_params()
    return scipy.stats.norm(params["loc"], np.exp(params["log_scale"]) if base.learnable else params["scale"])


@distribution.register
def _(base: Uniform):
    return scipy.stats.uniform(base.low, base.high - base.low)


@distribution.register
def _(base: StudentT):
    return scipy.stats.t(base.degrees_of_freedom)


class _Cylinder:
    """A distribution of columns on the line and on circles."""

    def __init__(self, base):
        self._line, self._circle = scipy.stats.norm(), scipy.stats.uniform(-base.bound, 2 * base.bound)
        self._periodic = base.periodic

    def __getattr__(self, name):
        def choose(values):
            return np.where(self._periodic, getattr(self._circle, name)(values), getattr(self._line, name)(values))

        return choose


@distribution.register
def _(base: Cylinder):
    return _Cylinder(base)


def log_prob(flow, x, condition=None):
    """Log-density of x under a flow."""
    z, log_det = forward(flow, x, condition)
    return distribution(flow.base).logpdf(z).sum(1) + log_det


@functools.singledispatch
def dependence(layer, direction="forward"):
    """Which result (row) depends on which input (column), as promised."""
    raise NotImplementedError(f"say what {type(layer).__name__} promises")


@dependence.register
def _(layer: Standardize, direction="forward"):
    return np.eye(layer.input_dim, dtype=bool)


@dependence.register
def _(layer: Permutation, direction="forward"):
    return np.eye(layer.input_dim, dtype=bool)[layer.order if direction == "forward" else np.argsort(layer.order)]


@dependence.register
def _(layer: CouplingLayer, direction="forward"):
    return np.eye(layer.input_dim, dtype=bool) | np.outer(layer.mask == 0, layer.mask == 1)


@dependence.register(MAFLayer)
@dependence.register(IAFLayer)
def _(layer, direction="forward"):
    place = np.argsort(layer.order)
    return place[:, None] >= place


@dependence.register
def _(flow: NormalizingFlow, direction="forward"):
    layers = flow.flow_layers if direction == "forward" else flow.flow_layers[::-1]
    seen = np.eye(flow.input_dim, dtype=bool)
    for layer in layers:
        n = layer.input_dim
        seen[:n] = dependence(layer, direction) @ seen[:n]
    return seen


def jacobian(function, x, step=1e-5):
    """d result[i] / d x[j] (n, i, j) of a function of rows at x (n, d) by central differences, in one call."""
    n, d = x.shape
    moves = step * np.eye(d)
    ends = np.concatenate([x[:, None] + moves, x[:, None] - moves], axis=1).reshape(-1, d)
    results = np.reshape(function(ends), (n, 2, d, -1))
    return np.moveaxis(results[:, 0] - results[:, 1], 1, 2) / (2 * step)
