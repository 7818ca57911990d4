"""Readers of formats and what else few tables need: modules that are loaded when they are first wanted."""

from __future__ import annotations

import importlib
from typing import Any


def module(name: str) -> Any:
    """A module of this folder."""
    return importlib.import_module(f"npflows.files.tables.{name}")
