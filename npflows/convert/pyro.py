"""Flows of Pyro 1.9, from objects and from the state dicts of their transforms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, Cauchy, Laplace, Logistic, Normal, StudentT, Uniform
from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.linear import assembled, diagonal, dtype_of
from npflows.convert.networks import activation_of
from npflows.convert.pyro_transforms import Transform, layers_of, solved
from npflows.convert.state_dict import arrays_of, as_array, is_live
from npflows.convert.tensors import Tensors
from npflows.core.checks import as_numeric
from npflows.core.columns import did_you_mean
from npflows.flow import NormalizingFlow
from npflows.layers.layer import Layer

CLIPS = ("log_scale_min_clip", "log_scale_max_clip")
SPLINE = ("bound", "order")
KINDS: dict[str, tuple[str, ...]] = {
    "AffineAutoregressive": (*CLIPS, "stable", "activation"),
    "ConditionalAffineAutoregressive": (*CLIPS, "stable", "activation"),
    "AffineCoupling": (*CLIPS, "split_dim", "dim", "activation"),
    "ConditionalAffineCoupling": (*CLIPS, "split_dim", "dim", "activation"),
    "Spline": SPLINE,
    "ConditionalSpline": (*SPLINE, "activation"),
    "SplineAutoregressive": (*SPLINE, "activation"),
    "ConditionalSplineAutoregressive": (*SPLINE, "activation"),
    "SplineCoupling": (*SPLINE, "split_dim", "identity", "activation"),
    "BatchNorm": ("epsilon",),
    "Householder": (),
    "Permute": ("permutation", "dim"),
    "LowerCholeskyAffine": ("loc", "scale_tril"),
    "AffineTransform": ("loc", "scale"),
}
"""The transforms that are taken over, each with what a state dict does not tell of it."""
LOCATION_SCALE: dict[str, type[Normal | Laplace | Cauchy | Logistic]] = {
    "Normal": Normal, "Laplace": Laplace, "Cauchy": Cauchy, "Logistic": Logistic
}  # fmt: skip
"""The base distributions of a location and a scale of each column."""
COMPOSED = {
    "ComposeTransform": "parts",
    "ComposeTransformModule": "parts",
    "ConditionalComposeTransformModule": "transforms",
}
WRAPPED = {"ConstantConditionalTransform": "transform", "IndependentTransform": "base_transform"}
INVERTED = {"_InverseTransform": "_inv", "_ConditionalInverseTransformModule": "_transform"}
"""What else there is around transforms, and the attribute that has these."""
NO_MODULES = ("Permute", "LowerCholeskyAffine", "AffineTransform")
"""Those whose numbers are in no state dict."""
ELEMENTWISE = ("Spline", "ConditionalSpline", "BatchNorm", "AffineTransform")
"""Those that leave a density of each column by itself, where the base distribution is one."""


def from_pyro(
    flow: Any, *, transforms: Sequence[Mapping[str, Any]] | None = None, dtype: str | None = None
) -> NormalizingFlow:  # fmt: skip
    """A flow of Pyro as a flow of npflows that gives its numbers, exactly.

    Affine and spline transforms, autoregressive, coupled and of each column by itself, come in with their conditions, and
    so do `Permute`, `BatchNorm`, `Householder`, `LowerCholeskyAffine` and `AffineTransform`, inverted (`.inv`) or not, on a
    normal, uniform, Student's t, Laplace, Cauchy or logistic distribution.

    Parameters
    ----------
    flow : TransformedDistribution, ConditionalTransformedDistribution, mapping of str to array, or path-like
        The object; or the state dict of ``torch.nn.ModuleList`` of those transforms that are modules, from the base to the
        data, or a file of it, which is read without PyTorch; the base is a standard normal distribution then.
    transforms : sequence of mapping, optional
        Of a state dict, all transforms from the base to the data.  Each mapping has the name of the class as ``"kind"``,
        ``"inverse": True`` where it is inverted, and what the state dict does not tell: those arguments that differ from
        Pyro's defaults, `activation` of the networks, and the numbers of the transforms that are no modules.
    dtype : {"float32", "float64"}, optional
        The source's by default.

    Returns
    -------
    NormalizingFlow

    Raises
    ------
    ConversionError
        If the flow can't be represented, or a state dict does not tell what is needed.

    Notes
    -----
    BatchNorm becomes a diagonal layer with the numbers of evaluation.  Pyro's splines have a slope of 0.999 at both ends,
    where their density jumps; these slopes are learned if the flow is trained on.  Within 1e-6 above a knot Pyro goes on
    with the curve of the bin below, which differs from that of the bin above by some 1e-12.
    """
    dtype = checked(dtype=dtype)["dtype"]
    if is_live(flow) and transforms is not None:
        raise ConversionError("transforms= is for a state dict: an object tells its transforms itself")
    parts = _parts_of(flow) if is_live(flow) else _told(arrays_of(flow), transforms)
    kind, numbers = _base_of(flow, parts) if is_live(flow) else _standard(parts)
    n = numbers["loc"].size
    if dtype is None:
        dtype = dtype_of(numbers | {f"{part.where} {name}": a for part in parts for name, a in part.arrays.items()})
    base, last = _base(kind, numbers, n, dtype)
    layers = [layer for part in parts[::-1] for layer in layers_of(part, n, dtype)]
    for part in parts:
        part.arrays.refuse_rest()
    if not (layers or last):
        raise ConversionError("the flow has no transforms: it is its base distribution")
    return assembled([*layers, *last], base, dtype)


def _parts_of(flow: Any) -> list[Transform]:
    """The transforms of an object, from the base to the data."""
    if type(flow).__name__ not in ("TransformedDistribution", "ConditionalTransformedDistribution"):
        raise ConversionError(f"{type(flow).__module__}.{type(flow).__name__} is no TransformedDistribution and no "
                              f"ConditionalTransformedDistribution of Pyro")  # fmt: skip
    return [part for k, inner in enumerate(flow.transforms) for part in _visit(inner, False, f"transform {k}")]


def _visit(transform: Any, inverse: bool, where: str) -> list[Transform]:
    """A transform, or those that it is made of, from the base to the data."""
    kind, library = type(transform).__name__, type(transform).__module__.split(".")[0]
    if library in ("pyro", "torch"):
        if kind in COMPOSED:
            inner = list(enumerate(getattr(transform, COMPOSED[kind])))
            return [part for k, one in inner[:: -1 if inverse else 1] for part in _visit(one, inverse, f"{where}.{k}")]
        if kind in WRAPPED:
            return _visit(getattr(transform, WRAPPED[kind]), inverse, where)
        if kind in INVERTED:
            return _visit(getattr(transform, INVERTED[kind]), not inverse, where)
        if kind in KINDS:
            return [_part(transform, kind, inverse, where)]
    raise ConversionError(
        f"{type(transform).__module__}.{kind} ({where}) is not taken over; {', '.join(sorted(KINDS))} can be"
    )


def _part(transform: Any, kind: str, inverse: bool, where: str) -> Transform:
    """A transform with its numbers and what is to be known besides."""
    inner = [getattr(transform, name) for name in ("lower_spline", "spline", "upper_spline") if hasattr(transform, name)]
    holders = [transform, *inner]
    told = {name: getattr(holder, name) for holder in holders[::-1] for name in KINDS[kind] if hasattr(holder, name)}
    told |= {name: value for name, value in getattr(transform, "kwargs", {}).items() if name in KINDS[kind]}
    if "activation" in KINDS[kind]:
        network = next(getattr(h, name) for h in holders for name in ("arn", "nn") if hasattr(h, name))
        names = ("AutoRegressiveNN", "ConditionalAutoRegressiveNN", "DenseNN", "ConditionalDenseNN")
        if type(network).__name__ not in names or type(network).__module__.split(".")[0] != "pyro":
            raise ConversionError(f"the network {type(network).__module__}.{type(network).__name__} ({where}) is not taken "
                                  f"over; {', '.join(names)} of Pyro can be")  # fmt: skip
        told["activation"] = activation_of(network.f, where)
    if kind in NO_MODULES:
        arrays = Tensors({name: as_array(told.pop(name)) for name in KINDS[kind] if name != "dim"}, f"{where}: ")
    else:
        arrays = arrays_of(transform)
    return Transform(kind, arrays, told, inverse, f"{kind}, {where}")


def _told(arrays: Tensors, transforms: Any) -> list[Transform]:
    """The transforms of a state dict, from what is told of them."""
    if transforms is None or (isinstance(transforms, Sequence) and not transforms):
        raise ConversionError("a state dict does not tell which transforms there are: pass transforms=")
    if not isinstance(transforms, Sequence) or not all(isinstance(given, Mapping) for given in transforms):
        raise ConversionError(f'transforms must be a list of mappings, one for each transform, as [{{"kind": '
                              f'"AffineAutoregressive"}}], got {transforms!r}')  # fmt: skip
    parts, seen = [], 0
    for k, given in enumerate(transforms):
        where = f"transform {k}"
        kind, own = _described(given, where)
        told = {name: given[name] for name in KINDS[kind] if name in given and name not in own}
        if kind in NO_MODULES:
            tensors = Tensors(own, f"{where}: ")
        else:
            tensors, seen = arrays.below(f"{seen}."), seen + 1
            if not tensors:
                raise ConversionError(f"the state dict has no numbers of {kind} ({where})")
        told |= checked(f"{kind}, {where}", **{name: value for name, value in told.items() if value is not None})
        inverse = checked(where, inverse=given.get("inverse", False))["inverse"]
        parts.append(Transform(kind, tensors, told, inverse, f"{kind}, {where}"))
    rest = [name for name in arrays if not name.split(".")[0].isdecimal() or int(name.split(".")[0]) >= seen]
    if rest:
        raise ConversionError(f"the state dict has {rest[0]}, which is of none of the {seen} transforms that are modules")
    return parts


def _described(given: Mapping[str, Any], where: str) -> tuple[str, dict[str, NDArray]]:
    """The kind of a transform of a state dict, and those of its numbers that no state dict holds, after a check."""
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConversionError(f"{kind} ({where}) is not taken over; {', '.join(sorted(KINDS))} can be")
    known = ["kind", "inverse", *KINDS[kind]]
    for name in given:
        if name not in known:
            raise ConversionError(f"{kind} ({where}) has no {name!r}; {did_you_mean(name, known)}")
    if kind not in NO_MODULES:
        return kind, {}
    wanted = [name for name in KINDS[kind] if name != "dim"]
    missing = [name for name in wanted if name not in given]
    if missing:
        raise ConversionError(f"{kind} ({where}) is in no state dict: pass its {', '.join(missing)}")
    numbers = {}
    for name in wanted:
        try:
            numbers[name] = as_numeric(given[name], name)
        except (ValueError, TypeError) as error:
            raise ConversionError(f"{error} ({kind}, {where})") from None
        if not np.isfinite(numbers[name]).all():
            raise ConversionError(f"{name} must be finite, got {given[name]!r} ({kind}, {where})")
    return kind, numbers


def _standard(parts: list[Transform]) -> tuple[str, dict[str, NDArray]]:
    """The standard normal distribution of as many columns as most of the transforms have."""
    told = Counter(found for part in parts for found in _features(part))
    if not told:
        raise ConversionError("no transform of the flow tells the number of features")
    n = told.most_common(1)[0][0]
    return "Normal", {"loc": np.zeros(n, np.float32), "scale": np.ones(n, np.float32)}


def _features(part: Transform) -> list[int]:
    """The numbers of columns that tensors of a transform tell."""
    ends = ("permutation", "beta", "gamma", "scale_tril", "u_unnormed")
    names = [name for name in part.arrays if name.rsplit(".", 1)[-1] in ends]
    told = [part.arrays[name].shape[-1] for name in names if part.arrays[name].ndim]
    if part.kind == "Spline":
        told += [len(a) for name, a in part.arrays.items() if name.startswith("unnormalized_") and a.ndim]
    return told


def _base_of(flow: Any, parts: list[Transform]) -> tuple[str, dict[str, NDArray]]:
    """The name of an object's base distribution, and its numbers."""
    base, event = flow.base_dist, False
    while type(base).__name__ in ("Independent", "ConstantConditionalDistribution"):
        event |= type(base).__name__ == "Independent"
        base = base.base_dist
    kind = type(base).__name__
    names = {**dict.fromkeys(LOCATION_SCALE, ("loc", "scale")), "Uniform": ("low", "high"),
             "StudentT": ("df", "loc", "scale"), "MultivariateNormal": ("loc", "scale_tril")}  # fmt: skip
    if kind not in names or type(base).__module__.split(".")[0] not in ("pyro", "torch"):
        raise ConversionError(f"the base distribution {type(base).__module__}.{kind} is not taken over; "
                              f"{', '.join(names)} can be")  # fmt: skip
    if not (event or kind == "MultivariateNormal" or any(part.kind not in ELEMENTWISE for part in parts)):
        raise ConversionError("the flow is a density of each column by itself: give its base .to_event(1)")
    numbers = {name: as_array(getattr(base, name)) for name in names[kind]}
    shape = numbers[names[kind][0]].shape
    if len(shape) != 1:
        raise ConversionError(f"a base distribution of shape {shape} is not taken over, only of columns (n,)")
    if kind == "Uniform":
        numbers["loc"] = numbers["low"]
    return kind, numbers


def _base(kind: str, numbers: dict[str, NDArray], n: int, dtype: str) -> tuple[Base, list[Layer]]:
    """The base distribution, and the layers before it that some need."""
    values = {name: a.astype(float) for name, a in numbers.items()}
    if kind == "Uniform":
        return Uniform(n, values["low"], values["high"], dtype=dtype), []
    if kind == "StudentT":
        scale = values["scale"]
        layers = diagonal(1 / scale, -values["loc"] / scale, n, dtype)
        return StudentT(n, values["df"], learnable=False, dtype=dtype), layers
    if kind == "MultivariateNormal":
        return Normal(n, dtype=dtype), solved(values["scale_tril"], values["loc"], n, dtype)
    return LOCATION_SCALE[kind](n, values["loc"], values["scale"], dtype=dtype), []
