"""What objects of nflows, and of what is built on it, tell of their transforms beside their numbers."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from npflows.convert.errors import ConversionError
from npflows.convert.networks import activation_of
from npflows.convert.nflows_splines import SPLINES

MIN_SCALE = 1e-3
"""What nflows adds to the scales of its affine maps."""
KNOWN = {
    "CompositeTransform", "IdentityTransform", "Permutation", "RandomPermutation", "ReversePermutation", "LULinear",
    "SVDLinear", "QRLinear", "NaiveLinear", "HouseholderSequence", "BatchNorm", "ActNorm", "PointwiseAffineTransform",
    "AffineScalarTransform", "AffineTransform", "MaskedAffineAutoregressiveTransform",
    "MaskedPiecewiseRationalQuadraticAutoregressiveTransform", "AffineCouplingTransform", "AdditiveCouplingTransform",
    "PiecewiseRationalQuadraticCouplingTransform", "PiecewiseLinearCouplingTransform",
    "PiecewiseQuadraticCouplingTransform", "PiecewiseCubicCouplingTransform",
    "MaskedPiecewiseQuadraticAutoregressiveTransform",
}  # fmt: skip


def facts_of(flow: Any, library: str) -> dict[str, dict[str, Any]]:
    """What an object tells of its transforms beside their numbers, by their prefixes, after a check of their kinds."""
    found: dict[str, dict[str, Any]] = {}

    def visit(transform: Any, prefix: str) -> None:
        where = prefix.rstrip(".")
        kind = kind_of(transform, library, KNOWN, where)
        if kind == "CompositeTransform":
            for number, inner in enumerate(transform._transforms):
                visit(inner, f"{prefix}_transforms.{number}.")
            return
        facts = found[prefix] = {"kind": kind}
        piecewise = re.search(r"Piecewise([A-Za-z]*?)(Coupling|Autoregressive)", kind)
        if piecewise:
            facts["spline"] = SPLINES[piecewise[1]]
        network = getattr(transform, "autoregressive_net", None) or getattr(transform, "transform_net", None)
        if type(network).__name__ == "ContextSplineMap":  # of sbi, for one feature
            facts["activation"] = "relu"
        elif network is not None:
            kind_of(network, library, {"MADE", "ResidualNet", "MLP"}, where)
            if getattr(network, "_activate_output", False):
                raise ConversionError(f"an MLP that activates its output ({where}) is not taken over")
            facts["activation"] = activation_of_network(network, where)
            facts["divided"] = hasattr(network, "hidden_features")
        if hasattr(transform, "tails") and transform.tails != "linear":
            raise ConversionError(f"splines with tails={transform.tails!r} ({where}) are not taken over")
        if getattr(transform, "scale_activation", None) is not None:
            facts["scale"] = scale_of(transform.scale_activation, where)
        for name in ("tail_bound", "min_bin_width", "min_bin_height", "min_derivative", "eps"):
            if hasattr(transform, name):
                facts[name] = getattr(transform, name)

    kind_of(flow._distribution, library, {"StandardNormal"}, "_distribution")
    visit(flow._transform, "_transform.")
    return found


def scale_of(function: Any, where: str) -> str | float:
    """What a function from raw parameters to scales is: a name of SCALES, or the N of exp(2 N (sigmoid(r) - 1 / 2)).

    It is told from its values, as such functions have no names.
    """
    import torch  # an object of it is at hand

    r = np.linspace(-4.0, 4.0, 17)
    values = function(torch.as_tensor(r, dtype=torch.float64)).detach().numpy()
    softplus, sigmoid = np.logaddexp(0, r), 1 / (1 + np.exp(-r))
    known = {"sigmoid": 1 / (1 + np.exp(-r - 2)) + MIN_SCALE, "softplus": softplus + MIN_SCALE,
             "wide": np.minimum(softplus + MIN_SCALE, 3.0)}  # fmt: skip
    for name, expected in known.items():
        if np.allclose(values, expected, rtol=1e-12, atol=0):
            return name
    reach = float(np.log(values[-1]) / (2 * (sigmoid[-1] - 0.5)))
    if np.allclose(values, np.exp(2 * reach * (sigmoid - 0.5)), rtol=1e-10, atol=0):
        return round(reach, 9)
    raise ConversionError(f"the scale activation {function!r} ({where}) is not one that is taken over")


def kind_of(part: Any, library: str, known: Collection[str], where: str) -> str:
    """The name of a part's class, after a check that it is one of the library's own that are known."""
    kind, module = type(part).__name__, type(part).__module__
    if kind not in known or module.split(".")[0] != library:
        raise ConversionError(
            f"{module}.{kind} ({where}) is not taken over; {', '.join(sorted(known))} of {library} can be"
        )
    return kind


def activation_of_network(network: Any, where: str) -> str:
    """npflows' name of the activation of a network of nflows or normflows."""
    blocks = getattr(network, "blocks", ())
    holders = [*blocks[:1], network] if len(blocks) else [network]
    names = ("activation", "_activation", "_activation_fn")
    given = next((h for holder in holders for name in names if (h := getattr(holder, name, None)) is not None), None)
    return activation_of(given, where)
