"""One C function of a graph: loops over the values of a sample, in scratch memory on the stack.

Neighboring operations on each value by itself share a loop.  Memory is used again as soon as nothing needs what it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.export.graph import ELEMENTWISE, Node, in_order
from npflows.export.simplify import simplified
from npflows.export.tracing import Graph

OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "less": "<", "less_equal": "<=", "equal": "==", "and": "&&",
             "or": "||"}  # fmt: skip
FUNCTIONS = {"exp": "exp", "log": "log", "log1p": "log1p", "expm1": "expm1", "sqrt": "sqrt", "abs": "fabs",
             "floor": "floor", "tanh": "tanh", "sin": "sin", "cos": "cos", "arcsinh": "asinh"}  # fmt: skip
OF_HELPERS = ("sign", "maximum", "minimum", "mod", "sigmoid", "softplus", "normal_cdf")
INDICES = "ijk"
PART = 60
"""Lines of a part of a function, about: compilers take long over very long ones."""


class Tables:
    """Constants as arrays of the file, each once."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.texts: list[str] = []
        self._names: dict[tuple[str, bytes], str] = {}

    def name_of(self, values: NDArray) -> str:
        """The name of an array; of floats where that loses nothing."""
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                narrow = values.astype(np.float32)
            values = narrow if np.array_equal(narrow, values) else values
        else:
            values = values.astype(np.int32)
        kind = self.kind(values)
        key = kind, values.tobytes()
        if key not in self._names:
            name = self._names[key] = f"{self.prefix}_{kind[0]}{len(self._names)}"
            lines = "\n".join(_lines(values))
            self.texts.append(f"static const {kind} {name}[{values.size}] = {{\n{lines}\n}};\n")
        return self._names[key]

    @staticmethod
    def kind(values: NDArray) -> str:
        """The type of its numbers in C."""
        return {"float32": "float", "float64": "double"}.get(values.dtype.name, "int")


def _lines(values: NDArray, per_line: int = 8) -> list[str]:
    form = {"float": "%.9g", "double": "%.17g", "int": "%d"}[Tables.kind(values)]
    flat = [_special(v) or form % v for v in values.ravel().tolist()]
    return ["    " + ", ".join(flat[i : i + per_line]) + "," for i in range(0, len(flat), per_line)]


def _special(value: float) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
    return None


def literal(value: float | bool) -> str:
    """A number in C."""
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    text = _special(float(value)) or repr(float(value))
    return f"({text})" if text.startswith("-") else text


class FunctionWriter:
    """Writes one function; `helpers` are those that it calls, `scratch` the numbers that it keeps on the stack."""

    def __init__(self, name: str, graph: Graph, tables: Tables) -> None:
        self.name, self.tables = name, tables
        self.graph = simplified(graph)
        self.helpers: set[str] = set()
        self.scratch = 0
        self._places: dict[int, str] = {id(node): name for name, node in self.graph.inputs.items()}
        self._roots: dict[int, int] = {}

    def text(self) -> str:
        """The function."""
        outputs = self.graph.outputs
        order = [node for node in in_order(list(outputs.values())) if node.op not in ("input", "constant")]
        groups = self._grouped(order)
        last = self._last_uses(groups)
        steps: list[list[str]] = []
        allocator = _Allocator()
        for step, group in enumerate(groups):
            for node in group:
                if id(node) in self._places or not self._kept(node, group):
                    continue
                alias = self._alias(node)
                if alias is not None:
                    self._places[id(node)] = alias
                    continue
                size = math.prod(node.shape)
                offset = allocator.take(size)
                self._places[id(node)] = f"(s + {offset})"
                self._offsets[id(node)] = offset, size
            steps.append(self._code(group))
            for root in last.get(step, ()):
                if root in self._offsets:
                    allocator.give(*self._offsets[root])
        steps += [self._output(name, node) for name, node in outputs.items()]
        self.scratch = allocator.size
        return self._function(steps)

    def _function(self, steps: list[list[str]]) -> str:
        """The function, in parts that compilers take in at once."""
        pointers = [
            *(f"const double *{name}" for name in self.graph.inputs),
            *(f"double *{n}_" for n in self.graph.outputs),
        ]
        parts, calls, lines = list[str](), list[str](), list[str]()
        for number, step in enumerate(steps):
            lines += step
            if lines and (len(lines) > PART or number == len(steps) - 1):
                text, name = "\n".join(lines), f"{self.name}{len(parts)}"
                used = [p for p in [*pointers, "double *s"] if re.search(rf"(?<![\w.]){p.split('*')[1]}\b", text)]
                indices = [index for index in INDICES if f"({index} = 0" in text]
                head = [f"static void {name}({', '.join(used)})", "{"]
                head += [f"    int {', '.join(indices)};"] if indices else []
                parts.append("\n".join([*head, *(f"    {line}" for line in lines), "}", ""]))
                calls.append(f"    {name}({', '.join(p.split('*')[1] for p in used)});")
                lines = []
        scratch = [f"    double s[{self.scratch}];"] if self.scratch else []
        unused = [f"    (void){name};" for name in self.graph.inputs]
        return "\n".join(
            [*parts, f"static void {self.name}({', '.join(pointers)})", "{", *scratch, *unused, *calls, "}", ""]
        )

    def _grouped(self, order: Sequence[Node]) -> list[list[Node]]:
        """Neighbors that work on each value by itself, of one shape, together."""
        groups: list[list[Node]] = []
        for node in order:
            previous = groups[-1] if groups else None
            if previous and node.op in ELEMENTWISE and previous[0].op in ELEMENTWISE and previous[0].shape == node.shape:
                inside = {id(other) for other in previous}
                if all(id(i) not in inside or i.shape == node.shape for i in node.inputs):
                    previous.append(node)
                    continue
            groups.append([node])
        self._users: dict[int, int] = {}
        for number, group in enumerate(groups):
            for node in group:
                for given in node.inputs:
                    self._users[id(given)] = max(self._users.get(id(given), -1), number)
        self._number = {id(node): number for number, group in enumerate(groups) for node in group}
        for node in self.graph.outputs.values():
            self._users[id(node)] = len(groups)
        self._offsets: dict[int, tuple[int, int]] = {}
        return groups

    def _kept(self, node: Node, group: list[Node]) -> bool:
        """Whether anything outside its group needs a value."""
        return self._users.get(id(node), -1) > self._number[id(node)] or node.op not in ELEMENTWISE

    def _last_uses(self, groups: list[list[Node]]) -> dict[int, list[int]]:
        """For each group, the values that nothing needs after it; an alias is the value that it is part of."""
        ends: dict[int, int] = {}
        for group in groups:
            for node in group:
                source = self._roots.get(id(node.inputs[0]), id(node.inputs[0]))
                root = self._roots[id(node)] = source if _is_alias(node) else id(node)
                end = self._users.get(id(node), self._number[id(node)])
                ends[root] = max(ends.get(root, -1), end)
        result: dict[int, list[int]] = {}
        for root, end in ends.items():
            result.setdefault(end, []).append(root)
        return result

    def _alias(self, node: Node) -> str | None:
        if not _is_alias(node):
            return None
        given = node.inputs[0]
        if node.op == "take":
            return _moved(self._places[id(given)], int(node.attributes["indices"][0]))
        return self._places[id(given)]

    def _code(self, group: list[Node]) -> list[str]:
        first = group[0]
        if first.op in ELEMENTWISE:
            return self._loop(group)
        return [] if _is_alias(first) else getattr(self, f"_{first.op}")(first)

    def _loop(self, group: list[Node]) -> list[str]:
        """One loop for operations on each value by itself."""
        shape, local = group[0].shape, {id(node): f"t{number}" for number, node in enumerate(group)}
        lines = []
        for node in group:
            given = [local[id(i)] if id(i) in local else self._read(i, shape) for i in node.inputs]
            kind = "int" if node.dtype == "bool" else "double"
            kept = self._kept(node, group)
            inner = any(id(node) in {id(i) for i in other.inputs} for other in group)
            value = self._expression(node.op, given)
            target = f"{self._places[id(node)]}[{_flat(shape, shape)}]" if kept else ""
            if inner:
                lines.append(f"const {kind} {local[id(node)]} = {value};")
                if kept:
                    lines.append(f"{target} = {local[id(node)]};")
            else:
                lines.append(f"{target} = {value};")
        return _nested(shape, lines)

    def _expression(self, op: str, given: list[str]) -> str:
        if op in OPERATORS:
            return f"{given[0]} {OPERATORS[op]} {given[1]}"
        if op in FUNCTIONS:
            return f"{FUNCTIONS[op]}({given[0]})"
        if op == "neg":
            return f"-{given[0]}"
        if op == "not":
            return f"!({given[0]})"
        if op == "where":
            return f"{given[0]} ? {given[1]} : {given[2]}"
        assert op in OF_HELPERS, op
        self.helpers.add(op)
        return f"PREFIX_{op}({', '.join(given)})"

    def _read(self, node: Node, shape: tuple[int, ...]) -> str:
        """A value in a loop over a shape."""
        if node.op == "constant":
            values = node.attributes["value"]
            if (values == values.ravel()[0]).all() or values.size == 1:
                return literal(values.ravel()[0])
            return f"{self.tables.name_of(values)}[{_flat(node.shape, shape)}]"
        text = f"{self._places[id(node)]}[{_flat(node.shape, shape)}]"
        return f"({text} != 0.0)" if node.dtype == "bool" else text

    def _take(self, node: Node) -> list[str]:
        (given,), indices = node.inputs, node.attributes["indices"]
        rows, n, m = math.prod(node.shape[:-1]), given.shape[-1], len(indices)
        step = int(indices[1] - indices[0]) if m > 1 else 1
        if (np.diff(indices) == step).all():
            place = f"{int(indices[0])} + {step} * j"
        else:
            place = f"{self.tables.name_of(indices)}[j]"
        source, target = self._places[id(given)], self._places[id(node)]
        return _nested((rows, m), [f"{target}[i * {m} + j] = {source}[i * {n} + {place}];"])

    def _concat(self, node: Node) -> list[str]:
        rows, m, start, lines = math.prod(node.shape[:-1]), node.shape[-1], 0, []
        for part in node.inputs:
            width = part.shape[-1]
            value = self._read(part, (rows, width)) if part.op == "constant" else (
                f"{self._places[id(part)]}[i * {width} + j]")  # fmt: skip
            lines += _nested((rows, width), [f"{self._places[id(node)]}[i * {m} + {start} + j] = {value};"])
            start += width
        return lines

    def _sum(self, node: Node) -> list[str]:
        (given,) = node.inputs
        shape, target = given.shape, self._places[id(node)]
        zero = _nested(node.shape, [f"{target}[{_flat(node.shape, node.shape)}] = 0.0;"])
        source = f"{self._places[id(given)]}[{_flat(shape, shape)}]"
        return [*zero, *_nested(shape, [f"{target}[{_flat(node.shape, shape)}] += {source};"])]

    def _highest(self, node: Node) -> list[str]:
        self.helpers.add("maximum")
        (given,) = node.inputs
        rows, n = math.prod(node.shape), given.shape[-1]
        source, target = self._places[id(given)], self._places[id(node)]
        first = _nested((rows,), [f"{target}[i] = {source}[i * {n}];"])
        return [*first, *_nested((rows, n), [f"{target}[i] = PREFIX_maximum({target}[i], {source}[i * {n} + j]);"])]

    def _cumsum(self, node: Node) -> list[str]:
        rows, n = math.prod(node.shape[:-1]), node.shape[-1]
        source, target = self._places[id(node.inputs[0])], self._places[id(node)]
        before = f"(j ? {target}[i * {n} + j - 1] : 0.0)"
        return _nested((rows, n), [f"{target}[i * {n} + j] = {before} + {source}[i * {n} + j];"])

    def _matmul(self, node: Node) -> list[str]:
        given, weight = node.inputs
        values = weight.attributes["value"]
        table = self.tables.name_of(values)
        (m, n), rows = values.shape, math.prod(node.shape[:-1])
        helper = f"dense_{'transposed_' if node.attributes['transposed'] else ''}{self._kind(table)}"
        self.helpers.add(helper)
        into, out = (f" + i * {math.prod(of.shape) // rows}" if rows > 1 else "" for of in (given, node))
        source, target = self._places[id(given)] + into, self._places[id(node)] + out
        return _nested((rows,), [f"PREFIX_{helper}({m}, {n}, {table}, {source}, {target});"])

    def _kind(self, table: str) -> str:
        return "float" if table.startswith(f"{self.tables.prefix}_f") else "double"

    def _convolve(self, node: Node) -> list[str]:
        given, weight = node.inputs
        values = weight.attributes["value"]
        table = self.tables.name_of(values)
        helper = f"convolve_{self._kind(table)}"
        self.helpers.add(helper)
        c_out, size, _, c_in = values.shape
        _, height, width = node.shape
        return [f"PREFIX_{helper}({c_out}, {size}, {c_in}, {height}, {width}, {table}, {self._places[id(given)]}, "
                f"{self._places[id(node)]});"]  # fmt: skip

    def _output(self, name: str, node: Node) -> list[str]:
        (n,) = node.shape
        value = self._read(node, node.shape)
        loop = _nested(node.shape, [f"{name}_[{_flat(node.shape, node.shape)}] = {value};"])
        return [f"if ({name}_ != NULL) {{", *(f"    {line}" for line in loop), "}"] if n else []


def _moved(place: str, by: int) -> str:
    """The place of a later value of an array."""
    start, _, offset = place.strip("()").partition(" + ")
    return f"({start} + {int(offset or 0) + by})"


def _is_alias(node: Node) -> bool:
    """Whether a value lies in memory where, or within where, another does."""
    if node.op in ("reshape", "cast"):
        return True
    if node.op != "take" or math.prod(node.shape[:-1]) != 1:
        return False
    indices = node.attributes["indices"]
    return bool((np.diff(indices) == 1).all())


def _flat(shape: tuple[int, ...], loops: tuple[int, ...]) -> str:
    """The place of a value of an array of one shape in a loop over another, to which it is broadcast."""
    terms, stride = [], 1
    for axis in range(1, len(shape) + 1):
        if shape[-axis] > 1:
            index = INDICES[len(loops) - axis]
            terms.append(index if stride == 1 else f"{index} * {stride}")
        stride *= shape[-axis]
    return " + ".join(reversed(terms)) or "0"


def _nested(shape: tuple[int, ...], lines: list[str]) -> list[str]:
    """Loops over a shape around some lines; an axis of one value has none, and its index is 0."""
    wanted = [axis for axis, size in enumerate(shape) if size > 1]
    for axis, size in enumerate(shape):
        if size == 1:
            lines = [_without(line, INDICES[axis]) for line in lines]
    if not wanted:
        return ["{", *(f"    {line}" for line in lines), "}"] if any(line.startswith("const ") for line in lines) else lines
    result = []
    for depth, axis in enumerate(wanted):
        index = INDICES[axis]
        opened = " {" if depth == len(wanted) - 1 and len(lines) > 1 else ""
        result.append(f"{'    ' * depth}for ({index} = 0; {index} < {shape[axis]}; {index}++){opened}")
    result += [f"{'    ' * len(wanted)}{line}" for line in lines]
    return [*result, f"{'    ' * (len(wanted) - 1)}}}"] if len(lines) > 1 else result


def _without(line: str, index: str) -> str:
    """A line in which an index is 0."""
    line = re.sub(rf"\b{index} \* \d+ \+ ", "", line)
    line = re.sub(rf" \+ {index} \* \d+\b", "", line)
    line = re.sub(rf"\[{index} \* \d+\]", "[0]", line)
    line = re.sub(rf"\b\d+ \* {index}\b", "0", line)
    line = re.sub(rf" \+ {index}\b(?! \*)", "", line)
    return re.sub(rf"\b{index}\b", "0", line)


class _Allocator:
    """Places in scratch memory, the first free one that is large enough."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        for number, (start, length) in enumerate(self._free):
            if length >= size:
                self._free[number : number + 1] = [(start + size, length - size)] if length > size else []
                return start
        if self._free and sum(self._free[-1]) == self.size:
            start, _ = self._free.pop()
        else:
            start = self.size
        self.size = start + size
        return start

    def give(self, start: int, size: int) -> None:
        merged = sorted([*self._free, (start, size)])
        self._free = []
        for begin, length in merged:
            if self._free and sum(self._free[-1]) == begin:
                self._free[-1] = (self._free[-1][0], self._free[-1][1] + length)
            else:
                self._free.append((begin, length))
