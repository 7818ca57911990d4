"""The integral of a density over its whole space: adaptive quadrature for one or two columns, bridge sampling for more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npflows.core.special import expit, log_expit
from npflows.distribution.transformed import TransformedDistribution
from npflows.verify.space import Axes, Columns, Space

LogDensity = Callable[[np.ndarray], np.ndarray]

CELLS = {1: 64, 2: 24}
"""Cells of an axis that the quadrature starts with."""
CROWDED = 0.01
"""A cell that holds a larger share of the samples is always split, so that no spike is stepped over."""
EDGE = 1e-13
"""How close to the faces of the unit cube the density is asked for."""
DEEPEST = 40
"""How often a cell may be halved."""
MOST_COLUMNS = 100
MOST_COMPONENTS = 16
COMPONENT_ROWS = 25
"""Rows for each component and column that the mixture is fitted to."""
PROPOSAL_ROWS = 4096
BRIDGE_SAMPLES = 8192
LEAST_OVERLAP = 1e-4
"""Share of the samples of either distribution that the other one might have given, at least, for a bridge between them."""
QUADRATURE_POINTS = 400_000
KMEANS_STEPS = 5
EM_STEPS = 12


class Integral(NamedTuple):
    """An estimate, its error, and both in words."""

    value: float
    error: float
    note: str


def lobatto(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss-Lobatto rule on [0, 1].

    The ends are nodes too, so that a jump of the density inside a cell lies between two nodes of it.
    """
    basis = np.polynomial.legendre.Legendre.basis(n - 1)
    nodes = np.concatenate([[-1.0], basis.deriv().roots(), [1.0]])
    return (nodes + 1) / 2, 1 / (n * (n - 1) * basis(nodes) ** 2)


def quadrature(
    log_density: LogDensity, samples: np.ndarray, space: Space, *, tolerance: float = 1e-7, budget: int = 400_000
) -> Integral:  # fmt: skip
    """Integrate a density of one or two columns over all of space.

    The unit cube, mapped onto the space (`Axes`), is cut into cells; the cells whose parts do not add up to what they
    were estimated to hold are cut in half along each axis, again and again.

    Parameters
    ----------
    log_density : callable
        x (n, d) to log p (n,), -inf where p is 0.
    samples : ndarray (n, d)
        Where the density is: cells with many of them are cut further whatever their estimate says.
    space : Space
    tolerance : float
        Error to stop at.
    budget : int
        Points at which the density may be asked for.

    Returns
    -------
    Integral
        Its error is the sum of what each cell was last found to be off by, which is more than it still is.
    """
    d = samples.shape[1]
    axes = Axes(samples, space)
    line, line_weights = lobatto(7 if d == 1 else 5)
    nodes = np.array(list(itertools.product(line, repeat=d)))
    node_weights = np.prod(list(itertools.product(line_weights, repeat=d)), axis=1)
    corners = np.array(list(itertools.product((0, 1), repeat=d)))
    used = 0

    def integrals(low: np.ndarray, size: np.ndarray) -> np.ndarray:
        nonlocal used
        u = low[:, None] + size[:, None, None] * nodes
        x, log_slope = axes.x(np.clip(u.reshape(-1, d), EDGE, 1 - EDGE))
        used += len(x)
        with np.errstate(over="ignore"):
            p = np.exp(log_density(x) + log_slope).reshape(len(low), -1)
        return np.nan_to_num(p, nan=0.0, posinf=float(np.finfo(float).max)) @ node_weights * size**d

    k = CELLS[d]
    low = np.array(list(itertools.product(np.arange(k) / k, repeat=d)))
    size = np.full(len(low), 1 / k)
    mass, error = integrals(low, size), np.full(len(low), np.inf)
    u = np.clip(axes.u(samples), 0, 1 - 1e-16)
    home = np.ravel_multi_index(tuple(np.minimum((u * k).astype(int), k - 1).T), (k,) * d)
    while True:
        share = np.bincount(home, minlength=len(low)) / max(1, len(home))
        order = np.argsort(-error)
        rest = np.cumsum(error[order][::-1])[::-1]
        wanted = np.zeros(len(low), bool)
        wanted[order[rest > tolerance]] = True
        wanted |= share > CROWDED
        wanted &= size > 2.0**-DEEPEST
        chosen = order[wanted[order]][: (budget - used) // (len(nodes) << d)]
        if not len(chosen):
            break
        half = size[chosen] / 2
        child_low = (low[chosen, None] + half[:, None, None] * corners).reshape(-1, d)
        child_size = np.repeat(half, 1 << d)
        child_mass = integrals(child_low, child_size)
        off = np.abs(child_mass.reshape(len(chosen), -1).sum(axis=1) - mass[chosen])
        kept = np.ones(len(low), bool)
        kept[chosen] = False
        place = np.cumsum(kept) - 1
        first_child = np.full(len(low), -1)
        first_child[chosen] = kept.sum() + np.arange(len(chosen)) * (1 << d)
        moved = first_child[home] >= 0
        middle = low[home[moved]] + size[home[moved], None] / 2
        child = (u[moved] >= middle) @ (1 << np.arange(d)[::-1])
        home[moved], home[~moved] = first_child[home[moved]] + child, place[home[~moved]]
        low = np.concatenate([low[kept], child_low])
        size = np.concatenate([size[kept], child_size])
        mass = np.concatenate([mass[kept], child_mass])
        error = np.concatenate([error[kept], np.repeat(off / (1 << d), 1 << d)])
    value, off = float(mass.sum()), float(error.sum())
    return Integral(value, off, f"{value:.7g} +- {off:.1g} by quadrature at {used:,} points")


def nearest_of(y: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Which of k centers each row of y (n, d) is nearest to (n,); the centers by k-means, after k-means++."""
    centers = y[rng.integers(len(y), size=1)]
    squares = ((y - centers[0]) ** 2).sum(axis=1)
    while len(centers) < k:
        total = squares.sum()
        chosen = rng.choice(len(y), p=squares / total) if total > 0 else rng.integers(len(y))
        centers = np.concatenate([centers, y[chosen : chosen + 1]])
        squares = np.minimum(squares, ((y - centers[-1]) ** 2).sum(axis=1))
    for _ in range(KMEANS_STEPS):
        label = ((centers**2).sum(axis=1) - 2 * y @ centers.T).argmin(axis=1)
        member = np.eye(k)[label]
        count = member.sum(axis=0)
        centers = np.where(count[:, None] > 0, member.T @ y / np.maximum(count, 1)[:, None], centers)
    return label


class Mixture:
    """A mixture of multivariate t distributions fitted to samples, to propose more like them.

    Parameters
    ----------
    samples : ndarray (n, d)
    rng : numpy.random.Generator
    inflation : float
        Factor on the components' widths.
    """

    def __init__(self, samples: np.ndarray, rng: np.random.Generator, inflation: float = 1.1) -> None:
        n, d = samples.shape
        self.loc, self.scale = samples.mean(axis=0), np.maximum(samples.std(axis=0), 1e-300)
        self.degrees = d + 5.0
        y = (samples - self.loc) / self.scale
        k = max(1, min(MOST_COMPONENTS, n // (COMPONENT_ROWS * d)))
        share = np.eye(k)[nearest_of(y, k, rng)]
        for step in range(EM_STEPS if k > 1 else 1):
            if step:
                log_p = self._log_normal(y)
                share = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
            count = share.sum(axis=0) + 1e-6
            self.weight, self.mean = count / count.sum(), share.T @ y / count[:, None]
            self.factor = np.empty((k, d, d))
            for i in range(k):
                e = y - self.mean[i]
                covariance = ((share[:, i, None] * e).T @ e + 0.01 * np.eye(d)) / (count[i] + d)
                self.factor[i] = np.linalg.cholesky(covariance)
            self.whiten = np.linalg.inv(self.factor)
        self.factor, self.whiten = self.factor * inflation, self.whiten / inflation
        v = self.degrees
        self.constant = math.lgamma((v + d) / 2) - math.lgamma(v / 2) - d / 2 * math.log(math.pi * v)

    def _squares(self, y: np.ndarray) -> np.ndarray:
        """Squared distances (n, k) from each mean, in the component's own units."""
        return np.stack([(((y - m) @ w.T) ** 2).sum(axis=1) for m, w in zip(self.mean, self.whiten)], axis=1)

    def _log_weights(self) -> np.ndarray:
        return np.log(self.weight) + np.log(np.diagonal(self.whiten, axis1=1, axis2=2)).sum(axis=1)

    def _log_normal(self, y: np.ndarray) -> np.ndarray:
        return self._log_weights() - 0.5 * self._squares(y)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log q (n,) of x (n, d)."""
        v, d = self.degrees, x.shape[1]
        terms = self._log_weights() - (v + d) / 2 * np.log1p(self._squares((x - self.loc) / self.scale) / v)
        return np.logaddexp.reduce(terms, axis=1) + self.constant - np.log(self.scale).sum()

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n samples (n, d)."""
        d = len(self.loc)
        component = rng.choice(len(self.weight), n, p=self.weight)
        z = rng.standard_normal((n, d)) * np.sqrt(self.degrees / rng.chisquare(self.degrees, (n, 1)))
        y = np.empty((n, d))
        for i, (m, factor) in enumerate(zip(self.mean, self.factor)):
            chosen = component == i
            y[chosen] = m + z[chosen] @ factor.T
        return self.loc + self.scale * y


def bridge(
    log_density: LogDensity,
    draw: Callable[[int, np.random.Generator], np.ndarray],
    n: int,
    space: Space,
    rng: np.random.Generator,
) -> Integral:  # fmt: skip
    """Integrate a density of any number of columns by bridge sampling.

    Samples of the density and samples of an independent proposal, a `Mixture`, are weighed against each other (Meng and
    Wong 1996, Statistica Sinica 6, 831, equation 4.1).  What is averaged is bounded, so that the error is to be trusted
    where plain importance sampling would miss a rare large weight (Fruehwirth-Schnatter 2004, Econometrics Journal 7,
    143).

    Parameters
    ----------
    log_density : callable
        x (n, d) to log p (n,), -inf where p is 0.
    draw : callable
        n and a generator to n samples (n, d) of p.
    n : int
        Samples of each.
    space : Space
        The two are compared on the line, where it is mapped to.
    rng : numpy.random.Generator

    Returns
    -------
    Integral
        With its standard error, which is infinite where the two distributions do not overlap; the note has what
        importance sampling from the proposal alone gives, and its standard error, as far as that is to be trusted.
    """

    def log_ratio(t: np.ndarray) -> np.ndarray:
        x, log_slope = space.from_unconstrained(t)
        with np.errstate(invalid="ignore"):
            ratio = log_density(x) + log_slope - proposal.log_density(t)
        return np.nan_to_num(ratio, nan=-np.inf, posinf=700.0, neginf=-np.inf)

    first = space.to_unconstrained(draw(PROPOSAL_ROWS, rng))
    nothing = Integral(math.nan, math.inf, "the proposal and the density do not overlap")
    if len(first) < 2 * first.shape[1]:
        return nothing
    proposal = Mixture(first, rng)
    a = log_ratio(space.to_unconstrained(draw(n, rng)))
    b = log_ratio(proposal.sample(len(a), rng))
    finite = np.concatenate([a, b])
    finite = finite[np.isfinite(finite)]
    if not np.isfinite(b).any():
        return nothing

    def balance(log_value: float) -> float:
        return float(np.logaddexp.reduce(log_expit(b - log_value)) - np.logaddexp.reduce(log_expit(log_value - a)))

    low, high = finite.min() - 30.0, finite.max() + 30.0
    if not balance(low) > 0 > balance(high):
        return nothing
    while high - low > 1e-9 * max(1.0, abs(low)):
        log_value = 0.5 * (low + high)
        low, high = (log_value, high) if balance(log_value) > 0 else (low, log_value)
    parts = expit(b - log_value), expit(log_value - a)
    if not min(part.mean() for part in parts) > LEAST_OVERLAP:
        return nothing
    value = math.exp(min(log_value, 700.0))
    error = value * math.sqrt(sum(part.var() / (len(part) * part.mean() ** 2) for part in parts))
    weights = np.exp(np.minimum(b, 700.0))
    alone = f"{weights.mean():.3f} +- {weights.std() / math.sqrt(len(weights)):.3f}"
    return Integral(value, error, f"{value:.4f} +- {error:.4f} by bridge sampling, {alone} by importance sampling")


def integrate(
    flow: TransformedDistribution, condition: np.ndarray | None, rng: np.random.Generator, share: int = 1
) -> Integral:  # fmt: skip
    """The integral of a flow's density under one condition, with a `share`-th of the usual work."""
    d, space = flow.latent_dim, Columns(flow).space

    def log_density(x: np.ndarray) -> np.ndarray:
        return flow.log_prob(x, condition)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x = np.reshape(flow.sample(n, rng, condition=condition), (n, d))
        return x[np.isfinite(x).all(axis=1) & (space.room(x) > 0).all(axis=1)]

    if d > MOST_COLUMNS:
        return Integral(math.nan, math.inf, f"not estimated for more than {MOST_COLUMNS} columns")
    if d > 2:
        return bridge(log_density, draw, BRIDGE_SAMPLES // share, space, rng)
    samples = draw(2000, rng)
    if not len(samples):
        return Integral(math.nan, math.inf, "no sample is finite")
    tolerance = 1e-7 if flow.dtype == np.float64 else 1e-5
    return quadrature(log_density, samples, space, tolerance=tolerance, budget=QUADRATURE_POINTS // share)
