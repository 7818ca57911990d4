"""Integrals of a density over some of its columns, at many points of the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LogDensity = Callable[[np.ndarray], np.ndarray]
"""x (n, d) to log p (n,)."""

CELLS = {1: 16, 2: 10, 3: 6}
"""Cells along each axis that quadrature begins with, by the number of axes."""
MOST_CELLS = {1: 500, 2: 3000, 3: 20_000}
TOLERANCE = 3e-5
"""Relative error, which is overestimated, at which an integral is not refined any more."""
AT_ONCE = 1 << 20
"""Points that are in work together, about."""

SIDE = math.sqrt(12)
"""Of a box around samples, in whitened units: it is then as wide as they are."""
LINE = 4
"""Points along a line, for each sample that importance sampling moves."""

# Gauss and Kronrod's nodes from 0 to 1, their weights, and those of Gauss alone (QUADPACK's qk15)
NODES = [0.0, 0.20778495500789848, 0.4058451513773972, 0.5860872354676911, 0.7415311855993945, 0.8648644233597691,
         0.9491079123427585, 0.9914553711208126]  # fmt: skip
KRONROD = [0.20948214108472782, 0.20443294007529889, 0.19035057806478542, 0.1690047266392679, 0.14065325971552592,
           0.10479001032225019, 0.06309209262997856, 0.022935322010529224]  # fmt: skip
GAUSS = [0.4179591836734694, 0, 0.3818300505051189, 0, 0.27970539148927664, 0, 0.1294849661688697, 0]


@dataclass(frozen=True)
class Rule:
    """Nodes (q, m) in the cube from -1 to 1, and weights (q,) of two orders, which add up to 2^m."""

    nodes: np.ndarray
    high: np.ndarray
    low: np.ndarray

    @classmethod
    def of(cls, m: int) -> Rule:
        """Gauss and Kronrod's on a line, else Genz and Malik's (1980) of degrees 7 and 5."""
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

    def roughest(self, values: np.ndarray) -> np.ndarray:
        """The axis (n,) along which values (n, q) have the largest fourth difference."""
        m = self.nodes.shape[1]
        if m == 1:
            return np.zeros(len(values), np.int64)
        near, far = values[:, 1 : 1 + 2 * m], values[:, 1 + 2 * m : 1 + 4 * m]
        near, far = (v[:, :m] + v[:, m:] - 2 * values[:, :1] for v in (near, far))
        return np.abs(near - far / 7).argmax(1)


def integrate(
    log_f: Callable[[np.ndarray, np.ndarray], np.ndarray], mean: np.ndarray, root: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Integrals over m axes, to infinity both ways, of G functions, by adaptive quadrature.

    Parameters
    ----------
    log_f : callable
        Which functions (n,), and where, x (n, m), to their logarithms (n,).
    mean, root : ndarray (G, m), (G, m, m)
        Where a function has its mass, about: cells are cut in t, between -1 and 1, of x = mean + root t / (1 - t^2).

    Returns
    -------
    log_integral, error : ndarray (G,)
        Its logarithm and its relative error, which is overestimated.
    """
    groups, m = mean.shape
    rule, per_axis = Rule.of(m), CELLS[m]
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)

    def logs(owner: np.ndarray, center: np.ndarray, half: np.ndarray) -> np.ndarray:
        """(n, q) logarithms at the nodes of cells, volume elements included."""
        t = (center[:, None] + half[:, None] * rule.nodes).reshape(-1, m)
        of, rest = np.repeat(owner, len(rule.nodes)), 1 - t * t
        x = mean[of] + np.einsum("nij,nj->ni", root[of], t / rest)
        volume = np.log((1 + t * t) / (rest * rest)).sum(1)
        return (log_f(of, x) + volume).reshape(len(owner), -1) + (np.log(half).sum(1) + log_det[owner])[:, None]

    def measured(values: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Integral, error and roughest axis of cells, the integrals in units of exp(top)."""
        values = np.exp(np.minimum(values - top[owner][:, None], 600.0))
        total = values @ rule.high
        return np.maximum(total, 0.0), np.abs(total - values @ rule.low), rule.roughest(values)

    width = 1 / per_axis
    cells = np.stack(np.meshgrid(*[np.linspace(width - 1, 1 - width, per_axis)] * m, indexing="ij"), -1).reshape(-1, m)
    owner, center = np.repeat(np.arange(groups), len(cells)), np.tile(cells, (groups, 1))
    half = np.full(center.shape, width)
    first = logs(owner, center, half)
    top = first.reshape(groups, -1).max(1)
    top = np.where(np.isfinite(top), top, 0.0)
    value, error, along = measured(first, owner)
    while True:
        total, lost, count = (np.bincount(owner, w, groups) for w in (value, error, None))
        goal = TOLERANCE * total
        split = ((lost > goal) & (count < MOST_CELLS[m]))[owner] & (error > (0.5 * lost / count)[owner])
        if not split.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                return top + np.log(total), np.where(total > 0, lost / total, 0.0)
        part, keep = np.flatnonzero(split), ~split
        thin = np.arange(m) == along[part][:, None]
        halves = np.where(thin, 0.5, 1.0) * half[part]
        shift = np.where(thin, halves, 0.0)
        owners, halves = np.tile(owner[part], 2), np.tile(halves, (2, 1))
        centers = np.concatenate([center[part] - shift, center[part] + shift])
        values, errors, axes = measured(logs(owners, centers, halves), owners)
        change = np.abs(value[part] - values.reshape(2, -1).sum(0))  # both orders may err alike, at a jump
        new = (owners, centers, halves, values, np.maximum(errors, np.tile(0.25 * change, 2)), axes)
        old = (owner, center, half, value, error, along)
        owner, center, half, value, error, along = (np.concatenate([a[keep], b]) for a, b in zip(old, new))


class Surroundings:
    """How samples of a density lie around points of some of its columns, the fixed ones.

    Parameters
    ----------
    samples : ndarray (N, d)
    fixed : ndarray of int (k,)
    count : int
        Samples nearest to a point that are its surrounding.
    still : ndarray of bool (d,)
        Columns that do not follow the fixed ones.
    """

    def __init__(self, samples: np.ndarray, fixed: np.ndarray, count: int, still: np.ndarray) -> None:
        from scipy.spatial import cKDTree

        self.fixed, self.free, self.count = fixed, np.setdiff1d(np.arange(samples.shape[1]), fixed), count
        self.follow = ~still[self.free]
        low, middle, high = np.quantile(samples[:, fixed], (0.25, 0.5, 0.75), axis=0)
        reach = 3 * np.where(high > low, high - low, np.inf)
        self.root = cholesky(np.clip(samples[:, fixed], middle - reach, middle + reach))
        self.samples, self.tree = samples, cKDTree(self.whiten(samples[:, fixed]))

    def whiten(self, a: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self.root, a.T).T

    def at(self, point: np.ndarray) -> Surrounding:
        """Those of a point (k,), by linear regression on the samples nearest to it: the fewer, the farther out it lies."""
        count, least = min(self.count, len(self.samples)), 32 * len(point) + 96
        while True:
            _, nearest = self.tree.query(self.whiten(point[None])[0], np.arange(1, count + 1))
            a, b = self.samples[nearest][:, self.fixed], self.samples[nearest][:, self.free]
            middle, root = a.mean(0), cholesky(a)
            if count <= least or (np.abs(np.linalg.solve(root, point - middle)) < 0.5 * SIDE).all():
                break
            count = max(least, count // 4)
        u = np.linalg.solve(root, (a - middle).T).T
        slope = np.linalg.lstsq(np.c_[u, np.ones(len(u))], b, rcond=1e-6)[0][:-1] * self.follow
        return Surrounding(middle, root, slope, b.mean(0), b - b.mean(0) - u @ slope)

    def moved(self, point: np.ndarray) -> np.ndarray:
        """The samples (n, d) nearest to a point (k,), moved to it along the regression."""
        near = self.at(point)
        return self.joined(point, near.mean + near.u(point[None]) @ near.slope + near.rest)

    def joined(self, point: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Rows (n, d) of fixed columns, (k,) or (n, k), and free ones (n, m)."""
        rows = np.empty((len(values), self.samples.shape[1]))
        rows[:, self.fixed], rows[:, self.free] = point, values
        return rows


@dataclass
class Surrounding:
    """The samples nearest to a point: fixed columns a = middle + root u, and free ones b = mean + u slope + rest."""

    middle: np.ndarray  # (k,)
    root: np.ndarray  # (k, k), lower triangular
    slope: np.ndarray  # (k, m)
    mean: np.ndarray  # (m,)
    rest: np.ndarray  # (n, m)

    def u(self, a: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self.root, (a - self.middle).T).T


def cholesky(x: np.ndarray) -> np.ndarray:
    """The lower factor of the covariance of x (n, m), its diagonal raised a little where columns depend on each other."""
    covariance = np.cov(x.T).reshape(x.shape[1], -1)
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0, scale, 1.0)
    return scale[:, None] * np.linalg.cholesky(covariance / (scale[:, None] * scale) + 1e-9 * np.eye(len(scale)))


def quadrature(log_density: LogDensity, around: Surroundings, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms (G,) of a density's integrals over the free columns at points (G, k) of the fixed ones, and their
    relative errors; without free columns the density itself."""
    m = len(around.free)
    if not m:
        return log_density(around.joined(points, np.empty((len(points), 0)))), np.zeros(len(points))
    if not len(points):
        return np.zeros(0), np.zeros(0)
    found, at_once = [], max(1, AT_ONCE // (CELLS[m] ** m * len(Rule.of(m).nodes)))
    for i in range(0, len(points), at_once):
        part = points[i : i + at_once]
        near = [around.at(point) for point in part]
        mean = np.stack([s.mean + s.u(point[None])[0] @ s.slope for s, point in zip(near, part)])
        root = np.stack([cholesky(s.rest) for s in near])
        found.append(integrate(lambda g, b, part=part: log_density(around.joined(part[g], b)), mean, root))
    return tuple(np.concatenate(values) for values in zip(*found))


def lattice(k: int) -> np.ndarray:
    """LINE points (LINE, k) of the unit cube, evenly spread, that are a group under addition modulo 1."""
    return np.arange(LINE)[:, None] * np.array([3**j % LINE for j in range(k)]) / LINE


def importance(
    log_density: LogDensity,
    around: Surroundings,
    samples: np.ndarray,
    log_p: np.ndarray,
    points: np.ndarray,
    total: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms (G,) of a density's integrals over the free columns at points (G, k) of the fixed ones, and their
    relative standard errors.

    Samples x = (a, b) near a point c are moved along lines on which b follows a by regression.  With f(a) for p on the
    line through a sample, V the volume of a box W of values of a, and L a lattice in W that goes through the sample's a
    and wraps around at the ends, the mean over all samples of

        [a in W] f(c) / (V mean over L of f)

    is the integral: it is that of the weights of Chen (1994, J. Am. Stat. Assoc. 89, 818), whose denominator is f(a) alone,
    but where f(a) happens to be small, the lattice sees it.

    Parameters
    ----------
    around : Surroundings
        Made from other samples; W is around the samples nearest to c.
    samples, log_p : ndarray (N, d), (N,)
        Independent samples of the density, and its logarithm there.
    total : int
        N, or more where further samples were drawn that lie nowhere near.
    """
    from scipy.spatial import cKDTree

    a, k = samples[:, around.fixed], len(around.fixed)
    tree, steps = cKDTree(around.whiten(a)), lattice(k)[1:]
    found, error = np.full(len(points), -math.inf), np.zeros(len(points))
    for g, point in enumerate(points):
        near = around.at(point)
        reach = 0.5 * SIDE * math.sqrt(k) * np.linalg.norm(np.linalg.solve(around.root, near.root), 2)
        inside = np.array(tree.query_ball_point(around.whiten(near.middle[None])[0], reach), np.int64)
        u = near.u(a[inside])
        boxed = (np.abs(u) < 0.5 * SIDE).all(1)
        u, inside = u[boxed], inside[boxed]
        b = samples[inside][:, around.free] - u @ near.slope

        def on_line(u: np.ndarray, near: Surrounding = near, b: np.ndarray = b) -> np.ndarray:
            return log_density(around.joined(near.middle + u @ near.root.T, b + u @ near.slope))

        along = [on_line(((u / SIDE + 0.5 + step) % 1 - 0.5) * SIDE) for step in steps]
        log_mean = np.logaddexp.reduce([log_p[inside], *along], axis=0) - math.log(LINE)
        log_weights = on_line(near.u(np.repeat(point[None], len(u), axis=0))) - log_mean
        top = log_weights.max(initial=-math.inf)
        if top > -math.inf:
            weights = np.exp(log_weights - top)
            mean = weights.sum() / total
            found[g] = top + math.log(mean) - k * math.log(SIDE) - np.log(np.diag(near.root)).sum()
            error[g] = math.sqrt(max((weights @ weights) / total / mean**2 - 1, 0.0) / total)
    return found, error
