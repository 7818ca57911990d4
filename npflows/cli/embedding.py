"""`npflows embed`: declarations for compiled callers of densities."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

FILES = {"header": "npflows.h", "fortran": "npflows.f90"}


def declarations(a: argparse.Namespace) -> int:
    """Print the C header or the Fortran module, or write it to a file."""
    text = (resources.files("npflows.data") / FILES[a.language]).read_text(encoding="utf-8")
    if a.output is None:
        print(text, end="")
    else:
        Path(a.output).write_text(text, encoding="utf-8")
        if not a.quiet:
            print(f"wrote {a.output}")
    return 0
