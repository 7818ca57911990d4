"""Latent values far out: single samples keep a density that means something."""

import json

import numpy as np
import pytest

import npflows
from npflows import MAF, Glow, LogTails, NeuralSplineFlow, RealNVP, support

VALUES = np.array([[0.0, 2.0, -2.0], [3.0, -2.5, 1e3], [1e6, -1e12, 2.0 + 1e-4]])


def expected(x, bound):
    beyond = np.maximum(np.abs(x) - bound, 0)
    return np.where(beyond > 0, np.sign(x) * (bound + np.arcsinh(beyond)), x), -0.5 * np.log1p(beyond**2).sum(axis=1)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-13), ("float32", 1e-5)])
def test_the_map_is_the_identity_inside_and_a_logarithm_outside(dtype, rtol):
    layer = LogTails(3, 2.0, dtype=dtype)
    y, log_det = layer.forward(VALUES)
    np.testing.assert_allclose(y, expected(VALUES, 2.0)[0], rtol=rtol)
    np.testing.assert_allclose(log_det, expected(VALUES, 2.0)[1], rtol=rtol, atol=rtol)
    x, back = layer.inverse(y)
    np.testing.assert_allclose(x, VALUES, rtol=40 * rtol)
    np.testing.assert_allclose(back, -log_det, rtol=rtol, atol=rtol)


def test_the_largest_floats_do_not_overflow():
    y, log_det = LogTails(1).forward(np.array([[3e38], [-3e38]]))
    np.testing.assert_allclose(y[:, 0], [5 + np.log(6e38), -5 - np.log(6e38)], rtol=1e-6)
    assert np.isfinite(log_det).all()


def test_the_density_and_its_slope_are_continuous_at_the_bound():
    flow = npflows.NormalizingFlow([LogTails(1, 5.0, dtype="float64")], dtype="float64")
    log_prob, slope = flow.log_prob_and_grad(5.0 + np.array([[-1e-9], [1e-9]]))
    np.testing.assert_allclose(log_prob[0], log_prob[1], rtol=1e-9)
    np.testing.assert_allclose(slope[0], slope[1], rtol=1e-7)


@pytest.mark.parametrize("bound", [0, -1.0, np.nan, "5"])
def test_a_bound_must_be_a_positive_number(bound):
    with pytest.raises(ValueError, match=r"bound must be a finite number above 0"):
        LogTails(2, bound)
    with pytest.raises(ValueError, match=r"log_tails must be a finite number above 0"):
        MAF(2, log_tails=bound)


MAKES = {
    "MAF": lambda **o: MAF(3, 5, (16,), **o),
    "IAF": lambda **o: npflows.IAF(3, 2, (16,), **o),
    "RealNVP": lambda **o: RealNVP(3, 4, (16,), **o),
    "spline": lambda **o: NeuralSplineFlow(3, 3, (16,), **o),
}


@pytest.mark.parametrize("name", MAKES)
def test_one_row_far_out_has_a_low_density_and_not_an_absurd_one(name):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3))
    flow = MAKES[name](rng=1)
    flow.params = flow.params + 0.2 * rng.standard_normal(flow.num_params)  # a network that extrapolates steeply
    without = MAKES[name](rng=1, log_tails=None)
    without.params = flow.params
    near = np.abs(without.forward(x)[0]).max(axis=1) < 5
    assert near.any()
    np.testing.assert_array_equal(flow.forward(x[near])[0], without.forward(x[near])[0])
    far = x[:50] * 1e4
    assert without.log_prob(far).min() < -1e6
    log_prob = flow.log_prob(far)
    assert log_prob.min() > -2500  # (5 + arsinh(1e15))^2 / 2 and its logarithm for each of three columns
    assert np.isfinite(flow.log_prob_and_grad(far)[1]).all()


def test_only_a_normal_base_gets_them():
    for make in MAKES.values():
        assert isinstance(make(rng=0).flow_layers[-1], LogTails)
        for options in ({"log_tails": None}, {"base_distribution": "student_t"}, {"base_distribution": "uniform"}):
            assert not any(isinstance(layer, LogTails) for layer in make(rng=0, **options).flow_layers)


def test_values_on_circles_stay_as_they_are():
    flow = NeuralSplineFlow(2, 2, (8,), tail_bound=7.0, log_tails=0.5, linear="permutation",
                            support=[support.periodic(0, 360), support.real()], rng=0)  # fmt: skip
    layer = flow.flow_layers[-1]
    assert layer.operation().places == tuple(np.flatnonzero(~flow.base.periodic))
    assert np.isfinite(flow.log_prob([[359.0, 1e6]])).all()


def test_what_a_split_leaves_behind_has_them_too():
    flow = Glow((4, 4, 1), 2, 1, (4,), rng=0)
    assert flow.flow_layers[-1].input_dim == flow.latent_dim
    assert flow.log_prob(np.full((1, 4, 4, 1), 1e6)) > -1e4


def test_a_file_from_before_there_were_any_has_none(tmp_path):
    path = tmp_path / "old.npz"
    flow = MAF(2, 1, (4,), log_tails=None, rng=0)
    flow.save(path)
    with np.load(path) as content:
        arrays = dict(content)
    about = json.loads(str(arrays["about"]))
    del about["config"]["log_tails"], about["checksum"], arrays["checksum"]
    np.savez(path, **{**arrays, "about": np.array(json.dumps(about))})
    x = np.array([[40.0, -3.0]])
    np.testing.assert_array_equal(npflows.load(path).log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("column", [support.positive(), support.below(), support.interval(0, 1)])
def test_the_density_falls_toward_an_open_end(column):
    x = np.random.default_rng(0).uniform(0.2, 0.8, (400, 2))
    if isinstance(column, type(support.below())):
        x = -x
    flow = MAF(2, 1, (4,), support=[column, support.real()], rng=0)
    flow.fit(x, max_epochs=1, validation_fraction=0.0, progress=False, rng=0)
    near = np.column_stack([np.sign(x[0, 0]) * np.array([1e-10, 1e-30, 1e-100]), np.full(3, x[0, 1])])
    log_prob = flow.log_prob(near)
    assert (np.diff(log_prob) < 0).all()
    assert log_prob.max() < 0
