"""Glow on images beside normflows' on PyTorch: the same architecture, data, optimizer and number of steps.

    python benchmarks/peers/glow_race.py ENVIRONMENTS RESULTS.json [--images FOLDER] [--steps N] [--quick]

Batches are trained in turn, a chunk of each contender's steps after the other's, so that a drifting machine meets all
alike.  The folder holds gzipped IDX files (train-images-idx3-ubyte.gz, t10k-images-idx3-ubyte.gz) such as Fashion-MNIST's,
which the Debian package dataset-fashion-mnist installs; without one it is scikit-learn's digits.  bits/dim counts every
pixel, padding included, as a mass: images are whole numbers plus uniform noise, divided by 256.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from benchmarks.peers import images, store
from benchmarks.peers.contenders import restrict_cpus
from benchmarks.peers.environments import python_of
from benchmarks.peers.protocol import Worker

BATCH, CHUNK, SEED = 32, 20, 0
SHAPE = {"size": images.SIZE, "scales": 3, "blocks": 4, "width": 64}
LEARNING_RATE = 1e-3
"""Of the first step; it falls to 0 along half a cosine."""
CONTENDERS: dict[str, tuple[str | None, str, dict[str, str]]] = {
    "normflows": ("torch", "normflows_glow_worker.py", {}),
    "npflows": (None, "npflows_glow_worker.py", {}),
    "npflows, scale_activation='sigmoid'": (None, "npflows_glow_worker.py", {"scale_activation": "sigmoid"}),
}
"""The environment, the worker and what it builds differently."""


def start(environments: Path, name: str, threads: int) -> Worker:
    environment, script, _ = CONTENDERS[name]
    return Worker(python_of(environments, environment), script, {"OMP_NUM_THREADS": str(threads)})


def race(environments: Path, folder: str | None, steps: int, held_out: int, threads: int) -> dict[str, Any]:
    """Train every contender, and return the results of each."""
    rng = np.random.default_rng(SEED)
    train, test, what = images.load(folder, rng)
    test = test[:held_out]
    order = [rng.choice(len(train), BATCH, replace=False).tolist() for _ in range(steps)]
    found: dict[str, Any] = {
        "data": what,
        "steps": steps,
        "threads": threads,
        "batch": BATCH,
        "held_out": len(test),
        **SHAPE,
    }
    with tempfile.TemporaryDirectory() as scratch:
        files = {part: str(Path(scratch, f"{part}.npy")) for part in ("train", "test")}
        np.save(files["train"], train)
        np.save(files["test"], test)
        options = {"batch": BATCH, "threads": threads, "seed": SEED, **SHAPE}
        rates = (LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))).tolist()
        for name, (environment, _, different) in CONTENDERS.items():
            if environment is None:  # kernels are compiled, into the cache
                with start(environments, name, threads) as worker:
                    worker("load", **files)
                    worker("build", **options, **different)
                    worker("train", order=order[:1], rates=rates[:1], seed=SEED)
        running = {name: start(environments, name, threads) for name in CONTENDERS}
        results: dict[str, dict[str, Any]] = {}
        for name, worker in running.items():
            worker("load", **files)
            built = worker("build", **options, **CONTENDERS[name][2])
            results[name] = {**built, "seconds": [], "losses": []}
        for done in range(0, steps, CHUNK):
            for name, worker in running.items():
                part = slice(done, done + CHUNK)
                chunk = worker("train", order=order[part], rates=rates[part], seed=SEED + done)
                for key, values in chunk.items():
                    results[name][key] += values
        for name, worker in running.items():
            results[name]["memory"] = worker("memory")
            results[name]["bits_per_dim"] = worker("bits_per_dim", batch=100, seed=SEED)
            worker.close()
    for result in results.values():
        seconds = np.array(result.pop("seconds"))[min(10, steps // 2) :]
        losses = np.array(result.pop("losses")) / (images.SIZE**2 * np.log(2))
        result["step"] = np.percentile(seconds, [25, 50, 75]).tolist()
        result["curve"] = [float(part.mean()) for part in np.array_split(losses, min(20, steps))]
    return {**found, "contenders": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", type=Path, help="the folder that make_environments.py filled")
    parser.add_argument("results", type=Path, help="a JSON file, which is added to")
    parser.add_argument("--images", help="a folder of gzipped IDX files; scikit-learn's digits without it")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    given = parser.parse_args()
    steps, held_out = (10, 100) if given.quick else (given.steps, 1000)
    restrict_cpus(given.threads)
    found = race(given.environments, given.images, steps, held_out, given.threads)
    store.update(given.results, {"glow": {**found, **store.conditions(given.threads)}})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
