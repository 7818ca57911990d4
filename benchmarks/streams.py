"""An epoch over Parquet larger than memory: rows per second and peak memory; and the same table streamed and in memory.

python benchmarks/streams.py                    # 10^8 rows of eight columns, 6.4 GB in a temporary folder
python benchmarks/streams.py --rows 3000000 --beside-memory
"""

import argparse
import importlib
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import npflows

COLUMNS, GROUP, FILE = 8, 250_000, 5_000_000


def group(number):
    """Rows of a row group: columns that depend on those before them."""
    x = np.random.default_rng(number).normal(size=(GROUP, COLUMNS))
    x[:, 1:] += 0.5 * x[:, :-1] ** 2
    return x


def write(folder, rows):
    """The table, in files of five million rows."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    schema = arrow.schema([(f"c{j}", arrow.float64()) for j in range(COLUMNS)])
    groups = range(rows // GROUP)
    for first in range(0, len(groups), FILE // GROUP):
        path = folder / f"{first:06}.parquet"
        with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
            for number in groups[first : first + FILE // GROUP]:
                x = group(number)
                file.write_table(arrow.table({f"c{j}": x[:, j] for j in range(COLUMNS)}), row_group_size=GROUP)


def flow():
    return npflows.MAF(COLUMNS, num_layers=3, hidden_dims=(32, 32), rng=0)


def peak():
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fitted(source, batch_size):
    """Fit an epoch; seconds of the epoch, seconds of all, and those of the CPUs."""
    made, started, used = flow(), time.perf_counter(), time.process_time()
    made.fit(source, max_epochs=1, rng=0, progress=False, batch_size=batch_size)
    return made.history["seconds"][0], time.perf_counter() - started, time.process_time() - used


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10**8)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--beside-memory", action="store_true", help="fit the table in memory too")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), a.rows)
        flow().fit(group(0)[:20_000], max_epochs=1, rng=0, progress=False, batch_size=a.batch_size)
        importlib.import_module("pyarrow.parquet")
        idle = peak()
        stream = npflows.stream_table(name)
        print("| | rows | rows/s of the epoch | all, s | CPU, s | MB above idle |\n| --- | --- | --- | --- | --- | --- |")
        epoch, whole, cpu = fitted(stream, a.batch_size)
        print(
            f"| streamed | {a.rows:,} | {a.rows / epoch:,.0f} | {whole:.1f} | {cpu:.1f} | {peak() - idle:.0f} |", flush=True
        )
        if a.beside_memory:
            x = npflows.read_table(name).x
            epoch, whole, cpu = fitted(x, a.batch_size)
            print(f"| in memory | {a.rows:,} | {a.rows / epoch:,.0f} | {whole:.1f} | {cpu:.1f} | {peak() - idle:.0f} |")


if __name__ == "__main__":
    main()
