"""What the standardization does with columns, conditions and channels that have no scale, or one that few rows decide."""

import numpy as np
import pytest

import npflows
from npflows.training.imputation import DonorRows
from npflows.training.missing import Missing
from npflows.training.moments import location_scale, moments
from npflows.training.rows import Rows

FIRST = {"max_epochs": 0, "validation_fraction": 0.0, "rng": 0, "progress": False}
N = 3000
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 3)) @ [[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]] * [1, 10, 1e-3] + [0, 50, 7]
NAMES = ["mass", "age", "size"]
MODELS = {
    "MAF": lambda d, **options: npflows.MAF(d, 1, (8,), rng=0, **options),
    "RealNVP": lambda d, **options: npflows.RealNVP(d, 2, (8,), rng=0, **options),
    "IAF": lambda d, **options: npflows.IAF(d, 1, (8,), rng=0, **options),
    "spline": lambda d, **options: npflows.NeuralSplineFlow(d, 1, (8,), tail_bound=5, rng=0, **options),
}


def with_column(d, values):
    x = X.copy()
    x[:, d] = values
    return x


@pytest.mark.parametrize("n", [1, 2, 833, 5000, 20011])
@pytest.mark.parametrize("value", [1.0, 0.1, 22.5, -99.0, 1e-300, 1e300])
@pytest.mark.parametrize("weights", [False, True])
def test_a_column_with_one_value_has_no_scale_whatever_the_rounding(n, value, weights):
    weight = np.random.default_rng(0).uniform(0.5, 2, n) if weights else None
    weight = None if weight is None else weight / weight.mean()
    found = moments(lambda: iter([(np.full((n, 1), value), weight)]), n)
    assert (found.loc[0], found.scale[0], found.low[0], found.high[0]) == (value, 0, value, value)


@pytest.mark.parametrize("model", MODELS)
def test_constant_columns_are_named_and_standardized_by_1(model):
    flow = MODELS[model](3, columns=NAMES)
    with pytest.warns(
        UserWarning, match=r"^mass, size of x are constant in the training rows, with no density, and standardized by 1"
    ):
        flow.fit(with_column([0, 2], [0.1, 1e7]), **FIRST)
    np.testing.assert_array_equal(flow.standardize.scale[[0, 2]], 1)
    np.testing.assert_array_equal(flow.standardize.loc[[0, 2]], [0.1, 1e7])


def test_rows_of_weight_0_do_not_make_a_column_vary():
    x, weight = with_column(1, 3.3), np.ones(N)
    x[:500, 1], weight[:500] = 1e3, 0
    with pytest.warns(UserWarning, match="column 1 of x is constant"):
        flow = MODELS["MAF"](3).fit(x, sample_weight=weight, **FIRST)
    assert flow.standardize.scale[1] == 1


@pytest.mark.parametrize("on_missing", ["drop", "impute"])
def test_missing_entries_do_not_make_a_column_vary(on_missing):
    x = with_column(1, 3.3)
    x[:300, 1] = 99.0
    with pytest.warns(UserWarning, match="entries"), pytest.warns(UserWarning, match="column 1 of x is constant"):
        flow = MODELS["MAF"](3).fit(x, missing=99.0, on_missing=on_missing, **FIRST)
    assert flow.standardize.scale[1] == 1


@pytest.mark.parametrize("value", [0.3, 0.0, 5778.0, -1e-4])
def test_other_values_of_a_constant_condition_are_not_extreme(value):
    condition = np.column_stack([X[:, 0], np.full(N, value)])
    flow = npflows.MAF(1, 2, (8,), condition_dim=2, rng=0)
    flow.condition_columns = ["width", "temperature"]
    with pytest.warns(
        UserWarning, match="temperature of the condition has one value in the training rows, which say nothing"
    ):
        flow.fit(X[:, 1:2], condition=condition, **FIRST)
    other = np.column_stack([X[:, 0], np.full(N, value + 0.2 * abs(value) + 0.01)])
    here, there = (flow.log_prob(X[:, 1:2], c) for c in (condition, other))
    np.testing.assert_allclose(there, here, atol=2)


def test_a_class_that_never_occurs_is_no_surprise():
    labels = npflows.one_hot(RNG.integers(0, 2, N), 3)
    flow = npflows.MAF(1, 1, (8,), condition_dim=3, rng=0).fit(X[:, :1], condition=labels, **FIRST)
    assert flow.condition_scale[2] == 1


def test_a_constant_channel_is_named_and_keeps_its_scale():
    images = RNG.standard_normal((1000, 4, 4, 2))
    images[..., 1] = 0.1
    with pytest.warns(UserWarning, match=r"^channel 1 of x is constant"):
        flow = npflows.Glow((4, 4, 2), num_scales=1, blocks_per_scale=1, hidden_dims=(4,), rng=0).fit(images, **FIRST)
    assert (flow.standardize.scale.reshape(16, 2)[:, 1] == 1).all()
    assert np.isfinite(flow.log_prob(images[:10])).all()


def test_a_channel_whose_pixels_differ_is_not_constant():
    images = RNG.standard_normal((100, 4, 4, 2))
    pixels = images[0, ..., 1].copy()
    images[..., 1] = pixels + 1e-3 * images[..., 1]
    flow = npflows.Glow((4, 4, 2), num_scales=1, blocks_per_scale=1, hidden_dims=(4,), rng=0).fit(images, **FIRST)
    assert flow.standardize.scale[1] == pytest.approx(pixels.std(), rel=1e-2)


ROUNDED = {
    "next to 1": (1 + 2.0**-23 * RNG.integers(-1, 2, N)).astype(np.float32),
    "unix times": (1.7e9 + 300 * X[:, 0]).astype(np.float32),
    "float64": 1e9 + 3e-7 * X[:, 0],
}


@pytest.mark.filterwarnings("ignore:x has no density:UserWarning")
@pytest.mark.parametrize("case", ROUNDED)
def test_columns_that_vary_by_their_rounding_are_told(case):
    dtype = ROUNDED[case].dtype
    table = np.column_stack([X[:, 1].astype(dtype), ROUNDED[case]])
    with pytest.warns(UserWarning, match=f"x varies in time by little more than the rounding of {dtype}"):
        MODELS["MAF"](2, columns=["age", "time"]).fit(table, **FIRST)
    with pytest.warns(UserWarning, match=r"column 0 of the condition has one value|the condition varies in column 0"):
        npflows.MAF(1, 1, (8,), condition_dim=1, rng=0).fit(X[:, :1], condition=ROUNDED[case][:, None], **FIRST)


def test_the_same_columns_in_float64_raise_no_warning():
    MODELS["MAF"](2).fit(np.column_stack([X[:, 1], 1.7e9 + 300 * X[:, 0]]), **FIRST)
    MODELS["MAF"](2).fit(np.column_stack([X[:, 1], 58000 + 3e-3 * X[:, 0]]), **FIRST)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("outliers", [(1e6,), (1e12,), (3e4, -2e5)], ids=str)
def test_outliers_leave_the_standardization_to_the_others(model, outliers, tmp_path):
    x = X.copy()
    x[: len(outliers), 1] = outliers
    clean = MODELS[model](3).fit(X, **FIRST)
    flow = MODELS[model](3, columns=NAMES)
    with pytest.warns(
        UserWarning, match=rf"standard deviation of x .* age \({len(outliers)} of 3000 beyond 10 .*farthest is"
    ):
        flow.fit(x, **FIRST)
    assert flow.robust_columns == ["age"]
    np.testing.assert_allclose(flow.standardize.scale, clean.standardize.scale, rtol=0.1)
    assert (np.abs(flow.standardize.loc - clean.standardize.loc) < 0.1 * clean.standardize.scale).all()
    np.testing.assert_array_equal(flow.standardize.table[:, [0, 2]], clean.standardize.table[:, [0, 2]])
    assert "robust: age" in repr(flow)
    flow.save(tmp_path / "flow.npz")
    assert npflows.load(tmp_path / "flow.npz").robust_columns == ["age"]
    assert flow.reset(0).robust_columns == []
    assert (clean.robust_columns, "robust" in repr(clean)) == ([], False)


@pytest.mark.parametrize(("share", "mark"), [(0.01, -9999.0), (0.01, 1e20), (0.2, 99.0)])
def test_a_sentinel_is_named_with_its_count(share, mark):
    n, x = int(share * N), X.copy()
    x[:n, 0] = mark
    with pytest.warns(
        UserWarning, match=rf"column 0 \({n} of {N} are {mark:g}: if .* missing, pass missing=\)".replace("+", r"\+")
    ):
        flow = MODELS["spline"](3).fit(x, **FIRST)
    np.testing.assert_allclose(flow.standardize.scale[0], X[:, 0].std(), rtol=0.1)


@pytest.mark.parametrize(("share", "mark"), [(1, 1e4), (1, 1e9), (30, -9999.0), (30, 1e20)])
def test_conditions_are_standardized_robustly(share, mark):
    condition = X[:, :2].copy()
    condition[:share, 1] = mark
    flow = npflows.MAF(1, 1, (8,), condition_dim=2, rng=0)
    flow.condition_columns = ["g", "r"]
    with pytest.warns(UserWarning, match=r"standard deviation of the condition would come from .*: r \("):
        flow.fit(X[:, 2:], condition=condition, **FIRST)
    assert flow.robust_columns == ["condition r"]
    np.testing.assert_allclose(flow.condition_scale, X[:, :2].std(axis=0), rtol=0.1)


def test_the_sentinel_of_a_positive_column_is_named_in_its_units():
    x = np.exp(0.01 * X[:, :2])
    x[:40, 1] = 1e-9
    with pytest.warns(UserWarning, match=r"column 1 \(40 of 3000 are 1e-09"):
        MODELS["MAF"](2, support={1: npflows.support.positive()}).fit(x, **FIRST)


def test_one_row_of_a_million_is_found():
    x = np.random.default_rng(1).standard_normal((10**6, 1)).astype(np.float32)
    x[123457] = 1e7
    found = location_scale(Rows(x, np.arange(10**6)), lambda x, condition: x)
    assert found.is_robust[0]
    assert found.scale[0] == pytest.approx(1, rel=0.05)
    assert found.high[0] == 1e7


def test_a_hot_pixel_leaves_the_scale_of_its_channel_to_the_others():
    images = RNG.standard_normal((200, 4, 4, 2))
    images[3, 1, 2, 0] = 1e6
    glow = npflows.Glow((4, 4, 2), num_scales=1, blocks_per_scale=1, hidden_dims=(4,), rng=0)
    with pytest.warns(UserWarning, match=r"channel 0 \(1 of 3200 beyond"):
        glow.fit(images, **FIRST)
    assert glow.standardize.scale[:2] == pytest.approx([1, 1], rel=0.1)
    z, _ = glow.forward(images[4:])
    assert 0.5 < z.std() < 2  # the activation normalization is not decided by it either


def test_activation_normalization_is_not_decided_by_an_outlier():
    x = X.copy()
    x[7, 2] = 1e6
    layer = npflows.ActNormLayer(3, dtype="float64")
    layer.initialize(x)
    np.testing.assert_allclose(layer.forward(X)[0].std(axis=0), 1, rtol=0.1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_channel_is_constant_to_within_rounding_of_the_compute_dtype(dtype):
    x = X.copy()
    x[:, 1] = 58000 * (1 + np.finfo(dtype).eps * np.where(X[:, 0] > 0, 1, -1))
    x[:, 2] = 58000 * (1 + 1000 * np.finfo(dtype).eps * X[:, 2] / X[:, 2].std())
    layer = npflows.ActNormLayer(3, dtype=dtype)
    layer.initialize(x)
    logs = layer.named_params()["logs"]
    assert logs[1] == 0
    assert logs[2] == pytest.approx(-np.log(x[:, 2].std()), rel=1e-5)


def test_rows_of_weight_0_do_not_make_a_channel_vary():
    x, weight = with_column(1, 3.3), np.ones(N)
    x[:500, 1], weight[:500] = 1e3, 0
    layer = npflows.ActNormLayer(3)
    layer.initialize(x, weight)
    assert layer.named_params()["logs"][1] == 0


def test_bounds_that_one_row_sets_are_told():
    x = X.copy()
    flow = npflows.MAF(3, 1, (8,), base_distribution="uniform", rng=0).fit(x, **FIRST)
    x[0, 1] = 1e6
    with pytest.warns(UserWarning, match=r"all but one point between the bounds of the base: column 1 \(.* to 1e\+06\)"):
        flow.reset(0).fit(x, **FIRST)


def test_neighbors_are_sought_on_scales_that_an_outlier_does_not_set():
    rng = np.random.default_rng(0)
    first = rng.standard_normal(N)
    x = np.column_stack([first, first + 0.01 * rng.standard_normal(N)])
    x[0] = 1e6, 0.0
    x[1:200, 1] = np.nan
    with pytest.warns(UserWarning, match="entries are missing"):
        rows = Missing([(np.nan,)] * 2, True).apply(Rows(x, np.arange(N)), "x")
    filled = DonorRows(MODELS["MAF"](2), rows).stand_in(rows).take(np.arange(1, 200))[0]
    assert np.median(np.abs(filled[:, 1] - filled[:, 0])) < 0.1


HEAVY = {"lognormal": lambda rng: np.exp(1.5 * rng.standard_normal(2000)), "gamma": lambda rng: rng.gamma(0.3, size=2000)}


@pytest.mark.parametrize("case", HEAVY)
def test_honest_long_tails_keep_mean_and_standard_deviation(case):
    x = np.column_stack([HEAVY[case](np.random.default_rng(0)), X[:2000, 1]])
    flow = MODELS["MAF"](2).fit(x, **FIRST)
    np.testing.assert_allclose(flow.standardize.table[:2], [x.mean(axis=0), x.std(axis=0)])
