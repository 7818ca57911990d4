"""What every layer is: four compiled kernels, a table of parameters and the same methods on (n, d) arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npflows.backends.cpu.compiler.calls import Link
from npflows.backends.cpu.program import Program
from npflows.core import evaluation
from npflows.core.backend import Cotangents, State
from npflows.core.checks import as_condition, as_dtype, as_rows, as_vector
from npflows.core.configured import Configured
from npflows.core.parameters import Parameter, ParameterBuffer, Parametrised


class Layer(Parametrised, Configured, abstract=True):
    """An invertible map with hand-derived gradients in both directions.

    `forward` goes from data to latent.  A layer works alone, on its own parameters; inside a flow it works on its part of
    the flow's.

    A subclass sets `kernels` (or passes them), says in `spec` what the kernels must know, and hands its parameters and
    the scratch that it needs to the constructor.

    Parameters
    ----------
    input_dim : int
        Values of a sample.
    parameters : list of Parameter
    work_rows : int
        Rows (values for each sample) that the forward kernels leave for the vjp kernels.
    temp_rows : int
        Rows of scratch that any kernel may use.
    """

    kernels: Sequence[Callable]
    """forward, inverse, forward_vjp, inverse_vjp; see `npflows.extend`.  An attribute of the class or a
    property, as compiled functions can't be pickled."""
    one_lane: bool = True
    """Whether the kernels also work on a block of one lane, which a single sample is carried in; else lanes come in
    sixteens."""

    def __init__(
        self,
        input_dim: int,
        parameters: list[Parameter],
        *,
        work_rows: int,
        temp_rows: int,
        condition_dim: int = 0,
        dtype: object = "float32",
    ) -> None:
        self.input_dim, self.condition_dim = input_dim, condition_dim
        self.work_rows, self.temp_rows = work_rows, temp_rows
        self.parameters = ParameterBuffer(parameters, as_dtype(dtype))
        self._program: Program | None = None

    @property
    def rows(self) -> int:
        """Rows of a block that the layer uses."""
        return self.input_dim

    @property
    def theta_size(self) -> int:
        return self.parameters.theta.size

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample on the data side."""
        return (self.input_dim,)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of a sample on the latent side."""
        return self.sample_shape

    @property
    def onward_shape(self) -> tuple[int, ...]:
        """The shape of what the next layer of a flow takes: the first values of the result, perhaps fewer than all."""
        return self.result_shape

    def for_shape(self, shape: tuple[int, ...]) -> Layer:
        """The layer for samples of a shape, on the same parameters; itself where it is made for them already.

        Raises
        ------
        ValueError
            If it can't be.
        """
        if math.prod(shape) != self.input_dim or (len(shape) > 1 and self.sample_shape not in (shape, (self.input_dim,))):
            what = f"{shape[0]}" if len(shape) == 1 else f"images {shape}"
            own = f"{self.input_dim} values" if len(self.sample_shape) == 1 else f"images {self.sample_shape}"
            raise ValueError(f"takes {own} where the flow has {what}")
        return self

    def share(self, other: Layer) -> None:
        """Work on the parameters of another layer of the same kind."""
        self.parameters, self.initialized = other.parameters, other.initialized

    def leaves(self) -> list[tuple[Layer, int]]:
        """The layers that a program runs, each with the place in `theta` at which its parameters begin."""
        return [(self, 0)]

    initialized: bool | None = None
    """Whether `initialize` has set the layer from data; None where nothing is set from data."""

    def initialize(self, x: object, sample_weight: object = None, condition: object = None) -> None:
        """Set what is set from data, once, from rows x that enter the layer, their weights and their condition."""

    def spec(self, link: Link) -> list[int]:
        """The integers that the kernels read: sizes, offsets, indices, addresses (from `link`) of further kernels."""
        return []

    @property
    def circle_bound(self) -> float | None:
        """Where the layer has values on circles: half their circumference."""
        return None

    def keep_circles(self, circles: np.ndarray) -> np.ndarray:
        """Which values (d,) are on circles after the layer, from which are before it.

        Raises
        ------
        ValueError
            If the layer can't keep a circle, as most can't.
        """
        if circles.any():
            where = ", ".join(map(str, np.flatnonzero(circles)))
            raise ValueError(
                f"{self!r} can't keep a value on a circle (here {where}): use circular splines and permutations"
            )
        return circles

    def forward(self, x: object, condition: object = None) -> tuple[np.ndarray, np.ndarray]:
        """Data to latent: y (n, d) and log |det dy/dx| (n,), for x (n, d)."""
        return self._transport(x, condition, inverse=False)

    def inverse(self, y: object, condition: object = None) -> tuple[np.ndarray, np.ndarray]:
        """Latent to data: x (n, d) and log |det dx/dy| (n,), for y (n, d)."""
        return self._transport(y, condition, inverse=True)

    def forward_vjp(self, x: object, dy: object, dlog_det: object = 0.0, condition: object = None) -> Cotangents:
        """Gradients of a scalar L through `forward` at x, from dL/dy (n, d) and dL/dlog_det (n,)."""
        return self._pullback(x, dy, dlog_det, condition, inverse=False)

    def inverse_vjp(self, y: object, dx: object, dlog_det: object = 0.0, condition: object = None) -> Cotangents:
        """Gradients of a scalar L through `inverse` at y, from dL/dx (n, d) and dL/dlog_det (n,)."""
        return self._pullback(y, dx, dlog_det, condition, inverse=True)

    def state(self) -> State:
        return State(self.parameters.theta)

    def executable(self) -> Program:
        if self._program is None:
            layers, offsets = zip(*self.leaves())
            self._program = Program(layers, offsets, self.input_dim, self.dtype, condition_dim=self.condition_dim)
        return self._program

    def _transport(self, x: object, condition: object, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
        entered, left = self._shapes(inverse)
        rows, single = as_rows(x, entered, "y" if inverse else "x")
        context = as_condition(condition, len(rows), self.condition_dim)
        y, log_det, _ = evaluation.transport(self.executable(), self.state(), rows, context, inverse=inverse)
        y = y.reshape(len(y), *left)
        return (y[0], log_det[0]) if single else (y, log_det)

    def _pullback(self, x: object, dy: object, dlog_det: object, condition: object, inverse: bool) -> Cotangents:
        entered, left = self._shapes(inverse)
        rows, single = as_rows(x, entered, "y" if inverse else "x")
        cotangents, _ = as_rows(dy, left, "dx" if inverse else "dy")
        n = len(rows)
        if len(cotangents) != n:
            raise ValueError(f"cotangents must have one row for each of the {n} samples, got {len(cotangents)}")
        context = as_condition(condition, n, self.condition_dim)
        result = evaluation.pullback(self.executable(), self.state(), rows, context, dy=cotangents,
                                           dlog=as_vector(dlog_det, n, "dlog_det"), inverse=inverse,
                                           input=True)  # fmt: skip
        dcondition = result.dcondition if self.condition_dim else None
        dx = result.dx.reshape(n, *entered)
        return Cotangents(dx[0] if single else dx, result.gradient[self.parameters.free], dcondition)

    def _shapes(self, inverse: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of what enters and of what leaves."""
        shapes = self.sample_shape, self.result_shape
        return shapes[::-1] if inverse else shapes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_program": None}
