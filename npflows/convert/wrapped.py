"""Flows of libraries that are built on nflows and zuko: sbi, glasflow and pocoMC."""

from __future__ import annotations

from typing import Any

from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.nflows import flow_of
from npflows.convert.nflows_conditions import standardize_condition
from npflows.convert.nflows_objects import facts_of
from npflows.convert.state_dict import arrays_of, is_live, refuse_files, refuse_others
from npflows.convert.tensors import Tensors
from npflows.convert.zuko import from_zuko
from npflows.flow import NormalizingFlow


def from_sbi(
    flow: Any,
    *,
    univariate: str | None = None,
    activation: str | None = None,
    tail_bound: float | None = None,
    dtype: str | None = None,
) -> NormalizingFlow:
    """A density estimator of sbi 0.27 as a conditional flow of npflows that gives its numbers.

    What its builders maf, maf_rqs, nsf, zuko_maf, zuko_nsf, zuko_ncsf and zuko_nice make comes in, with z-scores of both
    sides; embedding networks of one's own and the other builders are refused.

    Parameters
    ----------
    flow : estimator or posterior of sbi, mapping of str to array, or path-like
        The object, its state dict, or a file that `torch.save(estimator.state_dict(), path)` wrote, which is read without
        PyTorch.
    univariate : str, optional
        As in `from_zuko`, where a state dict of a flow of zuko is given.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}, optional
        Of the networks, where a state dict is given: by default tanh for maf and maf_rqs, and relu for the others.
    tail_bound : float, optional
        Of splines, where a state dict is given; sbi's default is 3, and 5 with zuko.
    dtype : {"float32", "float64"}, optional
        The source's by default.

    Returns
    -------
    NormalizingFlow
        The density of what sbi calls x (the input of the estimator), given the condition.

    Raises
    ------
    ConversionError
        If the flow can't be represented, or a state dict does not tell what is needed.
    """
    checked(univariate=univariate, tail_bound=tail_bound, dtype=dtype)
    if activation is not None:
        checked(activation=activation)
    estimator = getattr(flow, "posterior_estimator", flow)
    if is_live(estimator) and type(estimator).__module__.split(".")[0] != "sbi":
        raise ConversionError(f"{type(estimator).__module__}.{type(estimator).__name__} is no estimator of sbi")
    if is_live(estimator) and len(getattr(estimator, "condition_shape", (1,))) != 1:
        raise ConversionError(f"conditions of shape {tuple(estimator.condition_shape)} are not taken over, only vectors")
    arrays, standardization = _scored(arrays_of(estimator))
    net = estimator.net if is_live(estimator) else None
    if any(name.startswith("_transform.") for name in arrays):
        masked = any("autoregressive_net." in name for name in arrays)
        usual = "tanh" if masked else "relu"
        given = {"activation": usual if activation is None else activation, "tail_bound": tail_bound}
        taken = flow_of(arrays, {} if net is None else facts_of(net, "nflows"), given, dtype)
    else:
        kind = "relu" if activation is None else activation
        taken = from_zuko(arrays if net is None else net, univariate=univariate, activation=kind, bound=tail_bound,
                          dtype=dtype)  # fmt: skip
    if standardization:
        standardize_condition(taken, standardization)
    return taken


def _scored(arrays: Tensors) -> tuple[Tensors, Tensors]:
    """The tensors of the flow itself, and those of location and scale of its conditions."""
    of_flow = {name.removeprefix("net."): a for name, a in arrays.items()}
    own = {name: of_flow.pop(name) for name in list(of_flow) if name.startswith("_embedding_net.")}
    found = {name.rsplit(".", 1)[-1]: a for name, a in own.items()}
    if own and (set(found) != {"_mean", "_std"} or len(own) != 2):
        raise ConversionError(f"an embedding network ({', '.join(own)}) is not taken over: embed conditions before")
    return Tensors(of_flow), Tensors(found, "_embedding_net.")


def from_glasflow(
    flow: Any,
    *,
    scale: str | float = "wide",
    activation: str = "relu",
    tail_bound: float | None = None,
    dtype: str | None = None,
) -> NormalizingFlow:
    """A flow of glasflow 0.4 as a flow of npflows that gives its numbers, exactly.

    RealNVP, CouplingNSF and MaskedAffineAutoregressiveFlow come in, with conditions and every linear transform.  Batch
    normalization within blocks, uniform latent spaces and other splines are refused.

    Parameters
    ----------
    flow : glasflow.flows.Flow, mapping of str to array, or path-like
        As in `from_nflows`.  glasflow's names are those of nflows, and its default scale is another one.
    scale : {"wide", "sigmoid", "softplus"} or float
        Of affine couplings, where a state dict is given: "wide", which glasflow also calls "nflows_general", "sigmoid",
        which it calls "nflows", or the N of its "logN".
    activation, tail_bound, dtype
        As in `from_nflows`.

    Returns
    -------
    NormalizingFlow

    Raises
    ------
    ConversionError
        If the flow can't be represented, or a state dict does not tell what is needed.
    """
    given = checked(activation=activation, tail_bound=tail_bound, scale=scale)
    given["coupling_scale"] = given.pop("scale")
    dtype = checked(dtype=dtype)["dtype"]
    refuse_others(flow, "flow of glasflow", "_transform", "_distribution", "state_dict")
    return flow_of(arrays_of(flow), facts_of(flow, "glasflow") if is_live(flow) else {}, given, dtype)


def from_pocomc(flow: Any, *, dtype: str | None = None) -> NormalizingFlow:
    """The flow of pocoMC 1.2, which is one of zuko, as a flow of npflows that gives its numbers, exactly.

    Parameters
    ----------
    flow : pocomc.Flow or pocomc.Sampler
        The object; a sampler's flow is the density of its scaled parameters, as pocoMC transforms them.  For a state dict
        of `flow.flow` see `from_zuko`.
    dtype : {"float32", "float64"}, optional
        The source's by default.

    Returns
    -------
    NormalizingFlow

    Raises
    ------
    ConversionError
        If the flow can't be represented.
    """
    refuse_files(flow, "from_pocomc", "or the state dict of its flow.flow to from_zuko")
    own = getattr(flow, "flow", None)
    inner = getattr(own, "flow", own)
    if type(flow).__module__.split(".")[0] != "pocomc" or inner is None:
        raise ConversionError(f"{type(flow).__module__}.{type(flow).__name__} is no flow and no sampler of pocoMC")
    return from_zuko(inner, dtype=dtype)
