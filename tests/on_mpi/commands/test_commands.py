"""`npflows fit` started by `mpiexec`, from a process that is none of MPI's."""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import npflows
from npflows.cli import main

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
pytestmark = pytest.mark.skipif(MPIEXEC is None or importlib.util.find_spec("mpi4py") is None, reason="needs MPI")
FIT = ["--epochs", "2", "--hidden", "8", "--layers", "1", "--quiet"]
X = np.random.default_rng(0).standard_normal((700, 2))


def run(ranks: int, *arguments: str) -> subprocess.CompletedProcess:
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "npflows", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.fixture
def shards(tmp_path):
    """Three files of two row groups each, one of them small, and a weight."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    places = [0, 400, 420, 700]
    for i, (start, stop) in enumerate(itertools.pairwise(places)):
        part = X[start:stop]
        table = pa.table({"u": part[:, 0], "v": part[:, 1], "w": np.abs(part[:, 0])})
        parquet.write_table(table, tmp_path / f"part-{i}.parquet", row_group_size=150)
    return tmp_path


def params(path) -> np.ndarray:
    flow = npflows.load(path)
    return np.concatenate([flow.params, flow.standardize.loc, flow.standardize.scale])


def test_row_groups_are_read_by_their_ranks(shards):
    pattern = str(shards / "*.parquet")
    assert main(["fit", pattern, "-o", str(shards / "one.npz"), "--weights", "w", *FIT]) == 0
    done = run(3, "fit", pattern, "-o", str(shards / "three.npz"), "--weights", "w", *FIT)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(params(shards / "three.npz"), params(shards / "one.npz"))
    assert npflows.load(shards / "three.npz").columns == ["u", "v"]


def test_files_of_text_are_read_as_a_whole(tmp_path):
    np.savetxt(tmp_path / "x.csv", X, delimiter=",", header="u,v", comments="")
    assert main(["fit", str(tmp_path / "x.csv"), "-o", str(tmp_path / "one.npz"), *FIT]) == 0
    done = run(2, "fit", str(tmp_path / "x.csv"), "-o", str(tmp_path / "two.npz"), *[o for o in FIT if o != "--quiet"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("700, by 2 processes") == 1
    np.testing.assert_array_equal(params(tmp_path / "two.npz"), params(tmp_path / "one.npz"))


def test_an_ensemble_is_dealt_to_the_ranks(shards):
    pattern = str(shards / "*.parquet")
    options = ["--no-weights", "--columns", "u,v", "--ensemble", "3", *FIT]
    assert main(["fit", pattern, "-o", str(shards / "one.npz"), *options]) == 0
    done = run(2, "fit", pattern, "-o", str(shards / "two.npz"), *options)
    assert done.returncode == 0, done.stderr
    for one, other in zip(npflows.Ensemble.load(shards / "one.npz"), npflows.Ensemble.load(shards / "two.npz")):
        np.testing.assert_array_equal(one.params, other.params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "{folder}/*.parquet", "--columns", "u,nothing"], "nothing"),
        (["fit", "{folder}/*.orc"], "no file is called"),
        (["fit", "{folder}/*.parquet", "--stream"], "take neither --stream"),
        (["fit", "{folder}/*.parquet", "--weights", "u"], "sample_weight must not be negative"),
    ],
)
def test_one_sentence_for_an_error_of_all(shards, arguments, message):
    done = run(2, *(text.format(folder=shards) for text in arguments), "-o", str(shards / "flow.npz"), *FIT)
    assert done.returncode != 0
    assert done.stderr.count("npflows: ") == 1, done.stderr
    assert message in done.stderr


def test_a_file_with_other_columns_stops_all(shards):
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(pa.table({"u": X[:, 0], "other": X[:, 1]}), shards / "part-9.parquet")
    done = run(2, "fit", str(shards / "*.parquet"), "-o", str(shards / "flow.npz"), *FIT)
    assert done.returncode != 0
    assert "part-0.parquet has no column 'other', which other parts of" in done.stderr, done.stderr
    assert not (shards / "flow.npz").exists()
