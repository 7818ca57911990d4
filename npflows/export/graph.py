"""Graphs of primitive operations on the values of one sample: what flows are traced to before they are written to files.

A `Node` is an array of one sample, of a fixed shape; printers add the axis of samples.  Operations on arrays alone are
evaluated when they are written down, so that whatever follows from parameters is a constant of the graph.  Axes are counted
from the last one, as the axis of samples comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.special import expit

Operand = "Node | NDArray[Any] | float"
Value = Any
"""A `Node`, or an array where nothing depends on the sample."""


class Node:
    """An array of one sample.

    Attributes
    ----------
    op : str
        "input", "constant", or a name in `PRIMITIVES`.
    inputs : tuple of Node
    shape : tuple of int
    dtype : {"float64", "float32", "bool", "any"}
        "any" for constants, which take the dtype of what they meet.
    attributes : dict
    """

    __slots__ = ("attributes", "dtype", "inputs", "op", "shape")
    __array_ufunc__ = None  # NumPy leaves operators to this class

    def __init__(self, op: str, inputs: tuple[Node, ...], shape: tuple[int, ...], dtype: str, **attributes: Any) -> None:
        self.op, self.inputs, self.shape, self.dtype, self.attributes = op, inputs, shape, dtype, attributes

    def __add__(self, other: Value) -> Value:
        return apply("add", self, other)

    def __radd__(self, other: Value) -> Value:
        return apply("add", other, self)

    def __sub__(self, other: Value) -> Value:
        return apply("sub", self, other)

    def __rsub__(self, other: Value) -> Value:
        return apply("sub", other, self)

    def __mul__(self, other: Value) -> Value:
        return apply("mul", self, other)

    def __rmul__(self, other: Value) -> Value:
        return apply("mul", other, self)

    def __truediv__(self, other: Value) -> Value:
        return apply("div", self, other)

    def __rtruediv__(self, other: Value) -> Value:
        return apply("div", other, self)

    def __neg__(self) -> Value:
        return apply("neg", self)

    def __lt__(self, other: Value) -> Value:
        return apply("less", self, other)

    def __le__(self, other: Value) -> Value:
        return apply("less_equal", self, other)

    def __gt__(self, other: Value) -> Value:
        return apply("less", other, self)

    def __ge__(self, other: Value) -> Value:
        return apply("less_equal", other, self)

    def __and__(self, other: Value) -> Value:
        return apply("and", self, other)

    def __or__(self, other: Value) -> Value:
        return apply("or", self, other)

    __rand__, __ror__ = __and__, __or__

    def __invert__(self) -> Value:
        return apply("not", self)


def _take(x: NDArray, indices: NDArray) -> NDArray:
    return x[..., indices]


def _reshape(x: NDArray, to: tuple[int, ...], rank: int) -> NDArray:
    return x.reshape(x.shape[: x.ndim - rank] + to)


def _softplus(x: NDArray) -> NDArray:
    return np.logaddexp(0.0, x)


def _matmul(x: NDArray, weight: NDArray, transposed: bool) -> NDArray:
    return x @ (weight if transposed else weight.T)


def _convolve(x: NDArray, weight: NDArray) -> NDArray:
    size, (height, width) = weight.shape[1], x.shape[-2:]
    reach = size // 2
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach)] * 2)
    return sum(
        np.einsum("oi,...irc->...orc", weight[:, p, q], padded[..., p : p + height, q : q + width])
        for p in range(size)
        for q in range(size)
    )


PRIMITIVES: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "arcsinh": np.arcsinh,
    "sigmoid": expit,
    "softplus": _softplus,
    "normal_cdf": lambda x: _normal_cdf(x),
    "cast": lambda x, to: x.astype(to),
    "sum": lambda x, axes: x.sum(axis=axes, keepdims=True),
    "highest": lambda x: x.max(axis=-1, keepdims=True),
    "cumsum": lambda x: np.cumsum(x, axis=-1),
    "take": _take,
    "concat": lambda *parts: np.concatenate(parts, axis=-1),
    "reshape": _reshape,
    "matmul": _matmul,
    "convolve": _convolve,
}
"""What each primitive does to arrays, an axis of samples first or not."""
ELEMENTWISE = tuple(PRIMITIVES)[: tuple(PRIMITIVES).index("cast")]
"""Those that work on each value by itself, and broadcast."""
OF_BOOLS = ("less", "less_equal", "equal", "and", "or", "not")


def _normal_cdf(x: NDArray) -> NDArray:
    from math import erfc, sqrt

    return np.vectorize(lambda v: 0.5 * erfc(-v / sqrt(2)), otypes=[np.float64])(x)


def constant(value: Any) -> Node:
    """An array as a node."""
    array = np.asarray(value)
    array = array if array.dtype == bool else array.astype(np.float64)
    return Node("constant", (), array.shape, "bool" if array.dtype == bool else "any", value=array)


def node(value: Value) -> Node:
    """A node, made of an array where it is none."""
    return value if isinstance(value, Node) else constant(value)


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape of a node or an array."""
    return value.shape if isinstance(value, Node) else np.shape(value)


def apply(op: str, *operands: Value, **attributes: Any) -> Value:
    """A primitive of nodes and arrays; of arrays alone, an array."""
    if not any(isinstance(operand, Node) for operand in operands):
        with np.errstate(all="ignore"):
            return PRIMITIVES[op](*operands, **attributes)
    inputs = tuple(node(operand) for operand in operands)
    return Node(op, inputs, _shape(op, [i.shape for i in inputs], attributes), _dtype(op, inputs, attributes), **attributes)


def _shape(op: str, shapes: Sequence[tuple[int, ...]], attributes: dict[str, Any]) -> tuple[int, ...]:
    if op in ELEMENTWISE:
        return np.broadcast_shapes(*shapes)
    first = shapes[0]
    if op == "sum":
        return tuple(1 if axis - len(first) in attributes["axes"] else size for axis, size in enumerate(first))
    if op == "highest":
        return (*first[:-1], 1)
    if op == "take":
        return (*first[:-1], len(attributes["indices"]))
    if op == "concat":
        return (*first[:-1], sum(shape[-1] for shape in shapes))
    if op == "reshape":
        return attributes["to"]
    if op == "matmul":
        return (*first[:-1], shapes[1][1 if attributes["transposed"] else 0])
    if op == "convolve":
        return (shapes[1][0], *first[1:])
    return first  # cast, cumsum


def _dtype(op: str, inputs: tuple[Node, ...], attributes: dict[str, Any]) -> str:
    if op in OF_BOOLS:
        return "bool"
    if op == "cast":
        return attributes["to"]
    kinds = {i.dtype for i in (inputs[1:] if op == "where" else inputs)} - {"any"}
    if len(kinds) > 1:
        raise TypeError(f"{op} of {' and '.join(sorted(kinds))}")
    return kinds.pop() if kinds else "float64"  # a choice between constants


def where(choice: Value, a: Value, b: Value, dtype: str = "float64") -> Value:
    """a where it is true, else b; of the dtype that is given if both are constants."""
    chosen = apply("where", choice, a, b)
    if isinstance(chosen, Node) and not isinstance(a, Node) and not isinstance(b, Node):
        chosen.dtype = dtype
    return chosen


def maximum(a: Value, b: Value) -> Value:
    return apply("maximum", a, b)


def minimum(a: Value, b: Value) -> Value:
    return apply("minimum", a, b)


def clip(x: Value, low: Value, high: Value) -> Value:
    """x between two ends."""
    return minimum(maximum(x, low), high)


def exp(x: Value) -> Value:
    return apply("exp", x)


def log(x: Value) -> Value:
    return apply("log", x)


def log1p(x: Value) -> Value:
    return apply("log1p", x)


def expm1(x: Value) -> Value:
    return apply("expm1", x)


def sqrt(x: Value) -> Value:
    return apply("sqrt", x)


def absolute(x: Value) -> Value:
    return apply("abs", x)


def sign(x: Value) -> Value:
    return apply("sign", x)


def floor(x: Value) -> Value:
    return apply("floor", x)


def tanh(x: Value) -> Value:
    return apply("tanh", x)


def sin(x: Value) -> Value:
    return apply("sin", x)


def cos(x: Value) -> Value:
    return apply("cos", x)


def arcsinh(x: Value) -> Value:
    return apply("arcsinh", x)


def arctan(x: Value) -> Value:
    """From 1/x where x is beyond 1: halved twice by a / (1 + sqrt(1 + a^2)), then by its series, whose next term is below
    1e-17."""
    far = (x > 1.0) | (x < -1.0)
    a = where(far, 1.0 / where(far, x, 1.0), x)
    for _ in range(2):
        a = a / (1.0 + sqrt(1.0 + a * a))
    square, series = a * a, np.array(1 / 21)
    for k in range(19, 0, -2):
        series = 1 / k - square * series
    near = 4.0 * a * series
    return where(far, 0.5 * math.pi * sign(x) - near, near)


def sigmoid(x: Value) -> Value:
    return apply("sigmoid", x)


def softplus(x: Value) -> Value:
    return apply("softplus", x)


def normal_cdf(x: Value) -> Value:
    """The cumulative distribution of the standard normal."""
    return apply("normal_cdf", x)


def mod(x: Value, y: float) -> Value:
    """x - y floor(x / y), exactly."""
    return apply("mod", x, np.float64(y))


def is_nan(x: Value) -> Value:
    return ~apply("equal", x, x) if isinstance(x, Node) else np.isnan(x)


def is_finite(x: Value) -> Value:
    return absolute(x) < np.inf


def cast(x: Value, dtype: str) -> Value:
    """x in another dtype; constants have none."""
    return x if not isinstance(x, Node) or x.dtype == dtype else apply("cast", x, to=dtype)


def total(x: Value, axes: tuple[int, ...] = (-1,)) -> Value:
    """Sums over axes, which stay with length 1."""
    return apply("sum", x, axes=axes)


def count(x: Value) -> Value:
    """How many values of a vector are true, of shape (1,)."""
    return total(where(x, 1.0, 0.0))


def highest(x: Value) -> Value:
    """The largest value along the last axis, which stays with length 1; taken for a constant by gradients."""
    return apply("highest", x)


def cumsum(x: Value) -> Value:
    """Running sums along the last axis."""
    return apply("cumsum", x)


def take(x: Value, indices: Sequence[int] | NDArray) -> Value:
    """The values at some places of the last axis, none of them twice."""
    chosen = np.asarray(indices, np.int64)
    if not len(chosen):
        return np.zeros((*shape_of(x)[:-1], 0))
    return x if np.array_equal(chosen, np.arange(shape_of(x)[-1])) else apply("take", x, indices=chosen)


def place(x: Value, places: Sequence[int] | NDArray, size: int) -> Value:
    """A vector of `size` values with those of x in their places, and 0 elsewhere."""
    n = shape_of(x)[-1]
    source = np.full(size, n)
    source[np.asarray(places, np.int64)] = np.arange(n)
    if (source < n).all():
        return take(x, source)
    blank = source == n
    source[blank] = n + np.arange(int(blank.sum()))
    zeros = np.zeros((*shape_of(x)[:-1], int(blank.sum())))
    return take(concat([x, zeros]), source)


def concat(parts: Sequence[Value]) -> Value:
    """Arrays one after the other along the last axis."""
    given = [part for part in parts if shape_of(part)[-1]]
    return given[0] if len(given) == 1 else apply("concat", *given)


def reshape(x: Value, shape: tuple[int, ...]) -> Value:
    """The same values in another shape."""
    return x if shape_of(x) == shape else apply("reshape", x, to=shape, rank=len(shape_of(x)))


def matmul(x: Value, weight: NDArray, transposed: bool = False) -> Value:
    """W x along the last axis, for a weight (rows, columns); or its transpose."""
    return apply("matmul", x, weight, transposed=transposed)


def convolve(x: Value, weight: NDArray) -> Value:
    """Convolutions (c_out, height, width) of images (c_in, height, width), for a weight (c_out, size, size, c_in)."""
    return apply("convolve", x, weight)


def in_order(outputs: Sequence[Node]) -> list[Node]:
    """All nodes that the outputs follow from, each after those that it needs."""
    result: list[Node] = []
    done: set[int] = set()
    stack: list[tuple[Node, bool]] = [(output, False) for output in reversed(outputs)]
    while stack:
        current, ready = stack.pop()
        if id(current) in done:
            continue
        if ready:
            done.add(id(current))
            result.append(current)
        else:
            stack.append((current, True))
            stack += [(i, False) for i in reversed(current.inputs) if id(i) not in done]
    return result
