"""Images of whole-number pixels as data: a bijection from their cells to the line, alike for all pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from npflows.core.checks import as_int, as_positive
from npflows.core.evaluation import Unconstrained
from npflows.core.operations import SupportPart, Supports
from npflows.core.special import expit, log_expit
from npflows.support.cells import EDGE, CellBijection, with_unknown
from npflows.support.columns import Integer


class Pixels(CellBijection):
    """Pixels 0, 1, ..., levels - 1, dequantized by uniform noise (Theis et al. 2016, arXiv:1511.01844).

    With `alpha` a value x of `levels` becomes logit(alpha + (1 - 2 alpha) x / levels) (Dinh et al. 2017, arXiv:1605.08803,
    section 4.1, with room at both ends).

    Parameters
    ----------
    dim : int
        Pixels of all channels.
    levels : int
        At least 2.
    alpha : float, optional
        Above 0 and below 0.5.
    """

    def __init__(self, dim: int, levels: int, alpha: float | None = None) -> None:
        super().__init__([Integer(0, levels - 1)] * dim)
        self.levels, self.alpha = levels, alpha
        self.forget()

    def operation(self) -> Supports:
        """The bijection as plain data, for backends."""
        d = len(self.columns)
        part = SupportPart("pixels", tuple(range(d)), (float(self.levels), self.alpha or 0.0))
        return Supports(d, (part,), self.bound, self.integer_columns, self.levels)

    def to_unconstrained(self, x: np.ndarray) -> Unconstrained:
        """From dequantized values (n, d) in [0, levels] to the line."""
        t = np.array(x, np.float64)
        ok = (t >= 0) & (t <= self.levels)
        inside = np.all(ok | np.isnan(t), axis=1)
        if not inside.all():
            t = np.where(ok | np.isnan(t), t, 0.5 * self.levels)
            inside = with_unknown(t, inside)
        if self.alpha is None:
            return Unconstrained(t, np.zeros(len(t)), inside)
        u = self._share(t)
        return Unconstrained(np.log(u) - np.log1p(-u), self._log_slope(u).sum(axis=1), inside)

    def _share(self, x: np.ndarray) -> np.ndarray:
        """alpha + (1 - 2 alpha) x / levels."""
        alpha = self.alpha or 0.0
        return alpha + (1 - 2 * alpha) * (x / self.levels)

    def _log_slope(self, u: np.ndarray) -> np.ndarray:
        """The logarithm of the derivative of `to_unconstrained` where the share is u."""
        return math.log((1 - 2 * (self.alpha or 0.0)) / self.levels) - np.log(u) - np.log1p(-u)

    def from_unconstrained(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From the line to dequantized values, with log |det dx/dt|; they may lie a little outside [0, levels]."""
        if self.alpha is None:
            return np.array(t, np.float64), np.zeros(len(t))
        scale = self.levels / (1 - 2 * self.alpha)
        log_det = (math.log(scale) + log_expit(t) + log_expit(-t)).sum(axis=1)
        return scale * (expit(t) - self.alpha), log_det

    def to_unconstrained_vjp(self, x: np.ndarray, dt: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to x (n, d), from those with respect to t and log_det of `to_unconstrained`."""
        if self.alpha is None:
            return np.array(dt)
        u = np.clip(self._share(np.asarray(x)), self.alpha, 1 - self.alpha)
        slope = (1 - 2 * self.alpha) / self.levels
        return dt * np.exp(self._log_slope(u)) + dlog_det[:, None] * slope * (1 / (1 - u) - 1 / u)

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to t (n, d), from those with respect to x and log_det of `from_unconstrained`."""
        if self.alpha is None:
            return np.array(dx)
        p = expit(t)
        return dx * (self.levels / (1 - 2 * self.alpha)) * p * (1 - p) + dlog_det[:, None] * (1 - 2 * p)

    def cell_places(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What `cells` draws: places in a cell (n, d), and keys (d,) by which each image turns them its own way."""
        keys = rng.integers(1 << 64, size=len(self.columns), dtype=np.uint64)
        return self.places(n, rng), keys

    def cells(self, x: np.ndarray, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """n copies of images at random places of their cells, which differ from image to image, so that errors average out,
        and are an image's own, whatever images are beside it."""
        places, key = self.cell_places(n, rng)
        values = np.asarray(x, np.float64)
        values = np.where(np.isfinite(values), values, 0.0).astype(np.int64).view(np.uint64)
        turn = hashed((values * (key | np.uint64(1))).sum(axis=1, dtype=np.uint64)[:, None] + key)  # one for each image
        for place in places:
            yield self.dequantize(x, np.clip((place + turn) % 1.0, EDGE, 1 - EDGE))

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """The level of each value, the nearest one where it lies outside."""
        with np.errstate(invalid="ignore"):
            return np.clip(np.nan_to_num(np.floor(x)), 0, self.levels - 1).astype(self.dtype)

    def check(self, x: np.ndarray, name: str) -> None:
        """Refuse an image that has other values than whole numbers of these levels; NaN and infinity are let through."""
        values = np.asarray(x)
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
            if (values != np.floor(values)).any():
                raise ValueError(
                    f"{name} must be images of whole numbers 0 to {self.levels - 1}, as levels={self.levels} says, got "
                    f"{values.dtype} values such as {values[values != np.floor(values)][0]:g}; round them, or leave levels "
                    f"out"
                )
        low, high = values.min(initial=0), values.max(initial=0)
        if low < 0 or high >= self.levels:
            raise ValueError(
                f"{name} must be images of whole numbers 0 to {self.levels - 1}, as levels={self.levels} says, got values "
                f"from {low:g} to {high:g}"
            )

    def forget(self) -> None:
        """Give samples the smallest dtype of whole numbers for these levels."""
        self.dtype = np.dtype(np.uint8 if self.levels <= 256 else np.uint16 if self.levels <= 65536 else np.int64)

    def remember(self, dtype: np.dtype) -> None:
        """Give samples this dtype, that of the training data, if it holds every level."""
        every = np.array([self.levels - 2, self.levels - 1])
        with np.errstate(over="ignore"):
            if (every.astype(dtype) == every).all():
                self.dtype = dtype

    def outside(self, x: np.ndarray) -> dict[int, int]:
        """How many rows each pixel has outside, where there are any; NaN and infinity do not count."""
        values = np.asarray(x, np.float64)
        ok = (values >= 0) & (values < self.levels) & (values == np.floor(values)) | ~np.isfinite(values)
        counts = (~ok).sum(axis=0)
        return {int(d): int(counts[d]) for d in np.flatnonzero(counts)}


def hashed(values: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1 from whole ones (SplitMix64's finalizer; Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    z = values
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return (z ^ (z >> np.uint64(31))).astype(np.float64) * 2.0**-64


def as_levels(levels: int | None) -> int | None:
    """A number of levels, or None."""
    return None if levels is None else as_int(levels, "levels", 2)


def as_alpha(alpha: float | None, levels: int | None) -> float | None:
    """The share of a logit's ends, or None."""
    if alpha is None:
        return None
    if levels is None:
        raise ValueError(f"alpha={alpha!r} needs levels=, the number of values that a pixel has")
    value = as_positive(alpha, "alpha")
    if value >= 0.5:
        raise ValueError(f"alpha must be below 0.5, got {alpha!r}")
    return value
