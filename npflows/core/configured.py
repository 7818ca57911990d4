"""How layers, bases and flows remember their constructor's arguments."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import numpy as np

from npflows.core.operations import Network, ScalarMap, described
from npflows.core.registry import register


class Configured:
    """Keeps the arguments of its constructor as attributes of the same names, so that it can be made again."""

    _not_configured: ClassVar[frozenset[str]] = frozenset({"self", "rng"})

    def __init_subclass__(cls, *, abstract: bool = False, **options: Any) -> None:
        """Register the public classes of npflows, unless they are `abstract`: made to be subclassed only."""
        super().__init_subclass__(**options)
        if cls.__module__.startswith("npflows.") and not (abstract or cls.__name__.startswith("_")):
            register(cls)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments as values that JSON can hold, random choices resolved."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name not in self._not_configured]
        return {name: _plain(getattr(self, name)) for name in names}

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self).__init__).parameters
        shown = []
        for name, value in self.arguments.items():
            if value != _plain(parameters[name].default):
                text = _short(getattr(self, name), value)
                shown.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: Any, plain: Any) -> str:
    """An argument in a line: parts of the package by their names, long ones by their length."""
    if isinstance(value, (Configured, ScalarMap, Network)):
        return f"{type(value).__name__}(...)"
    text = repr(plain)
    return text if len(text) <= 40 else f"<{len(plain)} values>"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Configured):
        return {"class": type(value).__name__, "config": value.arguments}
    if isinstance(value, (ScalarMap, Network)):
        return described(value)
    return value
