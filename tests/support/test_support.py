"""`support=`: columns on half-lines, intervals, circles and whole numbers, as users know them."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest
import scipy.special
import scipy.stats

import npflows
from npflows import NeuralSplineFlow
from npflows.core import evaluation
from npflows.support import infer, integer, interval, periodic, positive, real

NAMES = ["width", "share", "angle", "count", "shift"]
EVERY = [positive(2.0), interval(-1.0, 3.0), periodic(0.0, 360.0), integer(-2, 3), real()]
RNG = np.random.default_rng(0)
TABLE = np.column_stack([
    2 + np.exp(RNG.normal(size=400)),
    RNG.uniform(-0.9, 2.9, 400),
    RNG.uniform(0, 360, 400),
    RNG.integers(-2, 4, 400),
    RNG.normal(size=400),
])  # fmt: skip


def mixed(columns=NAMES, support=EVERY, **options):
    """A flow of one column of each kind."""
    return NeuralSplineFlow(5, 2, (8,), 4, linear="permutation", support=support, columns=columns, **{"rng": 1, **options})


def strong(flow, strength=2.0):
    """The same with parameters far from where they started."""
    flow.params = flow.params + strength * np.random.default_rng(2).normal(size=flow.num_params)
    return flow


def alone(column, **options):
    """A flow of one column."""
    return NeuralSplineFlow(1, support=[column], **{"rng": 1, "dtype": "float64", **options})


def fitted(flow, x, **options):
    return flow.fit(x, **{"max_epochs": 3, "batch_size": 100, "rng": 2, "progress": False, **options})


def logit_normal(low, high):
    """The distribution of low + (high - low) / (1 + exp(-t)) for a standard normal t: log-density and cdf."""

    def cdf(x):
        u = (np.asarray(x) - low) / (high - low)
        with np.errstate(divide="ignore"):
            return scipy.stats.norm.cdf(np.log(u) - np.log1p(-u))

    def log_density(x):
        u = (np.asarray(x) - low) / (high - low)
        return scipy.stats.norm.logpdf(np.log(u / (1 - u))) - np.log(u * (1 - u) * (high - low))

    return log_density, cdf


LOGNORMAL, CIRCLE = scipy.stats.lognorm(1, loc=2.0), scipy.stats.uniform(-1.0, 4.0)
AT_FIRST = {
    "real": (real(), scipy.stats.norm.logpdf, scipy.stats.norm.cdf, [-7.0, 0.0, 0.3, 5.5]),
    "half-line": (positive(2.0), LOGNORMAL.logpdf, LOGNORMAL.cdf, [2.0001, 2.5, 3.0, 40.0]),
    "interval": (interval(-1.0, 3.0), *logit_normal(-1.0, 3.0), [-0.9999, 0.0, 1.0, 2.9]),
    "circle": (periodic(-1.0, 3.0), CIRCLE.logpdf, CIRCLE.cdf, [-1.0, 0.0, 1.7, 2.9999]),
}
OUTSIDE = {
    "half-line": [2.0, 1.999999, -3.0, -1e300],
    "interval": [-1.0, 3.0, -1.5, 3.0000001, 1e300, -1e300],
    "whole numbers": [-3.0, 4.0, 0.5, 2.9999999, -2.0000001, 1e300, -1e300],
}
for_every_kind = pytest.mark.parametrize("kind", AT_FIRST)


@for_every_kind
def test_a_flow_at_its_start_is_the_textbook_distribution(kind):
    column, log_density, cdf, x = AT_FIRST[kind]
    flow = alone(column)
    np.testing.assert_allclose(flow.log_prob(np.reshape(x, (-1, 1))), log_density(np.array(x)), rtol=1e-9, atol=1e-12)
    samples = flow.sample(5000, 3)
    assert scipy.stats.kstest(samples[:, 0], cdf).pvalue > 1e-3
    np.testing.assert_allclose(flow.log_prob(samples), log_density(samples[:, 0]), rtol=1e-6)


def test_whole_numbers_at_the_start_have_the_mass_of_their_cells():
    flow, numbers = alone(integer(-2, 3)), np.arange(-2, 4)
    mass = np.diff(logit_normal(-2, 4)[1](np.arange(-2, 5)))
    np.testing.assert_allclose(np.exp(flow.log_prob(numbers.reshape(-1, 1), draws=2000)), mass, rtol=2e-3)
    counts = np.bincount(flow.sample(20000, 3)[:, 0].astype(int) + 2, minlength=6)
    assert scipy.stats.chisquare(counts, 20000 * mass).pvalue > 1e-3


@pytest.mark.parametrize("kind", OUTSIDE)
def test_outside_the_support_the_log_density_is_minus_infinity(kind):
    column = integer(-2, 3) if kind == "whole numbers" else AT_FIRST[kind][0]
    x = np.array([*OUTSIDE[kind], np.inf, -np.inf]).reshape(-1, 1)
    flow = strong(alone(column))
    np.testing.assert_array_equal(flow.log_prob(x), -np.inf)
    log_prob, gradient = flow.log_prob_and_grad(x)
    np.testing.assert_array_equal(log_prob, -np.inf)
    np.testing.assert_array_equal(gradient, 0)
    z, log_det = flow.forward(x)
    assert np.isnan(z).all()
    assert np.isnan(log_det).all()


def test_just_inside_the_support_the_log_density_is_finite():
    inside = {
        positive(2.0): np.nextafter(2.0, 3.0),
        positive(): 5e-324,
        interval(-1.0, 3.0): np.nextafter(3.0, 0.0),
        interval(0.0, 1.0): 5e-324,
        integer(-2, 3): 3.0,
    }
    for column, x in inside.items():
        for dtype in ("float32", "float64"):
            flow = alone(column, dtype=dtype)
            log_prob, gradient = flow.log_prob_and_grad([x])
            assert np.isfinite(log_prob), (column, dtype)
            assert np.isfinite(gradient).all(), (column, dtype)


@pytest.mark.parametrize("column", EVERY, ids=repr)
def test_nan_stays_nan(column):
    log_prob, gradient = alone(column).log_prob_and_grad([[np.nan], [column.middle() // 1]])
    np.testing.assert_array_equal(np.isnan(log_prob), [True, False])
    np.testing.assert_array_equal(np.isnan(gradient[:, 0]), [not column.is_integer, False])


def test_a_row_with_nan_is_nan_even_if_another_value_lies_outside():
    x = np.tile(TABLE[:1], (5, 1))
    x[1, 0], x[2, 0], x[3, 4] = np.nan, -5.0, np.nan
    x[4, [1, 3]] = 99.0, np.nan
    log_prob = mixed().log_prob(x)
    np.testing.assert_array_equal(np.isnan(log_prob), [False, True, False, True, True])
    assert log_prob[2] == -np.inf
    assert np.isnan(mixed().forward(x)[0][4]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_sample_leaves_the_support(dtype):
    flow = strong(mixed(dtype=dtype))
    for temperature in (1.0, 0.1, 20.0):
        x = flow.sample(50000, 4, temperature)
        assert x[:, 0].min() > 2
        assert np.isfinite(x).all()
        assert (x[:, 1].min(), x[:, 1].max()) > (-1, -1)
        assert x[:, 1].max() < 3
        assert 0 <= x[:, 2].min() <= x[:, 2].max() < 360
        assert set(np.unique(x[:, 3])) <= set(range(-2, 4))
        assert np.isfinite(flow.log_prob(x[:1000])).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_absurd_latent_values_stay_in_the_support_too(dtype):
    z = np.array([[v] for v in (-1e30, -800.0, -40.0, 40.0, 800.0, 1e30)])
    for column in (positive(2.0), positive(), interval(-1.0, 3.0), interval(1e6, 1e6 + 1e-3), integer(-2, 3)):
        x, _ = alone(column, dtype=dtype).inverse(z)
        assert np.isfinite(alone(column, dtype=dtype).log_prob(x)).all()
        assert column.contains(x + 0.5 if column.is_integer else x).all(), column


def test_samples_come_with_their_own_log_density():
    for flow in (mixed(), mixed(support={k: v for k, v in zip(NAMES, EVERY) if k != "count"})):
        x, log_prob = strong(flow, 0.5).sample_and_log_prob(50, 3)
        np.testing.assert_array_equal(x, flow.sample(50, 3))
        np.testing.assert_allclose(log_prob, flow.log_prob(x), rtol=2e-3, atol=1e-3)


def test_there_and_back_whole_numbers_are_in_the_middle_of_their_cells():
    flow = strong(mixed(dtype="float64"), 0.5)
    z, log_det = flow.forward(TABLE)
    x, back = flow.inverse(z)
    np.testing.assert_allclose(x, TABLE, rtol=1e-9)
    np.testing.assert_allclose(back, -log_det, atol=1e-8)
    by_hand = 1 / (3.5 + 2) + 1 / (4 - 3.5)  # d logit / dx at 3.5 in the interval from -2 to 4
    assert alone(integer(-2, 3)).forward([3.0])[1] == pytest.approx(math.log(by_hand))


def test_calling_a_flow_gives_the_same_log_density_as_log_prob():
    flow = strong(mixed(), 0.5)
    np.testing.assert_array_equal(flow(TABLE)["log_prob_x"], flow.log_prob(TABLE))
    assert flow.loss_fn(TABLE, flow(TABLE))["loss"] == pytest.approx(-flow.log_prob(TABLE).mean())
    assert flow(TABLE[0])["log_prob_x"] == pytest.approx(flow.log_prob(TABLE[0]))


def test_a_rows_log_density_does_not_depend_on_other_rows():
    flow = strong(mixed(), 0.5)
    together = flow.log_prob(TABLE)
    np.testing.assert_allclose(flow.log_prob(TABLE[::-1])[::-1], together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose([flow.log_prob(row) for row in TABLE[:20]], together[:20], rtol=1e-5, atol=1e-5)


def test_more_draws_make_the_mass_of_a_cell_exact_and_the_default_ones_are_always_the_same():
    flow, numbers = strong(alone(integer(0, 4)), 0.5), np.arange(5.0).reshape(-1, 1)
    exact = flow.log_prob(numbers, draws=4000)
    assert np.exp(exact).sum() == pytest.approx(1, abs=2e-3)
    np.testing.assert_array_equal(flow.log_prob(numbers), flow.log_prob(numbers, draws=16, rng=0))
    other = flow.log_prob(numbers, rng=5)
    assert not np.array_equal(other, flow.log_prob(numbers))
    np.testing.assert_array_equal(other, flow.log_prob(numbers, rng=np.random.default_rng(5)))
    errors = [abs(flow.log_prob(numbers, draws=n) - exact).max() for n in (1, 16, 256)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05
    once = np.exp([flow.log_prob(numbers, draws=1, rng=seed) for seed in range(1000)])  # right on average, however few
    assert (abs(once.mean(axis=0) - np.exp(exact)) < 4 * once.std(axis=0) / math.sqrt(1000)).all()
    for draws in (0, 2.5, None):
        with pytest.raises(ValueError, match="draws must be a whole number of at least 1, got"):
            flow.log_prob(numbers, draws=draws)


def test_the_gradient_of_a_mass_is_that_of_its_estimate_and_0_in_the_whole_numbers():
    flow, step = strong(mixed(dtype="float64", activation="silu"), 0.5), 1e-5
    x = TABLE[:20]
    log_prob, gradient = flow.log_prob_and_grad(x, draws=8)
    np.testing.assert_allclose(log_prob, flow.log_prob(x, draws=8))
    np.testing.assert_array_equal(gradient[:, 3], 0)
    for d in (0, 1, 2, 4):
        move = step * np.eye(5)[d]
        slope = (flow.log_prob(x + move, draws=8) - flow.log_prob(x - move, draws=8)) / (2 * step)
        np.testing.assert_allclose(gradient[:, d], slope, rtol=1e-3, atol=1e-5)


# after training


def around(n, rng, center=350.0, concentration=2.0):
    """Angles in degrees, not far from the seam at 0 = 360."""
    return np.rad2deg(np.random.default_rng(rng).vonmises(np.deg2rad(center), concentration, n)) % 360


@functools.cache
def on_a_circle():
    """One angle with most of its mass around the seam, and more of it to the left."""
    return fitted(alone(periodic(0.0, 360.0), num_layers=2, num_bins=6), around(2000, 0).reshape(-1, 1),
                  max_epochs=30, learning_rate=2e-2)  # fmt: skip


@functools.cache
def on_a_strip():
    """An angle, and a share that depends on it."""
    angle = around(2000, 0)
    share = 1 / (1 + np.exp(-np.cos(np.deg2rad(angle - 30)) - 0.3 * np.random.default_rng(1).normal(size=2000)))
    flow = NeuralSplineFlow(2, 4, (16,), 6, linear="permutation", activation="silu", dtype="float64", rng=0,
                            support=[periodic(0.0, 360.0), interval(0.0, 1.0)])  # fmt: skip
    return fitted(flow, np.column_stack([angle, share]), max_epochs=20, learning_rate=1e-2)


@functools.cache
def on_whole_numbers():
    numbers = np.random.default_rng(0).choice(5, 4000, p=[0.4, 0.05, 0.3, 0.05, 0.2]).reshape(-1, 1)
    flow = fitted(alone(integer(0, 4), num_layers=2, num_bins=12), numbers, max_epochs=40, learning_rate=2e-2)
    return flow, np.bincount(numbers[:, 0]) / 4000


def test_a_fitted_density_on_a_circle_comes_close_to_the_truth():
    held_out = around(4000, 5)
    truth = scipy.stats.vonmises(2.0, loc=np.deg2rad(350.0)).logpdf(np.deg2rad(held_out)) + np.log(np.deg2rad(1.0))
    log_prob = on_a_circle().log_prob(held_out.reshape(-1, 1))
    assert truth.mean() - log_prob.mean() < 0.03
    near = (held_out > 340) | (held_out < 20)
    np.testing.assert_allclose(log_prob[near], truth[near], atol=0.2)
    samples = (on_a_circle().sample(2000, 3)[:, 0] + 180) % 360
    assert scipy.stats.ks_2samp(samples, (held_out + 180) % 360).pvalue > 1e-3


def seam(flow, others=None):
    """log-density and its slope along the angle on either side of the seam, at other values of the second column."""
    ends = []
    for angle in (0.0, np.nextafter(360.0, 0.0)):
        x = np.full((1, 1), angle) if others is None else np.column_stack([np.full(len(others), angle), others])
        log_prob, gradient = flow.log_prob_and_grad(x)
        ends.append(np.column_stack([log_prob, 360 * gradient]))
    return ends


def test_the_density_meets_at_the_seam_in_value_and_slope():
    right, left = seam(on_a_circle())
    np.testing.assert_allclose(right, left, rtol=1e-6, atol=1e-6)
    assert abs(right[0, 1]) > 0.5, "flat at the seam: the test shows nothing"
    right, left = seam(on_a_strip(), np.linspace(0.01, 0.99, 50))
    np.testing.assert_allclose(right, left, rtol=1e-6, atol=1e-6)
    assert np.ptp(right[:, 1]) > 1


@pytest.mark.parametrize("conditioner", ["coupling", "autoregressive"])
def test_a_condition_does_not_open_the_seam(conditioner):
    angle = around(500, 3).reshape(-1, 1)
    for n, x, support in ((1, angle, [periodic(0, 360)]), (2, np.hstack([angle, angle / 100]), {0: periodic(0, 360)})):
        flow = NeuralSplineFlow(n, 2, (8,), 4, conditioner=conditioner, linear="permutation", activation="tanh",
                                condition_dim=2, embedding_dims=(6, 3), support=support, dtype="float64",
                                rng=0)  # fmt: skip
        fitted(flow, x, condition=np.random.default_rng(0).normal(size=(500, 2)), learning_rate=1e-2)
        ends = [np.column_stack([np.full((3, 1), a), np.ones((3, n - 1))]) for a in (0.0, np.nextafter(360.0, 0))]
        (right, slope), (left, slope_left) = (flow.log_prob_and_grad(end, [[0.0, 1.0], [2.0, -1], [1, 1]]) for end in ends)
        np.testing.assert_allclose(right, left, rtol=1e-6)
        np.testing.assert_allclose(slope, slope_left, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("conditioner", ["coupling", "autoregressive"])
def test_a_torus_has_no_edge_in_any_direction(conditioner):
    flow = NeuralSplineFlow(3, 3, (12,), 4, conditioner=conditioner, linear="permutation", activation="silu",
                            dtype="float64", rng=0, support=[periodic(0.0, 360.0), periodic(-1, 1), real()])  # fmt: skip
    flow = strong(flow, 0.7)
    x = np.random.default_rng(0).uniform([0, -1, -1], [360, 1, 1], (40, 3))
    for d, low, high in ((0, 0.0, 360.0), (1, -1.0, 1.0)):
        ends = [np.copy(x), np.copy(x)]
        ends[0][:, d], ends[1][:, d] = low, np.nextafter(high, low)
        (right, slope), (left, slope_left) = (flow.log_prob_and_grad(end) for end in ends)
        np.testing.assert_allclose(right, left, rtol=1e-9)
        np.testing.assert_allclose(slope, slope_left, rtol=1e-6, atol=1e-9)
        assert np.ptp(slope[:, d]) > 1e-3, "flat at the seam: the test shows nothing"
    np.testing.assert_allclose(flow.log_prob(x + np.array([360, -4, 0])), flow.log_prob(x), rtol=1e-9)


def test_an_angle_may_come_in_any_turn():
    x = np.array([[10.0], [200.0], [359.0]])
    for turns in (-3, -1, 1, 100):
        np.testing.assert_allclose(on_a_circle().log_prob(x + 360 * turns), on_a_circle().log_prob(x), rtol=1e-9)
    angle = around(300, 0).reshape(-1, 1)
    wrapped, plain = (fitted(alone(periodic(0, 360)), table) for table in ((angle + 180) % 360 - 180, angle))
    np.testing.assert_allclose(wrapped.params, plain.params, rtol=1e-6, atol=1e-9)


def midpoints(low, high, n):
    return low + (high - low) * (np.arange(n) + 0.5) / n, (high - low) / n


def test_a_fitted_density_integrates_to_one_over_its_support():
    x, step = midpoints(0, 360, 4000)
    assert np.exp(on_a_circle().log_prob(x.reshape(-1, 1))).sum() * step == pytest.approx(1, abs=1e-5)
    share, width = midpoints(0, 1, 500)
    grid = np.stack(np.meshgrid(*(midpoints(0, 360, 500)[0], share), indexing="ij"), -1).reshape(-1, 2)
    assert np.exp(on_a_strip().log_prob(grid)).sum() * width * 360 / 500 == pytest.approx(1, abs=2e-3)
    half_line = fitted(alone(positive(2.0)), TABLE[:, :1])
    t, step = midpoints(-15, 15, 4000)
    mass = np.exp(half_line.log_prob((2 + np.exp(t)).reshape(-1, 1)) + t)
    assert mass.sum() * step == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("number", [0, 3, 50, 100])
def test_a_column_with_one_whole_number_has_a_mass_and_no_warning(number):
    x = np.column_stack([np.random.default_rng(0).normal(size=400), np.full(400, float(number))])
    flow = NeuralSplineFlow(2, 3, (16,), support={1: integer(0, 100)}, rng=0)
    fitted(flow, x, max_epochs=15, learning_rate=1e-2)  # warnings are errors
    without = fitted(NeuralSplineFlow(1, 3, rng=0), x[:, :1], max_epochs=15, learning_rate=1e-2)
    lost = without.log_prob(x[:, :1]).mean() - flow.log_prob(x).mean()
    assert lost < 0.4, "the number's mass is far from 1"


@pytest.mark.parametrize("numbers", [np.arange(400) % 5, np.full(400, 4)])
def test_whole_numbers_fit_into_a_base_with_bounds(numbers):
    x, base = np.column_stack([np.random.default_rng(0).normal(size=400), numbers]), npflows.Uniform(2, -3.0, 3.0)
    flow = NeuralSplineFlow(2, 2, (8,), support={1: integer(0, 4)}, linear="permutation", base_distribution=base, rng=0)
    fitted(flow, x)
    assert np.isfinite(flow.log_prob(x)).all()
    assert np.isfinite(flow.history["validation_loss"]).all()


def test_the_masses_of_all_whole_numbers_add_up_to_one():
    flow, _ = on_whole_numbers()
    assert np.exp(flow.log_prob(np.arange(5.0).reshape(-1, 1), draws=1000)).sum() == pytest.approx(1, abs=5e-3)
    flow, x = strong(mixed(dtype="float64"), 0.5), np.repeat(TABLE[:1], 6, axis=0)
    x[:, 3] = np.arange(-2, 4)
    without_count = np.exp(flow.log_prob(x, draws=2000)).sum()
    cells, step = midpoints(-2, 4, 6000)
    t = flow._support.to_unconstrained(
        np.column_stack([np.repeat(TABLE[:1, :3], 6000, 0), cells, np.repeat(TABLE[:1, 4:], 6000, 0)])
    )
    result = evaluation.transport(flow.executable(), flow.state(), t.t, None, y=False, log_det=False, log_prob=True)
    on_line = result.log_prob + t.log_det
    assert without_count == pytest.approx(np.exp(on_line).sum() * step, rel=5e-3)


def test_frequencies_of_whole_numbers_are_learnt():
    flow, frequencies = on_whole_numbers()
    np.testing.assert_allclose(np.exp(flow.log_prob(np.arange(5.0).reshape(-1, 1), draws=500)), frequencies, atol=0.03)
    np.testing.assert_allclose(np.bincount(flow.sample(20000, 0)[:, 0].astype(int)) / 20000, frequencies, atol=0.03)


def test_nll_of_whole_numbers_is_a_bound_from_above_and_repeatable():
    flow, _ = on_whole_numbers()
    x = np.random.default_rng(4).integers(0, 5, (3000, 1))
    nll, gradient = flow.nll_and_grad(x)
    assert nll >= -flow.log_prob(x, draws=500).mean() - 0.02
    again = flow.nll_and_grad(x)
    assert nll == again[0]
    np.testing.assert_array_equal(gradient, again[1])


def test_fitting_whole_numbers_gives_the_same_bits_on_any_number_of_threads_and_after_a_resume(tmp_path):
    flows = []
    for n in (1, 3):
        npflows.set_num_threads(n)
        flows.append(fitted(mixed(), TABLE))
    path = tmp_path / "run.npz"
    fitted(mixed(), TABLE, checkpoint=path, callbacks=lambda flow, record: record["epoch"] == 1)
    flows.append(fitted(mixed(), TABLE, checkpoint=path, resume=True))
    np.testing.assert_array_equal(flows[0].params, flows[1].params)
    np.testing.assert_array_equal(flows[0].params, flows[2].params)


# what comes in


def test_columns_are_given_by_list_by_name_or_by_number():
    by_list, by_name, by_number = (
        strong(mixed(support=given), 0.5)
        for given in (EVERY, dict(zip(NAMES, EVERY)), {3: EVERY[3], 0: EVERY[0], np.int64(1): EVERY[1], 2: EVERY[2]})
    )
    for flow in (by_name, by_number):
        np.testing.assert_array_equal(flow.log_prob(TABLE), by_list.log_prob(TABLE))
        assert repr(flow.support) == repr(by_list.support)
    assert NeuralSplineFlow(2, 1).support is None


GIVEN = {
    "unknown name": ({"angles": periodic(0, 1)}, ValueError, "support has no column 'angles': .* one of width, share"),
    "number too high": ({5: real()}, ValueError, "support has no column 5: expected 0 to 4"),
    "negative number": ({-1: real()}, ValueError, "support has no column -1"),
    "too few": ([real()], ValueError, "one of .*real.*, positive.* for each of the 5 columns, got"),
    "text": (["positive"] * 5, ValueError, "one of .*real.*, positive.* for each of the 5 columns, got"),
    "functions": ([real] * 5, ValueError, "one of .*real.*, positive.* for each of the 5 columns, got"),
    "one column": (positive(), TypeError, "support must be a list of npflows.support columns or a mapping to them"),
    "a word": ("positive", TypeError, "support must be a list of npflows.support columns or a mapping to them"),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_wrong_support_is_refused(case):
    given, error, message = GIVEN[case]
    with pytest.raises(error, match=message):
        mixed(support=given)


def test_names_need_columns():
    with pytest.raises(ValueError, match="support has no column 'angle': expected 0 to 4; for names pass columns="):
        mixed(columns=None, support={"angle": periodic(0, 360)})


COLUMNS = {
    "infinite lower": (lambda: positive(math.inf), "lower must be a finite number, got inf"),
    "word": (lambda: positive("0"), "lower must be a finite number, got '0'"),
    "nothing": (lambda: interval(None, 1), "low must be a finite number, got None"),
    "empty": (lambda: interval(1, 1), "low must be below high, got 1 and 1"),
    "turned round": (lambda: periodic(360, 0), "low must be below high, got 360 and 0"),
    "NaN": (lambda: periodic(0, math.nan), "high must be a finite number, got nan"),
    "halves": (lambda: integer(0.5, 3), "needs whole numbers, got 0.5 and 3"),
    "half-infinite": (lambda: integer(0, math.inf), "high must be a finite number, got inf"),
    "one number": (lambda: integer(3, 3), "low must be below high, got 3 and 3"),
    "no number": (lambda: integer(None, 3), "low must be a finite number, got None"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_a_wrong_column_is_refused(case):
    make, message = COLUMNS[case]
    with pytest.raises(ValueError, match=message):
        make()


ANGLE = {"support": {1: periodic(0, 360)}, "rng": 0}
CANNOT = {
    "MAF": (lambda: npflows.MAF(3, **ANGLE), "MAFLayer.* can't keep a value on a circle"),
    "IAF": (lambda: npflows.IAF(3, **ANGLE), "IAFLayer.* can't keep a value on a circle"),
    "RealNVP": (lambda: npflows.RealNVP(3, **ANGLE), "CouplingLayer.* can't keep a value on a circle"),
    "conditional RealNVP": (lambda: npflows.ConditionalRealNVP(3, 1, **ANGLE), "CouplingLayer.* can't keep a value"),
    "LU": (lambda: NeuralSplineFlow(3, **ANGLE), "linear='lu' can't keep column 1 on a circle: pass linear='permutation'"),
    "autoregressive splines, LU": (
        lambda: NeuralSplineFlow(3, conditioner="autoregressive", **ANGLE),
        "linear='lu' can't keep column 1 on a circle: pass linear='permutation'",
    ),
    "ActNorm": (
        lambda: NeuralSplineFlow(3, linear="permutation", actnorm=True, **ANGLE),
        "actnorm=True can't keep column 1 on a circle: pass actnorm=False",
    ),
    "Student's t": (
        lambda: NeuralSplineFlow(3, linear="permutation", base_distribution="student_t", **ANGLE),
        "base_distribution 'student_t' can't hold values on circles: use 'normal'",
    ),
    "layers": (
        lambda: npflows.NormalizingFlow([npflows.LULinear(2)], support=[periodic(0, 1), real()]),
        "LULinear.* can't keep a value on a circle .here 0.: use circular splines and permutations",
    ),
    "a spline on the line": (
        lambda: npflows.NormalizingFlow([npflows.SplineLayer(2)], support=[periodic(0, 1), real()]),
        "SplineLayer.* can't keep a value on a circle|SplineLayer.* takes values .* for circular where",
    ),
    "another column's circle": (
        lambda: npflows.NormalizingFlow(
            [npflows.Permutation(2), npflows.SplineLayer(2, circular=[1, 0])], support=[periodic(0, 1), real()]
        ),
        r"SplineLayer.* takes values \[0\] for circular where \[1\] are on circles",
    ),
    "two sizes": (
        lambda: npflows.NormalizingFlow(
            [npflows.SplineLayer(1, tail_bound=bound, circular=[1]) for bound in (2.0, 3.0)], support=[periodic(0, 1)]
        ),
        r"must have one bound, got \[2.0, 3.0\]",
    ),
    "a scale": (
        lambda: npflows.NormalizingFlow([npflows.Standardize(1, 0.0, 2.0)], support=[periodic(0, 1)]),
        "column 0 is on a circle: loc must be 0 and scale 1",
    ),
    "a scale later": (
        lambda: alone(periodic(0, 1)).standardize.set(1.0, 1.0),
        "column 0 is on a circle: loc must be 0 and scale 1",
    ),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_can_not_keep_a_circle_is_refused_by_name(case):
    make, message = CANNOT[case]
    with pytest.raises(ValueError, match=message):
        make()


def with_value(row, column, value):
    x = TABLE.copy()
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 2.0, r"width \(1 rows, Positive\(lower=2.0\)\)"),
        (1, -1.0, r"share \(1 rows, Interval\(low=-1.0, high=3.0\)\)"),
        (1, 99.0, r"share \(1 rows, .*\)"),
        (3, 4.0, r"count \(1 rows, Integer\(low=-2, high=3\)\)"),
        (3, 0.5, r"count \(1 rows, .*\)"),
    ],
)
def test_fit_refuses_values_outside_and_names_the_columns(column, value, message):
    x, flow = with_value(7, column, value), mixed()
    before = flow.params
    with pytest.raises(ValueError, match=rf"x has values outside their support, .*: {message}; clean or widen it"):
        fitted(flow, x)
    with pytest.raises(ValueError, match=f"validation_data has values outside their support, .*{message}"):
        fitted(flow, TABLE, validation_data=x)
    np.testing.assert_array_equal(flow.params, before)
    assert (flow.history, flow._is_standardized) == ({}, False)
    fitted(mixed(), x, sample_weight=(np.arange(400) != 7).astype(float))  # a row of no weight does not matter
    without_names = mixed(columns=None)
    with pytest.raises(ValueError, match=f"column {column} "):
        fitted(without_names, x)


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_a_matter_of_on_invalid(column, value):
    x = with_value(7, column, value)
    with pytest.raises(ValueError, match=rf"NaN or infinite values in 1 rows \(7\), columns {column};"):
        fitted(mixed(), x)
    with pytest.warns(UserWarning, match="dropped 1 of 400 rows with NaN or infinite values"):
        dropped = fitted(mixed(), x, on_invalid="drop", max_epochs=1)
    np.testing.assert_array_equal(dropped.params, fitted(mixed(), np.delete(TABLE, 7, axis=0), max_epochs=1).params)


def test_any_kind_of_array_gives_the_same(tmp_path):
    table = TABLE.astype(np.float32).astype(np.float64)
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, table.shape)
    mapped[:] = table
    flow = fitted(mixed(), table)
    for x in (np.load(tmp_path / "x.npy", mmap_mode="r"), table.astype(np.float32), np.asfortranarray(table),
              table.tolist(), table[::-1][::-1]):  # fmt: skip
        other = fitted(mixed(), x)
        np.testing.assert_array_equal(other.params, flow.params)
        np.testing.assert_array_equal(flow.log_prob(x), flow.log_prob(table))
    np.testing.assert_array_equal(mapped, table)
    whole = TABLE[:, 3:4].astype(np.int64)
    np.testing.assert_array_equal(alone(integer(-2, 3)).log_prob(whole), alone(integer(-2, 3)).log_prob(TABLE[:, 3:4]))
    flag = alone(integer(0, 1))
    np.testing.assert_array_equal(flag.log_prob(whole > 0), flag.log_prob(1.0 * (whole > 0)))


def test_the_users_own_rows_are_not_written_to():
    x = TABLE.copy()
    x.flags.writeable = False
    flow = fitted(mixed(), x)
    for method in (flow.log_prob, flow.forward, flow.log_prob_and_grad, flow.nll_and_grad):
        method(x)
    np.testing.assert_array_equal(x, TABLE)


def test_a_saved_flow_keeps_its_support(tmp_path):
    for given in (EVERY, dict(zip(NAMES, EVERY)), infer(TABLE)):
        flow = strong(mixed(support=given), 0.5)
        flow.save(tmp_path / "flow.npz")
        copies = npflows.load(tmp_path / "flow.npz"), pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)
        for other in copies:
            assert repr(list(other.support)) == repr(list(flow.support))
            assert other.columns == NAMES
            np.testing.assert_array_equal(other.log_prob(TABLE), flow.log_prob(TABLE))
            np.testing.assert_array_equal(other.sample(10, 0), flow.sample(10, 0))
        wide = npflows.load(tmp_path / "flow.npz", dtype="float64")
        np.testing.assert_allclose(wide.log_prob(TABLE), flow.log_prob(TABLE), rtol=1e-3, atol=1e-3)


def test_reset_keeps_the_support():
    flow = fitted(mixed(), TABLE)
    flow.reset(1)
    np.testing.assert_allclose(flow.log_prob(TABLE), mixed().log_prob(TABLE), rtol=1e-6)  # its rotations are others


def gamma_and_beta(x):
    """Gamma(3, rate 2) times Beta(2, 5) without their constants, and the gradient."""
    a, b = x.T
    log_p = 2 * np.log(a) - 2 * a + np.log(b) + 4 * np.log1p(-b)
    return log_p, np.column_stack([2 / a - 2, 1 / b - 4 / (1 - b)])


def test_a_known_posterior_of_bounded_parameters_is_found():
    flow = NeuralSplineFlow(2, 2, (8,), 6, support=[positive(), interval(0, 1)], activation="silu", rng=0)
    flow.fit_variational(gamma_and_beta, max_steps=500, batch_size=128, learning_rate=1e-2, rng=0, progress=False)
    weighted = flow.importance_weights(4000, rng=1)
    evidence = scipy.special.gammaln(3) - 3 * math.log(2) + scipy.special.betaln(2, 5)
    assert weighted.log_evidence == pytest.approx(evidence, abs=0.02)
    assert weighted.ess > 0.9 * 4000
    x = flow.sample(4000, 2)
    assert scipy.stats.kstest(x[:, 0], scipy.stats.gamma(3, scale=0.5).cdf).statistic < 0.04
    assert scipy.stats.kstest(x[:, 1], scipy.stats.beta(2, 5).cdf).statistic < 0.04


def test_a_known_posterior_of_an_angle_is_found():
    def target(x):
        angle = np.deg2rad(x[:, 0] - 355)
        return 3 * np.cos(angle), np.deg2rad(-3 * np.sin(angle))[:, None]

    flow = alone(periodic(0, 360), num_layers=2)
    flow.fit_variational(target, max_steps=400, batch_size=128, learning_rate=1e-2, rng=0, progress=False)
    weighted = flow.importance_weights(4000, rng=1)
    assert weighted.log_evidence == pytest.approx(math.log(360 * scipy.special.i0(3)), abs=0.02)
    assert weighted.ess > 0.9 * 4000


def test_a_density_of_whole_numbers_has_no_gradient_to_be_drawn_by():
    with pytest.raises(ValueError, match="needs densities with gradients, and this flow has integer columns"):
        mixed().fit_variational(lambda x: (np.zeros(len(x)), 0 * x))


# infer

RAW = {
    "counts": RNG.poisson(4.0, 500),
    "flag": RNG.integers(0, 2, 500),
    "probability": RNG.beta(0.5, 0.5, 500),
    "flux": np.exp(2 * RNG.normal(size=500)),
    "redshift": RNG.normal(3.0, 0.5, 500),
    "angle": RNG.uniform(0, 360, 500),
    "number": np.arange(500) + 0.0,
    "always 1": np.ones(500),
    "empty": np.full(500, np.nan),
}


def test_infer_guesses_and_says_why():
    guess = infer(np.column_stack(list(RAW.values())), list(RAW))
    kinds = dict(zip(RAW, map(repr, guess)))
    assert kinds == {
        "counts": f"Integer(low={RAW['counts'].min()}, high={RAW['counts'].max()})",
        "flag": "Integer(low=0, high=1)",
        "probability": "Interval(low=0.0, high=1.0)",
        "flux": "Positive()",
        "redshift": "Real()",
        "angle": "Real()",  # a circle can't be told from an interval
        "number": "Real()",
        "always 1": "Real()",
        "empty": "Real()",
    }
    lines = repr(guess).splitlines()
    assert len(lines) == len(RAW)
    assert all(line.startswith(f"{name}: {kind}") for line, (name, kind) in zip(lines, kinds.items()))
    assert "whole numbers, 2 different" in lines[1]
    assert "no finite value" in lines[8]
    assert repr(infer(TABLE)).startswith("column 0: ")


def test_what_infer_gives_can_be_corrected_and_used():
    guess = infer(TABLE, NAMES)
    guess[0], guess[NAMES.index("angle")] = positive(2.0), periodic(0, 360)
    assert "angle: Periodic(low=0.0, high=360.0)" in repr(guess)
    flow = fitted(mixed(support=guess), TABLE)
    assert np.isfinite(flow.log_prob(TABLE)).all()


def test_infer_looks_past_nan_and_masked_values():
    x = RAW["flag"].astype(float)
    masked = np.ma.masked_array(np.where(np.arange(500) % 7, x, 99.0), np.arange(500) % 7 == 0).reshape(-1, 1)
    holes = np.where(np.arange(500) % 7, x, np.nan).reshape(-1, 1)
    for table in (masked, holes):
        assert repr(infer(table)[0]) == "Integer(low=0, high=1)"


def test_infer_takes_the_names_of_a_data_frame():
    class Frame:
        columns = ["a", "b"]

        def __array__(self, dtype=None, copy=None):
            return np.column_stack([RAW["flag"], RAW["redshift"]])

    assert [line.split(":")[0] for line in repr(infer(Frame())).splitlines()] == ["a", "b"]


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros((0, 2)), np.zeros((2, 2, 2))])
def test_infer_needs_a_table(x):
    with pytest.raises(ValueError, match=r"x must be a table \(n, d\) with at least one row, got shape"):
        infer(x)


def test_names_for_what_is_inferred_must_be_one_for_each_column():
    with pytest.raises(ValueError, match=r"columns must be 2 names, one for each column of x, got \['a'\]"):
        npflows.support.infer(np.ones((3, 2)), ["a"])
