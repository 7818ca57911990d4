"""Neural spline flows of normflows give the numbers that normflows printed; see tests/fixtures/make_normflows.py."""

from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.cli import main

FILES = Path(__file__).parents[1] / "fixtures" / "normflows"
PRINTED = np.load(FILES / "printed.npz")
BOUNDS = {"coupled": 3.0, "autoregressive": 2.5}


def printed(name):
    return {key: PRINTED[f"{name}.{key}"] for key in ("x", "z", "log_det", "log_prob")}


@pytest.mark.parametrize("name", BOUNDS)
def test_numbers(name):
    flow, wanted = convert.from_normflows(FILES / f"{name}.pt", tail_bound=BOUNDS[name]), printed(name)
    z, log_det = flow.forward(wanted["x"])
    np.testing.assert_allclose(z, wanted["z"], atol=1e-11)
    np.testing.assert_allclose(log_det, wanted["log_det"], atol=1e-11)
    np.testing.assert_allclose(flow.log_prob(wanted["x"]), wanted["log_prob"], atol=1e-11)
    np.testing.assert_allclose(flow.inverse(wanted["z"])[0], wanted["x"], atol=1e-9)
    narrow = convert.from_normflows(FILES / f"{name}.pt", tail_bound=BOUNDS[name], dtype="float32")
    np.testing.assert_allclose(narrow.log_prob(wanted["x"]), wanted["log_prob"], rtol=1e-5, atol=1e-4)


def arrays(name="coupled", **more):
    return convert.read_state_dict(FILES / f"{name}.pt") | {key.replace("__", "."): value for key, value in more.items()}


def without(start):
    return {name: array for name, array in arrays().items() if not name.startswith(start)}


REFUSED = {
    "no base": (lambda: without("q0."), "the base distribution with no numbers is no DiagGaussian"),
    "another flow": (lambda: arrays(flows__4__u=np.zeros(4)), "flows.4 with u is no flow of normflows that is taken over"),
    "a gap": (lambda: without("flows.1."), "a flow without numbers is no part"),
    "a target": (lambda: arrays(p__scale=np.zeros(1)), "p.scale is no part of a NormalizingFlow of normflows"),
    "a condition": (
        lambda: arrays(flows__0__prqct__transform_net__blocks__0__context_layer__weight=np.zeros((6, 1))),
        "context_layer.weight: conditions",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    make, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message.replace(".", r"\.")):
        convert.from_normflows(make(), tail_bound=3.0)


def test_command(tmp_path):
    (tmp_path / "a.json").write_text('{"tail_bound": 3.0}')
    source, target = str(FILES / "coupled.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "normflows", source, "--architecture", str(tmp_path / "a.json"), "-o", target, "--quiet"]) == 0
    wanted = printed("coupled")
    np.testing.assert_allclose(npflows.load(target).log_prob(wanted["x"]), wanted["log_prob"], atol=1e-11)
