"""Arguments that several constructors share: dataclasses that layers and models inherit."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Any

from numpy.typing import DTypeLike


class Options:
    """The end of the chain of checks of shared arguments.

    A dataclass of arguments subclasses it, and checks them in its `__post_init__`, which calls that of `super()` first.  A
    layer or model whose constructor takes them inherits the dataclass, adds further arguments as fields, and builds itself
    in a `__post_init__` of its own.

    Fields are in the reversed order of inheritance, those of the last base class first; in this order `__post_init__` is
    given the arguments that do not become attributes (`dataclasses.InitVar`).  The defaults of fields are attributes of the
    dataclass, which therefore comes after a base class that has properties of the same names.
    """

    def __post_init__(self, *init_only: Any) -> None:
        """Check the arguments, which are attributes already except those that only the constructor uses."""


@dataclass(kw_only=True, repr=False, eq=False)
class DtypeOptions(Options):
    """The keyword of everything that is computed in one dtype.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        The compute dtype.
    """

    dtype: InitVar[DTypeLike] = "float32"
