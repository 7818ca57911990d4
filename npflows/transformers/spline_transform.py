"""`RationalQuadraticSplineTransform`: the spline by itself, on arrays."""

from __future__ import annotations

import numpy as np

from npflows.core.backend import select
from npflows.core.checks import as_numeric
from npflows.transformers.scalar_maps import spline


class RationalQuadraticSplineTransform:
    """Monotone rational-quadratic splines of given bins (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8).

    The map is the identity outside [-tail_bound, tail_bound], and its slope is 1 at the two ends.

    Parameters
    ----------
    num_bins : int
        K, at least 2.
    tail_bound : float
        Above 0.
    min_bin_width, min_bin_height : float
        Least share of [-tail_bound, tail_bound] that `constrain_parameters` gives a bin; below 1 / num_bins.
    min_derivative : float
        Least slope at a knot that it gives; below 1.

    Examples
    --------
    >>> spline = RationalQuadraticSplineTransform(num_bins=4)
    >>> parameters = spline.constrain_parameters(np.zeros((1, 1, 4)), np.zeros((1, 1, 4)), np.zeros((1, 1, 5)))
    >>> y, log_det = spline.apply_spline([[0.5]], *parameters)
    >>> print(y, log_det.round(9))
    [[0.5]] [0.]
    """

    def __init__(
        self,
        num_bins: int = 8,
        tail_bound: float = 3.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
    ) -> None:
        operation = spline(num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative)
        self.num_bins, self.tail_bound = operation.num_bins, operation.tail_bound
        self.min_bin_width, self.min_bin_height = operation.min_bin_width, operation.min_bin_height
        self.min_derivative, self._operation = operation.min_derivative, operation

    def constrain_parameters(
        self, raw_widths: object, raw_heights: object, raw_derivatives: object
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
        widths, heights, derivatives = (
            as_numeric(raw, name).astype(np.float64)
            for raw, name in (
                (raw_widths, "raw_widths"),
                (raw_heights, "raw_heights"),
                (raw_derivatives, "raw_derivatives"),
            )
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

    def _sizes(self, raw: np.ndarray, least: float) -> np.ndarray:
        raw = np.exp(raw - raw.max(axis=-1, keepdims=True, initial=-np.inf))
        share = raw / raw.sum(axis=-1, keepdims=True)
        return 2 * self.tail_bound * (least + (1 - self.num_bins * least) * share)

    def apply_spline(
        self, x: object, widths: object, heights: object, derivatives: object, inverse: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
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
        x, widths, heights, derivatives = (
            as_numeric(a, name).astype(np.float64)
            for a, name in ((x, "x"), (widths, "widths"), (heights, "heights"), (derivatives, "derivatives"))
        )
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
        self, widths: np.ndarray, heights: np.ndarray, derivatives: np.ndarray, knots: tuple[int, ...]
    ) -> None:
        k = self.num_bins
        if widths.ndim != 3 or widths.shape[2] != k or heights.shape != widths.shape:
            raise ValueError(f"widths and heights must have shape (n, d, {k}), got {widths.shape} and {heights.shape}")
        if derivatives.shape[:2] != widths.shape[:2] or derivatives.ndim != 3 or derivatives.shape[2] not in knots:
            raise ValueError(f"derivatives must have shape (n, d, {knots[0]}), got {derivatives.shape}")
