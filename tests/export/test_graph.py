"""Graphs of flows, evaluated by NumPy, give what flows give; and what can't be exported is refused by name."""

import numpy as np
import pytest
from export_cases import WHATS, assert_close, awkward, cases, evaluate, every_support, expected, far
from registry import LAYERS, MODELS, NOT_EXPORTED, build
from scipy.stats import norm

import npflows
from npflows import MAF, Glow, NormalizingFlow, StudentT
from npflows.export import bases, c_file
from npflows.export import graph as g
from npflows.export.gradient import gradients
from npflows.export.layers import NotExportableError, layer
from npflows.export.simplify import simplified
from npflows.export.tracing import Graph, trace


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_EXPORTED])
def test_every_model(name):
    flow = build(name)
    x, c = cases(flow)
    for what in WHATS[:4]:
        given, wanted = expected(flow, what, x, c)
        assert_close(evaluate(trace(flow, what), given), wanted, 2e-12)


LAYERS_OF_OTHERS = [
    name for name in LAYERS if any(word in name for word in ("gates", "degrees given", "inverted", "turned"))
]


@pytest.mark.parametrize("name", LAYERS_OF_OTHERS)
def test_layers_that_flows_of_other_libraries_need(name):
    flow = NormalizingFlow([build(name)], dtype="float64")
    x, c = cases(flow)
    for what in WHATS[:4]:
        given, wanted = expected(flow, what, x, c)
        assert_close(evaluate(trace(flow, what), given), wanted, 2e-11)


MONOTONE = [
    name
    for name in LAYERS
    if any(word in name for word in ("linear", "quadratic", "cubic", "slopes of the ends", "logistics", "Bernstein"))
]


@pytest.mark.parametrize("name", MONOTONE)
def test_splines_of_other_kinds_mixtures_and_polynomials(name):
    layer = build(name)
    flow = NormalizingFlow([layer], dtype="float64")
    x, c = cases(flow)
    by_steps = any(word in name for word in ("cubic", "logistics", "Bernstein"))
    turned = getattr(layer, "inverted", False)
    for what in WHATS[:4]:
        if by_steps and (what == "inverse") != turned:
            with pytest.raises(NotExportableError, match="is found by Newton's method in as many steps as it takes"):
                trace(flow, what)
            continue
        given, wanted = expected(flow, what, x, c)
        assert_close(evaluate(trace(flow, what), given), wanted, 2e-11)


@pytest.mark.parametrize("what", WHATS[:2])
def test_rows_without_a_density(what):
    flow, x, c = awkward()
    given, wanted = expected(flow, what, x, c)
    found = evaluate(trace(flow, what), given)
    assert_close(found, wanted, 1e-11)
    lost = wanted["log_prob"]
    assert np.isnan(lost).sum() == 4
    assert np.isneginf(lost).sum() == 6


@pytest.mark.parametrize("what", WHATS[:2])
def test_rows_beyond_the_range(what):
    flow, x = far()
    given, wanted = expected(flow, what, x, None)
    assert_close(evaluate(trace(flow, what), given), wanted, 1e-11)
    assert np.isneginf(wanted["log_prob"][2])
    assert np.isnan(wanted["log_prob"][3])


def test_both_directions_with_every_support():
    flow = every_support()
    c = np.random.default_rng(3).normal(size=(6, 2))
    x = flow.sample(6, 4, condition=c)
    for what in ("forward", "inverse"):
        given, wanted = expected(flow, what, x, c)
        assert_close(evaluate(trace(flow, what), given), wanted, 1e-11)


def test_samples_are_the_inverse_of_the_base():
    flow = build("MAF, uniform, condition")
    normals, c = np.random.default_rng(0).normal(size=(50, 3)), np.random.default_rng(1).normal(size=(50, 2))
    x = evaluate(trace(flow, "sample"), {"normals": normals, "condition": c})["x"]
    z, _ = flow.forward(x, c)
    low, high = (flow.base.parameters.views()[name] for name in ("low", "high"))
    np.testing.assert_allclose(z, low + (high - low) * norm.cdf(normals), atol=1e-11)


def test_each_value_once():
    x = g.Node("input", (), (3,), "float64", name="x")
    y = g.exp(x) + g.exp(x) * np.ones(3) + np.zeros(3)
    nodes = g.in_order([simplified(Graph({"x": x}, {"y": y})).outputs["y"]])
    assert [node.op for node in nodes] == ["input", "exp", "add"]


@pytest.mark.parametrize("op", ["exp", "log", "log1p", "expm1", "sqrt", "abs", "tanh", "sin", "cos", "arcsinh", "sigmoid",
                                "softplus"])  # fmt: skip
def test_slopes(op):
    x = g.Node("input", (), (4,), "float64", name="x")
    at = np.array([[0.3, 1.2, 2.5, 1e-3]])
    (slope,) = gradients(g.total(g.apply(op, x)), [x])
    found = evaluate(Graph({"x": x}, {"dx": slope}), {"x": at})["dx"]
    step = 1e-6 * at
    wanted = (g.PRIMITIVES[op](at + step) - g.PRIMITIVES[op](at - step)) / (2 * step)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_softplus_has_its_slope_at_zero():
    x = g.Node("input", (), (1,), "float64", name="x")
    (slope,) = gradients(g.total(g.softplus(x)), [x])
    assert evaluate(Graph({"x": x}, {"dx": slope}), {"x": np.zeros((1, 1))})["dx"] == 0.5


def test_what_is_refused():
    with pytest.raises(NotExportableError, match="places that each image draws"):
        trace(Glow((2, 2, 1), 1, 1, (4,), levels=16, rng=0), "log_prob")
    with pytest.raises(NotExportableError, match=r"draw z with flow\.base\.sample"):
        trace(NormalizingFlow([npflows.MAFLayer(2, (4,), rng=0)], StudentT(2)), "sample")
    with pytest.raises(NotExportableError, match="an autoregressive layer of 200 columns"):
        trace(MAF(200, 1, (200,), rng=0), "sample")
    with pytest.raises(ValueError, match="what must be one of"):
        trace(MAF(2, 1, (4,), rng=0), "density")
    with pytest.raises(ValueError, match="prefix must be a name in C, letters, digits and _, got '2d'"):
        MAF(2, 1, (4,), rng=0).to_c("flow.c", prefix="2d")
    with pytest.raises(ValueError, match="prefix must be a name in C, letters, digits and _, got 5"):
        MAF(2, 1, (4,), rng=0).to_c("flow.c", prefix=5)


def test_weights_that_masks_forbid_do_not_count_in_c(monkeypatch):
    flow = MAF(4, 2, (32, 32), rng=0)
    assert flow.parameters.theta.size > 1.5 * flow.num_params
    monkeypatch.setattr(c_file, "MOST_PARAMETERS", flow.num_params)
    assert f"{flow.num_params} parameters (float32)" in c_file.c_text(flow)
    monkeypatch.setattr(c_file, "MOST_PARAMETERS", flow.num_params - 1)
    with pytest.raises(
        NotExportableError, match=f"up to {flow.num_params - 1:,} parameters, .* {flow.num_params:,}: export"
    ):
        c_file.c_text(flow)


class Custom:
    """What an operation of the user's own says of itself."""

    name = "SinhArcsinh"


def test_a_layer_of_ones_own_is_refused():
    with pytest.raises(NotExportableError, match="a layer SinhArcsinh can't be exported"):
        layer(Custom(), np.zeros(0), np.zeros(2), np.zeros(0), "float64")
    with pytest.raises(NotExportableError, match="a base distribution SinhArcsinh can't be exported"):
        bases.log_prob(Custom(), np.zeros(0), np.zeros(2))
