"""What is imported when it is first used, so that `import npflows` does not wait for it."""

from __future__ import annotations

import importlib
from typing import Any


class DeferredMethod:
    """A method that a function of another module becomes, which is imported when the method is first looked up.

    Parameters
    ----------
    module : str
        The module's whole name.

    Notes
    -----
    The class body imports the same function under `typing.TYPE_CHECKING`: type checkers know its signature by that, and the
    contract of imports sees it.
    """

    def __init__(self, module: str) -> None:
        self.module = module

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        function = getattr(importlib.import_module(self.module), self.name)
        setattr(self.owner, self.name, function)  # from now on a method as any other
        return function.__get__(instance, owner)
