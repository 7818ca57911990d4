"""Files of real packages, and what is in them beside the values: units, several tables, chains, indices, damage."""

import gzip
import importlib
import json
import os
import types

import numpy as np
import pytest

import npflows
from npflows.files.tables import TableError, read_table, write_table

X = np.random.default_rng(0).normal(size=(40, 3))
NAMES, UNITS = ["ra", "dec", "g"], ["deg", "deg", None]
WRITTEN = {
    "csv": None, "tsv": None, "npy": None, "npz": None, "parquet": "pyarrow", "arrow": "pyarrow", "fits": "astropy",
    "vot": "astropy", "ecsv": "yaml", "h5": "h5py", "root": "uproot",
}  # fmt: skip


def package(name):
    """A package that a test needs; missing ones skip it, unless all are to be there."""
    return importlib.import_module(name) if os.environ.get("NPFLOWS_TEST_PACKAGES") else pytest.importorskip(name)


def written(suffix, path):
    """A file of a format, or a skipped test where its package is missing."""
    if WRITTEN[suffix] is not None:
        package(WRITTEN[suffix])
        if suffix == "ecsv":
            package("astropy")
    write_table(path, X, NAMES, UNITS)
    return path


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_is_written_comes_back_with_names_and_units(suffix, tmp_path):
    read = read_table(written(suffix, tmp_path / f"t.{suffix}"))
    np.testing.assert_array_equal(read.x, X)
    assert read.columns == (None if suffix == "npy" else NAMES)
    assert read.units == (UNITS if suffix in ("npz", "parquet", "arrow", "fits", "vot", "ecsv", "h5") else None)
    read = read_table(tmp_path / f"t.{suffix}", ["2"], condition=["0"], where=None if suffix == "npy" else "dec > 0")
    kept = np.ones(40, bool) if suffix == "npy" else X[:, 1] > 0
    np.testing.assert_array_equal(np.column_stack([read.x, read.condition]), X[kept][:, [2, 0]])


def test_fcs_holds_what_float32_holds(tmp_path):
    package("flowio")
    write_table(tmp_path / "t.fcs", X, NAMES)
    read = read_table(tmp_path / "t.fcs")
    np.testing.assert_array_equal(read.x, X.astype(np.float32))
    assert read.columns == NAMES
    for wrong in (1e300, np.nan):
        with pytest.raises(TableError, match="FCS holds finite numbers of float32 alone"):
            write_table(tmp_path / "u.fcs", np.full((2, 3), wrong), NAMES)
    assert not (tmp_path / "u.fcs").exists()


@pytest.mark.parametrize("suffix", [suffix for suffix in WRITTEN if suffix not in ("csv", "tsv")])
def test_a_damaged_file_is_refused_with_what_it_looks_like(suffix, tmp_path):
    path = written(suffix, tmp_path / f"t.{suffix}")
    whole = path.read_bytes()
    for share in (0.5, 0.3):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(TableError, match=r"can't be read|not a complete|has no table, only images"):
            read_table(path)
    path.write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 3000, np.uint8)))
    with pytest.raises(TableError, match=r"can't be read: it (is no|begins like no)"):
        read_table(path)
    path.write_text("a,b\n1,2\n")
    if suffix not in ("vot", "ecsv"):
        with pytest.raises(TableError, match=r"is text, and no .* file, which its name says"):
            read_table(path)


@pytest.mark.parametrize(("start", "what"), [(b"\x80\x04abc", "a pickle"), (b"\x89PNG\r\n", "a picture"),
                                             (b"SQLite format 3\0", "an SQLite database")])  # fmt: skip
def test_files_of_other_kinds_are_named(start, what, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(start)
    with pytest.raises(TableError, match=f"looks like {what}, which is no format of tables here"):
        read_table(path)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    marks = {
        "pyarrow": b"PAR1",
        "astropy": b"SIMPLE  =",
        "h5py": b"\x89HDF\r\n\x1a\n",
        "uproot": b"root",
        "flowio": b"FCS3.1",
    }
    for missing, mark in marks.items():
        for name in (missing, f"{missing}.io.fits", f"{missing}.parquet"):
            monkeypatch.setitem(__import__("sys").modules, name, None)
        path = tmp_path / "t.bin"
        path.write_bytes(mark + b" " * 100)
        with pytest.raises(ImportError, match=f"needs {missing}: pip install {missing}"):
            read_table(path)


def test_an_npz_with_a_table_and_weights(tmp_path):
    path = tmp_path / "r.npz"
    weights = np.arange(40.0)
    np.savez(path, samples=X, weights=weights, info=np.array([{"a": 1}], object), other=np.zeros(3))
    with pytest.warns(UserWarning, match=r"left out weights \(beside the table\); pass weights='weights' \(--w"):
        assert read_table(path).sample_weight is None
    read = read_table(path, weights="weights")
    np.testing.assert_array_equal(read.x, X)
    np.testing.assert_array_equal(read.sample_weight, weights)
    np.savez(path, samples=X, logw=np.log(weights + 1))
    np.testing.assert_array_equal(read_table(path, log_weights="logw").log_weight, np.log(weights + 1))
    with pytest.raises(TableError, match="give weights or log_weights, not both"):
        read_table(path, weights="logw", log_weights="logw")
    np.savez(path, chain=np.zeros((5, 4, 3)))
    with pytest.raises(TableError, match=r"reshape chains \(draw, chain, 3\) to \(-1, 3\)"):
        read_table(path)


def test_null_values_of_fits_are_those_before_the_scale(tmp_path):
    fits = package("astropy.io.fits")
    path = tmp_path / "t.fits"
    column = fits.Column("s", "I", null=-99, array=np.array([1, 2, -99], np.int16))
    fits.BinTableHDU.from_columns([column]).writeto(path)
    raw = path.read_bytes()
    end = raw.index(b"END" + b" " * 77, 2880)
    cards = b"TSCAL1  =                  0.5".ljust(80) + b"TZERO1  =                 10.0".ljust(80) + b"END".ljust(80)
    path.write_bytes(raw[:end] + cards + raw[end + len(cards) :])
    np.testing.assert_array_equal(read_table(path).x[:, 0], [10.5, 11, np.nan])


def test_a_fits_table_whose_rows_are_cut_off_is_refused(tmp_path):
    package("astropy")
    path = tmp_path / "t.fits"
    write_table(path, np.tile(X, (100, 1)), NAMES)
    path.write_bytes(path.read_bytes()[:50000])
    with pytest.raises(TableError, match="4000 rows in a file of 50,000 bytes"):
        read_table(path)


def test_one_table_of_several(tmp_path):
    fits, uproot, h5py = package("astropy.io.fits"), package("uproot"), package("h5py")
    hdus = [fits.BinTableHDU.from_columns([fits.Column("a", "D", array=X[:, i])], name=f"T{i}") for i in (0, 1)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "t.fits")
    with pytest.warns(UserWarning, match=r"several tables \(T0, T1\), and the first is taken; say which by table="):
        np.testing.assert_array_equal(read_table(tmp_path / "t.fits").x[:, 0], X[:, 0])
    np.testing.assert_array_equal(read_table(tmp_path / "t.fits", table="T1").x[:, 0], X[:, 1])
    with pytest.raises(TableError, match="has no table 'T2'; did you mean 'T"):
        read_table(tmp_path / "t.fits", table="T2")
    with uproot.recreate(tmp_path / "t.root") as file:
        for i in (0, 1):
            file.mktree(f"t{i}", {"a": "float64"})
            file[f"t{i}"].extend({"a": X[:, i]})
    with pytest.raises(TableError, match=r"several trees \(t0, t1\): say which by table="):
        read_table(tmp_path / "t.root")
    np.testing.assert_array_equal(read_table(tmp_path / "t.root", table="t1").x[:, 0], X[:, 1])
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["one"], file["two"] = X, X[:, :2]
    with pytest.raises(TableError, match=r"several tables \(one, two\): say which by table="):
        read_table(tmp_path / "t.h5")
    np.testing.assert_array_equal(read_table(tmp_path / "t.h5", table="two").x, X[:, :2])


def test_parquet_keeps_the_index_of_pandas_out_and_the_masks_of_astropy_in(tmp_path):
    pandas, table = package("pandas"), package("astropy.table")
    package("pyarrow")
    numbers = pandas.Index(np.random.default_rng(0).permutation(40), name="object")  # no range, which needs no column
    pandas.DataFrame(X, numbers, NAMES).to_parquet(tmp_path / "p.parquet")
    with pytest.warns(UserWarning, match="left out object, the index of the data frame that the file was written from"):
        assert read_table(tmp_path / "p.parquet").columns == NAMES
    masked = table.Table({"g": table.MaskedColumn([20.0, -999.0], mask=[False, True], unit="mag"), "z": [0.1, 0.2]})
    masked.write(tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet")
    assert (read.columns, read.units) == (["g", "z"], ["mag", None])
    np.testing.assert_array_equal(read.x, [[20, 0.1], [np.nan, 0.2]])


def test_columns_of_several_values_are_taken_one_by_one(tmp_path):
    table = package("astropy.table")
    table.Table({"v": X, "z": X[:, 0]}).write(tmp_path / "t.fits")
    read = read_table(tmp_path / "t.fits")
    assert read.columns == ["v[0]", "v[1]", "v[2]", "z"]
    np.testing.assert_array_equal(read_table(tmp_path / "t.fits", ["z", "v[1]"]).x, X[:, [0, 1]])


def test_what_pandas_keeps_in_hdf5_is_read_without_running_what_it_pickles(tmp_path):
    pandas, h5py = package("pandas"), package("h5py")
    package("tables")
    frame = pandas.DataFrame(X, columns=NAMES).assign(n=np.arange(40) % 5, name="a")
    for layout in ("fixed", "table"):
        path = tmp_path / f"{layout}.h5"
        frame.to_hdf(path, key="frame", format=layout)
        with pytest.warns(UserWarning, match="left out .*name"):
            read = read_table(path)
        order = [read.columns.index(name) for name in NAMES]
        np.testing.assert_array_equal(read.x[:, order], X)
    with h5py.File(tmp_path / "table.h5", "r+") as file:
        file["frame/table"].attrs["values_block_0_kind"] = np.bytes_(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(TableError, match=r"names of columns can't be read \(.*system is no list of names"):
        read_table(tmp_path / "table.h5")


@pytest.mark.filterwarnings("ignore")  # of AnnData, about pandas
def test_sparse_and_jagged_columns_are_refused_with_what_to_do(tmp_path):
    anndata, uproot, awkward = package("anndata"), package("uproot"), package("awkward")
    sparse = pytest.importorskip("scipy.sparse")
    cells = anndata.AnnData(X.astype(np.float32))
    cells.var_names = NAMES
    cells.write_h5ad(tmp_path / "a.h5ad")
    for source in (tmp_path / "a.h5ad", cells):
        read = read_table(source)
        assert read.columns == NAMES
        np.testing.assert_array_equal(read.x, X.astype(np.float32))
    anndata.AnnData(sparse.csr_matrix(X)).write_h5ad(tmp_path / "s.h5ad")
    with pytest.raises(TableError, match="X is sparse, and flows take dense tables"):
        read_table(tmp_path / "s.h5ad")
    with uproot.recreate(tmp_path / "j.root") as file:
        file.mktree("t", {"a": "float64", "jets": "var * float64"})
        file["t"].extend({"a": X[:, 0], "jets": awkward.Array([[1.0] * (i % 3) for i in range(40)])})
    with pytest.raises(TableError, match="branch jets"):
        read_table(tmp_path / "j.root")
    np.testing.assert_array_equal(read_table(tmp_path / "j.root", ["a"]).x[:, 0], X[:, 0])


def test_chains_of_emcee_leave_out_what_was_not_run_and_the_burn_in(tmp_path):
    emcee = package("emcee")
    package("h5py")
    backend = emcee.backends.HDFBackend(tmp_path / "c.h5")
    backend.reset(8, 2)
    sampler = emcee.EnsembleSampler(8, 2, lambda p: -0.5 * (p**2).sum(), backend=backend)
    sampler.run_mcmc(np.random.default_rng(0).normal(size=(8, 2)), 20)
    for given in (tmp_path / "c.h5", sampler):
        np.testing.assert_array_equal(read_table(given, burn_in=5).x, sampler.get_chain(discard=5, flat=True))
        np.testing.assert_array_equal(read_table(given, burn_in=0.5).x, sampler.get_chain(discard=10, flat=True))


def test_a_result_of_bilby_gives_the_parameters_that_were_searched(tmp_path):
    content = {"mass": X[:, 0].tolist(), "spin": {"__array__": True, "content": X[:, 1].tolist()},
               "log_likelihood": X[:, 2].tolist(), "name": ["a"] * 40}  # fmt: skip
    about = {"posterior": {"__dataframe__": True, "content": content}, "search_parameter_keys": ["mass", "spin"]}
    for path, write in ((tmp_path / "r.json", bytes), (tmp_path / "r.json.gz", gzip.compress)):
        path.write_bytes(write(json.dumps(about).encode()))
        with pytest.warns(UserWarning, match="left out log_likelihood"):
            read = read_table(path)
        assert read.columns == ["mass", "spin"]
        np.testing.assert_array_equal(read.x, X[:, :2])


def test_results_of_samplers_in_memory_come_with_their_weights():
    log_weight = np.linspace(-1, 0, 40)
    dynesty = types.SimpleNamespace(samples=X, logwt=log_weight - 3, logz=np.array([-4.0, -3.0]))
    np.testing.assert_allclose(read_table(dynesty).log_weight, log_weight)
    ultranest = {"weighted_samples": {"points": X, "weights": np.exp(log_weight)}, "paramnames": NAMES}
    read = read_table(ultranest)
    assert read.columns == NAMES
    np.testing.assert_array_equal(read.sample_weight, np.exp(log_weight))
    flow = npflows.MAF(3, 1, (8,), rng=0).fit(read, max_epochs=0, rng=0)
    assert flow.effective_rows < 35


def test_frames_are_read_as_files_are():
    table = {"a": X[:, 0], "b": np.arange(40), "w": np.ones(40)}
    read = read_table(table, weights="w", where="a > 0", condition=["b"])
    np.testing.assert_array_equal(
        np.column_stack([read.x, read.condition]), np.column_stack([X[:, 0], np.arange(40)])[X[:, 0] > 0]
    )
    with pytest.raises(TableError, match="burn_in is for chains of samplers, and a dict has no steps"):
        read_table(table, burn_in=0.5)
