"""Single kernels on one thread: elementary functions and matrix products, each beside NumPy, and the spline map."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from npflows.core.operations import Affine

from . import loops, products, spline_map
from .common import DTYPES, QUICK, Repeat, few, interleaved

N = 4096
ROUNDS, AT_LEAST = (1, 1e-4) if QUICK else (15, 2e-3)
IN_NUMPY = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "softplus": lambda x, out: np.logaddexp(0, x, out=out)}


def best(run: Repeat) -> float:
    """Seconds in the best round."""
    return float(interleaved({"": run}, ROUNDS, AT_LEAST)[""].min())


class Functions:
    """Nanoseconds that an elementary function takes for an element of an array of 4096."""

    params = (list(loops.FUNCTIONS), few(*DTYPES))
    param_names = ("function", "dtype")
    unit = "ns/element"
    timeout = 180

    def setup(self, function: str, dtype: str) -> None:
        self.x = np.abs(np.random.default_rng(0).normal(0, 3, N)).astype(dtype)
        self.out = np.empty_like(self.x)

    def track_npflows(self, function: str, dtype: str) -> float:
        which = loops.FUNCTIONS.index(function)
        return best(lambda repeats: loops.own_function(which, self.x, self.out, repeats)) / N * 1e9

    def track_numpy(self, function: str, dtype: str) -> float:
        call = IN_NUMPY[function]

        def run(repeats: int) -> None:
            for _ in range(repeats):
                call(self.x, out=self.out)

        return best(run) / N * 1e9


class Products:
    """GFLOP/s of one thread in products of a square matrix with a block: more is better."""

    params = (list(products.FORMULAS), few(8, 16, 32, 64, 128, 256, 512), few(128, 16), few(*DTYPES))
    param_names = ("product", "size", "lanes", "dtype")
    unit = "GFLOP/s"
    timeout = 180

    def _rate(self, contender: str, product: str, size: int, lanes: int, dtype: str) -> float:
        run = products.CONTENDERS[contender](product, size, size, lanes, dtype)
        run(1)
        with threadpool_limits(1):
            return 2e-9 * size * size * lanes / best(run)

    def track_npflows(self, product: str, size: int, lanes: int, dtype: str) -> float:
        return self._rate("npflows", product, size, lanes, dtype)

    def track_numpy(self, product: str, size: int, lanes: int, dtype: str) -> float:
        return self._rate("NumPy", product, size, lanes, dtype)

    def track_scipy(self, product: str, size: int, lanes: int, dtype: str) -> float:
        return self._rate("SciPy", product, size, lanes, dtype)


class AffineMap:
    """Nanoseconds that a kernel of the affine map takes for a value, from raw parameters (the vjp: from what the map left),
    in blocks of 7 values: those of MAF shift first.  The copies of what it overwrites are subtracted."""

    params = (["forward", "inverse", "vjp"], ["none", "tanh", "sigmoid"], [True, False], few(256, 16), few(*DTYPES))
    param_names = ("kernel", "scale_activation", "shift_first", "lanes", "dtype")
    unit = "ns/value"
    timeout = 180

    def setup(self, kernel: str, scale_activation: str, shift_first: bool, lanes: int, dtype: str) -> None:
        scalar_map = Affine(scale_activation, shift_first=shift_first)
        work = spline_map.OwnMap(scalar_map, lanes, dtype).work()
        self.work = {key: run for key, run in work.items() if key[0] == kernel}

    def track_npflows(self, kernel: str, scale_activation: str, shift_first: bool, lanes: int, dtype: str) -> float:
        seconds = interleaved(self.work, ROUNDS, AT_LEAST)
        return float(spline_map.nanoseconds(seconds, lanes)[kernel].min())


class SplineMap:
    """Nanoseconds that a kernel of the rational-quadratic spline takes for a value, from raw parameters (the vjp: from
    what the map left), in blocks of 7 values.  The copies of what it overwrites are subtracted."""

    params = (["forward", "inverse", "vjp"], few(8, 16), few(128, 256), few(*DTYPES))
    param_names = ("kernel", "bins", "lanes", "dtype")
    unit = "ns/value"
    timeout = 180

    def setup(self, kernel: str, bins: int, lanes: int, dtype: str) -> None:
        work = spline_map.Own(lanes, bins, dtype).work()
        self.work = {key: run for key, run in work.items() if key[0] == kernel}

    def track_npflows(self, kernel: str, bins: int, lanes: int, dtype: str) -> float:
        seconds = interleaved(self.work, ROUNDS, AT_LEAST)
        return float(spline_map.nanoseconds(seconds, lanes)[kernel].min())
