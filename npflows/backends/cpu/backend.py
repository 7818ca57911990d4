"""The CPU backend: kernels compiled by Numba, run on threads without the GIL."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu import ahead
from npflows.backends.cpu.compiler.folders import cache_directory
from npflows.backends.cpu.compiler.jit import DISABLED
from npflows.backends.cpu.compiler.target import environment
from npflows.backends.cpu.kernels import counters, spline
from npflows.backends.cpu.kernels.activations import ACTIVATIONS
from npflows.backends.cpu.link import KERNELS, LANE_MULTIPLE, Link, pack_map, scratch, temp_of_map
from npflows.backends.cpu.program import CompiledProgram
from npflows.backends.cpu.threads import pool as threads
from npflows.core.backend import Embedded, Frozen
from npflows.core.counters import Place
from npflows.core.operations import Network, Program, Spline

_FROZEN = "npflows.backends.cpu.embedded.frozen"  # has no form that is not compiled


class CpuBackend:
    """See `npflows.core.backend.Backend`."""

    name = "cpu"
    can_train = True

    def compile(self, program: Program, dtype: np.dtype) -> CompiledProgram:
        """Make a program ready to run; kernels are compiled when they are first wanted."""
        return CompiledProgram(program, dtype)

    def network(self, operation: Network, theta: NDArray, x: NDArray) -> NDArray:
        """The outputs (n, n_out) of a network for inputs (n, n_in), without dropout and without a condition."""
        n, (work_rows, temp_rows) = len(x), scratch(operation)
        lanes = -(-max(n, 1) // LANE_MULTIPLE) * LANE_MULTIPLE
        block = np.zeros((operation.n_in, lanes), theta.dtype)
        block[:, :n] = x.T
        out, work, temp = (np.empty((m, lanes), theta.dtype) for m in (operation.n_out, work_rows, temp_rows))
        forward, _ = KERNELS[type(operation)].roles["forward"]
        spec = np.array(Link(theta.dtype, (forward,)).pack(operation), np.int64)
        forward(spec, theta, block[:0], 0, 0, block, out, work, temp)
        return out[:, :n].T.astype(np.float64)

    def activate(self, activation: str, values: NDArray) -> None:
        """Apply an activation function to an array (rows, columns) of the compute dtype, in place."""
        function, _ = ACTIVATIONS[activation]
        function(values, values.copy())

    def spline(self, operation: Spline, x: NDArray, constrained: NDArray, inverse: bool) -> tuple[NDArray, NDArray]:
        """Map x (n, d) by splines of given bins; see `npflows.core.backend.Backend`."""
        n, d = x.shape
        block, log_det = np.ascontiguousarray(x.T), np.zeros(n)
        rows = np.ascontiguousarray(constrained.transpose(1, 2, 0)).reshape(d * operation.multiplier, n)
        function = spline.constrained_inverse if inverse else spline.constrained
        temp = np.empty((temp_of_map(operation, 1), n), block.dtype)
        function(np.array(pack_map(operation), np.int64), block, rows, log_det, temp)
        return np.ascontiguousarray(block.T), log_det

    def embed(self, executable: CompiledProgram, frozen: Frozen) -> Embedded | None:
        """A density for compiled callers; see `npflows.core.backend.Backend`."""
        return None if DISABLED else importlib.import_module(_FROZEN).CompiledDensity(executable, frozen)

    def uniforms(self, place: Place, n: int) -> NDArray:
        """n uniform numbers; see `npflows.core.backend.Backend`."""
        return _pairs(place, n, is_normal=False)

    def normals(self, place: Place, n: int) -> NDArray:
        """n standard normal numbers; see `npflows.core.backend.Backend`."""
        return _pairs(place, n, is_normal=True)

    def student_ts(self, place: Place, n: int, df: NDArray) -> NDArray:
        """n rows of Student's t; see `npflows.core.backend.Backend`."""
        values = np.empty((n, len(df)))
        _draw(counters.draw_student_t, "draw_student_t", values.size, (*place, df, values.ravel()))
        return values

    def cache_folder(self) -> Path | None:
        """The folder in which kernels are kept; None where nothing can be written, or nothing is compiled."""
        return None if DISABLED else cache_directory()

    def parts(self, program: Program, dtype: np.dtype) -> list[str]:
        """The names of what has to be compiled for a program, what takes longest first."""
        return [] if DISABLED else ahead.parts(program, dtype)

    def compile_part(self, part: str) -> None:
        """Compile what `parts` names, and keep it in the cache folder."""
        ahead.compile_part(part)

    def target_environment(self, target: str | None) -> dict[str, str]:
        """The variables under which a process compiles for a target; see `npflows.core.backend.Backend`."""
        return environment(target)


def _pairs(place: Place, n: int, *, is_normal: bool) -> NDArray:
    """n values of a law of which a block has two."""
    key, first = place
    skipped = first % 2
    values = np.empty(skipped + n)
    _draw(counters.draw, "draw", -(-len(values) // 2), (key, first // 2, int(is_normal), values))
    return values[skipped:]


def _draw(function: Callable, kind: str, blocks: int, arguments: tuple) -> None:
    real = np.dtype(np.float64)
    threads.run(function, kind, -(-blocks // counters.PIECE), counters.SCRATCH * real.itemsize, real, arguments)


BACKEND = CpuBackend()
