"""The JSON file that the races add to, so that they can be cut off and go on."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """The findings so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def update(path: Path, found: dict[str, Any]) -> None:
    """Add to the file; it is written in full or not at all."""
    together = {**read(path), **found}
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(together, indent=1))
    os.replace(partial, path)


def conditions(threads: int) -> dict[str, Any]:
    """The day and the machine of a race."""
    import npflows
    from benchmarks.common import machine

    npflows.set_num_threads(threads)
    return {"date": datetime.date.today().isoformat(), "machine": machine(), "threads": threads}
