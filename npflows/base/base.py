"""Base distributions: densities on the latent side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import evaluation
from npflows.core.checks import SeedLike, as_dtype, as_int, as_positive, as_rng, as_rows
from npflows.core.configured import Configured
from npflows.core.counters import Law
from npflows.core.operations import Custom, Operation, Placed, Program
from npflows.core.parameters import Parameter, ParameterBuffer
from npflows.core.runnable import Runnable
from npflows.core.underflow import ignore_underflow


class Base(Runnable, Configured, abstract=True):
    """A distribution of columns, each located around a center; but for mixtures of normal distributions, they are
    independent.

    To make one of your own, subclass it, hand its parameters to the constructor, set `kernels` to two functions decorated
    with `npflows.extend.kernel`, of the kinds "base" and "base_vjp" (see `npflows.extend`), and
    write `draw`; a `center` other than 0 and a bounded `support` are the only other things to say.  `cdf` and `ppf` are
    needed only where they are asked for, by a flow's `to_unit_cube` and `from_unit_cube`.

    Parameters
    ----------
    dim : int
        Number of columns.
    parameters : list of Parameter
        Free ones are trained with the flow.
    dtype : {"float32", "float64"}
    """

    condition_dim: int = 0
    """Values of a condition that the distribution depends on, as the layers see it."""

    kernels: Sequence[Callable]
    """Of a distribution of your own: log_prob and log_prob_vjp."""

    def __init__(self, dim: int, parameters: list[Parameter], *, dtype: DTypeLike = "float32") -> None:
        self.dim = as_int(dim, "dim")
        self.parameters = ParameterBuffer(parameters, as_dtype(dtype))

    def operation(self) -> Operation:
        """The description of the distribution that backends run."""
        return Custom(type(self).__name__, self.dim, tuple(self.kernels), lambda link: self.spec(), self.theta_size)

    def program(self) -> Program:
        """The distribution alone as a program."""
        return Program((), self.dim, self.dim, base=Placed(self.operation(), 0), condition_dim=self.condition_dim)

    def under(self, context: NDArray | None) -> Base:
        """The distribution under conditions (n, condition_dim) as the layers see them, one for all samples or one for each:
        itself, where it depends on none."""
        return self

    def _seen(self, n: int) -> NDArray | None:
        """The conditions of n samples that the program is given."""
        return None

    def spec(self) -> list[int]:
        """The integers that the kernels read."""
        return []

    @property
    def center(self) -> NDArray[np.float64]:
        """The point (dim,) that temperature 0 would draw."""
        return np.zeros(self.dim)

    @property
    def tempered(self) -> NDArray[np.bool_]:
        """Which columns (dim,) a temperature draws toward the center; a circle has none."""
        return np.ones(self.dim, bool)

    @property
    def support(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Bounds (low, high) of each column outside which the density is zero; None for the whole line."""
        return None

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """n samples (n, dim) as float64; of a distribution of your own with whatever `rng` offers."""
        raise NotImplementedError

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...] | None:
        """What `draw` draws n samples from, for a device that draws them; None where `draw` alone can."""
        return None

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        """Cumulative distribution of each column (n, dim), between 0 and 1, at z (n, dim)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no cdf(z); a base distribution of your own needs one for this"
        )

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        """The inverse of `cdf`, column by column: z (n, dim) for u (n, dim) between 0 and 1; NaN outside."""
        raise NotImplementedError(
            f"{type(self).__name__} has no ppf(u); a base distribution of your own needs one for this"
        )

    @ignore_underflow
    def sample(self, n_samples: int, rng: SeedLike = None, temperature: float = 1.0) -> NDArray[np.float64]:
        """Samples (n_samples, dim), their distances from the center multiplied by `temperature`.

        A Generator gives a key alone, four numbers as `rng.random(4)` does (`Cylinder` takes two keys, and no samples take
        none); each value follows from the key and its place, on any number of threads.  With the same seed or state of the
        Generator, fewer samples are therefore the first of more.  A distribution of your own takes what its `draw` takes.
        """
        n, generator = as_int(n_samples, "n_samples", 0), as_rng(rng)
        z = self.draw(n, generator) if n else np.zeros((0, self.dim))
        temperature = as_positive(temperature, "temperature")
        return z if temperature == 1 else np.where(self.tempered, self.center + temperature * (z - self.center), z)

    @ignore_underflow
    def log_prob(self, z: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
        """Log-density (n,) of z (n, dim), of the distribution that `sample` at this temperature draws from."""
        rows, single = as_rows(z, (self.dim,), "z")
        temperature = as_positive(temperature, "temperature")
        if temperature != 1:
            with np.errstate(over="ignore"):  # whose density is 0
                rows = np.where(self.tempered, self.center + (rows - self.center) / temperature, rows)
        result = evaluation.transport(self.executable(), self.state(), rows, self._seen(len(rows)), y=False,
                                      log_det=False, log_prob=True)  # fmt: skip
        values = result.log_prob - int(self.tempered.sum()) * math.log(temperature)
        return values[0] if single else values

    def _by_column(
        self, function: Callable[[NDArray[np.float64]], NDArray[np.float64]], values: ArrayLike, name: str
    ) -> NDArray[np.float64]:
        """A function of each value, in float64, of rows or of one without its axis."""
        rows, single = as_rows(values, (self.dim,), name)
        with np.errstate(all="ignore"):
            result = function(rows.astype(np.float64))
        return result[0] if single else result

    def _columns(self, value: ArrayLike, name: str) -> NDArray[np.float64]:
        """One number for all columns, or one for each."""
        array = np.asarray(value, np.float64)
        if array.shape not in ((), (self.dim,)) or not np.isfinite(array).all():
            raise ValueError(f"{name} must be a finite number or {self.dim} of them, got {value!r}")
        return np.broadcast_to(array, (self.dim,)).copy()
