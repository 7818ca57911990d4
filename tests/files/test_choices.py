"""What read_table is asked for: columns, rows, burn-in; a wrong wish is refused with what was expected."""

import types

import numpy as np
import pytest

from npflows.files.tables import TableError, read_table, stream_table, write_table

FRAME = {"r": [1.0, 2.0], "a": [3.0, 4.0], "ra": [5.0, 6.0]}
X = np.arange(40.0).reshape(20, 2)


def test_a_single_name_is_one_column_and_no_row_of_letters(tmp_path):
    read = read_table(FRAME, "ra", condition="r")
    assert (read.columns, read.condition_columns) == (["ra"], ["r"])
    np.testing.assert_array_equal(read.x, [[5], [6]])
    assert read_table(FRAME, 1).columns == ["a"]
    assert read_table(FRAME, np.array(["ra", "a"])).columns == ["ra", "a"]
    np.save(tmp_path / "x.npy", np.rec.fromarrays(list(FRAME.values()), names="r,a,ra"))
    assert stream_table(tmp_path / "x.npy", "ra", condition="a").read(0).columns == ["ra"]


WISHES = {
    "a table of one": ({"table": "x"}, "table= is for files that hold several tables, and a dict is one"),
    "a burn-in in text": ({"burn_in": "0.3"}, "burn_in must be a number of steps, .* got '0.3'"),
    "a burn-in that is no number": ({"burn_in": float("nan")}, "burn_in must be a number of steps"),
    "a mask of rows": ({"where": np.array([True, False])}, "where must be text such as .* got a ndarray: choose by"),
    "a function of rows": ({"where": lambda row: True}, "where must be text such as .* got a function"),
    "weights themselves": ({"weights": np.ones(2)}, "weights must be the name .* got a ndarray: pass your own to fit"),
    "logarithms of weights": ({"log_weights": [0, 0]}, "log_weights must be the name .* to fit"),
    "columns of no name": ({"columns": [None]}, "columns must be names or numbers of columns, got None"),
    "columns of flags": ({"columns": [True, False, True]}, "columns must be names or numbers of columns, got True"),
    "a slice of columns": ({"condition": slice(2)}, "condition must be names or numbers of columns, got slice"),
}


@pytest.mark.parametrize("case", WISHES)
def test_a_wish_of_another_kind_is_refused_with_what_was_expected(case):
    options, message = WISHES[case]
    with pytest.raises(TableError, match=message):
        read_table(FRAME, **options)


def names(*names):
    return types.SimpleNamespace(names=[types.SimpleNamespace(name=name, isDerived=False) for name in names])


def getdist(**more):
    return types.SimpleNamespace(samples=X, weights=np.arange(20.0), getParamNames=lambda: names("a", "b"), **more)


def test_samples_of_getdist_leave_out_the_burn_in_of_each_chain():
    np.testing.assert_array_equal(read_table(getdist(), burn_in=5).x, X[5:])
    read = read_table(getdist(chain_offsets=np.array([0, 10, 20])), burn_in=0.5)
    np.testing.assert_array_equal(read.x, X[[5, 6, 7, 8, 9, 15, 16, 17, 18, 19]])
    np.testing.assert_array_equal(read.sample_weight, read.x[:, 0] / 2)


@pytest.mark.parametrize("given", [
    types.SimpleNamespace(samples=X, logwt=np.zeros(20), logz=np.zeros(20)),
    {"weighted_samples": {"points": X, "weights": np.ones(20)}, "paramnames": ["a", "b"]},
    getdist(sampler="nested"),
], ids=["dynesty", "UltraNest", "GetDist"])  # fmt: skip
def test_points_of_nested_samplers_have_no_burn_in(given):
    with pytest.raises(TableError, match=r"burn_in is for chains of samplers, and a .* has no steps"):
        read_table(given, burn_in=10)


@pytest.mark.parametrize("name", ["t.csv", "t.npy"])
def test_no_wish_for_a_table_or_a_burn_in_is_left_unheeded(name, tmp_path):
    write_table(tmp_path / name, X, ["a", "b"])
    with pytest.raises(TableError, match=r"is (text|npy) and holds one table: leave out table="):
        read_table(tmp_path / name, table="x")
    with pytest.raises(TableError, match=r"burn_in is for chains of samplers, and .* holds none"):
        read_table(tmp_path, burn_in=10)
    if name == "t.npy":
        with pytest.raises(TableError, match="holds none: leave the first rows out by where="):
            read_table(tmp_path / name, burn_in=10)
