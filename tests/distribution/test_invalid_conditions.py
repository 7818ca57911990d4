"""Conditions that are not finite: NaN in, NaN out, row by row, for densities; refused, with row and column, for samples."""

import numpy as np
import pytest

from npflows import MAF, ConditionalRealNVP, NeuralSplineFlow, base, diagnostics, plotting, support

RNG = np.random.default_rng(0)
C = RNG.standard_normal((40, 2))
X = np.round(C[:, :1] + RNG.standard_normal((40, 1)))
OPTIONS = {"max_epochs": 1, "rng": 0, "progress": False, "batch_size": 16}
FLOWS = {
    "MAF": lambda: MAF(1, 1, (8,), condition_dim=2, rng=0),
    "spline flow": lambda: NeuralSplineFlow(1, 1, (8,), tail_bound=5, condition_dim=2, rng=0),
    "float64, an interval": lambda: NeuralSplineFlow(
        1, 1, (8,), tail_bound=5, condition_dim=2, support=[support.interval(-9, 9)], dtype="float64", rng=0),
    "whole numbers": lambda: NeuralSplineFlow(
        1, 1, (8,), tail_bound=5, condition_dim=2, support=[support.integer(-9, 9)], rng=0),
    "uniform base": lambda: NeuralSplineFlow(
        1, 1, (8,), linear="permutation", condition_dim=2, base_distribution=base.Uniform(1, -3, 3), rng=0),
    "embedding": lambda: MAF(1, 1, (8,), condition_dim=2, embedding_dims=(4,), rng=0),
}  # fmt: skip
HOLES = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "too large": 1e300}
FITTED = {}


@pytest.fixture(params=FLOWS)
def flow(request):
    if request.param not in FITTED:
        FITTED[request.param] = FLOWS[request.param]().fit(X, condition=C, **OPTIONS)
    return FITTED[request.param]


@pytest.fixture(params=HOLES)
def holes(request):
    """Conditions of which row 3 lacks a value."""
    condition = C[:6].copy()
    condition[3, 1] = HOLES[request.param]
    return condition


def test_densities_are_nan_in_the_rows_whose_condition_is_not_finite(flow, holes):
    x, lost, dz = X[:6], np.arange(6) == 3, np.ones((6, 1))
    found = {
        "log_prob": flow.log_prob(x, holes),
        "forward": flow.forward(x, holes),
        "inverse": flow.inverse(np.zeros((6, 1)), holes)[1],
        "log_prob_and_grad": flow.log_prob_and_grad(x, holes)[: 1 if flow.preprocessing.has_integers else 2],
        "__call__": flow(x, holes)["log_prob_x"],
        "forward_vjp": flow.forward_vjp(x, dz, 1.0, holes).input,
        "condition": flow.forward_vjp(x, dz, 1.0, holes).condition,
        "inverse_vjp": flow.inverse_vjp(np.zeros((6, 1)), dz, 1.0, holes).input,
        "to_unit_cube": flow.to_unit_cube(x, holes),
    }
    clean = np.where(lost[:, None], 0.0, holes)
    for name, values in found.items():
        for value in values if isinstance(values, tuple) else (values,):
            np.testing.assert_array_equal(np.isnan(value.reshape(6, -1)).all(axis=1), lost, err_msg=name)
    np.testing.assert_array_equal(found["log_prob"][~lost], flow.log_prob(x, clean)[~lost])
    assert np.isnan(flow.bits_per_dim(x, holes))
    loss, gradient = flow.nll_and_grad(x, condition=holes)
    assert np.isnan(loss)
    assert np.isnan(gradient).all()
    loss, gradient = flow.nll_and_grad(x, 1.0 - lost, holes)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_one_condition_for_all_rows_is_like_one_for_each(flow):
    assert np.isnan(flow.log_prob(X, [np.nan, 0.0])).all()
    assert np.isnan(flow.log_prob(X[0], [0.0, np.inf]))
    assert np.isfinite(flow.log_prob(X, [0.0, 0.0])).any()


QUERIES = {
    "sample": lambda f, c: f.sample(6, 0, condition=c),
    "sample_and_log_prob": lambda f, c: f.sample_and_log_prob(6, 0, condition=c),
    "sample_each": lambda f, c: f.sample_each(2, c, 0),
    "from_unit_cube": lambda f, c: f.from_unit_cube(np.full((6, 1), 0.5), c),
    "entropy": lambda f, c: f.entropy(6, 0, c),
    "kl_divergence": lambda f, c: f.kl_divergence(f, 6, 0, c),
}
OF_ONE = {
    "marginal": lambda f, c: f.marginal(0, condition=c),
    "mode": lambda f, c: f.mode(c, rng=0),
}


@pytest.mark.parametrize("query", QUERIES)
def test_queries_are_refused_with_row_and_column(flow, holes, query):
    with pytest.raises(
        ValueError, match=rf"{query} needs a finite condition: column 1 of row 3 is .*; leave such rows out"
    ):
        QUERIES[query](flow, holes)


@pytest.mark.parametrize("query", OF_ONE)
def test_queries_of_one_condition_are_refused(flow, holes, query):
    with pytest.raises(ValueError, match=rf"{query} needs a finite condition: column 1 of row 0 is"):
        OF_ONE[query](flow, holes[3])


def test_diagnostics_pictures_and_layers_set_from_data_refuse_them_too(flow, holes):
    for call, name in (
        (lambda: diagnostics.pit(flow, X[:6], holes), "condition"),
        (lambda: diagnostics.sbc_ranks(flow, X[:6], holes, 3, 0, bins=2), "condition"),
        (lambda: diagnostics.memorization(flow, X[:6], X[:6], train_condition=C[:6], held_out_condition=holes),
         "held_out_condition"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"a diagnostic needs a finite {name}: column 1 of row 3 is"):
            call()
    with pytest.raises(ValueError, match="initialize needs a finite condition: column 1 of row 3"):
        flow.initialize(X[:6], condition=holes)
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="a density needs a finite condition: column 1 of row 3"):
        plotting.density_1d(flow, condition=holes)


def test_a_condition_is_named_in_the_message():
    flow = ConditionalRealNVP(2, 2, 1, (8,), rng=0)
    flow.condition_columns = ["u", "g"]
    with pytest.raises(ValueError, match="sample needs a finite condition: g of row 0 is nan; leave such rows out"):
        flow.sample(3, condition=[0.0, np.nan])
    with pytest.raises(ValueError, match="u of row 1 is inf, and 1 more rows have such values"):
        flow.sample(3, condition=[[0.0, 0.0], [np.inf, 0.0], [0.0, np.nan]])
    with pytest.raises(ValueError, match=r"u of row 0 is 1e\+30, beyond the range of float32; leave"):
        flow.sample(3, condition=[1e30, np.nan])


def test_large_conditions_are_taken_where_they_are_large_throughout():
    unit = 1e40
    flow = MAF(1, 1, (8,), condition_dim=2, rng=0).fit(X, condition=C * unit, **OPTIONS)
    small = MAF(1, 1, (8,), condition_dim=2, rng=0).fit(X, condition=C, **OPTIONS)
    np.testing.assert_allclose(flow.log_prob(X, C * unit), small.log_prob(X, C), rtol=1e-4)
    assert np.isfinite(flow.sample(5, 0, condition=C[0] * unit)).all()


def test_many_conditions_are_looked_at_in_pieces():
    flow = MAF(1, 1, (8,), condition_dim=2, rng=0)
    condition = np.zeros((70_000, 2), np.float32)
    condition[[3, 69_999]] = np.nan
    found = np.isnan(flow.log_prob(np.zeros((70_000, 1)), condition))
    assert np.flatnonzero(found).tolist() == [3, 69_999]
    assert np.isfinite(flow.log_prob(np.zeros((70_000, 1)), np.zeros((70_000, 2), int))).all()
