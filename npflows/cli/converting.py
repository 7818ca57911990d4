"""`npflows convert`: flows that other libraries trained."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npflows.cli.inputs import keep_inputs
from npflows.convert import (
    from_flowjax,
    from_glasflow,
    from_nflows,
    from_normflows,
    from_pyro,
    from_pzflow,
    from_sbi,
    from_zuko,
)
from npflows.core.columns import did_you_mean
from npflows.flow import NormalizingFlow

LIBRARIES: dict[str, Callable[..., NormalizingFlow]] = {
    "flowjax": from_flowjax,
    "glasflow": from_glasflow,
    "nflows": from_nflows,
    "normflows": from_normflows,
    "pyro": from_pyro,
    "pzflow": from_pzflow,
    "sbi": from_sbi,
    "zuko": from_zuko,
}


def convert(a: argparse.Namespace) -> int:
    """Read the file, and write the flow."""
    keep_inputs(a.output, a.file, *([] if a.architecture is None else [a.architecture]))
    function = LIBRARIES[a.library]
    options: Any = {} if a.architecture is None else json.loads(Path(a.architecture).read_text(encoding="utf-8"))
    if not isinstance(options, dict):
        raise ValueError(f"{a.architecture} must hold a JSON object, got {type(options).__name__}")
    known = [name for name in inspect.signature(function).parameters if name != "flow"]
    for name in options:
        if name not in known:
            raise ValueError(f"{a.architecture}: {a.library} has no {name!r}; {did_you_mean(name, known)}")
    flow = function(a.file, **options)
    flow.save(a.output)
    if not a.quiet:
        print(f"wrote {a.output}: {flow.input_dim} columns, {flow.num_params:,} parameters, {flow.dtype.name}")
    return 0
