"""What a table is: columns by name, masks, units, and what is refused."""

import datetime
import decimal
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest

import npflows
from npflows.core.checks import as_numeric, as_rows
from npflows.core.frames import names_of
from npflows.core.tables import Header, Headers

NAMES = ["z", "i", "r"]
HEADER = Header(3, "columns", NAMES)
X = np.arange(12.0).reshape(4, 3)
ORDER = [2, 0, 1]
REORDERED = [NAMES[i] for i in ORDER]


def structured(x=X, order=ORDER):
    table = np.empty(len(x), [(NAMES[i], "f8") for i in order])
    for i in order:
        table[NAMES[i]] = x[:, i]
    return table


class Columns:
    """Something that NumPy takes for an array and that names its columns."""

    columns = REORDERED

    def __array__(self, dtype=None, copy=None):
        return X[:, ORDER]


class Interchange:
    """Something that speaks the data-frame interchange protocol alone, in two chunks, with null values by a bit mask."""

    def __init__(self, x=X, null=(), kind=2):
        self.x, self.null, self.kind = x, null, kind

    def __dataframe__(self, nan_as_null=False, allow_copy=True):
        return self

    def column_names(self):
        return iter(REORDERED)

    def get_chunks(self):
        return [Interchange(self.x[:1], self.null, self.kind), Interchange(self.x[1:], (), self.kind)]

    def get_column_by_name(self, name):
        values = np.ascontiguousarray(self.x[:, NAMES.index(name)])
        bits = np.packbits([name not in self.null] * len(values), bitorder="little")
        buffers = {
            "data": (SimpleNamespace(ptr=values.ctypes.data, keep=values), (self.kind, 64, "g", "=")),
            "validity": (SimpleNamespace(ptr=bits.ctypes.data, keep=bits), (20, 1, "b", "=")),
        }
        return SimpleNamespace(
            dtype=(self.kind, 64, "g", "="),
            size=lambda: len(values),
            offset=0,
            describe_null=(3, 0),
            get_buffers=lambda: buffers,
        )


def frames():
    """Tables with their columns in another order, of every kind that can be made here."""
    tables = {
        "structured array": structured(),
        "record array": structured().view(np.recarray),
        "mapping": {name: X[:, NAMES.index(name)] for name in REORDERED},
        "mapping of lists": {name: X[:, NAMES.index(name)].tolist() for name in REORDERED},
        "columns and __array__": Columns(),
        "interchange": Interchange(),
    }
    for module, make in (
        ("pandas", lambda m: m.DataFrame(X[:, ORDER], columns=REORDERED)),
        ("pandas", lambda m: m.DataFrame(X[:, ORDER], columns=REORDERED).convert_dtypes()),
        ("polars", lambda m: m.DataFrame({name: X[:, NAMES.index(name)] for name in REORDERED})),
        ("pyarrow", lambda m: m.table({name: X[:, NAMES.index(name)] for name in REORDERED})),
        ("astropy.table", lambda m: m.Table({name: X[:, NAMES.index(name)] for name in REORDERED})),
    ):
        try:
            library = __import__(module, fromlist=["x"])
        except ImportError:
            continue
        tables[f"{module} {len(tables)}"] = make(library)
    return tables


FRAMES = frames()


@pytest.mark.parametrize("kind", FRAMES)
def test_columns_are_taken_by_name(kind):
    table = as_numeric(FRAMES[kind], "x", HEADER)
    np.testing.assert_array_equal(table, X)
    assert type(table) is np.ndarray
    np.testing.assert_array_equal(as_numeric(FRAMES[kind], "x"), X[:, ORDER])
    assert names_of(FRAMES[kind]) == REORDERED


@pytest.mark.parametrize("kind", FRAMES)
def test_a_missing_column_is_refused_with_a_hint_and_an_extra_one_by_default(kind):
    with pytest.raises(ValueError, match=r"x has no column 'rr'; did you mean 'r'\?; flow.columns are z, i, rr"):
        as_numeric(FRAMES[kind], "x", Header(3, "columns", ["z", "i", "rr"]))
    with pytest.raises(ValueError, match=r"x has columns that the flow does not take: r; pass x\[flow.columns\], or set"):
        as_numeric(FRAMES[kind], "x", Header(2, "columns", ["z", "i"]))
    with pytest.warns(UserWarning, match="x: left out columns that the flow does not take: r"):
        table = as_numeric(FRAMES[kind], "x", Header(2, "columns", ["i", "z"], extra="ignore"))
    np.testing.assert_array_equal(table, X[:, [1, 0]])


def test_a_row_is_taken_by_name():
    for row in (structured()[2], dict(zip(REORDERED, X[2, ORDER]))):
        np.testing.assert_array_equal(as_numeric(row, "x", HEADER), X[2])
    pandas = pytest.importorskip("pandas")
    row = pandas.Series(X[2, ORDER], REORDERED)
    np.testing.assert_array_equal(as_numeric(row, "x", HEADER), X[2])
    np.testing.assert_array_equal(as_numeric(row, "sample_weight"), X[2, ORDER])  # where no columns are expected


def test_columns_without_names_go_by_their_numbers():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X)
    assert names_of(frame) is None
    nameless = Header(3, "columns")
    np.testing.assert_array_equal(as_numeric(frame[[2, 0, 1]], "x", nameless), X)
    np.testing.assert_array_equal(as_numeric(frame, "x", HEADER), X)
    np.testing.assert_array_equal(as_numeric(structured(), "x", nameless), X[:, ORDER])


def test_what_is_left_out_need_not_be_numbers():
    table = {"name": np.array(["a"] * 4), **dict(zip(NAMES, X.T))}
    with pytest.warns(UserWarning, match="left out columns that the flow does not take: name"):
        np.testing.assert_array_equal(as_numeric(table, "x", Header(3, "columns", NAMES, extra="ignore")), X)


BAD = {
    "text": (["a"] * 4, TypeError, "column 'z' of x must be an array of numbers, got dtype <U1; leave the column out"),
    "objects": (np.array([1, "b", 2, 3], object), TypeError, r"column 'z' of x must be .* holds text \('b'\); leave"),
    "numbers as text": (np.array(["1", "2", "3", "4"], object), TypeError, "column 'z' of x must be .* holds text"),
    "dates": (np.zeros(4, "M8[s]"), TypeError, "column 'z' of x holds dates or times .*, and numbers are taken here"),
    "dates as objects": (np.array([datetime.date(2020, 1, 1)] * 4), TypeError, "column 'z' of x holds dates or times"),
    "a clock": (np.array([datetime.time(12)] * 4), TypeError, "column 'z' .* holds dates or times; make numbers"),
    "complex numbers": (np.ones(4, complex), TypeError, "column 'z' of x must be an array of numbers, got dtype complex"),
    "another length": ([1.0], ValueError, r"the columns of x must be one-dimensional and of one length, got z \(1,\)"),
    "two axes": (np.ones((4, 2)), ValueError, "the columns of x must be one-dimensional and of one length"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_column_that_holds_no_numbers_is_named(case):
    values, error, message = BAD[case]
    with pytest.raises(error, match=message):
        as_numeric({"z": values, "i": X[:, 1], "r": X[:, 2]}, "x", HEADER)


def test_names_that_come_twice_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.c_[X, X[:, 0]], columns=[*NAMES, "z"])
    for call in (
        lambda: as_numeric(frame, "x", HEADER),
        lambda: Headers.of(Headers(Header(4, "columns"), HEADER), frame, None),
    ):
        with pytest.raises(ValueError, match="x has more than one column named 'z'; give each a name of its own"):
            call()


def test_nothing_and_what_is_masked_are_nan():
    decimals = np.array([decimal.Decimal("1.5"), None, True, 2], object)
    masked = np.ma.masked_array([1, 2, 3, 4], [0, 0, 1, 0])
    table = as_numeric({"z": decimals, "i": masked, "r": X[:, 2]}, "x", HEADER)
    np.testing.assert_array_equal(table[:, 0], [1.5, np.nan, 1, 2])
    np.testing.assert_array_equal(table[:, 1], [1, 2, np.nan, 4])
    np.testing.assert_array_equal(as_numeric([masked[:2], masked[1:3]], "x"), [[1, 2], [2, np.nan]])
    assert as_numeric(np.ma.masked_array([1, 2]), "x").dtype.kind == "i"
    table = as_numeric(Interchange(null=("i",)), "x", HEADER)
    np.testing.assert_array_equal(np.isnan(table), [[False, True, False], *[[False] * 3] * 3])
    with pytest.raises(TypeError, match="column 'z' of x can't be made into numbers"):
        as_numeric(Interchange(kind=21), "x", HEADER)


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_nulls_of_data_frames_are_nan(library):
    module = pytest.importorskip(library)
    make = module.DataFrame if library == "polars" else module.table
    frame = make({"r": [None, 1], "z": [1.0, None], "i": [True, None]})
    np.testing.assert_array_equal(as_numeric(frame, "x", HEADER), [[1, 1, np.nan], [np.nan, np.nan, 1]])


def test_subclasses_of_arrays_become_plain_arrays():
    matrix = as_numeric(X.view(np.matrix), "x")
    assert type(matrix) is np.ndarray
    assert matrix.shape == X.shape


class Unit(str):
    def is_unity(self):
        return not self


class Quantity(np.ndarray):
    """An array with a unit, as astropy has them."""

    unit = Unit("mag")

    def to_value(self, unit):
        return np.asarray(self)


class Plain(Quantity):
    unit = Unit("")


def test_units_are_refused_unless_there_is_none():
    sentence = r"x has the unit mag, and flows take plain numbers: pass x.to_value\('mag'\)"
    for values in (X.view(Quantity), [X[0].view(Quantity), X[1].view(Quantity)]):
        with pytest.raises(TypeError, match=sentence):
            as_numeric(values, "x")
    with pytest.raises(TypeError, match=r"column 'i' of x has the unit mag, .*: pass x\['i'\].to_value\('mag'\)"):
        as_numeric({"z": X[:, 0], "i": X[:, 1].view(Quantity), "r": X[:, 2]}, "x", HEADER)
    assert type(as_numeric(X.view(Plain), "x")) is np.ndarray


def test_quantities_and_masks_of_astropy():
    units, masked = pytest.importorskip("astropy.units"), pytest.importorskip("astropy.utils.masked").Masked
    table = pytest.importorskip("astropy.table")
    for values in (X * units.mag, units.Magnitude(X), X * units.percent, X * units.rad, masked(X * units.m)):
        with pytest.raises(TypeError, match=r"x has the unit .*, and flows take plain numbers: pass x.to_value"):
            as_numeric(values, "x")
    assert type(as_numeric(X * units.one, "x")) is np.ndarray
    with pytest.raises(TypeError, match=r"pass x\['z'\].quantity.to_value\('mag'\)"):
        as_numeric(table.Table({"z": X[:, 0] * units.mag, "i": X[:, 1], "r": X[:, 2]}), "x", HEADER)
    assert np.isnan(as_numeric(masked(X, X == 4), "x")).sum() == 1
    assert as_numeric(table.MaskedColumn(X[:, 0]), "x").tolist() == X[:, 0].tolist()


def test_sparse_tables_are_refused_with_the_way_out():
    sparse = pytest.importorskip("scipy.sparse")
    for values in (sparse.csr_matrix(X), sparse.dok_array(X)):
        with pytest.raises(TypeError, match=r"x must be an array of numbers, and is sparse: pass x.toarray\(\)"):
            as_numeric(values, "x", HEADER)


def test_an_array_of_numbers_goes_through_as_it_is():
    for values in (X, X.astype(np.float32), X.astype(int), X > 3):
        assert as_numeric(values, "x", HEADER) is values


def test_named_tuples_are_rows_by_name():
    row = namedtuple("Row", REORDERED)(*X[0, ORDER])
    np.testing.assert_array_equal(as_numeric(row, "x", HEADER), X[0])
    np.testing.assert_array_equal(as_numeric(row, "x"), X[0, ORDER])
    with pytest.raises(TypeError, match="a list of named tuples"):
        as_numeric([row, row], "x", HEADER)


def test_a_frame_that_is_not_computed_yet_is_refused_with_the_way_out():
    lazy = SimpleNamespace(collect=None, columns=NAMES)
    with pytest.raises(TypeError, match=r"pass x\.collect\(\)"):
        as_numeric(lazy, "x", HEADER)


def test_a_whole_number_of_400_digits_is_refused():
    with pytest.raises(ValueError, match="x holds a number beyond the range of float64"):
        as_numeric([[10**400, 1.0]], "x")


@pytest.mark.parametrize("kind", [np.longdouble, ">f8", np.float16, np.int8, ">u2", bool])
def test_numbers_of_every_width_are_those_of_float64(kind):
    x = np.abs(np.random.default_rng(0).normal(size=(200, 2)) * 3).astype(kind)
    expected = np.asarray(x, np.float64)
    assert as_rows(x, (2,), "x")[0].dtype.itemsize <= 8
    whole = None if np.dtype(kind).kind == "f" else [npflows.support.integer(0, 20)] * 2
    flows = [npflows.MAF(2, 1, (4,), support=whole, rng=0) for _ in range(2)]
    ours, theirs = (flow.fit(t, max_epochs=2, rng=0, progress=False) for flow, t in zip(flows, (x, expected)))
    assert ours.params.tobytes() == theirs.params.tobytes()
    assert ours.flow_layers[0].loc.tobytes() == theirs.flow_layers[0].loc.tobytes()
    assert ours.log_prob(x).tobytes() == theirs.log_prob(expected).tobytes()


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(np.float64).max, reason="longdouble is float64 here")
def test_a_longdouble_beyond_float64_is_infinite():
    flow = npflows.MAF(2, 1, (4,), rng=0)
    assert flow.log_prob(np.array([[np.longdouble("1e400"), 0]]))[0] == -np.inf


def vectors():
    """Tables with a column of two values in each row, of every kind that has them."""
    table = np.empty(len(X), [("m", "f8", (2,)), ("z", "f8")])
    table["m"], table["z"] = X[:, :2], X[:, 2]
    yield table
    for library, make in (
        ("astropy.table", lambda m: m.Table({"m": X[:, :2], "z": X[:, 2]})),
        ("polars", lambda m: m.DataFrame({"m": m.Series(X[:, :2], dtype=m.Array(m.Float64, 2)), "z": X[:, 2]})),
        ("pyarrow", lambda m: m.table({"m": m.FixedSizeListArray.from_arrays(X[:, :2].ravel(), 2), "z": X[:, 2]})),
    ):
        try:
            module = __import__(library, fromlist=["x"])
        except ImportError:
            continue
        yield make(module)


def test_a_column_of_several_values_in_each_row_is_taken_as_several_columns():
    names = ["m[0]", "m[1]", "z"]
    for table in vectors():
        assert names_of(table) == names
        np.testing.assert_array_equal(as_numeric(table, "x"), X)
        np.testing.assert_array_equal(as_numeric(table, "x", Header(3, "columns", names[::-1])), X[:, ::-1])
        read = npflows.read_table(table)
        assert read.columns == names
        np.testing.assert_array_equal(read.x, X)
    row = next(vectors())[1]
    np.testing.assert_array_equal(as_numeric(row, "x", Header(3, "columns", names)), X[1])


def test_vectors_of_quantities_keep_their_unit():
    units, QTable = pytest.importorskip("astropy.units"), pytest.importorskip("astropy.table").QTable
    table = QTable({"m": X[:, :2] * units.m, "z": X[:, 2]})
    known = Header(3, "columns", ["m[0]", "m[1]", "z"], units=["km", "m", None])
    np.testing.assert_allclose(as_numeric(table, "x", known), X * [1e-3, 1.0, 1.0])
    np.testing.assert_allclose(as_numeric(table[2], "x", known), X[2] * [1e-3, 1.0, 1.0])


def arrays_in_cells():
    cells = np.empty(4, object)
    cells[:] = [np.ones(3), np.ones(2), np.ones(3), np.ones(1)]
    lists = [cell.tolist() for cell in cells]
    yield {"z": cells, "i": X[:, 1], "r": X[:, 2]}
    for library, make in (
        ("pandas", lambda m: m.DataFrame({"z": cells, "i": X[:, 1], "r": X[:, 2]})),
        ("polars", lambda m: m.DataFrame({"z": lists, "i": X[:, 1], "r": X[:, 2]})),
        ("pyarrow", lambda m: m.table({"z": lists, "i": X[:, 1], "r": X[:, 2]})),
        ("awkward", lambda m: m.Array([{"z": z, "i": i, "r": r} for z, (_, i, r) in zip(lists, X.tolist())])),
    ):
        try:
            module = __import__(library)
        except ImportError:
            continue
        yield make(module)


def test_arrays_in_cells_are_refused_by_the_name_of_their_column():
    for table in arrays_in_cells():
        for call in (lambda t: as_numeric(t, "x", HEADER), lambda t: npflows.MAF(3, 1, (4,)).fit(t, max_epochs=0)):
            with pytest.raises(TypeError, match=r"column 'z' of x must be .* several values in a cell .*; make a column"):
                call(table)
        with pytest.raises(npflows.TableError, match=r"column 'z' of the .* several values in a cell"):
            npflows.read_table(table)


def test_numbers_that_numpy_does_not_have_are_refused_with_their_dtype():
    polars = pytest.importorskip("polars")
    wide = polars.DataFrame({"z": polars.Series([1, 2]).cast(polars.Int128), "i": [1.0, 2.0], "r": [0.0, 1.0]})
    with pytest.raises(TypeError, match="column 'z' of x must be an array of numbers; Series of Int128 can't be made into"):
        as_numeric(wide, "x", HEADER)
