"""FITS and ROOT as real packages write them: compressed files, null values, columns of several values."""

import bz2
import gzip
import importlib
import lzma
import os

import numpy as np
import pytest

from npflows.files.tables import TableError, read_table, write_table

N = 40
X = np.random.default_rng(0).normal(size=(N, 2))
HIDDEN = np.arange(N) % 7 == 3


def package(name):
    """A package that a test needs; missing ones skip it, unless all are to be there."""
    return importlib.import_module(name) if os.environ.get("NPFLOWS_TEST_PACKAGES") else pytest.importorskip(name)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_fits_is_read_compressed_or_not(compress, tmp_path):
    package("astropy")
    write_table(tmp_path / "t.fits", X, ["a", "b"], ["km", None])
    path = tmp_path / "t.fits.gz"
    path.write_bytes(compress((tmp_path / "t.fits").read_bytes()))
    table = read_table(path)
    assert (table.columns, table.units) == (["a", "b"], ["km", None])
    np.testing.assert_array_equal(table.x, X)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TableError, match="can't be read"):
        read_table(path)


def test_a_damaged_byte_in_compressed_fits_is_seen(tmp_path):
    package("astropy")
    write_table(tmp_path / "t.fits", np.tile(X, (100, 1)), ["a", "b"])
    whole = bytearray(gzip.compress((tmp_path / "t.fits").read_bytes(), 0))
    whole[len(whole) // 2] ^= 1
    (tmp_path / "t.fits.gz").write_bytes(whole)
    with pytest.raises(TableError, match="CRC check failed"):
        read_table(tmp_path / "t.fits.gz")


def test_other_formats_are_to_be_unpacked_first(tmp_path):
    np.save(tmp_path / "t.npy", X)
    (tmp_path / "t.npy.gz").write_bytes(gzip.compress((tmp_path / "t.npy").read_bytes()))
    with pytest.raises(TableError, match=r"is a compressed npy file, which can't be read as it is: unpack it first"):
        read_table(tmp_path / "t.npy.gz")


def test_null_fields_of_ascii_tables(tmp_path):
    fits, path = package("astropy.io.fits"), tmp_path / "t.fits"
    columns = [fits.Column("a", "I6", null="---", array=np.arange(1, 5)), fits.Column("b", "F8.3", array=np.ones(4))]
    fits.TableHDU.from_columns(columns).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"     2   1.000", b"   ---   1.000"))
    np.testing.assert_array_equal(read_table(path).x, [[1, 1], [np.nan, 1], [3, 1], [4, 1]])


def test_null_values_without_a_sign_and_truth_values(tmp_path):
    fits, table, path = package("astropy.io.fits"), package("astropy.table"), tmp_path / "t.fits"
    column = table.MaskedColumn(np.arange(N, dtype="u2"), mask=HIDDEN)
    table.Table({"u": column}).write(path)
    np.testing.assert_array_equal(read_table(path).x[:, 0], np.where(HIDDEN, np.nan, np.arange(N)))
    made = fits.BinTableHDU.from_columns([fits.Column("f", "L", array=np.arange(N) % 2 == 0)])
    made.writeto(path, overwrite=True)
    raw = bytearray(path.read_bytes())
    raw[5760] = 0  # neither T nor F (FITS 4.0, section 7.3.3.1)
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_table(path).x[:3, 0], [np.nan, 0, 1])


def test_bits_are_taken_one_by_one(tmp_path):
    fits, path = package("astropy.io.fits"), tmp_path / "t.fits"
    bits = np.random.default_rng(0).integers(0, 2, (N, 11)).astype(bool)
    fits.BinTableHDU.from_columns([fits.Column("b", "11X", array=bits)]).writeto(path)
    table = read_table(path)
    assert table.columns == [f"b[{i}]" for i in range(11)]
    np.testing.assert_array_equal(table.x, bits)


def test_a_table_by_its_number(tmp_path):
    fits, path = package("astropy.io.fits"), tmp_path / "t.fits"
    hdus = [fits.BinTableHDU.from_columns([fits.Column("a", "D", array=X[:, i])], name="T", ver=i + 1) for i in (0, 1)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    for i in (1, 2):
        for given in (i, str(i), np.int64(i)):
            np.testing.assert_array_equal(read_table(path, table=given).x[:, 0], X[:, i - 1])
    with pytest.raises(TableError, match="has no table '7'; there are T, T"):
        read_table(path, table=7)
    with pytest.raises(TableError, match="has several tables 'T': say which by its number, 1 or 2"):
        read_table(path, table="T")


def test_fields_of_several_values_in_root(tmp_path):
    uproot, deep = package("uproot"), np.random.default_rng(0).normal(size=(N, 2, 3))
    package("awkward")
    with uproot.recreate(tmp_path / "tree.root") as file:
        file.mktree("t", {"a": "float64", "v": ("float64", (2,)), "w": ("float64", (2, 3))})
        file["t"].extend({"a": X[:, 0], "v": X, "w": deep})
    with uproot.recreate(tmp_path / "ntuple.root") as file:
        if not hasattr(file, "mkrntuple"):
            pytest.skip("this uproot writes no RNTuple")
        file.mkrntuple("t", {"a": X[:, 0], "v": X, "w": deep})
    for name in ("tree", "ntuple"):
        table = read_table(tmp_path / f"{name}.root")
        assert table.columns == ["a", "v[0]", "v[1]", *(f"w[{i}]" for i in range(6))]
        np.testing.assert_array_equal(table.x, np.column_stack([X[:, :1], X, deep.reshape(N, 6)]))
        np.testing.assert_array_equal(read_table(tmp_path / f"{name}.root", ["a", "v[1]"]).x, X)
