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
    options = {} if a.architecture is None else _architecture(a.architecture, a.library)
    flow = function(a.file, **options)
    flow.save(a.output)
    if not a.quiet:
        print(f"wrote {a.output}: {flow.input_dim} columns, {flow.num_params:,} parameters, {flow.dtype.name}")
    return 0


def _architecture(path: str, library: str) -> dict[str, Any]:
    """The arguments of a converter from a file of JSON."""
    try:
        options = json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON, which is UTF-8 ({error})") from None
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f'{path} must hold a JSON object such as {{"activation": "tanh"}}, got {json.dumps(options)[:60]}')
    known = [name for name in inspect.signature(LIBRARIES[library]).parameters if name != "flow"]
    for name in options:
        if name not in known:
            raise ValueError(f"{path}: {library} has no {name!r}; {did_you_mean(name, known)}")
    return options


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, after a check that it has no name twice."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"has {twice!r} twice")
    return dict(pairs)
