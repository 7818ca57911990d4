"""Scalar maps and networks as values that JSON can hold, and back.

Nothing but their numbers is written, and what is read is checked: the type of each value here, what values may be by the
operations themselves.
"""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, get_args, get_origin, get_type_hints

from npflows.core.operations.networks import Network
from npflows.core.operations.scalar_maps import ScalarMap

KINDS: dict[str, type] = {kind.__name__: kind for kind in (*get_args(ScalarMap), *get_args(Network))}
"""The operations that have a description, by name."""


def described(operation: ScalarMap | Network) -> dict[str, Any]:
    """Name and arguments of an operation, those left out that are the default ones."""
    values = {f.name: (getattr(operation, f.name), f.default) for f in dataclasses.fields(operation)}
    config = {name: _as_lists(value) for name, (value, default) in values.items() if value != default}
    return {"operation": type(operation).__name__, "config": config}


def operation_of(description: dict[str, Any], largest: int | None = None) -> ScalarMap | Network:
    """The operation of a description.

    Parameters
    ----------
    description : dict
        ``{"operation": name, "config": arguments}``.
    largest : int, optional
        The largest whole number that an argument may be.

    Raises
    ------
    ValueError
        If the operation or an argument is unknown, or an argument is of a wrong type, too large or makes no sense.
    """
    name, config = description["operation"], description["config"]
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"{name!r} is no scalar map and no network; there are {', '.join(KINDS)}")
    kind, hints = KINDS[name], get_type_hints(KINDS[name])
    unknown = sorted(set(config) - {f.name for f in dataclasses.fields(kind)})
    if unknown:
        raise ValueError(f"{name} has no parameter {', '.join(unknown)}")
    operation: ScalarMap | Network = kind(
        **{key: _as_hinted(value, hints[key], f"{key} of {name}", largest) for key, value in config.items()}
    )
    return operation


def _as_lists(value: Any) -> Any:
    return [_as_lists(v) for v in value] if isinstance(value, tuple) else value


def _as_hinted(value: Any, hint: Any, what: str, largest: int | None) -> Any:
    """A value of the hinted type: a flag, a number, a string or a tuple of these."""
    if get_origin(hint) is types.UnionType:
        if value is None:
            return None
        [hint] = [one for one in get_args(hint) if one is not types.NoneType]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_as_hinted(v, get_args(hint)[0], what, largest) for v in value)
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is not hint or (hint is int and not 0 <= value <= (math.inf if largest is None else largest)):
        raise ValueError(f"{what} is {value!r}, which it can't be")
    return value
