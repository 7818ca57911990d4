"""Marks of missing entries in conditions: rows that have any are left out, or refused where entries are to be imputed."""

import numpy as np
import pytest

from npflows import MAF

pytestmark = pytest.mark.filterwarnings("ignore:missing. no entry is:UserWarning")

RNG = np.random.default_rng(0)
C = RNG.standard_normal((200, 2))
X = C[:, :1] + RNG.standard_normal((200, 1))
OPTIONS = {"max_epochs": 2, "validation_fraction": 0.0, "rng": 0, "progress": False}


def flow(**options):
    return MAF(1, 1, (8,), condition_dim=2, rng=0, **options)


def marked(mark, column=1, rows=5):
    condition = C.copy()
    condition[:rows, column] = mark
    return condition


CLEAN = flow().fit(X[5:], condition=C[5:], **OPTIONS).params
NAMES = {"columns": ["z"], "condition_columns": ["u", "g"]}


def named(columns=("z",), condition_columns=("u", "g")):
    made = flow(columns=columns)
    made.condition_columns = condition_columns
    return made


@pytest.mark.parametrize(
    ("mark", "missing"),
    [
        (99.0, 99.0),
        (np.nan, "nan"),
        (np.inf, np.inf),
        (99.0, [-1.0, 99.0]),
        (99.0, {("condition", 1): 99.0}),
        (99.0, {"g": 99.0}),
        (99.0, {("condition", "g"): 99.0, ("x", "z"): -99.0}),
        (99.0, {0: -99.0, "g": [99.0]}),
    ],
)
def test_rows_whose_condition_has_a_mark_are_dropped_and_it_is_said(mark, missing):
    with pytest.warns(UserWarning, match="^condition: dropped 5 of 200 rows, which have missing entries"):
        found = named().fit(X, condition=marked(mark), missing=missing, **OPTIONS)
    np.testing.assert_array_equal(found.params, CLEAN)


def test_a_masked_condition_is_declared_as_nan_is():
    masked = np.ma.masked_array(C, np.isnan(marked(np.nan)))
    with pytest.warns(UserWarning, match="condition: dropped 5 of 200 rows"):
        found = flow().fit(X, condition=masked, missing="nan", **OPTIONS)
    np.testing.assert_array_equal(found.params, CLEAN)
    sentence = r"x has masked or empty entries \(5 in column 1 of the condition\) in 5 rows .* missing=.masked."
    with pytest.raises(ValueError, match=sentence):
        flow().fit(X, condition=masked, **OPTIONS)


def test_validation_conditions_too():
    with pytest.warns(UserWarning, match="validation_condition: dropped 5 of 200 rows") as caught:
        found = flow().fit(
            X, condition=C, validation_data=X + 0.1, validation_condition=marked(99.0), missing=99.0, **OPTIONS
        )  # fmt: skip
    right = flow().fit(X, condition=C, validation_data=X[5:] + 0.1, validation_condition=C[5:], **OPTIONS)
    assert found.history["validation_loss"] == right.history["validation_loss"]
    assert sum("dropped" in str(warning.message) for warning in caught) == 1


@pytest.mark.filterwarnings("ignore:the standard deviation of (x|the condition) would .*5 of 200 are 99:UserWarning")
def test_marks_of_one_table_are_numbers_in_the_other():
    found = flow().fit(X, condition=marked(99.0), missing={0: 99.0}, **OPTIONS)
    np.testing.assert_array_equal(found.params, flow().fit(X, condition=marked(99.0), **OPTIONS).params)
    with pytest.warns(UserWarning, match="^x: dropped 5 of 200 rows"):
        flow().fit(np.where(np.arange(200)[:, None] < 5, 99.0, X), condition=C, missing={("x", 0): 99.0}, **OPTIONS)


def test_conditions_are_not_imputed():
    sentence = (
        'on_missing="impute" fills in entries of x alone, and condition has missing ones in 5 of 200 rows: pass on_missing'
    )
    with pytest.raises(ValueError, match=sentence):
        flow().fit(X, condition=marked(99.0), missing=99.0, on_missing="impute", **OPTIONS)
    flow().fit(X, condition=C, missing=99.0, on_missing="impute", **OPTIONS)


def test_a_name_that_both_tables_have_must_say_which():
    with pytest.raises(ValueError, match=r"missing: 'g' is a column of x and of the condition; write \('x', 'g'\) or"):
        named(columns=["g"]).fit(X, condition=marked(99.0), missing={"g": 99.0}, **OPTIONS)
    with pytest.warns(UserWarning, match="condition: dropped 5 of 200 rows"):
        named(columns=["g"]).fit(X, condition=marked(99.0), missing={("condition", "g"): 99.0}, **OPTIONS)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"gg": 99.0}, "missing has no column 'gg'; did you mean 'g'"),
        ({("condition", 2): 99.0}, "missing: condition has no column 2"),
        ({("condition", "q"): 99.0}, "missing: condition has no column 'q'"),
        ({1: 99.0}, "missing has no column 1"),
    ],
)
def test_unknown_columns_are_refused(missing, message):
    with pytest.raises(ValueError, match=message):
        named().fit(X, condition=C, missing=missing, **OPTIONS)


def test_nothing_left_is_refused():
    with pytest.raises(ValueError, match="condition has no row without missing entries"):
        flow().fit(X, condition=marked(99.0, rows=200), missing=99.0, **OPTIONS)
