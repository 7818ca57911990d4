"""The normal base distribution."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.base.base import Base
from npflows.core.checks import as_int
from npflows.core.parameters import Parameter

HALF_LOG_2PI = 0.9189385332046727


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = -(z - loc)^2 / (2 scale^2) - log(scale) - log(2 pi) / 2; twin of scipy.stats.norm.logpdf."""
    n = z.shape[0]
    for d in range(n):
        loc, scale = np.float64(theta[d]), np.float64(theta[n + d])
        constant, inverse = -np.log(scale) - HALF_LOG_2PI, 1.0 / scale
        for t in range(z.shape[1]):
            q = (np.float64(z[d, t]) - loc) * inverse
            log_prob[t] += constant - 0.5 * q * q


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    n = z.shape[0]
    for d in range(n):
        loc, precision = theta[d], z.dtype.type(1) / (theta[n + d] * theta[n + d])
        for t in range(z.shape[1]):
            z[d, t] = -dlog_prob[t] * (z[d, t] - loc) * precision


@kernel
def learnt_log_prob(spec, theta, z, log_prob):
    """The same; theta holds logarithms of the scales."""
    n = z.shape[0]
    for d in range(n):
        loc, log_scale = np.float64(theta[d]), np.float64(theta[n + d])
        constant, inverse = -log_scale - HALF_LOG_2PI, np.exp(-log_scale)
        for t in range(z.shape[1]):
            q = (np.float64(z[d, t]) - loc) * inverse
            log_prob[t] += constant - 0.5 * q * q


@kernel(reassociate=True)
def learnt_log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    n, one = z.shape[0], z.dtype.type(1)
    for d in range(n):
        loc, inverse = theta[d], vecmath.exp(-theta[n + d])
        dloc, dlog_scale = z.dtype.type(0), z.dtype.type(0)
        for t in range(z.shape[1]):
            q = (z[d, t] - loc) * inverse
            slope = dlog_prob[t] * q * inverse
            dloc += slope
            dlog_scale += dlog_prob[t] * (q * q - one)
            z[d, t] = -slope
        if dtheta.size > 0:
            dtheta[d] += dloc
            dtheta[n + d] += dlog_scale


class Normal(Base):
    """Independent normal columns.

    Parameters
    ----------
    dim : int
        Number of columns.
    loc, scale : float or array_like (dim,)
        Mean and standard deviation of each column; scale is positive.
    learnable : bool
        Whether these are parameters, which start there; what is stored then is the logarithm of the scale.
    dtype : {"float32", "float64"}
    """

    def __init__(
        self,
        dim: int,
        loc: object = 0.0,
        scale: object = 1.0,
        *,
        learnable: bool = False,
        dtype: object = "float32",
    ) -> None:
        self.dim, self.learnable = as_int(dim, "dim"), bool(learnable)
        self.loc, self.scale = self._columns(loc, "loc"), self._columns(scale, "scale")
        if (self.scale <= 0).any():
            raise ValueError(f"scale must be positive, got {scale!r}")
        scales = Parameter("log_scale", np.log(self.scale)) if self.learnable else Parameter("scale", self.scale, False)
        super().__init__(dim, [Parameter("loc", self.loc, self.learnable), scales], dtype=dtype)

    @property
    def kernels(self) -> tuple[Callable, Callable]:  # type: ignore[override]
        return (learnt_log_prob, learnt_log_prob_vjp) if self.learnable else (log_prob, log_prob_vjp)

    @functools.cached_property
    def _is_standard(self) -> bool:
        return not self.learnable and bool((self.loc == 0).all() and (self.scale == 1).all())

    @property
    def center(self) -> np.ndarray:
        return self.parameters.views()["loc"].astype(np.float64)

    @property
    def _scale(self) -> np.ndarray:
        views = self.parameters.views()
        return np.exp(views["log_scale"].astype(np.float64)) if self.learnable else views["scale"].astype(np.float64)

    def cdf(self, z: object) -> np.ndarray:
        from scipy.special import ndtr

        return self._by_column(lambda z: ndtr((z - self.center) / self._scale), z, "z")

    def ppf(self, u: object) -> np.ndarray:
        from scipy.special import ndtri

        return self._by_column(lambda u: self.center + self._scale * ndtri(u), u, "u")

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        z = rng.standard_normal((n, self.dim))
        if not self._is_standard:
            z = self.center + z * self._scale
        return z
