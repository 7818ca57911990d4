"""`missing=`: rows with missing entries are left out, or used with what rows like them have."""

import helpers
import numpy as np
import pytest
from helpers import COPIES_TOLD, SHARED_TOLD, fitted

import npflows
from npflows import MAF, NeuralSplineFlow
from npflows.support import integer, interval, periodic, positive, real
from npflows.training import imputation
from npflows.training.data import as_training_rows
from npflows.training.imputation import filled
from npflows.training.missing import as_missing

pytestmark = [COPIES_TOLD, SHARED_TOLD]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)) @ [[1.0, 0.8, 0.0], [0.0, 0.6, 0.5], [0.0, 0.0, 0.8]]
GONE = RNG.random((300, 3)) < 0.1
GONE[7] = [True, False, True]
WHOLE = ~GONE.any(axis=1)
HOLES = np.where(GONE, 99.0, X)
ANY = "ignore:x.*:UserWarning"


def maf(dim=3, **options):
    return MAF(dim, 2, (8,), columns=list("abcdefgh")[:dim], rng=1, **options)


def rows_of(x, flow=None, missing=99.0, weight=None, condition=None):
    """The rows that a fit of all of x would train on."""
    flow = flow or maf(x.shape[1])
    declared = as_missing(flow.headers, missing, "impute")
    with pytest.warns(UserWarning, match="entries are missing"):
        rows = as_training_rows(flow, x, weight, condition, "raise", "x", declared)
    return filled(flow, rows, None)[0]


def draws(rows, n=50):
    """All rows, n times, as training would take them."""
    rng = np.random.default_rng(3)
    return np.array([rows.take(np.arange(len(rows)), rng)[0] for _ in range(n)])


MARKED = {
    "a value": (99.0, HOLES),
    "a whole number": (99, HOLES),
    "several": ([99.0, -99.0], np.where(GONE & (RNG.random(GONE.shape) < 0.5), -99.0, HOLES)),
    "nan": ("nan", np.where(GONE, np.nan, X)),
    "NaN itself": (np.nan, np.where(GONE, np.nan, X)),
    "nan and a value": (("nan", 99.0), np.where(GONE & (RNG.random(GONE.shape) < 0.5), np.nan, HOLES)),
    "infinity": (-np.inf, np.where(GONE, -np.inf, X)),
    "by name": ({"a": 99.0, "b": [99.0, "nan"], "c": 99.0}, HOLES),
    "by number": ({0: 99.0, 1: 99.0, 2: 99.0}, HOLES),
    "a masked array": ("nan", np.ma.masked_array(X, GONE)),
    "an array": (np.array([99.0]), HOLES),
}


@pytest.mark.parametrize("marked", MARKED)
def test_left_out_rows_are_counted_and_are_like_cleaning_by_hand(marked):
    missing, x = MARKED[marked]
    message = f"x: dropped {(~WHOLE).sum()} of 300 rows, which have missing entries"
    with pytest.warns(UserWarning, match=message) as caught:
        flow = fitted(maf(), x, missing=missing)
    told = [warning for warning in caught if "no entry is" not in str(warning.message)]
    assert (len(told), told[0].filename) == (1, helpers.__file__)
    np.testing.assert_array_equal(flow.params, fitted(maf(), X[WHOLE]).params)


def test_marks_are_compared_in_the_tables_own_precision():
    x = np.where(GONE, -99.9, X).astype(np.float32)
    with pytest.warns(UserWarning, match="which have missing entries"):
        flow = fitted(maf(), x, missing=-99.9)
    np.testing.assert_array_equal(flow.params, fitted(maf(), X.astype(np.float32)[WHOLE]).params)
    whole = np.where(GONE, -1, (10 * X).astype(int) + 50)
    with pytest.warns(UserWarning, match="which have missing entries"):
        flow = fitted(maf(), whole, missing=-1)
    np.testing.assert_array_equal(flow.params, fitted(maf(), whole[WHOLE]).params)
    with pytest.warns(UserWarning, match=r"missing: no entry is -1.5; is it written as the table has it\?"):
        np.testing.assert_array_equal(fitted(maf(), whole, missing=[-1.5, "nan"]).params, fitted(maf(), whole).params)


def test_a_mark_is_found_where_a_narrow_column_stands_in_a_wide_table():
    x = np.column_stack([X[:, 0], np.where(GONE[:, 1], 99.99, X[:, 1]).astype(np.float32)])
    assert x.dtype == np.float64
    with pytest.warns(UserWarning, match=r"which have missing entries \(99.99 in \d+ entries, nan in 0 entries\)"):
        flow = fitted(maf(2), x, missing=[99.99, "nan"])
    np.testing.assert_array_equal(flow.params, fitted(maf(2), x[~GONE[:, 1]]).params)


@pytest.mark.filterwarnings(ANY)
def test_a_whole_number_that_float32_has_not_is_not_taken_for_its_neighbor():
    x = np.column_stack([X[:, 0], 16777216.0 + 2 * (np.arange(len(X)) % 7)])  # from 2**24 on it has no odd numbers
    with pytest.warns(UserWarning, match="missing: no entry is 16777217"):
        fitted(maf(2), x, missing=16777217)


def test_a_mark_counts_in_its_own_column_alone():
    x = np.where([False, True, False], X + 99.0, X)
    x[4, 0] = x[8, 1] = 99.0
    with pytest.warns(UserWarning, match="x: dropped 1 of 300 rows"):
        flow = fitted(maf(), x, missing={"a": 99.0})
    np.testing.assert_array_equal(flow.params, fitted(maf(), np.delete(x, 4, axis=0)).params)


@pytest.mark.parametrize("how", ["drop", "impute"])
def test_where_nothing_is_missing_nothing_is_changed_and_a_number_that_no_entry_is_is_told(how):
    with pytest.warns(UserWarning, match="^missing: no entry is 99; is it written as the table has it") as caught:
        flow = fitted(maf(), X, missing=99.0, on_missing=how)
    assert len(caught) == 1
    np.testing.assert_array_equal(flow.params, fitted(maf(), X).params)
    np.testing.assert_array_equal(fitted(maf(), X, missing="nan", on_missing=how).params, fitted(maf(), X).params)


def test_without_missing_nan_is_a_matter_of_on_invalid():
    x = np.where(GONE, np.nan, X)
    with pytest.raises(ValueError, match=f"NaN or infinite values in {(~WHOLE).sum()} rows"):
        fitted(maf(), x)
    x[1], x[2, 0] = X[1], 99.0
    for how in ("drop", "impute"):
        with pytest.raises(ValueError, match="NaN or infinite values in"), pytest.warns(UserWarning, match="missing"):
            fitted(maf(), x, missing=99.0, on_missing=how)


def test_what_is_not_declared_in_an_incomplete_row_is_still_invalid():
    x = np.where(GONE, np.nan, X)
    x[7, 1] = np.inf
    message = r"x has NaN or infinite values in 1 rows \(7\), columns 1;"
    with pytest.raises(ValueError, match=message), pytest.warns(UserWarning, match="missing"):
        fitted(maf(), x, missing="nan", on_missing="impute")
    with pytest.warns(UserWarning, match="missing|dropped 1 of 300 rows with NaN or infinite"):
        fitted(maf(), x, missing="nan", on_missing="impute", on_invalid="drop")


def test_filled_rows_are_counted():
    message = (
        rf"x: {GONE.sum()} entries are missing in {(~WHOLE).sum()} of 300 rows; each time such a row is used, they are "
        "those of a complete row, drawn from the 10 nearest in the entries that it has"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        flow = fitted(maf(), HOLES, missing=99.0, on_missing="impute")
    assert (len(caught), caught[0].filename) == (1, helpers.__file__)
    assert flow.effective_rows == 270  # a tenth is held out; nothing is dropped


def test_entries_come_from_one_complete_row_that_is_near_and_another_one_each_time():
    rows = rows_of(HOLES)
    taken = draws(rows)
    np.testing.assert_array_equal(taken[:, ~GONE], np.broadcast_to(X[~GONE], (50, (~GONE).sum())))
    for i in np.flatnonzero(~WHOLE):
        seen = ~GONE[i]
        donors = [np.flatnonzero(WHOLE & (X[:, ~seen] == row[~seen]).all(axis=1)) for row in taken[:, i]]
        assert all(len(found) == 1 for found in donors), "not the entries of one complete row"
        used = np.unique(donors)
        assert 3 < len(used) <= 10
        distance = np.linalg.norm((X[WHOLE][:, seen] - X[i, seen]) / X[WHOLE][:, seen].std(axis=0), axis=1)
        farthest = np.linalg.norm((X[used][:, seen] - X[i, seen]) / X[WHOLE][:, seen].std(axis=0), axis=1).max()
        assert (distance < 0.999 * farthest).sum() < 20


def test_without_a_generator_the_same_entries_come_each_time():
    rows = rows_of(HOLES)
    first = rows.take(np.arange(300))[0]
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in rows.pieces()]), first)
    np.testing.assert_array_equal(rows.take(np.arange(300)[::-1])[0][::-1], first)
    np.testing.assert_array_equal(rows.take([7])[0][0], first[7])
    np.testing.assert_array_equal(rows.part(np.arange(5, 20)).take(np.arange(15))[0], first[5:20])


def groups(n=200):
    """A table of two groups: the second column tells them apart, the first is what will be missing."""
    group = np.arange(n) % 2
    return np.column_stack([group + 0.01 * RNG.random(n), 10 * group + 0.01 * RNG.random(n)]), group


def test_neighbors_are_sought_on_circles_in_logarithms_and_among_conditions():
    x, group = groups()
    on_circle = np.column_stack([x[:, 0], np.where(group == 0, RNG.uniform(0, 3, 200), 100.0)])
    gone = RNG.random(200) < 0.2
    on_circle[gone, 0] = -9.0
    on_circle[gone & (group == 0), 1] = 359.0  # next to 0
    flow = NeuralSplineFlow(2, 1, linear="permutation", support=[real(), periodic(0, 360)])
    taken = draws(rows_of(on_circle, flow, -9.0))
    np.testing.assert_array_equal(np.floor(taken[:, :, 0]), np.broadcast_to(group, (50, 200)))

    sizes = np.column_stack([x[:, 0], np.where(group == 0, 1e-6, 1e-3) * (1 + 0.1 * RNG.random(200))])
    sizes[0:2, 1] = 1e6  # next to which the others are all alike, but not in logarithms
    sizes[gone, 0] = -9.0
    sizes[0:2, 0] = 0.0, 1.0
    taken = draws(rows_of(sizes, maf(2, support=[real(), positive()]), -9.0))
    np.testing.assert_array_equal(np.floor(taken[:, 2:, 0]), np.broadcast_to(group[2:], (50, 198)))

    alike = np.column_stack([np.where(gone, -9.0, x[:, 0]), RNG.random(200)])
    taken = draws(rows_of(alike, maf(2, condition_dim=1), -9.0, condition=group[:, None]))
    np.testing.assert_array_equal(np.floor(taken[:, :, 0]), np.broadcast_to(group, (50, 200)))


def test_among_many_rows_that_are_alike_all_are_drawn():
    number = np.repeat([0.0, 1.0], 500)
    x = np.column_stack([number, number + RNG.random(1000)])
    x[::2, 1] = -9.0
    rows = rows_of(x, maf(2), -9.0)
    taken = draws(rows, 20)[:, ::2, 1]
    assert (np.floor(taken) == number[::2]).all()
    assert all(len(np.unique(taken[:, part])) > 200 for part in (slice(0, 250), slice(250, 500)))


def test_rows_stand_in_by_their_weight_and_those_of_no_weight_never():
    weight = np.where(np.arange(300) % 3, 1.0, 5.0)
    weight[np.flatnonzero(WHOLE)[:30]] = 0.0
    taken = draws(rows_of(HOLES, weight=weight), 300)
    used = np.flatnonzero(weight > 0)
    gone, drawn = GONE[used], taken[:, np.flatnonzero(GONE[used][:, 0])][:, :, 0]
    assert taken.shape[1:] == gone.shape
    counts = np.array([(drawn == X[i, 0]).sum() for i in np.flatnonzero(WHOLE)])
    weights = weight[WHOLE]
    assert counts[weights == 0].sum() == 0
    assert counts[weights == 5].mean() > 3 * counts[weights == 1].mean()


def test_the_pool_of_complete_rows_is_limited(monkeypatch):
    monkeypatch.setattr(imputation, "MOST_DONORS", 40)
    taken = draws(rows_of(HOLES), 100)
    assert 10 < len(np.unique(taken[:, GONE[:, 0], 0])) <= 40
    few = X.copy()
    few[4:, 0] = 99.0
    drawn = draws(rows_of(few))[:, 4:, 0]
    assert len(np.unique(drawn)) == 4  # fewer complete rows than neighbors


@pytest.mark.filterwarnings(ANY)
def test_validation_rows_are_no_source_and_are_filled_once():
    flow = maf()
    declared = as_missing(flow.headers, 99.0, "impute")
    rows, other = (as_training_rows(flow, x, None, None, "raise", "x", declared) for x in (HOLES, HOLES[:100]))
    train, validation = filled(flow, rows.part(np.arange(150, 300)), rows.part(np.arange(150)))
    for part, n in ((train, 150), (validation, 150), (filled(flow, train, other)[1], 100)):
        gone = GONE[:, 0][part.index]
        drawn = part.take(np.arange(n), RNG)[0][gone, 0]
        assert np.isin(drawn, X[150:][WHOLE[150:], 0]).all()
    with pytest.warns(UserWarning, match="x: .* missing|validation_data: .* entries are missing in .* of 100 rows"):
        flow = fitted(maf(), HOLES, missing=99.0, on_missing="impute", validation_data=HOLES[:100], learning_rate=1e-30)
    assert len(set(flow.history["validation_loss"])) == 1
    assert len(set(flow.history["train_loss"])) == 4  # drawn anew


@pytest.mark.filterwarnings(ANY)
def test_a_fit_is_reproducible_on_any_number_of_threads_and_after_a_resume(tmp_path):
    options = {"missing": 99.0, "on_missing": "impute", "max_epochs": 4}
    flows = []
    for n in (1, 3):
        npflows.set_num_threads(n)
        flows.append(fitted(maf(), HOLES, **options))
    path = tmp_path / "run.npz"
    fitted(maf(), HOLES, **options, checkpoint=path, callbacks=lambda flow, record: record["epoch"] == 2)
    flows.append(fitted(maf(), HOLES, **options, checkpoint=path, resume=True))
    for flow in flows[1:]:
        np.testing.assert_array_equal(flow.params, flows[0].params)
        assert flow.history["validation_loss"] == flows[0].history["validation_loss"]
    assert not np.array_equal(fitted(maf(), HOLES, **options, rng=3).params, flows[0].params)
    for other in ({}, {"missing": 99.0}, {"missing": {"a": 99.0}, "on_missing": "impute"}):
        with pytest.raises(npflows.FlowFileError, match="belongs to another run"):
            fitted(maf(), HOLES, max_epochs=4, checkpoint=path, resume=True, **other)


def test_any_kind_of_table_gives_the_same_and_is_not_written_to(tmp_path):
    x = HOLES.astype(np.float32).astype(np.float64)
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    tables = [x, x.astype(np.float32), np.asfortranarray(x), np.load(tmp_path / "x.npy", mmap_mode="r"), x.tolist()]
    flows = []
    for table in tables:
        with pytest.warns(UserWarning, match="missing"):
            flows.append(fitted(maf(), table, missing=99.0, on_missing="impute"))
    for flow, table in zip(flows, tables):
        np.testing.assert_allclose(flow.params, flows[0].params, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(table, x)


@pytest.mark.filterwarnings(ANY)
def test_what_the_table_would_have_told_is_learned_from_incomplete_rows():
    """The second column is missing where the first is large: without these rows its mean is far off."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=4000)
    truth = np.column_stack([first, first + 0.5 * rng.normal(size=4000)])
    x = truth.copy()
    x[(first > 0) & (rng.random(4000) < 0.9), 1] = 99.0
    dropped, imputed = (
        fitted(maf(2), x, missing=99.0, on_missing=how, max_epochs=30, learning_rate=1e-2) for how in ("drop", "impute")
    )
    held_out = np.random.default_rng(1).normal(size=(2000, 2)) @ [[1.0, 1.0], [0.0, 0.5]]
    assert dropped.sample(4000, 0)[:, 1].mean() < -0.4
    assert abs(imputed.sample(4000, 0)[:, 1].mean()) < 0.1
    np.testing.assert_allclose(np.cov(imputed.sample(8000, 0).T), [[1, 1], [1, 1.25]], atol=0.12)
    assert imputed.log_prob(held_out).mean() > dropped.log_prob(held_out).mean() + 0.2
    entropy = np.log(2 * np.pi * np.e) + np.log(0.5)
    assert imputed.log_prob(held_out).mean() > -entropy - 0.1


@pytest.mark.filterwarnings(ANY)
def test_marks_may_lie_outside_the_support_and_observed_values_may_not():
    x = np.column_stack([np.exp(X[:, 0]), 1 / (1 + np.exp(-X[:, 1])), RNG.integers(0, 4, 300)])
    holes = np.where(GONE, -1.0, x)
    support = [positive(), interval(0, 1), integer(0, 3)]
    for how in ("drop", "impute"):
        flow = fitted(maf(support=support), holes, missing=-1, on_missing=how)
        assert np.isfinite(flow.log_prob(x)).all()
    holes[7, 1] = 2.0
    with pytest.raises(ValueError, match=r"x has values outside their support, .*: b \(1 rows, Interval"):
        fitted(maf(support=support), holes, missing=-1, on_missing="impute")
    with pytest.raises(ValueError, match=rf"outside their support, .*: a \({GONE[:, 0].sum()} rows"):
        fitted(maf(support=support), holes)


@pytest.mark.filterwarnings("ignore:x.* entries are missing:UserWarning")
def test_a_row_without_any_entry_is_left_out():
    x = HOLES.copy()
    x[[3, 5]] = 99.0
    gone = int((x == 99).any(axis=1).sum())
    with pytest.warns(UserWarning, match="x: dropped 2 of 300 rows, which have no entry that is not missing"):
        flow = fitted(maf(), x, missing=99.0, on_missing="impute", validation_fraction=0.0)
    assert flow.effective_rows == 298
    assert gone > 2


def test_no_complete_row_is_an_error_that_changes_nothing():
    flow, x = maf(), X.copy()
    x[np.arange(300), np.arange(300) % 3] = 99.0
    before = flow.params
    with pytest.raises(ValueError, match="x has no row without missing entries"):
        fitted(flow, x, missing=99.0)
    with (
        pytest.raises(ValueError, match="x has no complete row among those to train on"),
        pytest.warns(UserWarning, match="entries are missing in 300 of 300 rows"),
    ):
        fitted(flow, x, missing=99.0, on_missing="impute")
    with pytest.raises(ValueError, match="x has no row with an entry that is not missing"):
        fitted(flow, np.full((5, 3), 99.0), missing=99.0, on_missing="impute")
    np.testing.assert_array_equal(flow.params, before)
    assert (flow.history, flow.preprocessing.is_standardized, flow.effective_rows) == ({}, False, None)


WRONG = {
    "word": (
        {"missing": "none"},
        'missing must be a number, "nan", "masked", several of them or a mapping .*, got \'none\'',
    ),
    "truth": ({"missing": True}, "missing must be a number, .* got True"),
    "nothing": ({"missing": []}, r"missing must be a number, .* got \[\]"),
    "words": ({"missing": [99.0, "NA"]}, "missing must be a number, .* got .*NA"),
    "column": ({"missing": {"z": 99.0}}, "missing has no column 'z'; there are a, b, c"),
    "number": ({"missing": {3: 99.0}}, "missing has no column 3"),
    "column's value": ({"missing": {"a": None}}, "missing must be a number, .* got None"),
    "how": ({"missing": 99.0, "on_missing": "mean"}, "on_missing must be one of 'drop', 'impute', got 'mean'"),
    "without a mark": ({"on_missing": "impute"}, 'on_missing="impute" needs missing=, what stands for a missing entry'),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused(case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        fitted(maf(), X, **options)
