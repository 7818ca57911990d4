"""GFLOP/s of one thread in matrix products: npflows' own tiles beside NumPy's and SciPy's BLAS.

    python benchmarks/products.py [--quick]

prints Markdown tables.  Every shape's three are timed in turn, round by round, and the best round is
shown.  OpenBLAS may not know a new CPU and fall back to kernels for an older one: the second line says which it uses, and
OPENBLAS_CORETYPE=SkylakeX in the environment makes it use AVX-512.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks import loops
from benchmarks.common import DTYPES, Repeat, interleaved, machine
from npflows.backends.cpu.compiler.calls import address
from npflows.backends.cpu.kernels.matmul import PRODUCT
from npflows.backends.cpu.kernels.outer import OUTER, PANEL_ROWS

FORMULAS = {
    "product": "c (m, lanes) = a (m, k) @ b (k, lanes)",
    "transposed": "c (m, lanes) = a (k, m).T @ b (k, lanes)",
    "outer": "c (m, k) += a (m, lanes) @ b (k, lanes).T",
}
SHAPES = [(8, 8), (64, 8), (16, 64), (32, 32), (64, 64), (128, 128), (256, 256), (512, 64), (128, 512), (512, 512)]
LANES = [16, 64, 128, 256]


def operands(kind: str, m: int, k: int, lanes: int, dtype: str) -> tuple[np.ndarray, ...]:
    """a, b and c of a product."""
    shapes = {
        "product": [(m, k), (k, lanes), (m, lanes)],
        "transposed": [(k, m), (k, lanes), (m, lanes)],
        "outer": [(m, lanes), (k, lanes), (m, k)],
    }
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes[kind])


def own(kind: str, m: int, k: int, lanes: int, dtype: str) -> Repeat:
    """npflows' tiles, called by address as the layers call them."""
    number = address(*(OUTER if kind == "outer" else PRODUCT), np.dtype(dtype))
    loop: Callable[..., None] = getattr(loops, f"own_{kind}")
    a, b, c = operands(kind, m, k, lanes, dtype)
    if kind == "outer":
        c[:] = 0
        panel = np.empty(PANEL_ROWS * lanes, dtype)
        return lambda repeats: loop(number, np.zeros(0, np.int64), a, b, panel, c, repeats)
    return lambda repeats: loop(number, a, b, c, repeats)


def with_numpy(kind: str, m: int, k: int, lanes: int, dtype: str) -> Repeat:
    """numpy.matmul, called from Python."""
    a, b, c = operands(kind, m, k, lanes, dtype)
    a, b = (a.T if kind == "transposed" else a), (b.T if kind == "outer" else b)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            np.matmul(a, b, out=c)

    return run


def with_scipy(kind: str, m: int, k: int, lanes: int, dtype: str) -> Repeat:
    """SciPy's BLAS, called from compiled code by Numba."""
    loop: Callable[..., None] = getattr(loops, f"scipy_{kind}")
    a, b, c = operands(kind, m, k, lanes, dtype)
    return lambda repeats: loop(a, b, c, repeats)


CONTENDERS = {"npflows": own, "NumPy": with_numpy, "SciPy": with_scipy}


def rates(kind: str, m: int, k: int, lanes: int, dtype: str, rounds: int, at_least: float) -> dict[str, float]:
    """GFLOP/s of each contender in its best round."""
    work = {name: make(kind, m, k, lanes, dtype) for name, make in CONTENDERS.items()}
    seconds = interleaved(work, rounds, at_least)
    return {name: 2e-9 * m * k * lanes / float(s.min()) for name, s in seconds.items()}


def libraries() -> str:
    """The BLAS libraries in this process."""
    found = [i for i in threadpool_info() if i["user_api"] == "blas"]
    return ", ".join(f"{i['internal_api']} {i['version']} ({i.get('architecture')}) of "
                     f"{'SciPy' if 'scipy.libs' in i['filepath'] else 'NumPy'}" for i in found)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few shapes, for CI")
    quick = parser.parse_args().quick
    shapes, lanes = (SHAPES[:2], LANES[:2]) if quick else (SHAPES, LANES)
    rounds, at_least = (1, 1e-4) if quick else (15, 1e-3)
    for kind in FORMULAS:
        with_scipy(kind, 8, 8, 16, "float32")(1)  # SciPy's BLAS is there to be limited
    print(f"{machine()}\n{libraries()}\n\nGFLOP/s of one thread: npflows / NumPy / SciPy")
    with threadpool_limits(1):
        for dtype in DTYPES:
            for kind, formula in FORMULAS.items():
                print(f"\n{dtype}, {formula}\n")
                print(f"| m x k | {' | '.join(f'{n} lanes' for n in lanes)} |\n| ---{' | ---' * len(lanes)} |")
                for m, k in shapes:
                    cells = [" / ".join(f"{rate:.0f}" for rate in rates(kind, m, k, n, dtype, rounds, at_least).values())
                             for n in lanes]  # fmt: skip
                    print(f"| {m} x {k} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
