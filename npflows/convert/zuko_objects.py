"""What objects of zuko tell of their transforms beside their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from npflows.convert.errors import ConversionError
from npflows.convert.networks import activation_of

UNIVARIATE = {
    "MonotonicAffineTransform": "affine",
    "AdditiveTransform": "additive",
    "MonotonicRQSTransform": "spline",
    "CircularRQSTransform": "circular spline",
    "BoundedBernsteinTransform": "bounded bernstein",
    "BernsteinTransform": "bernstein",
}
"""What `univariate` calls the scalar maps of zuko that are taken over."""
KINDS = {"MaskedAutoregressiveTransform", "GeneralCouplingTransform", "ElementWiseTransform", "UnconditionalTransform"}
FIXED = {"AffineTransform", "PermutationTransform", "LULinearTransform", "RotationTransform", "LogTails"}
"""Transforms without a network that are taken over; the last one is npflows' own."""
OWN = "npflows.convert.in_zuko"
"""The module of what `to_zuko` has beside zuko's own."""


class Told(NamedTuple):
    """What a state dict does not tell of a transform.

    Attributes
    ----------
    univariate : str
    slope, bound : float
        Of the scalar map.
    activation : str
    fixed : str
        The name of a transform without a network.
    own : Mapping, optional
        The arguments of npflows' scalar map, where it is one of `to_zuko`.
    """

    univariate: str
    slope: float = 1e-3
    bound: float = 5.0
    activation: str = "relu"
    fixed: str = ""
    own: Mapping[str, Any] | None = None


def facts_of(flow: Any) -> dict[str, Told]:
    """What an object tells of its transforms beside their numbers, by their prefixes, after a check of their kinds."""
    composed = getattr(flow.transform, "transforms", None)
    steps = {"transform.": flow.transform} if composed is None else {
        f"transform.transforms.{k}.": step for k, step in enumerate(composed)
    }  # fmt: skip
    return {prefix: _told(step, prefix.rstrip(".")) for prefix, step in steps.items()}


def _told(step: Any, where: str) -> Told:
    kind = type(step).__name__
    if kind == "LazyInverse":
        return _told(step.transform, where)
    if kind not in KINDS or type(step).__module__.split(".")[0] != "zuko":
        raise ConversionError(
            f"{type(step).__module__}.{kind} ({where}) is not taken over; {', '.join(sorted(KINDS))} can be"
        )
    if kind == "UnconditionalTransform":
        if getattr(step.f, "__module__", "") == OWN:
            return Told("", bound=float(step.bound), fixed=step.f.__name__)
        return Told("", fixed=getattr(step.f, "__name__", str(step.f)))
    univariate: Any = step.univariate
    options: dict[str, Any] = {}
    if isinstance(univariate, partial):
        univariate, options = univariate.func, dict(univariate.keywords)
    name = getattr(univariate, "__name__", type(univariate).__name__)
    if type(univariate).__module__ == OWN:
        return Told("own", activation=_activation(step, where), own=_own(univariate))
    if name not in UNIVARIATE:
        raise ConversionError(f"the scalar map {name} ({where}) is not taken over; {', '.join(sorted(UNIVARIATE))} can be")
    unknown = set(options) - {"slope", "bound"}
    if unknown:
        raise ConversionError(f"{', '.join(sorted(unknown))} of {name} ({where}) is not known here")
    bound = math.pi if UNIVARIATE[name] == "circular spline" else options.get("bound", 5.0)
    return Told(UNIVARIATE[name], options.get("slope", 1e-3), float(bound), _activation(step, where))


def _own(univariate: Any) -> dict[str, Any]:
    """The arguments of a layer whose scalar map `to_zuko` has handed over."""
    if type(univariate).__name__ == "AffineMap":
        kind = univariate.scale_activation
        most = {} if math.isinf(univariate.most) else {"max_scale": univariate.most}
        return {"scale_activation": kind, "min_scale": univariate.least, "shift_first": univariate.shift_first, **most}
    return {"tail_bound": univariate.bound, "min_bin_width": univariate.min_bin_width,
            "min_bin_height": univariate.min_bin_height, "min_derivative": univariate.min_derivative}  # fmt: skip


def _activation(step: Any, where: str) -> str:
    """The activation of all hidden layers."""
    if not hasattr(step, "hyper"):
        return "relu"
    parts = [inner for part in step.hyper for inner in (part if type(part).__name__ == "Residual" else [part])]
    names = {activation_of(part, where) for part in parts if type(part).__name__ not in ("Linear", "MaskedLinear")}
    if len(names) > 1:
        raise ConversionError(
            f"a network with several activations, {', '.join(sorted(names))} ({where}), is not taken over"
        )
    return names.pop() if names else "relu"
