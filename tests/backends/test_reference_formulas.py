"""The reference backend against formulas that share nothing with it: those of the papers, written down once more, and
SciPy's convolutions."""

import numpy as np
import pytest
import scipy.signal
from scipy.special import expit, log_expit
from spline_cases import (
    BINS,
    BOUND,
    LEAST,
    difficult,
    for_every_kind,
    formula,
    knots_of,
    paper,
    raw_parameters,
    root,
    slopes_of,
)

from npflows.backends.reference.common import Given
from npflows.backends.reference.layers import forward, inverse
from npflows.backends.reference.networks import network
from npflows.backends.reference.scalar_maps import scalar_map
from npflows.core.operations import (
    CLIPS,
    ActNorm,
    Affine,
    Autoregressive,
    Conv1x1,
    ConvNet,
    Coupling,
    LULinear,
    Made,
    Mlp,
    Spline,
)

RNG = np.random.default_rng(0)
N = 6
CONDITION = RNG.normal(size=(N, 2))
GIVEN = Given(CONDITION)


def parameters(operation, strength=0.5):
    """Random ones: all in one vector, and by name."""
    theta = strength * RNG.normal(size=operation.size)
    return theta, operation.views(theta)


CLAMP = 0.4
"""The largest size of log-scales that are clipped: `clamp` of FrEIA."""


def log_scales(activation, r, gain):
    """s from its raw parameter."""
    clips = {
        "soft_clip": r / (1 + np.abs(r) / CLAMP),
        "hard_clip": np.maximum(np.minimum(r, 0.2), -CLAMP),
        "tanh_clip": CLAMP * np.tanh(r),
        "sigmoid_clip": CLAMP * 2 * (expit(r) - 0.5),
        "atan_clip": CLAMP * 0.636 * np.arctan(r),
    }
    others = {"none": r, "tanh": np.tanh(r), "tanh_gain": gain * np.tanh(r), "sigmoid": log_expit(r + 2)}
    return (clips | others)[activation]


@pytest.mark.parametrize("shift_first", [False, True])
@pytest.mark.parametrize("activation", ["none", "tanh", "tanh_gain", "sigmoid", *CLIPS])
def test_a_coupling_is_equation_8_of_realnvp(activation, shift_first):
    network = Mlp((5,), "tanh", condition_dim=2, n_in=2, n_out=6)
    ends = {"least": np.exp(-CLAMP), "most": np.exp(0.2)} if activation in CLIPS else {}
    operation = Coupling((0, 3), (4, 1, 2), network, Affine(activation, shift_first, **ends))
    theta, p = parameters(operation)
    x = RNG.normal(size=(N, 5))
    hidden = np.tanh(x[:, [0, 3]] @ p["network.weight_0"].T + p["network.bias_0"]
                     + CONDITION @ p["network.condition_weight"].T)  # fmt: skip
    raw = hidden @ p["network.weight_1"].T + p["network.bias_1"]
    t, s = raw[:, 0::2], log_scales(activation, raw[:, 1::2], p.get("gain", 1.0))
    moved = x[:, [4, 1, 2]]
    expected = x.copy()
    expected[:, [4, 1, 2]] = (moved - t) * np.exp(-s) if shift_first else moved * np.exp(s) + t
    y, log_det = forward(operation, theta, x, GIVEN)
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    np.testing.assert_allclose(log_det, (-s if shift_first else s).sum(axis=1), rtol=1e-13, atol=1e-14)


def autoregressive(inverted):
    order = [2, 0, 3, 1]
    network = Made.of(4, 2, (6, 5), (1, 1, 1, 1), activation="silu", condition_dim=2)
    operation = Autoregressive(tuple(order), network, Affine("tanh_gain", not inverted), inverted)
    theta, p = parameters(operation)
    degrees = [np.arange(1, 5), np.arange(6) * 4 // 6, np.arange(5) * 4 // 5, np.repeat(np.arange(1, 5), 2)]

    def shift_and_scale(x):
        """Equations 8 and 9 of MADE: a unit of degree d sees those of degree <= d, an output those of degree < its own."""
        h = x[:, order]
        for layer in range(3):
            above, below = degrees[layer + 1][:, None], degrees[layer]
            mask = below < above if layer == 2 else below <= above
            h = h @ (mask * p[f"network.weight_{layer}"]).T + p[f"network.bias_{layer}"]
            if layer == 0:
                h = h + CONDITION @ p["network.condition_weight"].T
            if layer < 2:
                h = h / (1 + np.exp(-h))
        shift, scale = np.empty((2, N, 4))
        shift[:, order], scale[:, order] = h[:, 0::2], p["gain"] * np.tanh(h[:, 1::2])
        return shift, scale

    return operation, theta, shift_and_scale


@pytest.mark.parametrize("inverted", [False, True], ids=["MAF", "IAF"])
def test_an_autoregressive_layer_is_equation_4_of_maf_and_its_inverse_one_value_after_the_other(inverted):
    operation, theta, shift_and_scale = autoregressive(inverted)
    x = RNG.normal(size=(N, 4))
    known, solved = (inverse, forward) if inverted else (forward, inverse)
    shift, s = shift_and_scale(x)
    expected, of_log_det = (x * np.exp(s) + shift, s) if inverted else ((x - shift) * np.exp(-s), -s)
    y, log_det = known(operation, theta, x, GIVEN)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    np.testing.assert_allclose(log_det, of_log_det.sum(axis=1), rtol=1e-12)
    found = np.zeros_like(x)
    for _ in range(4):  # each pass makes one more value right
        shift, s = shift_and_scale(found)
        found = (x - shift) * np.exp(-s) if inverted else x * np.exp(s) + shift
    back, log_det = solved(operation, theta, x, GIVEN)
    np.testing.assert_allclose(back, found, rtol=1e-12)
    shift, s = shift_and_scale(found)
    np.testing.assert_allclose(log_det, (-s if inverted else s).sum(axis=1), rtol=1e-12)


def factors(packed):
    """L and U of matrices that lie in one."""
    return np.tril(packed, -1) + np.eye(len(packed)), np.triu(packed, 1) + np.diag(np.exp(np.diag(packed)))


def test_linear_layers_are_products_of_matrices():
    x = RNG.normal(size=(N, 6))
    operation = LULinear((2, 0, 1, 5, 4, 3))
    theta, p = parameters(operation)
    lower, upper = factors(p["matrix"])
    y, log_det = forward(operation, theta, x, GIVEN)
    np.testing.assert_allclose(y, x[:, [2, 0, 1, 5, 4, 3]] @ (lower @ upper).T + p["shift"], rtol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(lower @ upper)[1], rtol=1e-12)
    operation = LULinear((2, 0, 1, 5, 4, 3), (1, -1, 1, 1, -1, 1))
    theta, p = parameters(operation)
    lower, upper = factors(p["matrix"])
    y, _ = forward(operation, theta, x, GIVEN)
    signed = x[:, [2, 0, 1, 5, 4, 3]] @ upper.T * operation.signs
    np.testing.assert_allclose(y, signed @ lower.T + p["shift"], rtol=1e-12)
    for kind in ("plu", "full"):
        operation = Conv1x1(6, 3, kind)
        theta, p = parameters(operation)
        matrix = np.matmul(*factors(p["matrix"])) if kind == "plu" else p["matrix"]
        y, log_det = forward(operation, theta, x, GIVEN)
        np.testing.assert_allclose(y, np.hstack([x[:, :3] @ matrix.T, x[:, 3:] @ matrix.T]), rtol=1e-12)
        np.testing.assert_allclose(log_det, 2 * np.linalg.slogdet(matrix)[1], rtol=1e-12)
    operation = ActNorm(6, 3)
    theta, p = parameters(operation)
    y, log_det = forward(operation, theta, x, GIVEN)
    np.testing.assert_allclose(y, (x + np.tile(p["bias"], 2)) * np.exp(np.tile(p["logs"], 2)), rtol=1e-12)
    np.testing.assert_allclose(log_det, 2 * p["logs"].sum(), rtol=1e-12)


@pytest.mark.parametrize("actnorm", [False, True])
def test_convolutions_are_those_of_scipy_layer_after_layer(actnorm):
    pixels = np.arange(20)  # images of 4 x 5 pixels and two channels enter, of which the second one is a given one
    operation = ConvNet(4, 5, (2, 3, 4, 1), tuple((20 + pixels).tolist()), tuple(pixels.tolist()), "elu", actnorm, 2)
    theta, p = parameters(operation)
    x = RNG.normal(size=(N, 20))
    images = np.stack([np.zeros((N, 4, 5)), x.reshape(N, 4, 5)], axis=1)
    for layer in range(3):
        images = np.array([
            [sum(scipy.signal.correlate2d(image[i], kernel[..., i], "same") for i in range(len(image)))
             for kernel in p[f"weight_{layer}"]] for image in images
        ])  # fmt: skip
        images += p[f"bias_{layer}"][:, None, None]
        if layer == 0:
            images += (CONDITION @ p["condition_weight"].T)[:, :, None, None]
        if layer < 2:
            images *= np.exp(p[f"logs_{layer}"])[:, None, None] if actnorm else 1.0
            images = np.where(images > 0, images, np.expm1(images))
    np.testing.assert_allclose(network(operation, theta, x, GIVEN), images.reshape(N, 20), rtol=1e-11, atol=1e-13)


@for_every_kind
def test_a_spline_is_that_of_its_paper_and_its_inverse_the_root_by_bisection(kind):
    operation = Spline(BINS, BOUND, **LEAST)
    for raw in raw_parameters(kind, 5):
        x = difficult(knots_of(raw)[0], "float64", 40)[:, 0] * 1.02
        every = np.tile(raw, (len(x), 1, 1))
        y, log_slope = scalar_map(operation, np.zeros(0), x[:, None], every)
        expected, expected_log_slope = formula(x, raw)
        np.testing.assert_allclose(y[:, 0], expected, rtol=0, atol=1e-9)
        if kind == "random":
            np.testing.assert_allclose(log_slope[:, 0], expected_log_slope, atol=1e-8)
            back, _ = scalar_map(operation, np.zeros(0), x[:, None], every, inverse=True)
            np.testing.assert_allclose(back[:, 0], [root(value, raw)[0] for value in x], rtol=0, atol=1e-9)


def test_a_spline_on_a_circle_has_a_slope_of_its_own_at_both_ends():
    raw = RNG.normal(size=3 * BINS)
    slopes = slopes_of(raw)
    x = RNG.uniform(-BOUND, BOUND, 40)
    expected, slope = paper(x, *knots_of(raw), np.append(slopes, slopes[0]))
    operation = Spline(BINS, BOUND, **LEAST, circular=(True,))
    y, log_slope = scalar_map(operation, np.zeros(0), x[:, None], np.tile(raw, (40, 1, 1)))
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_slope[:, 0], np.log(slope), atol=1e-11)
