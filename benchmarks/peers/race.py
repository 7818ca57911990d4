"""npflows beside nflows, zuko, normflows and flowjax: the same models and data, one process for each.

    python benchmarks/peers/race.py ENVIRONMENTS RESULTS.json [--threads 2] [--rounds 7] [--only TEXT ...] [--held]
                                    [--quick]

First the agreement of carry.py, then every task of tasks.py, the galaxies and the memory of a large train step; what a
results file of the same machine has already is not done again.  Every contender takes its turn in every round, each time
another one first, so that a drifting machine meets all alike; a turn is the median of the calls that fill a fifth of a
second, and garbage is not collected in it.  Of a contender whose call takes over 5 seconds the second call counts, and
there are no more.  `--held` holds all to vectors of 256 bits; the rates of a product, with and without, show whether each
obeys.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from benchmarks.peers import carry, contenders, store, tasks
from benchmarks.peers.contenders import OWN, PEERS
from benchmarks.peers.protocol import PeerError, Worker
from npflows.data import load_galaxies

LONGEST, LONG, TURN = 60.0, 5.0, 0.2
PRODUCT = 512
"""Size of the product whose rate shows how long a contender's vectors are."""
EPOCHS, BATCH, HELD_OUT, FITTED, MOST_EPOCHS = 20, 512, 2000, (tasks.MAF, tasks.COUPLING), 60


class Race:
    """The processes and the results file."""

    def __init__(self, environments: Path, results: Path, threads: int, rounds: int, turn: float, held: bool) -> None:
        self.results, self.threads, self.rounds, self.turn = results, threads, rounds, turn
        names = (OWN, *PEERS)
        self.workers: dict[str, Worker] = {name: contenders.start(environments, name, threads, held) for name in names}

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers = {}

    def build(self, model: str, size: str) -> dict[str, Any]:
        """Each contender's description of its flow."""
        options = {"model": model, "size": size, "dtype": "float32", "threads": self.threads, "seed": 0}
        return {name: worker("build", **options) for name, worker in self.workers.items()}

    def run(self, todo: list[tasks.Task]) -> None:
        done = store.read(self.results).get("tasks", {})
        todo = [task for task in todo if str(task) not in done]
        for (model, size), group in groupby(todo, key=lambda task: (task.model, task.size)):
            built = self.build(model, size)
            for task in group:
                found = {**task._asdict(), "built": built, **self._time(task)}
                done = {**store.read(self.results).get("tasks", {}), str(task): found}
                store.update(self.results, {"tasks": done})
                middle = {name: f"{1e3 * np.median(seconds):.3g} ms" for name, seconds in found["seconds"].items()}
                print(f"{task}: {middle}", flush=True)

    def _time(self, task: tasks.Task) -> dict[str, Any]:
        """Seconds of each contender in each round, and of its first call."""
        work, first = {"work": task.work, "batch": task.batch}, {}
        for name, worker in self.workers.items():
            try:
                first[name] = worker("warm", most=10 * LONGEST if task.work == tasks.COMPILED else LONGEST, **work)
            except PeerError as error:
                if name == OWN:
                    raise
                print(f"{task}: {error}", flush=True)
        names, seconds = list(first), {name: [] for name in first}
        for i in range(self.rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:  # those that could do it
                if first[name][-1] <= LONG:
                    seconds[name].append(self.workers[name]("time", at_least=self.turn, **work))
        return {"seconds": {name: seconds[name] or first[name][-1:] for name in seconds}, "first": first}

    def fit(self, model: str, epochs: int, rounds: int) -> dict[str, Any]:
        """Held-out log-likelihood of galaxies against seconds of training."""
        x = load_galaxies()[0].astype(np.float64)
        train, test = x[:-HELD_OUT], x[-HELD_OUT:]
        loc, scale = train.mean(0), train.std(0)
        built = self.build(model, tasks.GALAXIES)
        curves: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder, "galaxies.npz"))
            np.savez(file, train=((train - loc) / scale).astype("float32"), test=((test - loc) / scale).astype("float32"))
            for seed in range(rounds):
                self.build(model, tasks.GALAXIES)  # the first weights again
                options = {"given": file, "batch": BATCH, "seed": seed}
                found = {name: self.workers[name]("fit", epochs=epochs, **options) for name in PEERS}
                until = [curve["reached"][-1] for curve in found.values()]
                found[OWN] = self.workers[OWN]("fit", until=until, most_epochs=MOST_EPOCHS, **options)
                curves.append(found)
                ends = {name: (round(c["seconds"][-1], 2), round(c["reached"][-1], 3)) for name, c in found.items()}
                print(f"galaxies, {model}, seconds and log-likelihood: {ends}", flush=True)
        return {"built": built, "curves": curves, "epochs": epochs, "batch": BATCH, "units": float(-np.log(scale).sum())}


def agreements(environments: Path, results: Path, peers: list[str]) -> None:
    """The table of carry.py."""
    done = store.read(results).get("agreement", {})
    for peer in peers:
        wanted = [(model, size) for model, size in carry.PAIRS if f"{peer}, {model}, {size}, float64" not in done]
        if not wanted:
            continue
        with contenders.start(environments, peer, 1) as worker:
            for model, size in wanted:
                for dtype in carry.TOLERANCE:
                    done[f"{peer}, {model}, {size}, {dtype}"] = carry.agreement(worker, model, size, dtype)
        store.update(results, {"agreement": done})


def rates(environments: Path, threads: int) -> dict[str, list[float]]:
    """GFLOP/s of a product in each contender's library, on one thread in npflows: held to 256 bits, and not."""
    found: dict[str, list[float]] = {}
    for name in (OWN, *PEERS):
        for held in (True, False):
            with contenders.start(environments, name, threads, held) as worker:
                found.setdefault(name, []).append(worker("rate", n=PRODUCT, threads=threads))
        print(f"product, {name}: {found[name][0]:.0f} GFLOP/s held to 256 bits, {found[name][1]:.0f} as it is", flush=True)
    return found


def step_memory(environments: Path, threads: int, held: bool) -> dict[str, float]:
    """MB of a train step of each contender, in a fresh process; npflows has a first one that fills its kernels' cache."""
    found = {}
    for name in (OWN, OWN, *PEERS):
        with contenders.start(environments, name, threads, held) as worker:
            worker("build", model=tasks.MAF, size=tasks.LARGE, dtype="float32", threads=threads, seed=0)
            found[name] = worker("step_memory", batch=tasks.MEMORY_BATCH)
        print(f"memory, {name}: {found[name]:.0f} MB", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", type=Path, help="the folder that make_environments.py filled")
    parser.add_argument("results", type=Path, help="a JSON file, which is added to")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""], help="tasks whose name holds one of these texts")
    parser.add_argument("--held", action="store_true", help="hold all contenders to vectors of 256 bits")
    parser.add_argument("--quick", action="store_true", help="one short round of the smallest tasks")
    given = parser.parse_args()

    def wanted(name: str) -> bool:
        return any(text in name for text in given.only)

    contenders.restrict_cpus(given.threads)
    conditions = store.conditions(given.threads)
    before = store.read(given.results).get("conditions", conditions)
    if before["machine"] != conditions["machine"]:
        raise SystemExit(f"{given.results} was measured on another machine or with other versions: {before['machine']}")
    if before.get("held", given.held) != given.held:
        raise SystemExit(f"{given.results} was measured {'with' if before['held'] else 'without'} --held")
    store.update(given.results, {"conditions": {**conditions, "rounds": given.rounds, "held": given.held}})
    todo = [task for task in tasks.TASKS if wanted(str(task))]
    if given.quick:
        todo = [task for task in todo if task.size == tasks.SMALL and task.batch == 256]
    agreements(given.environments, given.results, PEERS)
    if given.held and "rates" not in store.read(given.results):
        store.update(given.results, {"rates": rates(given.environments, given.threads)})
    rounds, turn = (1, 1e-3) if given.quick else (given.rounds, TURN)
    race = Race(given.environments, given.results, given.threads, rounds, turn, given.held)
    try:
        race.run(todo)
        for model in FITTED:
            done = store.read(given.results).get("galaxies", {})
            if model not in done and wanted(f"galaxies, {model}"):
                found = race.fit(model, 2 if given.quick else EPOCHS, 1 if given.quick else 3)
                store.update(given.results, {"galaxies": {**done, model: found}})
        race.close()
        if not given.quick and wanted("memory") and "memory" not in store.read(given.results):
            store.update(given.results, {"memory": step_memory(given.environments, given.threads, given.held)})
    except PeerError as error:
        raise SystemExit(str(error)) from None
    finally:
        race.close()


if __name__ == "__main__":
    main()
