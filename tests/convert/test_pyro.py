"""Flows of Pyro give the numbers that Pyro printed; see tests/fixtures/make_pyro.py."""

import json
import math
import types
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.cli import main

FILES = Path(__file__).parents[1] / "fixtures" / "pyro"
PRINTED = np.load(FILES / "printed.npz")
FREE = {"log_scale_min_clip": -math.inf, "log_scale_max_clip": math.inf}
SPLINES = {"bound": 2.5, "order": "quadratic"}
LOWER = [[0.5, 0, 0, 0], [0.2, 2.0, 0, 0], [0, -0.4, 1.5, 0], [1.0, 0, 0.3, 0.7]]
OPTIONS = {
    "iaf": [
        {"kind": "AffineAutoregressive", **FREE},
        {"kind": "BatchNorm"},
        {"kind": "AffineAutoregressive", "log_scale_min_clip": -0.3, "log_scale_max_clip": 0.2},
        {"kind": "Permute", "permutation": [1, 3, 0, 2]},
        {"kind": "BatchNorm", "inverse": True},
    ],
    "maf": [
        {"kind": "AffineAutoregressive", "inverse": True, "activation": "tanh", **FREE},
        {"kind": "AffineAutoregressive", "inverse": True, "activation": "tanh"},
    ],
    "real_nvp": [
        {"kind": "AffineCoupling", "split_dim": 2},
        {"kind": "LowerCholeskyAffine", "loc": [1.0, 0.0, -2.0, 0.5], "scale_tril": LOWER},
        {"kind": "Householder"},
        {"kind": "AffineCoupling", "split_dim": 1, "inverse": True, "activation": "tanh", **FREE},
        {"kind": "Householder", "inverse": True},
        {"kind": "AffineTransform", "loc": [3.0, 0.0, -1.0, 10.0], "scale": [0.5, -2.0, 1.0, 3.0]},
    ],
    "spline": [
        {"kind": "Spline", **SPLINES},
        {"kind": "Householder"},
        {"kind": "Spline", "inverse": True, "bound": 4.0, "order": "quadratic"},
    ],
    "spline_coupling": [
        {"kind": "SplineCoupling", "split_dim": 2, **SPLINES},
        {"kind": "Permute", "permutation": [2, 3, 1, 0]},
        {"kind": "SplineCoupling", "split_dim": 1, "identity": True, **SPLINES},
        {"kind": "Permute", "permutation": [1, 2, 3, 0], "inverse": True},
        {"kind": "SplineCoupling", "split_dim": 3, "inverse": True, **SPLINES},
    ],
    "spline_autoregressive": [
        {"kind": "SplineAutoregressive", **SPLINES},
        {"kind": "SplineAutoregressive", "inverse": True, **SPLINES},
    ],
    "conditional": [
        {"kind": "ConditionalAffineAutoregressive", **FREE},
        {"kind": "ConditionalSpline", **SPLINES},
        {"kind": "ConditionalAffineCoupling", "split_dim": 2, "log_scale_min_clip": -0.1},
        {"kind": "Permute", "permutation": [1, 3, 0, 2]},
        {"kind": "ConditionalSplineAutoregressive", "inverse": True, **SPLINES},
    ],
    "linear": [
        {"kind": "Spline"},
        {"kind": "SplineCoupling", "split_dim": 1, "bound": 2.5},
        {"kind": "Permute", "permutation": [2, 3, 1, 0]},
        {"kind": "SplineCoupling", "split_dim": 2, "bound": 2.5, "inverse": True},
        {"kind": "ConditionalSpline"},
        {"kind": "SplineAutoregressive"},
        {"kind": "ConditionalSplineAutoregressive", "inverse": True},
    ],
}


def taken_over(name, **options):
    return convert.from_pyro(FILES / f"{name}.pt", transforms=OPTIONS[name], **options)


def printed(name):
    found = {key: PRINTED.get(f"{name}.{key}") for key in ("x", "z", "log_det", "log_prob", "condition")}
    return {key: value for key, value in found.items() if value is not None}


def check_numbers(name):
    """Compare a flow from its file with what was printed."""
    flow, wanted = taken_over(name), printed(name)
    assert flow.dtype == "float64"
    c = wanted.get("condition")
    z, log_det = flow.forward(wanted["x"], c)
    np.testing.assert_allclose(z, wanted["z"], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(log_det, wanted["log_det"], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(flow.log_prob(wanted["x"], c), wanted["log_prob"], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(flow.inverse(wanted["z"], c)[0], wanted["x"], atol=1e-9)
    narrow = taken_over(name, dtype="float32")
    np.testing.assert_allclose(narrow.log_prob(wanted["x"], c), wanted["log_prob"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["iaf", "spline_coupling", "linear"])  # every_number.py has all
def test_numbers(name):
    check_numbers(name)


def test_is_a_flow_like_any_other(tmp_path):
    flow, x = taken_over("spline_coupling", dtype="float32"), printed("spline_coupling")["x"]
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x), flow.log_prob(x))
    rows = flow.sample(300, 1)
    before = flow.log_prob(rows).mean()
    flow.fit(rows, max_epochs=2, learning_rate=1e-4, rng=1, progress=False)
    assert abs(flow.log_prob(rows).mean() - before) < 0.3


def a(kind, module="pyro.distributions.transforms", **attributes):
    """An object of a class of a name in a module."""
    return type(kind, (), {"__module__": module, **attributes})()


def normal(n=4, **attributes):
    return a("Normal", "pyro.distributions.torch", loc=np.zeros(n), scale=np.ones(n), **attributes)


def normal_vector():
    return a("Independent", "torch.distributions.independent", base_dist=normal())


def flow_of(*transforms, base=None):
    base = normal_vector() if base is None else base
    return a("TransformedDistribution", "pyro.distributions.torch", base_dist=base, transforms=list(transforms))


def objects(name):
    """Objects that stand for the transforms of a file, without what Pyro's have as defaults."""
    arrays, made, number = convert.read_state_dict(FILES / f"{name}.pt"), [], 0
    for given in OPTIONS[name]:
        told = {key: value for key, value in given.items() if key not in ("kind", "inverse", "activation")}
        attributes = {key: np.array(value) if isinstance(value, list) else value for key, value in told.items()}
        if given["kind"] not in ("Permute", "LowerCholeskyAffine", "AffineTransform"):
            own = {key.partition(".")[2]: value for key, value in arrays.items() if key.startswith(f"{number}.")}
            attributes["state_dict"] = lambda self, own=own: own
            number += 1
        if "activation" in given or given["kind"].endswith(("Autoregressive", "Coupling", "ConditionalSpline")):
            f = types.SimpleNamespace(__name__={"tanh": "Tanh"}.get(given.get("activation"), "ReLU"))
            network = a("ConditionalAutoRegressiveNN", "pyro.nn.auto_reg_nn", f=f)
            holder = {"upper_spline": a("ConditionalSpline", nn=network)} if given["kind"] == "SplineCoupling" else {}
            attributes |= holder or {"nn": network}
        if given["kind"].startswith("Conditional") and given["kind"] != "ConditionalSpline":
            attributes = {key: attributes.pop(key) for key in ("nn", "state_dict", "split_dim") if key in attributes} | {
                "kwargs": attributes
            }
        transform = a(given["kind"], **attributes)
        made.append(a("_InverseTransform", "torch.distributions.transforms", _inv=transform)
                    if given.get("inverse") else transform)  # fmt: skip
    return made


@pytest.mark.parametrize("name", OPTIONS)
def test_objects(name):
    given = [printed(name).get(key) for key in ("x", "condition")]
    found = convert.from_pyro(flow_of(*objects(name)))
    np.testing.assert_array_equal(found.log_prob(*given), taken_over(name).log_prob(*given))


def test_transforms_within_transforms_in_their_order():
    first, *rest = objects("real_nvp")
    inner = a("ComposeTransformModule", "pyro.distributions.torch_transform", parts=rest[:2])
    middle = a("ComposeTransform", "torch.distributions.transforms", parts=[inner, *rest[2:4]])
    x = printed("real_nvp")["x"]
    wanted = taken_over("real_nvp").log_prob(x)
    np.testing.assert_array_equal(convert.from_pyro(flow_of(first, middle, rest[4])).log_prob(x), wanted)
    turned = [a("_InverseTransform", "torch.distributions.transforms", _inv=t) for t in [first, middle, rest[4]][::-1]]
    backwards = convert.from_pyro(flow_of(a("_InverseTransform", "torch.distributions.transforms", _inv=a(
        "ComposeTransform", "torch.distributions.transforms", parts=turned))))  # fmt: skip
    np.testing.assert_allclose(backwards.log_prob(x), wanted, rtol=1e-12)


def test_base_distributions():
    x, reflections = printed("spline")["x"], objects("spline")[1]
    loc, scale = np.array([1.0, 0.0, -2.0, 0.5]), np.array([0.5, 1.0, 2.0, 3.0])
    stats = pytest.importorskip("scipy.stats")
    latent = convert.from_pyro(flow_of(reflections)).forward(x)[0]
    lower = np.array(LOWER)
    for base, expected in (
        (normal(), stats.norm.logpdf(latent).sum(1)),
        (a("Normal", "pyro", loc=loc, scale=scale), stats.norm.logpdf(latent, loc, scale).sum(1)),
        (a("Laplace", "pyro", loc=loc, scale=scale), stats.laplace.logpdf(latent, loc, scale).sum(1)),
        (a("Cauchy", "pyro", loc=loc, scale=scale), stats.cauchy.logpdf(latent, loc, scale).sum(1)),
        (a("Logistic", "pyro", loc=loc, scale=scale), stats.logistic.logpdf(latent, loc, scale).sum(1)),
        (a("Uniform", "torch", low=loc - 30, high=loc + 30), np.full(len(x), -4 * np.log(60))),
        (a("StudentT", "pyro", df=scale + 2, loc=loc, scale=scale), stats.t.logpdf(latent, scale + 2, loc, scale).sum(1)),
        (
            a("MultivariateNormal", "pyro", loc=loc, scale_tril=lower),
            stats.multivariate_normal(loc, lower @ lower.T).logpdf(latent),
        ),
    ):
        found = convert.from_pyro(flow_of(reflections, base=base))
        np.testing.assert_allclose(found.log_prob(x), expected, rtol=1e-10)


def with_state(name, k=0, **changed):
    """A file's state dict, and its transforms, of which one is told otherwise."""
    transforms = [dict(given) for given in OPTIONS[name]]
    for key, value in changed.items():
        if value is None:
            del transforms[k][key]
        else:
            transforms[k][key] = value
    return {"flow": FILES / f"{name}.pt", "transforms": transforms}


REFUSED = {
    "no transforms": (lambda: {"flow": FILES / "iaf.pt"}, "does not tell which transforms there are: pass transforms="),
    "another kind": (lambda: with_state("iaf", kind="Planar"), r"Planar \(transform 0\) is not taken over; Affine"),
    "no such argument": (lambda: with_state("iaf", bond=3.0), r"AffineAutoregressive \(transform 0\) has no 'bond'"),
    "missing numbers": (lambda: with_state("iaf", 3, permutation=None), "is in no state dict: pass its permutation"),
    "too many": (
        lambda: with_state("spline") | {"transforms": [*OPTIONS["spline"], {"kind": "BatchNorm"}]},
        r"the state dict has no numbers of BatchNorm \(transform 3\)",
    ),
    "too few": (lambda: with_state("spline") | {"transforms": OPTIONS["spline"][:1]}, "has 1.u_unnormed, which is of none"),
    "stable": (lambda: with_state("iaf", stable=True), r"stable=True \(AffineAutoregressive, transform 0\)"),
    "a clip on one side": (lambda: with_state("iaf", log_scale_max_clip=3.0), r"clipped to \[-inf, 3.0\]"),
    "a clip above 0": (lambda: with_state("iaf", 2, log_scale_min_clip=0.1), r"clipped to \[0.1, 0.2\]"),
    "cubic splines": (lambda: with_state("spline", order="cubic"), "order must be one of .*, got 'cubic'"),
    "other outputs": (
        lambda: {
            "flow": {"0.nn.layers.0.weight": np.zeros((4, 2)), "0.nn.layers.0.bias": np.zeros(4),
                     "1.u_unnormed": np.ones((1, 2))},
            "transforms": [{"kind": "ConditionalSpline", "order": "quadratic"}, {"kind": "Householder"}],
        },
        r"2 parameters of each spline \(ConditionalSpline, transform 0\)",
    ),
    "another dimension": (lambda: with_state("iaf", 3, dim=-2), "dim=-2"),
    "a dimension of couplings": (lambda: with_state("real_nvp", dim=-2), "dim=-2"),
    "no split": (lambda: with_state("real_nvp", split_dim=None), "does not tell the split_dim of AffineCoupling"),
    "a split at the end": (lambda: with_state("real_nvp", split_dim=4), "split_dim=4 .* leaves nothing"),
    "a matrix without an inverse": (
        lambda: with_state("real_nvp", 1, scale_tril=np.zeros((4, 4))), "has no inverse"
    ),
    "a scale of 0": (lambda: with_state("real_nvp", 5, scale=[1.0, 0.0, 1.0, 1.0]), "a scale of 0 .* has no inverse"),
    "nothing but a base": (lambda: {"flow": flow_of(base=normal_vector())}, "has no transforms: it is its base"),
    "no columns": (
        lambda: {"flow": {"0.nn.layers.0.weight": np.zeros((5, 2))}, "transforms": [{"kind": "AffineCoupling"}]},
        "no transform of the flow tells the number of features",
    ),
    "skip connections": (
        lambda: {
            **with_state("iaf"),
            "flow": convert.read_state_dict(FILES / "iaf.pt") | {"0.arn.skip_layer.weight": np.zeros((8, 4))},
        },
        "skip connections",
    ),
    "an object and its transforms": (
        lambda: {"flow": flow_of(), "transforms": OPTIONS["iaf"]}, "an object tells its transforms itself"
    ),
    "no flow": (lambda: {"flow": a("Normal", "pyro.distributions")}, r"pyro\.distributions\.Normal is no Transformed"),
    "an object of another kind": (
        lambda: {"flow": flow_of(a("MatrixExponential"))},
        r"pyro\.distributions\.transforms\.MatrixExponential \(transform 0\) is not taken over",
    ),
    "an object of another library": (lambda: {"flow": flow_of(a("Permute", "mine"))}, r"mine\.Permute \(transform 0\)"),
    "another base": (
        lambda: {"flow": flow_of(base=a("Gamma", "pyro.distributions.torch"))}, r"pyro\.distributions\.torch\.Gamma is"
    ),
    "a density of each column": (
        lambda: {"flow": flow_of(objects("spline")[0], base=normal())}, "give its base .to_event.1."
    ),
    "a base of images": (
        lambda: {"flow": flow_of(objects("spline")[1], base=normal((2, 2)))}, r"a base distribution of shape \(2, 2\)"
    ),
    "a network of one's own": (
        lambda: {"flow": flow_of(a("AffineCoupling", nn=a("Net", "mine")))}, r"the network mine\.Net \(transform 0\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    make, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_pyro(**make())


def test_command(tmp_path, capsys):
    architecture, target = tmp_path / "a.json", tmp_path / "flow.npz"
    architecture.write_text(json.dumps({"transforms": OPTIONS["real_nvp"]}))
    source = str(FILES / "real_nvp.pt")
    assert main(["convert", "pyro", source, "--architecture", str(architecture), "-o", str(target)]) == 0
    assert "4 columns" in capsys.readouterr().out
    wanted = printed("real_nvp")
    np.testing.assert_allclose(npflows.load(target).log_prob(wanted["x"]), wanted["log_prob"], rtol=1e-11)
