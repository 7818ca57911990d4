"""Whole-number pixels: masses of images, bits, samples of their dtype, and the derivatives of the map."""

import itertools
import math

import numpy as np
import pytest
from image_cases import IMAGES, LEVELS, OPTIONS, blobs, glow
from scipy.stats import norm

import npflows
from npflows import Glow
from npflows.support.pixels import Pixels

# whole-number pixels


def independent(levels, loc, scale, alpha=None):
    """A flow of 2 x 2 pixels that are normal, each for itself, on the line: a fresh one only rotates."""
    flow = Glow((2, 2, 1), 1, 2, (4,), levels=levels, alpha=alpha, scale_activation="tanh", dtype="float64", rng=0)
    flow.standardize.set(loc, scale)
    return flow


def masses(levels, loc, scale, alpha=None):
    """Of the levels of a pixel of `independent`."""
    edges = np.arange(levels + 1.0)
    if alpha is not None:
        share = alpha + (1 - 2 * alpha) * edges / levels
        edges = np.log(share / (1 - share))
    return np.diff(norm.cdf(edges, loc, scale))


@pytest.mark.parametrize(
    ("loc", "scale", "alpha"), [(2.1, 0.8, None), (1.0, 2.0, None), (0.3, 1.1, 0.05), (-1.0, 0.5, 0.3)]
)
def test_log_prob_is_the_mass_of_an_images_cell(loc, scale, alpha):
    flow, mass = independent(5, loc, scale, alpha), masses(5, loc, scale, alpha)
    images = np.random.default_rng(11).integers(0, 5, (200, 2, 2, 1))
    expected = np.log(mass)[images].sum(axis=(1, 2, 3))
    likely = expected > np.median(expected)
    found = flow.log_prob(images[likely], draws=2000)
    np.testing.assert_allclose(found, expected[likely], atol=0.1)
    assert abs((found - expected[likely]).mean()) < 0.02
    assert flow.bits_per_dim(images[likely], draws=2000) == pytest.approx(
        -expected[likely].mean() / (4 * np.log(2)), abs=0.01
    )


@pytest.mark.parametrize(("alpha", "loc", "scale"), [(None, 1.0, 0.3), (0.05, 0.0, 0.8)])
def test_masses_of_all_images_sum_to_one(alpha, loc, scale):
    flow = independent(2, loc, scale, alpha)  # all of it well inside the range
    flow.params = flow.params + 0.05 * np.random.default_rng(12).normal(size=flow.num_params)
    every = np.array(list(itertools.product([0, 1], repeat=4))).reshape(16, 2, 2, 1)
    mass = np.exp(flow.log_prob(every, draws=10000))
    assert mass.sum() == pytest.approx(1, abs=0.02)
    drawn = flow.sample(20000, 0).reshape(-1, 4) @ [8, 4, 2, 1]
    np.testing.assert_allclose(np.bincount(drawn, minlength=16) / 20000, mass, atol=0.015)


def test_fewer_draws_give_a_bound_that_more_draws_close():
    flow = independent(3, 1.2, 0.3)
    images = np.ones((50, 2, 2, 1), int)
    exact = 4 * np.log(masses(3, 1.2, 0.3)[1])
    means = [np.mean([flow.log_prob(images[0], draws=draws, rng=seed) for seed in range(200)]) for draws in (1, 4, 32)]
    assert means[0] < means[1] < means[2] < exact + 0.02
    assert exact - means[2] < 0.05
    np.testing.assert_array_equal(flow.log_prob(images), flow.log_prob(images))  # the same points each time
    np.testing.assert_array_equal(flow.log_prob(images, rng=5), flow.log_prob(images, rng=np.random.default_rng(5)))
    assert flow.log_prob(images[0], rng=5) != flow.log_prob(images[0])
    with pytest.raises(ValueError, match="draws must be a whole number of at least 1, got 0"):
        flow.log_prob(images, draws=0)


@pytest.mark.parametrize("levels", [4, 256, 1000])
def test_bits_of_noise_are_those_of_its_levels(levels):
    noise = np.random.default_rng(13).integers(0, levels, (500, 4, 4, 1))
    flow = glow(levels=levels, alpha=None, scale_activation="tanh").fit(noise, **{**OPTIONS, "max_epochs": 0})
    normal_for_uniform = 0.5 * math.log2(2 * math.pi * math.e / 12)  # what a bell costs where all is flat
    assert flow.bits_per_dim(noise) == pytest.approx(math.log2(levels) + normal_for_uniform, abs=0.05)
    assert flow.bits_per_dim(noise) == pytest.approx(-flow.log_prob(noise).mean() / (16 * math.log(2)))


def test_training_lowers_the_bits(trained):
    fresh = glow().fit(IMAGES, **{**OPTIONS, "max_epochs": 0})
    held_out = blobs(100, seed=2)
    assert trained.bits_per_dim(held_out) < fresh.bits_per_dim(held_out) - 0.2
    assert trained.bits_per_dim(held_out) < math.log2(LEVELS) - 0.5


DTYPES = {"uint8": np.uint8, "int64": np.int64, "float32": np.float32, "float64": np.float64, "int16": np.int16}


@pytest.mark.parametrize("alpha", [None, 0.05])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_samples_are_images_like_those_of_the_training(dtype, alpha, tmp_path):
    flow = glow(alpha=alpha).fit(IMAGES.astype(dtype), **OPTIONS)
    flow.save(tmp_path / "flow.npz")
    for same in (flow, npflows.load(tmp_path / "flow.npz")):
        samples = same.sample(300, 0)
        assert samples.dtype == dtype
        assert samples.shape == (300, 4, 4, 1)
        assert samples.min() >= 0
        assert samples.max() <= LEVELS - 1
        np.testing.assert_array_equal(samples, np.floor(samples))
        assert np.isfinite(same.log_prob(samples)).all()
    assert 0 < samples.mean() < 8


def test_black_and_white_images_may_be_true_and_false():
    flow = Glow((2, 2, 1), 1, 1, (4,), levels=2, rng=0).fit(IMAGES[:, :2, :2] > 8, **OPTIONS)
    assert flow.sample(3, 0).dtype == bool


@pytest.mark.parametrize("levels", [3, 256, 257, 65536, 65537])
def test_samples_of_a_flow_that_saw_no_images_hold_every_level(levels):
    flow = Glow((2, 2, 1), 1, 1, (4,), levels=levels, rng=0)
    flow.standardize.set(levels / 2, float(levels))
    samples = flow.sample(200, 0)
    assert samples.dtype.kind in "iu"
    assert (samples.min(), samples.max()) == (0, levels - 1)


def test_levels_that_the_training_dtype_can_not_hold_do_not_wrap_around():
    flow = Glow((2, 2, 1), 1, 1, (4,), levels=256, rng=0)
    flow.fit(IMAGES[:, :2, :2].astype(np.int8), **{**OPTIONS, "max_epochs": 0})
    flow.standardize.set(240.0, 5.0)
    assert flow.sample(100, 0).min() > 200


def test_noise_of_training_comes_from_the_seed():
    results = [glow().fit(IMAGES, **{**OPTIONS, "rng": seed}).params for seed in (2, 2, 3)]
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 0


@pytest.mark.parametrize("alpha", [None, 0.02, 0.3])
def test_pixels_are_a_bijection_with_the_right_derivatives(alpha):
    pixels, rng = Pixels(3, 7, alpha), np.random.default_rng(14)
    x, d, dlog = rng.uniform(0.1, 6.9, (5, 3)), rng.normal(size=(5, 3)), rng.normal(size=5)
    t, log_det, inside = pixels.to_unconstrained(x)
    assert inside.all()
    back, log_det_back = pixels.from_unconstrained(t)
    np.testing.assert_allclose(back, x)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-12)
    step = 1e-6
    slope = (pixels.to_unconstrained(x + step).t - pixels.to_unconstrained(x - step).t) / (2 * step)
    np.testing.assert_allclose(np.log(slope).sum(axis=1), log_det, atol=1e-7)

    def loss(f, values):
        y, log_slope, *_ = f(values)
        return (y * d).sum(axis=1) + dlog * log_slope

    for f, vjp, at in (
        (pixels.to_unconstrained, pixels.to_unconstrained_vjp, x),
        (pixels.from_unconstrained, pixels.from_unconstrained_vjp, t),
    ):
        for j in range(3):
            e = step * np.eye(3)[j]
            numeric = (loss(f, at + e) - loss(f, at - e)) / (2 * step)
            np.testing.assert_allclose(vjp(at, d, dlog)[:, j], numeric, rtol=1e-5, atol=1e-7)


def test_what_is_no_pixel_has_no_density():
    flow = glow()
    x = np.repeat(IMAGES[:1], 4, axis=0).astype(float)
    x[1, 0, 0], x[2, 3, 1] = np.nan, np.inf
    log_prob = flow.log_prob(x)
    assert np.isnan(log_prob[1])
    assert np.isneginf(log_prob[2])
    assert np.isfinite(log_prob[[0, 3]]).all()
    value, gradient = flow.log_prob_and_grad(IMAGES[:3])
    np.testing.assert_allclose(value, flow.log_prob(IMAGES[:3]), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0)
