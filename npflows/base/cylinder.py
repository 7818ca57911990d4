"""The base distribution of tables with columns on circles."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import kernel
from npflows.base.base import Base
from npflows.base.normal import HALF_LOG_2PI
from npflows.core.checks import as_int, as_positive
from npflows.core.parameters import Parameter

# spec: for each column whether it is on a circle; theta: half the circumference


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = -z^2 / 2 - log(2 pi) / 2 on the line, -log(2 bound) on a circle."""
    on_circle = -np.log(2.0 * np.float64(theta[0]))
    for d in range(z.shape[0]):
        for t in range(z.shape[1]):
            value = np.float64(z[d, t])
            log_prob[t] += on_circle + 0.0 * value if spec[d] else -0.5 * value * value - HALF_LOG_2PI


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    for d in range(z.shape[0]):
        for t in range(z.shape[1]):
            z[d, t] = z.dtype.type(0) if spec[d] else -dlog_prob[t] * z[d, t]


class Cylinder(Base):
    """Independent columns, standard normal on the line and uniform on circles.

    Parameters
    ----------
    dim : int
        Number of columns.
    periodic : array_like of bool (dim,)
        Which columns are on a circle: the interval [-bound, bound], whose ends are the same point.
    bound : float
    dtype : {"float32", "float64"}
    """

    kernels = (log_prob, log_prob_vjp)

    def __init__(self, dim: int, periodic: object, bound: float, *, dtype: object = "float32") -> None:
        self.dim, self.bound = as_int(dim, "dim"), as_positive(bound, "bound")
        self.periodic = np.asarray(periodic, bool)
        if self.periodic.shape != (self.dim,):
            raise ValueError(f"periodic must say for each of {self.dim} columns whether it is, got {periodic!r}")
        super().__init__(dim, [Parameter("bound", np.array([self.bound]), False)], dtype=dtype)

    def spec(self) -> list[int]:
        return self.periodic.astype(int).tolist()

    @property
    def tempered(self) -> np.ndarray:
        return ~self.periodic

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        z = rng.standard_normal((n, self.dim))
        z[:, self.periodic] = rng.uniform(-self.bound, self.bound, (n, int(self.periodic.sum())))
        return z

    def cdf(self, z: object) -> np.ndarray:
        from scipy.special import ndtr

        on_circle = lambda z: np.clip((z + self.bound) / (2 * self.bound), 0.0, 1.0)  # noqa: E731
        return self._by_column(lambda z: np.where(self.periodic, on_circle(z), ndtr(z)), z, "z")

    def ppf(self, u: object) -> np.ndarray:
        from scipy.special import ndtri

        return self._by_column(lambda u: np.where(self.periodic, self.bound * (2 * u - 1), ndtri(u)), u, "u")
