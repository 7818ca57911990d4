"""Where flows run: compiled on the CPU by Numba; or in NumPy alone, where Numba can't be imported.

``NPFLOWS_BACKEND=reference`` in the environment chooses NumPy although Numba is there.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys

from npflows.core.backend import Backend, register_backend

MODULES = {"cpu": "npflows.backends.cpu.backend", "reference": "npflows.backends.reference"}
"""The module that holds each backend that runs in any process, as `BACKEND`."""
DEVICES = {"cuda": "npflows.backends.cuda.backend"}
"""The same of those that need a device."""


def _obstacle() -> str | None:
    """Why the compiled backend can't be used, if it can't."""
    wanted = os.environ.get("NPFLOWS_BACKEND", "cpu")
    if wanted not in MODULES:
        raise ValueError(f"NPFLOWS_BACKEND must be {' or '.join(map(repr, MODULES))}, got {wanted!r}")
    if wanted == "reference":
        return "NPFLOWS_BACKEND=reference"
    try:
        importlib.import_module("numba")
    except Exception as error:  # not installed, or too old or too new for this Python or NumPy
        return f"Numba can't be imported ({error})"
    return None


def _load(name: str) -> Backend:
    return importlib.import_module({**MODULES, **DEVICES}[name]).BACKEND


_reason = _obstacle()
if _reason is not None:
    _chosen = os.environ.get("NPFLOWS_BACKEND") == "reference"
    _remedy = "leave NPFLOWS_BACKEND unset" if _chosen else "pip install numba scipy"
    print(
        f"npflows: {_reason}: flows are evaluated by NumPy alone, which is slower, and can't be fitted; to fit and to be "
        f"fast, {_remedy}",
        file=sys.stderr,
    )
for _name in MODULES if _reason is None else ["reference"]:
    register_backend(_name, functools.partial(_load, _name))
if _reason is None:
    for _name in DEVICES:
        register_backend(_name, functools.partial(_load, _name), on_demand=True)
