"""Tensors of a state dict by name: each is taken with the shape that its place has, and none is left over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from npflows.convert.errors import ConversionError


class Tensors(Mapping[str, NDArray]):
    """The tensors of a flow, or of a part of it, by name.

    Looking at them, as at any mapping, says nothing; `take` gives one that is used, after a check of its shape.  All parts
    know what was taken, so that `refuse_rest` finds what nothing has used.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Those of the part, without its prefix.
    prefix : str
        What their names begin with in the whole flow, for messages.
    """

    def __init__(self, arrays: Mapping[str, NDArray], prefix: str = "", taken: set[str] | None = None) -> None:
        self._arrays, self._prefix = dict(arrays), prefix
        self._taken: set[str] = set() if taken is None else taken

    def __getitem__(self, name: str) -> NDArray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def below(self, prefix: str) -> Tensors:
        """Those whose names begin with a prefix, by the rest of their names."""
        found = {name.removeprefix(prefix): a for name, a in self._arrays.items() if name.startswith(prefix)}
        return Tensors(found, self._prefix + prefix, self._taken)

    def some_below(self, prefix: str) -> bool:
        """Whether a name begins with a prefix."""
        return any(name.startswith(prefix) for name in self._arrays)

    def take(self, name: str, *shape: int | None) -> NDArray:
        """The tensor of a name, which has the given shape; None stands for any size.

        Raises
        ------
        ConversionError
            If there is no such tensor, or it has another shape or no real numbers.
        """
        array = self._taking(name)
        if len(array.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape)):
            self.refuse_shape(
                name, f"({', '.join('any' if n is None else str(n) for n in shape)}{',' * (len(shape) == 1)})"
            )
        return array

    def take_each(self, name: str, n: int) -> NDArray[np.float64]:
        """n numbers as float64, from a tensor of as many or of a single one for all."""
        array = self._taking(name)
        if array.shape not in ((), (n,)):
            self.refuse_shape(name, f"({n},)")
        return np.broadcast_to(array.astype(float), (n,))

    def take_flat(self, name: str, n: int) -> NDArray[np.float64]:
        """n numbers as float64, from a tensor of as many on any axis."""
        array = self._taking(name)
        if array.size != n or max(array.shape, default=1) != n:
            self.refuse_shape(name, f"(1, {n})")
        return array.astype(float).ravel()

    def take_order(self, name: str, n: int) -> NDArray[np.int64]:
        """A permutation of 0..n-1."""
        array = self.take(name, n)
        if not np.array_equal(np.sort(array), np.arange(n)):
            raise ConversionError(f"{self._prefix}{name} must be a permutation of 0..{n - 1}, got {array.tolist()}")
        return array.astype(np.int64)

    def refuse_shape(self, name: str, wanted: str) -> NoReturn:
        """Refuse the shape of a tensor."""
        raise ConversionError(f"{self._prefix}{name} has shape {self[name].shape}, where {wanted} is expected: the state "
                              f"dict is damaged, or not of such a flow")  # fmt: skip

    def ignore(self, *names: str) -> None:
        """Count tensors as taken that change no number: all that have one of these names, or begin with it and a dot."""
        for name in self._arrays:
            if name in names or name.startswith(tuple(f"{start}." for start in names)):
                self._taken.add(self._prefix + name)

    def refuse_rest(self) -> None:
        """Refuse what was not taken.

        Raises
        ------
        ConversionError
        """
        rest = [self._prefix + name for name in self._arrays if self._prefix + name not in self._taken]
        if rest:
            what = f"{rest[0]} has" if len(rest) == 1 else f"{rest[0]} and {len(rest) - 1} more tensors have"
            raise ConversionError(f"{what} no place in such a flow: the state dict is of another kind, or lacks what "
                                  f"belongs to it")  # fmt: skip

    def _taking(self, name: str) -> NDArray:
        whole = self._prefix + name
        if name not in self._arrays:
            raise ConversionError(
                f"the state dict has no {whole}, which such a flow needs: it is damaged, or of another kind"
            )
        if self._arrays[name].dtype.kind not in "biuf":
            raise ConversionError(f"{whole} must hold real numbers, got {self._arrays[name].dtype}")
        if not np.isfinite(self._arrays[name]).all():
            raise ConversionError(f"{whole} holds NaN or infinity: such a flow has no densities")
        self._taken.add(whole)
        return self._arrays[name]
