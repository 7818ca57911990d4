"""A table with the parts that its columns play: values, condition, weights, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


@dataclass
class Table:
    """A table of numbers with the parts that its columns play, as `npflows.read_table` gives it.

    It is an array to NumPy, and a table with names to every method of a flow, which takes its condition with it where none
    is given.  `NormalizingFlow.fit` and the estimators of `npflows.sklearn` take its weights too.

    Attributes
    ----------
    x : ndarray (n, d)
        NaN where an entry is masked or empty; `NormalizingFlow.fit` tells these from other NaN.
    columns : list of str or None
        Names of the columns, None where they have none.
    units : list of str or None, optional
        Their units, None for a column without one; None where no column has any.
    condition : ndarray (n, c) or None
    condition_columns : list of str or None
    condition_units : list of str or None, optional
    sample_weight, log_weight : ndarray (n,) or None
        Weights of the rows, or their logarithms.
    left_out : dict of str to str
        Columns that were not taken because of what they are, and what that is.
    """

    x: np.ndarray
    columns: list[str] | None = None
    units: list[str | None] | None = None
    condition: np.ndarray | None = None
    condition_columns: list[str] | None = None
    condition_units: list[str | None] | None = None
    sample_weight: np.ndarray | None = None
    log_weight: np.ndarray | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.x, dtype) if copy else np.asarray(self.x, dtype)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.x.shape

    @property
    def ndim(self) -> int:
        """Number of axes, two."""
        return self.x.ndim

    def condition_table(self) -> Table | None:
        """The condition as a table with names and units; None where there is none."""
        if self.condition is None:
            return None
        return Table(self.condition, self.condition_columns, self.condition_units)

    def __repr__(self) -> str:
        units = self.units or [None] * self.x.shape[1]
        names = self.columns or [f"column {i}" for i in range(self.x.shape[1])]
        columns = ", ".join(name if unit is None else f"{name} [{unit}]" for name, unit in zip(names, units))
        parts = [f"{len(self)} rows of {columns}"]
        if self.condition is not None:
            parts.append(f"condition {', '.join(self.condition_columns or [str(self.condition.shape[1])])}")
        weights = "sample_weight" if self.sample_weight is not None else "log_weight" if self.log_weight is not None else ""
        parts += [weights] if weights else []
        parts += (
            [f"left out {', '.join(f'{name} ({why})' for name, why in self.left_out.items())}"] if self.left_out else []
        )
        return f"Table({'; '.join(parts)})"


def condition_of(x: Any, condition: Any) -> Any:
    """The condition that is given, else that which comes with a `Table`."""
    return x.condition_table() if condition is None and isinstance(x, Table) else condition


def with_roles(x: Any, condition: Any, weight: Any, log_weight: Any) -> tuple[Any, Any, Any, Any]:
    """A table, its condition, its weights and their logarithms: those given, else those that come with a `Table`."""
    if isinstance(x, Table):
        condition = condition_of(x, condition)
        if weight is None and log_weight is None:
            weight, log_weight = x.sample_weight, x.log_weight
    return x, condition, weight, log_weight
