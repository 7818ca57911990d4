"""Flows of normflows give the numbers that normflows printed; see tests/fixtures/make_normflows.py."""

import types
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import npflows
from npflows import convert
from npflows.cli import main

FILES = Path(__file__).parents[1] / "fixtures" / "normflows"
PRINTED = np.load(FILES / "printed.npz")
OPTIONS = {
    "coupled": {"tail_bound": 3.0},
    "autoregressive": {"tail_bound": 2.5},
    "real_nvp": {},
    "blocks": {"activation": "leaky_relu"},
    "maf": {},
    "context": {"tail_bound": 3.0},
}


def printed(name):
    found = {key: PRINTED.get(f"{name}.{key}") for key in ("x", "z", "log_det", "log_prob", "condition")}
    return {key: value for key, value in found.items() if value is not None}


def check_numbers(name):
    """Compare a flow from its file with what was printed."""
    flow, wanted = convert.from_normflows(FILES / f"{name}.pt", **OPTIONS[name]), printed(name)
    c = wanted.get("condition")
    z, log_det = flow.forward(wanted["x"], c)
    np.testing.assert_allclose(z, wanted["z"], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(log_det, wanted["log_det"], atol=1e-11)
    np.testing.assert_allclose(flow.log_prob(wanted["x"], c), wanted["log_prob"], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(flow.inverse(wanted["z"], c)[0], wanted["x"], atol=1e-9)
    narrow = convert.from_normflows(FILES / f"{name}.pt", dtype="float32", **OPTIONS[name])
    np.testing.assert_allclose(narrow.log_prob(wanted["x"], c), wanted["log_prob"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["coupled", "autoregressive", "blocks"])  # every_number.py has all
def test_numbers(name):
    check_numbers(name)


def arrays(name="coupled", **more):
    return convert.read_state_dict(FILES / f"{name}.pt") | {key.replace("__", "."): value for key, value in more.items()}


def test_a_mixture_as_base():
    rng = np.random.default_rng(0)
    n = arrays()["q0.loc"].size
    numbers = {"loc": rng.normal(size=(1, 3, n)), "log_scale": 0.3 * rng.normal(size=(1, 3, n)),
               "weight_scores": rng.normal(size=(1, 3))}  # fmt: skip
    taken = convert.from_normflows(without("q0.") | {f"q0.{name}": a for name, a in numbers.items()}, tail_bound=3.0)
    plain = convert.from_normflows(arrays(), tail_bound=3.0)
    x = rng.normal(size=(20, n))
    z, log_det = plain.forward(x)
    weights = np.exp(numbers["weight_scores"][0]) / np.exp(numbers["weight_scores"]).sum()
    each = scipy.stats.norm(numbers["loc"][0], np.exp(numbers["log_scale"][0])).pdf(z[:, None]).prod(axis=2)
    np.testing.assert_allclose(taken.log_prob(x), np.log(each @ weights) + log_det, rtol=1e-11, atol=1e-11)
    assert isinstance(taken.base, npflows.GaussianMixture)
    assert taken.base.learnable


def without(start):
    return {name: array for name, array in arrays().items() if not name.startswith(start)}


REFUSED = {
    "no base": (lambda: without("q0."), "the base distribution with no numbers is no DiagGaussian"),
    "another flow": (lambda: arrays(flows__4__u=np.zeros(4)), "flows.4 with u is no flow of normflows that is taken over"),
    "a gap": (lambda: without("flows.1."), "a flow without numbers is no part"),
    "a target": (lambda: arrays(p__scale=np.zeros(1)), "p.scale is no part of a NormalizingFlow of normflows"),
    "a condition": (
        lambda: arrays("autoregressive", flows__0__mprqat__context_layer__weight=np.zeros((6, 1))),
        "conditions of autoregressive splines are not taken over",
    ),
    "blocks of other kinds": (
        lambda: {
            name.replace("linear_layers.0", "linear"): a for name, a in arrays("maf").items() if "layers.1" not in name
        },
        "masked networks without residual blocks, or with a condition, are not taken over",
    ),
    "networks of different depth": (
        lambda: {
            name: a[:, :4] if name == "flows.0.s.net.2.weight" else a
            for name, a in arrays("real_nvp").items()
            if not name.startswith("flows.0.s.net.0.")
        },
        "networks of as many layers for both s and t are needed",
    ),
    "another network": (
        lambda: {name.replace("net.", "layers."): a for name, a in arrays("blocks").items()},
        "a network that is no MLP of normflows is not taken over",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    make, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message.replace(".", r"\.")):
        convert.from_normflows(make(), tail_bound=3.0)


class LeakyReLU:
    negative_slope = 0.3


def an_object(name, **attributes):
    return type(name, (), {"__module__": "normflows.flows", **attributes})()


def of_steps(*steps, name="blocks"):
    base = an_object("DiagGaussian")
    return types.SimpleNamespace(q0=base, flows=list(steps), state_dict=lambda: arrays(name))


def block(net=(), split="channel", scale_map="exp", scale=True):
    inner = types.SimpleNamespace(scale=scale, scale_map=scale_map, param_map=an_object("MLP", net=[*net, Linear()]))
    return an_object("AffineCouplingBlock", flows=[types.SimpleNamespace(mode=split), inner, None])


class Linear:
    pass


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (an_object("Planar"), "normflows.flows.Planar"),
        (block(scale_map="sigmoid"), "scale_map='sigmoid'"),
        (block(split="checkerboard"), "split_mode='checkerboard'"),
        (block([LeakyReLU()]), "the activation"),
        (block([Linear(), type("Tanh", (), {})(), type("ReLU", (), {})()]), "an MLP with several activations, relu, tanh"),
    ],
)
def test_objects_of_other_kinds(step, message):
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_normflows(of_steps(step))


def test_a_flow_without_numbers_at_the_end_of_an_object_is_not_lost():
    inner = arrays("blocks")
    names = [name for name in inner if not name.startswith(("flows.1.", "flows.2."))]
    steps = of_steps(block([type("LeakyReLU", (), {"negative_slope": 0.01})()]), an_object("Permute", mode="swap"))
    steps.state_dict = lambda: {name: inner[name] for name in names}
    x = printed("blocks")["x"]
    taken = convert.from_normflows(steps)
    without = convert.from_normflows(steps.state_dict(), activation="leaky_relu")
    np.testing.assert_array_equal(taken.log_prob(x), without.log_prob(x[:, [2, 0, 1]]))


def test_command(tmp_path):
    (tmp_path / "a.json").write_text('{"tail_bound": 3.0}')
    source, target = str(FILES / "coupled.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "normflows", source, "--architecture", str(tmp_path / "a.json"), "-o", target, "--quiet"]) == 0
    wanted = printed("coupled")
    np.testing.assert_allclose(npflows.load(target).log_prob(wanted["x"]), wanted["log_prob"], atol=1e-11)
