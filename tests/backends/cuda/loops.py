"""Which share of a kernel's innermost loops are multiply-adds, from its machine code.

It needs ``nvdisasm``: `pip install nvidia-cuda-nvdisasm`, or any other on the PATH.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LABEL = re.compile(r"^(\.L_x_\d+):")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)(.*)")
BRANCH = re.compile(r"`\((\.L_x_\d+)\)")


class Loop(NamedTuple):
    """The instructions of a turn of an innermost loop."""

    names: tuple[str, ...]

    def count(self, *beginnings: str) -> int:
        """Instructions whose names begin so."""
        return sum(name.startswith(beginnings) for name in self.names)

    @property
    def multiply_adds(self) -> int:
        return self.count("FFMA", "DFMA", "HMMA")

    @property
    def share(self) -> float:
        return self.multiply_adds / len(self.names)


def innermost_loops(lines: Sequence[str]) -> list[Loop]:
    """The loops of a disassembly that have no loop inside."""
    names: list[str] = []
    labels: dict[str, int] = {}
    found: list[tuple[int, int]] = []
    for line in lines:
        label, instruction = LABEL.match(line), INSTRUCTION.match(line)
        if label:
            labels[label[1]] = len(names)
        elif instruction:
            names.append(instruction[1])
            target = BRANCH.search(instruction[2]) if instruction[1].startswith("BRA") else None
            if target and labels.get(target[1], len(names)) < len(names):  # a branch back
                found.append((labels[target[1]], len(names)))
    starts = {start: min(end for begin, end in found if begin == start) for start, _ in found}
    inner = [
        (start, end)
        for start, end in starts.items()
        if not any(start < other and stop <= end for other, stop in starts.items() if other != start)
    ]
    return [Loop(tuple(names[start:end])) for start, end in inner]


def product_loops(cubin: bytes, least: int = 32) -> list[Loop]:
    """Innermost loops that read shared memory and have so many multiply-adds in a turn, or more."""
    beside = Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvdisasm")
    tool = shutil.which("nvdisasm") or next(map(str, beside))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        lines = subprocess.run([tool, "-c", file.name], check=True, capture_output=True, text=True).stdout.splitlines()
    return [loop for loop in innermost_loops(lines) if loop.multiply_adds >= least and loop.count("LDS")]
