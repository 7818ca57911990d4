"""Where the interpreters of the peers' environments lie."""

from __future__ import annotations

import sys
from pathlib import Path

NAMES = ("torch", "jax")
"""Each with a file requirements-NAME.txt of pinned versions."""


def python_of(folder: Path, name: str | None) -> str:
    """The interpreter of an environment; this one for None."""
    if name is None:
        return sys.executable
    places = [Path(folder, name, *part) for part in (("bin", "python"), ("Scripts", "python.exe"))]
    for place in places:
        if place.exists():
            return str(place.absolute())
    raise SystemExit(f"{folder} has no environment {name!r}: run python benchmarks/peers/make_environments.py {folder}")
