"""Tables in several Parquet or Arrow files: columns by their names, in one unit, and what names of folders say."""

import importlib
import os

import numpy as np
import pytest

import npflows
from npflows import TableError, read_table, stream_table
from npflows.files.tables import Parts
from npflows.files.tables.shards import read_shard


def package(name):
    """A package that a test needs; missing ones skip it, unless all are to be there."""
    return importlib.import_module(name) if os.environ.get("NPFLOWS_TEST_PACKAGES") else pytest.importorskip(name)


pyarrow = package("pyarrow")
parquet = package("pyarrow.parquet")
A = np.arange(1.0, 13.0)
B = A + 100.0
T = np.datetime64("2020-01-01", "s") + np.arange(12) * np.timedelta64(1, "D")


def frame(units=None, **columns):
    arrays = {name: pyarrow.array(values) for name, values in columns.items()}
    fields = [
        pyarrow.field(name, array.type, metadata={"unit": units[name]} if name in (units or {}) else None)
        for name, array in arrays.items()
    ]
    return pyarrow.table(list(arrays.values()), schema=pyarrow.schema(fields))


def write(path, table, suffix="parquet"):
    path.parent.mkdir(exist_ok=True, parents=True)
    if suffix == "parquet":
        parquet.write_table(table, path, row_group_size=5)
        return
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, 5)


@pytest.fixture(params=["parquet", "arrow"])
def folder(request, tmp_path):
    """Writes tables as the files of a folder."""

    def of(*tables):
        for i, table in enumerate(tables):
            write(tmp_path / "t" / f"{i}.{request.param}", table, request.param)
        return tmp_path / "t"

    return of


def read_all_ways(path, columns=None, **parts):
    """A table as each way of reading several files gives it."""
    return [
        read_table(path, columns, **parts),
        stream_table(path, columns, **parts).table(),
        read_shard(f"{path}/*", 0, 1, Parts(columns, **parts)),
    ]


def refused_all_ways(path, message, **parts):
    for read in (
        lambda: read_table(path, **parts),
        lambda: stream_table(path, **parts).table(),
        lambda: read_shard(f"{path}/*", 0, 1, Parts(**parts)),
    ):
        with pytest.raises(TableError, match=message):
            read()


def test_columns_are_found_by_their_names(folder):
    path = folder(frame(a=A, b=B), frame(b=B, a=A))
    for table in read_all_ways(path):
        assert table.columns == ["a", "b"]
        np.testing.assert_array_equal(table.x, np.tile(np.column_stack([A, B]), (2, 1)))
    flow = npflows.MAF(2, 1, (8,), rng=0)
    flow.fit(stream_table(path), max_epochs=0, progress=False)
    np.testing.assert_allclose(flow.standardize.loc, [A.mean(), B.mean()], atol=1)


def test_units_of_later_files_are_converted(folder):
    package("astropy")
    path = folder(frame({"a": "km"}, a=A, b=B), frame({"a": "m"}, b=B, a=1000 * A))
    for table in read_all_ways(path):
        assert table.units == ["km", None]
        np.testing.assert_allclose(table.x[:, 0], np.tile(A, 2), rtol=1e-15)
    for table in read_all_ways(path, ["b"], where="a > 6"):
        np.testing.assert_array_equal(table.x[:, 0], np.tile(B[A > 6], 2))


def test_units_that_do_not_convert_are_refused_where_they_are_asked_for(folder):
    package("astropy")
    path = folder(frame({"a": "km"}, a=A, b=B), frame({"a": "s"}, a=A, b=B))
    refused_all_ways(path, r"column 'a' of .*1\.(parquet|arrow) holds numbers in s, and numbers in km in other parts")
    for table in read_all_ways(path, ["b"]):
        np.testing.assert_array_equal(table.x[:, 0], np.tile(B, 2))


def test_a_unit_that_one_file_lacks_is_refused(folder):
    path = folder(frame({"a": "km"}, a=A), frame(a=A))
    refused_all_ways(path, r"holds numbers without a unit, and numbers in km in other parts of the table: write all parts")


@pytest.mark.parametrize("more", [0, 1])
def test_a_column_that_one_file_lacks_is_refused_unless_others_are_asked_for(folder, more):
    tables = [frame(a=A, b=B), frame(a=A, b=B, c=A)]
    path = folder(*(tables if more else tables[::-1]))
    refused_all_ways(
        path, rf"{1 - more}\.(parquet|arrow) has no column 'c', which other parts of .* have: name those that all"
    )
    for table in read_all_ways(path, ["b", "a"]):
        np.testing.assert_array_equal(table.x, np.tile(np.column_stack([B, A]), (2, 1)))


def test_types_may_differ(folder):
    empty = frame(a=pyarrow.array([], pyarrow.string()), z=pyarrow.array([], pyarrow.int8()))
    path = folder(frame(a=np.arange(12), b=B), frame(b=B.astype("f4"), a=A / 8), frame(a=[1, None], b=[None, None]), empty)
    expected = np.column_stack([[*range(12), *A / 8, 1, np.nan], [*B, *B, np.nan, np.nan]])
    np.testing.assert_array_equal(read_table(path).x, expected)
    np.testing.assert_array_equal(stream_table(path).table().x, expected)


def test_times_count_from_the_first_day_of_all(folder):
    path = folder(frame(t=T, b=B), frame(b=B, t=(T + np.timedelta64(12, "D")).astype("M8[ns]")))
    for table in read_all_ways(path):
        assert table.units == ["days since 2020-01-01", None]
        np.testing.assert_array_equal(table.x[:, 0], np.arange(24.0))
    for table in read_all_ways(path, where="t >= '2020-01-10'"):
        np.testing.assert_array_equal(table.x[:, 0], np.arange(9.0, 24.0))


def test_times_and_what_is_none_do_not_mix(folder):
    path = folder(frame(t=T), frame(t=A))
    refused_all_ways(path, "holds instants, durations or numbers|holds numbers without a unit, and times in other parts")


def test_a_time_zone_in_some_files_alone_is_refused(folder):
    path = folder(frame(t=T), frame(t=pyarrow.array(T, pyarrow.timestamp("s", "UTC"))))
    refused_all_ways(path, "has times with a time zone in some parts of the table alone")


@pytest.fixture
def partitioned(tmp_path):
    """What Arrow and Spark write by the values of columns."""
    dataset = package("pyarrow.dataset")
    table = frame(a=A, year=np.repeat([2019, 2020], 6), survey=np.tile(["a b", "c"], 6))
    dataset.write_dataset(table, tmp_path / "p", format="parquet", partitioning=["year", "survey"],
                          partitioning_flavor="hive")  # fmt: skip
    return tmp_path / "p"


def test_what_names_of_folders_say_is_a_column_that_can_be_asked_for(partitioned):
    for read in (read_table, lambda *a, **k: stream_table(*a, **k).table()):
        with pytest.warns(
            UserWarning, match=r"left out year \(what the names of the folders say\), survey .*; ask for them"
        ):
            table = read(partitioned)
        assert table.columns == ["a"]
        assert list(table.left_out) == ["year", "survey"]
        table = read(partitioned, ["a"], condition=["year"], where="year >= 2020")
        np.testing.assert_array_equal(np.sort(table.x[:, 0]), A[6:])
        np.testing.assert_array_equal(table.condition, np.full((6, 1), 2020))
        np.testing.assert_array_equal(np.sort(read(partitioned, ["year", "a"]).x[:, 0]), np.repeat([2019, 2020], 6))
        with pytest.raises(TableError, match=r"column 'survey' of .* holds text \('a b'\)"):
            read(partitioned, ["a", "survey"])


def test_names_of_folders_may_be_dates_fractions_or_null(tmp_path):
    for i, names in enumerate(("day=2020-01-02/z=0.5", "day=2020-01-05/z=__HIVE_DEFAULT_PARTITION__")):
        write(tmp_path / "p" / names / "x.parquet", frame(a=A + i))
    table = read_table(tmp_path / "p", ["a", "day", "z"])
    assert table.units == [None, "days since 2020-01-02", None]
    np.testing.assert_array_equal(table.x[:, 1:], np.repeat([[0, 0.5], [3, np.nan]], 12, axis=0))


def test_columns_of_files_come_before_what_names_of_folders_say(tmp_path):
    write(tmp_path / "p" / "a=7" / "x.parquet", frame(a=A))
    np.testing.assert_array_equal(read_table(tmp_path / "p").x[:, 0], A)


def test_unfinished_files_are_passed_over(tmp_path):
    for name in ("x.parquet", "_temporary/0/x.parquet", ".x.parquet"):
        write(tmp_path / "p" / name, frame(a=A))
    (tmp_path / "p" / "y.parquet").mkdir()
    for read in (read_table, stream_table):
        with pytest.warns(UserWarning, match=r"left out \.x\.parquet, _temporary/0/x\.parquet, as names that begin with"):
            assert len(read(tmp_path / "p")) == 12


def test_a_folder_of_two_formats_is_refused(tmp_path):
    write(tmp_path / "p" / "x.parquet", frame(a=A))
    write(tmp_path / "p" / "x.arrow", frame(a=A), "arrow")
    for read in (read_table, stream_table):
        with pytest.raises(TableError, match="holds both Parquet and Arrow files: keep those of one table"):
            read(tmp_path / "p")


def test_tensors_are_columns_and_lists_are_refused(folder):
    nested = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.arange(48.0)), 4)
    tensor = pyarrow.ExtensionArray.from_storage(pyarrow.fixed_shape_tensor(pyarrow.float64(), [2, 2]), nested)
    deep = pyarrow.FixedSizeListArray.from_arrays(pyarrow.FixedSizeListArray.from_arrays(np.arange(48.0), 2), 2)
    lists = pyarrow.array([[1.0, 2.0]] * 12)
    path = folder(frame(tensor=tensor, deep=deep, lists=lists))
    table = read_table(path, [f"{name}[{i}]" for name in ("tensor", "deep") for i in range(4)])
    np.testing.assert_array_equal(table.x, np.tile(np.arange(48.0).reshape(12, 4), 2))
    with pytest.raises(TableError, match=r"column 'lists' of .* holds several values in a cell .* leave the column out"):
        read_table(path)


def test_a_name_that_two_columns_have_is_refused(folder):
    table = pyarrow.table([pyarrow.array(A), pyarrow.array(B), pyarrow.array(B)], names=["a", "a", "b"])
    for path in (folder(table), folder(table, table)):
        np.testing.assert_array_equal(read_table(path, ["b"]).x[:12, 0], B)
        with pytest.raises(TableError, match="more than one column named 'a'"):
            read_table(path, [1])


def test_a_stream_of_arrow_is_one_piece(tmp_path):
    table = frame(a=A)
    with pyarrow.OSFile(str(tmp_path / "s.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, 5)
    stream = stream_table(tmp_path / "s.arrow")
    assert stream.sizes == [12]
    np.testing.assert_array_equal(stream.table().x[:, 0], A)
