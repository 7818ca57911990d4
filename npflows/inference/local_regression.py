"""Linear regression of some columns on others in the neighborhood of a point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from npflows.core.optional import scipy

WIDTH = math.sqrt(12)
"""Side of a box around samples in whitened coordinates: a uniform distribution on it has their variance."""


class LocalRegression:
    """Linear regression of the free columns of samples on the fixed ones, at points of the fixed columns.

    Parameters
    ----------
    samples : ndarray (N, d)
    fixed : ndarray of int (k,)
        The fixed columns.
    count : int
        Number of neighbors of a point that the regression there uses.
    constant : ndarray of bool (d,)
        Columns that do not depend on the fixed ones.

    Attributes
    ----------
    free : ndarray of int (m,)
        The other columns.
    """

    def __init__(self, samples: np.ndarray, fixed: np.ndarray, count: int, constant: np.ndarray) -> None:
        self.fixed, self.free, self.count = fixed, np.setdiff1d(np.arange(samples.shape[1]), fixed), count
        self._varies = ~constant[self.free]
        low, middle, high = np.quantile(samples[:, fixed], (0.25, 0.5, 0.75), axis=0)
        reach = 3 * np.where(high > low, high - low, np.inf)
        self.root = cholesky(np.clip(samples[:, fixed], middle - reach, middle + reach))
        self.samples = samples

    @cached_property
    def _tree(self) -> Any:
        return tree_of(self.whiten(self.samples[:, self.fixed]))

    def whiten(self, a: np.ndarray) -> np.ndarray:
        """Divide fixed columns a (n, k) by the root of their covariance."""
        return np.linalg.solve(self.root, a.T).T

    def at(self, point: np.ndarray) -> LocalFit:
        """The regression on the samples nearest to a point (k,); the farther out it lies, the fewer."""
        count, least = min(self.count, len(self.samples)), 32 * len(point) + 96
        while True:
            _, nearest = self._tree.query(self.whiten(point[None])[0], np.arange(1, count + 1))
            a, b = self.samples[nearest][:, self.fixed], self.samples[nearest][:, self.free]
            center, root = a.mean(0), cholesky(a)
            if count <= least or (np.abs(np.linalg.solve(root, point - center)) < 0.5 * WIDTH).all():
                break
            count = max(least, count // 4)
        u = np.linalg.solve(root, (a - center).T).T
        slope = np.linalg.lstsq(np.c_[u, np.ones(len(u))], b, rcond=1e-6)[0][:-1] * self._varies
        return LocalFit(center, root, slope, b.mean(0), b - b.mean(0) - u @ slope)

    def moved(self, point: np.ndarray) -> np.ndarray:
        """The samples (n, d) nearest to a point (k,), moved to it along the regression."""
        fit = self.at(point)
        return self.joined(point, fit.mean + fit.whiten(point[None]) @ fit.slope + fit.residuals)

    def joined(self, point: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Rows (n, d) of fixed columns, (k,) or (n, k), and free ones (n, m)."""
        rows = np.empty((len(values), self.samples.shape[1]))
        rows[:, self.fixed], rows[:, self.free] = point, values
        return rows


@dataclass
class LocalFit:
    """A linear regression on neighbors of a point: a = center + root u for fixed columns, b = mean + u slope for free ones.

    Attributes
    ----------
    center : ndarray (k,)
    root : ndarray (k, k)
        Lower triangular.
    slope : ndarray (k, m)
    mean : ndarray (m,)
    residuals : ndarray (n, m)
        Those of the neighbors.
    """

    center: np.ndarray
    root: np.ndarray
    slope: np.ndarray
    mean: np.ndarray
    residuals: np.ndarray

    def whiten(self, a: np.ndarray) -> np.ndarray:
        """The coordinates u of fixed columns a (n, k)."""
        return np.linalg.solve(self.root, (a - self.center).T).T


def cholesky(x: np.ndarray) -> np.ndarray:
    """The lower factor of the covariance of x (n, m), its diagonal raised a little where columns depend on each other."""
    covariance = np.cov(x.T).reshape(x.shape[1], -1)
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0, scale, 1.0)
    return scale[:, None] * np.linalg.cholesky(covariance / (scale[:, None] * scale) + 1e-9 * np.eye(len(scale)))


def tree_of(points: np.ndarray) -> Any:
    """A tree in which neighbors among points (n, k) are found."""
    return scipy("spatial", "a marginal or conditional density").cKDTree(points)
