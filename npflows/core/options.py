"""Arguments that several constructors share: dataclasses that layers and models inherit."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Any

from numpy.typing import DTypeLike


class Options:
    """The end of a chain of checks.

    A dataclass of arguments subclasses it, checks its own arguments in `__post_init__`, and calls that of `super()`.  A
    class whose constructor takes these arguments inherits the dataclass, after the base class that it extends, as the
    defaults of a dataclass are attributes of the class and must not hide what that base class has under these names.
    """

    def __post_init__(self, *init_only: Any) -> None:
        """Check the arguments, which are attributes already, but for those that are used in the constructor only."""


@dataclass(kw_only=True, repr=False, eq=False)
class DtypeOptions(Options):
    """The keyword of everything that is computed in one dtype.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        The compute dtype.
    """

    dtype: InitVar[DTypeLike] = "float32"
