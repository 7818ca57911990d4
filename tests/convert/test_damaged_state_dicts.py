"""State dicts that lack a tensor, or have one of another shape, are refused by the tensor's name."""

import numpy as np
import pytest
from convert import damage, test_nflows, test_pyro, test_zuko

from npflows import convert


@pytest.mark.parametrize("case", ["nflows spline_coupling_context", "zuko maf_passes_context", "normflows context",
                                  "pyro linear", "wrapped sbi_nsf"])  # fmt: skip
def test_no_damage_is_taken_over(case):  # every_number.py has all of every fixture
    assert damage.taken_wrongly(case, most=8) == []


def zuko(name):
    return convert.read_state_dict(test_zuko.FILES / f"{name}.pt")


def nflows(name):
    return convert.read_state_dict(test_nflows.FILES / f"{name}.pt")


def without(arrays, name):
    assert name in arrays
    return {key: a for key, a in arrays.items() if key != name}


def cut(arrays, name):
    return arrays | {name: arrays[name][:-1]}


LAST = "_transform._transforms.1.transform_net.final_layer.bias"
CONTEXT = "_transform._transforms.1.autoregressive_net.context_layer"
INITIAL = "_transform._transforms.1.autoregressive_net.initial_layer.weight"
CASES = {
    "a bias of the first layer": (
        lambda: convert.from_zuko(cut(zuko("nice"), "transform.transforms.0.hyper.0.bias"), univariate="affine"),
        r"transform\.transforms\.0\.hyper\.0\.bias has shape \(\d+,\), where \(\d+,\) is expected",
    ),
    "a bias of the last layer": (
        lambda: convert.from_nflows(cut(nflows("affine_coupling"), LAST)),
        r"_transforms\.1\.transform_net\.final_layer\.bias has shape \(\d+,\), where",
    ),
    "the weights of a condition": (
        lambda: convert.from_nflows(without(nflows("maf_context"), f"{CONTEXT}.weight"), activation="tanh"),
        r"has no .*_transforms\.1\.autoregressive_net\.context_layer\.weight, which such a flow needs",
    ),
    "the shift of a matrix": (
        lambda: convert.from_nflows(without(nflows("matrices"), "_transform._transforms.4.bias")),
        r"has no _transform\._transforms\.4\.bias",
    ),
    "a weight": (
        lambda: convert.from_nflows(without(nflows("maf_batch_norm"), INITIAL)),
        r"has no .*_transforms\.1\.autoregressive_net\.initial_layer\.weight",
    ),
    "a mask": (
        lambda: convert.from_zuko(without(zuko("maf"), "transform.transforms.1.hyper.2.mask"), univariate="affine"),
        r"has no transform\.transforms\.1\.hyper\.2\.mask",
    ),
    "what has no place": (
        lambda: convert.from_zuko(zuko("maf") | {"transform.transforms.1.gain": np.ones(3)}, univariate="affine"),
        r"transform\.transforms\.1\.gain has no place in such a flow",
    ),
    "text": (
        lambda: convert.from_zuko(zuko("maf") | {"base.loc": np.array(["a", "b", "c"])}, univariate="affine"),
        r"base\.loc must hold real numbers",
    ),
    "splines of another order": (
        lambda: convert.from_pyro(test_pyro.FILES / "spline.pt", transforms=[{"kind": "Spline"}] * 3),
        r"has no 2\.unnormalized_lambdas",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_the_tensor_is_named(what):
    make, message = CASES[what]
    with pytest.raises(convert.ConversionError, match=message):
        make()
