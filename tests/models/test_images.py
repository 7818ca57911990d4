"""Flows of images as people use them: Glow and RealNVP with convolutions, whole-number pixels, fits, files, refusals."""

import copy
import json
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from image_cases import IMAGES, OPTIONS, REAL, bent, blobs, glow, settings

import npflows
from npflows import MAF, ActNormLayer, Glow, ModelConfiguration, RealNVP, create
from npflows.backends.cpu import program
from npflows.training import initialization as initialize

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
    assert kinds == ["Standardize", *scale, "Split", *scale, "Split", *scale, "LogTails"]
    assert flow.base.learnable
    assert [layer.num_channels for layer in flow.flow_layers[1:-1]] == [3, 12, 12, 12, 6, 24, 24, 24, 12, 48, 48]
    sizes = [(32, 32)] + [(16, 16)] * 4 + [(8, 8)] * 4 + [(4, 4)] * 2
    assert [layer.image_size for layer in flow.flow_layers[1:-1]] == sizes
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
    flow = bent(Glow((4, 4, 1), 2, 1, (5,), split_prior="standard", log_tails=None, dtype="float64", rng=0))
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
@pytest.mark.filterwarnings("ignore:x has no density:UserWarning")
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
        h = flow.standardize.forward(flow.preprocessing.to_unconstrained(placed.reshape(600, -1)).t)[0]
        y, _ = flow.flow_layers[2].parts["actnorm"].forward(flow.flow_layers[1].forward(h)[0])
        np.testing.assert_allclose(y.mean(axis=0), 0, atol=0.15)
        np.testing.assert_allclose(y.std(axis=0), 1, atol=0.1)


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
    assert all(layer.initialized for layer, _ in flow.leaves if isinstance(layer, ActNormLayer))
    assert np.isfinite(flow.log_prob(IMAGES)).all()


def test_layers_are_set_from_some_of_too_many_images(monkeypatch):
    flow, all_of_them = glow(), glow().initialize(IMAGES)
    widest = 10**9 // flow.executable().rows_within(10**9)
    monkeypatch.setattr(initialize, "INITIAL_VALUES", 60 * widest)
    flow.initialize(IMAGES)
    np.testing.assert_array_equal(flow.standardize.table, all_of_them.standardize.table)
    assert 0 < np.abs(settings(flow) - settings(all_of_them)).max() < 1


def test_standardization_is_alike_for_all_pixels_of_a_channel():
    flow = Glow((4, 4, 2), 1, 1, (4,), rng=0).fit(REAL, **{**OPTIONS, "max_epochs": 0, "validation_fraction": 0})
    pixels = REAL.reshape(-1, 2)
    np.testing.assert_allclose(flow.standardize.loc.reshape(-1, 2), np.broadcast_to(pixels.mean(axis=0), (16, 2)))
    np.testing.assert_allclose(flow.standardize.scale.reshape(-1, 2), np.broadcast_to(pixels.std(axis=0), (16, 2)))


# files, copies, configurations


def test_copies_and_files_give_the_same_bits(trained, tmp_path):
    trained.save(tmp_path / "flow.npz")
    again = [npflows.load(tmp_path / "flow.npz"), pickle.loads(pickle.dumps(trained)), copy.deepcopy(trained)]
    for flow in again:
        np.testing.assert_array_equal(flow.log_prob(IMAGES), trained.log_prob(IMAGES))
        sample = flow.sample(5, 1)
        np.testing.assert_array_equal(sample, trained.sample(5, 1))
        assert sample.dtype == np.uint8
        assert flow.history == trained.history
    wide = npflows.load(tmp_path / "flow.npz", dtype="float64")
    np.testing.assert_allclose(wide.log_prob(IMAGES), trained.log_prob(IMAGES), rtol=1e-4)
    again[1].fit(IMAGES, **OPTIONS, validation_fraction=0.0)
    assert np.abs(again[1].params - trained.params).max() > 0
    np.testing.assert_array_equal(again[2].params, trained.params)


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
    with pytest.raises(ValueError, match=r"image_shape=.* and input_dim=.* contradict each other"):
        create({"name": "a", "model_class": "Glow", "input_dim": [2, 2, 1], "parameters": {"image_shape": [8, 8, 1]}})
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


@pytest.mark.filterwarnings("ignore:x has no density:UserWarning")
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
        assert any(flow.executable().recomputed) is less
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
    "a flow to be trained to a density": (
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
