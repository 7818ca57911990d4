"""Flows of nflows give the numbers that nflows printed; see tests/fixtures/make_nflows.py."""

import types
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.cli import main

FILES = Path(__file__).parents[1] / "fixtures" / "nflows"
PRINTED = np.load(FILES / "printed.npz")
OPTIONS = {
    "maf_batch_norm": {},
    "maf_feedforward": {"activation": "tanh"},
    "maf_random_masks": {},
    "maf_one_feature": {},
    "affine_coupling": {},
    "spline_coupling": {"tail_bound": 3.0},
    "spline_coupling_mlp": {"tail_bound": 2.0, "activation": "tanh"},
    "linear_coupling": {"tail_bound": 3.0, "spline": "linear"},
    "quadratic_coupling": {"tail_bound": 3.0, "spline": "quadratic"},
    "quadratic_autoregressive": {"tail_bound": 2.5, "spline": "quadratic"},
    "cubic_coupling": {"tail_bound": 3.0, "spline": "cubic"},
    "spline_autoregressive": {"tail_bound": 2.5},
    "matrices": {},
    "additive_coupling": {"activation": "tanh"},
    "maf_context": {"activation": "tanh"},
    "maf_residual_context": {},
    "coupling_context": {"activation": "tanh"},
    "spline_coupling_context": {"tail_bound": 2.0, "activation": "elu"},
    "spline_autoregressive_context": {"tail_bound": 2.0, "activation": "tanh"},
}


def taken_over(name, **options):
    return convert.from_nflows(FILES / f"{name}.pt", **{**OPTIONS[name], **options})


def printed(name):
    found = {key: PRINTED.get(f"{name}.{key}") for key in ("x", "z", "log_det", "log_prob", "condition")}
    return {key: value for key, value in found.items() if value is not None}


def check_numbers(name):
    """Compare a flow from its file with what was printed."""
    flow, wanted = taken_over(name), printed(name)
    assert flow.dtype == "float64"
    c = wanted.get("condition")
    z, log_det = flow.forward(wanted["x"], c)
    np.testing.assert_allclose(z, wanted["z"], atol=1e-11)
    np.testing.assert_allclose(log_det, wanted["log_det"], atol=1e-11)
    np.testing.assert_allclose(flow.log_prob(wanted["x"], c), wanted["log_prob"], atol=1e-11)
    np.testing.assert_allclose(flow.inverse(wanted["z"], c)[0], wanted["x"], atol=1e-9)
    narrow = taken_over(name, dtype="float32")
    np.testing.assert_allclose(narrow.log_prob(wanted["x"], c), wanted["log_prob"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["maf_batch_norm", "spline_coupling", "maf_residual_context", "matrices"]
)  # every_number.py has all
def test_numbers(name):
    check_numbers(name)


@pytest.mark.parametrize("name", ["maf_batch_norm", "spline_coupling"])
def test_is_a_flow_like_any_other(name, tmp_path):
    flow, x = taken_over(name, dtype="float32"), printed(name)["x"]
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x), flow.log_prob(x))
    rows = flow.sample(300, 1)
    before = flow.log_prob(rows).mean()
    flow.fit(rows, max_epochs=2, learning_rate=1e-4, rng=1, progress=False)
    assert abs(flow.log_prob(rows).mean() - before) < 0.3


def test_matrices_keep_their_factors():
    kinds = [type(layer) for layer in taken_over("matrices").flow_layers]
    for kind in (npflows.LULinear, npflows.SVDLinear, npflows.QRLinear, npflows.Householder):
        assert kind in kinds
    assert npflows.InvertibleConv1x1 not in kinds


def test_a_mapping_of_arrays():
    arrays = convert.read_state_dict(FILES / "maf_batch_norm.pt")
    assert arrays["_transform._transforms.0._permutation"].tolist() == [2, 1, 0]
    x = printed("maf_batch_norm")["x"]
    np.testing.assert_array_equal(convert.from_nflows(arrays).log_prob(x), taken_over("maf_batch_norm").log_prob(x))


def with_names(**more):
    arrays = convert.read_state_dict(FILES / "maf_batch_norm.pt")
    return arrays | {name.replace("__", "."): value for name, value in more.items()}


def without(name):
    arrays = convert.read_state_dict(FILES / "maf_batch_norm.pt")
    return {key: value for key, value in arrays.items() if not key.startswith(name)}


NUMBER = np.zeros(1)
REFUSED = {
    "an embedding": (lambda: with_names(_embedding_net__weight=NUMBER), "the embedding network"),
    "a base": (lambda: with_names(_distribution__mean_=NUMBER), "no StandardNormal, as it has"),
    "no flow": (lambda: with_names(encoder__weight=NUMBER), "no part of a flow of nflows"),
    "conditions of two widths": (
        lambda: {
            name: a[:, :1] if name == "_transform._transforms.2.autoregressive_net.context_layer.weight" else a
            for name, a in convert.read_state_dict(FILES / "maf_context.pt").items()
        },
        "conditions of several widths",
    ),
    "batch norm inside": (
        lambda: with_names(_transform___transforms__1__autoregressive_net__blocks__0__batch_norm_layers__0__weight=NUMBER),
        "batch normalization within networks",
    ),
    "a gap": (lambda: without("_transform._transforms.2."), "transform 2 of _transform has no numbers"),
    "something else": (
        lambda: with_names(_transform___transforms__6__theta=NUMBER),
        "_transform._transforms.6 with theta is no transform that is taken over",
    ),
    "no tail bound": (lambda: FILES / "spline_coupling.pt", "pass tail_bound="),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    make, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message.replace(".", r"\.")):
        convert.from_nflows(make())


def test_masked_residual_networks_of_other_activations_are_refused_with_a_condition():
    with pytest.raises(convert.ConversionError, match="masked residual networks with a condition and tanh are not"):
        convert.from_nflows(FILES / "maf_residual_context.pt", activation="tanh")


def test_a_mask_of_another_kind_is_refused():
    arrays = convert.read_state_dict(FILES / "maf_batch_norm.pt")
    name = "_transform._transforms.1.autoregressive_net.final_layer.mask"
    with pytest.raises(convert.ConversionError, match="is not that of outputs side by side for each feature"):
        convert.from_nflows({**arrays, name: np.roll(arrays[name], 1, axis=0)})
    with pytest.raises(convert.ConversionError, match="let features depend on each other in a circle"):
        convert.from_nflows({**arrays, name: np.ones_like(arrays[name])})


def test_transforms_without_numbers_of_an_object_are_not_lost():
    module = {"__module__": "nflows.transforms"}
    identity = type("IdentityTransform", (), module)()
    scaling = type("PointwiseAffineTransform", (), module)()
    composite = type("CompositeTransform", (), {**module, "_transforms": [identity, scaling, identity]})()
    state = {"_transform._transforms.1._scale": np.array([2.0, 1.0]), "_transform._transforms.1._shift": np.zeros(2)}
    base = type("StandardNormal", (), {"__module__": "nflows.distributions"})()
    flow = types.SimpleNamespace(_transform=composite, _distribution=base, state_dict=lambda: state)
    assert convert.from_nflows(flow).input_dim == 2
    composite._transforms.append(type("Tanh", (), module)())
    with pytest.raises(convert.ConversionError, match="Tanh"):
        convert.from_nflows(flow)


def test_command(tmp_path, capsys):
    architecture, target = tmp_path / "a.json", tmp_path / "flow.npz"
    architecture.write_text('{"tail_bound": 3.0}')
    source = str(FILES / "spline_coupling.pt")
    assert main(["convert", "nflows", source, "--architecture", str(architecture), "-o", str(target)]) == 0
    assert "3 columns" in capsys.readouterr().out
    wanted = printed("spline_coupling")
    np.testing.assert_allclose(npflows.load(target).log_prob(wanted["x"]), wanted["log_prob"], atol=1e-11)
    architecture.write_text('{"tail_bond": 3.0}')
    assert main(["convert", "nflows", source, "--architecture", str(architecture), "-o", str(target)]) == 2
    assert "nflows has no 'tail_bond'" in capsys.readouterr().err
