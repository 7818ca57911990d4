"""Layers of images: convolutions, what is set from data, sizes, and what they refuse."""

import copy
import pickle

import numpy as np
import pytest
from helpers import moments

import npflows
from npflows import (
    ActNormLayer,
    AffineCouplingLayer,
    CouplingLayer,
    Glow,
    GlowBlock,
    InvertibleConv1x1,
    NormalizingFlow,
    Permutation,
    Split,
    Squeeze,
)
from npflows.backends.reference.activations import ACTIVATIONS
from npflows.backends.reference.convnet import convolve

RNG = np.random.default_rng(0)
IMAGES = RNG.gamma(2.0, size=(40, 4, 6, 3)) * [1.0, 30.0, 1e-2] + [0.0, -100.0, 5.0]
SIZES = [(1, 1), (2, 2), (3, 5), (4, 2)]


# activation normalization


@pytest.mark.nojit
@pytest.mark.parametrize("weight", [None, RNG.uniform(0.1, 3.0, 40)], ids=["plain", "weights"])
@pytest.mark.parametrize("x", [IMAGES, IMAGES[:, :3, :1], IMAGES[:, 0, 0]], ids=["images", "other size", "vectors"])
@pytest.mark.parametrize(("dtype", "room"), [("float32", 2e-3), ("float64", 1e-9)])
def test_actnorm_gives_each_channel_mean_0_and_variance_1(x, weight, dtype, room):
    layer = ActNormLayer(3, dtype=dtype)
    np.testing.assert_array_equal(layer.forward(x)[0], x.astype(dtype))
    np.testing.assert_array_equal(layer.forward(x)[1], 0)
    spread = np.sqrt(moments(x, weight)[1])
    layer.initialize(x, weight)
    assert layer.initialized
    assert sorted(layer.named_params()) == ["bias", "logs"]
    y, log_det = layer.forward(x)
    assert y.shape == x.shape
    mean, variance = moments(y, weight)
    np.testing.assert_allclose(mean, 0, atol=room)
    np.testing.assert_allclose(variance, 1, rtol=room)
    np.testing.assert_allclose(log_det, -x[0, ..., 0].size * np.log(spread).sum(), rtol=1e-5)
    np.testing.assert_allclose(layer.inverse(y)[0], x, rtol=1e-4 if dtype == "float32" else 1e-12)


def test_actnorm_centers_a_constant_channel_and_keeps_its_scale():
    x = IMAGES.copy()
    x[..., 1] = 58000.1
    layer = ActNormLayer(3, dtype="float64")
    layer.initialize(x)
    y, _ = layer.forward(x)
    np.testing.assert_allclose(y[..., 1], 0, atol=1e-8)
    assert layer.named_params()["logs"][1] == 0
    np.testing.assert_allclose(moments(y)[1][[0, 2]], 1)


def test_settings_of_one_size_hold_for_all_sizes():
    layer = ActNormLayer(3, dtype="float64")
    layer.initialize(IMAGES)
    sized = ActNormLayer(3, image_size=(2, 2), dtype="float64")
    sized.params = layer.params
    np.testing.assert_array_equal(layer.forward(IMAGES[:, :2, :2])[0], sized.forward(IMAGES[:, :2, :2])[0])


def hidden_values(coupling, x, condition):
    """The values after each normalization of a coupling's network, (n, height, width, channels) at images x."""
    params = {name.removeprefix("network."): value.astype(float) for name, value in coupling.named_params().items()}
    h, i = x[..., : x.shape[-1] // 2], 0
    while f"logs_{i}" in params:
        u = np.moveaxis(convolve(np.moveaxis(h, 3, 1), params[f"weight_{i}"]), 1, 3) + params[f"bias_{i}"]
        if i == 0 and condition is not None:
            u = u + (condition @ params["condition_weight"].T)[:, None, None]
        u = u * np.exp(params[f"logs_{i}"])
        yield u
        h, i = ACTIVATIONS[coupling.activation][0](u), i + 1


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("weighted", [False, True])
def test_normalizations_inside_the_networks_are_set_layer_after_layer(activation, weighted):
    rng = np.random.default_rng(4)
    flow = Glow((4, 4, 1), 2, 2, (5, 4), activation=activation, condition_dim=2, embedding_dims=(6, 3), dtype="float64",
                rng=0)  # fmt: skip
    x, condition = rng.gamma(2.0, size=(60, 4, 4, 1)) * 7 - 3, 5 + rng.normal(size=(60, 2))
    weight = rng.uniform(0.2, 2.0, 60) if weighted else None
    flow.initialize(x, weight, condition)
    inner, h, seen = flow.conditioning.inner(condition), x.reshape(60, -1), 0
    for layer in flow.flow_layers:
        rows = h[:, : layer.input_dim]
        for part in getattr(layer, "parts", {"": layer}).values():
            y, _ = part.forward(rows, inner if part.condition_dim else None)
            y = y.reshape(60, -1)
            if isinstance(part, ActNormLayer):
                mean, variance = moments(y.reshape(60, -1, part.num_channels), weight)
                np.testing.assert_allclose(mean, 0, atol=1e-9)
                np.testing.assert_allclose(variance, 1, rtol=1e-9)
                seen += 1
            if isinstance(part, AffineCouplingLayer):
                for values in hidden_values(part, rows.reshape(60, *part.sample_shape), inner):
                    mean, variance = moments(values, weight)
                    np.testing.assert_allclose(mean, 0, atol=1e-9)
                    np.testing.assert_allclose(variance, 1, rtol=1e-9)
                    seen += 1
            rows = y
        h = np.concatenate([rows, h[:, layer.input_dim :]], axis=1)
    assert seen == 4 * 3  # of each block its ActNorm and two of its network


@pytest.mark.parametrize("kind", [AffineCouplingLayer, GlowBlock])
def test_layers_alone_are_set_from_images_of_any_size(kind):
    layer, sized = kind(2, (4, 3), dtype="float64", rng=0), kind(2, (4, 3), image_size=(4, 6), dtype="float64", rng=0)
    x, weight = IMAGES[..., :2], RNG.uniform(0.1, 2.0, 40)
    assert layer.initialized is False
    layer.initialize(x, weight)
    sized.initialize(x, weight)
    assert layer.initialized
    np.testing.assert_array_equal(layer.params, sized.params)
    assert (
        np.abs(layer.named_params()["network.logs_0" if kind is AffineCouplingLayer else "coupling.network.logs_0"]).max()
        > 0
    )


def test_without_actnorm_a_network_has_nothing_to_be_set():
    layer = AffineCouplingLayer(2, (4,), actnorm=False)
    assert layer.initialized is None
    assert not any("logs" in name for name in layer.named_params())


# 1x1 convolutions


@pytest.mark.parametrize("parameterization", ["plu", "full"])
@pytest.mark.parametrize("n", [1, 2, 7, 24])
def test_a_1x1_convolution_starts_orthogonal_and_keeps_volumes(n, parameterization):
    layers = [InvertibleConv1x1(n, parameterization, dtype="float64", rng=seed) for seed in (0, 0, 1)]
    w = layers[0].matrix
    np.testing.assert_allclose(w @ w.T, np.eye(n), atol=1e-12)
    np.testing.assert_array_equal(w, layers[1].matrix)
    assert n == 1 or np.abs(w - layers[2].matrix).max() > 0.1
    assert n < 7 or np.abs(w - np.diag(np.diag(w))).max() > 0.2
    x = RNG.normal(size=(5, 3, 2, n))
    y, log_det = layers[0].forward(x)
    np.testing.assert_allclose(log_det, 0, atol=1e-12)
    np.testing.assert_allclose((y**2).sum(axis=-1), (x**2).sum(axis=-1))
    np.testing.assert_allclose(y, x @ w.T, atol=1e-12)


@pytest.mark.parametrize("parameterization", ["plu", "full"])
def test_log_det_of_a_1x1_convolution_is_the_matrixs_times_the_pixels(parameterization):
    layer = InvertibleConv1x1(4, parameterization, dtype="float64", rng=0)
    layer.params = layer.params + 0.4 * RNG.normal(0.3, 1.0, 16)
    log_abs_det = np.linalg.slogdet(layer.matrix)[1]
    assert abs(log_abs_det) > 0.1
    for height, width in SIZES:
        x = RNG.normal(size=(3, height, width, 4))
        y, log_det = layer.forward(x)
        np.testing.assert_allclose(log_det, height * width * log_abs_det)
        back, log_det_back = layer.inverse(y)
        np.testing.assert_allclose(back, x, atol=1e-10)
        np.testing.assert_allclose(log_det_back, -log_det)
    if parameterization == "plu":
        entries = layer.named_params()["matrix"]
        assert log_abs_det == pytest.approx(np.trace(entries))


def test_plu_stays_invertible_where_training_presses_it_flat():
    rng = np.random.default_rng(5)
    narrow = rng.normal(size=(300, 1)) * [1.0, 2.0] + 1e-3 * rng.normal(size=(300, 2))  # all but a line
    flow = NormalizingFlow([InvertibleConv1x1(2, dtype="float64", rng=0)], dtype="float64")
    options = {"standardize": "diagonal", "max_epochs": 150, "learning_rate": 0.3, "schedule": "constant", "rng": 0}
    flow.fit(narrow, validation_fraction=0, progress=False, **options)
    matrix = flow.flow_layers[1].matrix
    assert np.linalg.cond(matrix) > 10  # 1 at first, more than 1000 at the best fit
    assert np.isfinite(flow.log_prob(narrow)).all()
    np.testing.assert_allclose(flow.inverse(flow.forward(narrow)[0])[0], narrow, atol=1e-9)
    assert np.prod(np.diag(matrix)) != 0


# squeeze and split


@pytest.mark.nojit
def test_squeeze_puts_each_patch_of_2_x_2_pixels_into_the_channels():
    image = np.array([[[1, 10], [2, 20], [3, 30], [4, 40]], [[5, 50], [6, 60], [7, 70], [8, 80]]])
    y, log_det = Squeeze(2).forward(image)
    assert y.tolist() == [[[1, 2, 5, 6, 10, 20, 50, 60], [3, 4, 7, 8, 30, 40, 70, 80]]]
    assert log_det == 0
    np.testing.assert_array_equal(Squeeze(2).inverse(y)[0], image)
    batch = RNG.normal(size=(3, 4, 6, 2)).astype(np.float32)
    y, log_det = Squeeze(2).forward(batch)
    assert y.shape == (3, 2, 3, 8)
    np.testing.assert_array_equal(log_det, np.zeros(3))
    np.testing.assert_array_equal(Squeeze(2).inverse(y)[0], batch)


@pytest.mark.nojit
def test_the_first_half_of_the_channels_goes_on():
    x = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4).astype(float)
    split = Split(4, "standard", image_size=(2, 3))
    y, log_det = split.forward(x)
    np.testing.assert_array_equal(y[:, :12], x[..., :2].reshape(2, 12))
    np.testing.assert_array_equal(y[:, 12:], x[..., 2:].reshape(2, 12))
    np.testing.assert_array_equal(log_det, 0)
    assert split.num_params == 0
    np.testing.assert_array_equal(split.inverse(y)[0], x)
    doubled = NormalizingFlow([split, CouplingLayer([1, 0] * 6, (4,), rng=0)])
    doubled.params = doubled.params + 0.3
    z, _ = doubled.forward(x)
    np.testing.assert_array_equal(z.reshape(2, -1)[:, 12:], y[:, 12:])  # left alone by what comes after
    assert np.abs(z.reshape(2, -1)[:, :12] - y[:, :12]).max() > 0.1


def test_the_learned_prior_starts_standard_and_depends_on_what_goes_on_alone():
    split = Split(4, image_size=(3, 3), dtype="float64")
    x = RNG.normal(size=(5, 3, 3, 4))
    y, log_det = split.forward(x)
    np.testing.assert_array_equal(y[:, 18:], x[..., 2:].reshape(5, 18))
    np.testing.assert_array_equal(log_det, 0)
    split.params = split.params + 0.3 * RNG.normal(size=split.num_params)

    def prior(images):
        """Mean and scale of what is left behind, from where two of its values go."""
        ends = []
        for value in (0.0, 1.0):
            moved = images.copy()
            moved[..., 2:] = value
            ends.append(split.forward(moved)[0][:, 18:])
        slope = ends[1] - ends[0]
        return -ends[0] / slope, 1 / slope

    mean, scale = prior(x)
    np.testing.assert_allclose(split.forward(x)[0][:, 18:], (x[..., 2:].reshape(5, 18) - mean) / scale)
    np.testing.assert_allclose(split.forward(x)[1], -np.log(scale).sum(axis=1))
    other = x.copy()
    other[..., 2:] += 1.0
    np.testing.assert_array_equal(prior(other), (mean, scale))
    other = x.copy()
    other[:, 0, 0, 0] += 1.0
    changed = np.abs(prior(other)[0] - mean).reshape(5, 3, 3, 2).max(axis=(0, 3)) > 1e-12
    np.testing.assert_array_equal(changed, [[1, 1, 0], [1, 1, 0], [0, 0, 0]])  # one 3x3 convolution


# any size


def unsized(dtype="float64"):
    """Layers of images made for no size, with random parameters."""
    layers = {
        "ActNorm": ActNormLayer(4, dtype=dtype),
        "1x1": InvertibleConv1x1(4, dtype=dtype, rng=0),
        "coupling": AffineCouplingLayer(4, (5, 3), dtype=dtype, rng=0),
        "block": GlowBlock(4, (5,), "conv", parameterization="full", dtype=dtype, rng=0),
        "split": Split(4, dtype=dtype),
    }
    for layer in layers.values():
        layer.params = layer.params + 0.2 * np.random.default_rng(6).normal(size=layer.num_params)
    return layers


@pytest.mark.parametrize("name", unsized())
def test_one_layer_takes_images_of_several_sizes_with_the_same_parameters(name):
    layer = unsized()[name]
    options = {n: v for n, v in layer.arguments.items() if n not in ("num_channels", "image_size")}
    for size in SIZES:
        x = RNG.normal(size=(3, *size, 4))
        for _ in range(2):
            sized = type(layer)(4, image_size=size, **options)
            sized.params = layer.params
            y, log_det = layer.forward(x)
            np.testing.assert_array_equal(y, sized.forward(x)[0])
            np.testing.assert_array_equal(log_det, sized.forward(x)[1])
            ours, theirs = layer.forward_vjp(x, np.ones(y.shape), 1.0), sized.forward_vjp(x, np.ones(y.shape), 1.0)
            np.testing.assert_array_equal(ours.params, theirs.params)
            np.testing.assert_array_equal(ours.input, theirs.input)
            assert ours.input.shape == x.shape
            one, log_det_of_one = layer.forward(x[0])
            np.testing.assert_array_equal(one, y[0])
            assert log_det_of_one == log_det[0]
            if name != "split":  # whose result is flat
                np.testing.assert_allclose(layer.inverse(y)[0], x, atol=1e-9)
            layer.params = layer.params * 1.1  # every size must see it
    vectors = RNG.normal(size=(3, 4))
    np.testing.assert_allclose(
        layer.forward(vectors)[0], layer.forward(vectors[:, None, None])[0].reshape(3, 4), atol=1e-12
    )


@pytest.mark.parametrize("name", unsized())
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"])
def test_a_copy_of_a_layer_that_has_seen_images_is_on_its_own(name, copied):
    layer = unsized()[name]
    x = RNG.normal(size=(2, 2, 4, 4))
    y, _ = layer.forward(x)
    twin = copied(layer)
    np.testing.assert_array_equal(twin.forward(x)[0], y)
    twin.params = twin.params + 0.5
    np.testing.assert_array_equal(layer.forward(x)[0], y)
    assert np.abs(twin.forward(x)[0] - y).max() > 0.01


def test_a_flow_makes_its_layers_for_the_sizes_they_have_there(tmp_path):
    layers = [Squeeze(1), GlowBlock(4, (5,), rng=0), Split(4), GlowBlock(2, (4,), rng=1), Squeeze(2), ActNormLayer(8)]
    flow = NormalizingFlow(layers, input_shape=(4, 8, 1))
    assert [layer.image_size for layer in flow.flow_layers[1:]] == [(4, 8), (2, 4), (2, 4), (2, 4), (2, 4), (1, 2)]
    assert all(layer.image_size is None for layer in layers)  # the flow took copies
    x = RNG.normal(size=(6, 4, 8, 1))
    z, log_det = flow.forward(x)
    assert z.shape == x.shape
    np.testing.assert_allclose(flow.inverse(z)[0], x, atol=1e-4)
    h, total = x, 0.0
    for layer in layers[:3]:
        h, more = layer.forward(h)
        total = total + more
    left = h[:, 16:]
    h = h[:, :16].reshape(6, 2, 4, 2)
    for layer in layers[3:]:
        h, more = layer.forward(h)
        total = total + more
    np.testing.assert_allclose(z.reshape(6, -1), np.concatenate([h.reshape(6, -1), left], axis=1), atol=1e-5)
    np.testing.assert_allclose(log_det, total, atol=1e-4)
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x), flow.log_prob(x))


def test_layers_of_vectors_leave_the_shape_of_images_as_it_is(tmp_path):
    flow = NormalizingFlow([Permutation(8, "random", rng=0), GlowBlock(2, (4,), rng=0)], input_shape=(2, 2, 2))
    assert flow.input_shape == (2, 2, 2)
    assert flow.flow_layers[2].image_size == (2, 2)
    flow.save(tmp_path / "flow.npz")
    again = npflows.load(tmp_path / "flow.npz")
    assert again.input_shape == (2, 2, 2)
    x = RNG.normal(size=(3, 2, 2, 2))
    np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))
