"""Layers that may have values on circles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.operations import ScalarMap, Spline
from npflows.layers.layer import Layer


class CircleLayer(Layer, abstract=True):
    """A layer that takes the values that `circular` marks for points of circles: the interval [-bound, bound], whose ends
    are the same point."""

    circular: ArrayLike | None
    bound: float

    @property
    def circle_bound(self) -> float | None:
        return None if self.circular is None else self.bound

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if self.circular is None:
            return super().keep_circles(circles)
        own = np.asarray(self.circular)
        if (own != circles).any():
            raise ValueError(
                f"{self!r} takes values {np.flatnonzero(own).tolist()} for circular where "
                f"{np.flatnonzero(circles).tolist()} are on circles"
            )
        return circles


def as_circles(circular: ArrayLike | None, n: int) -> NDArray[np.bool_]:
    """Which of n values are on a circle, after a check."""
    flags = np.zeros(n, bool) if circular is None else np.asarray(circular)
    if flags.shape != (n,) or flags.dtype.kind not in "biuf" or not np.isin(flags, (False, True)).all():
        raise ValueError(f"circular must say for each of {n} values whether it is on a circle, got {circular!r}")
    return flags.astype(bool)


def check_map(operation: object, on_circle: NDArray[np.bool_], bound: float) -> None:
    """Refuse what is no scalar map, or one that does not map these values, some of which may be on circles.

    Raises
    ------
    TypeError
        If it is no scalar map.
    ValueError
        If its circles are others.
    """
    if not isinstance(operation, ScalarMap):
        raise TypeError(f"transformer must be a scalar map of npflows.transformers, got {operation!r}")
    n, flags = len(on_circle), operation.circular if isinstance(operation, Spline) else (False,)
    if len(flags) not in (1, n) or (np.broadcast_to(flags, n) != on_circle).any():
        raise ValueError(
            f"{operation!r} does not map {n} values of which {np.flatnonzero(on_circle).tolist()} are on circles"
        )
    if isinstance(operation, Spline) and any(flags) and operation.tail_bound != bound:
        raise ValueError(f"{operation!r} has not the bound {bound} of the circles")
