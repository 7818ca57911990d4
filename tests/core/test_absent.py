"""Masked entries: told from NaN whatever they come from, declared by missing="masked", or refused with their number."""

import datetime
import decimal
import pickle

import numpy as np
import pytest

import npflows
from npflows.core.absent import MARK, MASKED, is_masked, matches, of_mark, reasons
from npflows.core.checks import as_numeric
from npflows.core.table import Table

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
OPTIONS = {"max_epochs": 0, "rng": 0, "progress": False}
GONE = np.zeros(X.shape, bool)
GONE[[3, 5, 7, 9], [0, 0, 1, 1]] = True
SENTENCE = r"x has masked or empty entries \(2 in column 0, 2 in column 1\) in 4 rows \(3, 5, 7, 9\)"


def flow(**options):
    return npflows.MAF(2, 1, (8,), dtype="float64", rng=0, **options)


def masked(**nan):
    """X with four masked entries, and NaN in a row if that is wanted."""
    x = np.ma.masked_array(X.copy(), GONE)
    for row in nan.values():
        x.data[row, 0] = np.nan
    return x


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", ">f8", np.longdouble])
def test_a_mask_outlives_copies_conversions_and_sums(kind):
    x = np.where([True, False, False], MASKED, np.array([1.0, 2.0, np.nan], kind))
    assert x.dtype == np.dtype(kind).newbyteorder("=")
    for same in (x, x.astype(np.float32), x.astype(np.float64), x.astype(kind), np.concatenate([x, x])[:3], 3 * x + 1 - x,
                 pickle.loads(pickle.dumps(x)), np.frombuffer(x.tobytes(), x.dtype), x[::-1].copy()[::-1]):  # fmt: skip
        assert is_masked(same).tolist() == [True, False, False]
        assert np.isnan(same).tolist() == [True, False, True]
    assert not reasons(np.array([1, 2])).any()


def test_other_nan_are_none_whatever_their_bits():
    bits = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FFFFFFFFFFFFFFF, 0x7FF80000000007A2, 0x7FF8000000000001])
    assert not reasons(bits.astype(np.uint64).view(np.float64)).any()
    assert is_masked(np.array([MASKED, -MASKED])).all()


def test_marks_and_nan_match_what_they_stand_for():
    x = np.array([np.nan, MASKED, of_mark(0), of_mark(1), 99.0])
    assert matches(x, np.nan).tolist() == [True, True, False, False, False]
    assert matches(x, MASKED).tolist() == [False, True, False, False, False]
    assert matches(x, 99.0, 1).tolist() == [False, False, False, True, True]
    assert reasons(x).tolist() == [0, MARK - 1, MARK, MARK + 1, 0]
    assert reasons(np.array([of_mark(10**6)])) > MARK


def test_masks_are_refused_with_their_number_and_columns():
    with pytest.raises(ValueError, match=SENTENCE + r"; pass missing=\"masked\" to declare these missing"):
        flow().fit(masked(), **OPTIONS)
    with pytest.raises(ValueError, match=SENTENCE + r"; 2 more rows have NaN or infinite values; pass"):
        flow().fit(masked(first=20, second=21), **OPTIONS)
    with pytest.raises(ValueError, match=r"\(2 in 'u', 2 in 'g'\)"):
        flow(columns=["u", "g"]).fit(masked(), **OPTIONS)
    with pytest.raises(ValueError, match=r"x has masked .* \(2 in column 0 of the condition, 2 in column 1 of the cond"):
        flow(condition_dim=2).fit(X, condition=masked(), **OPTIONS)


@pytest.mark.parametrize("missing", ["masked", ["masked", "nan"], {0: "masked", 1: "masked"}, "nan"])
def test_masks_are_declared(missing):
    clean = flow().fit(X[~GONE.any(axis=1)], **OPTIONS)
    for x in (masked(), Table(as_numeric(masked(), "x")), as_numeric(masked(), "x").astype(np.float32)):
        with pytest.warns(UserWarning, match="x: dropped 4 of 40 rows, which have missing entries"):
            found = flow().fit(x, missing=missing, **OPTIONS)
        np.testing.assert_allclose(found.standardize.loc, clean.standardize.loc, rtol=1e-6)
    with pytest.warns(UserWarning, match="4 entries are missing in 4 of 40 rows"):
        flow().fit(masked(), missing=missing, on_missing="impute", **OPTIONS)
    assert np.flatnonzero(np.isnan(clean.log_prob(masked()))).tolist() == [3, 5, 7, 9]


@pytest.mark.filterwarnings("ignore:x.*:UserWarning")
def test_nan_is_refused_where_masks_alone_are_declared():
    with pytest.raises(ValueError, match=r"x has NaN or infinite values in 1 rows \(20\), columns 0"):
        flow().fit(masked(first=20), missing="masked", **OPTIONS)
    with pytest.warns(UserWarning, match=r"dropped 5 of 40 rows.* \(masked in 4 entries, nan in 5 entries\)"):
        flow().fit(masked(first=20), missing=["masked", "nan"], **OPTIONS)
    x = masked()
    x.data[0, 0] = -99
    with pytest.warns(UserWarning, match=r"\(-99 in 1 entries, masked in 4 entries\)"):
        flow().fit(x, missing=[-99, "masked"], **OPTIONS)
    with pytest.raises(ValueError, match=r"masked or empty entries \(2 in column 1\) in 2 rows \(7, 9\)"):
        flow().fit(masked(), missing={0: "masked"}, **OPTIONS)


A = [0.5, None, *X[2:, 0].tolist()]
WHOLE = [1, None, *range(38)]
FLAGS = [True, None, *[True, False] * 19]
DATES = [datetime.date(2020, 1, 1), None, *[datetime.date(2020, 1, 2 + i % 20) for i in range(38)]]


def of_python():
    yield {"a": A, "b": X[:, 1]}
    yield {"a": [decimal.Decimal(1), np.ma.masked, *X[2:, 0].tolist()], "b": X[:, 1]}
    yield {"a": np.ma.masked_array(X[:, 0].astype(object), np.arange(40) == 1), "b": X[:, 1]}
    yield [[a, b] for a, b in zip([1.0, np.ma.masked, *A[2:]], X[:, 1].tolist())]
    yield {"a": np.array(DATES, "M8[D]"), "b": X[:, 1]}
    yield {"a": DATES, "b": X[:, 1]}


def of_pandas():
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    for values, kind in ((A, "Float64"), (A, "Float32"), (WHOLE, "Int64"), (FLAGS, "boolean"), (A, object),
                         (A, "double[pyarrow]"), (WHOLE, "int64[pyarrow]"), (DATES, "datetime64[s]")):  # fmt: skip
        yield pandas.DataFrame({"a": pandas.Series(values, dtype=kind), "b": X[:, 1]})
    for kind in (arrow.date32(), arrow.date64(), arrow.timestamp("us"), arrow.timestamp("ms", "UTC")):
        column = pandas.arrays.ArrowExtensionArray(arrow.array(DATES).cast(kind))
        yield pandas.DataFrame({"a": column, "b": X[:, 1]})


def of_polars():
    polars = pytest.importorskip("polars")
    for values in (A, WHOLE, FLAGS, DATES, [None if a is None else decimal.Decimal(str(a)) for a in A]):
        yield polars.DataFrame({"a": values, "b": X[:, 1]})


def of_pyarrow():
    arrow = pytest.importorskip("pyarrow")
    for values in (A, WHOLE, FLAGS, DATES):
        yield arrow.table({"a": values, "b": X[:, 1]})


def of_astropy():
    table, masks = pytest.importorskip("astropy.table"), pytest.importorskip("astropy.utils.masked")
    units = pytest.importorskip("astropy.units")
    hidden = np.arange(40) == 1
    yield table.Table({"a": table.MaskedColumn(X[:, 0], mask=hidden), "b": X[:, 1]})
    yield table.Table({"a": table.MaskedColumn(np.arange(40), mask=hidden, unit="km"), "b": X[:, 1]})
    yield table.QTable({"a": masks.Masked(X[:, 0] * units.km, hidden), "b": X[:, 1]})


def of_awkward():
    awkward = pytest.importorskip("awkward")
    yield awkward.Array([{"a": a, "b": b} for a, b in zip(A, X[:, 1].tolist())])


@pytest.mark.filterwarnings("ignore:a holds whole numbers:UserWarning", "ignore:x has no density:UserWarning")
@pytest.mark.parametrize("kind", [of_python, of_pandas, of_polars, of_pyarrow, of_astropy, of_awkward])
def test_masks_of_every_kind_are_counted_and_declared(kind):
    for table in kind():
        with pytest.raises(ValueError, match=r"x has masked or empty entries \(1 in ('a'|column 0)\) in 1 rows \(1\)"):
            flow().fit(table, **OPTIONS)
        with pytest.warns(UserWarning, match="x: dropped 1 of 40 rows, which have missing entries"):
            flow().fit(table, missing="masked", **OPTIONS)


def test_nan_of_data_frames_is_no_mask_where_they_tell_them_apart():
    frames = []
    for library, make in (("polars", "DataFrame"), ("pyarrow", "table")):
        module = pytest.importorskip(library)
        frames.append(getattr(module, make)({"a": [None, np.nan, *A[2:]], "b": X[:, 1]}))
    for frame in frames:
        found = reasons(as_numeric(frame, "x"))
        assert found[:2, 0].tolist() == [MARK - 1, 0]


def test_text_that_says_nan_is_no_mask_and_an_empty_field_is(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n,3\nnan,4\nNA,5\n7,null\n8,-nan\n")
    found = npflows.read_table(tmp_path / "t.csv").x
    assert is_masked(found).tolist() == [[False] * 2, [True, False], [False] * 2, [True, False], [False, True], [False] * 2]
    assert np.isnan(found).sum() == 5


def test_masks_of_a_stream_are_declared(tmp_path, monkeypatch):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("npflows.training.streaming.IN_MEMORY", 10)
    table = arrow.table({"a": [None if gone else a for a, gone in zip(X[:, 0].tolist(), GONE[:, 0])], "b": X[:, 1]})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=10)
    with pytest.raises(ValueError, match=r"x has masked or empty entries \(2 in 'a'\) in 2 rows \(3, 5\)"):
        flow().fit(npflows.stream_table(tmp_path / "t.parquet"), **OPTIONS)
    with pytest.warns(UserWarning, match="2 of 40 rows are left out"):
        flow().fit(npflows.stream_table(tmp_path / "t.parquet"), missing="masked", **OPTIONS)
