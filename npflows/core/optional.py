"""SciPy where it is needed, and a sentence where it is missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def scipy(module: str, purpose: str) -> ModuleType:
    """A module of SciPy, which is imported when it is first needed.

    Parameters
    ----------
    module : str
        Its name within SciPy, for instance "special".
    purpose : str
        What needs it, the subject of the sentence that says so.

    Raises
    ------
    ImportError
        If SciPy can't be imported.
    """
    try:
        return importlib.import_module(f"scipy.{module}")
    except ImportError as error:
        raise ImportError(f"{purpose} needs SciPy: pip install scipy") from error


def required(module: str, purpose: str, what: str, remedy: str) -> ModuleType:
    """An optional package, which is imported when it is first needed.

    Parameters
    ----------
    module : str
        Its name, for instance "emcee".
    purpose : str
        What needs it, the subject of the sentence that says so.
    what : str
        What it is called in that sentence.
    remedy : str
        How it is installed.

    Raises
    ------
    ImportError
        If it can't be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {what}: {remedy}") from error
