"""Densities with bounded columns under samplers that know no bounds."""

from __future__ import annotations

from npflows.core.checks import as_flag
from npflows.density import Density

TRANSFORMS = {
    "positive": "the logarithm of x - lower",
    "below": "the logarithm of upper - x",
    "interval": "the logit",
    "periodic": "wrapping, which the density does by itself",
    "ordered": "the logarithms of gaps",
    "simplex": "the logarithms of ratios",
}
"""The transform to the whole line of each kind of column that has a gradient."""


def check_unbounded(density: Density, bounded: bool) -> None:
    """Refuse columns that an unbounded sampler would leave, unless the caller says that it keeps inside.

    Raises
    ------
    TypeError
        If it is no density.
    ValueError
        If there are such columns and not `bounded`, or columns of whole numbers, which have no gradient.
    """
    if not isinstance(density, Density):
        raise TypeError(f"log_prob takes a density, npflows.embed(flow), got {type(density).__name__}")
    keeps_inside, columns = as_flag(bounded, "bounded"), density.columns or []
    whole = [str(d) for d, column in enumerate(columns) if column.is_integer]
    if whole:
        raise ValueError(
            f"columns {', '.join(whole)} are whole numbers, which have no gradient: a sampler that follows gradients can't "
            f"move them"
        )
    needed = [
        f"column {d} ({column.kind}): {TRANSFORMS[column.kind]}"
        for d, column in enumerate(columns)
        if column.kind and not column.is_periodic
    ]
    if needed and not keeps_inside:
        raise ValueError(
            f"the density is 0 outside its support, which an unbounded sampler does not keep to: sample through the "
            f"transform of each bounded column ({'; '.join(needed)}), and say bounded=True"
        )
