"""Couplings with convolutions: what they see of an image, and what layers of images refuse."""

import numpy as np
import pytest

from npflows import (
    ActNormLayer,
    AffineCouplingLayer,
    CouplingLayer,
    GlowBlock,
    InvertibleConv1x1,
    NormalizingFlow,
    RealNVP,
    Split,
    Squeeze,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.gamma(2.0, size=(40, 4, 6, 3)) * [1.0, 30.0, 1e-2] + [0.0, -100.0, 5.0]


# couplings with convolutions


def parity(height, width, channels):
    return (np.indices((height, width, channels))[:2].sum(axis=0) + 1) % 2


@pytest.mark.parametrize(("hidden_dims", "reach"), [((), 1), ((6,), 2), ((6, 5, 4), 2)])
def test_a_coupling_with_convolutions_sees_neighbors_alone(hidden_dims, reach):
    layer = CouplingLayer(parity(7, 7, 1), hidden_dims, network="conv", activation="silu", dtype="float64", rng=0)
    layer.params = layer.params + 0.3 * RNG.normal(size=layer.num_params)
    x = RNG.normal(size=(4, 7, 7, 1))
    y, _ = layer.forward(x)
    moved = x.copy()
    moved[:, 3, 3] += 1.0
    assert parity(7, 7, 1)[3, 3] == 1
    changed = (np.abs(layer.forward(moved)[0] - y) > 1e-12).any(axis=0)[..., 0]
    near = np.maximum(*abs(np.indices((7, 7)) - 3)) <= reach
    np.testing.assert_array_equal(changed, near & (parity(7, 7, 1)[..., 0] == 0) | (np.indices((7, 7)) == 3).all(axis=0))


def test_nothing_wraps_at_the_edge_of_an_image():
    layer = AffineCouplingLayer(2, (6, 5), dtype="float64", rng=0)
    layer.params = layer.params + 0.3 * RNG.normal(size=layer.num_params)
    x = RNG.normal(size=(3, 6, 6, 2))
    y, _ = layer.forward(x)
    for edge, far in (((0, 0), np.s_[3:]), ((2, 5), np.s_[:, :2]), ((5, 1), np.s_[:3])):
        moved = x.copy()
        moved[:, edge[0], edge[1], 0] += 5.0
        difference = np.abs(layer.forward(moved)[0] - y).max(axis=(0, 3))
        np.testing.assert_array_equal(difference[far], 0)
        assert difference[edge] > 0


def test_a_coupling_moves_images_alike_wherever_a_pattern_lies():
    layer = AffineCouplingLayer(2, (6, 5), scale_activation="tanh_gain", dtype="float64", rng=0)
    layer.params = layer.params + 0.3 * RNG.normal(size=layer.num_params)
    x = np.zeros((9, 9, 2))
    x[2:5, 2:5] = RNG.normal(size=(3, 3, 2))
    y, _ = layer.forward(x)
    shifted, _ = layer.forward(np.roll(x, (2, 2), axis=(0, 1)))
    np.testing.assert_allclose(shifted[4:7, 4:7], y[2:5, 2:5], atol=1e-12)


def test_a_dense_network_sees_the_whole_image():
    layer = AffineCouplingLayer(2, (16,), "dense", image_size=(4, 4), dtype="float64", rng=0)
    layer.params = layer.params + 0.3 * RNG.normal(size=layer.num_params)
    x = RNG.normal(size=(3, 4, 4, 2))
    moved = x.copy()
    moved[:, 0, 0, 0] += 1.0
    assert (np.abs(layer.forward(moved)[0] - layer.forward(x)[0])[..., 1] > 1e-12).all()


@pytest.mark.parametrize("network", ["conv", "dense"])
def test_an_additive_coupling_keeps_volumes(network):
    layer = AffineCouplingLayer(4, (6,), network, coupling="additive", image_size=(2, 2), dtype="float64", rng=0)
    layer.params = layer.params + 0.3 * RNG.normal(size=layer.num_params)
    x = RNG.normal(size=(3, 2, 2, 4))
    y, log_det = layer.forward(x)
    np.testing.assert_array_equal(log_det, 0)
    np.testing.assert_array_equal(y[..., :2], x[..., :2])
    step = np.array([0, 0, 1.5, -2.0])
    np.testing.assert_allclose(layer.forward(x + step)[0] - y, np.broadcast_to(step, x.shape), atol=1e-12)


def test_the_last_convolution_starts_at_zero_so_that_a_coupling_starts_simple():
    x = RNG.normal(size=(3, 2, 2, 4))
    for scale_activation, log_scale in (("sigmoid", -np.log1p(np.exp(-2))), ("tanh", 0), ("none", 0), ("tanh_gain", 0)):
        layer = AffineCouplingLayer(4, (6,), scale_activation=scale_activation, dtype="float64", rng=0)
        y, log_det = layer.forward(x)
        np.testing.assert_allclose(y[..., 2:], x[..., 2:] * np.exp(log_scale), rtol=1e-12)
        np.testing.assert_allclose(log_det, 8 * log_scale, rtol=1e-12)


# bad input

REFUSED = {
    "channels": (
        lambda: ActNormLayer(3).forward(IMAGES[..., :2]),
        r"x must be images \(n, height, width, 3\), got \(40, 4, 6, 2\)",
    ),
    "channels of a result": (
        lambda: Squeeze(1).inverse(IMAGES),
        r"y must be images \(n, height, width, 4\), got \(40, 4, 6, 3\)",
    ),
    "size": (lambda: ActNormLayer(3, image_size=(4, 4)).forward(IMAGES), r"x must have shape \(n, 4, 4, 3\)"),
    "columns": (lambda: InvertibleConv1x1(3).forward(np.zeros((5, 4))), r"x must have shape \(n, 3\), got \(5, 4\)"),
    "odd height": (lambda: Squeeze(3).forward(IMAGES[:, :3]), "Squeeze needs images of even height and width, got 3 x 6"),
    "odd width": (lambda: Squeeze(3, image_size=(2, 5)), "needs images of even height and width, got 2 x 5"),
    "odd height in a flow": (
        lambda: NormalizingFlow([Squeeze(3)], input_shape=(3, 4, 3)),
        r"layer 1 \(Squeeze\) needs images of even height and width, got 3 x 4",
    ),
    "odd channels of a split": (lambda: Split(3), "Split needs an even number of channels, got 3"),
    "one channel of a coupling": (lambda: AffineCouplingLayer(1), "num_channels must be a whole number of at least 2"),
    "one channel of a block": (lambda: GlowBlock(1), "num_channels must be a whole number of at least 2, got 1"),
    "no channel": (lambda: InvertibleConv1x1(0), "num_channels must be a whole number of at least 1, got 0"),
    "parameterization": (lambda: InvertibleConv1x1(2, "lu"), "parameterization must be one of 'plu', 'full', got 'lu'"),
    "split_prior": (lambda: Split(2, "normal"), "split_prior must be one of 'learned', 'standard', got 'normal'"),
    "network": (lambda: AffineCouplingLayer(2, network="mlp"), "network must be one of 'dense', 'conv', got 'mlp'"),
    "coupling": (lambda: GlowBlock(2, coupling="spline"), "coupling must be one of 'affine', 'additive', got 'spline'"),
    "image_size": (lambda: ActNormLayer(2, image_size=(4, 4, 2)), r"image_size must be \(height, width\), two whole"),
    "image_size of floats": (lambda: ActNormLayer(2, image_size=(4.0, 4)), r"image_size must be \(height, width\)"),
    "dense, any size": (
        lambda: AffineCouplingLayer(2, (4,), "dense").forward(IMAGES[..., :2]),
        r"AffineCouplingLayer needs image_size=\(4, 6\) to take images \(4, 6, 2\)",
    ),
    "dense in a flow": (
        lambda: NormalizingFlow([AffineCouplingLayer(2, (4,), "dense")], input_shape=(4, 6, 2)),
        r"layer 1 \(AffineCouplingLayer\) needs image_size=\(4, 6\)",
    ),
    "block of a dense network, any size": (
        lambda: GlowBlock(2, (4,), "dense").forward(IMAGES[..., :2]),
        r"GlowBlock needs image_size=\(4, 6\)",
    ),
    "dense network of a Glow block in a flow": (
        lambda: NormalizingFlow([GlowBlock(2, (4,), "dense")], input_shape=(4, 6, 2)),
        "needs image_size",
    ),
    "channels in a flow": (lambda: NormalizingFlow([ActNormLayer(3)], input_shape=(4, 4, 2)), r"images \(4, 4, 2\)"),
    "a layer too many": (
        lambda: NormalizingFlow([Split(2, image_size=(2, 2)), ActNormLayer(2, image_size=(2, 2))]),
        r"layer 2 \(ActNormLayer\) takes images \(2, 2, 2\) where the flow has images \(2, 2, 1\)",
    ),
    "flat mask": (lambda: CouplingLayer([1, 0], network="conv"), r"needs a mask \(height, width, channels\)"),
    "residual blocks": (
        lambda: CouplingLayer(parity(2, 2, 1), (4,), network="conv", residual_blocks=1),
        "network='conv' has no residual_blocks and no dropout",
    ),
    "dropout": (lambda: RealNVP((2, 2, 1), network="conv", dropout=0.1), "has no residual_blocks and no dropout"),
    "mask of another shape": (lambda: CouplingLayer([1, 0], image_shape=(2, 2, 1)), "mask must have shape"),
    "nothing to start from": (lambda: ActNormLayer(3).initialize(IMAGES[:0]), "at least one row, and finite values only"),
    "NaN to start from": (lambda: GlowBlock(3, (4,)).initialize(IMAGES * np.nan), "finite values only"),
    "weights": (lambda: ActNormLayer(3).initialize(IMAGES, [1.0]), "sample_weight must have length 40"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(case):
    call, message = case
    with pytest.raises(ValueError, match=message):
        call()
