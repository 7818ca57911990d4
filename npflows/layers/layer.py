"""Layers: invertible maps with parameters, each described by an operation that backends run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import evaluation
from npflows.core.backend import Cotangents
from npflows.core.checks import as_condition, as_dtype, as_rows, as_vector
from npflows.core.configured import Configured
from npflows.core.operations import Custom, Operation, Placed, Program
from npflows.core.parameters import Parameter, ParameterBuffer
from npflows.core.runnable import Runnable


class Layer(Runnable, Configured, abstract=True):
    """An invertible map with hand-derived gradients in both directions.

    `forward` goes from data to latent.  A layer works alone, on its own parameters; inside a flow it works on its part of
    the flow's.

    A subclass hands its parameters to the constructor and returns an `operation`; one of your own sets `kernels` and says
    in `spec` what these must know instead (see `npflows.extend`).

    Parameters
    ----------
    input_dim : int
        Values of a sample.
    parameters : list of Parameter
    work_rows, temp_rows : int
        With `kernels`: rows (values for each sample) that the forward kernels leave for the vjp kernels, and rows of
        scratch that any kernel may use.
    condition_dim : int
        Values of a condition.
    dtype : {"float32", "float64"}
        The compute dtype.
    """

    kernels: Sequence[Callable]
    """Of a layer of your own: forward, inverse, forward_vjp, inverse_vjp; see `npflows.extend`.  An attribute of the class
    or a property, as compiled functions can't be pickled."""
    takes_all_values: bool = False
    """Whether it takes all values of a sample in a flow, those included that a `Split` before it leaves behind."""
    one_lane: bool = True
    """Whether the kernels also work on a block of one lane, which a single sample is carried in; else lanes come in
    sixteens."""

    def __init__(
        self,
        input_dim: int,
        parameters: list[Parameter],
        *,
        work_rows: int = 0,
        temp_rows: int = 0,
        condition_dim: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        self.input_dim, self.condition_dim = input_dim, condition_dim
        self.work_rows, self.temp_rows = work_rows, temp_rows
        self.parameters = ParameterBuffer(parameters, as_dtype(dtype))

    def operation(self) -> Operation:
        """The description of the map that backends run."""
        name, kernels = type(self).__name__, tuple(self.kernels)
        return Custom(name, self.input_dim, kernels, self.spec, self.theta_size, self.work_rows, self.temp_rows,
                      self.one_lane)  # fmt: skip

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments as values that JSON can hold, random choices resolved.

        Raises
        ------
        TypeError
            If the layer has not kept one of them.
        """
        try:
            return super().arguments
        except AttributeError as error:
            raise TypeError(
                f"{type(self).__name__} can't be saved, copied or shown, as it lacks an attribute ({error}): give it a "
                f"constructor of its own that keeps what it is given as attributes of the same names"
            ) from None

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
    """Whether `initialize` has set the layer from data; None for a layer that takes nothing from data."""

    def initialize(self, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None) -> None:
        """Set the parameters that start from data (those of `ActNormLayer` do), at the first call only.

        Parameters
        ----------
        x : array_like (n, input_dim)
            Rows that enter the layer.
        sample_weight : array_like (n,), optional
            Their weights.
        condition : array_like (n, condition_dim), optional
            Their conditions.
        """

    def spec(self, link: Any) -> list[int]:
        """The integers that `kernels` read: sizes, offsets, indices, and the addresses of further kernels, from `link`."""
        return []

    @property
    def circle_bound(self) -> float | None:
        """Half the circumference of the circles that values are on, None where the layer knows of none."""
        return None

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which values (d,) are on circles after the layer, from which are before it.

        Raises
        ------
        ValueError
            If the layer can't keep a circle, as most can't.
        """
        if circles.any():
            where = ", ".join(map(str, np.flatnonzero(circles)))
            raise ValueError(
                f"{self!r} can't keep a value on a circle (here {where}): use circular splines, permutations and LULinear"
            )
        return circles

    def _fix_at_zero(self, fixed: Mapping[str, NDArray[np.bool_]]) -> None:
        """Take entries of some parameters, which are 0, for constants from now on.

        Raises
        ------
        ValueError
            If one of them is not 0.
        """
        views = self.parameters.views()
        if any(views[name][where].any() for name, where in fixed.items()):
            raise ValueError(f"{self!r} moves values on circles already: give the flow a layer as it is made")
        self.parameters = ParameterBuffer(
            [
                replace(p, value=views[p.name], free=p.free_mask() & ~fixed[p.name]) if p.name in fixed else p
                for p in self.parameters.entries
            ],
            self.dtype,
        )

    def forward(self, x: ArrayLike, condition: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Data to latent: y (n, d) and log |det dy/dx| (n,), for x (n, d)."""
        return self._transport(x, condition, inverse=False)

    def inverse(self, y: ArrayLike, condition: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latent to data: x (n, d) and log |det dx/dy| (n,), for y (n, d)."""
        return self._transport(y, condition, inverse=True)

    def forward_vjp(
        self, x: ArrayLike, dy: ArrayLike, dlog_det: ArrayLike = 0.0, condition: ArrayLike | None = None
    ) -> Cotangents:
        """Gradients of a scalar L through `forward` at x, from dL/dy (n, d) and dL/dlog_det (n,)."""
        return self._pullback(x, dy, dlog_det, condition, inverse=False)

    def inverse_vjp(
        self, y: ArrayLike, dx: ArrayLike, dlog_det: ArrayLike = 0.0, condition: ArrayLike | None = None
    ) -> Cotangents:
        """Gradients of a scalar L through `inverse` at y, from dL/dx (n, d) and dL/dlog_det (n,)."""
        return self._pullback(y, dx, dlog_det, condition, inverse=True)

    def program(self) -> Program:
        """The layer alone, or its parts one by one, as a program."""
        placed = tuple(Placed(leaf.operation(), offset) for leaf, offset in self.leaves())
        return Program(placed, self.input_dim, self.input_dim, condition_dim=self.condition_dim)

    def _transport(
        self, x: ArrayLike, condition: ArrayLike | None, inverse: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        entered, left = self._shapes(inverse)
        rows, single = as_rows(x, entered, "y" if inverse else "x")
        context = as_condition(condition, len(rows), self.condition_dim)
        y, log_det, _ = evaluation.transport(self.executable(), self.state(), rows, context, inverse=inverse)
        y = y.reshape(len(y), *left)
        return (y[0], log_det[0]) if single else (y, log_det)

    def _pullback(
        self, x: ArrayLike, dy: ArrayLike, dlog_det: ArrayLike, condition: ArrayLike | None, inverse: bool
    ) -> Cotangents:
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
