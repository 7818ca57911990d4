"""One self-contained C99 file of a flow: no dependency but libm, no allocation, no state."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from npflows._version import __version__
from npflows.core.atomic import atomic_write
from npflows.distribution.transformed import TransformedDistribution
from npflows.export.c_function import FunctionWriter, Tables
from npflows.export.c_helpers import HELPERS
from npflows.export.errors import NotExportableError
from npflows.export.tracing import WHAT, Cells, Graph, trace

MOST_PARAMETERS, MOST_SCRATCH = 10**6, 1 << 22
"""Parameters of a flow, those that masks forbid left out, and bytes of a function's stack, at most."""
NEEDED = ("log_prob", "log_prob_and_grad")


def to_c(
    flow: TransformedDistribution, path: str | os.PathLike[str], prefix: str = "flow", *, draws: int = 16, rng: int = 0
) -> None:
    """Write one self-contained C99 file with the density of a flow, its gradient, its map and samples.

    It needs libm alone, allocates nothing and keeps nothing between calls.  Parameters of float32 flows are kept as they
    are, and everything is computed in double.

    Parameters
    ----------
    path : path-like
    prefix : str
        What the names of all functions begin with.
    draws, rng : int
        Points of each cell of whole numbers, and what draws them; see `NormalizingFlow.log_prob`.

    Raises
    ------
    NotExportableError
        If the flow has something that no file can hold, or is too large.
    ValueError
        If the prefix is no name in C.

    Notes
    -----
    The functions, with `prefix` before their names: `log_prob(x, condition)`, `log_prob_and_grad(x, condition, dx,
    dcondition)`, `forward(x, condition, z)`, `inverse(z, condition, x)` and `sample(normals, condition, x)`, which makes a
    sample of standard normal numbers; the first two return the log-density, the next two the log-determinant.
    """
    with atomic_write(path) as file:
        file.write(c_text(flow, prefix, draws, rng).encode())


def c_text(flow: TransformedDistribution, prefix: str = "flow", draws: int = 16, rng: int = 0) -> str:
    """The text of that file."""
    if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
        raise ValueError(f"prefix must be a name in C, letters, digits and _, got {prefix!r}")
    if flow.num_params > MOST_PARAMETERS:
        raise NotExportableError(
            f"a C file holds flows of up to {MOST_PARAMETERS:,} parameters, this one has {flow.num_params:,}: "
            f"export to ONNX"
        )
    file = _File(flow, prefix)
    missing = {}
    for what in WHAT:
        try:
            file.add(what, trace(flow, what, draws=draws, rng=rng))
        except NotExportableError as error:
            if what in NEEDED:
                raise
            missing[what] = str(error)
    return file.text(missing)


def _described(
    what: str, labels: list[str], names: list[str] | None, units: list[str | None] | None
) -> list[str]:  # fmt: skip
    """A line on columns that have names or units, or none."""
    if names is None and units is None:
        return []
    of_each = units or [None] * len(labels)
    return [f"{what}: {', '.join(name if unit is None else f'{name} [{unit}]' for name, unit in zip(labels, of_each))}"]


class _File:
    """The functions of a file, and the tables and helpers that they need."""

    def __init__(self, flow: TransformedDistribution, prefix: str) -> None:
        self.flow, self.prefix = flow, prefix
        self.tables, self.helpers, self.functions = Tables(prefix), set[str](), list[str]()
        self.scratch = 0

    def add(self, what: str, traced: Graph | Cells) -> None:
        """Write the function of what was traced."""
        if isinstance(traced, Cells):
            return self._add_cells(what, traced)
        self._function(f"{what}_", traced)
        self.functions.append(_public(self.prefix, what, list(traced.outputs), self._call(f"{what}_", traced)))

    def _add_cells(self, what: str, traced: Cells) -> None:
        draws, k = traced.places.shape
        self._function(f"{what}_point_", traced.point)
        self._function(f"{what}_mean_", traced.mean)
        places = self.tables.name_of(traced.places)
        widths = {name: node.shape[0] for name, node in traced.point.outputs.items()}
        lines = [f"double each_{name}[{draws * width}];" for name, width in widths.items()]
        arguments = [*(f"{places} + i * {k}" if name == "place" else name for name in traced.point.inputs),
                     *(f"each_{name} + i * {width}" for name, width in widths.items())]  # fmt: skip
        lines += ["int i;", f"for (i = 0; i < {draws}; i++)",
                  f"    {self.prefix}_{what}_point_({', '.join(arguments)});"]  # fmt: skip
        outputs = list(traced.mean.outputs)
        lines.append(f"{self.prefix}_{what}_mean_({', '.join([*(f'each_{n}' for n in traced.mean.inputs), *outputs])});")
        self.functions.append(_public(self.prefix, what, outputs, lines))

    def _function(self, name: str, traced: Graph) -> None:
        writer = FunctionWriter(f"{self.prefix}_{name}", traced, self.tables)
        self.functions.append(writer.text())
        self.helpers |= writer.helpers
        self.scratch = max(self.scratch, 8 * writer.scratch)
        if self.scratch > MOST_SCRATCH:
            raise NotExportableError(
                f"{name.rstrip('_')} of this flow would need {self.scratch / 2**20:.0f} MiB of stack in C, and "
                f"{MOST_SCRATCH / 2**20:.0f} are the most: export to ONNX"
            )

    def _call(self, name: str, traced: Graph) -> list[str]:
        return [f"{self.prefix}_{name}({', '.join([*traced.inputs, *traced.outputs])});"]

    def text(self, missing: dict[str, str]) -> str:
        """The whole file."""
        body = "\n".join(self.functions)
        helpers = "\n".join(text for name, text in HELPERS.items() if name in self.helpers)
        sections = [self._heading(missing), "#include <math.h>\n#include <stddef.h>\n", self._declarations(missing),
                    "\n".join(self.tables.texts), helpers, body]  # fmt: skip
        return "\n".join(sections).replace("PREFIX_", f"{self.prefix}_")

    def _heading(self, missing: dict[str, str]) -> str:
        flow, p = self.flow, self.prefix
        lines = [
            f"{type(flow).__name__} of npflows {__version__}: {flow.latent_dim} values, "
            f"{flow.condition_dim} of a condition, {flow.num_params} parameters ({flow.dtype.name}).",
            *_described("x", flow.preprocessing.labels, flow.columns, flow.units),
            *_described("condition", flow.conditioning.labels, flow.condition_columns, flow.condition_units),
            "",
            "C99, for C++ too; link with -lm.  Everything is computed in double, in the units of the table that the flow",
            "was fitted to.  No memory is allocated and nothing is kept, for any number of threads; the stack holds",
            f"{self.scratch / 1024:.0f} KiB.  Compile without -ffast-math, which breaks NaN and infinity.",
            "",
            f"{p}_log_prob           the log-density at x; -inf outside the support, NaN where x or condition has NaN",
            f"{p}_log_prob_and_grad  with its gradients, d/dx and d/dcondition; a pointer may be NULL",
            f"{p}_forward            z and, returned, log |det dz/dx|",
            f"{p}_inverse            x and, returned, log |det dx/dz|",
            f"{p}_sample             a sample x from standard normal numbers, one for each of its values",
            *(f"{p}_{what} is not here: {why}" for what, why in missing.items()),
        ]
        safe = [line.replace("*/", "* /").replace("/*", "/ *").encode("ascii", "replace").decode() for line in lines]
        return "\n".join(["/*", *(f" * {line}".rstrip() for line in safe), " */"])

    def _declarations(self, missing: dict[str, str]) -> str:
        p = self.prefix
        sizes = f"enum {{ {p}_dim = {self.flow.latent_dim}, {p}_condition_dim = {self.flow.condition_dim} }};"
        lines = ["#ifdef __cplusplus", 'extern "C" {', "#endif", sizes]
        lines += [f"{_signature(p, what)};" for what in WHAT if what not in missing]
        return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", ""])


ARGUMENTS = {
    "log_prob": "const double *x, const double *condition",
    "sample": "const double *normals, const double *condition, double *x",
    "forward": "const double *x, const double *condition, double *z",
    "inverse": "const double *z, const double *condition, double *x",
    "log_prob_and_grad": "const double *x, const double *condition, double *dx, double *dcondition",
}


def _signature(prefix: str, what: str) -> str:
    return f"{'void' if what == 'sample' else 'double'} {prefix}_{what}({ARGUMENTS[what]})"


def _public(prefix: str, what: str, outputs: Sequence[str], calls: Sequence[str]) -> str:
    """A function that users call; the one that computes takes a pointer for each output."""
    returned = {"log_prob": "log_prob", "log_prob_and_grad": "log_prob", "forward": "log_det", "inverse": "log_det"}.get(
        what
    )
    lines = [f"{_signature(prefix, what)}", "{"]
    body = list(calls)
    if returned is not None:
        lines.append(f"    double {returned}[1];")
        body.append(f"return {returned}[0];")
    if not any("condition" in line for line in calls):
        body.insert(_first_statement(body), "(void)condition;")
    if what == "log_prob_and_grad" and "dcondition" not in outputs:
        body.insert(_first_statement(body), "(void)dcondition;")
    return "\n".join([*lines, *(f"    {line}" for line in body), "}", ""])


def _first_statement(lines: Sequence[str]) -> int:
    """Where statements begin, after declarations."""
    return next(i for i, line in enumerate(lines) if not line.startswith(("double ", "int ")))
