"""Tables come back from files of every format as they were written, whatever program wrote them."""

import numpy as np
import pytest

from npflows.files.tables import TableError, read_table, write_table

NAMES = ["mass", "radius, km", "age"]
FORMATS = ["csv", "tsv", "txt", "npy", "npz", pytest.param("parquet", marks=pytest.mark.filterwarnings("ignore"))]


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal([3.0, -100.0, 0.001], [1.0, 20.0, 1e-5], (120, 3))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_brings_back_what_was_written(suffix, rows, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"table.{suffix}"
    write_table(path, rows, NAMES)
    read = read_table(path)
    assert read.columns == (None if suffix == "npy" else NAMES)
    np.testing.assert_array_equal(read.x, rows)
    np.testing.assert_array_equal(read_table(path, ["2", "0"]).x, rows[:, [2, 0]])
    write_table(path, rows[:, 0], ["log_prob"])
    if suffix == "npy":
        np.testing.assert_array_equal(np.load(path), rows[:, 0])
    else:
        read = read_table(path)
        assert read.columns == ["log_prob"]
        np.testing.assert_array_equal(read.x[:, 0], rows[:, 0])


def test_arrays_of_every_layout_are_tables(rows, tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, anything=rows, columns=np.array(NAMES))
    assert read_table(path).columns == NAMES
    np.savez(path, x=rows, other=rows.T)
    assert read_table(path).columns is None
    np.savez(path, b=rows[:, 1], a=rows[:, 0])
    read = read_table(path, ["a", "b"])
    np.testing.assert_array_equal(read.x, rows[:, :2])
    structured = np.rec.fromarrays(rows.T, names="a,b,c")
    np.save(tmp_path / "s.npy", structured)
    read = read_table(tmp_path / "s.npy")
    assert read.columns == ["a", "b", "c"]
    np.testing.assert_array_equal(read.x, rows)


def test_csv_as_other_programs_write_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff"a";"b;b" ; c\r\n1;;2e3\r\n\r\n" 3";nan;-inf\r\n'.encode())
    read = read_table(path)
    assert read.columns == ["a", "b;b", "c"]
    np.testing.assert_array_equal(read.x, [[1, np.nan, 2000], [3, np.nan, -np.inf]])
    path.write_text("0,1\n5,6\n")  # pandas without names
    with pytest.warns(UserWarning, match="the first line, 0,1, is taken for the numbers of the columns"):
        np.testing.assert_array_equal(read_table(path).x, [[5, 6]])
    path.write_text(",a\n0,6\n")  # pandas with row numbers
    np.testing.assert_array_equal(read_table(path, ["a"]).x, [[6]])
    with pytest.raises(TableError, match="column 0 has no name"):
        read_table(path)
    path.write_text("a,b\n")
    assert read_table(path).x.shape == (0, 2)
