"""Time and peak memory of a fit by two ranks of MPI, and of scores by two workers of Dask, of tables of many rows.

    python benchmarks/many_rows.py fit ROWS FOLDER
    python benchmarks/many_rows.py score ROWS FOLDER

FOLDER holds the table, made anew where it is not there: .npy files of 8 columns, or Parquet files of 3, float32.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.mpi_fit import mpiexec

RANKS = WORKERS = 2
EPOCHS, BATCH = 2, 16384
GROUP, FILES = 1_000_000, 4
"""Rows of a row group, and files."""


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def made(n: int, d: int, seed: int) -> np.ndarray:
    """Rows with curved dependences."""
    x = np.random.default_rng(seed).standard_normal((n, d), np.float32)
    x[:, 1:] += 0.5 * x[:, :-1] ** 2
    return x


def fit(rows: int, folder: Path) -> None:
    """One rank, started by `mpiexec`."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    path = folder / f"{rows}-{comm.rank}.npy"
    if not path.exists():
        np.save(path, made(rows // comm.size, 8, comm.rank))
    before = peak()
    x = np.load(path, mmap_mode="r")
    started = time.perf_counter()
    flow = npflows.MAF(8, 3, (64, 64), rng=0)
    flow.fit(x, comm=comm, rng=0, batch_size=BATCH, max_epochs=EPOCHS, progress=False)
    seconds = time.perf_counter() - started
    memory = comm.gather((before, peak()))
    if comm.rank == 0:
        epochs = ", ".join(f"{s:.0f}" for s in flow.history["seconds"])
        print(f"{rows:,} rows, {comm.size} ranks, {EPOCHS} epochs: {seconds:.0f} s, of which epochs {epochs} s; validation "
              f"{flow.history['validation_loss'][-1]:.4f}; peak memory " +
              ", ".join(f"{most:.0f} MB (before the fit {first:.0f})" for first, most in memory))  # fmt: skip


def score(rows: int, folder: Path) -> None:
    """The command, on a cluster of this machine."""
    import distributed
    import pyarrow as pa
    import pyarrow.parquet as parquet

    flow = npflows.MAF(3, 3, (32, 32), rng=0, columns=["a", "b", "c"]).fit(made(20_000, 3, 0), max_epochs=5, rng=0)
    flow.save(folder / "flow.npz")
    for i in range(FILES):
        path = folder / f"{rows}-{i}.parquet"
        if not path.exists():
            with parquet.ParquetWriter(path, pa.schema([(name, pa.float32()) for name in "abc"])) as out:
                for start in range(0, rows // FILES, GROUP):
                    x = made(min(GROUP, rows // FILES - start), 3, i * rows + start)
                    out.write_table(pa.table(dict(zip("abc", x.T.copy()))), row_group_size=GROUP)
    with distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster:
        files = [str(folder / name) for name in ("flow.npz", f"{rows}-*.parquet", "scores.npy")]
        command = ["score", *files[:2], "-o", files[2], "--dask", cluster.scheduler_address]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, json.dumps(command)], text=True, capture_output=True, check=True
        )
        seconds = time.perf_counter() - started
        with distributed.Client(cluster) as client:
            memory = client.run(peak)
    print(done.stdout)
    print(f"{seconds:.0f} s; peak memory of the workers {', '.join(f'{m:.0f} MB' for m in memory.values())}")


CLIENT = """
import json, resource, sys
from npflows.cli import main
main(json.loads(sys.argv[1]))
print(f"peak memory of the command {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""

if __name__ == "__main__":
    what, rows, folder = sys.argv[1], int(float(sys.argv[2])), Path(sys.argv[3])
    if what == "score":
        score(rows, folder)
    elif "PMI_SIZE" in os.environ or "OMPI_COMM_WORLD_SIZE" in os.environ:
        fit(rows, folder)
    else:
        subprocess.run([mpiexec(), "-n", str(RANKS), sys.executable, __file__, *sys.argv[1:]], check=True)
