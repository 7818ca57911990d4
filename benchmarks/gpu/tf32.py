"""How exact products are on tensor cores, emulated bit by bit: nothing runs on a GPU.

    python benchmarks/gpu/tf32.py              # products, in a minute
    python benchmarks/gpu/tf32.py --flows      # and whole flows, in which all else is float64, in some minutes

The emulation is npflows/backends/cuda/tf32.py.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ["NPFLOWS_BACKEND"] = "reference"

import npflows
from npflows.backends.cuda import tf32
from npflows.backends.reference import BACKEND, networks
from npflows.core import evaluation

ROWS, LANES, SAMPLES = 32, 512, 32


def in_float32(a: NDArray, b: NDArray) -> NDArray:
    """The product in float32, term after term, each rounded to nearest with the sum so far."""
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for p in range(len(b)):
        total = (total + a[:, p : p + 1].astype(float) * b[p]).astype(np.float32)
    return total


def in_tf32(a: NDArray, b: NDArray) -> NDArray:
    """The product of operands rounded to TF32, summed on tensor cores."""
    return tf32.multiply_add(tf32.rounded_number(a), tf32.rounded_number(b), np.zeros((len(a), b.shape[1]), np.float32))


def summed_inside(a: NDArray, b: NDArray) -> NDArray:
    """Three products in TF32, with all sums on tensor cores."""
    (big_a, small_a), (big_b, small_b) = tf32.split(a), tf32.split(b)
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for p in range(0, len(b), tf32.STEP):
        here = slice(p, p + tf32.STEP)
        for left, right in ((small_a, big_b), (big_a, small_b), (big_a, big_b)):
            total = tf32.multiply_add(left[:, here], right[here], total)
    return total


WAYS: dict[str, Callable[[NDArray, NDArray], NDArray]] = {
    "float32": in_float32,
    "3 x TF32, H100": tf32.product,
    "3 x TF32, A100": lambda a, b: tf32.product(a, b, tf32.A100),
    "3 x TF32, all sums inside": summed_inside,
    "TF32": in_tf32,
}


def errors(k: int) -> list[float]:
    """The root mean square of the errors of products of depth k in each way, relative to that of the result."""
    rng = np.random.default_rng(k)
    a = (rng.normal(size=(ROWS, k)) / np.sqrt(k)).astype(np.float32)  # as weights are drawn, and what follows a tanh
    b = np.tanh(rng.normal(size=(k, LANES))).astype(np.float32)
    exact = a.astype(float) @ b.astype(float)
    return [float(np.sqrt(np.mean((way(a, b) - exact) ** 2) / np.mean(exact**2))) for way in WAYS.values()]


class Rounded(np.ndarray):
    """An array of float64 whose products are those of float32 numbers, multiplied in some way."""

    way: Callable[[NDArray, NDArray], NDArray]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(one) for one in inputs]
        if ufunc is np.matmul:
            rows, weights = (one.astype(np.float32) for one in plain)  # (n, k) @ (k, m), of samples and of weights
            return Rounded.way(weights.T, rows.T).T.astype(float).view(Rounded)
        result = getattr(ufunc, method)(*plain, **options)
        return result.view(Rounded) if isinstance(result, np.ndarray) else result


@contextmanager
def multiplying(way: Callable[[NDArray, NDArray], NDArray]) -> Iterator[None]:
    """Let the reference multiply so in dense and masked networks."""
    weight, hidden = networks._weight, networks._hidden_layers

    def hidden_layers(*arguments: Any) -> Any:
        entering, before = hidden(*arguments)
        return [one.view(Rounded) for one in entering], before

    Rounded.way = staticmethod(way)
    networks._weight = lambda *arguments: weight(*arguments).view(Rounded)
    networks._hidden_layers = hidden_layers
    try:
        yield
    finally:
        networks._weight, networks._hidden_layers = weight, hidden


FLOWS = {
    "RealNVP D=64, 512x512, 8 layers": lambda: npflows.RealNVP(64, 8, (512, 512), rng=0),
    "MAF D=64, 512x512, 5 layers": lambda: npflows.MAF(64, 5, (512, 512), rng=0),
}


def density(flow: Any, x: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """log_prob, its gradient with respect to the samples, and that of its sum with respect to the parameters."""
    made = BACKEND.compile(flow.program(), flow.dtype)
    nothing = np.zeros((len(x), 0))
    result = evaluation.pullback(made, flow.state(), x=x, condition=nothing, dlog=np.ones(len(x)), input=True)
    return result.log_prob, result.dx, result.gradient


def compare(name: str) -> None:
    """Print how far a flow is off in each way: root mean squares, relative to those of the values."""
    flow, rng = FLOWS[name](), np.random.default_rng(1)
    flow.params = flow.params + 0.02 * rng.normal(size=flow.params.size)  # as after training: no layer is the identity
    x = rng.normal(size=(SAMPLES, 64))
    exact = density(flow, x)
    for way in ("float32", "3 x TF32, H100", "TF32"):
        with multiplying(WAYS[way]):
            found = density(flow, x)
        off = [f"{np.sqrt(np.mean((one - best) ** 2) / np.mean(best**2)):.1e}" for one, best in zip(found, exact)]
        print(f"| {name} | {way} | {' | '.join(off)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flows", action="store_true", help="whole flows too")
    arguments = parser.parse_args()
    print(f"| depth | {' | '.join(WAYS)} |\n| {' | '.join(['---'] * (len(WAYS) + 1))} |")
    for k in (8, 16, 32, 64, 128, 512, 2048):
        print(f"| {k} | {' | '.join(f'{error:.1e}' for error in errors(k))} |", flush=True)
    if arguments.flows:
        print("\n| flow | products | log_prob | its gradient: samples | parameters |\n| --- | --- | --- | --- | --- |")
        for name in FLOWS:
            compare(name)


if __name__ == "__main__":
    main()
