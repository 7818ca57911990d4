"""A layer that a user writes outside the package works everywhere; the one of examples/custom_layer.py."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from helpers import jacobian

import npflows
from npflows import extend

PATH = Path(__file__).parents[2] / "examples" / "custom_layer.py"


@pytest.fixture(scope="module")
def layer_class():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("custom_layer", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SinhArcsinh


@pytest.fixture
def layer(layer_class):
    layer = layer_class(3, dtype="float64")
    layer.params = 0.4 * np.random.default_rng(0).normal(size=6)
    return layer


X = np.random.default_rng(1).normal(size=(40, 3))


def test_the_example_is_as_short_as_it_says():
    assert len(PATH.read_text().splitlines()) < 80


def test_layer_is_the_formula_and_its_own_inverse(layer):
    a, b = layer.params.reshape(3, 2).T
    y, log_det = layer.forward(X)
    np.testing.assert_allclose(y, np.sinh(np.exp(a) * np.arcsinh(X) + b), rtol=1e-13)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian(lambda x: layer.forward(x)[0], X))[1], atol=1e-8)
    back, log_det_back = layer.inverse(y)
    np.testing.assert_allclose(back, X, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-12)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_those_of_differences(layer, direction):
    rng = np.random.default_rng(2)
    dy, dlog, dx, dp = rng.normal(size=X.shape), rng.normal(size=len(X)), rng.normal(size=X.shape), rng.normal(size=6)
    start = layer.params

    def value(step):
        layer.params = start + step * dp
        y, log_det = getattr(layer, direction)(X + step * dx)
        layer.params = start
        return (y * dy).sum() + (log_det * dlog).sum()

    cotangents = getattr(layer, direction + "_vjp")(X, dy, dlog)
    expected = (value(1e-6) - value(-1e-6)) / 2e-6
    assert (cotangents.input * dx).sum() + cotangents.params @ dp == pytest.approx(expected, rel=1e-7)


def test_flow_with_it_trains_saves_and_loads(layer_class, tmp_path):
    x = np.sinh(np.random.default_rng(0).normal(size=(2000, 2)) + 0.5)
    flow = npflows.NormalizingFlow([layer_class(2), npflows.MAFLayer(2, (8,), rng=1)])
    before = flow.log_prob(x).mean()
    flow.fit(x, max_epochs=5, learning_rate=1e-2, rng=0, progress=False)
    assert flow.log_prob(x).mean() > before + 0.5
    flow.save(tmp_path / "flow.npz")
    with pytest.raises(npflows.FlowFileError, match="SinhArcsinh is unknown here: pass it in classes="):
        npflows.load(tmp_path / "flow.npz")
    again = npflows.load(tmp_path / "flow.npz", classes=[layer_class])
    np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))
    twin = npflows.create(flow.config, classes=[layer_class])
    assert [type(part) for part in twin.flow_layers] == [type(part) for part in flow.flow_layers]


def test_everything_that_a_layer_needs_is_in_one_place():
    assert all(hasattr(extend, name) for name in extend.__all__)
    assert extend.Layer is npflows.Layer
