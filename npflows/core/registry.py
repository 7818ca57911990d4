"""The registry: every class that can be built from a plain configuration, by its name.

Classes of npflows register themselves when they are defined (`npflows.core.configured.Configured`).  A user's own class is
never registered by being subclassed; it is passed wherever a file or a configuration may name it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

_CLASSES: dict[str, type] = {}


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
    cls: type, config: dict[str, Any], rng: np.random.Generator, known: dict[str, type] | None = None
) -> Any:  # fmt: skip
    """Build an object from its `arguments`; the objects that they describe are built first.

    Parameters
    ----------
    cls : type
    config : dict
        Arguments of the constructor; ``{"class": name, "config": arguments}`` stands for an object.
    rng : numpy.random.Generator
        Passed to every constructor that takes one.
    known : dict of str to type, optional
        The classes that the configuration may name; the registered ones by default.

    Raises
    ------
    ValueError
        If the constructor has no such argument, or a class is unknown.
    """
    known = known_classes() if known is None else known
    accepted = inspect.signature(cls).parameters
    unknown = sorted(set(config) - set(accepted))
    if unknown:
        raise ValueError(f"{cls.__name__} has no parameter {', '.join(unknown)}")
    arguments = {name: _revived(value, rng, known) for name, value in config.items()}
    return cls(**arguments, **({"rng": rng} if "rng" in accepted else {}))


def _revived(value: Any, rng: np.random.Generator, known: dict[str, type]) -> Any:
    if isinstance(value, dict) and set(value) == {"class", "config"}:
        if value["class"] not in known:
            raise ValueError(f"{value['class']} is unknown here: pass it in classes=")
        return construct(known[value["class"]], value["config"], rng, known)
    return [_revived(v, rng, known) for v in value] if isinstance(value, list) else value
