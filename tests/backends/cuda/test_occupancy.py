"""Warps that a multiprocessor holds, as NVIDIA's occupancy calculator counts them."""

import pytest
from occupancy import resident_warps


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "capability", "warps"),
    [
        (32, 128, 0, "90", 64),  # 1,024 registers for a warp, of 65,536
        (33, 128, 0, "90", 48),  # given in steps of 256, and warps in fours
        (168, 128, 0, "90", 12),
        (168, 256, 0, "90", 8),  # whole blocks
        (255, 128, 0, "70", 8),
        (32, 32, 0, "80", 32),  # 32 blocks at most
        (32, 256, 100 << 10, "90", 16),  # two blocks in 228 kB
        (32, 256, 100 << 10, "80", 8),  # one in 164 kB
        (32, 128, 0, "80", 64),
        (32, 128, 48 << 10, "70", 8),  # two in 96 kB, of which 7.0 keeps nothing
    ],
)
def test_warps_are_limited_by_registers_memory_and_blocks(registers, threads, shared, capability, warps):
    assert resident_warps(registers, threads, shared, capability) == warps
