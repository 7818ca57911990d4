"""Splines of nflows as the scalar maps of npflows' layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.convert.errors import ConversionError
from npflows.convert.tensors import Tensors
from npflows.layers.layer import Layer
from npflows.layers.spline import SplineLayer

SPLINES = {"Linear": "linear", "Quadratic": "quadratic", "Cubic": "cubic", "RationalQuadratic": "rational_quadratic"}
"""npflows' kinds of splines, by what the names of transforms have after Piecewise."""
MIN_BIN = 1e-3
"""The least sizes of bins, and the least derivative, that nflows has by default; no state dict holds them."""
LEAST_DENSITY = 1e-3
"""What nflows adds to the heights of quadratic splines."""
DIVIDED = {"rational_quadratic": 2, "linear": 0, "quadratic": 2, "cubic": 2}
"""How many raw parameters for each bin a coupling's network with `hidden_features` divides by their root."""
COLUMNS = {
    "rational_quadratic": {"unnormalized_widths": 0, "unnormalized_heights": 0, "unnormalized_derivatives": -1},
    "linear": {"unnormalized_pdf": 0},
    "quadratic": {"unnormalized_widths": 0, "unnormalized_heights": -1},
    "cubic": {"unnormalized_widths": 0, "unnormalized_heights": 0},
}
"""The tensors of splines without a network, and how many columns they have more than there are bins."""


def spline_of(multiplier: int, facts: dict[str, Any], where: str) -> dict[str, Any]:
    """The arguments of a spline layer."""
    kind = facts.get("spline", "rational_quadratic")
    per_bin, further = {"linear": (1, 0), "quadratic": (2, -1), "cubic": (2, 2)}.get(kind, (3, -1))
    bins = (multiplier - further) // per_bin
    if bins < 2 or bins * per_bin + further != multiplier:
        raise ConversionError(f"{where} has {multiplier} outputs for each feature: neither an affine map nor a "
                              f"{kind.replace('_', '-')} spline with linear tails")  # fmt: skip
    if facts["tail_bound"] is None:
        raise ConversionError(f"{where}: a state dict does not tell the tail bound of splines: pass tail_bound=")
    least = {name: facts.get(name, MIN_BIN) for name in ("min_bin_width", "min_bin_height", "min_derivative")}
    if kind == "linear":
        least["min_bin_height"] = 0.0
    if kind == "cubic":
        least["min_derivative"] = 0.0
    ends = {"end_weight": 0.5} if kind == "quadratic" else {}
    return {"num_bins": bins, "tail_bound": float(facts["tail_bound"]), "spline": kind, **least, **ends}


def added_to(scalar_map: dict[str, Any], outputs: int) -> NDArray[np.float64]:
    """What npflows adds to raw parameters of splines: those of derivatives, which come last."""
    added = np.zeros(outputs)
    if scalar_map["spline"] == "rational_quadratic":
        added[2 * scalar_map["num_bins"] :] = math.log(math.expm1(1 - scalar_map["min_derivative"]))
    elif scalar_map["spline"] == "cubic":
        added[2 * scalar_map["num_bins"] :] = -math.log(2)
    return added


def splines_of_kept(
    part: Tensors, kept: np.ndarray, bins: int, where: str, facts: dict[str, Any], dtype: str, n: int
) -> Layer:  # fmt: skip
    """The splines of a coupling's kept features, which their network does not see; the others' are the identity."""
    kind = facts.get("spline", "rational_quadratic")
    rows = [part.take(name, len(kept), bins + more).astype(float) for name, more in COLUMNS[kind].items()]
    if kind == "cubic":
        rows += [part.take(f"unnorm_derivatives_{side}", len(kept), 1).astype(float) for side in ("left", "right")]
    options = spline_of(sum(a.shape[-1] for a in rows), facts, where)
    if kind == "quadratic":  # the ends are constants; with them the splines of the others can be the identity
        rows[1:] = [_with_ends(rows[0], rows[1], options, where)]
        options = {**options, "end_weight": 1.0, "free_ends": True}
    raw = np.concatenate(rows, axis=-1)
    raw -= added_to(options, raw.shape[-1])
    layer = SplineLayer(n, **options, dtype=dtype)
    layer.parameters.views()["raw"][kept] = raw
    return layer


def _with_ends(widths: NDArray, heights: NDArray, options: dict[str, Any], where: str) -> NDArray:
    """Raw heights (features, K + 1) of quadratic splines at all knots, from those at inner ones."""
    least = options["min_bin_width"]
    w = np.exp(widths - widths.max(axis=-1, keepdims=True))
    w = least + (1 - least * widths.shape[-1]) * w / w.sum(axis=-1, keepdims=True)
    density = np.logaddexp(0, heights) + LEAST_DENSITY
    ends = (w[:, 0] * density[:, 0] + w[:, -1] * density[:, -1]) / 4
    inner = (w[:, 1:-1] * (density[:, :-1] + density[:, 1:])).sum(axis=-1) / 2
    end = (ends + inner) / (1 - (w[:, 0] + w[:, -1]) / 4) - LEAST_DENSITY
    if (end <= 0).any():
        raise ConversionError(f"{where}: the quadratic splines of kept features are too flat at their ends")
    raw = np.log(np.expm1(end))[:, None]
    return np.concatenate([raw, heights, raw], axis=-1)
