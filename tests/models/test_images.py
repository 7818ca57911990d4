"""Flows of images as people use them: Glow and RealNVP with convolutions, whole-number pixels, fits, files, refusals."""

import copy
import itertools
import json
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from scipy.stats import norm

import npflows
from npflows import MAF, ActNormLayer, FlowFileError, Glow, ModelConfiguration, RealNVP, create
from npflows.backends.cpu import program
from npflows.support.pixels import Pixels
from npflows.training import initialization as initialize
from npflows.verify import checks, verify

LEVELS = 17
OPTIONS = {"max_epochs": 2, "batch_size": 32, "rng": 2, "progress": False}


def blobs(n, size=(4, 4), levels=LEVELS, seed=0, brightness=None):
    """Images (n, height, width, 1) of a bright spot somewhere, whole numbers as uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    centre = rng.uniform(0, 1, (2, n, 1, 1)) * np.reshape(np.array(size) - 1, (2, 1, 1, 1))
    height = rng.uniform(0.5, 1.0, (n, 1, 1)) if brightness is None else np.reshape(brightness, (n, 1, 1))
    spot = np.exp(-0.5 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2))
    images = height * spot * (levels - 1) + rng.normal(0, 0.02 * levels, (n, *size))
    return np.clip(np.rint(images), 0, levels - 1).astype(np.uint8)[..., None]


IMAGES = blobs(120)
REAL = np.random.default_rng(1).normal(size=(30, 4, 4, 2)) @ [[2.0, 0.3], [0.0, 0.5]] + [5.0, -1.0]


def glow(shape=(4, 4, 1), **options):
    """A small Glow, of whole numbers by default."""
    return Glow(shape, 2, 1, (6, 5), **{"levels": LEVELS, "rng": 0, **options})


def bent(flow, strength=0.2):
    """The flow with random parameters."""
    flow.params = flow.params + strength * np.random.default_rng(3).normal(size=flow.num_params)
    return flow


@pytest.fixture(scope="module")
def fitted():
    return glow().fit(IMAGES, **{**OPTIONS, "max_epochs": 30, "learning_rate": 1e-2})


# what is built


@pytest.mark.parametrize(
    ("shape", "scales"), [((4, 4, 2), 2), ((2, 4, 1), 1), ((8, 4, 3), 2), ((6, 2, 1), 1), ((2, 2, 5), 1), ((8, 16, 1), 3)]
)
def test_any_shape_that_divides_works_in_both_directions(shape, scales):
    flow = bent(Glow(shape, scales, 1, (5,), rng=0, dtype="float64"), 0.1)
    x = np.random.default_rng(4).normal(size=(7, *shape))
    z, log_det = flow.forward(x)
    assert z.shape == x.shape
    back, log_det_back = flow.inverse(z)
    np.testing.assert_allclose(back, x, atol=1e-8)
    np.testing.assert_allclose(log_det, -log_det_back, atol=1e-8)
    np.testing.assert_array_equal(flow.log_prob(x.reshape(7, -1)), flow.log_prob(x))
    one, log_det_of_one = flow.forward(x[0])
    np.testing.assert_array_equal(one, z[0])
    assert log_det_of_one == log_det[0]
    assert flow.sample(3, 0).shape == (3, *shape)


@pytest.mark.nojit
def test_log_det_of_a_multi_scale_flow_is_that_of_its_jacobian():
    flow = bent(Glow((4, 4, 2), 2, 2, (6, 5), activation="tanh", dtype="float64", rng=0))
    flow.standardize.set(0.3, 1.7)
    x = np.random.default_rng(5).normal(size=(3, 32))
    step, eye = 1e-5, np.eye(32)
    ends = [flow.forward((x[:, None] + sign * step * eye).reshape(-1, 32))[0].reshape(3, 32, 32) for sign in (1, -1)]
    jacobian = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(flow.forward(x)[1], np.linalg.slogdet(jacobian)[1], rtol=1e-7)
    assert (np.abs(jacobian).max(axis=0) > 1e-9).mean() > 0.5  # it mixes


def test_the_multi_scale_architecture_is_the_papers():
    flow = Glow((32, 32, 3), 3, 2, (4, 4), rng=0)
    kinds = [type(layer).__name__ for layer in flow.flow_layers]
    scale = ["Squeeze", "GlowBlock", "GlowBlock"]
    assert kinds == ["Standardize", *scale, "Split", *scale, "Split", *scale]
    assert flow.base.learnable
    assert [layer.num_channels for layer in flow.flow_layers[1:]] == [3, 12, 12, 12, 6, 24, 24, 24, 12, 48, 48]
    sizes = [(32, 32)] + [(16, 16)] * 4 + [(8, 8)] * 4 + [(4, 4)] * 2
    assert [layer.image_size for layer in flow.flow_layers[1:]] == sizes
    names = [n.removeprefix("layers.2.") for n in flow.named_params() if n.startswith("layers.2.")]
    assert names == [
        "actnorm.logs", "actnorm.bias", "convolution.matrix",
        "coupling.network.weight_0", "coupling.network.bias_0", "coupling.network.logs_0",
        "coupling.network.weight_1", "coupling.network.bias_1", "coupling.network.logs_1",
        "coupling.network.weight_2", "coupling.network.bias_2", "coupling.gain",
    ]  # fmt: skip
    shapes = {n: v.shape for n, v in flow.named_params().items()}
    assert [shapes[f"layers.2.coupling.network.weight_{i}"] for i in range(3)] == [
        (4, 3, 3, 6),
        (4, 1, 1, 4),
        (12, 3, 3, 4),
    ]


def test_what_a_scale_leaves_behind_stands_behind_what_goes_on():
    flow = bent(Glow((4, 4, 1), 2, 1, (5,), split_prior="standard", dtype="float64", rng=0))
    x = np.random.default_rng(6).normal(size=(3, 4, 4, 1))
    h = flow.flow_layers[2].forward(flow.flow_layers[1].forward(x)[0])[0]
    z, _ = flow.forward(x)
    np.testing.assert_allclose(z.reshape(3, -1)[:, 8:], h[..., 2:].reshape(3, -1), atol=1e-12)


def test_parameters_exist_from_construction():
    flow = glow()
    before = {name: view.shape for name, view in flow.named_params().items()}
    assert flow.num_params == sum(map(math.prod, before.values())) > 1000
    flow.sample(2, 0)
    flow.fit(IMAGES, **OPTIONS)
    assert {name: view.shape for name, view in flow.named_params().items()} == before
    assert flow.num_params == glow().num_params


def test_standard_priors_have_no_parameters():
    learned, standard = (Glow((4, 4, 1), 2, 1, (5,), split_prior=prior, rng=0) for prior in ("learned", "standard"))
    extra = set(learned.named_params()) - set(standard.named_params())
    priors = {
        "layers.3.prior.network.weight_0",
        "layers.3.prior.network.bias_0",
        "layers.3.prior.gain",
        "base.log_scale",
    }
    assert extra == priors
    assert learned.num_params - standard.num_params == 4 * 9 * 2 + 4 + 2 + 2 * 16
    x = np.random.default_rng(7).normal(size=(5, 4, 4, 1))
    np.testing.assert_allclose(learned.log_prob(x), standard.log_prob(x), rtol=1e-6)  # it starts as the standard one


@pytest.mark.parametrize("options", [
    {"coupling": "additive"}, {"network": "dense"}, {"parameterization": "full"}, {"actnorm": False},
    {"split_prior": "standard"}, {"scale_activation": "tanh_gain"}, {"alpha": 0.05}, {"base_distribution": "student_t"},
    {"levels": None}, {"dtype": "float64"},
], ids=str)  # fmt: skip
def test_every_option_fits_samples_and_is_saved(options, tmp_path):
    flow = glow(**options).fit(IMAGES, **{**OPTIONS, "max_epochs": 4, "learning_rate": 5e-3})
    assert flow.history["validation_loss"][-1] < flow.history["validation_loss"][0]
    assert flow.sample(3, 0).dtype == (float if options.get("levels", 1) is None else np.uint8)
    flow.save(tmp_path / "flow.npz")
    again = npflows.load(tmp_path / "flow.npz")
    np.testing.assert_array_equal(again.sample(3, 0), flow.sample(3, 0))
    assert again.arguments == flow.arguments


# set from data


def test_layers_are_set_from_whole_numbers_at_random_places_of_their_cells():
    black_and_white = (np.random.default_rng(8).random((600, 2, 2, 1)) < 0.3).astype(np.uint8)
    for alpha in (None, 0.1):
        flow = Glow((2, 2, 1), 1, 1, (4,), levels=2, alpha=alpha, dtype="float64", rng=0)
        flow.initialize(black_and_white)
        placed = black_and_white + np.random.default_rng(9).random(black_and_white.shape)
        h = flow.standardize.forward(flow._support.to_unconstrained(placed.reshape(600, -1)).t)[0]
        y, _ = flow.flow_layers[2].parts["actnorm"].forward(flow.flow_layers[1].forward(h)[0])
        np.testing.assert_allclose(y.mean(axis=0), 0, atol=0.15)
        np.testing.assert_allclose(y.std(axis=0), 1, atol=0.1)


def settings(flow):
    return np.concatenate([v.ravel() for n, v in flow.named_params().items() if n.endswith(("logs", "actnorm.bias"))])


def test_layers_are_set_once_and_never_again_but_after_a_reset(tmp_path):
    first = {**OPTIONS, "max_epochs": 0}
    flow = glow()
    np.testing.assert_array_equal(settings(flow), 0)
    flow.fit(IMAGES, **first)
    set_once = settings(flow)
    assert np.abs(set_once).max() > 0.01
    flow.save(tmp_path / "flow.npz")
    others = 16 - IMAGES
    for same in (flow, npflows.load(tmp_path / "flow.npz"), pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
        same.fit(others, **first)
        same.initialize(others)
        np.testing.assert_array_equal(settings(same), set_once)
    flow.reset(0)
    np.testing.assert_array_equal(settings(flow), 0)
    flow.fit(others, **first)
    assert np.abs(settings(flow) - set_once).max() > 0.01


@pytest.mark.parametrize("how", ["initialize", "fit"])
def test_a_single_image_to_start_from_is_allowed_with_a_warning(how):
    flow = glow()
    options = {**OPTIONS, "max_epochs": 0} if how == "fit" else {}
    with pytest.warns(UserWarning, match="layers are set from a single row") as caught:
        getattr(flow, how)(IMAGES[:1], **options)
    assert len(caught) == 1
    assert all(layer.initialized for layer, _ in flow._leaves if isinstance(layer, ActNormLayer))
    assert np.isfinite(flow.log_prob(IMAGES)).all()


def test_layers_are_set_from_some_of_too_many_images(monkeypatch):
    flow, all_of_them = glow(), glow().initialize(IMAGES)
    widest = max(layer.work_rows + layer.temp_rows for layer, _ in flow._leaves)
    monkeypatch.setattr(initialize, "INITIAL_VALUES", 60 * widest)
    flow.initialize(IMAGES)
    np.testing.assert_array_equal(flow.standardize.table, all_of_them.standardize.table)
    assert 0 < np.abs(settings(flow) - settings(all_of_them)).max() < 1


def test_standardisation_is_alike_for_all_pixels_of_a_channel():
    flow = Glow((4, 4, 2), 1, 1, (4,), rng=0).fit(REAL, **{**OPTIONS, "max_epochs": 0, "validation_fraction": 0})
    pixels = REAL.reshape(-1, 2)
    np.testing.assert_allclose(flow.standardize.loc.reshape(-1, 2), np.broadcast_to(pixels.mean(axis=0), (16, 2)))
    np.testing.assert_allclose(flow.standardize.scale.reshape(-1, 2), np.broadcast_to(pixels.std(axis=0), (16, 2)))


# files, copies, configurations


def test_copies_and_files_give_the_same_bits(fitted, tmp_path):
    fitted.save(tmp_path / "flow.npz")
    again = [npflows.load(tmp_path / "flow.npz"), pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)]
    for flow in again:
        np.testing.assert_array_equal(flow.log_prob(IMAGES), fitted.log_prob(IMAGES))
        sample = flow.sample(5, 1)
        np.testing.assert_array_equal(sample, fitted.sample(5, 1))
        assert sample.dtype == np.uint8
        assert flow.history == fitted.history
    wide = npflows.load(tmp_path / "flow.npz", dtype="float64")
    np.testing.assert_allclose(wide.log_prob(IMAGES), fitted.log_prob(IMAGES), rtol=1e-4)
    again[1].fit(IMAGES, **OPTIONS, validation_fraction=0.0)
    assert np.abs(again[1].params - fitted.params).max() > 0
    np.testing.assert_array_equal(again[2].params, fitted.params)


def test_reset_with_the_same_seed_starts_the_same_way():
    flow = glow().fit(IMAGES.astype(np.float32), **OPTIONS)
    fitted_once = flow.params
    flow.reset(0)
    np.testing.assert_array_equal(flow.params, glow().params)
    assert flow.sample(1, 0).dtype == np.uint8
    flow.fit(IMAGES, **OPTIONS)
    np.testing.assert_array_equal(flow.params, fitted_once)
    flow.reset(1)
    assert np.abs(flow.params - glow().params).max() > 0.1


def test_configurations_make_the_same_kind_of_flow():
    flow = glow(alpha=0.1, split_prior="standard", condition_dim=3, embedding_dims=(4, 2))
    config = ModelConfiguration.from_json(flow.config.to_json())
    assert config.input_dim == [4, 4, 1]
    again = create(config, rng=0)
    assert again.config == flow.config
    np.testing.assert_array_equal(again.params, flow.params)
    made = create(ModelConfiguration("mine", "Glow", input_dim=(8, 8, 1), hidden_dims=(4, 4),
                                     parameters={"num_scales": 2, "blocks_per_scale": 1, "levels": 17}))  # fmt: skip
    assert (made.input_shape, made.levels, made.hidden_dims) == ((8, 8, 1), 17, (4, 4))
    given = create({"name": "a", "model_class": "Glow", "parameters": {"image_shape": [2, 2, 1], "num_scales": 1}})
    assert given.input_shape == (2, 2, 1)
    with pytest.raises(ValueError, match="image_shape is given twice"):
        create({"name": "a", "model_class": "Glow", "input_dim": [2, 2, 1], "parameters": {"image_shape": [2, 2, 1]}})
    json.dumps(flow.arguments)
    assert eval(repr(flow).splitlines()[0], {"Glow": Glow}).arguments == flow.arguments


@pytest.mark.parametrize("conditional", [False, True])
def test_the_same_bits_on_any_number_of_threads(conditional):
    condition = np.linspace(-1, 1, 120)[:, None] if conditional else None
    results = []
    for threads in (1, 2, 5):
        npflows.set_num_threads(threads)
        flow = glow(condition_dim=int(conditional)).fit(IMAGES, condition=condition, **OPTIONS)
        given = None if condition is None else condition[:7]
        results.append((flow.params, flow.log_prob(IMAGES, condition), flow.sample(7, 1, condition=given)))
    for other in results[1:]:
        for ours, theirs in zip(results[0], other):
            np.testing.assert_array_equal(theirs, ours)


# memory


def test_a_flow_has_its_parameters_in_memory_once():
    Glow((4, 4, 3), 1, 1, (4, 4), rng=0)
    tracemalloc.start()
    flow = Glow((4, 4, 3), 1, 2, (256, 256), rng=0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 12 * flow.num_params  # 4 bytes each, and which of them are free
    assert len(pickle.dumps(flow)) < 17 * flow.num_params  # once as the flow's, a block's and its parts'


CONDITION = np.random.default_rng(10).normal(size=(120, 2))
RECOMPUTED = {
    "Glow": (lambda: glow(activation="silu"), IMAGES, None),
    "Glow, condition": (lambda: glow(condition_dim=2, embedding_dims=(4, 3)), IMAGES, CONDITION),
    "MAF": (lambda: MAF(16, 3, (24,), dropout=0.2, rng=0), IMAGES.reshape(120, 16) + 0.5, None),
    "MAF, condition": (lambda: MAF(16, 2, (24,), condition_dim=2, rng=0), IMAGES.reshape(120, 16) + 0.5, CONDITION),
}


@pytest.mark.parametrize("case", RECOMPUTED.values(), ids=RECOMPUTED)
def test_running_layers_again_instead_of_keeping_their_work_changes_no_bit(case, monkeypatch):
    make, x, condition = case
    results = []
    for less in (False, True):
        if less:
            monkeypatch.setattr(program, "KEEP_BYTES", 1)
        flow = bent(make())
        loss, gradient = flow.nll_and_grad(x, condition=condition)
        z, _ = flow.forward(x, condition)
        back = flow.inverse_vjp(z, np.cos(np.arange(z.size)).reshape(z.shape), 0.3, condition)
        there = flow.forward_vjp(x, np.cos(np.arange(z.size)).reshape(z.shape), 0.3, condition)
        assert any(flow.executable()._again) is less
        fit = make().fit(x, condition=condition, **OPTIONS)
        arrays = [gradient, *back, *there, fit.params, fit.history["train_loss"], fit.history["validation_loss"]]
        results.append([np.array(loss), *arrays])
    for ours, theirs in zip(*results):
        if ours is not None:
            np.testing.assert_array_equal(theirs, ours)


def test_many_images_go_through_in_pieces(monkeypatch):
    x, whole = blobs(600, seed=1), bent(glow(dtype="float64"))
    monkeypatch.setattr(program, "CHUNK_VALUES", 1)
    pieces = bent(glow(dtype="float64"))
    assert pieces.executable().chunk_rows == 256
    monkeypatch.undo()
    assert whole.executable().chunk_rows > 600
    expected = whole.log_prob(x), *whole.forward(x), whole.sample(600, 1), *whole.nll_and_grad(x)
    monkeypatch.setattr(program, "CHUNK_VALUES", 1)
    found = pieces.log_prob(x), *pieces.forward(x), pieces.sample(600, 1), *pieces.nll_and_grad(x)
    for ours, theirs in zip(expected[:4], found[:4]):
        np.testing.assert_array_equal(theirs, ours)
    for ours, theirs in zip(expected[4:], found[4:]):  # sums in another order
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-9)


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
    flow = glow(levels=levels, scale_activation="tanh").fit(noise, **{**OPTIONS, "max_epochs": 0})
    normal_for_uniform = 0.5 * math.log2(2 * math.pi * math.e / 12)  # what a bell costs where all is flat
    assert flow.bits_per_dim(noise) == pytest.approx(math.log2(levels) + normal_for_uniform, abs=0.05)
    assert flow.bits_per_dim(noise) == pytest.approx(-flow.log_prob(noise).mean() / (16 * math.log(2)))


def test_training_lowers_the_bits(fitted):
    fresh = glow().fit(IMAGES, **{**OPTIONS, "max_epochs": 0})
    held_out = blobs(100, seed=2)
    assert fitted.bits_per_dim(held_out) < fresh.bits_per_dim(held_out) - 0.2
    assert fitted.bits_per_dim(held_out) < math.log2(LEVELS) - 0.5


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


def test_interpolation_begins_and_ends_with_the_images(fitted):
    images = fitted.interpolate(IMAGES[0], IMAGES[1], 5)
    assert images.shape == (5, 4, 4, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[[0, -1]], IMAGES[:2])
    z, _ = fitted.forward(IMAGES[:2])
    np.testing.assert_array_equal(images[2], fitted.inverse(z.mean(axis=0))[0])
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
    flow.fit(x, condition=bright[:, None], **{**OPTIONS, "max_epochs": 40, "learning_rate": 1e-2, "batch_size": 64})
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
    flow = RealNVP((4, 6, 2), 2, (5,), mask_type, network="conv", rng=0)
    first, second = (layer.mask.reshape(4, 6, 2) for layer in flow.flow_layers[1:])
    y, x, c = np.indices((4, 6, 2))
    np.testing.assert_array_equal(first, (y + x + 1) % 2 if mask_type == "checkerboard" else c < 1)
    np.testing.assert_array_equal(second, 1 - first)
    assert flow.input_shape == (4, 6, 2)
    assert np.allclose(flow.forward(REAL[:, :, [0, 1, 2, 3, 0, 1]])[0], REAL[:, :, [0, 1, 2, 3, 0, 1]], atol=1e-6)


def test_realnvp_with_convolutions_sees_neighbours_alone():
    flow = bent(RealNVP((9, 9, 1), 1, (6,), network="conv", dtype="float64", rng=0))
    x = np.random.default_rng(16).normal(size=(2, 9, 9, 1))
    moved = x.copy()
    moved[:, 4, 4] += 1
    changed = (np.abs(flow.forward(moved)[0] - flow.forward(x)[0]) > 1e-12).any(axis=(0, 3))
    assert not changed[[0, 1, 7, 8]].any()
    assert not changed[:, [0, 1, 7, 8]].any()
    assert changed.sum() == 1 + 12  # itself, and those of the other colour within two pixels


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


class Killed(Exception):
    """The end of a run in the middle."""


def test_a_run_that_was_cut_off_goes_on_with_the_same_bits(tmp_path):
    path, options = tmp_path / "run.npz", {**OPTIONS, "max_epochs": 4, "ema": 0.9}
    expected = glow(alpha=0.05).fit(IMAGES, **options)

    def kill(flow, record):
        if record["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        glow(alpha=0.05).fit(IMAGES, checkpoint=path, callbacks=[kill], **options)
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
    monkeypatch.setattr(checks, "near", lambda network, n: np.eye(n, dtype=bool))
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


def test_the_unit_cube_of_pixels(fitted):
    u = np.random.default_rng(21).random((50, 4, 4, 1))
    images = fitted.from_unit_cube(u)
    assert images.dtype == np.uint8
    assert images.shape == (50, 4, 4, 1)
    assert images.max() < LEVELS
    np.testing.assert_array_equal(fitted.from_unit_cube(fitted.to_unit_cube(IMAGES)), IMAGES)


def test_entropy_divergence_and_mode(fitted):
    entropy = fitted.entropy(500, 0)
    assert entropy.value == pytest.approx(-fitted.log_prob(fitted.sample(500, 0)).mean())
    assert fitted.kl_divergence(fitted, 200, 0).value == 0
    fresh = glow().fit(IMAGES, **{**OPTIONS, "max_epochs": 0})
    assert fitted.kl_divergence(fresh, 500, 0).value > 1
    small = Glow((2, 2, 1), 1, 1, (4,), levels=2, rng=0).fit(IMAGES[:, 1:3, 1:3] > 4, **OPTIONS)
    mode = small.mode(rng=0)
    assert mode.x.shape == (2, 2, 1)
    every = np.array(list(itertools.product([0, 1], repeat=4))).reshape(16, 2, 2, 1)
    assert mode.log_prob == pytest.approx(small.log_prob(every).max(), abs=1e-6)
    marginal = small.marginal([0], rng=0)
    np.testing.assert_array_equal(marginal.grid, [0, 1])


# bad input

FLOAT_IMAGES = IMAGES / 16
REFUSED = {
    "shape": (
        lambda: glow().log_prob(IMAGES[:, :2]),
        r"x must have shape \(n, 4, 4, 1\) or \(n, 16\), got \(120, 2, 4, 1\)",
    ),
    "channels": (
        lambda: glow().fit(np.repeat(IMAGES, 3, 3)),
        r"x must have shape \(n, 4, 4, 1\) or \(n, 16\), got \(120, 4, 4, 3\)",
    ),
    "no channel axis": (lambda: glow().log_prob(IMAGES[..., 0]), r"x must have shape \(n, 4, 4, 1\) or \(n, 16\)"),
    "channels first": (lambda: Glow((4, 4, 2), 1).log_prob(np.moveaxis(REAL, 3, 1)), r"x must have shape \(n, 4, 4, 2\)"),
    "sizes that do not divide": (
        lambda: Glow((28, 28, 1), 3),
        r"image_shape=\(28, 28, 1\): height and width must be divisible by 2\*\*num_scales = 8; pad the images or",
    ),
    "width that does not divide": (lambda: Glow((8, 6, 1), 2), r"must be divisible by 2\*\*num_scales = 4"),
    "flat shape": (lambda: Glow(16), r"image_shape must be \(height, width, channels\), got 16"),
    "no channels": (lambda: Glow((4, 4)), r"image_shape must be a number or a shape \(height, width, channels\)"),
    "above the range": (
        lambda: glow().fit(IMAGES + 10, **OPTIONS),
        "x must be images of whole numbers 0 to 16, as levels=17 says, got values from 0 to 26",
    ),
    "below the range": (lambda: glow().log_prob(IMAGES.astype(int) - 3), "got values from -3 to"),
    "above the range in validation": (
        lambda: glow().fit(IMAGES, validation_data=IMAGES + 10, **OPTIONS),
        "validation_data must be images of whole numbers 0 to 16",
    ),
    "above the range to start from": (lambda: glow().initialize(IMAGES + 10), "x must be images of whole numbers 0 to 16"),
    "above the range to interpolate": (lambda: glow().interpolate(IMAGES[0], IMAGES[1] + 10), "got values from 0 to"),
    "floats": (
        lambda: glow().fit(FLOAT_IMAGES, **OPTIONS),
        r"whole numbers 0 to 16, as levels=17 says, got float64 values such as 0\.\d+; round them, or leave levels out",
    ),
    "floats in log_prob": (lambda: glow().log_prob(FLOAT_IMAGES.astype("f4")), "got float32 values such as"),
    "floats in forward": (lambda: glow().forward(FLOAT_IMAGES), "got float64 values such as"),
    "one level": (lambda: glow(levels=1), "levels must be a whole number of at least 2, got 1"),
    "levels of floats": (lambda: glow(levels=256.0), r"levels must be a whole number of at least 2, got 256\.0"),
    "alpha without levels": (lambda: glow(levels=None, alpha=0.05), r"alpha=0\.05 needs levels=, the number of values"),
    "alpha too large": (lambda: glow(alpha=0.5), r"alpha must be below 0\.5, got 0\.5"),
    "alpha of zero": (lambda: glow(alpha=0.0), r"alpha must be a finite number above 0, got 0\.0"),
    "num_scales": (lambda: Glow((4, 4, 1), 0), "num_scales must be a whole number of at least 1, got 0"),
    "blocks_per_scale": (lambda: Glow((4, 4, 1), 1, 0), "blocks_per_scale must be a whole number of at least 1, got 0"),
    "hidden_dims": (lambda: Glow((4, 4, 1), 1, 1, (0,)), "hidden_dims must be whole numbers of at least 1"),
    "split_prior": (lambda: glow(split_prior="none"), "split_prior must be one of 'learned', 'standard', got 'none'"),
    "condition": (lambda: glow(condition_dim=2).sample(3), "this flow needs a condition of 2 values for each sample"),
    "empty": (lambda: glow().fit(IMAGES[:0], **OPTIONS), "x is empty: fit needs at least one row"),
    "empty to start from": (lambda: glow().initialize(IMAGES[:0]), "initialize needs at least one row, and finite values"),
    "temperature of whole numbers": (
        lambda: glow().sample_and_log_prob(3, 0, 0.5),
        "sample_and_log_prob of integer columns needs temperature=1",
    ),
    "a flow to be fitted to a density": (
        lambda: glow().fit_variational(lambda x: -(x**2).sum(axis=1)),
        "fit_variational needs densities with gradients, and this flow has integer columns",
    ),
    "vectors for convolutions": (
        lambda: RealNVP(16, network="conv"),
        r"network='conv' needs input_dim=\(height, width, channels\), got 16",
    ),
    "one channel, channel-wise": (
        lambda: RealNVP((4, 4, 1), 2, (4,), "channel-wise", network="conv"),
        "a coupling needs values on both sides",
    ),
    "residual blocks": (
        lambda: RealNVP((4, 4, 1), 2, (4,), network="conv", residual_blocks=1),
        "network='conv' has no residual_blocks and no dropout: leave both at 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(case):
    call, message = case
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="x must be an array of numbers, got dtype <U1"):
        glow().fit(np.full((3, 4, 4, 1), "a"), **OPTIONS)
