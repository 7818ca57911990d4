"""Conditions on rows: comparisons of columns and numbers, joined by and, or and not."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npflows.core.times import instant
from npflows.files.tables.source import TableError

_BINARY: dict[type, Callable] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
    ast.Mod: operator.mod,
}  # fmt: skip
_JOIN: dict[type, Callable] = {ast.BitAnd: np.logical_and, ast.BitOr: np.logical_or}
_UNARY: dict[type, Callable] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: np.logical_not,
    ast.Invert: np.logical_not,
}
_COMPARE: dict[type, Callable] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
FUNCTIONS: dict[str, Callable] = {
    "abs": np.abs, "sqrt": np.sqrt, "log": np.log, "log10": np.log10, "exp": np.exp, "isfinite": np.isfinite,
    "isnan": np.isnan, "sin": np.sin, "cos": np.cos,
}  # fmt: skip
"""Functions that conditions may use."""


class RowCondition:
    """Which rows are wanted, by an expression like `z > 0 and (r - i < 2 or isnan(y))`, or `t >= "2020-06-01"` for times.

    Names of columns that are no Python names stand in backticks: `` `r mag` < 20 ``.  A comparison with a missing value is
    false.

    Parameters
    ----------
    text : str

    Raises
    ------
    TableError
        If it is no such expression.
    """

    def __init__(self, text: str) -> None:
        self.text, quoted = text, []

        def placeholder(found: re.Match[str]) -> str:
            quoted.append(found.group(1))
            return f"_quoted_{len(quoted) - 1}_"

        try:
            self._tree = ast.parse(re.sub(r"`([^`]+)`", placeholder, text).strip(), mode="eval").body
        except (SyntaxError, ValueError):
            raise TableError(
                f"can't read the condition on rows {text!r}; write for instance z > 0 and abs(b) > 20"
            ) from None
        self._quoted = {f"_quoted_{i}_": name for i, name in enumerate(quoted)}
        found = [self._name(node.id) for node in ast.walk(self._tree) if isinstance(node, ast.Name)]
        called = {
            node.func.id for node in ast.walk(self._tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        self.names = list(dict.fromkeys(name for name in found if name not in called))

    def _name(self, identifier: str) -> str:
        return self._quoted.get(identifier, identifier)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows (n,) are wanted, from the columns of these names."""
        try:
            with np.errstate(all="ignore"):
                kept = np.asarray(self._value(self._tree, columns))
        except TypeError:  # NumPy's, where times meet numbers
            raise TableError(
                f"the condition on rows {self.text!r} compares times with numbers: write an instant in quotes, for "
                f"instance t >= '2020-06-01 12:00'"
            ) from None
        if kept.dtype != bool or kept.ndim != 1:
            raise TableError(f"the condition on rows {self.text!r} must compare columns, for instance z > 0")
        return kept

    def _value(self, node: ast.expr, columns: Mapping[str, np.ndarray]) -> Any:
        def of(part: ast.expr) -> Any:
            return self._value(part, columns)

        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (moment := instant(node.value)) is not None:
            return moment[0]
        if isinstance(node, ast.Name):
            return columns[self._name(node.id)]
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return _BINARY[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.BinOp) and type(node.op) in _JOIN:
            sides = [np.asarray(of(side)) for side in (node.left, node.right)]
            if any(side.dtype != bool for side in sides):
                raise TableError(
                    f"the condition on rows {self.text!r}: put parentheses around comparisons, or write and, or"
                )
            return _JOIN[type(node.op)](*sides)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            return _UNARY[type(node.op)](of(node.operand))
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            result = of(node.values[0])
            for part in node.values[1:]:
                result = join(result, of(part))
            return result
        if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
            values = [of(node.left), *map(of, node.comparators)]
            result = np.True_
            for op, left, right in zip(node.ops, values, values[1:]):
                valid = ~(np.isnan(left) | np.isnan(right))
                result = result & _COMPARE[type(op)](left, right) & valid
            return result
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in FUNCTIONS
            and len(node.args) == 1
        ):
            return FUNCTIONS[node.func.id](of(node.args[0]))
        shown = ast.unparse(node)
        raise TableError(
            f"the condition on rows {self.text!r} can't have {shown!r}: it takes columns, numbers, instants in quotes, "
            f"+ - * / **, comparisons, and, or, not, and {', '.join(FUNCTIONS)}"
        )
