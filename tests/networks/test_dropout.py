"""Dropout acts in training alone, drops what it should, and its gradient is that of the network that is left."""

import numpy as np
import pytest

import npflows
from npflows.backends.cpu.kernels.dropout import dropout as drop

FLOWS = {
    "tanh": lambda **o: npflows.MAF(3, 2, (8, 8), activation="tanh", **o),
    "elu": lambda **o: npflows.RealNVP(3, 2, (8,), activation="elu", **o),
    "silu, residual blocks": lambda **o: npflows.MAF(3, 2, (8,), activation="silu", residual_blocks=2, **o),
    "tanh, residual blocks": lambda **o: npflows.RealNVP(3, 2, (8,), activation="tanh", residual_blocks=1, **o),
    "spline": lambda **o: npflows.NeuralSplineFlow(3, 1, (8,), 3, activation="tanh", **o),
}


def random_flow(name, dropout):
    flow = FLOWS[name](dropout=dropout, dtype="float64", rng=0)
    flow.params = flow.params + 0.3 * np.random.default_rng(1).normal(size=flow.num_params)
    return flow


def training_loss(flow, x, key):
    """Loss and packed gradient of one training step."""
    gradient, log_prob = np.zeros((1, flow.parameters.theta.size)), np.empty(len(x))
    dlog = np.full(len(x), -1 / len(x))
    flow.accumulate(x, None, dlog, gradient, log_prob=log_prob, key=key)
    return -log_prob.mean(), gradient[0][flow.parameters.free]


@pytest.mark.parametrize("name", FLOWS)
def test_gradient_is_that_of_the_network_that_is_left(name):
    flow, rng = random_flow(name, 0.3), np.random.default_rng(2)
    x, direction = rng.normal(size=(40, 3)), rng.normal(size=flow.num_params)
    params, (_, gradient) = flow.params, training_loss(flow, x, 7)
    step, losses = 1e-5, []
    for sign in (1, -1):
        flow.params = params + sign * step * direction
        losses.append(training_loss(flow, x, 7)[0])
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient @ direction, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", FLOWS)
def test_density_is_that_without_dropout(name):
    x = np.random.default_rng(0).normal(size=(20, 3))
    with_dropout, without = random_flow(name, 0.5), random_flow(name, 0.0)
    np.testing.assert_array_equal(with_dropout.log_prob(x), without.log_prob(x))
    assert training_loss(with_dropout, x, 1)[0] != training_loss(without, x, 1)[0]
    assert training_loss(with_dropout, x, 1)[0] != training_loss(with_dropout, x, 2)[0]


def test_training_has_the_same_bits_for_any_number_of_threads():
    x, params = np.random.default_rng(0).normal(size=(1500, 3)), []
    for n in (1, 2, 5):
        npflows.set_num_threads(n)
        flow = FLOWS["tanh"](dropout=0.2, rng=0)
        params.append(flow.fit(x, max_epochs=2, batch_size=700, rng=0).params.tobytes())
    npflows.set_num_threads(None)
    assert len(set(params)) == 1


def test_mask_drops_its_share_and_differs_from_sample_to_sample_unit_to_unit_layer_to_layer_and_step_to_step():
    def kept(key=1, first=0, layer=0, row=0):
        h = np.ones((50, 400), np.float32)
        drop(round(0.25 * 2**32), key, first, layer, row, h)
        assert set(np.unique(h)) == {np.float32(0), np.float32(1 / 0.75)}
        return h > 0

    here = kept()
    assert here.mean() == pytest.approx(0.75, abs=0.01)
    assert abs(here.mean(axis=0) - 0.75).max() < 0.35
    assert abs(here.mean(axis=1) - 0.75).max() < 0.1
    np.testing.assert_array_equal(kept(first=100)[:, :300], here[:, 100:])  # however samples are cut into blocks
    np.testing.assert_array_equal(kept(row=10)[:40], here[10:])
    for other in (kept(key=2), kept(layer=1), kept(first=400), kept(row=50)):
        assert (other == here).mean() == pytest.approx(0.75**2 + 0.25**2, abs=0.02)
