"""Flows of zuko give the numbers that zuko printed; see tests/fixtures/make_zuko.py."""

import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.cli import main
from npflows.convert import zuko_objects

FILES = Path(__file__).parents[1] / "fixtures" / "zuko"
PRINTED = np.load(FILES / "printed.npz")
AFFINE, SPLINE, CIRCULAR = {"univariate": "affine"}, {"univariate": "spline"}, {"univariate": "circular spline"}
OPTIONS = {
    "maf": AFFINE,
    "maf_context": AFFINE | {"activation": "tanh"},
    "maf_passes": AFFINE | {"activation": "elu"},
    "maf_passes_context": AFFINE,
    "maf_residual": AFFINE | {"activation": "silu"},
    "maf_adjacency": AFFINE,
    "maf_one_feature": AFFINE,
    "nsf": SPLINE,
    "nsf_context": SPLINE,
    "nsf_passes": SPLINE,
    "nsf_one_feature": SPLINE,
    "nsf_slope": SPLINE | {"slope": 1e-2},
    "ncsf": CIRCULAR,
    "ncsf_context": CIRCULAR,
    "bpf": {"univariate": "bounded bernstein"},
    "bpf_passes_context": {"univariate": "bounded bernstein"},
    "bpf_one_feature": {"univariate": "bounded bernstein"},
    "bernstein": {"univariate": "bernstein"},
    "nice": AFFINE,
    "realnvp_context": AFFINE,
    "nice_additive": {"univariate": "additive"},
    "list": AFFINE,
}


def taken_over(name, **options):
    return convert.from_zuko(FILES / f"{name}.pt", **{**OPTIONS[name], **options})


def printed(name):
    found = {key: PRINTED.get(f"{name}.{key}") for key in ("x", "z", "log_det", "log_prob", "condition")}
    return {key: value for key, value in found.items() if value is not None}


def check_numbers(name):
    """Compare a flow from its file with what was printed."""
    flow, wanted = taken_over(name), printed(name)
    assert flow.dtype == "float64"
    x, c = wanted["x"], wanted.get("condition")
    z, log_det = flow.forward(x, c)
    np.testing.assert_allclose(z, wanted["z"], atol=1e-11)
    np.testing.assert_allclose(log_det, wanted["log_det"], atol=1e-11)
    np.testing.assert_allclose(flow.log_prob(x, c), wanted["log_prob"], rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(flow.inverse(wanted["z"], c)[0], x, atol=1e-9)
    narrow = taken_over(name, dtype="float32")
    np.testing.assert_allclose(narrow.log_prob(x, c), wanted["log_prob"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["maf_residual", "nsf_passes", "ncsf_context", "list"])  # every_number.py has all
def test_numbers(name):
    check_numbers(name)


@pytest.mark.parametrize("name", ["maf_residual", "nsf_passes", "ncsf_context", "realnvp_context"])
def test_is_a_flow_like_any_other(name, tmp_path):
    flow, wanted = taken_over(name, dtype="float32"), printed(name)
    x, c = wanted["x"], wanted.get("condition")
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x, c), flow.log_prob(x, c))
    conditions = None if c is None else np.random.default_rng(2).normal(size=(300, c.shape[1]))
    rows = flow.sample(300, rng=1, condition=conditions)
    before = flow.log_prob(rows, conditions).mean()
    flow.fit(rows, condition=conditions, max_epochs=2, learning_rate=1e-4, rng=1, progress=False)
    assert abs(flow.log_prob(rows, conditions).mean() - before) < 0.5


def test_degrees_are_those_of_the_masks():
    flow = taken_over("nsf_passes")
    layer = flow.flow_layers[1]
    assert set(np.concatenate(layer.hidden_degrees)) == {0, 2}  # of the condition alone, or of the first half too
    assert flow.num_params < 1.2 * sum(
        int((a * b).size if b is None else np.count_nonzero(np.broadcast_to(b, a.shape)))
        for name, a in convert.read_state_dict(FILES / "nsf_passes.pt").items()
        if name.endswith(("weight", "bias"))
        for b in [convert.read_state_dict(FILES / "nsf_passes.pt").get(name.replace("weight", "mask"))]
    )


def arrays(name="nsf", **more):
    found = convert.read_state_dict(FILES / f"{name}.pt")
    return found | {key.replace("__", "."): value for key, value in more.items()}


def renamed(pattern, replacement, name="nsf"):
    return {key.replace(pattern, replacement): value for key, value in arrays(name).items()}


def circle():
    found = arrays("maf")
    mask = found["transform.transforms.0.hyper.4.mask"]
    return found | {"transform.transforms.0.hyper.4.mask": np.ones_like(mask)}


NUMBER = np.zeros(3)
REFUSED = {
    "no scalar map": (lambda: arrays(), {}, "pass univariate="),
    "an unknown one": (lambda: arrays(), {"univariate": "cubic"}, "univariate must be one of"),
    "the wrong one": (lambda: arrays(), AFFINE, "14 outputs for each feature, which are not those of univariate='affine'"),
    "Bernstein polynomials": (lambda: arrays("maf"), SPLINE, "2 outputs for each feature, which are not those of"),
    "no flow": (lambda: arrays(encoder__weight=NUMBER), SPLINE, "encoder.weight is no part of a flow of zuko"),
    "a base": (lambda: arrays(base__df=NUMBER), SPLINE, "is neither DiagNormal nor BoxUniform"),
    "a gap": (lambda: renamed("transforms.0.", "transforms.7."), SPLINE, "a transform of the flow has no numbers"),
    "something else": (lambda: renamed("hyper.", "net."), SPLINE, "is no transform that is taken over"),
    "layer normalization": (lambda: renamed("hyper.2.", "hyper.3."), SPLINE, "layer normalization is not taken over"),
    "a circle": (circle, AFFINE, "depend on each other in a circle"),
    "a matrix": (lambda: arrays("matrices"), AFFINE, "or not from a state dict"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    make, options, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_zuko(make(), **options)


def an_object(name, module="zuko.flows", **attributes):
    return type(name, (), {"__module__": module, **attributes})()


def function(name):
    made = lambda *phi, **options: None  # noqa: E731
    made.__name__ = name
    return made


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (an_object("Mine", "mine"), r"mine\.Mine \(transform\) is not taken over"),
        (
            an_object("MaskedAutoregressiveTransform", univariate=function("GaussianizationTransform")),
            "GaussianizationTransform",
        ),
        (
            an_object(
                "MaskedAutoregressiveTransform", univariate=partial(function("MonotonicRQSTransform"), eps=1.0), hyper=[]
            ),
            "eps of MonotonicRQSTransform",
        ),
    ],
)
def test_objects_of_other_kinds(step, message):
    with pytest.raises(convert.ConversionError, match=message):
        zuko_objects.facts_of(types.SimpleNamespace(transform=step))


def test_transforms_without_numbers_of_an_object_are_not_lost():
    network = an_object("MaskedAutoregressiveTransform", univariate=function("MonotonicAffineTransform"), hyper=[])
    clip = an_object("UnconditionalTransform", f=function("SoftclipTransform"))
    flow = types.SimpleNamespace(
        transform=types.SimpleNamespace(transforms=[network, network, clip]),
        base=an_object("UnconditionalDistribution", f=function("DiagNormal")),
        state_dict=lambda: arrays("maf"),
    )
    with pytest.raises(convert.ConversionError, match=r"SoftclipTransform \(transform\.transforms\.2\) is not taken over"):
        convert.from_zuko(flow)


def test_command(tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"univariate": "spline"}')
    source, target = str(FILES / "nsf.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "zuko", source, "--architecture", str(tmp_path / "a.json"), "-o", target]) == 0
    assert "3 columns" in capsys.readouterr().out
    wanted = printed("nsf")
    np.testing.assert_allclose(npflows.load(target).log_prob(wanted["x"]), wanted["log_prob"], atol=1e-11)
