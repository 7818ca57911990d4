"""Every format, with every kind of column that it can hold, through every door: right, or refused with a sentence.

The files are made by the packages of their formats, which are not installed everywhere; where one is missing, nothing is
tried, unless NPFLOWS_TEST_PACKAGES says that all are to be there.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows.cli import main
from npflows.core.frames import names_of
from npflows.files.tables import read_table

PACKAGES = ("astropy", "yaml", "h5py", "pyarrow", "pandas", "polars", "uproot", "awkward", "flowio", "tables", "sklearn")
for package in PACKAGES:
    if os.environ.get("NPFLOWS_TEST_PACKAGES"):
        __import__(package)
    else:
        pytest.importorskip(package)

import astropy.units as u  # noqa: E402
import flowio  # noqa: E402
import h5py  # noqa: E402
import pandas  # noqa: E402
import polars  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.feather  # noqa: E402
import tables  # noqa: E402
import uproot  # noqa: E402
from astropy.table import MaskedColumn, QTable, Table  # noqa: E402
from astropy.time import Time  # noqa: E402

from npflows.sklearn import FlowDensity  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the packages, as they write
]

N, MARK = 60, 99.99
A = np.random.default_rng(0).normal(10, 2, N)
B = np.random.default_rng(1).normal(-3, 1, N)
HIDDEN = np.arange(N) % 7 == 3
TIMES = np.datetime64("2020-01-01", "us") + np.arange(N) * np.timedelta64(3600_000_000, "us")
DAYS = np.arange(N) / 24
KINDS = (
    "plain", "reordered", "integers", "float32", "big-endian", "masks", "null integers", "marks", "units", "times", "UTC",
)  # fmt: skip
"""What columns hold: nothing special; those of a fitted flow in another order; ...; instants, with no time zone or one."""
CLOCKS = ("times", "UTC")


def columns(kind):
    """Columns a and b as plain arrays; masked values are -999."""
    a, b = A.copy(), B.copy()
    if kind == "integers":
        b = np.rint(10 * B).astype(np.int32)
    elif kind == "null integers":
        b = np.where(HIDDEN, -999, np.rint(10 * B)).astype(np.int64)
    elif kind == "float32":
        a, b = a.astype(np.float32), b.astype(np.float32)
    elif kind == "big-endian":
        a, b = a.astype(">f8"), b.astype(">f4")
    elif kind == "masks":
        b = np.where(HIDDEN, -999.0, b)
    elif kind == "marks":
        b = np.where(HIDDEN, MARK, b).astype(np.float32)
    elif kind in CLOCKS:
        b = TIMES
    return {"b": b, "a": a} if kind == "reordered" else {"a": a, "b": b}


HOLES = ("masks", "null integers")


def arrays(kind):
    return None if kind in (*HOLES, "units", "UTC") else columns(kind)


def pandas_frame(kind):
    if kind in ("units", "big-endian"):
        return None
    frame = pandas.DataFrame(columns(kind))
    if kind == "UTC":
        frame["b"] = frame["b"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    if kind in HOLES:
        frame["b"] = frame["b"].astype("Float64" if kind == "masks" else "Int64").mask(HIDDEN)
    return frame


def polars_frame(kind):
    frame = pandas_frame(kind)
    return None if frame is None else polars.from_pandas(frame)


def arrow_table(kind):
    frame = polars_frame(kind)
    if kind == "units":
        fields = [pyarrow.field("a", pyarrow.float64(), metadata={"unit": "m"}), pyarrow.field("b", pyarrow.float64())]
        return pyarrow.table(columns(kind), schema=pyarrow.schema(fields))
    return None if frame is None else frame.to_arrow()


def astropy_table(kind, make=Table):
    table = make(columns(kind))
    if kind in HOLES:
        table["b"] = MaskedColumn(table["b"], mask=HIDDEN)
    elif kind == "units":
        table["a"] = table["a"] * u.m
    elif kind in CLOCKS:
        table["b"] = Time(TIMES, scale="utc" if kind == "UTC" else "local")
    return table


def written(make, write):
    """A function that writes a kind of columns to a path, and says whether it can."""

    def to(kind, path):
        table = make(kind)
        if table is None:
            return False
        return write(table, path, kind) is not False

    return to


def to_npz(table, path, kind):
    np.savez(path, **table)


def to_npy(table, path, kind):
    np.save(path, np.rec.fromarrays(list(table.values()), names=list(table)))


def to_text(table, path, kind):
    if kind == "times":
        return False
    np.savetxt(path, np.column_stack(list(table.values())), header=" ".join(table), fmt="%.18e")
    return True


def to_groups(table, path, kind):
    with h5py.File(path, "w") as file:
        for name, values in table.items():
            file[name] = DAYS if kind == "times" and name == "b" else values
        if kind == "times":  # as netCDF has them
            file["b"].attrs["units"] = "days since 2020-01-01 00:00:00"
    return True


def to_bare_hdf5(table, path, kind):
    if kind in (*CLOCKS, "units"):  # which are in the note alone
        return False
    table.write(path, path="t")
    return True


def to_pytables(table, path, kind):
    if kind == "times":
        return False
    with tables.open_file(path, "w") as file:
        dtype = [(name, values.dtype) for name, values in table.items()]
        rows = np.empty(N, dtype)
        for name, values in table.items():
            rows[name] = values
        file.create_table("/", "catalog", rows)
    return True


def to_pandas_hdf(layout):
    def write(table, path, kind):
        if kind in HOLES:
            table["b"] = table["b"].astype("float64")  # the only kind of missing value that HDF5 of pandas has
        table.to_hdf(path, key="frame", format=layout)

    return write


def to_root(table, path, kind):
    if kind == "times":
        return False
    with uproot.recreate(path) as file:
        file.mktree("events", {name: values.dtype.newbyteorder("=") for name, values in table.items()})
        file["events"].extend({name: values.astype(values.dtype.newbyteorder("=")) for name, values in table.items()})
    return True


def to_fcs(table, path, kind):
    if kind == "times":
        return False
    with open(path, "wb") as file:
        flowio.create_fcs(file, np.column_stack(list(table.values())).astype(np.float32).ravel().tolist(), list(table))
    return True


def to_votable(table, path, kind):
    if kind in CLOCKS:
        return False
    table.write(path, format="votable")
    return True


FILES = {
    "csv (pandas)": ("t.csv", written(pandas_frame, lambda t, p, k: t.to_csv(p, index=False))),
    "csv (polars)": ("t.csv", written(polars_frame, lambda t, p, k: t.write_csv(p))),
    "text (np.savetxt)": ("t.txt", written(arrays, to_text)),
    "npy": ("t.npy", written(arrays, to_npy)),
    "npz": ("t.npz", written(arrays, to_npz)),
    "Parquet (pandas)": ("t.parquet", written(pandas_frame, lambda t, p, k: t.rename_axis("row").to_parquet(p))),
    "Parquet (polars)": ("t.parquet", written(polars_frame, lambda t, p, k: t.write_parquet(p))),
    "Parquet (astropy)": ("t.parquet", written(astropy_table, lambda t, p, k: t.write(p))),
    "Feather (pyarrow)": ("t.feather", written(arrow_table, lambda t, p, k: pyarrow.feather.write_feather(t, p))),
    "FITS (astropy)": ("t.fits", written(astropy_table, lambda t, p, k: t.write(p))),
    "VOTable (astropy)": ("t.vot", written(astropy_table, to_votable)),
    "ECSV (astropy)": ("t.ecsv", written(astropy_table, lambda t, p, k: t.write(p))),
    "HDF5 (astropy)": ("t.h5", written(astropy_table, lambda t, p, k: t.write(p, path="t", serialize_meta=True))),
    "HDF5 (astropy, without its note)": ("t.h5", written(astropy_table, to_bare_hdf5)),
    "HDF5 (h5py)": ("t.h5", written(arrays, to_groups)),
    "HDF5 (PyTables)": ("t.h5", written(arrays, to_pytables)),
    "HDF5 (pandas, fixed)": ("t.h5", written(pandas_frame, to_pandas_hdf("fixed"))),
    "HDF5 (pandas, table)": ("t.h5", written(pandas_frame, to_pandas_hdf("table"))),
    "ROOT (uproot)": ("t.root", written(arrays, to_root)),
    "FCS (FlowIO)": ("t.fcs", written(arrays, to_fcs)),
}
FRAMES = {
    "pandas": pandas_frame,
    "polars": polars_frame,
    "pyarrow": arrow_table,
    "astropy Table": astropy_table,
    "astropy QTable": lambda kind: astropy_table(kind, QTable),
    "mapping of arrays": arrays,
    "structured array": lambda kind: None if arrays(kind) is None else np.rec.fromarrays(
        list(arrays(kind).values()), names=list(arrays(kind))),
    "numpy.ma": lambda kind: np.ma.masked_array(np.column_stack([A, columns(kind)["b"]]), np.column_stack([HIDDEN & False,
        HIDDEN])) if kind in HOLES else None,
}  # fmt: skip


def expected(kind):
    """The table (n, 2) that comes through the door, NaN where nothing is known."""
    if kind in CLOCKS:
        return np.column_stack([A, DAYS])
    table = {name: values.astype(np.float64) for name, values in columns(kind).items() if values.dtype.kind in "fi"}
    x = np.column_stack([table["a"], table.get("b", B)])
    return np.where(np.column_stack([HIDDEN & False, HIDDEN]), np.nan, x) if kind in HOLES else x


def flow():
    return npflows.MAF(2, 1, (8,), columns=["a", "b"], dtype="float64", rng=0)


def through(kind, table, path=None):
    """Take a table through every door, and check what comes out or what is said."""
    x = expected(kind)
    complete = ~HIDDEN if kind in (*HOLES, "marks") else np.ones(N, bool)
    options = {"max_epochs": 0, "validation_fraction": 0.0, "standardize": "diagonal", "rng": 0}
    declared = {"missing": MARK if kind == "marks" else "nan"} if kind in (*HOLES, "marks") else {}
    arguments = ["fit", str(path), "-o", str(path) + ".flow", "--epochs", "1", "--hidden", "8", "--layers", "1", "--quiet",
                 "--dtype", "float64", "--validation-fraction", "0"]  # fmt: skip
    if kind in HOLES:
        told = r"x has (masked or empty entries \(9 in 'b'\)|NaN or infinite values) in 9 rows .*missing=\"(masked|nan)\""
        with pytest.raises(ValueError, match=told):
            flow().fit(table(), **options)
        with pytest.raises(ValueError, match=r"contains (NaN|masked entries \(9 in ('b'|column 1)\)) in 9 rows"):
            FlowDensity(model="maf", max_epochs=0).fit(table())
        assert path is None or main(arguments) == 2
    loc = x[complete].mean(axis=0)
    names = names_of(table())
    made = flow().fit(table(), **options, **declared)
    np.testing.assert_allclose(made.standardize.loc, loc, rtol=2e-6)
    made = npflows.MAF(2, 1, (8,), dtype="float64", rng=0)
    made.columns = ["a", "b"]
    if kind == "units":
        made.units = ["km", None]
        np.testing.assert_array_equal(made.log_prob(table()), made.log_prob(np.column_stack([A * 1e-3, B])))
        made.units = ["s", None]
        with pytest.raises(
            ValueError, match="has the unit m, which does not convert into that of the flow, s: pass it in s"
        ):
            made.log_prob(table())
    elif kind in CLOCKS:
        zone, other = (" UTC", "") if kind == "UTC" else ("", " UTC")
        made.units = [None, f"hours since 2019-12-31T12:00{zone}"]
        np.testing.assert_allclose(made.log_prob(table()), made.log_prob(x * [1, 24] + [0, 12]), rtol=1e-12)
        made.units = [None, f"days since 2020-01-01{other}"]
        with pytest.raises(ValueError, match=r"times (of a|without a) time zone|has the unit days since .* not convert"):
            made.log_prob(table())
        made.units = [None, "m"]
        with pytest.raises(ValueError, match=r"do(es)? not convert into (the unit|that) of the flow, m"):
            made.log_prob(table())
        made.units = None
        with pytest.raises(TypeError, match=r"holds dates or times|has the unit days since 2020-01-01"):
            made.log_prob(table())
    else:
        np.testing.assert_allclose(made.log_prob(table()), made.log_prob(x), rtol=2e-6)
    found = FlowDensity(model="maf", max_epochs=0, standardize="diagonal", validation_fraction=0.0, **declared)
    found.fit(table())
    order = [("a", "b").index(name) for name in names or ("a", "b")]
    np.testing.assert_allclose(found.flow_.standardize.loc, loc[order], rtol=2e-6)
    kept = found.units_ or [None, None]
    assert found.flow_.units == found.units_
    assert kept[order.index(0)] == ("m" if kind == "units" else None)
    assert str(kept[order.index(1)]).startswith("days since 2020-01-01" if kind in CLOCKS else "None")
    if kind not in HOLES:
        right = found.flow_.log_prob(x[:, order])
        np.testing.assert_allclose(found.score_samples(table()), right, rtol=2e-6)
    if path is not None:
        more = ["--missing", str(MARK) if kind == "marks" else "nan"] if declared else []
        assert main([*arguments, "--columns", "a,b", *more]) == 0
        saved = npflows.load(str(path) + ".flow")
        np.testing.assert_allclose(saved.standardize.loc, loc, rtol=2e-6)
        unit = f"days since 2020-01-01{' UTC' * (kind == 'UTC')}"
        assert saved.units == (["m", None] if kind == "units" else [None, unit] if kind in CLOCKS else None) or (
            kind == "times" and saved.units == [None, "days since 2020-01-01 00:00:00"]
        )
        assert main(["score", str(path) + ".flow", str(path), "--quiet"]) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_files(name, kind, tmp_path):
    suffix, write = FILES[name]
    path = tmp_path / suffix
    if not write(kind, path):
        pytest.skip(f"{name} can't hold {kind}")
    through(kind, lambda: read_table(path), path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FRAMES)
def test_tables_in_memory(name, kind):
    if FRAMES[name](kind) is None:
        pytest.skip(f"{name} can't hold {kind}")
    through(kind, lambda: FRAMES[name](kind))


def matrix(folder):
    """The table of the documentation: what each format can hold here, all of which is tried."""
    lines = ["| | " + " | ".join(KINDS) + " |", "| --- " * (len(KINDS) + 1) + "|"]
    for name, (suffix, write) in FILES.items():
        cells = []
        for kind in KINDS:
            for old in folder.iterdir():
                old.unlink()
            can = write(kind, folder / suffix)
            cells.append("yes" if can else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, make in FRAMES.items():
        cells = ["-" if make(kind) is None else "yes" for kind in KINDS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_documentation_has_this_matrix(tmp_path):
    page = (Path(__file__).parents[2] / "docs/how_to/read_tables.md").read_text(encoding="utf-8")
    assert matrix(tmp_path) in page


if __name__ == "__main__":
    import tempfile

    warnings.simplefilter("ignore")
    print(matrix(Path(tempfile.mkdtemp())))
