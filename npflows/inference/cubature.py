"""Adaptive quadrature of a density over one to three of its columns, at many points of the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npflows.core.underflow import ignore_underflow
from npflows.inference.local_regression import LocalRegression, cholesky

CELLS = {1: 16, 2: 10, 3: 6}
"""Cells along each axis that quadrature begins with, by the number of axes."""
MOST_CELLS = {1: 500, 2: 3000, 3: 20_000}
"""Number of cells from which an integral is not refined any more, by the number of axes."""
TOLERANCE = 3e-5
"""Relative error, which is overestimated, at which an integral is not refined any more."""
AT_ONCE = 1 << 20
"""Approximate number of points at which the density is evaluated together."""

# Nodes of Gauss-Kronrod quadrature from 0 to 1, their weights, and those of the Gauss rule alone (QUADPACK's qk15)
NODES = [0.0, 0.20778495500789848, 0.4058451513773972, 0.5860872354676911, 0.7415311855993945, 0.8648644233597691,
         0.9491079123427585, 0.9914553711208126]  # fmt: skip
KRONROD = [0.20948214108472782, 0.20443294007529889, 0.19035057806478542, 0.1690047266392679, 0.14065325971552592,
           0.10479001032225019, 0.06309209262997856, 0.022935322010529224]  # fmt: skip
GAUSS = [0.4179591836734694, 0, 0.3818300505051189, 0, 0.27970539148927664, 0, 0.1294849661688697, 0]


@dataclass(frozen=True)
class Rule:
    """A pair of integration rules on the cube from -1 to 1.

    Attributes
    ----------
    nodes : ndarray (q, m)
    high, low : ndarray (q,)
        Weights of two orders, which add up to 2^m; the difference of the results estimates the error.
    """

    nodes: np.ndarray
    high: np.ndarray
    low: np.ndarray

    @classmethod
    def of(cls, m: int) -> Rule:
        """The 15-point Gauss-Kronrod rule on a line, else the rules of Genz and Malik (1980) of degrees 7 and 5."""
        if m == 1:
            nodes, high, low = (np.r_[sign * np.array(v[:0:-1]), v] for v, sign in ((NODES, -1), (KRONROD, 1), (GAUSS, 1)))
            return cls(nodes[:, None], high, low)
        near, far, corner = math.sqrt(9 / 70), math.sqrt(9 / 10), math.sqrt(9 / 19)
        axes = np.eye(m)
        pairs = [i * a + j * b for a, b in itertools.combinations(axes, 2) for i in (-far, far) for j in (-far, far)]
        groups = [
            (np.zeros((1, m)), (12824 - 9120 * m + 400 * m * m) / 19683, (729 - 950 * m + 50 * m * m) / 729),
            (np.concatenate([near * axes, -near * axes]), 980 / 6561, 245 / 486),
            (np.concatenate([far * axes, -far * axes]), (1820 - 400 * m) / 19683, (265 - 100 * m) / 1458),
            (np.array(pairs), 200 / 19683, 25 / 729),
            (corner * np.array(list(itertools.product((-1, 1), repeat=m))), 6859 / 19683 / 2**m, 0.0),
        ]
        high, low = (np.concatenate([np.full(len(g[0]), 2.0**m * g[i]) for g in groups]) for i in (1, 2))
        return cls(np.concatenate([g[0] for g in groups]), high, low)

    def roughest_axis(self, values: np.ndarray) -> np.ndarray:
        """The axis (n,) along which values (n, q) have the largest fourth difference."""
        m = self.nodes.shape[1]
        if m == 1:
            return np.zeros(len(values), np.int64)
        near, far = values[:, 1 : 1 + 2 * m], values[:, 1 + 2 * m : 1 + 4 * m]
        near, far = (v[:, :m] + v[:, m:] - 2 * values[:, :1] for v in (near, far))
        return np.abs(near - far / 7).argmax(1)


@ignore_underflow
def integrate(
    log_f: Callable[[np.ndarray, np.ndarray], np.ndarray], mean: np.ndarray, root: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate G functions over all of R^m by adaptive quadrature.

    Parameters
    ----------
    log_f : callable
        From the numbers of functions (n,) and points x (n, m) to the logarithms (n,) of the functions there.
    mean, root : ndarray (G, m), (G, m, m)
        Approximate location and scale of each function: cells are cut in coordinates t between -1 and 1, where
        x = mean + root t / (1 - t^2).

    Returns
    -------
    log_integral, error : ndarray (G,)
        The logarithm of each integral and its relative error, which is overestimated.
    """
    groups, m = mean.shape
    rule, per_axis = Rule.of(m), CELLS[m]
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)

    def logs(owner: np.ndarray, center: np.ndarray, half: np.ndarray) -> np.ndarray:
        """Logarithms (n, q) of the functions at the nodes of cells, volume elements included."""
        t = (center[:, None] + half[:, None] * rule.nodes).reshape(-1, m)
        of, rest = np.repeat(owner, len(rule.nodes)), 1 - t * t
        x = mean[of] + np.einsum("nij,nj->ni", root[of], t / rest)
        volume = np.log((1 + t * t) / (rest * rest)).sum(1)
        return (log_f(of, x) + volume).reshape(len(owner), -1) + (np.log(half).sum(1) + log_det[owner])[:, None]

    def measured(values: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Integral, error and roughest axis of cells, the integrals in units of exp(top)."""
        values = np.exp(np.minimum(values - top[owner][:, None], 600.0))
        total = values @ rule.high
        return np.maximum(total, 0.0), np.abs(total - values @ rule.low), rule.roughest_axis(values)

    width = 1 / per_axis
    cells = np.stack(np.meshgrid(*[np.linspace(width - 1, 1 - width, per_axis)] * m, indexing="ij"), -1).reshape(-1, m)
    owner, center = np.repeat(np.arange(groups), len(cells)), np.tile(cells, (groups, 1))
    half = np.full(center.shape, width)
    first = logs(owner, center, half)
    top = first.reshape(groups, -1).max(1)
    top = np.where(np.isfinite(top), top, 0.0)
    value, error, axis = measured(first, owner)
    while True:
        total, lost, count = (np.bincount(owner, w, groups) for w in (value, error, None))
        goal = TOLERANCE * total
        split = ((lost > goal) & (count < MOST_CELLS[m]))[owner] & (error > (0.5 * lost / count)[owner])
        if not split.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                return top + np.log(total), np.where(total > 0, lost / total, 0.0)
        part, keep = np.flatnonzero(split), ~split
        along = np.arange(m) == axis[part][:, None]
        halves = np.where(along, 0.5, 1.0) * half[part]
        shift = np.where(along, halves, 0.0)
        owners, halves = np.tile(owner[part], 2), np.tile(halves, (2, 1))
        centers = np.concatenate([center[part] - shift, center[part] + shift])
        values, errors, axes = measured(logs(owners, centers, halves), owners)
        change = np.abs(value[part] - values.reshape(2, -1).sum(0))  # at a jump both orders may have the same error
        new = (owners, centers, halves, values, np.maximum(errors, np.tile(0.25 * change, 2)), axes)
        old = (owner, center, half, value, error, axis)
        owner, center, half, value, error, axis = (np.concatenate([a[keep], b]) for a, b in zip(old, new))


def least_evaluations(m: int) -> int:
    """How often a function of m variables is evaluated for its integral, at least."""
    return CELLS[m] ** m * len(Rule.of(m).nodes) if m else 1


def quadrature(
    log_density: Callable[[np.ndarray], np.ndarray],
    regression: LocalRegression,
    points: np.ndarray,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate a density over the free columns of a regression, at points of the fixed ones, by adaptive quadrature.

    Parameters
    ----------
    log_density : callable
        From rows (n, d) to the log-density (n,).
    regression : LocalRegression
        Made from samples of the density; it shows where its mass lies.
    points : ndarray (G, k)
    advance : callable
        Called with a number of points that are done.

    Returns
    -------
    log_integral, error : ndarray (G,)
        The logarithms of the integrals and their relative errors; without free columns the density itself.
    """
    m = len(regression.free)
    if not m:
        return log_density(regression.joined(points, np.empty((len(points), 0)))), np.zeros(len(points))
    if not len(points):
        return np.zeros(0), np.zeros(0)
    found, at_once = [], max(1, AT_ONCE // least_evaluations(m))
    for i in range(0, len(points), at_once):
        part = points[i : i + at_once]
        fits = [regression.at(point) for point in part]
        mean = np.stack([fit.mean + fit.whiten(point[None])[0] @ fit.slope for fit, point in zip(fits, part)])
        root = np.stack([cholesky(fit.residuals) for fit in fits])

        def log_f(of: np.ndarray, free: np.ndarray, part: np.ndarray = part) -> np.ndarray:
            return log_density(regression.joined(part[of], free))

        found.append(integrate(log_f, mean, root))
        advance(len(part))
    log_integral, error = (np.concatenate(values) for values in zip(*found))
    return log_integral, error
