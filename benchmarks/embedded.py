"""One row at a time: what a call of a density costs in compiled code, through Python, in a jitted loop of JAX, in flowjax's
own jitted loop, and by zuko.

    python benchmarks/embedded.py [--quick]

prints a table for docs/embedding.md: microseconds, the best of interleaved rounds.  The others are measured where they are
installed, flowjax and zuko with flows of the same sizes at their first parameters.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numba
import numpy as np

import npflows
from benchmarks.common import MODELS, SIZES, few, interleaved, machine, make_data, make_flow

CASES = (("MAF", "D=8, 64x64"), ("coupling spline", "D=7, 128x128"), ("autoregressive spline", "D=7, 128x128"))
VALUE, GRADIENT, SAMPLE = "value", "with gradient", "sample"
STEPS = 200


@numba.njit(nogil=True)
def values(density, x, n):
    total = 0.0
    for i in range(n):
        total += density.log_prob(x[i % len(x)])
    return total


@numba.njit(nogil=True)
def gradients(density, x, n):
    total, grad = 0.0, np.empty(x.shape[1])
    for i in range(n):
        total += density.log_prob_and_grad(x[i % len(x)], grad) + grad[0]
    return total


@numba.njit(nogil=True)
def samples(density, z, n):
    total, x = 0.0, np.empty(z.shape[1])
    for i in range(n):
        density.sample_row(z[i % len(z)], x)
        total += x[0]
    return total


LOOPS = {VALUE: values, GRADIENT: gradients, SAMPLE: samples}


Work = dict[tuple[str, str], Callable[[int], Any]]
"""Loops over calls, a number of times STEPS of them, by whose they are and what they compute."""


class PerCall:
    """A thousand calls from a compiled loop."""

    params = (list(MODELS), few(*SIZES))
    param_names = ("model", "size")
    timeout = 180

    def setup(self, model: str, size: str) -> None:
        flow = make_flow(model, size)
        self.density, self.x = npflows.embed(flow), make_data(64, flow.input_dim).astype(np.float64)
        for loop in LOOPS.values():
            loop(self.density, self.x, 1)

    def time_log_prob(self, model: str, size: str) -> None:
        values(self.density, self.x, 1000)

    def time_log_prob_and_grad(self, model: str, size: str) -> None:
        gradients(self.density, self.x, 1000)

    def time_sample_row(self, model: str, size: str) -> None:
        samples(self.density, self.x, 1000)


class Embed:
    """Freezing a flow whose kernels are loaded."""

    def setup(self) -> None:
        self.flow = make_flow("MAF", "D=8, 64x64")
        npflows.embed(self.flow)

    def time_embed(self) -> None:
        npflows.embed(self.flow)


def npflows_work(model: str, size: str) -> Work:
    """A compiled loop over calls, and one of Python."""
    flow = make_flow(model, size)
    density, x = npflows.embed(flow), make_data(64, flow.input_dim).astype(np.float64)

    def compiled(loop: Callable) -> Callable[[int], Any]:
        return lambda repeats: loop(density, x, STEPS * repeats)

    def python(method: Callable) -> Callable[[int], Any]:
        return lambda repeats: [method(x[i % len(x)]) for i in range(STEPS * repeats)]

    work = {("compiled", what): compiled(loop) for what, loop in LOOPS.items()}
    return work | {("Python", VALUE): python(flow.log_prob), ("Python", GRADIENT): python(flow.log_prob_and_grad)}


def jitted(log_prob: Callable, x: np.ndarray) -> dict[str, Callable[[int], Any]]:
    """Loops over calls that XLA compiles as a whole, in the dtype of x, by what they compute."""
    import jax

    double = x.dtype == np.float64
    with jax.enable_x64(double):
        rows = jax.numpy.asarray(x)

    def with_gradient(row: Any) -> Any:
        value, slope = jax.value_and_grad(log_prob)(row)
        return value + slope[0]

    def run(one: Callable) -> Callable[[int], Any]:
        loop = jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, total: total + one(rows[i % 64]), rows[0, 0]))

        def repeated(repeats: int) -> None:
            with jax.enable_x64(double):
                loop(STEPS * repeats).block_until_ready()

        return repeated

    return {VALUE: run(log_prob), GRADIENT: run(with_gradient)}


def jax_work(model: str, size: str) -> Work:
    """npflows in JAX; nothing where that is not installed."""
    if importlib.util.find_spec("jax") is None:
        return {}
    import jax

    from npflows.hosts.jax import log_prob

    flow = make_flow(model, size)
    with jax.enable_x64(True):
        function = log_prob(npflows.embed(flow))
    loops = jitted(function, make_data(64, flow.input_dim).astype(np.float64))
    return {("in JAX", what): loop for what, loop in loops.items()}


def flowjax_work(model: str, size: str) -> Work:
    """flowjax's own flow, in float32; nothing where it is not installed."""
    if importlib.util.find_spec("flowjax") is None:
        return {}
    import jax
    from flowjax import bijections, distributions, flows

    dim, hidden = SIZES[size]
    base = distributions.Normal(jax.numpy.zeros(dim, np.float32))
    options: dict[str, Any] = {"nn_width": hidden[0], "nn_depth": len(hidden)}
    if model != "MAF":
        options["transformer"] = bijections.RationalQuadraticSpline(knots=8, interval=3)
    make = flows.coupling_flow if model == "coupling spline" else flows.masked_autoregressive_flow
    layers = 8 if model == "coupling spline" else 5
    flow = make(jax.random.key(0), base_dist=base, flow_layers=layers, **options)
    loops = jitted(flow.log_prob, make_data(64, dim).astype(np.float32))
    return {("flowjax", what): loop for what, loop in loops.items()}


def zuko_work(model: str, size: str) -> Work:
    """zuko's flow, one row at a time; nothing where it is not installed."""
    if importlib.util.find_spec("zuko") is None:
        return {}
    import torch
    import zuko

    torch.set_num_threads(1)
    dim, hidden = SIZES[size]
    if model == "MAF":
        flow = zuko.flows.MAF(dim, transforms=5, hidden_features=hidden)
    else:
        passes = 2 if model == "coupling spline" else None
        flow = zuko.flows.NSF(dim, transforms=8 if passes else 5, bins=8, hidden_features=hidden, passes=passes)
    x = torch.as_tensor(make_data(64, dim), dtype=torch.float32)

    def value(repeats: int) -> None:
        with torch.no_grad():
            for i in range(STEPS * repeats):
                flow().log_prob(x[i % 64])

    def with_gradient(repeats: int) -> None:
        for i in range(STEPS * repeats):
            row = x[i % 64].clone().requires_grad_()
            torch.autograd.grad(flow().log_prob(row), row)

    return {("zuko", VALUE): value, ("zuko", GRADIENT): with_gradient}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, for CI")
    rounds, at_least = (1, 1e-4) if parser.parse_args().quick else (40, 0.002)
    print(machine())
    whose = ["compiled", "in JAX", "Python", "flowjax", "zuko"]
    print(f"\nus per call, one thread\n\n| | {' | '.join(whose)} |\n| ---{' | ---' * len(whose)} |")
    for model, size in CASES:
        work = {}
        for contender in (npflows_work, jax_work, flowjax_work, zuko_work):
            work |= contender(model, size)
        seconds = interleaved(work, rounds, at_least)
        for what in LOOPS:
            best = [f"{seconds[who, what].min() / STEPS * 1e6:.1f}" if (who, what) in work else "" for who in whose]
            print(f"| {model}, {size}: {what} | {' | '.join(best)} |", flush=True)


if __name__ == "__main__":
    main()
