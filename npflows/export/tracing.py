"""Flows as graphs: log-density, its gradient, both directions of the map, samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_choice, as_int, as_rng
from npflows.core.operations import Placed, Supports
from npflows.distribution.conditioning import FARTHEST
from npflows.distribution.transformed import TransformedDistribution
from npflows.export import bases
from npflows.export import graph as g
from npflows.export.errors import NotExportableError
from npflows.export.gradient import gradients
from npflows.export.graph import Node, Value
from npflows.export.layers import layer
from npflows.export.networks import network
from npflows.export.supports import from_line, in_cells, to_line, whole

WHAT = ("log_prob", "sample", "forward", "inverse", "log_prob_and_grad")


@dataclass(frozen=True)
class Graph:
    """A function of one sample.

    Attributes
    ----------
    inputs, outputs : dict of str to Node
        By their names; an input may be left unused.
    """

    inputs: dict[str, Node]
    outputs: dict[str, Node]


@dataclass(frozen=True)
class Cells:
    """What is done where columns hold whole numbers: the mean of a density over places of their cells.

    Attributes
    ----------
    places : ndarray (draws, columns of whole numbers)
    point : Graph
        The log-density, and its gradient, of one place: inputs `x`, `condition` and `place`.
    mean : Graph
        The results of all places together: inputs as `point` has outputs, with an axis of places first.
    """

    places: NDArray[np.float64]
    point: Graph
    mean: Graph


def trace(flow: TransformedDistribution, what: str, *, draws: int = 16, rng: int = 0) -> Graph | Cells:
    """What a flow computes for one sample, as a graph.

    Parameters
    ----------
    flow : NormalizingFlow
    what : {"log_prob", "sample", "forward", "inverse", "log_prob_and_grad"}
        Inputs are `x` (d,), `z` (d,) for the inverse or `normals` (d,), standard normal numbers, for samples; and
        `condition` (c,) where the flow takes one.  Outputs are `log_prob` (1,), with `dx` (d,) and `dcondition` (c,) for
        the gradient; `z` and `log_det` (1,), or `x` and `log_det`; `x` for samples.
    draws, rng : int
        Points of each cell of whole numbers, and what draws them; see `NormalizingFlow.log_prob`.

    Raises
    ------
    NotExportableError
        If the flow has something that no file can hold.
    """
    as_choice(what, "what", WHAT)
    tracer = _Tracer(flow)
    if what == "sample":
        normals = g.Node("input", (), (flow.latent_dim,), "float64", name="normals")
        z = bases.drawn(tracer.base.operation, tracer.part(tracer.base), normals)
        x, _ = tracer.inverse(z)
        return Graph(tracer.inputs(normals=normals), {"x": _named(x)})
    if what == "inverse":
        z = g.Node("input", (), (flow.latent_dim,), "float64", name="z")
        x, log_det = tracer.inverse(z)
        return Graph(tracer.inputs(z=z), {"x": _named(x), "log_det": _named(log_det)})
    x = g.Node("input", (), (flow.latent_dim,), "float64", name="x")
    if what == "forward":
        z, log_det, inside = tracer.forward(tracer.placed(x, np.full(tracer.n_whole, 0.5)))
        bad = tracer.lost | ~inside if isinstance(inside, Node) else tracer.lost
        z, log_det = g.where(bad, np.nan, z), g.where(bad, np.nan, log_det)
        return Graph(tracer.inputs(x=x), {"z": _named(z), "log_det": _named(log_det)})
    with_gradient = what == "log_prob_and_grad"
    if not tracer.n_whole:
        return Graph(tracer.inputs(x=x), tracer.density(x, x, with_gradient))
    if flow.preprocessing.is_image:
        raise NotExportableError(
            "the log-density of images of whole numbers is a mean over places that each image draws, which no file holds; "
            "export 'forward', 'inverse' or 'sample', or a flow without levels"
        )
    place = g.Node("input", (), (tracer.n_whole,), "float64", name="place")
    bijection: Any = flow.preprocessing.bijection
    places, _ = bijection.cell_places(as_int(draws, "draws"), as_rng(rng))
    point = Graph(tracer.inputs(x=x, place=place), tracer.density(x, tracer.placed(x, place), with_gradient, clean=False))
    return Cells(places, point, _mean(point, len(places), tracer.supports.integer))


class _Tracer:
    """The parts of a flow, and the steps of its graph."""

    def __init__(self, flow: TransformedDistribution) -> None:
        self.flow, self.dtype = flow, flow.dtype.name
        program = flow.program()
        assert program.base is not None
        self.layers, self.base = program.layers, program.base
        self.theta = flow.parameters.theta.astype(np.float64)
        self.table = flow.preprocessing.standardization.table
        bijection: Any = flow.preprocessing.bijection
        self.supports: Supports = Supports(flow.latent_dim, ()) if bijection is None else bijection.operation()
        self.n_whole = len(self.supports.integer)
        self.condition: Node | None = None
        self.context: Value = np.zeros(0)
        self.lost: Value = np.zeros(1, bool)
        if flow.condition_dim:
            self._see(flow, program.embedding)

    def _see(self, flow: TransformedDistribution, embedding: Placed | None) -> None:
        """What the layers see of the condition, and whether it is one that has no answer."""
        self.condition = g.Node("input", (), (flow.condition_dim,), "float64", name="condition")
        table = flow.conditioning.table
        loc, scale, tails = table if table.shape[1] else np.array([[0.0], [1.0], [np.inf]]) * np.ones(flow.condition_dim)
        near = g.absolute(self.condition - loc) <= FARTHEST[self.dtype] * scale
        self.lost = g.count(~near) > 0.5
        values = (g.where(near, self.condition, loc) - loc) / scale
        if np.isfinite(tails).any():
            beyond = g.maximum(g.absolute(values) - tails, 0.0)
            values = g.where(beyond > 0.0, g.sign(values) * (tails + g.arcsinh(beyond)), values)
        context = g.cast(values, self.dtype)
        if embedding is not None:
            params = embedding.operation.views(self.part(embedding))
            context = network(embedding.operation, params, context, np.zeros(0))
        self.context = context

    def inputs(self, **given: Node) -> dict[str, Node]:
        return given if self.condition is None else {**given, "condition": self.condition}

    def part(self, placed: Placed) -> NDArray[np.float64]:
        """An operation's own parameters."""
        return self.theta[placed.offset : placed.offset + placed.operation.size]

    def placed(self, x: Value, places: Value) -> Value:
        """Whole numbers at places of their cells."""
        return in_cells(self.supports, x, places)

    def forward(self, x: Value) -> tuple[Value, Value, Value]:
        """z in float64, log_det, and whether x is inside the support."""
        on_line = to_line(self.supports, x)
        y = (on_line.t - self.table[0]) / self.table[1]
        if len(self.table) > 3:
            y = g.matmul(y, np.linalg.inv(self.table[3:]))
        z, log_det = self._through(y, inverse=False)
        return z, log_det + (on_line.log_det - self.table[2].sum()), on_line.inside

    def inverse(self, z: Value) -> tuple[Value, Value]:
        """x and log_det."""
        y, log_det = self._through(z, inverse=True)
        if len(self.table) > 3:
            y = g.matmul(y, self.table[3:])
        t = y * self.table[1] + self.table[0]
        x, more = from_line(self.supports, t)
        x, log_det = whole(self.supports, x), log_det + (more + self.table[2].sum())
        if self.condition is None:
            return x, log_det
        return g.where(self.lost, np.nan, x), g.where(self.lost, np.nan, log_det)

    def _through(self, values: Value, *, inverse: bool) -> tuple[Value, Value]:
        """All layers, in the compute dtype; their log-determinants are added up in float64."""
        values, log_det = g.cast(values, self.dtype), np.zeros(1)
        for placed in reversed(self.layers) if inverse else self.layers:
            dim, n = placed.operation.dim, g.shape_of(values)[0]
            y, more = layer(placed.operation, self.part(placed), g.take(values, np.arange(dim)), self.context, self.dtype,
                            inverse=inverse)  # fmt: skip
            values = y if dim == n else g.concat([y, g.take(values, np.arange(dim, n))])
            log_det = log_det + g.cast(more, "float64")
        return g.cast(values, "float64"), log_det

    def density(self, x: Node, points: Value, with_gradient: bool, clean: bool = True) -> dict[str, Node]:
        """The log-density at points that follow from x, and its gradient; NaN and -inf as the flow has them."""
        z, log_det, inside = self.forward(points)
        value = log_det + bases.log_prob(self.base.operation, self.part(self.base), z)
        missing = (g.count(g.is_nan(x)) > 0.5) | self.lost
        possible = g.is_finite(value) & inside
        result = {"log_prob": _named(g.where(missing, np.nan, g.where(possible, value, -np.inf)))}
        if not with_gradient:
            return result
        wrt = [x] if self.condition is None else [x, self.condition]
        found = [value + np.zeros(g.shape_of(i)) for i, value in zip(wrt, gradients(g.node(value), wrt))]
        zero: Value = ~possible
        for gradient in found:
            zero = zero | (g.count(~g.is_finite(gradient)) > 0.5)
        for name, gradient in zip(("dx", "dcondition"), found):
            kept = g.where(zero, 0.0, gradient)
            result[name] = _named(g.where(missing, np.nan, kept) if clean else g.where(missing, 0.0, kept))
        return result


def _mean(point: Graph, draws: int, integer: tuple[int, ...]) -> Graph:
    """The logarithm of the mean of densities, and its gradient: the mean of gradients by the shares of their densities."""
    values = g.Node("input", (), (draws,), "float64", name="log_prob")
    top = g.highest(values)
    shift = g.where(g.is_finite(top), top, 0.0)
    powers = g.exp(values - shift)
    mean = g.log(g.total(powers) / draws) + shift
    inputs, outputs = {"log_prob": values}, {"log_prob": _named(mean)}
    for name in [name for name in point.outputs if name != "log_prob"]:
        (width,) = point.outputs[name].shape
        rows = inputs[name] = g.Node("input", (), (draws, width), "float64", name=name)
        shares = g.reshape(powers / g.total(powers), (draws, 1))
        gradient = g.reshape(g.total(g.where(shares > 0.0, shares, 0.0) * rows, (-2,)), (width,))
        gradient = g.where(g.is_nan(mean), np.nan, g.where(mean > -np.inf, gradient, 0.0))
        if name == "dx":
            gradient = g.where(np.isin(np.arange(width), integer), 0.0, gradient)
        outputs[name] = _named(gradient)
    return Graph(inputs, outputs)


def _named(value: Value) -> Node:
    return g.node(value)
