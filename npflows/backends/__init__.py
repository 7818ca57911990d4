"""Where flows run: compiled on the CPU; or in NumPy alone, where Numba can't be imported."""

from __future__ import annotations

import importlib.util
import os
import sys

from npflows.core.backend import register_backend


def _numba_is_missing() -> str | None:
    """Why Numba can't be used, if so."""
    if os.environ.get("NPFLOWS_BACKEND") == "reference":
        return "NPFLOWS_BACKEND=reference"
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed"
    try:
        import numba  # noqa: F401
    except Exception as error:  # too old or too new for this NumPy or Python, for instance
        return f"Numba can't be imported ({error})"
    return None


_reason = _numba_is_missing()
if _reason is None:
    from npflows.backends.cpu.backend import BACKEND

    register_backend(BACKEND)
else:
    print(
        f"npflows: {_reason}; flows are evaluated by NumPy, which is slower, and can't be fitted (pip install numba)",
        file=sys.stderr,
    )
