"""How long `npflows.read_table` takes beside what reads the format by itself, until there is one array of float64.

python benchmarks/reading_tables.py            # a million rows of eight columns; packages that are missing are left out
python benchmarks/reading_tables.py --quick
"""

import argparse
import importlib
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from npflows.files.tables import read_table, write_table

NAMES = [f"c{i}" for i in range(8)]


def by_text(path):
    return np.loadtxt(path, delimiter=",", skiprows=1)


def by_npz(path):
    return np.load(path)["x"]


def by_parquet(path):
    table = importlib.import_module("pyarrow.parquet").read_table(path)
    return np.column_stack([table[name].to_numpy() for name in NAMES])


def by_arrow(path):
    table = importlib.import_module("pyarrow.feather").read_table(path)
    return np.column_stack([table[name].to_numpy() for name in NAMES])


def by_fits(path):
    with importlib.import_module("astropy.io.fits").open(path, memmap=True) as file:
        data = file[1].data
        return np.column_stack([data[name] for name in NAMES]).astype(np.float64)


def by_votable(path):
    table = importlib.import_module("astropy.table").Table.read(path, format="votable")
    return np.column_stack([np.asarray(table[name]) for name in NAMES])


def by_hdf5(path):
    with importlib.import_module("h5py").File(path, "r") as file:
        return np.column_stack([file[name][()] for name in NAMES])


def by_root(path):
    with importlib.import_module("uproot").open(path) as file:
        columns = file["tree"].arrays(library="np")
        return np.column_stack([columns[name] for name in NAMES])


READERS = {
    "csv": (by_text, "numpy", 20), "npy": (np.load, "numpy", 1), "npz": (by_npz, "numpy", 1),
    "parquet": (by_parquet, "pyarrow", 1), "arrow": (by_arrow, "pyarrow", 1), "fits": (by_fits, "astropy", 1),
    "vot": (by_votable, "astropy", 200), "h5": (by_hdf5, "h5py", 1), "root": (by_root, "uproot", 1),
}  # fmt: skip
"""For each suffix what reads it, the package that does, and by how much smaller the table is."""


def seconds(function, path):
    started = time.perf_counter()
    function(path)
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n, repeats = (2000, 3) if quick else (1_000_000, 9)
    x = np.random.default_rng(0).normal(size=(n, 8))
    print("| format | package | rows | package, s | npflows, s | ratio |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for suffix, (own, package, smaller) in READERS.items():
            rows, path = max(100, n // smaller), Path(folder) / f"t.{suffix}"
            try:
                importlib.import_module(package)
            except ImportError:
                continue
            write_table(path, x[:rows], NAMES)
            assert np.array_equal(np.asarray(read_table(path).x), own(path))
            pairs = [(seconds(own, path), seconds(lambda p: read_table(p).x, path)) for _ in range(repeats)]
            ratio = statistics.median(b / a for a, b in pairs)
            a, b = (min(times) for times in zip(*pairs))
            print(f"| {suffix} | {package} | {rows:,} | {a:.4f} | {b:.4f} | {ratio:.2f} |")
            path.unlink()


if __name__ == "__main__":
    main()
