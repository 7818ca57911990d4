"""What objects of other libraries are refused for; the classes of this file stand for theirs."""

import re
import types

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.convert.nflows_objects import activation_of_network, kind_of


@pytest.mark.parametrize("library", ["nflows", "zuko", "normflows", "flowjax", "pzflow", "glasflow"])
@pytest.mark.parametrize("other", [None, 5, types.SimpleNamespace(state_dict=dict), npflows.Permutation(2)])
def test_an_object_that_is_no_flow_of_the_library_is_named(library, other):
    kind = f"{type(other).__module__}.{type(other).__name__}"
    with pytest.raises(convert.ConversionError, match=f"^{re.escape(kind)} is no flow of {library}$"):
        getattr(convert, f"from_{library}")(other)


def an_object(name, module, **attributes):
    """An object of a class of a name in a module."""
    return type(name, (), {"__module__": module, **attributes})()


NORMAL = an_object("StandardNormal", "nflows.distributions.normal")


def a_flow(transform, base=NORMAL):
    return types.SimpleNamespace(_transform=transform, _distribution=base, state_dict=dict)


class LeakyReLU:
    negative_slope = 0.2


class ELU:
    alpha = 0.5


@pytest.mark.parametrize(("flow", "message"), [
    (a_flow(an_object("Tanh", "nflows.transforms.nonlinearities")), r"nflows\..*\.Tanh \(_transform\) is"),
    (a_flow(an_object("LULinear", "glasflow.nflows.transforms.lu")), r"glasflow\.nflows\.transforms\.lu\.LULinear"),
    (a_flow(None, an_object("DiagonalNormal", "nflows.distributions.normal")), "DiagonalNormal"),
])  # fmt: skip
def test_parts_of_other_kinds(flow, message):
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_nflows(flow)


def test_networks_and_tails():
    net = an_object("MLP", "nflows.nn.nets.mlp", _activate_output=True)
    transform = an_object("AffineCouplingTransform", "nflows.transforms.coupling", transform_net=net)
    with pytest.raises(convert.ConversionError, match="activates its output"):
        convert.from_nflows(a_flow(transform))
    own = an_object("AffineCouplingTransform", "nflows.transforms.coupling", transform_net=an_object("Net", "mine"))
    with pytest.raises(convert.ConversionError, match=r"mine\.Net \(_transform\) is not taken over"):
        convert.from_nflows(a_flow(own))
    spline = an_object("PiecewiseRationalQuadraticCouplingTransform", "nflows.transforms.coupling", tails=None)
    with pytest.raises(convert.ConversionError, match="splines with tails=None"):
        convert.from_nflows(a_flow(spline))


@pytest.mark.parametrize("given", [LeakyReLU(), ELU(), lambda u: u, np.sin, None])
def test_activations_that_npflows_does_not_have(given):
    with pytest.raises(convert.ConversionError, match=r"the activation .* \(here\) is not one of npflows"):
        activation_of_network(types.SimpleNamespace(activation=given), "here")


def test_activations():
    assert activation_of_network(types.SimpleNamespace(_activation=np.tanh), "here") == "tanh"
    assert (
        activation_of_network(types.SimpleNamespace(blocks=[types.SimpleNamespace(activation=np.tanh)]), "here") == "tanh"
    )
    assert kind_of(NORMAL, "nflows", {"StandardNormal"}, "here") == "StandardNormal"
