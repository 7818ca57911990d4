"""Neural spline flows of normflows 1.7.3, from objects and from state dicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from npflows.base import Normal
from npflows.convert.nflows import activation_of, check_networks, dtype_of, kind_of, layers_of
from npflows.convert.state_dict import Arrays, ConversionError, arrays_of, is_live
from npflows.flow import NormalizingFlow
from npflows.layers.layer import Layer

INNER = {
    "CoupledRationalQuadraticSpline": "prqct",
    "AutoregressiveRationalQuadraticSpline": "mprqat",
    "LULinearPermute": "",
}


def from_normflows(
    flow: Any, *, activation: str = "relu", tail_bound: float | None = None, dtype: str | None = None
) -> NormalizingFlow:  # fmt: skip
    """A neural spline flow of normflows as a flow of npflows that gives its numbers, exactly.

    Of normflows' flows `CoupledRationalQuadraticSpline`, `AutoregressiveRationalQuadraticSpline` and `LULinearPermute` come
    in, on a `DiagGaussian`; all others are refused by name, and so are conditions and circular coordinates.

    Parameters
    ----------
    flow : normflows.NormalizingFlow, mapping of str to array, or path-like
        The object, its state dict, or a file that `torch.save(flow.state_dict(), path)` wrote, which is read without
        PyTorch.  Linear tails are assumed where a state dict is given.
    activation, tail_bound, dtype
        As in `from_nflows`.

    Returns
    -------
    NormalizingFlow
        Its base is learnable.

    Raises
    ------
    ConversionError
        If the flow can't be represented, or a state dict does not tell what is needed.
    """
    live: dict[int, dict[str, Any]] = _facts(flow) if is_live(flow) else {}
    arrays = arrays_of(flow)
    check_networks(arrays)
    dtype = dtype_of(arrays) if dtype is None else dtype
    base = {name.removeprefix("q0."): a for name, a in arrays.items() if name.startswith("q0.")}
    if set(base) != {"loc", "log_scale"} or base["loc"].ndim != 2:
        raise ConversionError(
            f"the base distribution with {', '.join(sorted(base)) or 'no numbers'} is no DiagGaussian of a row"
        )
    n = base["loc"].size
    layers: list[Layer] = []
    for number in reversed(_numbers(arrays)):  # normflows lists its flows from latent to data
        prefix = f"flows.{number}."
        part = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
        facts = {"activation": activation, "tail_bound": tail_bound, **live.get(number, {})}
        for inner in _parts(part, prefix):
            one = {name.removeprefix(inner): a for name, a in part.items() if name.startswith(inner)}
            layers += layers_of(one, f"{prefix}{inner}".rstrip("."), facts, dtype, n)
    loc, scale = base["loc"].ravel().astype(float), np.exp(base["log_scale"].ravel().astype(float))
    taken = NormalizingFlow(layers, Normal(n, loc, scale, learnable=True, dtype=dtype), dtype=dtype)
    taken.preprocessing.mark_standardized()  # a later fit goes on from these units
    return taken


def _numbers(arrays: Arrays) -> list[int]:
    numbers = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("flows.")})
    others = [name for name in arrays if not name.startswith(("flows.", "q0."))]
    if others or not numbers or numbers != list(range(len(numbers))):
        what = others[0] if others else "a flow without numbers"
        raise ConversionError(f"{what} is no part of a NormalizingFlow of normflows that is taken over")
    return numbers


def _parts(part: Arrays, prefix: str) -> list[str]:
    """The transforms inside a flow, from data to latent."""
    if any(name.startswith("linear.") for name in part):
        return ["permutation.", "linear."]
    for inner in ("prqct.", "mprqat."):
        if any(name.startswith(inner) for name in part):
            return [inner]
    raise ConversionError(f"{prefix.rstrip('.')} with {', '.join(sorted(part))} is no flow of normflows that is taken over")


def _facts(flow: Any) -> dict[int, dict[str, Any]]:
    """What an object tells of its flows beside their numbers, after a check of their kinds."""
    kind_of(flow.q0, "normflows", {"DiagGaussian"}, "q0")
    found = {}
    for number, step in enumerate(flow.flows):
        where = f"flows.{number}"
        kind = kind_of(step, "normflows", INNER, where)
        if not INNER[kind]:
            found[number] = {"eps": step.linear.eps}
            continue
        transform = getattr(step, INNER[kind])
        if transform.tails != "linear":
            raise ConversionError(f"splines with tails={transform.tails!r} ({where}) are not taken over")
        network = getattr(transform, "autoregressive_net", None) or transform.transform_net
        found[number] = {
            "activation": activation_of(network, where),
            "divided": hasattr(network, "hidden_features"),
            **{key: getattr(transform, key) for key in ("tail_bound", "min_bin_width", "min_bin_height", "min_derivative")},
        }
    return found
