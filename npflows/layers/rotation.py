"""Rotations of values on circles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_int, as_positive, as_rng
from npflows.core.parameters import Parameter
from npflows.layers.circles import as_circles
from npflows.layers.layer import Layer


class Rotation(Layer):
    """y = x + angle on circles, x elsewhere: moves the point at which circular splines have their seam.

    A circle is the interval [-bound, bound), whose ends are the same point.

    Parameters
    ----------
    circular : array_like of bool (input_dim,)
        Which values are on a circle.
    bound : float
        Half the circumference.
    angles : array_like, optional
        One for each value on a circle, to start from; drawn from `rng` by default.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
    """

    def __init__(
        self,
        circular: ArrayLike,
        bound: float,
        angles: ArrayLike | None = None,
        *,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        n = as_int(np.size(circular), "the number of values in circular")
        self.circular, self.bound = as_circles(np.asarray(circular), n), as_positive(bound, "bound")
        self._where = np.flatnonzero(self.circular)
        drawn = angles is None
        if drawn:
            angles = as_rng(rng).uniform(-self.bound, self.bound, len(self._where))
        start = np.asarray(angles, np.float64)
        if start.shape != self._where.shape or not np.isfinite(start).all():
            raise ValueError(f"angles must be a finite number for each of {len(self._where)} circles, got {angles!r}")
        self.angles = None if drawn else start
        super().__init__(n, [Parameter("angles", start)], dtype=dtype)

    @property
    def circle_bound(self) -> float:
        return self.bound

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if (self.circular & ~circles).any():
            raise ValueError(f"{self!r} turns values that are not on circles, which are {np.flatnonzero(circles)}")
        return circles

    def operation(self) -> operations.Rotation:
        return operations.Rotation(self.input_dim, tuple(self._where.tolist()), self.bound)
