"""The public names with their signatures as lines of text, without annotations.

`python tests/public_names.py` writes public_signatures.txt anew, after a change that is meant.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from npflows.core.deferred import DeferredMethod

FILE = Path(__file__).parent / "public_signatures.txt"
MODULES = (
    "support",
    "functional",
    "networks",
    "transformers",
    "extend",
    "convert",
    "hosts",
    "sklearn",
    "data",
    "plotting",
    "diagnostics",
    "verify",
    "warmup",
)


def public(module: ModuleType) -> dict[str, Any]:
    """The names in `__all__`, or else the public functions and classes that the module itself defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]
    return {name: getattr(module, name) for name in sorted(names)}


def default(value: Any) -> str:
    """A default as text that depends on its value alone, not on the machine, Python or NumPy."""
    if value is None or isinstance(value, (bool, str)):
        return repr(value)
    for kind in (int, float):
        if isinstance(value, kind):
            return repr(kind(value))
    if isinstance(value, tuple):
        return f"({', '.join(map(default, value))}{',' * (len(value) == 1)})"
    return f"<{type(value).__name__}>"


def signature(function: Any, bound: bool = False) -> str:
    """Names, order, kinds and defaults of the parameters; those of a method without the first."""
    parameters = list(inspect.signature(function).parameters.values())[bound:]
    parts, positional, only_by_name = [], "", False
    for parameter in parameters:
        if positional and parameter.kind is not parameter.POSITIONAL_ONLY:
            parts.append("/")
            positional = ""
        if parameter.kind is parameter.KEYWORD_ONLY and not only_by_name:
            parts.append("*")
            only_by_name = True
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        only_by_name |= star == "*"
        positional = parameter.name if parameter.kind is parameter.POSITIONAL_ONLY else ""
        value = "" if parameter.default is parameter.empty else f"={default(parameter.default)}"
        parts.append(f"{star}{parameter.name}{value}")
    return f"({', '.join(parts + ['/'] * bool(positional))})"


def kind(value: Any) -> str:
    """The kind of a member of a class, with the signature of a method."""
    if isinstance(value, (classmethod, staticmethod)):
        return f"{signature(value.__func__, isinstance(value, classmethod))}, {type(value).__name__}"
    if isinstance(value, DeferredMethod):
        value = value.__get__(None, value.owner)
    if inspect.isfunction(value):
        return signature(value, True)
    if isinstance(value, property):
        return ": property, settable" if value.fset else ": property"
    return ": property" if isinstance(value, cached_property) else ": attribute"


def members(owner: type) -> dict[str, str]:
    """Public methods, properties and attributes that come from npflows."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base.__module__.split(".")[0] == "npflows":
            for name, value in vars(base).items():
                added = type(value).__module__.split(".")[0] == "sklearn"  # by scikit-learn, in some of its releases
                if (name == "__call__" or not name.startswith("_")) and not added:
                    found[name] = kind(value)
    return found


def describe_class(prefix: str, owner: type, classes: dict[type, str]) -> list[str]:
    """One line for the class, and one for each member that its public base classes don't have as it is."""
    bases = [base for base in owner.__mro__[1:] if base in classes]
    direct = [classes[base] for base in bases if not any(base in other.__mro__[1:] for other in bases)]
    direct += [base.__name__ for base in owner.__mro__ if base.__module__ == "builtins" and base is not object][:1]
    has_constructor = not issubclass(owner, Exception) and any(
        "__init__" in vars(base) or "__new__" in vars(base) for base in owner.__mro__[:-1]
    )
    parameters = inspect.signature(owner).parameters if has_constructor else {}
    lines = [f"{prefix}{signature(owner) if has_constructor else '()'}" + (f" is a {', '.join(direct)}" if direct else "")]
    inherited = [members(base) for base in bases]
    for name, text in sorted(members(owner).items()):
        stored = name in parameters and text == ": attribute"  # the field of a dataclass or a named tuple
        if not stored and all(base.get(name) != text for base in inherited):
            lines.append(f"{prefix}.{name}{text}")
    return lines


def describe() -> list[str]:
    """Every public name, one a line."""
    modules = {name: importlib.import_module(name) for name in ("npflows", *(f"npflows.{name}" for name in MODULES))}
    classes: dict[type, str] = {}
    for where, module in modules.items():
        for name, value in public(module).items():
            if inspect.isclass(value):
                classes.setdefault(value, f"{where}.{name}")
    lines = []
    for where, module in modules.items():
        for name, value in public(module).items():
            prefix = f"{where}.{name}"
            if classes.get(value if inspect.isclass(value) else object, prefix) != prefix:
                lines.append(f"{prefix} is {classes[value]}")
            elif inspect.isclass(value):
                lines += describe_class(prefix, value, classes)
            else:
                lines.append(f"{prefix}: module" if inspect.ismodule(value) else f"{prefix}{signature(value)}")
    return lines


if __name__ == "__main__":
    FILE.write_text("\n".join(describe()) + "\n", encoding="utf-8")
