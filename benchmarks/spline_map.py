"""Nanoseconds that the rational-quadratic spline takes for a value, from raw parameters, on one thread.

    python benchmarks/spline_map.py [--quick]

prints a Markdown table: npflows' kernels on blocks of 7 values, called by address from compiled code as the layers call
them, and nflows (PyTorch, one thread), called from Python as its layers call it, where both are installed: then results
and gradients are compared first, and it ends with an error if they differ.

The kernels overwrite their parameters, so that each repeat begins with copies of them; the copies are timed by themselves
in the same rounds, and what they take at best is subtracted.  nflows overwrites nothing and needs none.  Its gradient comes
with the forward pass, so that it stands beside the sum of npflows' two.  The best round is shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import loops
from benchmarks.common import DTYPES, Repeat, interleaved, machine, repeated
from npflows.backends.cpu.compiler.calls import address
from npflows.backends.cpu.link import KERNELS, pack_map, temp_of_map
from npflows.core.operations import ScalarMap, Spline
from npflows.transformers.scalar_maps import spline

D, BINS = 7, 8
LANES = (128, 256)
ROWS = (512, 16384)
FORWARD, INVERSE, VJP, BOTH = "forward", "inverse", "vjp", "forward and vjp"
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""By how much results may differ, relative to the largest of an array."""


class Operands(NamedTuple):
    """Standard normal values and raw parameters, so that a few values lie outside the bound of 3, and cotangents."""

    x: np.ndarray  # (D, lanes)
    raw: np.ndarray  # (D * per_value, lanes)
    dy: np.ndarray  # (D, lanes)
    dlog_det: np.ndarray  # (lanes,)

    @classmethod
    def draw(cls, lanes: int, per_value: int, dtype: str) -> Operands:
        rng = np.random.default_rng(0)
        shapes = (D, lanes), (D * per_value, lanes), (D, lanes), (lanes,)
        return cls(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))


def spline_of(bins: int) -> Spline:
    """The spline with the constants that npflows' layers have by default."""
    return spline(bins, 3.0, 1e-3, 1e-3, 1e-3)


class OwnMap:
    """npflows' kernels of a scalar map without parameters of its own, on one block."""

    def __init__(self, scalar_map: ScalarMap, lanes: int, dtype: str) -> None:
        self.given, self.empty = Operands.draw(lanes, scalar_map.multiplier, dtype), np.zeros(0, dtype)
        self.spec, roles = np.array(pack_map(scalar_map), np.int64), KERNELS[type(scalar_map)].roles(scalar_map)
        self.temp = np.empty((temp_of_map(scalar_map, D), lanes), dtype)
        kinds = {FORWARD: "transformer", INVERSE: "transformer", VJP: "transformer_vjp"}
        self.addresses = {name: address(roles[name], kind, np.dtype(dtype)) for name, kind in kinds.items()}
        self.left = self.apply(FORWARD)[2]

    def apply(self, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """y and log_det, or x and its own; and what the kernel leaves of the raw parameters, for the vjp."""
        x, raw = self.given.x, self.given.raw
        y, used, log_det = np.empty_like(x), np.empty_like(raw), np.zeros(x.shape[1])
        loops.own_map(self.addresses[direction], self.spec, self.empty, x, raw, y, used, log_det, self.temp, 1)
        return y, log_det, used

    def gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """Of x and of the raw parameters."""
        dx, used = np.empty_like(self.given.x), np.empty_like(self.left)
        self._vjp(self.addresses[VJP], dx, used)(1)
        return dx, used

    def _vjp(self, number: int, dx: np.ndarray, used: np.ndarray) -> Repeat:
        x, _, dy, dlog_det = self.given
        return lambda repeats: loops.own_map_vjp(number, self.spec, self.empty, x, self.left, dy, dlog_det, dx, used,
                                                 self.empty, self.temp, repeats)  # fmt: skip

    def work(self) -> dict[tuple[str, bool], Repeat]:
        """Each kernel with the copies that it needs, and the copies alone."""
        x, raw = self.given.x, self.given.raw
        y, used, log_det = np.empty_like(x), np.empty_like(raw), np.zeros(x.shape[1])

        def run(number: int) -> Repeat:
            return lambda repeats: loops.own_map(number, self.spec, self.empty, x, raw, y, used, log_det, self.temp,
                                                 repeats)  # fmt: skip

        work = {}
        for direction, number in self.addresses.items():
            for with_kernel in (True, False):
                chosen = number if with_kernel else 0
                work[direction, with_kernel] = self._vjp(chosen, y, used) if direction == VJP else run(chosen)
        return work


class Own(OwnMap):
    """The spline's."""

    def __init__(self, lanes: int, bins: int, dtype: str) -> None:
        super().__init__(spline_of(bins), lanes, dtype)


def nanoseconds(seconds: Mapping[Any, np.ndarray], lanes: int) -> dict[str, np.ndarray]:
    """Nanoseconds of each kernel for a value in each round, from seconds of `Own.work`, less its copies at their best."""
    return {
        name: (seconds[name, True] - seconds[name, False].min()) / (D * lanes) * 1e9
        for name in (FORWARD, INVERSE, VJP)
        if (name, True) in seconds
    }


class Peer:
    """The spline of nflows, for the same parameters; raises ImportError where it or PyTorch is missing."""

    def __init__(self, rows: int, bins: int, dtype: str) -> None:
        import torch
        from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

        torch.set_num_threads(1)
        self.torch, self.function, self.bins = torch, unconstrained_rational_quadratic_spline, bins
        ours, m = spline_of(bins), 3 * bins - 1
        self.options = {
            "tails": "linear",
            "tail_bound": ours.tail_bound,
            "min_bin_width": ours.min_bin_width,
            "min_bin_height": ours.min_bin_height,
            "min_derivative": ours.min_derivative,
        }
        x, raw, dy, dlog_det = Operands.draw(rows, m, dtype)
        raw = raw.reshape(D, m, rows).transpose(2, 0, 1).copy()  # (rows, D, 3 * bins - 1), as its networks give them
        raw[..., 2 * bins :] += ours.derivative_shift  # npflows adds it, so that zeros give the identity; nflows does not
        self.x, self.raw, self.dy = (torch.from_numpy(a.copy()) for a in (x.T, raw, dy.T))
        self.dlog_det = torch.from_numpy(dlog_det)[:, None].expand(rows, D).contiguous()

    def _call(self, inverse: bool) -> tuple[Any, Any]:
        k = self.bins
        widths, heights, derivatives = self.raw[..., :k], self.raw[..., k : 2 * k], self.raw[..., 2 * k :]
        return self.function(self.x, widths, heights, derivatives, inverse, **self.options)

    def apply(self, direction: str) -> tuple[Any, Any]:
        """y and log_det of each value, or x and its own."""
        with self.torch.no_grad():
            return self._call(direction == INVERSE)

    def gradients(self) -> tuple[Any, Any]:
        """Of x and of the raw parameters, the forward pass included."""
        self.x.requires_grad_(True)
        self.raw.requires_grad_(True)
        return self.torch.autograd.grad(self._call(False), (self.x, self.raw), (self.dy, self.dlog_det))

    def work(self) -> dict[str, Repeat]:
        calls: dict[str, Callable[[], object]] = {
            FORWARD: lambda: self.apply(FORWARD),
            INVERSE: lambda: self.apply(INVERSE),
            BOTH: self.gradients,
        }
        return {name: repeated(call) for name, call in calls.items()}


def differences(lanes: int, bins: int, dtype: str) -> dict[str, float]:
    """The largest difference between npflows and nflows in each result, over the larger of 1 and its largest entry."""
    own, peer, m = Own(lanes, bins, dtype), Peer(lanes, bins, dtype), 3 * bins - 1
    pairs = {}
    for direction in (FORWARD, INVERSE):
        (y, log_det, _), (their_y, their_log_det) = own.apply(direction), peer.apply(direction)
        pairs[direction] = y, their_y.numpy().T
        pairs[f"log_det of {direction}"] = log_det, their_log_det.numpy().sum(axis=1)
    (dx, draw), (their_dx, their_draw) = own.gradients(), peer.gradients()
    pairs["gradient of x"] = dx, their_dx.numpy().T
    pairs["gradient of raw parameters"] = draw, their_draw.numpy().transpose(1, 2, 0).reshape(D * m, lanes)
    return {name: float(abs(a - b).max() / max(1.0, abs(b).max())) for name, (a, b) in pairs.items()}


def compare() -> str:
    """One line that says how well npflows and nflows agree; ends the program where they do not."""
    found = []
    for dtype in DTYPES:
        by_result = differences(LANES[-1], BINS, dtype)
        name, worst = max(by_result.items(), key=lambda item: item[1])
        if not worst <= TOLERANCE[dtype]:
            raise SystemExit(f"npflows and nflows differ in {dtype}: {by_result}")
        found.append(f"{worst:.1e} in {dtype} ({name})")
    return f"npflows and nflows differ by at most {', '.join(found)}"


def best(dtype: str, rows: tuple[int, ...], rounds: int, at_least: float) -> dict[tuple[str, str, int], float]:
    """Nanoseconds in the best round, by (what, whose, lanes or rows); whose may be "copies"."""
    own = {lanes: Own(lanes, BINS, dtype).work() for lanes in LANES}
    peer = {n: Peer(n, BINS, dtype).work() for n in rows}
    work = {(n, key): run for contenders in (own, peer) for n, runs in contenders.items() for key, run in runs.items()}
    seconds = interleaved(work, rounds, at_least)
    found = {}
    for lanes in LANES:
        mine = nanoseconds({key: seconds[lanes, key] for key in own[lanes]}, lanes)
        mine[BOTH] = mine[FORWARD] + mine[VJP]
        found.update({(what, "npflows", lanes): float(values.min()) for what, values in mine.items()})
        for what in (FORWARD, INVERSE, VJP):
            found[what, "copies", lanes] = seconds[lanes, (what, False)].min() / (D * lanes) * 1e9
        found[BOTH, "copies", lanes] = found[FORWARD, "copies", lanes] + found[VJP, "copies", lanes]
    for n in rows:
        found.update({(what, "nflows", n): seconds[n, what].min() / (D * n) * 1e9 for what in (FORWARD, INVERSE, BOTH)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, for CI")
    rounds, at_least = (1, 1e-4) if parser.parse_args().quick else (25, 0.01)
    rows = ROWS
    try:
        versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "nflows"))
    except PackageNotFoundError as error:
        rows = ()
        print(f"{machine()}\nnothing to compare with: {error}")
    else:
        print(f"{machine()}, {versions}\n{compare()}")
    print("\nns per value, one thread\n")
    columns = [("npflows", n) for n in LANES] + [("copies", n) for n in LANES] + [("nflows", n) for n in rows]
    head = [f"{whose}, {n} {'rows' if whose == 'nflows' else 'lanes'}" for whose, n in columns]
    print(f"| {BINS} bins | {' | '.join(head)} |\n| ---{' | ---' * len(head)} |")
    for dtype in DTYPES:
        found = best(dtype, rows, rounds, at_least)
        for what in (FORWARD, INVERSE, VJP, BOTH):
            cells = [f"{found[key]:.1f}" if (key := (what, *column)) in found else "" for column in columns]
            print(f"| {what}, {dtype} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
