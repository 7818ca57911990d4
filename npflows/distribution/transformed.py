"""What a flow is made of: layers, an embedding, a base and a support on one parameter buffer, as programs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from npflows.backends.cpu.program import Program
from npflows.base import Cylinder, as_base
from npflows.base.base import Base
from npflows.core import evaluation
from npflows.core.backend import IDENTITY, Pullback, Result, State
from npflows.core.checks import as_condition, as_int, as_rng, as_rows
from npflows.core.configured import Configured
from npflows.core.parameters import Parameter, ParameterBuffer, Parametrised, writeable
from npflows.layers.layer import Layer
from npflows.layers.standardize import Standardize, affine_table
from npflows.networks.embedding import Embedding
from npflows.support import Real, Support, as_columns

if TYPE_CHECKING:
    from npflows.verify import VerificationReport


class Assembled(Parametrised, Configured, abstract=True):
    """A flow without what it offers; `NormalizingFlow` is the public class."""

    _not_configured: ClassVar[frozenset[str]] = frozenset({"self", "rng", "columns"})
    parameter_aliases: ClassVar[dict[str, str]] = {}
    """Names that a configuration may use for parameters, and the names that the constructor has for them."""
    effective_rows: float | None = None

    def _assemble(
        self,
        layers: Sequence[Layer],
        shape: tuple[int, ...],
        base: str | Base,
        dtype: np.dtype,
        embedding: Embedding | None = None,
        *,
        support: object = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Put copies of the layers on one parameter buffer."""
        dim = math.prod(shape)
        if not isinstance(layers[0], Standardize):
            layers = [Standardize(dim, dtype=dtype), *layers]
        self.flow_layers: list[Layer] = []
        onward = shape
        for i, layer in enumerate(layers):
            name = f"layer {i} ({type(layer).__name__})"
            if layer.dtype != dtype:
                raise ValueError(f"{name} has dtype {layer.dtype} where the flow has {dtype}")
            if i and isinstance(layer, Standardize):
                raise ValueError(f"{name}: Standardize can only be the first layer, as it works in the user's units")
            try:
                self.flow_layers.append(copy.deepcopy(layer).for_shape(onward))
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
            given, onward = onward, self.flow_layers[-1].onward_shape
            if len(onward) == 1 and math.prod(onward) == math.prod(given):
                onward = given  # a layer of vectors leaves the shape of images as it is
        widths = {layer.condition_dim for layer in layers} - {0}
        if len(widths) > 1:
            raise ValueError(f"all layers with a condition must have the same condition_dim, got {sorted(widths)}")
        width = widths.pop() if widths else 0
        if embedding is not None and embedding.output_dim != width:
            raise ValueError(f"the embedding gives {embedding.output_dim} values where the layers take {width}")
        self.input_shape, self.latent_dim = shape, dim
        self.condition_dim = width if embedding is None else embedding.condition_dim
        self._condition_front = IDENTITY
        self._embedding = embedding
        self._columns: list[str] | None = None
        self.columns = columns
        self._condition_columns: list[str] | None = None
        self.support = as_columns(support, dim, self._columns)
        self._support, self.base = self._with_circles(base, dtype)
        parts: list[tuple[str, Parametrised]] = [(f"layers.{i}", part) for i, part in enumerate(self.flow_layers)]
        if embedding is not None:
            parts.append(("embedding", embedding))
        parts.append(("base", self.base))
        self.parameters = ParameterBuffer(
            (
                Parameter(f"{prefix}.{p.name}", part.parameters.views()[p.name], p.free)
                for prefix, part in parts
                for p in part.parameters.entries
            ),
            dtype,
        )
        self.history: dict[str, list[float]] = {}
        self._is_standardized = False
        self.verification: VerificationReport | None = None
        self.target: Callable | None = None
        self._bind()

    def _with_circles(self, base: str | Base, dtype: np.dtype) -> tuple[Support | None, Base]:
        """The support, and the base that is uniform on the circles that reach the latent side."""
        if self.support is None or all(isinstance(column, Real) for column in self.support):
            return None, as_base(base, self.latent_dim, dtype)
        circles = np.array([column.is_periodic for column in self.support])
        if not circles.any():
            return Support(self.support), as_base(base, self.latent_dim, dtype)
        bounds = {bound for layer in self.flow_layers if (bound := layer.circle_bound) is not None}
        if len(bounds) > 1:
            raise ValueError(f"all layers with circular values must have one bound, got {sorted(bounds)}")
        bound = bounds.pop() if bounds else 1.0
        for layer in self.flow_layers:
            circles = layer.keep_circles(circles)
        if base == "normal":
            base = Cylinder(self.latent_dim, circles, bound, dtype=dtype)
        if not isinstance(base, Cylinder) or (base.periodic != circles).any() or base.bound != bound:
            raise ValueError(
                f"base_distribution {base!r} can't hold values on circles: use 'normal', which is uniform on circles"
            )
        return Support(self.support, bound), as_base(base, self.latent_dim, dtype)

    def _bind(self) -> None:
        """Let the layers, the embedding and the base work on their parts of the flow's buffer."""
        start, self._offsets = 0, []
        parts = [*self.flow_layers, *([] if self._embedding is None else [self._embedding]), self.base]
        for part in parts:
            self._offsets.append(start)
            part.bind(self.parameters.theta[start : start + part.theta_size])
            start += part.theta_size
        self._leaves = [
            (leaf, offset + at)
            for layer, offset in zip(self.flow_layers[1:], self._offsets[1:])
            for leaf, at in layer.leaves()
        ]
        self._programs: dict[bool, Program] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}, "target": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._condition_front = writeable(self._condition_front)
        self._bind()

    @property
    def input_dim(self) -> int:
        """Values of a sample on the data side."""
        return self.latent_dim

    @property
    def columns(self) -> list[str] | None:
        """Names of the columns, None where they have none."""
        return self._columns

    @columns.setter
    def columns(self, names: Sequence[str] | None) -> None:
        names = None if names is None else [str(name) for name in names]
        if names is not None and len(names) != self.latent_dim:
            raise ValueError(f"columns must be {self.latent_dim} names, one for each value of a sample, got {names!r}")
        self._columns = names

    @property
    def condition_columns(self) -> list[str] | None:
        """Names of the values of the condition, None where they have none."""
        return self._condition_columns

    @condition_columns.setter
    def condition_columns(self, names: Sequence[str] | None) -> None:
        names = None if names is None else [str(name) for name in names]
        if names is not None and len(names) != self.condition_dim:
            wanted = f"{self.condition_dim} names, one for each value of the condition" if self.condition_dim else "None"
            raise ValueError(f"condition_columns must be {wanted}, got {names!r}")
        self._condition_columns = names

    @property
    def standardize(self) -> Standardize:
        """The first layer, which maps from the user's units."""
        return self.flow_layers[0]  # type: ignore[return-value]

    @property
    def _set_from_data(self) -> list[Layer]:
        """The layers that are set from data once, activation normalisation for instance."""
        return [leaf for leaf, _ in self._leaves if leaf.initialized is not None]

    def standardize_condition(self, loc: object, scale: object) -> None:
        """Set location and (positive) scale of each value of the condition, which the flow standardises by; `fit` does."""
        self._condition_front = affine_table(loc, scale, self.condition_dim)

    def executable(self, with_base: bool = True) -> Program:
        """The flow as a program, which ends in the base distribution unless only the map is wanted."""
        if with_base not in self._programs:
            self._programs[with_base] = Program(
                [leaf for leaf, _ in self._leaves],
                [offset for _, offset in self._leaves] + self._offsets[-1:],
                self.latent_dim,
                self.dtype,
                base=self.base if with_base else None,
                condition_dim=self.condition_dim,
                embedding=self._embedding,
                embedding_offset=self._offsets[-2],
                front=True,
            )
        return self._programs[with_base]

    def _transport(self, x: np.ndarray, condition: np.ndarray | None, **wanted: bool) -> Result:
        """Carry samples through the flow; see `npflows.core.evaluation.transport`."""
        return evaluation.transport(self.executable(), self.state(), x, condition, bijection=self._support, **wanted)

    def _pullback(self, x: np.ndarray, condition: np.ndarray | None, *, with_base: bool = True, **options: Any) -> Pullback:
        """Carry cotangents back through the flow; see `npflows.core.evaluation.pullback`."""
        return evaluation.pullback(
            self.executable(with_base), self.state(), x, condition, bijection=self._support, **options
        )

    def accumulate(
        self, x: np.ndarray, condition: np.ndarray | None, dlog: np.ndarray, buffers: np.ndarray, **options: Any
    ) -> None:
        """Add up gradients in given buffers; see `npflows.core.evaluation.accumulate`."""
        evaluation.accumulate(
            self.executable(), self.state(), x, condition, dlog, buffers, bijection=self._support, **options
        )

    def state(self, theta: np.ndarray | None = None) -> State:
        """What a program reads, with other parameters perhaps."""
        return State(self.parameters.theta if theta is None else theta, self.standardize.table, self._condition_front)

    def _inner_condition(self, condition: np.ndarray | None) -> np.ndarray | None:
        """What the layers see of a condition (n, condition_dim): standardised, and embedded where there is an embedding."""
        if condition is None:
            return None
        front = self._condition_front
        values = (condition - front[0]) / front[1] if front.shape[1] else np.array(condition, np.float64)
        return values if self._embedding is None else self._embedding(values)

    def _given(self, x: object, condition: object) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """Rows as they are, their condition, and whether there is one row without its axis."""
        rows, single = as_rows(x, self.input_shape, "x")
        if self._support is not None:
            self._support.check(rows, "x")
        return rows, as_condition(condition, len(rows), self.condition_dim), single

    def _cells(self, rows: np.ndarray, draws: int, rng: object) -> Iterable[np.ndarray]:
        """The rows, or as many copies as `draws` with whole numbers at random points of their cells, the same for all."""
        if self._support is None or not self._support.has_integers:
            return [rows]
        return self._support.cells(rows, as_int(draws, "draws"), as_rng(rng))

    def _inputs(self, x: object, condition: object, name: str = "x") -> tuple[np.ndarray, np.ndarray | None, bool]:
        """Rows, whole numbers in the middle of their cells, with their condition, and whether there is a single one."""
        rows, single = as_rows(x, self.input_shape, name)
        if self._support is not None and name == "x":
            self._support.check(rows, name)
            rows = self._support.dequantise(rows)
        return rows, as_condition(condition, len(rows), self.condition_dim), single

    def _shaped(self, rows: np.ndarray, single: bool, name: str = "z") -> np.ndarray:
        """(n, latent_dim) in the shape of samples, whole numbers where x has them."""
        if self._support is not None and name == "x":
            rows = self._support.quantise(rows)
        rows = rows.reshape(len(rows), *self.input_shape)
        return rows[0] if single else rows
