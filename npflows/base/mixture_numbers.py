"""Mixtures of normal distributions, one for all samples or one for each: samples, cumulative distributions, quantiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.core.optional import scipy

HALVINGS = 64
"""Halvings of the interval that a quantile lies in, which leave nothing of it in float64."""


class MixtureNumbers(NamedTuple):
    """The numbers of mixtures of k normal distributions of d columns; n is 1 where all samples have one mixture.

    Attributes
    ----------
    log_weights : ndarray (n, k)
        Logarithms of weights whose sum is 1.
    loc, scale : ndarray (n, k, d)
    """

    log_weights: NDArray[np.float64]
    loc: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, logits: NDArray, loc: NDArray, log_scale: NDArray) -> MixtureNumbers:
        """From what is learned, (n, k) and (n, k, d)."""
        with np.errstate(all="ignore"):
            return cls(logits - np.logaddexp.reduce(logits, axis=1)[:, None], loc, np.exp(log_scale))

    @property
    def mean(self) -> NDArray[np.float64]:
        """The means (n, d)."""
        return (np.exp(self.log_weights)[:, None, :] @ self.loc)[:, 0]

    @property
    def bounds(self) -> NDArray[np.float64]:
        """The sums (n, k - 1) of the first weights."""
        return np.cumsum(np.exp(self.log_weights), axis=1)[:, :-1]

    def drawn(self, u: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Samples from uniform numbers (n,), which choose the component, and standard normal ones (n, d)."""
        bounds = self.bounds
        if len(bounds) == 1:
            chosen = np.searchsorted(bounds[0], u, side="right")
            return self.loc[0, chosen] + self.scale[0, chosen] * normals
        rows, chosen = np.arange(len(u)), (bounds <= u[:, None]).sum(axis=1)
        return self.loc[rows, chosen] + self.scale[rows, chosen] * normals

    def cdf(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cumulative distribution of each column of z (n, d), given those before it."""
        ndtr = scipy("special", "the cumulative distribution of a mixture of normal distributions").ndtr
        log_shares = np.broadcast_to(self.log_weights, (len(z), self.log_weights.shape[1]))
        result = np.empty_like(z)
        for d, column in enumerate(z.T):
            q = (column[:, None] - self.loc[:, :, d]) / self.scale[:, :, d]
            result[:, d] = np.minimum((_shares(log_shares) * ndtr(q)).sum(axis=1), 1.0)
            log_shares = log_shares - 0.5 * q * q - np.log(self.scale[:, :, d])
        return result

    def ppf(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `cdf`; NaN outside of 0 and 1."""
        log_shares = np.broadcast_to(self.log_weights, (len(u), self.log_weights.shape[1]))
        result = np.empty_like(u)
        for d, column in enumerate(u.T):
            given = np.where((column >= 0) & (column <= 1), column, np.nan)
            result[:, d] = _quantile(given, _shares(log_shares), self.loc[:, :, d], self.scale[:, :, d])
            q = (result[:, d, None] - self.loc[:, :, d]) / self.scale[:, :, d]
            log_shares = log_shares - 0.5 * q * q - np.log(self.scale[:, :, d])
        return result


def _quantile(
    u: NDArray[np.float64], shares: NDArray[np.float64], loc: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Between those of the components; from above for u > 1/2, where 1 - u is exact."""
    special = scipy("special", "the quantile function of a mixture of normal distributions")
    sign, p = np.where(u > 0.5, -1.0, 1.0)[:, None], np.minimum(u, 1 - u)
    ends = loc + scale * sign * special.ndtri(p)[:, None]
    low, high = ends.min(axis=1), ends.max(axis=1)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        reached = (shares * special.ndtr(sign * (middle[:, None] - loc) / scale)).sum(axis=1)
        above = (reached > p) == (sign[:, 0] > 0)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(np.isfinite(middle), middle, ends[:, 0])


def _shares(log_shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share (n, k) of each component; of all alike where every one is 0."""
    top = log_shares.max(axis=1, keepdims=True)
    shares = np.exp(log_shares - np.where(top == -np.inf, 0.0, top))
    shares = np.where(top == -np.inf, 1.0, shares)
    return shares / shares.sum(axis=1, keepdims=True)
