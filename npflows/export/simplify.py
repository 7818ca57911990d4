"""Graphs without what is computed twice, or for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from npflows.export.graph import Node, in_order
from npflows.export.tracing import Graph


def simplified(graph: Graph) -> Graph:
    """The same function, each value computed once, and no sums with 0 or products with 1 that change nothing."""
    kept: dict[int, Node] = {id(node): node for node in graph.inputs.values()}
    seen: dict[tuple[Any, ...], Node] = {}
    for node in in_order(list(graph.outputs.values())):
        if id(node) in kept:
            continue
        inputs = tuple(kept[id(i)] for i in node.inputs)
        same = _unchanged(node, inputs)
        if same is None:
            key = node.op, node.shape, node.dtype, tuple(map(id, inputs)), _frozen(node.attributes)
            same = seen.get(key)
            if same is None:
                same = seen[key] = Node(node.op, inputs, node.shape, node.dtype, **node.attributes)
        kept[id(node)] = same
    return Graph(graph.inputs, {name: kept[id(node)] for name, node in graph.outputs.items()})


def _unchanged(node: Node, inputs: tuple[Node, ...]) -> Node | None:
    """The input that a node passes on as it is, if it does."""
    if node.op in ("add", "mul", "sub", "div"):
        a, b = inputs
        neutral = 0.0 if node.op in ("add", "sub") else 1.0
        if _is(b, neutral) and a.shape == node.shape and a.op != "constant":
            return a
        if node.op in ("add", "mul") and _is(a, neutral) and b.shape == node.shape and b.op != "constant":
            return b
    return None


def _is(node: Node, value: float) -> bool:
    return node.op == "constant" and bool((node.attributes["value"] == value).all())


def _frozen(attributes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, (v.shape, v.dtype.str, v.tobytes()) if isinstance(v, np.ndarray) else v)
                 for name, v in attributes.items())  # fmt: skip
