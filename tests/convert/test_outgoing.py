"""Flows of npflows as objects of zuko and flowjax: the same numbers there, back again, and trained on.

What is refused is tested everywhere, the rest where zuko or flowjax is installed: benchmarks/peers/convert.sh runs it.
"""

import math
import pickle
import sys

import numpy as np
import pytest

import npflows
from npflows import MAF, NormalizingFlow, convert
from npflows.convert.outward import network_of, parts_of
from npflows.core.operations import CLIPS
from npflows.layers import (
    ActNormLayer,
    CouplingLayer,
    Householder,
    IAFLayer,
    InvertibleConv1x1,
    LULinear,
    MAFLayer,
    Permutation,
    QRLinear,
    SplineAutoregressiveLayer,
    SplineCouplingLayer,
    SplineLayer,
    Standardize,
    SVDLinear,
)

WIDE = {"hidden_dims": (9, 7), "dtype": "float64", "rng": 0}
MASK, FACTOR = [0, 1, 1, 0], np.tril(np.full((3, 3), 0.4)) + np.eye(3)
CIRCLE = {"min_bin_width": 0, "min_bin_height": 0, "min_derivative": 0, "least_slope": 1e-3}
SCALES: dict[str, dict] = {kind: {} for kind in ("tanh", "tanh_gain", "none", "sigmoid")} | {
    kind: {"min_scale": 1e-3} for kind in ("softplus", *CLIPS)
}


def of(*layers, base="normal", **options):
    return NormalizingFlow(list(layers), base, dtype="float64", rng=0, **options)


def normal(**options):
    return npflows.Normal(2, [1, 2], [0.5, 3], dtype="float64", **options)


def affine(kind):
    options = {**WIDE, **SCALES[kind], "scale_activation": kind, "condition_dim": 1}
    return of(MAFLayer(4, order=[2, 0, 3, 1], **options), IAFLayer(4, **options), CouplingLayer(MASK, **options),
              MAFLayer(4, shift_first=False, **options), CouplingLayer(MASK, shift_first=True, **options))  # fmt: skip


def residual(where):
    options = {"hidden_dims": (8,), "residual_blocks": 2, "residual_activations": where, "dtype": "float64", "rng": 0}
    return of(MAFLayer(3, activation="silu", **options), CouplingLayer([1, 0, 0], condition_dim=2, **options),
              SplineCouplingLayer([0, 1, 1], num_bins=4, condition_dim=2, **options))  # fmt: skip


def conditions(flow):
    flow.standardize_condition([3.0] * flow.condition_dim, [0.5] * flow.condition_dim, 1.5)
    return flow


BOTH = {
    "MAF": lambda: MAF(4, 3, **WIDE),
    "MAF, condition": lambda: conditions(MAF(3, 2, condition_dim=2, activation="tanh", **WIDE)),
    "MAF, one column, condition": lambda: conditions(MAF(1, 2, condition_dim=1, **WIDE)),
    "IAF": lambda: npflows.IAF(3, 2, activation="elu", actnorm=True, **WIDE),
    "RealNVP": lambda: npflows.RealNVP(5, 3, mask_type="half", activation="leaky_relu", **WIDE),
    "NSF": lambda: conditions(npflows.NeuralSplineFlow(4, 2, condition_dim=1, num_bins=5, **WIDE)),
    "NSF, masked": lambda: npflows.NeuralSplineFlow(3, 2, conditioner="autoregressive", num_bins=4, tail_bound=3.0, **WIDE),
    **{f"scales by {kind}": lambda kind=kind: affine(kind) for kind in SCALES},
    "a condition in some layers": lambda: of(
        MAFLayer(3, **WIDE),
        CouplingLayer([1, 0, 1], condition_dim=2, **WIDE),
        SplineCouplingLayer([0, 1, 0], num_bins=4, **WIDE),
    ),
    "a largest scale": lambda: of(MAFLayer(3, scale_activation="softplus", min_scale=0.1, max_scale=0.8, **WIDE)),
    "splines inverted": lambda: of(
        SplineAutoregressiveLayer(4, num_bins=4, inverted=True, **WIDE),
        SplineCouplingLayer(MASK, num_bins=5, inverted=True, **WIDE),
    ),
    "without correlations": lambda: of(
        Standardize(3, [1.0, -2.0, 300.0], [0.1, 2.0, 50.0], FACTOR, dtype="float64"), MAFLayer(3, **WIDE)
    ),
    "matrices": lambda: of(
        LULinear(4, rng=1, dtype="float64"),
        InvertibleConv1x1(4, rng=2, dtype="float64"),
        Permutation(4, [3, 0, 1, 2], dtype="float64"),
        ActNormLayer(4, dtype="float64"),
    ),
    "a learned base": lambda: of(MAFLayer(2, **WIDE), base=normal(learnable=True)),
    "another base": lambda: of(MAFLayer(2, **WIDE), base=normal()),
    "a uniform base": lambda: of(
        SplineCouplingLayer([0, 1], tail_bound=2, **WIDE), base=npflows.Uniform(2, -2.0, 2.0, dtype="float64")
    ),
}  # fmt: skip
ZUKO = {
    **BOTH,
    **{f"residual networks, {where}": lambda where=where: residual(where) for where in ("all", "blocks", "inner")},
    "MAF, one column": lambda: MAF(1, 2, **WIDE),
    "a spline of each column": lambda: of(SplineLayer(3, num_bins=4, dtype="float64")),
    "a spline of each column, inverted": lambda: of(SplineLayer(3, num_bins=4, inverted=True, dtype="float64")),
    "a spline of each column, a condition elsewhere": lambda: of(
        SplineLayer(3, num_bins=4, dtype="float64"),
        MAFLayer(3, condition_dim=1, **WIDE),
        LULinear(3, rng=0, dtype="float64"),
    ),
    "zuko's splines": lambda: of(SplineAutoregressiveLayer(3, num_bins=4, **CIRCLE, **WIDE)),
    "zuko's circles": lambda: of(
        SplineAutoregressiveLayer(2, num_bins=4, tail_bound=math.pi, turned=True, **CIRCLE, **WIDE),
        base=npflows.Uniform(2, -math.pi, math.pi, dtype="float64"),
    ),
    "products of reflections": lambda: of(
        Householder(4, 3, dtype="float64"),
        QRLinear(4, dtype="float64"),
        SVDLinear(4, dtype="float64"),
        LULinear(4, signs=[1, -1, -1, 1], rng=0, dtype="float64"),
    ),
    "a full matrix": lambda: of(InvertibleConv1x1(4, "full", rng=3, dtype="float64")),
}
FLOWJAX = {**BOTH, "learned slopes at the ends": lambda: of(SplineCouplingLayer(MASK, num_bins=4, free_ends=True, **WIDE))}


def trained_like(make):
    """A flow with numbers far from where they start, rows, some far out, and conditions."""
    flow, rng = make(), np.random.default_rng(1)
    free = flow.parameters.free
    flow.parameters.theta[free] += 0.4 * rng.normal(size=free.sum())
    for layer in flow.data_dependent_layers:
        layer.initialized = True
    x = flow.standardize.loc + flow.standardize.scale * rng.normal(size=(40, flow.input_dim)) * 2
    if isinstance(flow.base, npflows.Uniform):
        x = rng.uniform(-1.9, 1.9, size=x.shape)
    else:
        x[:4] *= 10
    c = 3 + rng.normal(size=(40, flow.condition_dim)) * 2 if flow.condition_dim else None
    return flow, x, c


def assert_same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ZUKO)
def test_zuko(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("zuko")
    flow, x, c = trained_like(ZUKO[name])
    wanted = flow.log_prob(x, c)
    drawn = torch.random.get_rng_state()
    made = convert.to_zuko(flow)
    assert torch.equal(drawn, torch.random.get_rng_state())
    given = () if c is None else (torch.as_tensor(c),)
    with torch.no_grad():
        distribution = made(*given)
        assert_same(distribution.log_prob(torch.as_tensor(x)).numpy(), wanted)
        z, log_det = distribution.transform.call_and_ladj(torch.as_tensor(x))
        assert_same(z.numpy(), flow.forward(x, c)[0])
        assert_same(log_det.reshape(len(x), -1).sum(1).numpy(), flow.forward(x, c)[1])
        assert_same(pickle.loads(pickle.dumps(made))(*given).log_prob(torch.as_tensor(x)).numpy(), wanted)
    repr(made)
    assert_same(convert.from_zuko(made).log_prob(x, c), wanted)
    narrow = convert.to_zuko(flow, dtype="float32")
    with torch.no_grad():
        log_prob = narrow(*(g.float() for g in given)).log_prob(torch.as_tensor(x, dtype=torch.float32)).numpy()
    near = np.abs(wanted) < 1e3
    np.testing.assert_allclose(log_prob[near], wanted[near], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["MAF, condition", "NSF", "RealNVP"])
def test_zuko_trains_on(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("zuko")
    flow, x, c = trained_like(ZUKO[name])
    x, before = x[4:], flow.log_prob(x[4:], None if c is None else c[4:]).mean()
    made = convert.to_zuko(flow)
    given = () if c is None else (torch.as_tensor(c[4:]),)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-3)
    for _ in range(20):
        loss = -made(*given).log_prob(torch.as_tensor(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    back = convert.from_zuko(made).log_prob(x, None if c is None else c[4:])
    assert back.mean() > before + 0.1
    with torch.no_grad():
        assert_same(made(*given).log_prob(torch.as_tensor(x)).numpy(), back)


@pytest.fixture
def jax():
    found = pytest.importorskip("jax")
    pytest.importorskip("flowjax")
    before = found.config.jax_enable_x64
    found.config.update("jax_enable_x64", True)
    yield found
    found.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("name", FLOWJAX)
def test_flowjax(name, jax):
    flow, x, c = trained_like(FLOWJAX[name])
    wanted = flow.log_prob(x, c)
    made = convert.to_flowjax(flow)
    given = () if c is None else (jax.numpy.asarray(c),)
    assert_same(made.log_prob(jax.numpy.asarray(x), *given), wanted)
    z = jax.numpy.asarray(flow.forward(x, c)[0])
    carried = jax.vmap(made.bijection.transform)(z, *given) if given else jax.vmap(made.bijection.transform)(z)
    np.testing.assert_allclose(flow.forward(np.asarray(carried), c)[0], z, rtol=1e-7, atol=1e-7)
    assert_same(convert.from_flowjax(made).log_prob(x, c), wanted)


@pytest.mark.parametrize("name", ["MAF, condition", "NSF", "RealNVP"])
def test_flowjax_trains_on(name, jax):
    eqx = pytest.importorskip("equinox")
    paramax = pytest.importorskip("paramax")
    flow, x, c = trained_like(FLOWJAX[name])
    given = () if c is None else (jax.numpy.asarray(c[4:]),)
    x, before = x[4:], flow.log_prob(x[4:], None if c is None else c[4:]).mean()
    params, static = eqx.partition(convert.to_flowjax(flow), eqx.is_inexact_array)

    @eqx.filter_jit
    def step(params):
        def loss(params):
            return -paramax.unwrap(eqx.combine(params, static)).log_prob(jax.numpy.asarray(x), *given).mean()

        gradient = eqx.filter_grad(loss)(params)
        return jax.tree_util.tree_map(lambda p, g: p - 1e-3 * jax.numpy.clip(g, -1, 1), params, gradient)

    for _ in range(10):
        params = step(params)
    made = eqx.combine(params, static)
    log_prob = np.asarray(made.log_prob(jax.numpy.asarray(x), *given))
    assert log_prob.mean() > before
    assert_same(convert.from_flowjax(made).log_prob(x, None if c is None else c[4:]), log_prob)


def test_jax_in_single_precision(jax):
    flow, x, _ = trained_like(FLOWJAX["MAF"])
    with pytest.raises(convert.ConversionError, match="JAX computes in another dtype than float32"):
        convert.to_flowjax(flow, dtype="float32")
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(convert.ConversionError, match="JAX computes in another dtype than float64"):
        convert.to_flowjax(flow)
    made = convert.to_flowjax(flow, dtype="float32")
    np.testing.assert_allclose(made.log_prob(x[4:]), flow.log_prob(x[4:]), rtol=1e-3, atol=1e-3)


SMALL = {"hidden_dims": (4,), "rng": 0}
REFUSED = {
    "a support": (
        lambda: MAF(2, 1, support=[npflows.support.positive(), npflows.support.real()], **SMALL),
        "the support .* has no counterpart",
    ),
    "an embedding": (lambda: MAF(2, 1, condition_dim=2, embedding_dims=(3,), **SMALL), "embedding of the condition"),
    "an image": (lambda: npflows.RealNVP((2, 2, 1), 2, **SMALL), r"samples of shape \(2, 2, 1\)"),
    "something else": (lambda: 3, "a flow of npflows is needed, got int"),
}


def with_layer(layer, **options):
    return NormalizingFlow([layer], rng=0, **options)


GATED = {"residual_blocks": 1, "condition_dim": 1, **SMALL}
REFUSED_NETWORKS = {
    "dropout": (lambda: MAFLayer(2, dropout=0.1, **SMALL), r"dropout=0.1 \(MAFLayer\) has no counterpart"),
    "gates": (lambda: CouplingLayer([0, 1], gated=True, **GATED), "residual blocks that see the condition"),
    "conditions in blocks": (
        lambda: CouplingLayer([0, 1], condition_in="blocks", **GATED),
        "blocks that see the condition",
    ),
}


@pytest.mark.parametrize("what", REFUSED_NETWORKS)
def test_networks_that_no_library_takes(what):
    make, message = REFUSED_NETWORKS[what]
    (step,) = parts_of(with_layer(make()), None).steps
    with pytest.raises(convert.ConversionError, match=message):
        network_of(step.operation.conditioner, step.views, step.name, 1)


REFUSED_THERE = {
    "a base": (lambda: MAF(2, 1, base_distribution="student_t", **SMALL), "the base distribution StudentT is not handed"),
    "circles": (
        lambda: with_layer(SplineCouplingLayer([0, 1], circular=[False, True], **SMALL)),
        "SplineCouplingLayer has no counterpart",
    ),
    "a spline": (lambda: with_layer(SplineLayer(2, least_slope=0.1, min_derivative=0, turned=True)), "no counterpart"),
}


@pytest.mark.parametrize("what", REFUSED_THERE)
@pytest.mark.parametrize("library", ["zuko", "flowjax"])
def test_what_is_refused(what, library, jax):
    pytest.importorskip(library)
    make, message = REFUSED_THERE[what]
    with pytest.raises(convert.ConversionError, match=message):
        {"zuko": convert.to_zuko, "flowjax": convert.to_flowjax}[library](make(), dtype="float64")


def test_what_a_library_that_is_missing_says(monkeypatch):
    for library in ("zuko", "flowjax"):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=f"to_{library} needs {library}: pip install {library}"):
            getattr(convert, f"to_{library}")(MAF(2, 1, **SMALL))


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_library_takes(what):
    make, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message):
        parts_of(make(), None)
