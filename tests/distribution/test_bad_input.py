"""Bad input: an error that says what was expected, what came and what to do, and nothing is changed."""

import re

import numpy as np
import pytest
from helpers import refused
from registry import build

from npflows import (
    IAF,
    MADE,
    MAF,
    CouplingLayer,
    Glow,
    IAFLayer,
    MAFLayer,
    Normal,
    NormalizingFlow,
    Permutation,
    RealNVP,
    Standardize,
)
from npflows.backends.cpu.compiler.jit import DISABLED

pytestmark = pytest.mark.nojit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
HOLES = X.copy()
HOLES[[3, 17, 40], [0, 1, 1]] = np.nan, np.inf, -np.inf
OPTIONS = {"max_epochs": 2, "rng": 0, "progress": False}


def maf(dim=2, **options):
    return MAF(dim, 2, (8,), rng=0, **options)


def numbered(table):
    """Cases as parameters whose ids are their names."""
    return pytest.mark.parametrize("case", list(table.values()), ids=list(table))


TABLES = {
    "too few columns": (X[:, :1], ValueError, r"x must have .*2.*, got (shape )?\(60, 1\)"),
    "too many columns": (np.ones((60, 3)), ValueError, r"x must have .*2.*, got (shape )?\(60, 3\)"),
    "three axes": (np.ones((5, 2, 3)), ValueError, r"x must have .*2.*, got (shape )?\(5, 2, 3\)"),
    "strings": ([["a", "b"], ["c", "d"]], TypeError, "x must be an array of numbers, got dtype <U1"),
    "numbers as strings": ([["1", "2"]], TypeError, "x must be an array of numbers"),
    "objects": (np.array([["a", 1.0]], object), TypeError, "x must be an array of numbers"),
    "complex numbers": (X + 1j, TypeError, "x must be an array of numbers, got dtype complex128"),
    "ragged rows": ([[1.0, 2.0], [3.0]], TypeError, "x must be an array of numbers; list can't be made into one"),
    "a row of one column": ({"a": 1}, ValueError, "x must have shape|x must have 2 columns|fit needs a table"),
    "nothing": (None, (TypeError, ValueError), "x must"),
    "one number": (3.0, ValueError, r"x must have .*, got (shape )?\(\)"),
}


@numbered(TABLES)
@pytest.mark.parametrize("method", ["log_prob", "forward", "nll_and_grad", "fit"])
def test_a_wrong_table_is_refused(method, case):
    x, error, message = case
    refused(error, message, lambda flow: getattr(flow, method)(x), maf())


@pytest.mark.parametrize("method", ["log_prob", "forward", "nll_and_grad"])
def test_dates_are_refused_where_the_flow_has_no_epoch(method):
    dates = np.zeros((3, 2), "M8[s]")
    refused(TypeError, "x holds dates or times .* numbers are taken here", lambda flow: getattr(flow, method)(dates), maf())


def test_a_transposed_table_is_recognized():
    refused(
        ValueError, r"x must have 2 columns, got shape \(2, 60\) \(is it transposed\?\)", lambda flow: flow.fit(X.T), maf()
    )


def test_more_columns_than_rows_is_a_warning_at_the_users_line():
    with pytest.warns(UserWarning, match="x has 4 rows and 5 columns, more columns than rows: is it transposed?") as caught:
        maf(5).fit(RNG.normal(size=(4, 5)), **OPTIONS)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("method", ["log_prob", "fit"])
def test_images_of_another_shape_are_refused(method):
    glow = Glow((4, 4, 1), 1, 1, (4,), rng=0)
    for shape, hint in (
        ((30, 4, 4), r"; give the one channel an axis: x\[\.\.\., None\]"),
        ((30, 4, 3, 1), ""),
        ((30, 4, 4, 3), ""),
    ):
        message = rf"x must have shape \(n, 4, 4, 1\) or \(n, 16\), got \({', '.join(map(str, shape))}\){hint}$"
        refused(ValueError, message, lambda flow: getattr(flow, method)(np.zeros(shape)), glow)  # noqa: B023


def test_few_images_are_no_transposed_table():
    Glow((4, 4, 1), 1, 1, (4,), rng=0).fit(RNG.normal(size=(6, 4, 4, 1)), max_epochs=1, rng=0)


def test_a_vector_given_to_fit_is_told_the_reshape():
    refused(ValueError, r"shape \(n, 1\), got a 1-D array of length 60; use x\.reshape\(-1, 1\)",
            lambda flow: flow.fit(X[:, 0]), maf(1))  # fmt: skip
    refused(ValueError, r"shape \(n, 2\), got a 1-D array of length 60; use x\.reshape\(-1, 2\)",
            lambda flow: flow.fit(X[:, 0]), maf())  # fmt: skip
    refused(ValueError, r"x must have shape \(n, 1\), got \(60,\).*x\.reshape\(-1, 1\)",
            lambda flow: flow.log_prob(X[:, 0]), maf(1))  # fmt: skip


def test_an_empty_table_is_refused_where_it_has_no_meaning():
    empty = np.zeros((0, 2))
    refused(ValueError, "x is empty: fit needs at least one row", lambda flow: flow.fit(empty), maf())
    refused(ValueError, "x must have at least one row", lambda flow: flow.nll_and_grad(empty), maf())
    refused(ValueError, "validation_data is empty", lambda flow: flow.fit(X, validation_data=empty), maf())
    assert maf().log_prob(empty).shape == (0,)


def test_nan_and_infinity_are_named_by_row_and_column():
    flow = maf()
    message = r'x has NaN or infinite values in 3 rows \(3, 17, 40\), columns 0, 1; .*on_invalid="drop"'
    refused(ValueError, message, lambda flow: flow.fit(HOLES), flow)
    refused(ValueError, "validation_data has NaN", lambda flow: flow.fit(X, validation_data=HOLES), flow)
    many = X.copy()
    many[:50, 1] = np.nan
    refused(ValueError, r"50 rows \(0, 1, 2, 3, 4, \.\.\.\), columns 1;", lambda flow: flow.fit(many), flow)
    refused(
        ValueError, "the condition of x has NaN .* 3 rows", lambda flow: flow.fit(X, condition=HOLES), maf(condition_dim=2)
    )


class NAType:
    """What a data frame of pandas puts where it has nothing."""


class Frame:
    """A table with nullable columns, as NumPy sees it."""

    def __init__(self, values, na):
        self.values, self.na = values, na

    def __array__(self, dtype=None, copy=None):
        return np.where(self.na, NAType(), self.values.astype(object))


def test_what_is_not_available_in_a_data_frame_counts_as_missing():
    frame = Frame(X, np.isnan(HOLES))
    with pytest.warns(UserWarning, match="x: dropped 1 of 60 rows, which have missing entries"):
        flow = maf().fit(frame, missing="nan", **OPTIONS)
    np.testing.assert_array_equal(np.isnan(flow.log_prob(frame)), np.isnan(HOLES).any(axis=1))


def test_masked_values_count_as_missing():
    masked = np.ma.masked_array(X, np.isnan(HOLES))
    sentence = r"x has masked or empty entries \(1 in column 0\) in 1 rows \(3\)"
    refused(ValueError, sentence, lambda flow: flow.fit(masked), maf())
    assert np.flatnonzero(np.isnan(maf().log_prob(masked))).tolist() == [3]


def test_dropping_invalid_rows_is_like_cleaning_by_hand_and_says_so():
    weight, good = RNG.uniform(0.5, 2.0, 60), np.isfinite(HOLES).all(axis=1)
    with pytest.warns(UserWarning, match="x: dropped 3 of 60 rows with NaN or infinite values") as caught:
        dropped = maf().fit(HOLES, sample_weight=weight, on_invalid="drop", **OPTIONS)
    assert caught[0].filename == __file__
    cleaned = maf().fit(HOLES[good], sample_weight=weight[good], **OPTIONS)
    np.testing.assert_array_equal(dropped.params, cleaned.params)
    refused(ValueError, "x has no row without NaN", lambda flow: flow.fit(X * np.nan, on_invalid="drop"), maf())


def test_a_constant_column_is_standardized_by_1_with_a_warning():
    x = np.column_stack([X[:, 0], np.full(60, 58000.1)])
    with pytest.warns(UserWarning, match=r"column 1 of x is constant .*standardized by 1.* drop it") as caught:
        flow = maf().fit(x, **OPTIONS)
    assert caught[0].filename == __file__
    assert flow.standardize.scale[1] == 1
    assert flow.standardize.loc[1] == pytest.approx(58000.1)
    assert np.isfinite(flow.log_prob(x)).all()


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_columns_in_extreme_units_are_standardized(unit):
    flow = maf().fit(X * unit, **OPTIONS)
    np.testing.assert_allclose(flow.standardize.scale / unit, maf().fit(X, **OPTIONS).standardize.scale, rtol=1e-9)


WEIGHTS = {
    "negative": (np.where(np.arange(60) == 7, -0.5, 1.0), "sample_weight must not be negative; entry 7 is -0.5"),
    "all zero": (np.zeros(60), "sample_weight must not be all zero"),
    "too short": (np.ones(59), r"sample_weight must have length 60, one for each row, got shape \(59,\)"),
    "a column": (np.ones((60, 1)), r"sample_weight must have length 60, one for each row, got shape \(60, 1\)"),
    "one number": (2.0, "sample_weight must have length 60, one for each row, got a single number"),
    "NaN": (np.where(np.arange(60) == 7, np.nan, 1.0), "sample_weight must be finite; entry 7 is not"),
    "infinite": (np.where(np.arange(60) == 7, np.inf, 1.0), "sample_weight must be finite; entry 7 is not"),
}


@numbered(WEIGHTS)
def test_wrong_weights_are_refused(case):
    weight, message = case
    flow = maf()
    refused(ValueError, message, lambda flow: flow.fit(X, sample_weight=weight), flow)
    refused(ValueError, message, lambda flow: flow.nll_and_grad(X, weight), flow)
    validation = message.replace("sample_weight", "validation_weight")
    refused(ValueError, validation, lambda flow: flow.fit(X, validation_data=X, validation_weight=weight), flow)


def test_weights_that_are_no_numbers_are_refused():
    refused(TypeError, "sample_weight must be an array of numbers", lambda f: f.fit(X, sample_weight=["a"] * 60), maf())


CONDITIONS = {
    "missing": (2, None, "this flow needs a condition of 2 values for each sample: pass condition="),
    "not wanted": (0, X, r"this flow takes no condition \(condition_dim=0\), but one was given"),
    "too wide": (2, np.ones((60, 3)), r"condition must have shape \(n, 2\), got \(60, 3\)"),
    "too few": (2, np.ones((59, 2)), "condition must have one row, or one for each of the 60 samples, got 59"),
}


@numbered(CONDITIONS)
def test_a_wrong_condition_is_refused(case):
    dim, context, message = case
    flow = maf(condition_dim=dim)
    for call in (lambda flow: flow.log_prob(X, context), lambda flow: flow.fit(X, condition=context),
                 lambda flow: flow.sample(60, 0, condition=context)):  # fmt: skip
        refused(ValueError, message, call, flow)


FIT = {
    "unknown option": ({"epochs": 5}, TypeError, "unexpected keyword argument 'epochs'"),
    "epochs": ({"max_epochs": 2.5}, ValueError, "max_epochs must be a whole number of at least 0, got 2.5"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1, got 0"),
    "learning rate": ({"learning_rate": -1}, ValueError, "learning_rate must be a finite number above 0, got -1"),
    "learning rate NaN": ({"learning_rate": np.nan}, ValueError, "learning_rate must be a finite number above 0, got nan"),
    "schedule": ({"schedule": "step"}, ValueError, "schedule must be one of 'constant', 'cosine', 'plateau', got 'step'"),
    "warm-up": ({"warmup_steps": -1}, ValueError, "warmup_steps must be a whole number of at least 0, got -1"),
    "weight decay": ({"weight_decay": -1}, ValueError, "weight_decay must be a finite number of at least 0, got -1"),
    "clip": ({"clip_norm": 0}, ValueError, "clip_norm must be a finite number above 0, got 0"),
    "patience": ({"patience": 0}, ValueError, "patience must be a whole number of at least 1, got 0"),
    "seconds": ({"max_seconds": 0}, ValueError, "max_seconds must be a finite number above 0, got 0"),
    "ema": ({"ema": 1.0}, ValueError, "ema must lie between 0 and 1, got 1.0"),
    "fraction": ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be below 1, got 1.0"),
    "fraction below 0": ({"validation_fraction": -0.1}, ValueError, "validation_fraction must be .* at least 0, got -0.1"),
    "invalid": ({"on_invalid": "skip"}, ValueError, "on_invalid must be one of 'raise', 'drop', got 'skip'"),
    "seed": ({"rng": "seed"}, TypeError, "rng must be a non-negative int, a numpy.random.Generator or None, got 'seed'"),
    "old generator": ({"rng": np.random.RandomState(0)}, TypeError, "rng must be .* numpy.random.Generator"),
    "progress": ({"progress": "bar"}, ValueError, "progress must be True, False or \"auto\", got 'bar'"),
    "callbacks": ({"callbacks": [3]}, TypeError, r"callbacks must be functions of \(flow, record\), got 3"),
    "lonely weight": ({"validation_weight": np.ones(60)}, ValueError, "belong to validation_data, which is missing"),
    "validation columns": ({"validation_data": X[:, :1]}, ValueError, "validation_data must have 2 columns, got shape"),
    "checkpoint folder": ({"checkpoint": "no/such/folder/run.npz"}, OSError, "no/such/folder"),
}


@numbered(FIT)
def test_a_wrong_option_of_fit_is_refused_before_anything_is_changed(case):
    options, error, message = case
    refused(error, message, lambda flow: flow.fit(X, **{"max_epochs": 1, **options}), maf())


SAMPLE = {
    "negative": ((-1,), ValueError, "n_samples must be a whole number of at least 0, got -1"),
    "fraction": ((2.5,), ValueError, "n_samples must be a whole number of at least 0, got 2.5"),
    "seed": ((3, -5), TypeError, "rng must be a non-negative int, a numpy.random.Generator or None, got -5"),
    "cold": ((3, 0, 0.0), ValueError, "temperature must be a finite number above 0, got 0.0"),
    "word": ((3, 0, "hot"), ValueError, "temperature must be a finite number above 0, got 'hot'"),
}


@numbered(SAMPLE)
@pytest.mark.parametrize("method", ["sample", "generate", "sample_and_log_prob"])
def test_wrong_arguments_of_sample_are_refused(method, case):
    arguments, error, message = case
    refused(error, message, lambda flow: getattr(flow, method)(*arguments), maf())


BUILD = {
    "input_dim 0": (lambda: MAF(0), "input_dim must be a whole number of at least 1, got 0"),
    "input_dim 2.5": (lambda: MAF(2.5), "input_dim must be a whole number of at least 1, got 2.5"),
    "input_dim string": (lambda: RealNVP("2"), "input_dim must be a whole number of at least 1, got '2'"),
    "one column": (lambda: RealNVP(1), r"RealNVP .* can't split input_dim=1.* for one column use MAF"),
    "one channel": (lambda: RealNVP((4, 4, 1), mask_type="channel-wise"), r"can't split input_dim=\(4, 4, 1\)"),
    "two axes": (lambda: RealNVP((4, 4)), r"a number or a shape \(height, width, channels\), got \(4, 4\)"),
    "no layers": (lambda: MAF(2, 0), "num_layers must be a whole number of at least 1, got 0"),
    "no couplings": (lambda: RealNVP(2, 0), "num_coupling_layers must be a whole number of at least 1, got 0"),
    "hidden size 0": (lambda: MAF(2, 2, (8, 0)), r"hidden_dims must be whole numbers of at least 1, .* got \(8, 0\)"),
    "hidden size 0 alone": (lambda: IAF(2, 2, 0), r"hidden_dims must be whole numbers of at least 1, .* got 0"),
    "hidden size 1.5": (lambda: CouplingLayer([0, 1], (1.5,)), r"hidden_dims must be whole numbers .* got \(1.5,\)"),
    "hidden size None": (lambda: MADE(2, None), r"hidden_dims must be whole numbers .* got None"),
    "mask type": (lambda: RealNVP(2, mask_type="odd"), "mask_type must be one of 'checkerboard', .* got 'odd'"),
    "activation": (lambda: MAF(2, activation="gelu"), "activation must be one of 'relu', 'tanh', .* got 'gelu'"),
    "scale activation": (
        lambda: RealNVP(2, scale_activation="exp"),
        "scale_activation must be one of .* got 'exp'",
    ),
    "base": (lambda: MAF(2, base_distribution="gumbel"), "base_distribution must be one of 'normal', .* got 'gumbel'"),
    "base of other width": (lambda: MAF(2, base_distribution=Normal(3)), "base_distribution has 3 columns .* flow has 2"),
    "base of other dtype": (
        lambda: MAF(2, base_distribution=Normal(2, dtype="float64")),
        "of float64 .* 2 of float32",
    ),
    "dtype": (lambda: MAF(2, dtype="float16"), "dtype must be 'float32' or 'float64', got 'float16'"),
    "no dtype": (lambda: MAFLayer(2, dtype=None), "dtype must be 'float32' or 'float64', got None"),
    "condition": (lambda: MAF(2, condition_dim=-1), "condition_dim must be a whole number of at least 0, got -1"),
    "mask of ones": (lambda: CouplingLayer([1, 1, 1]), r"at least one 0 \(transformed\) and one 1 .* got \[1, 1, 1\]"),
    "mask of zeros": (lambda: CouplingLayer([0, 0]), r"at least one 0 \(transformed\) and one 1 .* got \[0, 0\]"),
    "mask of halves": (lambda: CouplingLayer([0.5, 1]), r"mask must hold only 0 \(transformed\) and 1 \(unchanged"),
    "mask of words": (lambda: CouplingLayer(["a", "b"]), r"mask must hold only 0 \(transformed\) and 1 \(unchanged"),
    "order twice": (lambda: MADE(3, order=[0, 1, 1]), r"order must be a permutation of 0\.\.2, got \[0, 1, 1\]"),
    "order from 1": (lambda: MAFLayer(3, order=[1, 2, 3]), r"order must be a permutation of 0\.\.2, got \[1, 2, 3\]"),
    "order too short": (lambda: IAFLayer(3, order=[0, 1]), r"order must be a permutation of 0\.\.2, got \[0, 1\]"),
    "orders of a flow": (
        lambda: MAF(2, 2, orders=[[0, 1], [0, 0]]),
        r"orders must be a permutation of 0\.\.1, got \[0, 0\]",
    ),
    "too few orders": (lambda: MAF(2, 2, orders=[[0, 1]]), "one order for each of the 2 layers, got 1"),
    "orders": (lambda: MAF(2, orders="reverse"), "orders must be one of 'random', got 'reverse'"),
    "permutation": (lambda: Permutation(3, [2, 2, 0]), r"order must be a permutation of 0\.\.2, got \[2, 2, 0\]"),
    "permutation name": (lambda: Permutation(3, "swap"), "order must be one of 'reverse', 'random', got 'swap'"),
    "scale 0": (lambda: Standardize(2, 0.0, [1.0, 0.0]), "scale finite and positive"),
    "no flow layers": (lambda: NormalizingFlow([]), "layers must be a sequence of at least one Layer"),
    "no layer": (lambda: NormalizingFlow([MAFLayer(2, (4,)), "layer"]), "layers must be a sequence of at least one Layer"),
    "widths differ": (
        lambda: NormalizingFlow([MAFLayer(2, (4,)), MAFLayer(3, (4,))]),
        r"layer 2 \(MAFLayer\) takes 3 values where the flow has 2",
    ),
    "dtypes differ": (
        lambda: NormalizingFlow([MAFLayer(2, (4,)), MAFLayer(2, (4,), dtype="float64")]),
        r"layer 2 \(MAFLayer\) has dtype float64 where the flow has float32",
    ),
    "late Standardize": (
        lambda: NormalizingFlow([MAFLayer(2, (4,)), Standardize(2)]),
        r"layer 2 \(Standardize\): Standardize can only be the first layer",
    ),
    "conditions differ": (
        lambda: NormalizingFlow([MAFLayer(2, (4,), condition_dim=c) for c in (1, 2)]),
        r"the same condition_dim, got \[1, 2\]",
    ),
}


@numbered(BUILD)
def test_what_can_not_be_built_is_refused(case):
    make, message = case
    with pytest.raises(ValueError, match=message):
        make()


def test_too_few_hidden_units_are_a_warning_that_names_what_is_lost():
    message = re.escape("hidden_dims=(2,) is too narrow for 4 features: 1 dependences are lost (feature 3 on 2)")
    for make in (MADE, MAFLayer, IAFLayer, lambda dim, hidden: MAF(dim, 1, hidden)):
        with pytest.warns(UserWarning, match=message + ".* use at least 3 units") as caught:
            make(4, (2,))
        assert caught[0].filename == __file__


PARAMS = {
    "too short": (np.zeros(3), r"params of MAF has shape \(\d+,\), got \(3,\)"),
    "NaN": (maf().params * np.nan, r"params of MAF must be finite in float32, got \d+ values that are not"),
    "too large": (maf().params + 1e300, r"params of MAF must be finite in float32, got \d+ values that are not"),
}


@numbered(PARAMS)
def test_wrong_parameters_are_refused(case):
    values, message = case
    refused(ValueError, message, lambda flow: setattr(flow, "params", values), maf())


@pytest.mark.skipif(DISABLED, reason="NumPy warns of the overflow that is meant to happen")
@pytest.mark.parametrize("options", [{}, {"log_tails": None}])
@pytest.mark.parametrize("model", [MAF, RealNVP, IAF])
def test_absurd_values_have_a_density_of_zero_or_next_to_it_and_nan_is_nan(model, options):
    flow = model(2, 2, (8,), rng=0, **options).fit(X, **OPTIONS)
    absurd = np.array([[1e30, 0.0], [0.0, -1e30], [1e300, -1e300], [np.inf, 0.0], [0.0, -np.inf]])
    holes = np.array([[np.nan, 0.0], [1.0, np.nan], [np.nan, np.inf]])
    log_prob = flow.log_prob(np.concatenate([X[:10], absurd, holes, X[10:]]))
    assert (log_prob[10:15] < (-2000 if flow.log_tails else -1e20)).all()
    assert (log_prob[13:15] == -np.inf).all()
    assert np.isnan(log_prob[15:18]).all()
    np.testing.assert_array_equal(np.delete(log_prob, range(10, 18))[:10], flow.log_prob(X)[:10])
    np.testing.assert_allclose(np.delete(log_prob, range(10, 18)), flow.log_prob(X), rtol=1e-6)


def test_infinities_that_meet_on_the_way_back_are_no_warning():
    flow = build("flow without correlations", "float64")
    values = np.array([0.0, 1e30, -1e30, 1e200, -1e200, np.inf, -np.inf, np.nan])
    z = np.stack(np.meshgrid(values, values, values), -1).reshape(-1, 3)
    x, log_det = flow.inverse(z, np.zeros(1))  # warnings are errors
    assert x.shape == z.shape
    assert log_det.shape == (len(z),)
