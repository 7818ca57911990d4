"""Flows as ONNX models, made of standard operators alone."""

from __future__ import annotations

import json
import math
import os
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows._version import __version__
from npflows.core.atomic import atomic_write
from npflows.core.optional import required
from npflows.distribution.transformed import TransformedDistribution
from npflows.export.graph import Node, in_order
from npflows.export.simplify import simplified
from npflows.export.tracing import Cells, Graph, trace

OPSET, IR_VERSION = 17, 8
"""Version of the operators, and of the file format that goes with it."""
OPERATORS = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min", "less": "Less",
    "less_equal": "LessOrEqual", "equal": "Equal", "and": "And", "or": "Or", "not": "Not", "where": "Where", "neg": "Neg",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs", "sign": "Sign", "floor": "Floor", "tanh": "Tanh",
    "sin": "Sin", "cos": "Cos", "sigmoid": "Sigmoid",
}  # fmt: skip

SPLIT = 7.07106781186547
NORMAL_CDF = (
    (3.52624965998911e-02, 0.700383064443688, 6.37396220353165, 33.912866078383, 112.079291497871, 221.213596169931,
     220.206867912376),
    (8.83883476483184e-02, 1.75566716318264, 16.064177579207, 86.7807322029461, 296.564248779674, 637.333633378831,
     793.826512519948, 440.413735824752),
)  # fmt: skip
"""Numerator and denominator for the tail of the standard normal distribution up to `SPLIT`."""


def to_onnx(
    flow: TransformedDistribution,
    path: str | os.PathLike[str],
    what: str = "log_prob",
    *,
    draws: int = 16,
    rng: int = 0,
) -> None:
    """Write what a flow computes to an ONNX file, for onnxruntime and other engines.

    Parameters
    ----------
    path : path-like
    what : {"log_prob", "sample", "forward", "inverse", "log_prob_and_grad"}
        Inputs are `x` (batch, d), or `z` for the inverse, or `normals`, standard normal numbers, for samples; and
        `condition` (batch, c) where the flow takes one.  Outputs are `log_prob` (batch,), with `dx` and `dcondition` for
        the gradient; `z` and `log_det` (batch,), or `x` and `log_det`; `x` for samples.  All are float64, in the units of
        the table; layers compute in the flow's dtype.
    draws, rng : int
        Points of each cell of whole numbers, and what draws them; see `log_prob`.

    Raises
    ------
    ImportError
        If the package onnx is missing.
    NotExportableError
        If the flow has something that no file can hold.

    Notes
    -----
    Opset 17, standard operators alone.  Names and units of the columns and of the condition, the support and the model's
    configuration are in the file's metadata.
    """
    onnx = required("onnx", "to_onnx", "onnx", "pip install 'npflows[onnx]'")
    writer = _Writer(onnx, flow.dtype.name)
    traced = trace(flow, what, draws=draws, rng=rng)
    model = writer.model(flow, what, traced)
    onnx.checker.check_model(model)
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


class _Writer:
    """Collects nodes and constants of a model."""

    def __init__(self, onnx: ModuleType, dtype: str) -> None:
        self.onnx, self.helper = onnx, onnx.helper
        self.types = {"float64": onnx.TensorProto.DOUBLE, "float32": onnx.TensorProto.FLOAT, "bool": onnx.TensorProto.BOOL}
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], Any] = {}
        self.names: dict[int, str] = {}
        self.count = 0
        self.batch = ""

    def model(self, flow: TransformedDistribution, what: str, traced: Graph | Cells) -> Any:
        """The whole model."""
        graph = traced.point if isinstance(traced, Cells) else traced
        inputs = {name: node for name, node in graph.inputs.items() if name != "place"}
        for name, node in inputs.items():
            self.names[id(node)] = name
        first = next(iter(inputs))
        self.batch = self._node("Slice", [self._node("Shape", [first]), *(self._integers([v]) for v in (0, 1))])
        outputs = self._cells(traced) if isinstance(traced, Cells) else self._graph(graph)
        final = traced.mean.outputs if isinstance(traced, Cells) else graph.outputs
        info = []
        for name, node in final.items():
            scalar = name in ("log_prob", "log_det")
            if scalar:
                self._node("Reshape", [outputs[name], self._integers([-1])], name)
            else:
                self._node("Identity", [outputs[name]], name)
            info.append(self._value(name, () if scalar else node.shape))
        made = self.helper.make_graph(
            self.nodes,
            "npflows",
            [self._value(name, node.shape) for name, node in inputs.items()],
            info,
            list(self.constants.values()),
        )
        opset = self.helper.make_opsetid("", OPSET)
        model = self.helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="npflows",
                                       producer_version=__version__)  # fmt: skip
        self.helper.set_model_props(model, _metadata(flow, what))
        return model

    def _graph(self, graph: Graph) -> dict[str, str]:
        """Write the nodes of a graph; the names of its outputs, which all have an axis of samples."""
        result = {}
        simple = simplified(graph)
        for node in in_order(list(simple.outputs.values())):
            if node.op not in ("input", "constant"):
                self.names[id(node)] = self._write(node)
        for name, node in simple.outputs.items():
            result[name] = self._spread(node, "float64") if node.op == "constant" else self.names[id(node)]
        return result

    def _cells(self, traced: Cells) -> dict[str, str]:
        """The density at all places of the cells of every sample, as a larger batch, and the means."""
        draws, k = traced.places.shape
        whole = self.batch
        names = dict(self.names)
        for name, node in traced.point.inputs.items():
            if name == "place":
                given, shape = self._constant(traced.places[None], "float64"), [draws, k]
            else:
                given, shape = self._node("Unsqueeze", [names[id(node)], self._integers([1])]), [draws, *node.shape]
            wide = self._node("Expand", [given, self._node("Concat", [whole, self._integers(shape)], axis=0)])
            self.names[id(node)] = self._node("Reshape", [wide, self._integers([-1, node.shape[0]])])
        self.batch = self._node("Mul", [whole, self._integers([draws])])
        points = self._graph(traced.point)
        for name, node in traced.mean.inputs.items():
            self.names[id(node)] = self._node("Reshape", [points[name], self._integers([-1, *node.shape])])
        self.batch = whole
        return self._graph(traced.mean)

    def _write(self, node: Node) -> str:
        write = getattr(self, f"_{node.op}", None)
        return write(node) if write is not None else self._node(OPERATORS[node.op], self._inputs(node))

    def _inputs(self, node: Node) -> list[str]:
        """Names of the inputs; constants in the dtype of what they meet."""
        kinds = [i.dtype for i in (node.inputs[1:] if node.op == "where" else node.inputs) if i.dtype != "any"]
        dtype = kinds[0] if kinds else node.dtype
        return [self._name(i, dtype) for i in node.inputs]

    def _name(self, node: Node, dtype: str) -> str:
        if node.op != "constant":
            return self.names[id(node)]
        return self._constant(node.attributes["value"], "bool" if node.dtype == "bool" else dtype)

    def _one(self, node: Node) -> tuple[str, str]:
        """The input of a function of one value, and its dtype."""
        return self.names[id(node.inputs[0])], node.inputs[0].dtype

    def _cast(self, node: Node) -> str:
        return self._node("Cast", [self._one(node)[0]], to=self.types[node.dtype])

    def _log1p(self, node: Node) -> str:
        x, dtype = self._one(node)
        return self._log1p_of(x, dtype)

    def _log1p_of(self, x: str, dtype: str) -> str:
        """x log(u) / (u - 1) for u = 1 + x, and x where u is 1 (Kahan's)."""
        one = self._constant(np.float64(1.0), dtype)
        u = self._node("Add", [x, one])
        below = self._node("Sub", [u, one])
        is_one = self._node("Equal", [u, one])
        factor = self._node("Div", [self._node("Log", [u]), self._node("Where", [is_one, one, below])])
        infinite = self._node("Equal", [u, self._constant(np.float64(np.inf), dtype)])
        small = self._node("Where", [is_one, x, self._node("Mul", [x, factor])])
        return self._node("Where", [infinite, x, small])

    def _expm1(self, node: Node) -> str:
        """exp(x) - 1, by its series where it cancels."""
        x, dtype = self._one(node)
        one = self._constant(np.float64(1.0), dtype)
        large = self._node("Sub", [self._node("Exp", [x]), one])
        series = self._constant(np.float64(1 / 5040), dtype)
        for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0):
            series = self._node("Add", [self._node("Mul", [series, x]), self._constant(np.float64(factor), dtype)])
        near = self._node("Less", [self._node("Abs", [x]), self._constant(np.float64(1e-2), dtype)])
        return self._node("Where", [near, self._node("Mul", [series, x]), large])

    def _softplus(self, node: Node) -> str:
        """max(x, 0) + log(1 + exp(-|x|))."""
        x, dtype = self._one(node)
        above = self._node("Max", [x, self._constant(np.float64(0.0), dtype)])
        power = self._node("Exp", [self._node("Neg", [self._node("Abs", [x])])])
        return self._node("Add", [above, self._log1p_of(power, dtype)])

    def _arcsinh(self, node: Node) -> str:
        """sign(x) log(1 + (a + a^2 / (1 + sqrt(1 + a^2)))) for a = |x|; log(a) + log(2) where the square would overflow."""
        x, dtype = self._one(node)
        number = lambda v: self._constant(np.float64(v), dtype)  # noqa: E731
        limit = 1e15 if dtype == "float64" else 1e7
        size = self._node("Abs", [x])
        a = self._node("Min", [size, number(limit)])
        square = self._node("Mul", [a, a])
        root = self._node("Sqrt", [self._node("Add", [number(1.0), square])])
        share = self._node("Div", [square, self._node("Add", [number(1.0), root])])
        near = self._log1p_of(self._node("Add", [a, share]), dtype)
        far = self._node("Add", [self._node("Log", [self._node("Max", [size, number(1.0)])]), number(math.log(2))])
        result = self._node("Where", [self._node("Less", [size, number(limit)]), near, far])
        return self._node("Mul", [self._node("Sign", [x]), result])

    def _normal_cdf(self, node: Node) -> str:
        """A ratio of polynomials, and a continued fraction far out, times exp(-x^2 / 2) (Hart et al. 1968, Computer
        Approximations, 5666, in the form of West 2005, Wilmott Magazine, "Better approximations to cumulative normal
        functions")."""
        x, dtype = self._one(node)
        number = lambda v: self._constant(np.float64(v), dtype)  # noqa: E731
        size = self._node("Min", [self._node("Abs", [x]), number(40.0)])
        power = self._node("Exp", [self._node("Mul", [self._node("Mul", [size, size]), number(-0.5)])])
        near = self._node("Min", [size, number(SPLIT)])
        above, below = (self._polynomial(coefficients, near, dtype) for coefficients in NORMAL_CDF)
        ratio = self._node("Div", [above, below])
        fraction = self._node("Add", [size, number(0.65)])
        for k in (4.0, 3.0, 2.0, 1.0):
            fraction = self._node("Add", [size, self._node("Div", [number(k), fraction])])
        far = self._node("Div", [number(1 / math.sqrt(2 * math.pi)), fraction])
        tail = self._node("Where", [self._node("Less", [size, number(SPLIT)]), ratio, far])
        tail = self._node("Mul", [power, tail])
        positive = self._node("Greater", [x, number(0.0)])
        return self._node("Where", [positive, self._node("Sub", [number(1.0), tail]), tail])

    def _polynomial(self, coefficients: tuple[float, ...], x: str, dtype: str) -> str:
        """A polynomial, from the coefficient of its highest power."""
        value = self._constant(np.float64(coefficients[0]), dtype)
        for coefficient in coefficients[1:]:
            product = self._node("Mul", [value, x])
            value = self._node("Add", [product, self._constant(np.float64(coefficient), dtype)])
        return value

    def _mod(self, node: Node) -> str:
        """The remainder with the sign of the divisor, from that with the sign of the number."""
        x, y = self._inputs(node)
        rest = self._node("Mod", [x, y], fmod=1)
        negative = self._node("Less", [rest, self._constant(np.float64(0.0), node.dtype)])
        return self._node("Where", [negative, self._node("Add", [rest, y]), rest])

    def _sum(self, node: Node) -> str:
        return self._node("ReduceSum", [self._one(node)[0], self._integers(node.attributes["axes"])], keepdims=1)

    def _highest(self, node: Node) -> str:
        return self._node("ReduceMax", [self._one(node)[0]], axes=[-1], keepdims=1)

    def _cumsum(self, node: Node) -> str:
        return self._node("CumSum", [self._one(node)[0], self._axis()])

    def _axis(self) -> str:
        return self._integers(-1)

    def _take(self, node: Node) -> str:
        indices = node.attributes["indices"]
        if len(indices) and (np.diff(indices) == 1).all():
            ends = ([int(indices[0])], [int(indices[-1]) + 1], [-1])
            return self._node("Slice", [self._one(node)[0], *(self._integers(v) for v in ends)])
        return self._node("Gather", [self._one(node)[0], self._integers(indices)], axis=-1)

    def _concat(self, node: Node) -> str:
        parts = [self._spread(i, node.dtype) if i.op == "constant" else self.names[id(i)] for i in node.inputs]
        return self._node("Concat", parts, axis=-1)

    def _spread(self, node: Node, dtype: str) -> str:
        """A constant for every sample."""
        shape = self._node("Concat", [self.batch, self._integers(list(node.shape))], axis=0)
        return self._node("Expand", [self._constant(node.attributes["value"], dtype), shape])

    def _reshape(self, node: Node) -> str:
        return self._node("Reshape", [self._one(node)[0], self._integers([-1, *node.shape])])

    def _matmul(self, node: Node) -> str:
        x, dtype = self._one(node)
        weight = node.inputs[1].attributes["value"]
        return self._node("MatMul", [x, self._constant(weight if node.attributes["transposed"] else weight.T, dtype)])

    def _convolve(self, node: Node) -> str:
        """One operator in float32; in float64, which engines lack, a product for each place of the kernel."""
        x, dtype = self._one(node)
        weight = node.inputs[1].attributes["value"]
        size, (c_in, height, width) = weight.shape[1], node.inputs[0].shape
        reach = size // 2
        if dtype == "float32":
            return self._node("Conv", [x, self._constant(weight.transpose(0, 3, 1, 2), dtype)], pads=[reach] * 4)
        padded = self._node("Pad", [x, self._integers([0, 0, reach, reach] * 2)]) if reach else x
        result = ""
        for p in range(size):
            for q in range(size):
                ends = ([p, q], [p + height, q + width], [2, 3])
                window = self._node("Slice", [padded, *(self._integers(v) for v in ends)]) if reach else padded
                columns = self._node("Reshape", [window, self._integers([-1, c_in, height * width])])
                part = self._node("MatMul", [self._constant(weight[:, p, q], dtype), columns])
                result = part if not result else self._node("Add", [result, part])
        return self._node("Reshape", [result, self._integers([-1, *node.shape])])

    def _node(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        if output is None:
            self.count += 1
            output = f"v{self.count}"
        self.nodes.append(self.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, value: NDArray | np.float64, dtype: str) -> str:
        with np.errstate(over="ignore"):
            array = np.array(value, dtype, order="C")
        return self._initializer(array)

    def _integers(self, values: Any) -> str:
        return self._initializer(np.array(values, np.int64))

    def _initializer(self, array: NDArray) -> str:
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.constants:
            self.constants[key] = self.onnx.numpy_helper.from_array(array, f"c{len(self.constants)}")
        return self.constants[key].name

    def _value(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.helper.make_tensor_value_info(name, self.types["float64"], ["batch", *shape])


def _metadata(flow: TransformedDistribution, what: str) -> dict[str, str]:
    """What the file says of the flow, as strings."""
    facts = {
        "npflows": __version__,
        "model": type(flow).__name__,
        "what": what,
        "dtype": flow.dtype.name,
        "columns": flow.columns,
        "condition_columns": flow.condition_columns,
        "units": flow.units,
        "condition_units": flow.condition_units,
        "input_shape": list(flow.input_shape),
        "support": None if flow.support is None else [repr(column) for column in flow.support],
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items() if value is not None
    }
