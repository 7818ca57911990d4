"""Flows of nflows 0.14, from objects and from state dicts."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.convert.linear import assembled, diagonal, dtype_of, matrix, permutation, standardize
from npflows.convert.networks import Dense, activation_of, autoregressive, coupling, linear, masked_dense, split_condition
from npflows.convert.nflows_splines import DIVIDED, SPLINES, added_to, spline_of, splines_of_kept
from npflows.convert.state_dict import Arrays, ConversionError, arrays_of, below, is_live, numbers_below, refuse_others
from npflows.flow import NormalizingFlow
from npflows.layers import Householder, LULinear, QRLinear, SVDLinear
from npflows.layers.layer import Layer

MIN_SCALE, EPS_LU, EPS_BATCH_NORM = 1e-3, 1e-3, 1e-5
"""Numbers of nflows that no state dict holds: of its affine maps, LULinear and SVDLinear, and BatchNorm."""
KEPT = "unconditional_transform."
KNOWN = {
    "CompositeTransform", "IdentityTransform", "Permutation", "RandomPermutation", "ReversePermutation", "LULinear",
    "SVDLinear", "QRLinear", "NaiveLinear", "HouseholderSequence", "BatchNorm", "ActNorm", "PointwiseAffineTransform",
    "AffineScalarTransform", "AffineTransform", "MaskedAffineAutoregressiveTransform",
    "MaskedPiecewiseRationalQuadraticAutoregressiveTransform", "AffineCouplingTransform", "AdditiveCouplingTransform",
    "PiecewiseRationalQuadraticCouplingTransform", "PiecewiseLinearCouplingTransform",
    "PiecewiseQuadraticCouplingTransform", "PiecewiseCubicCouplingTransform",
    "MaskedPiecewiseQuadraticAutoregressiveTransform",
}  # fmt: skip
SCALES = {"sigmoid": ("sigmoid", None), "softplus": ("softplus", None), "wide": ("softplus", 3.0)}
"""Activations and largest scales of affine maps, by what `from_glasflow` calls them."""


def from_nflows(
    flow: Any,
    *,
    activation: str = "relu",
    tail_bound: float | None = None,
    spline: str = "rational_quadratic",
    dtype: str | None = None,
) -> NormalizingFlow:
    """A flow of nflows as a flow of npflows that gives its numbers, exactly.

    What can't be represented is refused by name, never approximated: batch normalization within networks, splines without
    tails, embedding networks, other base distributions than StandardNormal.

    Parameters
    ----------
    flow : nflows.flows.Flow, mapping of str to array, or path-like
        The object, its state dict, or a file that `torch.save(flow.state_dict(), path)` wrote, which is read without
        PyTorch.  A state dict does not tell all that an object does: no transforms without numbers, splines with linear
        tails and nflows' least sizes, and default scales are assumed.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
        Of the networks, where a state dict is given; an object tells it.
    tail_bound : float, optional
        Of the splines, where a state dict is given.
    spline : {"rational_quadratic", "linear", "quadratic", "cubic"}
        The kind of the splines, where a state dict is given.
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
    BatchNorm and ActNorm become diagonal layers with the numbers that they have in evaluation.  Batch statistics are not
    trained on.  What nflows' masked networks make of a condition before they add it becomes an embedding of the flow.
    """
    if spline not in SPLINES.values():
        raise ConversionError(f"spline must be one of {', '.join(map(repr, SPLINES.values()))}, got {spline!r}")
    refuse_others(flow, "flow of nflows", "_transform", "_distribution", "state_dict")
    live = facts_of(flow, "nflows") if is_live(flow) else {}
    given = {"activation": activation, "tail_bound": tail_bound, "spline": spline}
    return flow_of(arrays_of(flow), live, given, dtype)


def flow_of(
    arrays: Arrays, live: dict[str, dict[str, Any]], given: dict[str, Any], dtype: str | None
) -> NormalizingFlow:  # fmt: skip
    """A flow from its arrays, from what an object tells of its transforms and what is assumed of them else."""
    arrays, location = _without_standardization(arrays)
    _check_rest(arrays)
    dtype = dtype_of(arrays) if dtype is None else dtype
    n = _features(arrays)
    prefixes = list(live) if live else _transforms(arrays, "_transform.")
    facts = {prefix: {**given, **live.get(prefix, {})} for prefix in prefixes}
    seen = Conditions.of(arrays, facts)
    layers: list[Layer] = []
    for prefix, told in facts.items():
        part = below(arrays, prefix)
        layers += layers_of(part, prefix.rstrip("."), {**told, "first": not layers}, dtype, n, seen.of_transform(prefix))
    taken = assembled(layers, "normal", dtype, **seen.options)
    seen.fill(taken)
    standardize_condition(taken, location)
    return taken


def standardize_condition(flow: NormalizingFlow, table: tuple[NDArray, NDArray] | None) -> None:
    """Set location and scale of a flow's conditions, where there are any, from one number or one of each column."""
    if table is not None and flow.condition_dim:
        flow.standardize_condition(*(np.broadcast_to(a, (flow.condition_dim,)) for a in table))


def _without_standardization(arrays: Arrays) -> tuple[Arrays, tuple[NDArray, NDArray] | None]:
    """The arrays without those of a standardization of conditions (sbi's `Standardize`), and these."""
    for prefix in ("_embedding_net.0.", "_embedding_net."):
        if f"{prefix}_mean" in arrays and f"{prefix}_std" in arrays:
            rest = {name: a for name, a in arrays.items() if name not in (f"{prefix}_mean", f"{prefix}_std")}
            return rest, (arrays[f"{prefix}_mean"].astype(float), arrays[f"{prefix}_std"].astype(float))
    return arrays, None


def _check_rest(arrays: Arrays) -> None:
    """Refuse what is no transform."""
    for name in arrays:
        if name.startswith("_embedding_net."):
            raise ConversionError(f"the embedding network ({name}) can't be taken over: embed conditions before")
        if name.startswith("_distribution.") and name != "_distribution._log_z":
            raise ConversionError(f"the base distribution is no StandardNormal, as it has {name}")
        if not name.startswith(("_transform.", "_distribution.")):
            raise ConversionError(
                f"{name} is no part of a flow of nflows: its state dict has _transform. before most names"
            )
    check_networks(arrays)


def check_networks(arrays: Arrays) -> None:
    """Refuse what networks have that npflows' do not."""
    for name in arrays:
        if "batch_norm" in name:
            raise ConversionError(f"{name}: batch normalization within networks is not taken over")


@dataclass(frozen=True)
class Seen:
    """What a transform sees of the conditions: columns of the embedding, or the conditions themselves.

    Attributes
    ----------
    width : int
        Columns that all transforms see.
    own : int
        The first of those that a masked network adds in its first layer, already through an activation.
    plain : int
        The first of those of the conditions as they are.
    """

    width: int = 0
    own: int = 0
    plain: int = 0

    def weights(self, first: int, weight: NDArray) -> NDArray:
        """Weights (rows, width) that are zero but for some columns, from the first of these on."""
        result = np.zeros((len(weight), self.width), weight.dtype)
        result[:, first : first + weight.shape[1]] = weight
        return result


@dataclass(frozen=True)
class Conditions:
    """How the transforms of a flow see its conditions.

    nflows' masked networks add f(C c + b), which has an activation of its own: of all of them together one embedding is
    made, whose columns each network has some of.
    """

    n: int
    activation: str
    made: dict[str, tuple[NDArray, NDArray]]
    plain: bool

    @classmethod
    def of(cls, arrays: Arrays, facts: dict[str, dict[str, Any]]) -> Conditions:
        """From the arrays of a flow."""
        made = {}
        for prefix in facts:
            name = f"{prefix}autoregressive_net.context_layer"
            if f"{name}.weight" in arrays:
                made[prefix] = linear(arrays, name)
        inner = [a.shape[1] for name, a in arrays.items() if re.search(r"blocks\.\d+\.context_layer\.weight$", name)]
        sole = [a.shape[1] for name, a in arrays.items() if name.endswith("spline_predictor.0.weight")]
        widths = {weight.shape[1] for weight, _ in made.values()} | set(inner) | set(sole)
        if len(widths) > 1:
            raise ConversionError(f"the transforms see conditions of several widths: {sorted(widths)}")
        activations = {facts[prefix]["activation"] for prefix in made}
        if len(activations) > 1:
            raise ConversionError("masked networks with a condition and several activations are not taken over")
        plain = bool(inner or sole)
        activation = next(iter(activations), "relu")
        if made and plain and activation != "relu":
            raise ConversionError(f"masked residual networks with a condition and {activation} are not taken over, only "
                                  f"those with relu")  # fmt: skip
        return cls(next(iter(widths), 0), activation, made, plain)

    @property
    def _ends(self) -> NDArray[np.int64]:
        """Where the columns of each masked network end in the embedding."""
        return np.cumsum([0, *(len(bias) for _, bias in self.made.values())])

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of a flow that embeds its conditions."""
        if not self.made:
            return {}
        n = int(self._ends[-1])
        dims = (n + 2 * self.n, n + self.n) if self.plain else (n, n)
        return {"condition_dim": self.n, "embedding_dims": dims, "embedding_activation": self.activation}

    def of_transform(self, prefix: str) -> Seen:
        """What one of the transforms sees."""
        if not self.made:
            return Seen(self.n)
        end = int(self._ends[-1])
        k = list(self.made).index(prefix) if prefix in self.made else 0
        return Seen(end + (self.n if self.plain else 0), int(self._ends[k]), end)

    def fill(self, flow: NormalizingFlow) -> None:
        """Write the embedding; with relu it passes conditions on, as relu(c) - relu(-c) = c."""
        embedding = flow.conditioning.embedding
        if embedding is None:
            return
        views, end, eye = embedding.parameters.views(), int(self._ends[-1]), np.eye(self.n)
        for view in views.values():
            view[...] = 0
        views["weight_0"][:end] = np.concatenate([weight for weight, _ in self.made.values()])
        views["bias_0"][:end] = np.concatenate([bias for _, bias in self.made.values()])
        views["weight_1"][:end, :end] = np.eye(end)
        if self.plain:
            views["weight_0"][end:] = np.concatenate([eye, -eye])
            views["weight_1"][end:, end:] = np.concatenate([eye, -eye], axis=1)


def _transforms(arrays: Arrays, prefix: str) -> list[str]:
    """The prefixes of all transforms in their order, those in composites one by one."""
    inner = prefix + "_transforms."
    numbers = numbers_below(arrays, inner)
    if not numbers:
        return [prefix]
    if numbers != list(range(len(numbers))):
        gap = next(k for k, number in enumerate(numbers) if k != number)
        raise ConversionError(f"transform {gap} of {prefix.rstrip('.')} has no numbers, so that a state dict does not tell "
                              f"what it is")  # fmt: skip
    return [p for number in numbers for p in _transforms(arrays, f"{inner}{number}.")]


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


def _features(arrays: Arrays) -> int:
    """The number of features, as the first transform that tells it does."""
    for name, array in arrays.items():
        end = name.rsplit(".", 1)[-1]
        if end in ("_permutation", "running_mean", "log_scale", "unconstrained_upper_diag", "unconstrained_diagonal"):
            return len(array)
        if end in ("q_vectors", "_weight") or name.endswith("autoregressive_net.initial_layer.weight"):
            return array.shape[1]
        if end == "identity_features":
            return len(array) + len(arrays[name.replace("identity_features", "transform_features")])
    raise ConversionError("no transform of the flow tells the number of features")


def layers_of(part: Arrays, where: str, facts: dict[str, Any], dtype: str, n: int, seen: Seen) -> list[Layer]:
    """One transform as layers."""
    kept = below(part, KEPT)
    layers = _layers({name: a for name, a in part.items() if not name.startswith(KEPT)}, where, facts, dtype, n, seen)
    if kept:
        layers.append(splines_of_kept(kept, part["identity_features"].astype(int), where, facts, dtype, n))
    return layers


def _layers(part: Arrays, where: str, facts: dict[str, Any], dtype: str, n: int, seen: Seen) -> list[Layer]:
    if facts.get("kind") == "IdentityTransform":
        return []
    if "_permutation" in part:
        return [permutation(part["_permutation"], dtype)]
    if "running_mean" in part:
        eps = facts.get("eps", EPS_BATCH_NORM)
        weight = np.logaddexp(0, part["unconstrained_weight"].astype(float)) + eps
        slope = weight / np.sqrt(part["running_var"].astype(float) + eps)
        return diagonal(slope, part["bias"] - slope * part["running_mean"], n, dtype)
    if {"log_scale", "initialized"} <= set(part):
        return diagonal(np.exp(part["log_scale"].astype(float)), part["shift"], n, dtype)
    if {"_scale", "_shift"} <= set(part):
        scale, shift = part["_scale"].astype(float), part["_shift"].astype(float)
        if facts.get("first") and (scale > 0).all():
            return [standardize(-shift / scale, 1 / scale, n, dtype)]
        return diagonal(scale, shift, n, dtype)
    if "unconstrained_upper_diag" in part:
        return [_lu(part, facts.get("eps", EPS_LU), n, dtype)]
    if "_weight" in part:
        return matrix(part["_weight"], part.get("bias", 0.0), n, dtype)
    if any(name.endswith("q_vectors") for name in part):
        return [_reflections(part, facts.get("eps", EPS_LU), n, dtype)]
    if any(name.startswith("autoregressive_net.") for name in part):
        return [_autoregressive(part, where, facts, n, dtype, seen)]
    if "transform_features" in part:
        return [_coupling(part, where, facts, n, dtype, seen)]
    raise ConversionError(f"{where} with {', '.join(sorted(part)) or 'no numbers'} is no transform that is taken over")


def _lu(part: Arrays, eps: float, n: int, dtype: str) -> Layer:
    layer = LULinear(n, "natural", dtype=dtype)
    triangles = np.diag(np.log(np.logaddexp(0, part["unconstrained_upper_diag"].astype(float)) + eps))
    triangles[np.tril_indices(n, -1)] = part["lower_entries"]
    triangles[np.triu_indices(n, 1)] = part["upper_entries"]
    views = layer.parameters.views()
    views["matrix"][...], views["shift"][:] = triangles, part["bias"]
    return layer


def _reflections(part: Arrays, eps: float, n: int, dtype: str) -> Layer:
    """Householder reflections alone, or with a triangle or a diagonal."""
    k = next(len(a) for name, a in part.items() if name.endswith("q_vectors"))
    if "unconstrained_diagonal" in part:
        layer: Layer = SVDLinear(n, k, dtype=dtype)
        given = {
            "left": part["orthogonal_1.q_vectors"],
            "logs": np.log(np.logaddexp(0, part["unconstrained_diagonal"].astype(float)) + eps),
            "right": part["orthogonal_2.q_vectors"],
            "shift": part["bias"],
        }
    elif "log_upper_diag" in part:
        layer, upper = QRLinear(n, k, dtype=dtype), np.diag(part["log_upper_diag"])
        upper[np.triu_indices(n, 1)] = part["upper_entries"]
        given = {"upper": upper, "vectors": part["orthogonal.q_vectors"], "shift": part["bias"]}
    else:
        layer, given = Householder(n, k, dtype=dtype), {"vectors": part["q_vectors"]}
    for name, view in layer.parameters.views().items():
        view[...] = given[name]
    return layer


def _scalar_map(outputs: int, facts: dict[str, Any], where: str, scale: str | float) -> dict[str, Any]:
    """The arguments of a layer's scalar map, of so many raw parameters for each value."""
    if outputs > 2 or "Piecewise" in facts.get("kind", ""):
        return spline_of(outputs, facts, where)
    if outputs == 1:  # additive
        return {"scale_activation": "none"}
    kind = facts.setdefault("scale", scale)
    if isinstance(kind, float):
        return {"scale_activation": "tanh_gain"}
    activation, most = SCALES[kind]
    return {"scale_activation": activation, "min_scale": MIN_SCALE, "max_scale": most}


def _finished(layer: Layer, facts: dict[str, Any]) -> Layer:
    """A layer whose gains, if it has some, are the factor of its log-scales."""
    gains = layer.parameters.views().get("gain")
    if gains is not None:
        gains[:] = facts["scale"]
    return layer


def _outputs(network: Dense, rows: NDArray, outputs: int, facts: dict[str, Any], scalar_map: dict, root: float) -> Dense:
    """The network whose outputs, (values, outputs) of them in `rows`, are those that npflows' scalar map expects."""
    if "num_bins" in scalar_map:
        divided = np.ones(outputs)
        divided[: scalar_map["num_bins"] * DIVIDED[scalar_map["spline"]]] = 1 / root
        factor, offset = np.tile(divided, len(rows)), np.tile(added_to(scalar_map, outputs), len(rows))
        return network.with_outputs(rows.ravel(), factor, -offset)
    if outputs == 1:  # a scale that is always 1
        return network.with_outputs(np.repeat(rows.ravel(), 2), np.tile([1.0, 0.0], rows.size))
    half = isinstance(facts.get("scale"), float)  # log-scales N tanh(r / 2), where they have a factor N
    return network.with_outputs(rows.ravel(), np.tile([1.0, 0.5 if half else 1.0], len(rows)))


def _blocks(part: Arrays, net: str) -> int:
    """How many blocks a network has."""
    return len({m[1] for name in part if (m := re.match(rf"{re.escape(net)}blocks\.(\d+)\.", name))})


def _autoregressive(part: Arrays, where: str, facts: dict[str, Any], n: int, dtype: str, seen: Seen) -> Layer:
    net = "autoregressive_net."
    residual, n_blocks = f"{net}blocks.0.linear_layers.0.weight" in part, _blocks(part, net)
    inner = ([f"{net}blocks.{b}.linear_layers.{k}" for b in range(n_blocks) for k in range(2)] if residual
             else [f"{net}blocks.{b}.linear" for b in range(n_blocks)])  # fmt: skip
    names = [f"{net}initial_layer", *inner, f"{net}final_layer"]
    if not n_blocks:
        raise ConversionError(f"{where}: a masked network without blocks is not taken over")
    outputs = len(part[f"{net}final_layer.bias"]) // n
    _check_output_mask(part, names, n, outputs)
    network, order = masked_dense(
        [linear(part, name) for name in names], [part[f"{name}.mask"] for name in names], n,
        np.repeat(np.arange(n), outputs), facts["activation"], "blocks" if residual else None,
    )  # fmt: skip
    if f"{net}context_layer.weight" in part:
        own = np.eye(len(part[f"{net}context_layer.bias"]))
        conditions = {0: seen.weights(seen.own, own)}
        for b in range(n_blocks if residual else 0):
            weight, bias = linear(part, f"{net}blocks.{b}.context_layer")
            conditions[1 + 2 * b] = seen.weights(seen.plain, weight)
            network.layers[1 + 2 * b] = network.layers[1 + 2 * b][0], network.layers[1 + 2 * b][1] + bias
        network = replace(network, conditions=conditions)
    # side by side for each feature: scale and shift, or the spline's; npflows has the shift first, features in order
    rows = np.arange(n * outputs).reshape(n, outputs)[order]
    scalar_map = _scalar_map(outputs, facts, where, "softplus")
    if outputs == 2 and "num_bins" not in scalar_map:
        rows, scalar_map["shift_first"] = rows[:, ::-1], False
    root = math.sqrt(len(part[f"{net}initial_layer.bias"])) if facts.get("divided", False) else 1.0
    network = _outputs(network, rows, outputs, facts, scalar_map, root)
    return _finished(autoregressive(network, order, scalar_map, dtype, inverted=facts.get("inverted", False)), facts)


def _check_output_mask(part: Arrays, names: Iterable[str], n: int, outputs: int) -> None:
    """Refuse masks in which the outputs of a feature do not lie side by side."""
    *_, last = names
    mask = (part[f"{last}.mask"] != 0).reshape(n, outputs, -1)
    if (mask != mask[:, :1]).any():
        raise ConversionError(f"the mask of {last} is not that of outputs side by side for each feature")


def _coupling(part: Arrays, where: str, facts: dict[str, Any], n: int, dtype: str, seen: Seen) -> Layer:
    net, moved = "transform_net.", part["transform_features"].astype(int)
    mask = np.ones(n, int)
    mask[moved] = 0
    n_kept, n_blocks, residual = int(mask.sum()), _blocks(part, net), False
    if f"{net}initial_layer.weight" in part:
        names = [f"{net}initial_layer", *(f"{net}blocks.{b}.linear_layers.{k}" for b in range(n_blocks) for k in range(2)),
                 f"{net}final_layer"]  # fmt: skip
        residual, divided = True, True
        if not n_blocks:
            raise ConversionError(f"{where}: a residual network without blocks is not taken over")
    elif f"{net}_input_layer.weight" in part:
        n_hidden = len({name.split(".")[2] for name in part if name.startswith(f"{net}_hidden_layers.")})
        names = [f"{net}_input_layer", *(f"{net}_hidden_layers.{k}" for k in range(n_hidden)), f"{net}_output_layer"]
        divided = False
    elif f"{net}spline_predictor.0.weight" in part:
        names = [name.removesuffix(".weight") for name in part if name.startswith(f"{net}spline_predictor")
                 and name.endswith(".weight")]  # fmt: skip
        divided = True
    else:
        raise ConversionError(f"{where}: the coupling's network is neither ResidualNet nor MLP of nflows")
    layers, conditions = split_condition([linear(part, name) for name in names], n_kept)
    conditions = {number: seen.weights(seen.plain, weight) for number, weight in conditions.items()}
    gates = {2 + 2 * b: linear(part, f"{net}blocks.{b}.context_layer") for b in range(n_blocks)
             if f"{net}blocks.{b}.context_layer.weight" in part}  # fmt: skip
    gates = {number: (seen.weights(seen.plain, weight), bias) for number, (weight, bias) in gates.items()}
    network = Dense(layers, facts["activation"], "blocks" if residual else None, conditions, gates)
    outputs = len(layers[-1][1]) // len(moved)
    rows = np.arange(outputs * len(moved)).reshape(-1, outputs)
    scalar_map = _scalar_map(outputs, facts, where, facts.get("coupling_scale", "sigmoid"))
    if outputs == 2 and "num_bins" not in scalar_map:  # all shifts, then all scales; npflows has them side by side
        rows = np.arange(2 * len(moved)).reshape(2, -1).T
    root = math.sqrt(len(layers[0][1])) if facts.get("divided", divided) else 1.0
    network = _outputs(network, rows, outputs, facts, scalar_map, root)
    if not n_kept:  # a network of the condition alone
        first = np.zeros((len(layers[0][1]), n)), layers[0][1]
        degrees = [np.zeros(width, np.int64) for width in network.hidden]
        network = replace(network, layers=[first, *network.layers[1:]], degrees=degrees)
        return _finished(autoregressive(network, np.arange(n), scalar_map, dtype), facts)
    return _finished(coupling(network, mask, scalar_map, dtype), facts)
