"""Flows of flowjax give the numbers that flowjax printed; see tests/fixtures/make_flowjax.py."""

import types
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.cli import main
from npflows.convert import flowjax

FILES = Path(__file__).parents[1] / "fixtures" / "flowjax"
PRINTED = np.load(FILES / "printed.npz")
OPTIONS = {
    "maf": {},
    "maf_condition": {"activation": "tanh"},
    "maf_not_inverted": {"activation": "silu", "invert": False},
    "maf_two_features": {},
    "maf_one_feature": {},
    "maf_spline": {"transformer": "spline", "interval": 3},
    "maf_spline_not_inverted": {"transformer": "spline", "interval": 2, "invert": False},
    "coupling": {},
    "coupling_condition": {"invert": False},
    "coupling_spline": {"transformer": "spline", "interval": 3},
    "coupling_spline_not_inverted": {"transformer": "spline", "interval": 3, "invert": False},
}


def taken_over(name, **options):
    return convert.from_flowjax(FILES / f"{name}.eqx", **{**OPTIONS[name], **options})


def printed(name):
    return PRINTED[f"{name}.x"], PRINTED[f"{name}.log_prob"], PRINTED.get(f"{name}.condition")


def check_numbers(name):
    """Compare a flow from its file with what was printed."""
    flow, (x, wanted, c) = taken_over(name), printed(name)
    assert flow.dtype == "float64"
    np.testing.assert_allclose(flow.log_prob(x, c), wanted, rtol=1e-12, atol=1e-12)
    z, _ = flow.forward(x, c)
    np.testing.assert_allclose(flow.inverse(z, c)[0], x, atol=1e-9)
    np.testing.assert_allclose(taken_over(name, dtype="float32").log_prob(x, c), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["maf_condition", "coupling_spline_not_inverted", "maf_spline_not_inverted"]
)  # every_number.py has all
def test_numbers(name):
    check_numbers(name)


def test_is_a_flow_like_any_other(tmp_path):
    flow, (x, _, c) = taken_over("coupling_spline_not_inverted", dtype="float32"), printed("coupling_spline_not_inverted")
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x, c), flow.log_prob(x, c))
    rows = flow.sample(300, rng=1)
    before = flow.log_prob(rows).mean()
    flow.fit(rows, max_epochs=2, learning_rate=1e-4, rng=1, progress=False)
    assert abs(flow.log_prob(rows).mean() - before) < 0.3


REFUSED = {
    "another map": ("maf", {"transformer": "cubic"}, "transformer must be one of 'affine', 'spline'"),
    "the wrong map": ("maf", {"transformer": "spline", "interval": 3}, "splines have 3 knots"),
    "no interval": ("maf_spline", {"interval": None}, "need interval="),
    "affine of splines": ("maf_spline", {"transformer": "affine"}, "has other outputs than those of transformer='affine'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    name, options, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message):
        taken_over(name, **options)


def test_files_of_other_kinds(tmp_path):
    whole = (FILES / "maf.eqx").read_bytes()
    for content, message in (
        (b"", "holds no leaves of a flow"),
        (whole[:-3], "holds no arrays one after the other"),
        (b"not an array", "holds no arrays one after the other"),
    ):
        (tmp_path / "flow.eqx").write_bytes(content)
        with pytest.raises(convert.ConversionError, match=message):
            convert.from_flowjax(tmp_path / "flow.eqx")
    with open(tmp_path / "flow.eqx", "wb") as file:
        for array in (np.array(3), np.zeros(3), np.zeros(3), np.zeros((2, 5))):
            np.save(file, array)
    with pytest.raises(convert.ConversionError, match="holds no leaves of a flow of"):
        convert.from_flowjax(tmp_path / "flow.eqx")
    np.savez(tmp_path / "flow.npz", a=np.zeros(3))
    with pytest.raises(convert.ConversionError, match="is an archive"):
        convert.from_flowjax(tmp_path / "flow.npz")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(convert.ConversionError, match="holds no arrays"):
        convert.from_flowjax(tmp_path / "objects.npy")


def an_object(name, module="flowjax.bijections", **attributes):
    return type(name, (), {"__module__": module, **attributes})()


@pytest.mark.parametrize(
    ("bijection", "message"),
    [
        (an_object("Planar"), "Planar is not taken over"),
        (an_object("Mine", "mine"), r"mine\.Mine is no part of flowjax"),
        (an_object("Scan", bijection=an_object("Planar")), "layers of Planar one after the other"),
    ],
)
def test_objects_of_other_kinds(bijection, message):
    base = an_object("StandardNormal", "flowjax.distributions", shape=(2,))
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_flowjax(types.SimpleNamespace(base_dist=base, bijection=bijection))
    with pytest.raises(convert.ConversionError, match="the base distribution Gamma is not taken over"):
        flowjax._base(an_object("Gamma", "flowjax.distributions"), "float64")


def test_command(tmp_path):
    (tmp_path / "a.json").write_text('{"transformer": "spline", "interval": 3}')
    source, target = str(FILES / "maf_spline.eqx"), str(tmp_path / "flow.npz")
    assert main(["convert", "flowjax", source, "--architecture", str(tmp_path / "a.json"), "-o", target, "--quiet"]) == 0
    x, wanted, _ = printed("maf_spline")
    np.testing.assert_allclose(npflows.load(target).log_prob(x), wanted, atol=1e-11)
