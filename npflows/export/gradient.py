"""Gradients of graphs, as graphs: one rule for each primitive."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npflows.export import graph as g
from npflows.export.graph import Node, Value

Rule = Callable[[Node, Value], Sequence[Value | None]]
"""From a node and the gradient of a scalar with respect to it, the gradients with respect to its inputs; None for 0."""


def gradients(output: Node, inputs: Sequence[Node]) -> list[Value]:
    """The gradients of an output, a single number, with respect to inputs of the graph."""
    order = g.in_order([output])
    depends = {id(i) for i in inputs}
    for node in order:
        if any(id(i) in depends for i in node.inputs):
            depends.add(id(node))
    found: dict[int, Value] = {id(output): np.ones(output.shape)}
    for node in reversed(order):
        if id(node) not in found or not node.inputs or id(node) not in depends:
            continue
        for given, part in zip(node.inputs, RULES[node.op](node, found.pop(id(node)))):
            if part is None or id(given) not in depends:
                continue
            part = _unbroadcast(part, given.shape)
            found[id(given)] = found[id(given)] + part if id(given) in found else part
    return [found.get(id(i), np.zeros(i.shape)) for i in inputs]


def _unbroadcast(value: Value, shape: tuple[int, ...]) -> Value:
    """The sum over the axes along which an input was broadcast; a constant gradient is spread out first."""
    have = g.shape_of(value)
    if have == shape:
        return value
    if len(have) < len(shape) or np.broadcast_shapes(have, shape) != have:
        value = value + np.zeros(np.broadcast_shapes(have, shape))
        have = g.shape_of(value)
    axes = tuple(a - len(shape) for a, (wide, narrow) in enumerate(zip(have, shape)) if wide != narrow)
    return g.total(value, axes) if axes else value


def _where(node: Node, d: Value) -> Sequence[Value | None]:
    choice = node.inputs[0]
    return None, g.where(choice, d, 0.0, node.dtype), g.where(choice, 0.0, d, node.dtype)


def _chosen(node: Node, d: Value) -> Sequence[Value | None]:
    """Of the larger, or the smaller, of two."""
    a, b = node.inputs
    first = a > b if node.op == "maximum" else a < b
    return g.where(first, d, 0.0, node.dtype), g.where(first, 0.0, d, node.dtype)


def _sum(node: Node, d: Value) -> Sequence[Value | None]:
    return (d + np.zeros(node.inputs[0].shape),)


def _cumsum(node: Node, d: Value) -> Sequence[Value | None]:
    """Each value is in all running sums from its own on."""
    return (d - g.cumsum(d) + g.total(d),)


def _take(node: Node, d: Value) -> Sequence[Value | None]:
    return (g.place(d, node.attributes["indices"], node.inputs[0].shape[-1]),)


def _concat(node: Node, d: Value) -> Sequence[Value | None]:
    ends = np.cumsum([0, *(i.shape[-1] for i in node.inputs)])
    return [g.take(d, np.arange(a, b)) for a, b in itertools.pairwise(ends)]


def _matmul(node: Node, d: Value) -> Sequence[Value | None]:
    weight = node.inputs[1].attributes["value"]
    return g.matmul(d, weight, not node.attributes["transposed"]), None


def _convolve(node: Node, d: Value) -> Sequence[Value | None]:
    """Every shift is undone: a convolution with the kernel turned around, its channels exchanged."""
    weight = node.inputs[1].attributes["value"]
    return g.convolve(d, np.ascontiguousarray(weight[:, ::-1, ::-1].transpose(3, 1, 2, 0))), None


def _no_gradient(node: Node, d: Value) -> Sequence[Value | None]:
    return [None] * len(node.inputs)


def _arcsinh(x: Value) -> Value:
    """1 / sqrt(1 + x^2), which may not overflow."""
    size = g.absolute(x)
    far = size > 1e15
    return g.where(far, 1.0 / g.maximum(size, 1.0), 1.0 / g.sqrt(1.0 + g.minimum(size, 1e15) * g.minimum(size, 1e15)))


def _of(slope: Callable[[Any, Any], Value]) -> Rule:
    """The rule of a function of one value, from its slope at x, where it is y."""
    return lambda node, d: (d * slope(node.inputs[0], node),)


RULES: dict[str, Rule] = {
    "add": lambda node, d: (d, d),
    "sub": lambda node, d: (d, -d),
    "mul": lambda node, d: (d * _in(node, 1), d * _in(node, 0)),
    "div": lambda node, d: (d / _in(node, 1), -d * node / _in(node, 1)),
    "mod": lambda node, d: (d, None),
    "maximum": _chosen,
    "minimum": _chosen,
    "where": _where,
    "neg": lambda node, d: (-d,),
    "exp": _of(lambda x, y: y),
    "log": lambda node, d: (d / node.inputs[0],),
    "log1p": lambda node, d: (d / (1.0 + node.inputs[0]),),
    "expm1": _of(lambda x, y: y + 1.0),
    "sqrt": lambda node, d: (d * 0.5 / node,),
    "abs": _of(lambda x, y: g.sign(x)),
    "tanh": _of(lambda x, y: 1.0 - y * y),
    "sin": _of(lambda x, y: g.cos(x)),
    "cos": _of(lambda x, y: -g.sin(x)),
    "arcsinh": _of(lambda x, y: _arcsinh(x)),
    "sigmoid": _of(lambda x, y: y * (1.0 - y)),
    "softplus": _of(lambda x, y: g.sigmoid(x)),
    "cast": lambda node, d: (g.cast(d, node.inputs[0].dtype),),
    "sum": _sum,
    "cumsum": _cumsum,
    "take": _take,
    "concat": _concat,
    "reshape": lambda node, d: (g.reshape(d + np.zeros(node.shape), node.inputs[0].shape),),
    "matmul": _matmul,
    "convolve": _convolve,
    "sign": _no_gradient,
    "floor": _no_gradient,
    "highest": _no_gradient,
    "less": _no_gradient,
    "less_equal": _no_gradient,
    "equal": _no_gradient,
    "and": _no_gradient,
    "or": _no_gradient,
    "not": _no_gradient,
}


def _in(node: Node, number: int) -> Value:
    """An input of a node, as the array that it is where it is a constant."""
    given = node.inputs[number]
    return given.attributes["value"] if given.op == "constant" else given
