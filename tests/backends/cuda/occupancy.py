"""How many warps of a kernel a multiprocessor holds at a time.

The limits are those of NVIDIA's CUDA C++ Programming Guide, "Compute Capabilities", table "Technical Specifications per
Compute Capability", and of its occupancy calculator.
"""

from __future__ import annotations

WARP, REGISTERS, WARPS, BLOCKS = 32, 65536, 64, 32
"""Threads of a warp; registers, warps and blocks of a multiprocessor of capabilities 7.0, 8.0 and 9.0."""
REGISTER_UNIT, WARP_UNIT = 256, 4
"""Registers that a warp is given at a time, and warps: one for each of the four schedulers."""
SHARED = {"70": (96 << 10, 0, 256), "80": (164 << 10, 1 << 10, 128), "90": (228 << 10, 1 << 10, 128)}
"""Shared memory of a multiprocessor, what of it CUDA keeps for each block, and how much is given at a time, in bytes."""


def resident_warps(registers: int, threads: int, shared_bytes: int, capability: str) -> int:
    """Warps of a kernel with so many registers for a thread, and threads and shared memory for a block."""
    warps = -(-threads // WARP)
    for_warp = -(-registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    by_registers = REGISTERS // for_warp // WARP_UNIT * WARP_UNIT // warps
    whole, kept, unit = SHARED[capability]
    by_memory = whole // (-(-(shared_bytes + kept) // unit) * unit) if shared_bytes + kept else BLOCKS
    return min(by_registers, by_memory, BLOCKS, WARPS // warps) * warps
