"""Flows of sbi, glasflow, pocoMC and denmarf give the numbers that these printed; see tests/fixtures/make_wrapped.py."""

import types
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.cli import main
from npflows.convert import nflows_objects

FILES = Path(__file__).parents[1] / "fixtures" / "wrapped"
PRINTED = np.load(FILES / "printed.npz")
CASES = {
    "sbi_maf": {},
    "sbi_maf_rqs": {"tail_bound": 3.0},
    "sbi_nsf": {"tail_bound": 3.0},
    "sbi_zuko_maf": {"univariate": "affine"},
    "sbi_zuko_nsf": {"univariate": "spline"},
    "sbi_zuko_ncsf": {"univariate": "circular spline"},
    "sbi_zuko_nice": {"univariate": "affine"},
    "sbi_maf_of_one": {},
    "sbi_nsf_of_one": {"tail_bound": 3.0},
    "glasflow_realnvp": {},
    "glasflow_realnvp_sigmoid": {"scale": "sigmoid"},
    "glasflow_realnvp_log2": {"scale": 2},
    "glasflow_coupling_nsf": {"tail_bound": 5.0},
    "glasflow_masked_affine": {},
}


def taken_over(name, **options):
    function = convert.from_sbi if name.startswith("sbi") else convert.from_glasflow
    return function(FILES / f"{name}.pt", **{**CASES[name], **options})


def printed(name):
    return PRINTED[f"{name}.x"], PRINTED[f"{name}.log_prob"], PRINTED.get(f"{name}.condition")


def check_numbers(name):
    """Compare a flow from its file with what was printed."""
    flow, (x, wanted, c) = taken_over(name), printed(name)
    assert flow.dtype == "float64"
    exact = name.startswith(("glasflow", "sbi_zuko"))  # sbi keeps a constant of nflows' base in float32
    np.testing.assert_allclose(flow.log_prob(x, c), wanted, rtol=1e-11 if exact else 1e-7, atol=1e-11 if exact else 1e-6)
    z, _ = flow.forward(x, c)
    np.testing.assert_allclose(flow.inverse(z, c)[0], x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(taken_over(name, dtype="float32").log_prob(x, c), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["sbi_nsf", "sbi_zuko_maf", "glasflow_realnvp_log2"])  # every_number.py has all
def test_numbers(name):
    check_numbers(name)


@pytest.mark.parametrize("name", ["sbi_maf", "sbi_nsf", "glasflow_realnvp_log2"])
def test_is_saved_with_its_conditions(name, tmp_path):
    flow, (x, _, c) = taken_over(name), printed(name)
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x, c), flow.log_prob(x, c))


def test_what_is_refused(tmp_path):
    with pytest.raises(convert.ConversionError, match="pass tail_bound="):
        taken_over("sbi_nsf", tail_bound=None)
    with pytest.raises(convert.ConversionError, match="scale must be 'wide'"):
        taken_over("glasflow_realnvp", scale="log2")
    arrays = convert.read_state_dict(FILES / "sbi_maf.pt")
    with pytest.raises(convert.ConversionError, match="an embedding network"):
        convert.from_sbi({**arrays, "net._embedding_net.1.weight": np.zeros((2, 2))})
    with pytest.raises(convert.ConversionError, match="is no estimator of sbi"):
        convert.from_sbi(types.SimpleNamespace(net=None))
    with pytest.raises(convert.ConversionError, match="is no flow and no sampler of pocoMC"):
        convert.from_pocomc(types.SimpleNamespace(flow=None))
    with pytest.raises(convert.ConversionError, match="is no fitted density of denmarf"):
        convert.from_denmarf(types.SimpleNamespace(model=None))


def an_object(name, module, **attributes):
    return type(name, (), {"__module__": module, **attributes})()


def test_conditions_that_are_no_vectors_are_refused():
    estimator = an_object("NFlowsFlow", "sbi.neural_nets.estimators.nflows_flow", condition_shape=(3, 4))
    with pytest.raises(convert.ConversionError, match=r"conditions of shape \(3, 4\)"):
        convert.from_sbi(an_object("DirectPosterior", "sbi.inference", posterior_estimator=estimator))


def test_the_flow_of_pocomc_is_one_of_zuko():
    zuko = convert.read_state_dict(FILES.parent / "zuko" / "maf.pt")
    sampler = an_object("Sampler", "pocomc.sampler", flow=an_object("Flow", "pocomc.flow", flow=zuko))
    with pytest.raises(convert.ConversionError, match="pass univariate="):  # as a state dict does not tell it
        convert.from_pocomc(sampler)


@pytest.mark.parametrize("name", ["denmarf", "denmarf_bounded"])
def test_denmarf(name):
    arrays = convert.read_state_dict(FILES / f"{name}.pt")
    kinds = ["MADE", "BatchNormFlow", "Reverse"] * 2
    model = an_object("FlowSequential", "denmarf.flows", state_dict=lambda self: arrays,
                      children=lambda self: [an_object(kind, "denmarf.flows") for kind in kinds])  # fmt: skip
    bounds = types.SimpleNamespace(lower_bounds=np.zeros(3), upper_bounds=np.array([2.0, 1.0, 5.0]))
    density = an_object("DensityEstimate", "denmarf.density", model=model, num_features=3,
                        bounded=name.endswith("bounded"), transformation=bounds)  # fmt: skip
    x, wanted, _ = printed(name)
    for dtype in ("float64", None):
        flow = convert.from_denmarf(density, dtype=dtype)
        np.testing.assert_allclose(flow.log_prob(x), wanted, rtol=1e-5, atol=1e-5)  # its own sums are float32
    kinds[0] = "CouplingLayer"
    with pytest.raises(convert.ConversionError, match="the layers CouplingLayer of denmarf are not taken over"):
        convert.from_denmarf(density)


class Tensor(np.ndarray):
    """As much of a tensor as is asked for."""

    def detach(self):
        return self

    def numpy(self):
        return np.asarray(self)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda r: 1 / (1 + np.exp(-r - 2)) + 1e-3, "sigmoid"),
        (lambda r: np.logaddexp(0, r) + 1e-3, "softplus"),
        (lambda r: np.minimum(np.logaddexp(0, r) + 1e-3, 3.0), "wide"),
        (lambda r: np.exp(2 * 2.5 * (1 / (1 + np.exp(-r)) - 0.5)), 2.5),
    ],
)
def test_functions_to_scales_are_told_from_their_values(monkeypatch, function, kind):
    torch = types.SimpleNamespace(as_tensor=lambda r, dtype: r.view(Tensor), float64=None)
    monkeypatch.setitem(__import__("sys").modules, "torch", torch)
    assert nflows_objects.scale_of(function, "here") == kind
    with pytest.raises(convert.ConversionError, match="is not one that is taken over"):
        nflows_objects.scale_of(lambda r: np.cosh(r).view(Tensor), "here")


def test_command(tmp_path):
    source, target = str(FILES / "sbi_maf.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "sbi", source, "-o", target, "--quiet"]) == 0
    x, wanted, c = printed("sbi_maf")
    np.testing.assert_allclose(npflows.load(target).log_prob(x, c), wanted, atol=1e-6)
