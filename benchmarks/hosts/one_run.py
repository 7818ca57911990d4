"""One run of a sampler with its own flow or with npflows, on one thread; a line of JSON with what it took and found.

python benchmarks/hosts/one_run.py pocomc npflows rosenbrock4 --seed 0
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPFLOWS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402 after the number of threads is set
from problems import PROBLEMS, Problem  # noqa: E402

FLOWS = ("own", "npflows")


class Clock:
    """Time and calls of the methods of a flow, those called from others of them left out."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._inside = False

    def watch(self, owner: Any, names: tuple[str, ...]) -> None:
        """Replace methods of an object or class by the same with the clock running."""
        for name in names:
            setattr(owner, name, self._timed(name, getattr(owner, name)))

    def _timed(self, name: str, function: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, started = True, time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started
                self.calls[name] = self.calls.get(name, 0) + 1

        return timed


def pocomc(problem: Problem, flow: str, seed: int, clock: Clock) -> dict[str, Any]:
    host = importlib.import_module("pocomc")
    sampler = host.Sampler(
        host.Prior(problem.priors()), problem.log_likelihood, n_dim=problem.n_dim, vectorize=True, random_state=seed
    )
    if flow == "npflows":
        import npflows.hosts

        sampler.flow = npflows.hosts.pocomc(problem.n_dim, rng=seed)
    clock.watch(sampler.flow, ("fit", "forward", "inverse", "log_prob", "sample"))
    sampler.run(progress=False)
    log_z, error = sampler.evidence()
    return {"log_z": log_z, "error": error, "iterations": int(sampler.t), "likelihoods": int(sampler.calls)}


def nessai(problem: Problem, flow: str, seed: int, clock: Clock) -> dict[str, Any]:
    from nessai.flowmodel import FlowModel
    from nessai.flowsampler import FlowSampler
    from nessai.model import Model

    names = [f"x{i}" for i in range(problem.n_dim)]
    half = problem.scale * (10 if problem.normal else 1)

    class FreeModel(Model):
        """The problem; nessai draws live points from its prior."""

        def __init__(self) -> None:
            self.names, self.bounds = names, {name: [-half, half] for name in names}

        def log_prior(self, x: np.ndarray) -> np.ndarray:
            inside = np.log(self.in_bounds(x), dtype=float)
            return inside + problem.log_prior(self.unstructured_view(x))

        def log_likelihood(self, x: np.ndarray) -> np.ndarray:
            return problem.log_likelihood(self.unstructured_view(x))

        def new_point(self, N: int = 1) -> np.ndarray:
            from nessai.livepoint import numpy_array_to_live_points

            return numpy_array_to_live_points(problem.sample_prior(N, self.rng), self.names)

        def new_point_log_prob(self, x: np.ndarray) -> np.ndarray:
            return self.log_prior(x)

    options: dict[str, Any] = {}
    owner: Any = FlowModel
    if flow == "npflows":
        from npflows.hosts.nessai import NpflowsModel, NpflowsProposal

        options, owner = {"flow_proposal_class": NpflowsProposal}, NpflowsModel
    clock.watch(owner, ("train", "forward_and_log_prob", "inverse", "log_prob", "sample_latent_distribution",
                        "sample_and_log_prob", "sample", "reset_model"))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        sampler = FlowSampler(FreeModel(), output=folder, resume=False, seed=seed, plot=False, checkpointing=False,
                              signal_handling=False, log_on_iteration=False, **options)  # fmt: skip
        sampler.run(plot=False, save=False)
    return {
        "log_z": float(sampler.log_evidence),
        "error": float(sampler.log_evidence_error),
        "iterations": int(sampler.ns.iteration),
        "likelihoods": int(sampler.ns.total_likelihood_evaluations),
    }


HOSTS = {"pocomc": pocomc, "nessai": nessai}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("host", choices=HOSTS)
    parser.add_argument("flow", choices=FLOWS)
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    problem, clock = PROBLEMS[given.problem](), Clock()
    np.random.seed(given.seed)  # noqa: NPY002 pocoMC draws from NumPy's global generator
    importlib.import_module(f"{given.host}.sampler" if given.host == "pocomc" else "nessai.flowsampler")
    wall, cpu = time.perf_counter(), time.process_time()
    found = HOSTS[given.host](problem, given.flow, given.seed, clock)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    found["off"] = found["log_z"] - problem.log_evidence
    result = {**vars(given), "wall": round(wall, 3), "cpu": round(cpu, 3)}
    result.update((name, float(f"{value:.6g}")) for name, value in found.items())
    result.update(flow_cpu={name: round(s, 3) for name, s in clock.seconds.items()}, flow_calls=clock.calls)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
