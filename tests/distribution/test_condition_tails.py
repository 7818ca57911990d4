"""Conditions far out: they are drawn in by a logarithm, so that no network extrapolates without bound."""

import numpy as np
import pytest

import npflows
from npflows import MAF

RNG = np.random.default_rng(0)
C = RNG.standard_normal((600, 2)) * [2.0, 0.5] + [10.0, -1.0]
X = 0.5 * C[:, :1] + 0.1 * RNG.standard_normal((600, 1))
FIT = {"max_epochs": 3, "validation_fraction": 0.0, "progress": False, "rng": 0}


def conditional(**options):
    flow = MAF(1, 2, (8,), condition_dim=2, activation="tanh", dtype="float64", rng=0, **options)
    flow.params = flow.params + 0.3 * np.random.default_rng(1).standard_normal(flow.num_params)
    return flow


def test_conditions_within_reach_are_standardized_and_nothing_else():
    flow, plain = conditional(), conditional()
    flow.standardize_condition([10.0, -1.0], [2.0, 0.5], tails=5.0)
    plain.standardize_condition([10.0, -1.0], [2.0, 0.5])
    np.testing.assert_array_equal(flow.log_prob(X, C), plain.log_prob(X, C))


@pytest.mark.parametrize("embedding_dims", [(), (3,)])
def test_those_beyond_are_drawn_in(embedding_dims):
    flow = conditional(embedding_dims=embedding_dims)
    flow.standardize_condition([10.0, -1.0], [2.0, 0.5], tails=[4.0, np.inf])
    far = np.array([10.0 - 2.0 * 1004.0, -1.0 + 0.5 * 3.0])
    as_if = np.array([10.0 - 2.0 * (4.0 + np.arcsinh(1000.0)), 0.5])
    plain = conditional(embedding_dims=embedding_dims)
    plain.standardize_condition([10.0, -1.0], [2.0, 0.5])
    np.testing.assert_allclose(flow.log_prob(X, far), plain.log_prob(X, as_if), rtol=1e-12)
    c, n = np.where(np.arange(600)[:, None] % 2, C, far)[:50], 50
    found = flow.forward_vjp(X[:n], np.ones((n, 1)), np.ones(n), c).condition
    for d, h in enumerate(1e-6 * np.abs(far)):
        step = h * np.eye(2)[d]
        (z_up, up), (z_down, down) = (flow.forward(X[:n], c + s * step) for s in (1, -1))
        np.testing.assert_allclose(found[:, d], ((z_up - z_down)[:, 0] + up - down) / (2 * h), rtol=1e-5, atol=1e-10)


def test_a_fit_sets_where_they_begin_and_files_keep_it(tmp_path):
    flow = conditional().fit(X, condition=C, **FIT)
    far = C.mean(axis=0) + C.std(axis=0) * [[1e9, 0.0], [0.0, -1e15]]
    assert np.abs(flow.conditioning.inner(far)).max() < 50
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(X[:2], far), flow.log_prob(X[:2], far))


def test_a_file_without_them_has_none(tmp_path):
    flow = conditional()
    flow.standardize_condition(1.0, 2.0)
    flow.save(tmp_path / "flow.npz")
    with np.load(tmp_path / "flow.npz") as content:
        assert content["standardize_condition"].shape == (2, 2)
    assert np.isinf(npflows.load(tmp_path / "flow.npz").conditioning.table[2]).all()


@pytest.mark.parametrize("mark", [-9999.0, 1e6])
def test_a_mark_in_the_condition_leaves_the_other_rows_alone(mark):
    x, c = X[:, 0:1].copy(), C.copy()
    c[::20, 0] = mark
    with pytest.warns(UserWarning, match=r"of the condition .*pass missing="):
        flow = MAF(1, 3, (16,), condition_dim=2, rng=0).fit(x, condition=c, max_epochs=40, progress=False, rng=0)
    others = np.arange(600) % 20 > 0
    assert flow.log_prob(x[others], c[others]).mean() > 0.4  # the truth is 0.88, and without the condition it is -1.4


@pytest.mark.parametrize("tails", [0.0, -1.0, np.nan, [1.0, 0.0]])
def test_tails_begin_beyond_0(tails):
    with pytest.raises(ValueError, match="tails must be above 0"):
        conditional().standardize_condition(0.0, 1.0, tails)
