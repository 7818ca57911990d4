"""What a base distribution is: a density on the latent side that factorises over the columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from npflows.engine.params import Parameter, ParameterBuffer, Parametrised
from npflows.engine.program import NO_FRONT, Program
from npflows.layers.configured import Configured
from npflows.validation import as_dtype, as_int, as_positive, as_rng, as_rows


class Base(Parametrised, Configured):
    """A distribution of independent columns, each located around a centre.

    To make one of your own, subclass it, hand its parameters to the constructor, set `kernels` to two functions decorated
    with `npflows.kernels.jit.kernel`, of the kinds "base" and "base_vjp" in `npflows.kernels.calls.SIGNATURES`, and
    write `draw`; a `center` other than 0 and a bounded `support` are the only other things to say.

    Parameters
    ----------
    dim : int
        Number of columns.
    parameters : list of Parameter
        Free ones are trained with the flow.
    dtype : {"float32", "float64"}
    """

    kernels: Sequence[Callable]
    """log_prob and log_prob_vjp."""

    def __init__(self, dim: int, parameters: list[Parameter], *, dtype: object = "float32") -> None:
        self.dim = as_int(dim, "dim")
        self._buffer = ParameterBuffer(parameters, as_dtype(dtype))
        self._program: Program | None = None

    @property
    def theta_size(self) -> int:
        return self._buffer.theta.size

    def spec(self) -> list[int]:
        """The integers that the kernels read."""
        return []

    @property
    def center(self) -> np.ndarray:
        """What temperature 0 would draw (dim,)."""
        return np.zeros(self.dim)

    @property
    def support(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Bounds (low, high) of each column outside which the density is zero; None for the whole line."""
        return None

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n samples (n, dim) as float64."""
        raise NotImplementedError

    def sample(self, n_samples: int, rng: object = None, temperature: float = 1.0) -> np.ndarray:
        """Samples (n_samples, dim), their distances from the centre multiplied by `temperature`."""
        n = as_int(n_samples, "n_samples", 0)
        z = self.draw(n, as_rng(rng))
        temperature = as_positive(temperature, "temperature")
        return z if temperature == 1 else self.center + temperature * (z - self.center)

    def log_prob(self, z: object, temperature: float = 1.0) -> np.ndarray:
        """Log-density (n,) of z (n, dim), of the distribution that `sample` at this temperature draws from."""
        rows, single = as_rows(z, (self.dim,), "z")
        temperature = as_positive(temperature, "temperature")
        if temperature != 1:
            rows = self.center + (rows - self.center) / temperature
        if self._program is None:
            self._program = Program([], [0], self.dim, self.dtype, base=self)
        result = self._program.transport(self._buffer.theta, NO_FRONT, rows, None, y=False, log_det=False,
                                         log_prob=True)  # fmt: skip
        values = result.log_prob - self.dim * math.log(temperature)
        return values[0] if single else values

    def _columns(self, value: object, name: str) -> np.ndarray:
        """One number for all columns, or one for each."""
        array = np.asarray(value, np.float64)
        if array.shape not in ((), (self.dim,)) or not np.isfinite(array).all():
            raise ValueError(f"{name} must be a finite number or {self.dim} of them, got {value!r}")
        return np.broadcast_to(array, (self.dim,)).copy()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_program": None}
