"""HDF5 as real packages write it: masks, chains, packed numbers, frames of pandas, and what lies beside a table."""

import importlib
import os
import warnings

import numpy as np
import pytest

from npflows.cli import main
from npflows.files.tables import TableError, read_table

N = 40
X = np.random.default_rng(0).normal(size=(N, 2))
A, B = X.T
HIDDEN = np.arange(N) % 7 == 3


def package(name):
    """A package that a test needs; missing ones skip it, unless all are to be there."""
    return importlib.import_module(name) if os.environ.get("NPFLOWS_TEST_PACKAGES") else pytest.importorskip(name)


h5py = package("h5py")


def written(path, **datasets):
    """A file of datasets by their names, with an underscore for the dot."""
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def masked_table(table):
    return table.Table({"a": table.MaskedColumn(np.where(HIDDEN, -999.0, A), mask=HIDDEN), "b": B})


@pytest.mark.parametrize("note", [True, False])
@pytest.mark.filterwarnings("ignore")  # of astropy, about what it does not write
def test_masks_of_astropy_are_masks_with_its_note_and_without(note, tmp_path):
    package("yaml")
    made, path = masked_table(package("astropy.table")), tmp_path / "t.h5"
    made.write(path, path="t", serialize_meta=note)
    table = read_table(path)
    assert table.columns == ["a", "b"]
    assert table.left_out == {}
    np.testing.assert_array_equal(table.x, np.column_stack([np.where(HIDDEN, np.nan, A), B]))
    np.testing.assert_array_equal(read_table(path, ["a.mask"]).x[:, 0], HIDDEN)
    fit = ["fit", str(path), "-o", str(tmp_path / "f.npz"), "--columns", "b,a", "--epochs", "1", "--quiet"]
    assert main(fit) == 2
    assert main([*fit, "--missing", "nan", "--hidden", "8", "--layers", "1"]) == 0


def test_a_column_of_truth_values_is_the_mask_of_another_by_its_name_in_every_format(tmp_path):
    values = {"a": np.where(HIDDEN, -999.0, A), "a.mask": HIDDEN, "v": np.column_stack([A, B]), "v.mask": HIDDEN}
    expected = np.column_stack([values["a"], A, B])
    expected[HIDDEN] = np.nan
    path = written(tmp_path / "t.h5", **values)
    np.testing.assert_array_equal(read_table(path, table="/").x, expected)
    with pytest.warns(UserWarning, match=r"left out a \(beside the table\); ask"):
        np.testing.assert_array_equal(read_table(path).x, expected[:, 1:])
    np.testing.assert_array_equal(read_table(path, ["a", "1"]).x, expected[:, [0, 2]])
    table, parquet, arrow = package("astropy.table"), package("pyarrow.parquet"), package("pyarrow")
    package("yaml")
    table.Table(values).write(tmp_path / "t.fits")
    table.Table(values).write(tmp_path / "t.ecsv")
    for suffix in ("fits", "ecsv"):
        np.testing.assert_array_equal(read_table(tmp_path / f"t.{suffix}").x, expected)
    parquet.write_table(arrow.table({"a": values["a"], "a.mask": HIDDEN}), tmp_path / "t.parquet")
    np.testing.assert_array_equal(read_table(tmp_path / "t.parquet").x, expected[:, :1])
    vectors = table.MaskedColumn(X, mask=np.column_stack([HIDDEN, ~HIDDEN]))
    table.Table({"v": vectors}).write(tmp_path / "v.parquet")
    read = read_table(tmp_path / "v.parquet")
    assert read.columns == ["v[0]", "v[1]"]
    np.testing.assert_array_equal(np.isnan(read.x), vectors.mask)


def test_masks_of_numbers_are_columns(tmp_path):
    path = written(tmp_path / "t.h5", a=A, **{"a.mask": HIDDEN.astype(float)})
    assert read_table(path).columns == ["a", "a.mask"]


def test_one_of_several_chains_of_emcee(tmp_path):
    emcee, path, chains = package("emcee"), tmp_path / "c.h5", {}
    for i, name in enumerate(["r1", "r2"]):
        backend = emcee.backends.HDFBackend(path, name=name)
        backend.reset(8, 2)
        sampler = emcee.EnsembleSampler(8, 2, lambda p: -0.5 * (p**2).sum(), backend=backend)
        sampler.run_mcmc(np.random.default_rng(i).normal(size=(8, 2)), 20)
        chains[name] = sampler.get_chain()
    with pytest.raises(TableError, match=r"holds several chains of emcee \(r1, r2\): say which by table="):
        read_table(path)
    for name, chain in chains.items():
        for table in (name, f"/{name}", f"{name}/chain"):
            np.testing.assert_array_equal(read_table(path, table=table).x, chain.reshape(-1, 2))
        np.testing.assert_array_equal(read_table(path, table=name, burn_in=5).x, chain[5:].reshape(-1, 2))
    with pytest.raises(TableError, match="has no table 'r3'"):
        read_table(path, table="r3")


def test_log_densities_beside_a_chain_are_no_table(tmp_path):
    chain, log_prob = np.zeros((50, 8, 2)), np.zeros((50, 8))
    for name in ("chain", "samples", "draws"):
        for others in (
            {},
            {"accepted": np.zeros(8)},
            {"beta": np.zeros(50)},
            {"covariance": np.eye(2)} if name != "draws" else {},
        ):
            path = written(tmp_path / "c.h5", **{name: chain}, log_prob=log_prob, **others)
            with pytest.raises(TableError, match=r"reshape chains \(draw, chain, 2\) to \(-1, 2\)"):
                read_table(path)
    path = written(tmp_path / "d.h5", draws=chain, log_prob=log_prob, covariance=np.eye(2))
    with pytest.raises(TableError, match=r"several tables \(covariance, draws\): say which by table="):
        read_table(path)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_weights_beside_a_matrix_are_offered_whatever_their_shape(shape, tmp_path):
    weights = np.arange(1.0, N + 1)
    path = written(tmp_path / "w.h5", samples=X, weights=weights.reshape(shape))
    with pytest.warns(UserWarning, match=r"left out weights \(beside the table\); pass weights='weights'"):
        np.testing.assert_array_equal(read_table(path).x, X)
    np.testing.assert_array_equal(read_table(path, weights="weights").sample_weight, weights)
    rows = np.rec.fromarrays([A, B], names=["a", "b"])
    path = written(tmp_path / "r.h5", posterior=rows, weights=weights.reshape(shape))
    with pytest.warns(UserWarning, match=r"left out weights \(beside the table\); pass weights='weights'"):
        assert read_table(path).columns == ["a", "b"]
    np.testing.assert_array_equal(read_table(path, weights="weights").sample_weight, weights)


def test_a_matrix_beside_the_table_can_be_its_condition(tmp_path):
    path = written(tmp_path / "t.h5", x=X, theta=X[:, ::-1] + 1)
    with pytest.warns(UserWarning, match=r"left out theta\[0\] \(beside the table\), theta\[1\]"):
        read_table(path)
    table = read_table(path, condition=["theta[0]", "theta[1]"])
    np.testing.assert_array_equal(table.condition, X[:, ::-1] + 1)
    np.testing.assert_array_equal(read_table(path, table="theta").x, X[:, ::-1] + 1)


def test_columns_of_another_length_are_left_out_with_a_warning_or_refused(tmp_path):
    path = written(tmp_path / "t.h5", a=A, b=B, edges=np.zeros(5), image=np.zeros((N, 3, 3)), c=A[:, None], d=B[:, None])
    with pytest.warns(UserWarning, match=r"left out edges \(of 5 rows, and others of 40\), image \(of shape \(40, 3, 3"):
        table = read_table(path)
    assert table.columns == ["a", "b", "c", "d"]
    assert set(table.left_out) == {"edges", "image"}
    assert len(read_table(path, ["edges"])) == 5
    path = written(tmp_path / "u.h5", a=np.zeros(50), c=np.zeros(30))
    with pytest.raises(TableError, match=r"columns differ in length, .*: a \(50,\), c \(30,\)"):
        read_table(path)
    assert len(read_table(path, ["c"])) == 30


def test_a_matrix_has_names_and_units_where_it_says_so(tmp_path):
    path = written(tmp_path / "t.h5", x=X, columns=["a", "b"])
    with h5py.File(path, "r+") as file:
        file["x"].attrs["units"] = "km"
    table = read_table(path)
    assert (table.columns, table.units) == (["a", "b"], ["km", "km"])


def test_links_that_lead_nowhere_and_types_that_numpy_has_not(tmp_path):
    path = written(tmp_path / "t.h5", a=A)
    with h5py.File(path, "r+") as file:
        file["soft"], file["external"] = h5py.SoftLink("/nowhere"), h5py.ExternalLink("nothing.h5", "/a")
        file["kinds"] = h5py.Empty("f8")
        file.create_dataset("color", data=np.arange(N) % 2, dtype=h5py.enum_dtype({"red": 0, "green": 1}, basetype="i8"))
    with pytest.warns(UserWarning, match=r"left out color \(no numbers\)"):
        np.testing.assert_array_equal(read_table(path).x[:, 0], A)
    tables = package("tables")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with tables.open_file(tmp_path / "p.h5", "w") as file:
            file.create_table("/", "cat", {"a": tables.Float64Col(), "t": tables.Time64Col()})
    with pytest.raises(TableError, match="can't be read as HDF5"):
        read_table(tmp_path / "p.h5")


def test_packed_numbers_of_netcdf(tmp_path):
    path = tmp_path / "t.nc"
    with h5py.File(path, "w") as file:
        file["t"] = np.array([1294, 0, -32768, 100], "i2")
        file["t"].attrs.update(scale_factor=np.float32(0.01), add_offset=273.15, units="K", _FillValue=np.int16(-32768))
        file["q"] = np.array([1, 2, 1e20, 50], "f4")
        file["q"].attrs.update(missing_value=np.array([1e300, 1e20]), valid_range=np.array([0, 10], "f4"))
        file["bytes"] = np.array([-1, 1, -2, 3], "i1")
        file["bytes"].attrs.update({"_Unsigned": "true", "_FillValue": np.int8(-2), "valid_max": np.int8(-1)})
        file["level"] = np.array([1, 2, 3, 4], "i2")
        file["level"].attrs.update(scale_factor=np.float32(0.5), valid_min=np.float32(0.75))
    table = read_table(path, ["t", "q", "bytes", "level"])
    assert table.units == ["K", None, None, None]
    nan = np.nan
    expected = [[286.09, 1, 255, nan], [273.15, 2, 1, 1], [nan, nan, nan, 1.5], [274.15, nan, 3, 2]]
    np.testing.assert_allclose(table.x, expected, rtol=1e-7)


def test_units_of_every_make_and_calendars_that_are_not_wanted(tmp_path):
    path = written(tmp_path / "t.h5", a=A, b=B, t=np.arange(N))
    with h5py.File(path, "r+") as file:
        file["a"].attrs["units"], file["b"].attrs["units"] = h5py.Empty("S1"), np.array([b"km"])
        file["t"].attrs.update(units="days since 2000-01-01", calendar="noleap")
    assert read_table(path, ["a", "b"]).units == [None, "km"]
    with pytest.raises(TableError, match="/t holds times of the calendar noleap"):
        read_table(path)


def test_the_count_of_a_dimension_is_no_column(tmp_path):
    xarray, path = package("xarray"), tmp_path / "t.nc"
    package("netCDF4")
    days = np.datetime64("2020-01-01") + np.arange(N) * np.timedelta64(1, "D")
    xarray.Dataset({"a": ("row", A), "b": ("row", B)}, {"row": np.arange(N)}).to_netcdf(path, engine="netcdf4")
    assert read_table(path).columns == ["a", "b"]
    xarray.Dataset({"a": ("t", A)}, {"t": days}).to_netcdf(path, engine="netcdf4")
    table = read_table(path)
    assert (table.columns, table.units) == (["a", "t"], [None, "days since 2020-01-01 00:00:00"])
    np.testing.assert_array_equal(table.x, np.column_stack([A, np.arange(N)]))


@pytest.mark.filterwarnings("ignore:numpy.ndarray size changed")
def test_files_that_netcdf4_writes(tmp_path):
    netcdf, path = package("netCDF4"), tmp_path / "t.nc"
    with netcdf.Dataset(path, "w") as file:
        file.createDimension("row", N)
        file.createVariable("a", "f8", ("row",))[:30] = A[:30]  # the others are never written
        packed = file.createVariable("b", "i2", ("row",), fill_value=-1)
        packed.scale_factor, packed.add_offset = 0.5, 10.0
        packed[:] = np.ma.masked_array(10 + 0.5 * np.arange(N), HIDDEN)
        days = file.createVariable("t", "i4", ("row",))
        days.units = "days since 2000-01-01"
        days[:] = np.arange(N)
    table = read_table(path)
    assert (table.columns, table.units) == (["a", "b", "t"], [None, None, "days since 2000-01-01"])
    rows = np.arange(N)
    expected = np.column_stack([np.where(rows < 30, A, np.nan), np.where(HIDDEN, np.nan, 10 + 0.5 * rows), rows])
    np.testing.assert_array_equal(table.x, expected)


def frame_file(frame, path, layout="table", **options):
    """The file of a data frame."""
    package("tables")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_hdf(path, key="k", mode="w", format=layout, **options)
    return path


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_an_index_of_several_levels_is_an_index(layout, tmp_path):
    pandas = package("pandas")
    for names in (["i", "j"], [None, None]):
        index = pandas.MultiIndex.from_product([range(4), range(10)], names=names)
        table = read_table(frame_file(pandas.DataFrame(X, index, ["a", "b"]), tmp_path / "t.h5", layout))
        assert table.columns == ["a", "b"]
        np.testing.assert_array_equal(table.x, X)


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_columns_of_several_levels_have_the_names_that_pandas_gives_them(layout, tmp_path):
    pandas = package("pandas")
    frame = pandas.DataFrame(X, columns=pandas.MultiIndex.from_tuples([("u", "a"), ("w", "b")]))
    table = read_table(frame_file(frame, tmp_path / "t.h5", layout))
    assert table.columns == read_table(frame).columns == ["('u', 'a')", "('w', 'b')"]
    np.testing.assert_array_equal(table.x, X)


@pytest.mark.parametrize("options", [{}, {"data_columns": True}])
def test_categories_are_what_they_stand_for_and_text_is_no_number(options, tmp_path):
    pandas = package("pandas")
    numbers, text = pandas.Categorical([10.5, None, 20] * 13 + [20]), pandas.Categorical(["x", "y"] * 20)
    frame = pandas.DataFrame({"a": A, "n": numbers, "t": text})
    path = frame_file(frame, tmp_path / "t.h5", **options)
    with pytest.warns(UserWarning, match=r"left out t \(no numbers\)"):
        table = read_table(path)
    assert table.columns == ["a", "n"]
    np.testing.assert_array_equal(table.x[:, 1], frame["n"].astype(float))
    with pytest.raises(TableError, match=r"column 't' .* must be an array of numbers"):
        read_table(path, ["t"])
    path = frame_file(pandas.DataFrame({"a": A, "t": ["x"] * N}), tmp_path / "u.h5", **options)
    with pytest.warns(UserWarning, match=r"left out t \(no numbers\)"):
        assert read_table(path).columns == ["a"]


def test_frames_whose_index_or_columns_are_times(tmp_path):
    pandas = package("pandas")
    times = pandas.date_range("2020-01-01", periods=N, freq="D")
    frame = pandas.DataFrame({"a": A, "t": times.tz_localize("UTC")}, times)
    table = read_table(frame_file(frame, tmp_path / "t.h5"))
    assert (table.columns, table.units) == (["a", "t"], [None, "days since 2020-01-01 UTC"])
    np.testing.assert_array_equal(table.x, np.column_stack([A, np.arange(N)]))


def test_a_part_of_a_frame_is_the_frame(tmp_path):
    pandas = package("pandas")
    path = frame_file(pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), tmp_path / "t.h5", "fixed")
    for table in (None, "k", "k/block0_values"):
        read = read_table(path, table=table)
        assert read.columns == ["a", "b"]
        np.testing.assert_array_equal(read.x, [[1, 3], [2, 4]])


@pytest.mark.filterwarnings("ignore")  # of AnnData
def test_layers_of_anndata_by_their_names(tmp_path):
    anndata, sparse, pandas = package("anndata"), pytest.importorskip("scipy.sparse"), package("pandas")
    cells = anndata.AnnData(X, obs=pandas.DataFrame({"w": A}, index=[f"c{i}" for i in range(N)]))
    cells.var_names = ["g", "h"]
    cells.layers["twice"], cells.layers["sparse"] = 2 * X, sparse.csr_matrix(X)
    cells.raw = anndata.AnnData(sparse.csr_matrix(X))
    cells.write_h5ad(tmp_path / "a.h5ad")
    for table, values in ((None, X), ("X", X), ("layers/twice", 2 * X)):
        read = read_table(tmp_path / "a.h5ad", table=table)
        assert read.columns == ["g", "h"]
        np.testing.assert_array_equal(read.x, values)
    read = read_table(tmp_path / "a.h5ad", table="obs")
    assert read.columns == ["w"]
    for table in ("layers/sparse", "raw/X"):
        with pytest.raises(TableError, match=f"{table} is sparse, and flows take dense tables"):
            read_table(tmp_path / "a.h5ad", table=table)
    with pytest.raises(TableError, match="burn_in is for chains of samplers"):
        read_table(tmp_path / "a.h5ad", burn_in=0.5)
