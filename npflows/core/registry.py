"""The registry: every class that can be built from a plain configuration, by its name.

Classes of npflows register themselves when they are defined (`npflows.core.configured.Configured`).  A user's own class is
never registered by being subclassed; it is passed wherever a file or a configuration may name it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from npflows.core.operations import operation_of

_CLASSES: dict[str, type] = {}
_SHAPES = ("_shape", "_size", "_dim")
"""How the names of arguments end that are a shape or the product of one."""
_SIZES = (
    *_SHAPES,
    "dim",
    "_dims",
    "_layers",
    "_blocks",
    "_bins",
    "_channels",
    "_scales",
    "_per_scale",
    "_multiplier",
    "_reflections",
    "size",
)
"""How the names of arguments end that are numbers of values, units, layers or parts of these."""


def register(cls: type) -> None:
    """Make a class known by its name.

    Raises
    ------
    ValueError
        If another class has the name.
    """
    other = _CLASSES.setdefault(cls.__name__, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"{cls.__module__}.{cls.__qualname__} and {other.__module__}.{other.__qualname__} have one name")


def known_classes(classes: Iterable[type] = (), kind: type = object) -> dict[str, type]:
    """The registered classes and those given, by name; only the subclasses of `kind`."""
    every = {**_CLASSES, **{cls.__name__: cls for cls in classes}}
    return {name: cls for name, cls in every.items() if issubclass(cls, kind)}


def construct(
    cls: type,
    config: dict[str, Any],
    rng: np.random.Generator,
    known: dict[str, type] | None = None,
    largest: int | None = None,
) -> Any:
    """Build an object from its `arguments`; the objects that they describe are built first.

    Parameters
    ----------
    cls : type
    config : dict
        Arguments of the constructor; ``{"class": name, "config": arguments}`` stands for an object, and
        ``{"operation": name, "config": arguments}`` for a scalar map or a network.
    rng : numpy.random.Generator
        Passed to every constructor that takes one.
    known : dict of str to type, optional
        The classes that the configuration may name; the registered ones by default.
    largest : int, optional
        The largest size that an argument of npflows' own classes may have, a number of units or of layers for instance, or
        the product of a shape.

    Raises
    ------
    ValueError
        If the constructor has no such argument, a class is unknown, or a size too large.
    """
    known = known_classes() if known is None else known
    accepted = inspect.signature(cls).parameters
    unknown = sorted(set(config) - set(accepted))
    if unknown:
        raise ValueError(f"{cls.__name__} has no parameter {', '.join(unknown)}")
    if largest is not None and _CLASSES.get(cls.__name__) is cls:
        _refuse_large(cls, config, largest)
    arguments = {name: _revived(value, rng, known, largest) for name, value in config.items()}
    return cls(**arguments, **({"rng": rng} if "rng" in accepted else {}))


def _revived(value: Any, rng: np.random.Generator, known: dict[str, type], largest: int | None) -> Any:
    if isinstance(value, dict) and set(value) == {"class", "config"}:
        if not isinstance(value["class"], str) or value["class"] not in known:
            raise ValueError(f"{value['class']} is unknown here: pass it in classes=")
        return construct(known[value["class"]], value["config"], rng, known, largest)
    if isinstance(value, dict) and set(value) == {"operation", "config"}:
        return operation_of(value, largest)
    return [_revived(v, rng, known, largest) for v in value] if isinstance(value, list) else value


def _refuse_large(cls: type, config: dict[str, Any], largest: int) -> None:
    """Refuse sizes beyond the largest, before anything is made of them."""
    for name, value in config.items():
        if not name.endswith(_SIZES):
            continue
        sizes = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)]
        size = math.prod(sizes) if name.endswith(_SHAPES) and len(sizes) <= 3 else max(sizes, default=0)
        if size > largest:
            raise ValueError(f"{cls.__name__} would have {name}={value!r}, more than all its parameters can be")
