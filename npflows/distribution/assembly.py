"""Layers, an embedding and a base distribution on one parameter buffer, as a program that a backend runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from npflows.base import Cylinder, as_base
from npflows.base.base import Base
from npflows.core import evaluation
from npflows.core.backend import Executable, Pullback, Result, State, select
from npflows.core.bijection import Bijection
from npflows.core.checks import as_choice, as_flag, as_names
from npflows.core.configured import Configured
from npflows.core.operations import Placed, Program
from npflows.core.parameters import Parameter, ParameterBuffer, Parametrized, lent_values
from npflows.core.tables import Headers
from npflows.distribution.conditioning import Conditioning
from npflows.distribution.preprocessing import Preprocessing
from npflows.distribution.verification import VerificationReport
from npflows.layers.layer import Layer
from npflows.layers.standardize import Standardize
from npflows.networks.embedding import Embedding
from npflows.support.cells import CellBijection
from npflows.support.columns import Column, Real
from npflows.support.declaration import SupportLike, as_columns
from npflows.support.pixels import Pixels
from npflows.support.table import Support

_Assembly = TypeVar("_Assembly", bound="Assembly")


class Assembly(Parametrized, Configured, abstract=True):
    """The parts of a flow, put together; `TransformedDistribution` makes a density of them.

    Parameters
    ----------
    layers : sequence of Layer
        The flow takes copies, which work on one parameter buffer.
    shape : tuple of int
        The shape of a sample.
    base : str or Base
    dtype : numpy.dtype
    embedding : Embedding, optional
    support, columns
        As `NormalizingFlow` takes them; the support may also be `Pixels`, for images of whole numbers.

    Attributes
    ----------
    flow_layers : list of Layer
        From data to latent, a `Standardize` first; they work on parts of `parameters`.
    leaves : list of (Layer, int)
        The layers after the first that are not made of others, those inside other layers included, and where the
        parameters of each begin.
    base : Base
    base_part : slice
        Where the base's parameters are.
    preprocessing : Preprocessing
    conditioning : Conditioning
    headers : Headers
        The columns that are expected of samples, and of conditions.
    parameters : ParameterBuffer
    target : callable or None
        The density that the flow was last fitted to by `fit_variational`; it is not saved.
    device : {"cpu", "cuda"}
        Where the flow runs; it is not saved.
    """

    _not_configured: ClassVar[frozenset[str]] = frozenset({"self", "rng", "columns"})
    parameter_aliases: ClassVar[dict[str, str]] = {}
    """Names that a configuration may use for parameters, and the names that the constructor has for them."""
    _device = "cpu"

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: tuple[int, ...],
        base: str | Base,
        dtype: np.dtype,
        embedding: Embedding | None = None,
        *,
        support: SupportLike | Pixels | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        dim = math.prod(shape)
        self.flow_layers = _chained(layers, shape, dtype)
        width = _condition_width([*self.flow_layers, base], embedding)
        self.input_shape, self.latent_dim = shape, dim
        self.condition_dim = width if embedding is None else embedding.condition_dim
        self.conditioning = Conditioning(self.condition_dim, embedding, dtype)
        names = as_names(columns, dim, "columns", "a sample")
        bijection: CellBijection | None
        if isinstance(support, Pixels):
            self.support: list[Column] | None = list(support.columns)
            bijection, self.base = support, as_base(base, dim, dtype)
        else:
            self.support = as_columns(support, dim, names)
            bijection, self.base = _with_circles(self.flow_layers, self.support, base, dim, dtype)
        self.preprocessing = Preprocessing(self.standardize, bijection, names)
        self.headers = Headers(self.preprocessing.header, self.conditioning.header)
        self.parameters = ParameterBuffer(
            (
                Parameter(f"{prefix}.{p.name}", part.parameters.views()[p.name], p.free)
                for prefix, part in self._parts()
                for p in part.parameters.entries
            ),
            dtype,
        )
        self.history: dict[str, list[float]] = {}
        self.effective_rows: float | None = None
        self.robust_columns: list[str] = []
        self.verification: VerificationReport | None = None
        self.target: Callable | None = None
        self._bind()

    def _parts(self) -> list[tuple[str, Any]]:
        """The owners of parameters, in their order, with the prefixes of the names."""
        parts: list[tuple[str, Any]] = [(f"layers.{i}", layer) for i, layer in enumerate(self.flow_layers)]
        if self.conditioning.embedding is not None:
            parts.append(("embedding", self.conditioning.embedding))
        return [*parts, ("base", self.base)]

    def _bind(self) -> None:
        """Let the layers, the embedding and the base work on their parts of the flow's buffer."""
        start, self._offsets = 0, []
        for _, part in self._parts():
            self._offsets.append(start)
            part.bind(self.parameters.theta[start : start + part.theta_size])
            start += part.theta_size
        self.base_part = slice(self._offsets[-1], start)
        self.leaves = [
            (leaf, offset + at)
            for layer, offset in zip(self.flow_layers[1:], self._offsets[1:])
            for leaf, at in layer.leaves()
        ]
        self._executables: dict[tuple[str, bool, bool, float | None], Executable] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_executables": {}, "target": None, "_device": "cpu"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    @property
    def device(self) -> str:
        """Where the flow runs, "cpu" or "cuda"; copies and files of the flow run on the CPU."""
        return self._device

    def to(self: _Assembly, device: str) -> _Assembly:
        """Run on an NVIDIA GPU from now on, or on the CPU again; returns the flow.

        Arrays go in and come out as before, and parameters are the same ones.  The numbers differ from the CPU's by
        rounding; with the same seed they are the same bits each time.  Gradients through supports
        are evaluated on the CPU.

        Parameters
        ----------
        device : {"cpu", "cuda"}

        Raises
        ------
        CudaError
            If there is no GPU that can be used, or the packages of ``npflows[cuda12]`` are missing.
        NotImplementedError
            If the flow has a layer or base distribution of the user's own, which is compiled for the CPU, or the base
            `ConditionalGaussianMixture`.
        """
        device = as_choice(device, "device", ("cpu", "cuda"))
        if device != self._device:
            self.executable(device=device)
            self._device = device
            self._executables = {key: one for key, one in self._executables.items() if key[0] == device}
        return self

    @property
    def input_dim(self) -> int:
        """Values of a sample on the data side."""
        return self.latent_dim

    @property
    def columns(self) -> list[str] | None:
        """Names of the columns, None where they have none."""
        return self.preprocessing.names

    @columns.setter
    def columns(self, names: Sequence[str] | None) -> None:
        self.preprocessing.names = names

    @property
    def condition_columns(self) -> list[str] | None:
        """Names of the values of the condition, None where they have none."""
        return self.conditioning.names

    @condition_columns.setter
    def condition_columns(self, names: Sequence[str] | None) -> None:
        self.conditioning.names = names

    @property
    def units(self) -> list[str | None] | None:
        """Units of the columns, None for one without; None where no column has any.

        A table whose columns have units, of astropy, pint or unyt or in a file, gives them to the flow that is fitted to
        it.  From then on values of other units are converted, and refused where they do not convert; values without a unit
        have the flow's.  Densities are per these units.
        """
        return self.headers.x.units

    @units.setter
    def units(self, units: Sequence[str | None] | None) -> None:
        self.headers.x.measure(_as_units(units, self.latent_dim, "units"))

    @property
    def condition_units(self) -> list[str | None] | None:
        """Units of the values of the condition, as `units` has those of the columns."""
        return self.headers.condition.units

    @condition_units.setter
    def condition_units(self, units: Sequence[str | None] | None) -> None:
        self.headers.condition.measure(_as_units(units, self.condition_dim, "condition_units"))

    @property
    def on_extra_columns(self) -> str:
        """What is done with columns of a table that the flow has no names for: "raise", the default, refuses them, "ignore"
        leaves them out with a warning.  It is not saved."""
        return self.preprocessing.header.extra

    @on_extra_columns.setter
    def on_extra_columns(self, value: str) -> None:
        value = as_choice(value, "on_extra_columns", ("raise", "ignore"))
        self.preprocessing.header.extra = self.conditioning.header.extra = value

    @property
    def standardize(self) -> Standardize:
        """The first layer, which maps from the user's units."""
        return cast(Standardize, self.flow_layers[0])

    def standardize_condition(self, loc: ArrayLike, scale: ArrayLike, tails: ArrayLike = math.inf) -> None:
        """Set location and (positive) scale of each value of the condition, which the flow standardizes by; `fit` does.

        A standardized value c beyond `tails`, infinity for none, becomes sign(c) (tails + arsinh(abs(c) - tails)).
        """
        self.conditioning.standardize(loc, scale, tails)

    @property
    def condition_loc(self) -> np.ndarray | None:
        """Location of each value of the condition, 0 until it is set; None for a flow without a condition."""
        return self.conditioning.loc

    @property
    def condition_scale(self) -> np.ndarray | None:
        """Scale of each value of the condition, 1 until it is set; None for a flow without a condition."""
        return self.conditioning.scale

    @property
    def data_dependent_layers(self) -> list[Layer]:
        """The layers that are set from data once, activation normalization for instance."""
        return [leaf for leaf, _ in self.leaves if leaf.initialized is not None]

    def _forget(self) -> None:
        """Undo everything but the parameters that was set from data: standardization, first layers, history."""
        self.preprocessing.forget()
        self.conditioning.forget()
        for layer in self.data_dependent_layers:
            layer.initialized = False
        self.history, self.effective_rows, self.robust_columns = {}, None, []

    def learned_arrays(self) -> dict[str, np.ndarray]:
        """Everything that the flow has learned: theta, and location and scale of samples and conditions."""
        return {
            "theta": self.parameters.theta,
            "standardize": self.standardize.learned(),
            "standardize_condition": self.conditioning.learned(),
        }

    def program(self, *, with_layers: bool = True, with_base: bool = True) -> Program:
        """The flow as a program; the map without the base distribution, or the standardized base without the layers."""
        with_layers, with_base = as_flag(with_layers, "with_layers"), as_flag(with_base, "with_base")
        base = Placed(self.base.operation(), self.base_part.start) if with_base else None
        if not with_layers and not self.base.condition_dim:
            return Program((), self.latent_dim, self.latent_dim, base=base, standardized=True)
        embedding = self.conditioning.embedding
        return Program(
            tuple(Placed(leaf.operation(), offset) for leaf, offset in self.leaves if with_layers),
            self.latent_dim,
            self.latent_dim,
            base=base,
            condition_dim=self.condition_dim,
            embedding=None if embedding is None else Placed(embedding.operation, self._offsets[-2]),
            standardized=True,
        )

    def base_under(self, condition: ArrayLike | None) -> Base:
        """The base distribution of samples under a condition (condition_dim,), or under one for each (n, condition_dim).

        It is `base`, whatever the condition, but for a `ConditionalGaussianMixture`.
        """
        if not self.base.condition_dim:
            return self.base
        rows = None if condition is None else self.conditioning.any_rows(condition)
        if rows is not None and rows.strides[0] == 0:
            rows = rows[:1]  # one for all samples
        return self.base.under(self.conditioning.inner(rows))

    def executable(
        self,
        *,
        with_layers: bool = True,
        with_base: bool = True,
        dropout: float | None = None,
        device: str | None = None,
    ) -> Executable:
        """That program, ready to run; with another dropout than the networks' own, or on another device, perhaps."""
        device = device or self._device
        key = device, with_layers, with_base, dropout
        found = self._executables.get(key)
        if found is None:
            program = self.program(with_layers=with_layers, with_base=with_base)
            program = program if dropout is None else program.with_dropout(dropout)
            found = self._executables[key] = select(None if device == "cpu" else device).compile(program, self.dtype)
        return found

    def state(self, theta: np.ndarray | None = None) -> State:
        """The numbers that a program reads, with other parameters perhaps."""
        theta = self.parameters.theta if theta is None else theta
        return State(theta, self.preprocessing.standardization.table, self.conditioning.table)

    def transport(
        self, x: np.ndarray, condition: np.ndarray | None, theta: np.ndarray | None = None, **wanted: bool
    ) -> Result:
        """Carry samples through the flow, with other parameters perhaps; see `npflows.core.evaluation.transport`.

        Where the condition is not finite, everything is NaN.
        """
        executable, lost = self.executable(), self.conditioning.lost(condition)
        bijection = self._bijection(executable)
        if lost is not None:
            condition = self.conditioning.without(condition, lost)
        result = evaluation.transport(executable, self.state(theta), x, condition, bijection=bijection, **wanted)
        return result if lost is None else _with_nan(result, lost)

    def pullback(
        self,
        x: np.ndarray,
        condition: np.ndarray | None,
        *,
        with_layers: bool = True,
        with_base: bool = True,
        **options: Any,
    ) -> Pullback:
        """Carry cotangents back through the flow; see `npflows.core.evaluation.pullback`.

        Where the condition is not finite, everything is NaN, and with it the gradient of the parameters.
        """
        executable = self.executable(with_layers=with_layers, with_base=with_base)
        lost, bijection = self.conditioning.lost(condition), self._bijection(executable)
        if lost is not None:
            condition = self.conditioning.without(condition, lost)
        result = evaluation.pullback(executable, self.state(), x, condition, bijection=bijection, **options)
        if lost is None:
            return result
        if not options.get("skip_zero") or options["dlog"][lost].any():
            result.gradient[:] = np.nan
        return _with_nan(result, lost)

    def accumulate(
        self,
        x: np.ndarray,
        condition: np.ndarray | None,
        dlog: np.ndarray,
        buffers: np.ndarray,
        *,
        dropout: float | None = None,
        **options: Any,
    ) -> None:
        """Add up gradients in given buffers; see `npflows.core.evaluation.accumulate`."""
        executable = self.executable(dropout=dropout)
        evaluation.accumulate(executable, self.state(), x, condition, dlog, buffers,
                              bijection=self._bijection(executable), **options)  # fmt: skip

    def _bijection(self, executable: Executable) -> Bijection | None:
        """The bijection in front of the program, if there is one."""
        given = self.preprocessing.bijection
        return None if given is None else executable.bijection(given)


def _as_units(units: Sequence[str | None] | None, n: int, name: str) -> list[str | None] | None:
    """n units, each a string or None, after a check."""
    given = None if units is None else [None if unit is None else str(unit) for unit in units]
    if isinstance(units, str) or (given is not None and len(given) != n):
        raise ValueError(f"{name} must be {n} units, None for a column without one, got {units!r}")
    return given


Outcome = TypeVar("Outcome", Result, Pullback)


def _with_nan(result: Outcome, lost: np.ndarray) -> Outcome:
    """NaN in these rows of all arrays that have rows."""
    for name in ("y", "log_det", "log_prob", "dx", "dcondition"):
        values = getattr(result, name, None)
        if values is not None and len(values):
            values[lost] = np.nan
    return result


def _chained(layers: Sequence[Layer], shape: tuple[int, ...], dtype: np.dtype) -> list[Layer]:
    """Copies of the layers, each for the shape of what the one before it passes on, with a `Standardize` first."""
    if not isinstance(layers[0], Standardize):
        layers = [Standardize(math.prod(shape), dtype=dtype), *layers]
    copies: list[Layer] = []
    onward = shape
    for i, layer in enumerate(layers):
        name = f"layer {i} ({type(layer).__name__})"
        if layer.dtype != dtype:
            raise ValueError(f"{name} has dtype {layer.dtype} where the flow has {dtype}")
        if i and isinstance(layer, Standardize):
            raise ValueError(f"{name}: Standardize can only be the first layer, as it works in the user's units")
        try:
            with lent_values():
                copies.append(copy.deepcopy(layer).for_shape(shape if layer.takes_all_values else onward))
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        if layer.takes_all_values:
            continue
        given, onward = onward, copies[-1].onward_shape
        if len(onward) == 1 and math.prod(onward) == math.prod(given):
            onward = given  # a layer of vectors leaves the shape of images as it is
    return copies


def _condition_width(parts: Sequence[Layer | Base | str], embedding: Embedding | None) -> int:
    """How many values layers and base see of a condition, 0 for none."""
    widths = {part.condition_dim for part in parts if not isinstance(part, str)} - {0}
    if len(widths) > 1:
        base = parts[-1]
        whose = "" if isinstance(base, str) or not base.condition_dim else f" and the base, {base.condition_dim} here,"
        raise ValueError(f"all layers{whose} with a condition must have the same condition_dim, got {sorted(widths)}")
    width = widths.pop() if widths else 0
    if embedding is not None and embedding.output_dim != width:
        raise ValueError(f"the embedding gives {embedding.output_dim} values where the layers take {width}")
    return width


def _with_circles(
    layers: Sequence[Layer], columns: Sequence[Column] | None, base: str | Base, dim: int, dtype: np.dtype
) -> tuple[Support | None, Base]:
    """The bijection of the columns, and the base, which is uniform on the circles that reach the latent side."""
    if columns is None or all(isinstance(column, Real) for column in columns):
        return None, as_base(base, dim, dtype)
    circles = np.array([column.is_periodic for column in columns])
    if not circles.any():
        return Support(columns), as_base(base, dim, dtype)
    bounds = {bound for layer in layers if (bound := layer.circle_bound) is not None}
    if len(bounds) > 1:
        raise ValueError(f"all layers with circular values must have one bound, got {sorted(bounds)}")
    bound = bounds.pop() if bounds else 1.0
    for layer in layers:
        circles = layer.keep_circles(circles)
    if base == "normal":
        base = Cylinder(dim, circles, bound, dtype=dtype)
    if not isinstance(base, Cylinder) or (base.periodic != circles).any() or base.bound != bound:
        raise ValueError(
            f"base_distribution {base!r} can't hold values on circles: use 'normal', which is uniform on circles"
        )
    return Support(columns, bound), as_base(base, dim, dtype)
