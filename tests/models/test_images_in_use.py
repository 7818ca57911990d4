"""Flows of images in use: sampling, convolutions in RealNVP, fits, and what is asked of a fitted flow."""

import itertools

import numpy as np
import pytest
from helpers import Killed, kill_after
from image_cases import IMAGES, LEVELS, OPTIONS, REAL, bent, blobs, glow, settings
from scipy.stats import norm

from npflows import ActNormLayer, FlowFileError, Glow, RealNVP
from npflows.verify import dependence, verify

# sampling


def test_temperature_multiplies_the_latent_distance():
    flow = bent(Glow((4, 4, 2), 2, 1, (5,), dtype="float64", rng=0), 0.1)
    warm = flow.sample(50, 3, 0.4)
    z, _ = flow.forward(flow.sample(50, 3))
    center = flow.base.center.reshape(4, 4, 2)
    np.testing.assert_allclose(flow.inverse(center + 0.4 * (z - center))[0], warm, atol=1e-7)
    assert flow.sample(200, 0, 0.3).std() < 0.5 * flow.sample(200, 0).std()
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        flow.sample(1, 0, 0.0)


def test_interpolation_begins_and_ends_with_the_images(trained):
    images = trained.interpolate(IMAGES[0], IMAGES[1], 5)
    assert images.shape == (5, 4, 4, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[[0, -1]], IMAGES[:2])
    z, _ = trained.forward(IMAGES[:2])
    np.testing.assert_array_equal(images[2], trained.inverse(z.mean(axis=0))[0])
    real = bent(Glow((4, 4, 2), 2, 1, (5,), dtype="float64", rng=0))
    images = real.interpolate(REAL[0], REAL[1])
    assert images.shape == (8, 4, 4, 2)
    np.testing.assert_allclose(images[[0, -1]], REAL[:2], atol=1e-9)


def test_interpolation_under_a_condition_and_what_it_refuses():
    flow = bent(glow(condition_dim=2, dtype="float64"))
    images = flow.interpolate(IMAGES[0], IMAGES[1], 3, condition=[0.5, 1.0])
    np.testing.assert_array_equal(images[[0, -1]], IMAGES[:2])
    with pytest.raises(ValueError, match="needs a condition of 2 values"):
        flow.interpolate(IMAGES[0], IMAGES[1])
    with pytest.raises(ValueError, match=r"one image and another, each of shape \(4, 4, 1\)"):
        flow.interpolate(IMAGES[:2], IMAGES[:2], condition=[0.5, 1.0])
    with pytest.raises(ValueError, match=r"image_b must have shape \(n, 4, 4, 1\)"):
        flow.interpolate(IMAGES[0], IMAGES[1][:2], condition=[0.5, 1.0])
    with pytest.raises(ValueError, match="steps must be a whole number of at least 2, got 1"):
        flow.interpolate(IMAGES[0], IMAGES[1], 1, condition=[0.5, 1.0])


def test_a_condition_says_what_is_drawn():
    bright = np.random.default_rng(15).integers(0, 2, 300)
    x = blobs(300, brightness=np.where(bright == 1, 0.95, 0.3), seed=3)
    flow = glow(condition_dim=1)
    options = {**OPTIONS, "max_epochs": 40, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 64}
    flow.fit(x, condition=bright[:, None], **options)
    dark, light = (flow.sample(300, 0, condition=[value]) for value in (0, 1))
    assert light.max(axis=(1, 2)).mean() > dark.max(axis=(1, 2)).mean() + 4
    each = flow.sample_each(40, [[0], [1]], 0)
    assert each.shape == (2, 40, 4, 4, 1)
    assert each.dtype == np.uint8
    assert each[1].mean() > each[0].mean() + 0.5
    assert (flow.log_prob(x, bright[:, None]) > flow.log_prob(x, 1 - bright[:, None])).mean() > 0.8


# RealNVP with convolutions


@pytest.mark.parametrize("mask_type", ["checkerboard", "channel-wise"])
def test_realnvp_with_convolutions_has_the_masks_of_images(mask_type):
    flow = RealNVP((4, 6, 2), 2, (5,), mask_type, network="conv", log_tails=None, rng=0)
    first, second = (layer.mask.reshape(4, 6, 2) for layer in flow.flow_layers[1:])
    y, x, c = np.indices((4, 6, 2))
    np.testing.assert_array_equal(first, (y + x + 1) % 2 if mask_type == "checkerboard" else c < 1)
    np.testing.assert_array_equal(second, 1 - first)
    assert flow.input_shape == (4, 6, 2)
    assert np.allclose(flow.forward(REAL[:, :, [0, 1, 2, 3, 0, 1]])[0], REAL[:, :, [0, 1, 2, 3, 0, 1]], atol=1e-6)


def test_realnvp_with_convolutions_sees_neighbors_alone():
    flow = bent(RealNVP((9, 9, 1), 1, (6,), network="conv", dtype="float64", rng=0))
    x = np.random.default_rng(16).normal(size=(2, 9, 9, 1))
    moved = x.copy()
    moved[:, 4, 4] += 1
    changed = (np.abs(flow.forward(moved)[0] - flow.forward(x)[0]) > 1e-12).any(axis=(0, 3))
    assert not changed[[0, 1, 7, 8]].any()
    assert not changed[:, [0, 1, 7, 8]].any()
    assert changed.sum() == 1 + 12  # itself, and those of the other color within two pixels


def test_realnvp_with_convolutions_learns_images():
    x = blobs(300, seed=4) + np.random.default_rng(17).random((300, 4, 4, 1))
    options = {**OPTIONS, "max_epochs": 40, "learning_rate": 5e-3, "batch_size": 64}
    flow = RealNVP((4, 4, 1), 6, (8, 8), network="conv", actnorm=True, rng=0).fit(x, **options)
    assert flow.history["validation_loss"][-1] < flow.history["validation_loss"][0] - 2
    held_out = blobs(200, seed=5) + np.random.default_rng(18).random((200, 4, 4, 1))
    independent_pixels = norm(x.mean(axis=0), x.std(axis=0)).logpdf(held_out).sum(axis=(1, 2, 3))
    assert flow.log_prob(held_out).mean() > independent_pixels.mean() + 3
    assert {layer.num_channels for layer in flow.flow_layers if isinstance(layer, ActNormLayer)} == {1}


# fits


def test_images_in_any_layout_give_the_same_fit(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, IMAGES)
    layouts = {
        "flat": IMAGES.reshape(120, 16),
        "memory-mapped": np.load(path, mmap_mode="r"),
        "float64": IMAGES.astype(float),
        "Fortran": np.asfortranarray(IMAGES),
        "strided": np.repeat(IMAGES, 2, axis=0)[::2],
        "list": IMAGES.tolist(),
    }
    expected = glow().fit(IMAGES, **OPTIONS)
    for name, x in layouts.items():
        flow = glow().fit(x, **OPTIONS)
        np.testing.assert_array_equal(flow.params, expected.params, err_msg=name)
        np.testing.assert_array_equal(flow.log_prob(x), expected.log_prob(IMAGES), err_msg=name)


def test_images_with_more_pixels_than_there_are_of_them_raise_no_doubt():
    Glow((8, 8, 1), 1, 1, (4,), levels=LEVELS, rng=0).fit(blobs(20, (8, 8)), **{**OPTIONS, "max_epochs": 1})


def test_weights_choose_the_images_that_count():
    dark, light = blobs(100, brightness=np.full(100, 0.3)), blobs(100, brightness=np.full(100, 0.95), seed=1)
    x, weight = np.concatenate([dark, light]), np.repeat([0.0, 1.0], 100)
    options = {**OPTIONS, "validation_fraction": 0}
    flow = glow().fit(x, sample_weight=weight, **options)
    np.testing.assert_array_equal(flow.params, glow().fit(light, **options).params)
    half = glow().fit(x, sample_weight=np.repeat([0.2, 1.0], 100), **options)
    assert half.effective_rows == pytest.approx(120**2 / 104)


def test_missing_pixels_are_dropped_or_filled():
    x = IMAGES.copy()
    x[::9, 1, 2] = 255
    with pytest.raises(ValueError, match=r"whole numbers 0 to 16, as levels=17 says, got values from 0 to 255"):
        glow().fit(x, **OPTIONS)
    with pytest.warns(UserWarning, match="dropped 14 of 120 rows, which have missing entries"):
        dropped = glow().fit(x, missing=255, **OPTIONS)
    with pytest.warns(UserWarning, match="14 entries are missing in 14 of 120 rows"):
        filled = glow().fit(x, missing=255, on_missing="impute", **OPTIONS)
    for flow in (dropped, filled):
        assert np.isfinite(flow.history["validation_loss"]).all()
        assert flow.sample(1, 0).dtype == np.uint8
    broken = IMAGES.astype(float)
    broken[::9, 1, 2], broken[1::9, 0, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="x has NaN or infinite values in 28 rows"):
        glow().fit(broken, **OPTIONS)
    with pytest.warns(UserWarning, match="dropped 28 of 120 rows with NaN or infinite values"):
        glow().fit(broken, on_invalid="drop", **OPTIONS)


def test_a_run_that_was_cut_off_goes_on_with_the_same_bits(tmp_path):
    path, options = tmp_path / "run.npz", {**OPTIONS, "max_epochs": 4, "ema": 0.9}
    expected = glow(alpha=0.05).fit(IMAGES, **options)

    with pytest.raises(Killed):
        glow(alpha=0.05).fit(IMAGES, checkpoint=path, callbacks=kill_after(2), **options)
    resumed = glow(alpha=0.05).fit(IMAGES, checkpoint=path, resume=True, **options)
    np.testing.assert_array_equal(resumed.params, expected.params)
    np.testing.assert_array_equal(settings(resumed), settings(expected))
    np.testing.assert_array_equal(resumed.sample(3, 0), expected.sample(3, 0))
    assert resumed.sample(1, 0).dtype == np.uint8
    with pytest.raises(FlowFileError, match=r"alpha is 0\.1, the file has 0\.05"):
        glow(alpha=0.1).fit(IMAGES, checkpoint=path, resume=True, **options)


# what is asked of a fitted flow


@pytest.mark.parametrize("alpha", [None, 0.05])
def test_verify_passes_a_flow_of_pixels_and_knows_its_layers(alpha):
    flow = glow(alpha=alpha, condition_dim=1)
    condition = np.random.default_rng(19).normal(size=(120, 1))
    flow.fit(IMAGES, condition=condition, **OPTIONS)
    report = flow.verify(IMAGES, condition, rng=0)
    assert report.passed, str(report)
    verdicts = {check.name: check.verdict for check in report.checks}
    for name in ("masses of whole numbers", "log-det = that of the Jacobian", "inverse(forward(x)) = x",
                 "dependence: 2 InvertibleConv1x1", "dependence: 2 AffineCouplingLayer", "dependence: 1 CouplingLayer",
                 "dependence: 2 Squeeze", "dependence: 1 FirstChannels", "dependence: 2 ActNormLayer"):  # fmt: skip
        assert verdicts[name] == "pass", str(report)
    assert flow.verification == report
    assert "not checked" not in verdicts.values()


def test_verify_finds_a_network_that_sees_too_far(monkeypatch):
    flow = bent(Glow((4, 4, 2), 2, 1, (5,), dtype="float64", rng=0))
    assert verify(flow, REAL, rng=0).passed
    monkeypatch.setattr(dependence, "near", lambda network, n: np.eye(n, dtype=bool))
    report = verify(flow, REAL, rng=0)
    assert report["dependence: 2 AffineCouplingLayer"].verdict == "FAIL"
    assert "layer 2, 5 of the flow" in report["dependence: 2 AffineCouplingLayer"].note


def test_verify_of_larger_images_moves_some_columns_only():
    flow = Glow((8, 16, 3), 1, 1, (4,), rng=0)
    report = verify(flow, np.random.default_rng(20).normal(size=(20, 8, 16, 3)), rng=0)
    assert report.passed, str(report)
    assert report["dependence: 1 Squeeze"].note.startswith("256 of 256 ")


def test_verify_finds_masses_that_are_not_those_of_the_density(monkeypatch):
    flow = glow().fit(IMAGES, **OPTIONS)
    log_prob = flow.log_prob
    monkeypatch.setattr(flow, "log_prob", lambda *a, **o: log_prob(*a, **o) + 3.0)
    assert verify(flow, IMAGES, rng=0)["masses of whole numbers"].verdict == "FAIL"


def test_the_unit_cube_and_back():
    flow = Glow((4, 4, 2), 2, 1, (5,), dtype="float64", rng=0).fit(REAL, **OPTIONS)
    u = flow.to_unit_cube(REAL)
    assert u.shape == REAL.shape
    assert (u > 0).all()
    assert (u < 1).all()
    np.testing.assert_allclose(flow.from_unit_cube(u), REAL, atol=1e-8)
    np.testing.assert_allclose(flow.from_unit_cube(u[0]), REAL[0], atol=1e-8)


def test_the_unit_cube_of_pixels(trained):
    u = np.random.default_rng(21).random((50, 4, 4, 1))
    images = trained.from_unit_cube(u)
    assert images.dtype == np.uint8
    assert images.shape == (50, 4, 4, 1)
    assert images.max() < LEVELS
    np.testing.assert_array_equal(trained.from_unit_cube(trained.to_unit_cube(IMAGES)), IMAGES)


def test_entropy_divergence_and_mode(trained):
    entropy = trained.entropy(500, 0)
    assert entropy.value == pytest.approx(-trained.log_prob(trained.sample(500, 0)).mean())
    assert trained.kl_divergence(trained, 200, 0).value == 0
    fresh = glow().fit(IMAGES, **{**OPTIONS, "max_epochs": 0})
    assert trained.kl_divergence(fresh, 500, 0).value > 1
    small = Glow((2, 2, 1), 1, 1, (4,), levels=2, rng=0).fit(IMAGES[:, 1:3, 1:3] > 4, **OPTIONS)
    mode = small.mode(rng=0)
    assert mode.x.shape == (2, 2, 1)
    every = np.array(list(itertools.product([0, 1], repeat=4))).reshape(16, 2, 2, 1)
    assert mode.log_prob == pytest.approx(small.log_prob(every).max(), abs=1e-6)
    marginal = small.marginal([0], rng=0)
    np.testing.assert_array_equal(marginal.grid, [0, 1])
