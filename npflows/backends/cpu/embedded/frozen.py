"""The frame of a density: what it points to, and how it is called from Python."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.compiler.calls import address
from npflows.backends.cpu.embedded import frame as at
from npflows.backends.cpu.embedded import xla
from npflows.backends.cpu.embedded.entries import address_of
from npflows.backends.cpu.embedded.memory import LINE
from npflows.backends.cpu.embedded.stubs import stub
from npflows.backends.cpu.embedded.typing import DENSITY
from npflows.backends.cpu.kernels import supports
from npflows.backends.cpu.link import LANE_MULTIPLE, bits
from npflows.backends.cpu.program import CompiledProgram
from npflows.core.backend import Frozen

WIDTHS = (128, 64, 32, LANE_MULTIPLE)
"""Rows of a block, the widest one whose slot of scratch memory has at most SLOT_BYTES."""
SLOT_BYTES = 1 << 20
ALL_BYTES = 1 << 28
"""Memory for slots, about; it is only taken from the system when a slot is first used."""
LEAST_SLOTS = 16
TURNED_BYTES = 1 << 20
"""Weights up to which a gradient reads them by column on its way forward, and by row on its way back: with more, two copies
of them do not fit into the cache of a CPU core, which costs more than columns gain."""

_EVALUATE = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 10)
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 8)


class CompiledDensity:
    """A density in this process; see `npflows.core.backend.Embedded`.

    Parameters
    ----------
    program : CompiledProgram
    frozen : Frozen
    """

    numba_type = DENSITY

    def __init__(self, program: CompiledProgram, frozen: Frozen) -> None:
        self._program = program
        one = program.has_one_lane
        self._turns_gradient = one and program.turned_bytes() <= TURNED_BYTES
        self._plans = [
            program.plan(inverse, gradient, one_lane, by_column=one_lane and (self._turns_gradient or not gradient))
            for one_lane in (False, one)
            for inverse, gradient in ((False, False), (False, True), (True, False))
        ]
        f = self._frame = np.zeros(at.SIZE, np.int64)
        self.handle = int(f.ctypes.data)
        f[at.EVALUATE], f[at.SAMPLE] = (address_of(kind, program.dtype) for kind in ("evaluate", "sample"))
        f[at.ABI], f[at.ONE_LANE] = at.VERSION, one
        for i, plan in enumerate(self._plans):
            f[at.VALUE_PLAN + 2 * i], f[at.VALUE_PLAN + 2 * i + 1] = plan.ctypes.data, plan.size
        columns, conditions = program.input_dim, program.condition_dim
        f[at.DIM] = f[at.COLUMNS] = columns
        f[at.CONDITIONS] = conditions
        self._make_slots(columns, conditions)
        self.set(frozen)
        self._stubs: dict[tuple[str, bool], tuple[Any, int]] = {}
        self._evaluate, self._sample = _EVALUATE(int(f[at.EVALUATE])), _SAMPLE(int(f[at.SAMPLE]))
        _alive.add(self)

    def _make_slots(self, columns: int, conditions: int) -> None:
        """Scratch memory for as many threads as are likely to come at once."""
        f, itemsize = self._frame, self._program.dtype.itemsize
        rows = max(self._program.scratch_rows)
        for width in WIDTHS:
            # what `evaluate_block` carves for a row: five numbers, five rows of values and three of conditions
            numbers = -(-width * (5 + 5 * columns + 3 * conditions) // 8) * 8
            n_bytes = -(-(LINE + 8 * numbers + itemsize * rows * width) // LINE) * LINE
            if n_bytes <= SLOT_BYTES:
                break
        n = LEAST_SLOTS
        while n < 2 * (os.cpu_count() or 1):
            n *= 2
        while n > 1 and n * n_bytes > ALL_BYTES:
            n //= 2
        memory = np.zeros(n * n_bytes + LINE, np.uint8)
        start = -memory.ctypes.data % LINE
        self._slots = memory[start : start + n * n_bytes].reshape(n, n_bytes)
        f[at.SLOTS], f[at.N_SLOTS], f[at.SLOT_BYTES] = self._slots.ctypes.data, n, n_bytes
        f[at.SLOT_DOUBLES], f[at.SCRATCH_ROWS], f[at.WIDTH] = numbers, rows, width

    def set(self, frozen: Frozen) -> None:
        """Take other numbers; the handle stays."""
        f, dtype = self._frame, self._program.dtype
        theta = np.array(frozen.state.theta, dtype)
        affine, condition_affine = (np.array(table, np.float64) for table in frozen.state[1:])
        ways = [self._program.turned(theta, inverse) for inverse in (False, True)] if f[at.ONE_LANE] else [theta, theta]
        kept = [theta, affine, condition_affine, *ways]
        f[at.THETA], f[at.FORWARD_THETA], f[at.INVERSE_THETA] = (array.ctypes.data for array in (theta, *ways))
        f[at.GRADIENT_THETA] = f[at.FORWARD_THETA if self._turns_gradient else at.THETA]
        f[at.THETA_SIZE] = theta.size
        f[at.AFFINE], f[at.AFFINE_ROWS] = affine.ctypes.data, len(affine)
        f[at.CONDITION_AFFINE], f[at.CONDITION_COLUMNS] = condition_affine.ctypes.data, condition_affine.shape[1]
        f[at.FAR] = bits(frozen.farthest)[0]
        f[at.CONDITION_DIM], f[at.FIXED] = f[at.CONDITIONS], 0
        if frozen.condition is not None:
            kept.append(np.array(frozen.condition, np.float64))
            f[at.CONDITION_DIM], f[at.FIXED] = 0, kept[-1].ctypes.data
        if frozen.supports is not None:
            real = np.dtype(np.float64)
            spec = np.array(supports.pack(frozen.supports), np.int64)
            integers = np.array(frozen.supports.integer, np.int64)
            places, keys = np.array(frozen.places, np.float64), np.array(frozen.keys, np.uint64)
            kept += [spec, integers, places, keys]
            f[at.SUPPORT], f[at.SUPPORT_SIZE] = spec.ctypes.data, spec.size
            f[at.TO_LINE] = address(supports.to_line, "support", real)
            f[at.TO_LINE_VJP] = address(supports.to_line_vjp, "support_vjp", real)
            f[at.FROM_LINE] = address(supports.from_line, "support_inverse", real)
            f[at.INTEGERS], f[at.N_INTEGERS] = integers.ctypes.data, integers.size
            f[at.PLACES], f[at.N_PLACES] = places.ctypes.data, len(places) if integers.size else 0
            f[at.LEVELS], f[at.KEYS] = frozen.supports.levels, keys.ctypes.data
        self._kept = kept

    def free_slots(self) -> None:
        """Give all slots back: in a fork, the threads that had them are not there any more."""
        self._slots[:, :8] = 0

    def evaluate(
        self, x: NDArray, condition: NDArray | None, grad: NDArray | None, dcondition: NDArray | None, out: NDArray
    ) -> int:  # fmt: skip
        """Call the entry for rows x (n, dim) and conditions (1 or n, condition_dim); its status."""
        rows = (None, 0, 0) if condition is None else (condition.ctypes.data, *condition.shape)
        return self._evaluate(x.ctypes.data, *x.shape, *rows, _data(grad), _data(dcondition), out.ctypes.data, self.handle)

    def sample(self, z: NDArray, condition: NDArray | None, x: NDArray) -> int:
        """Call the entry for samples; its status."""
        rows = (None, 0, 0) if condition is None else (condition.ctypes.data, *condition.shape)
        return self._sample(z.ctypes.data, *z.shape, *rows, x.ctypes.data, self.handle)

    def entry(self, kind: str) -> int:
        """The address of the entry "evaluate" or "sample", or of the handler "xla"."""
        if kind == "xla":
            return xla.address()
        return int(self._frame[at.EVALUATE if kind == "evaluate" else at.SAMPLE])

    def stub(self, signature: str, exponential: bool) -> int:
        """The address of a function without a handle among its arguments, which lives as long as this object."""
        key = signature, exponential
        if key not in self._stubs:
            self._stubs[key] = stub(self.handle, int(self._frame[at.DIM]), signature, exponential)
        return self._stubs[key][1]


def _data(array: NDArray | None) -> int | None:
    return None if array is None else array.ctypes.data


_alive: weakref.WeakSet[CompiledDensity] = weakref.WeakSet()


def _free_all_slots() -> None:
    for density in list(_alive):
        density.free_slots()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all_slots)
