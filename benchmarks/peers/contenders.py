"""Who takes part, and how their processes are started."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.peers.environments import python_of
from benchmarks.peers.protocol import Worker

OWN = "npflows"
ENVIRONMENTS = {OWN: None, "nflows": "torch", "zuko": "torch", "normflows": "torch", "flowjax": "jax"}
PEERS = [name for name in ENVIRONMENTS if name != OWN]


def start(environments: Path, name: str, threads: int) -> Worker:
    """The process of a contender; it inherits the CPUs that this one may use, which JAX makes as many threads for."""
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPFLOWS_NUM_THREADS")}
    variables["JAX_PLATFORMS"] = "cpu"
    return Worker(python_of(environments, ENVIRONMENTS[name]), f"{name}_worker.py", variables)


def restrict_cpus(threads: int) -> None:
    """Let this process, and all that it starts from now on, use so many CPUs, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
