"""Problems for samplers whose evidence is known: a prior, a likelihood of many points at a time, and the logarithm of Z."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import integrate, special, stats


@dataclass
class Problem:
    """A likelihood under independent priors of one kind.

    Attributes
    ----------
    n_dim : int
    scale : float
        The standard deviation of a normal prior, or the half width of a uniform one.
    normal : bool
        Whether the priors are normal.
    log_likelihood : callable
        Of x (n, n_dim): an array (n,).
    log_evidence : float
        By quadrature or in closed form.
    """

    n_dim: int
    scale: float
    normal: bool
    log_likelihood: Callable[[np.ndarray], np.ndarray]
    log_evidence: float

    def log_prior(self, x: np.ndarray) -> np.ndarray:
        """The log-density (n,) of the prior at x (n, n_dim)."""
        if self.normal:
            return (-0.5 * (x / self.scale) ** 2).sum(axis=-1) - self.n_dim * math.log(self.scale * math.sqrt(2 * math.pi))
        inside = (np.abs(x) <= self.scale).all(axis=-1)
        return np.where(inside, -self.n_dim * math.log(2 * self.scale), -np.inf)

    def sample_prior(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw (n, n_dim) from the prior."""
        shape = (n, self.n_dim)
        return rng.normal(0, self.scale, shape) if self.normal else rng.uniform(-self.scale, self.scale, shape)

    def priors(self) -> list:
        """The prior of each parameter, frozen distributions of SciPy."""
        one = stats.norm(0, self.scale) if self.normal else stats.uniform(-self.scale, 2 * self.scale)
        return [one] * self.n_dim


def rosenbrock(n_dim: int) -> Problem:
    """Pairs of Rosenbrock's valley under N(0, 3^2), the example of pocoMC's documentation."""

    def log_likelihood(x: np.ndarray) -> np.ndarray:
        return -(10.0 * (x[..., ::2] ** 2 - x[..., 1::2]) ** 2 + (x[..., ::2] - 1) ** 2).sum(axis=-1)

    def inner(a: float) -> float:  # the integral over the second of a pair, in closed form
        s2, m2 = 1 / 20, 9.0
        return math.sqrt(s2 / (s2 + m2)) * math.exp(-0.5 * a**4 / (s2 + m2)) * math.exp(-((a - 1) ** 2))

    density = stats.norm(0, 3).pdf
    pair = integrate.quad(lambda a: inner(a) * density(a), -12, 12, epsabs=1e-14, limit=500)[0]
    return Problem(n_dim, 3.0, True, log_likelihood, n_dim / 2 * math.log(pair))


def shell(n_dim: int = 4, radius: float = 2.0, width: float = 0.1) -> Problem:
    """A Gaussian shell in a uniform box from -6 to 6."""

    def log_likelihood(x: np.ndarray) -> np.ndarray:
        r = np.sqrt((x**2).sum(axis=-1))
        return -0.5 * ((r - radius) / width) ** 2 - math.log(width * math.sqrt(2 * math.pi))

    area = 2 * math.pi ** (n_dim / 2) / special.gamma(n_dim / 2)
    shape = stats.norm(radius, width).pdf
    mass = integrate.quad(lambda r: area * r ** (n_dim - 1) * shape(r), max(0, radius - 12 * width), radius + 12 * width)[0]
    return Problem(n_dim, 6.0, False, log_likelihood, math.log(mass) - n_dim * math.log(12.0))


def funnel(n_dim: int = 5, half: float = 20.0) -> Problem:
    """Neal's funnel, v of N(0, 3^2) and the others of N(0, exp(v)), in a uniform box from -20 to 20."""

    def log_likelihood(x: np.ndarray) -> np.ndarray:
        v, others = x[..., 0], x[..., 1:]
        log_p = -0.5 * (v / 3) ** 2 - math.log(3 * math.sqrt(2 * math.pi))
        k = others.shape[-1]
        return log_p - 0.5 * np.exp(-v) * (others**2).sum(axis=-1) - 0.5 * k * (v + math.log(2 * math.pi))

    def slice_mass(v: float) -> float:
        inside = special.erf(half * math.exp(-v / 2) / math.sqrt(2))
        return stats.norm.pdf(v, 0, 3) * inside ** (n_dim - 1)

    mass = integrate.quad(slice_mass, -half, half, limit=500)[0]
    return Problem(n_dim, half, False, log_likelihood, math.log(mass) - n_dim * math.log(2 * half))


def correlated(n_dim: int = 20, rho: float = 0.95) -> Problem:
    """A Gaussian whose neighboring columns have the correlation rho, under N(0, 3^2)."""
    covariance = rho ** np.abs(np.subtract.outer(np.arange(n_dim), np.arange(n_dim)))
    precision = np.linalg.inv(covariance)
    constant = -0.5 * (np.linalg.slogdet(covariance)[1] + n_dim * math.log(2 * math.pi))

    def log_likelihood(x: np.ndarray) -> np.ndarray:
        return constant - 0.5 * ((x @ precision) * x).sum(axis=-1)

    total = covariance + 9 * np.eye(n_dim)
    return Problem(n_dim, 3.0, True, log_likelihood,
                   -0.5 * (np.linalg.slogdet(total)[1] + n_dim * math.log(2 * math.pi)))  # fmt: skip


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "rosenbrock4": lambda: rosenbrock(4),
    "rosenbrock10": lambda: rosenbrock(10),
    "shell4": shell,
    "funnel5": funnel,
    "gaussian20": correlated,
}
