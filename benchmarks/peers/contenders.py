"""Who takes part, and how their processes are started."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.peers.environments import python_of
from benchmarks.peers.protocol import Worker

OWN = "npflows"
ENVIRONMENTS = {OWN: None, "nflows": "torch", "zuko": "torch", "normflows": "torch", "flowjax": "jax"}
PEERS = [name for name in ENVIRONMENTS if name != OWN]
HELD_TO_256_BITS = {
    "NUMBA_CPU_NAME": "haswell",  # with no features besides: AVX2 and FMA
    "NUMBA_CPU_FEATURES": "",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type=",
}
"""What holds each library to vectors of 256 bits where the CPU has longer ones; the race checks it by a product's rate.
XLA's own flag does not reach its products: the second flag takes out YNNPACK, which makes them by default and looks at the
CPU by itself, and oneDNN, which makes them then, goes by its variable."""


def start(environments: Path, name: str, threads: int, held: bool = False) -> Worker:
    """The process of a contender, held to vectors of 256 bits or not; it inherits the CPUs that this one may use, which JAX
    makes as many threads for."""
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPFLOWS_NUM_THREADS")}
    variables |= {"JAX_PLATFORMS": "cpu", **(HELD_TO_256_BITS if held else {})}
    return Worker(python_of(environments, ENVIRONMENTS[name]), f"{name}_worker.py", variables)


def restrict_cpus(threads: int) -> None:
    """Let this process, and all that it starts from now on, use so many CPUs, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
