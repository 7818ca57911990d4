"""`RationalQuadraticSplineTransform`: the spline by itself, on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.backend import select
from npflows.core.checks import as_flag, as_numeric
from npflows.core.underflow import ignore_underflow
from npflows.transformers.options import SplineOptions


@dataclass(repr=False, eq=False)
class RationalQuadraticSplineTransform(SplineOptions):
    """Monotone rational-quadratic splines of given bins (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8).

    The map is the identity outside [-tail_bound, tail_bound], and its slope is 1 at the two ends.

    Parameters
    ----------
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`; least sizes and slopes are those that `constrain_parameters`
        gives.

    Examples
    --------
    >>> spline = RationalQuadraticSplineTransform(num_bins=4)
    >>> parameters = spline.constrain_parameters(np.zeros((1, 1, 4)), np.zeros((1, 1, 4)), np.zeros((1, 1, 5)))
    >>> y, log_det = spline.apply_spline([[0.5]], *parameters)
    >>> print(y, log_det.round(9))
    [[0.5]] [0.]
    """

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self._operation = self._spline()

    @ignore_underflow
    def constrain_parameters(
        self, raw_widths: ArrayLike, raw_heights: ArrayLike, raw_derivatives: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Widths, heights and derivatives from any real numbers; zeros give the identity.

        Parameters
        ----------
        raw_widths, raw_heights : array_like (n, d, K)
        raw_derivatives : array_like (n, d, K + 1) or (n, d, K - 1)
            Those at the two ends are ignored, or left out.

        Returns
        -------
        widths, heights : ndarray (n, d, K)
            By softmax; each sums to 2 * tail_bound.
        derivatives : ndarray (n, d, K + 1)
            By softplus; 1 at both ends.
        """
        widths, heights, derivatives = _as_float64(
            raw_widths=raw_widths, raw_heights=raw_heights, raw_derivatives=raw_derivatives
        )
        self._check_shapes(widths, heights, derivatives, (self.num_bins + 1, self.num_bins - 1))
        inner = derivatives[..., 1:-1] if derivatives.shape[-1] == self.num_bins + 1 else derivatives
        inner = self.min_derivative + np.logaddexp(0, inner + self._operation.derivative_shift)
        ends = np.ones((*inner.shape[:2], 1))
        return (
            self._sizes(widths, self.min_bin_width),
            self._sizes(heights, self.min_bin_height),
            np.concatenate([ends, inner, ends], axis=-1),
        )

    def _sizes(self, raw: NDArray[np.float64], least: float) -> NDArray[np.float64]:
        raw = np.exp(raw - raw.max(axis=-1, keepdims=True, initial=-np.inf))
        share = raw / raw.sum(axis=-1, keepdims=True)
        return 2 * self.tail_bound * (least + (1 - self.num_bins * least) * share)

    def apply_spline(
        self, x: ArrayLike, widths: ArrayLike, heights: ArrayLike, derivatives: ArrayLike, inverse: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Map x, or map back.

        Parameters
        ----------
        x : array_like (n, d)
        widths, heights : array_like (n, d, K)
            Positive; each sums to 2 * tail_bound.
        derivatives : array_like (n, d, K + 1)
            Positive slopes at the knots; the two at the ends are taken to be 1.
        inverse : bool
            Map from y to x.

        Returns
        -------
        y : ndarray (n, d)
        log_det : ndarray (n,)
            Sum over d of log |dy/dx|, or of log |dx/dy| for the inverse.

        Raises
        ------
        ValueError
            If shapes do not fit, sizes are not positive or do not add up to the interval.
        """
        inverse = as_flag(inverse, "inverse")
        x, widths, heights, derivatives = _as_float64(x=x, widths=widths, heights=heights, derivatives=derivatives)
        if x.ndim != 2 or widths.shape[:2] != x.shape:
            raise ValueError(f"x must have shape (n, d) and widths (n, d, K), got {x.shape} and {widths.shape}")
        self._check_shapes(widths, heights, derivatives, (self.num_bins + 1,))
        for sizes, name in ((widths, "widths"), (heights, "heights")):
            if not (sizes > 0).all() or not np.allclose(sizes.sum(axis=-1), 2 * self.tail_bound, rtol=1e-5, atol=0):
                raise ValueError(
                    f"{name} must be positive and sum to 2 * tail_bound = {2 * self.tail_bound:g} over the bins"
                )
        inner = derivatives[..., 1:-1]
        if not ((inner > 0) & np.isfinite(inner)).all():
            raise ValueError("derivatives must be positive and finite")
        shares = [
            (sizes / (2 * self.tail_bound) - least) / (1 - self.num_bins * least)
            for sizes, least in ((widths, self.min_bin_width), (heights, self.min_bin_height))
        ]
        constrained = np.concatenate([*shares, inner], axis=-1)
        return select().spline(self._operation, x, constrained, inverse)

    def _check_shapes(
        self,
        widths: NDArray[np.float64],
        heights: NDArray[np.float64],
        derivatives: NDArray[np.float64],
        knots: tuple[int, ...],
    ) -> None:
        k = self.num_bins
        if widths.ndim != 3 or widths.shape[2] != k or heights.shape != widths.shape:
            raise ValueError(f"widths and heights must have shape (n, d, {k}), got {widths.shape} and {heights.shape}")
        if derivatives.shape[:2] != widths.shape[:2] or derivatives.ndim != 3 or derivatives.shape[2] not in knots:
            raise ValueError(f"derivatives must have shape (n, d, {knots[0]}), got {derivatives.shape}")


def _as_float64(**arrays: ArrayLike) -> list[NDArray[np.float64]]:
    """Arrays by name as float64, after a check."""
    return [as_numeric(values, name).astype(np.float64) for name, values in arrays.items()]
