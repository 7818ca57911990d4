"""`support=`: columns on half-lines, intervals, circles and whole numbers, as users know them."""

import copy
import math
import pickle

import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import fitted
from support_cases import EVERY, NAMES, TABLE, alone, mixed, strong

import npflows
from npflows import NeuralSplineFlow
from npflows.support import below, infer, integer, interval, periodic, positive, real


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
    "half-line below": (
        below(2.0),
        lambda x: LOGNORMAL.logpdf(4 - np.asarray(x)),
        lambda x: LOGNORMAL.sf(4 - np.asarray(x)),
        [1.9999, 1.5, 1.0, -36.0],
    ),
    "interval": (interval(-1.0, 3.0), *logit_normal(-1.0, 3.0), [-0.9999, 0.0, 1.0, 2.9]),
    "circle": (periodic(-1.0, 3.0), CIRCLE.logpdf, CIRCLE.cdf, [-1.0, 0.0, 1.7, 2.9999]),
}
OUTSIDE = {
    "half-line": [2.0, 1.999999, -3.0, -1e300],
    "half-line below": [2.0, 2.000001, 7.0, 1e300],
    "interval": [-1.0, 3.0, -1.5, 3.0000001, 1e300, -1e300],
    "whole numbers": [-3.0, 4.0, 0.5, 2.9999999, -2.0000001, 1e300, -1e300],
}
for_every_kind = pytest.mark.parametrize("kind", AT_FIRST)


@for_every_kind
def test_a_flow_at_its_start_is_the_textbook_distribution(kind):
    column, log_density, cdf, x = AT_FIRST[kind]
    flow = alone(column, log_tails=None)
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
        below(2.0): np.nextafter(2.0, 0.0),
        below(): -5e-324,
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


@pytest.mark.parametrize("column", [*EVERY, below(2.0)], ids=repr)
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
    for column in (
        positive(2.0),
        positive(),
        below(2.0),
        below(),
        interval(-1.0, 3.0),
        interval(1e6, 1e6 + 1e-3),
        integer(-2, 3),
    ):
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
    flow, numbers = strong(alone(integer(0, 4), tail_bound=3.0, num_bins=8), 0.5), np.arange(5.0).reshape(-1, 1)
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
    "unknown name": ({"angles": periodic(0, 1)}, ValueError, "support has no column 'angles'; did you mean 'angle'"),
    "number too high": ({5: real()}, ValueError, "support has no column 5; there are 5, numbered from 0"),
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
    with pytest.raises(ValueError, match=r"support has no column 'angle'; there are 5, .* without names; pass columns="):
        mixed(columns=None, support={"angle": periodic(0, 360)})


COLUMNS = {
    "infinite lower": (lambda: positive(math.inf), "lower must be a finite number, got inf"),
    "infinite upper": (lambda: below(math.inf), "upper must be a finite number, got inf"),
    "no lower end": (lambda: interval(-math.inf, 25.3), r"got -inf; half-lines are positive\(lower\) and below\(upper"),
    "no upper end": (lambda: interval(0, None), r"high must be .*, got None; half-lines are positive\(lower\) and below"),
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


def turning():
    """A matrix that is not the identity any more."""
    layer = npflows.LULinear(2)
    layer.params = layer.params + 0.1
    return layer


ANGLE = {"support": {1: periodic(0, 360)}, "rng": 0}
CANNOT = {
    "MAF": (lambda: npflows.MAF(3, **ANGLE), "MAFLayer.* can't keep a value on a circle"),
    "IAF": (lambda: npflows.IAF(3, **ANGLE), "IAFLayer.* can't keep a value on a circle"),
    "RealNVP": (lambda: npflows.RealNVP(3, **ANGLE), "CouplingLayer.* can't keep a value on a circle"),
    "conditional RealNVP": (lambda: npflows.ConditionalRealNVP(3, 1, **ANGLE), "CouplingLayer.* can't keep a value"),
    "an affine map before its end": (
        lambda: npflows.NormalizingFlow([npflows.CouplingLayer([1, 0])], support=[periodic(0, 1), real()]),
        "CouplingLayer.* can't keep a value on a circle .here 0.: use circular splines, permutations and LULinear",
    ),
    "channels of an image": (
        lambda: npflows.NormalizingFlow(
            [npflows.ActNormLayer(1, image_size=(1, 2))], input_shape=(1, 2, 1), support=[periodic(0, 1), real()]
        ),
        "ActNormLayer.* can't keep a value on a circle",
    ),
    "a matrix that turns it": (
        lambda: npflows.NormalizingFlow([turning()], support=[periodic(0, 1), real()]),
        "LULinear.* moves values on circles already: give the flow a layer as it is made",
    ),
    "a matrix that changes its sign": (
        lambda: npflows.NormalizingFlow([npflows.LULinear(2, "natural", [-1, 1])], support=[periodic(0, 1), real()]),
        "LULinear.* changes the sign of a value on a circle: give circles a sign of 1",
    ),
    "reflections": (
        lambda: npflows.NormalizingFlow([npflows.Householder(2)], support=[periodic(0, 1), real()]),
        "Householder.* can't keep a value on a circle",
    ),
    "Student's t": (
        lambda: NeuralSplineFlow(3, linear="permutation", base_distribution="student_t", **ANGLE),
        "base_distribution 'student_t' can't hold values on circles: use 'normal'",
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
    assert (flow.history, flow.preprocessing.is_standardized) == ({}, False)
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
