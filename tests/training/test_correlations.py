"""Strongly correlated tables: the standardization takes out the correlations in float64."""

import numpy as np
import pytest
from helpers import SHARED_TOLD

import npflows
from npflows import MAF, NeuralSplineFlow, RealNVP, support

FIT = {"max_epochs": 2, "progress": False, "rng": 0}


def thin(n, seed=0, left=1e-4):
    """Two columns with a correlation of 1 - left^2 / 2, in units of their own, and the density's logarithm."""
    z = np.random.default_rng(seed).standard_normal((n, 2))
    x = np.column_stack([1e3 + 20 * z[:, 0], 0.3 * (np.sqrt(1 - left**2) * z[:, 0] + left * z[:, 1])])
    return x, -0.5 * (z**2).sum(axis=1) - np.log(2 * np.pi) - np.log(20 * 0.3 * left)


def test_a_thin_posterior_is_fitted_to_a_hundredth_of_a_nat():
    x, _ = thin(4000)
    new, truth = thin(4000, 1)
    flow = RealNVP(2, 2, (8,), rng=0).fit(x, **FIT)
    assert (truth - flow.log_prob(new)).mean() == pytest.approx(0, abs=0.01)
    lost = (truth - RealNVP(2, 2, (8,), rng=0).fit(x, standardize="diagonal", **FIT).log_prob(new)).mean()
    assert lost > 2  # and that is what it cures
    np.testing.assert_allclose(np.corrcoef(flow.sample(4000, rng=1).T)[0, 1], np.corrcoef(x.T)[0, 1], rtol=1e-8)


@pytest.mark.parametrize("kind", ["auto", "full", "diagonal", True])
def test_it_says_what_was_chosen(kind):
    x = thin(500)[0]
    flow = MAF(2, 1, (4,), rng=0).fit(x, standardize=kind, **FIT)
    assert (flow.standardize.factor is None) == (kind == "diagonal")
    assert ("without correlations" in repr(flow)) == (kind != "diagonal")


def test_columns_that_are_not_thin_are_left_alone_unless_it_is_asked_for():
    x = np.random.default_rng(0).standard_normal((2000, 3))
    x[:, 1] += x[:, 0]
    assert MAF(3, 1, (4,), rng=0).fit(x, **FIT).standardize.factor is None
    flow = MAF(3, 1, (4,), rng=0).fit(x, standardize="full", **FIT)
    z, _ = flow.standardize.forward(x[:1800])
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.1)


@SHARED_TOLD
def test_weights_count_and_an_outlier_does_not():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 2))
    x[:2000, 1] = x[:2000, 0] + 0.01 * x[:2000, 1]
    weight = np.where(np.arange(4000) < 2000, 1.0, 0.0)
    flow = MAF(2, 1, (4,), rng=0).fit(x, sample_weight=weight, **FIT)
    np.testing.assert_allclose(flow.standardize.factor[1, 0], 1, atol=1e-3)
    x = x[:2000].copy()
    x[7] = [40.0, -40.0]
    flow = MAF(2, 1, (4,), rng=0).fit(x, validation_data=x[1000:], **FIT)
    np.testing.assert_allclose(flow.standardize.factor[1, 0], 1, atol=1e-2)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["auto", "full"])
@pytest.mark.parametrize("wild", [(-99.0, 0), (-99.0, 1), (0.5, 1)])
def test_rows_off_a_thin_table_do_not_decide_its_standardization(kind, wild):
    x, truth = thin(3000)
    x[:10, wild[1]] = wild[0] + (np.linspace(0, 1, 10) if wild[0] > 0 else 0)
    flow = RealNVP(2, 2, (8,), rng=0).fit(x, standardize=kind, **FIT)
    assert (truth - flow.log_prob(x))[10:].mean() == pytest.approx(0, abs=0.1)


def test_circles_and_whole_numbers_are_not_mixed():
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 6, 3000)
    x = np.column_stack([a, np.round(a), a + 1e-3 * rng.standard_normal(3000), a * 2 + 1e-3 * rng.standard_normal(3000)])
    columns = [support.periodic(0, 6), support.integer(0, 6), support.real(), support.real()]
    flow = NeuralSplineFlow(4, 1, (4,), linear="permutation", support=columns, rng=0).fit(x, **FIT)
    factor = flow.standardize.factor
    assert factor is not None
    np.testing.assert_array_equal(factor[:2], np.eye(4)[:2])
    np.testing.assert_array_equal(factor[:, :2], np.eye(4)[:, :2])


def test_a_column_that_is_a_function_of_others_is_not_mixed():
    x = np.random.default_rng(0).standard_normal((2000, 4))
    x[:, 1] = x[:, 0] + 1e-3 * x[:, 1]
    x[:, 2] = 2 * x[:, 0] - x[:, 1] + 3
    with pytest.warns(UserWarning, match="column 2 is a sum of column 0 and column 1"):
        flow = MAF(4, 1, (4,), rng=0).fit(x, **FIT)
    factor = flow.standardize.factor
    np.testing.assert_array_equal(factor[2], np.eye(4)[2])
    np.testing.assert_array_equal(factor[3:, 2], 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_saved_and_continued(tmp_path, dtype):
    x = thin(600)[0]
    flow = MAF(2, 2, (8,), dtype=dtype, rng=0).fit(x, checkpoint=tmp_path / "run.npz", **FIT)
    flow.save(tmp_path / "flow.npz")
    for path in ("flow.npz", "run.npz"):
        again = npflows.load(tmp_path / path)
        np.testing.assert_array_equal(again.standardize.factor, flow.standardize.factor)
        np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))
    resumed = MAF(2, 2, (8,), dtype=dtype, rng=0).fit(x, checkpoint=tmp_path / "run.npz", resume=True, **FIT)
    np.testing.assert_array_equal(resumed.params, flow.params)
    factor = flow.standardize.factor
    flow.fit(x[:300], **FIT)  # a second fit goes on from the first one's units
    np.testing.assert_array_equal(flow.standardize.factor, factor)
    flow.reset(rng=0)
    assert flow.standardize.factor is None


@pytest.mark.parametrize(
    ("flow", "what"),
    [
        (lambda: MAF(2, base_distribution="uniform", rng=0), "a base with bounds"),
        (lambda: npflows.Glow((2, 2, 1), 1, 1, (4,), rng=0), "images"),
    ],
)
def test_what_can_not_be_mixed_is_refused(flow, what):
    made = flow()
    with pytest.raises(ValueError, match=rf'standardize="full" mixes columns, which does not go with {what}'):
        made.fit(np.zeros((4, made.latent_dim)), standardize="full", **FIT)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"standardize must be one of 'auto', 'diagonal', 'full'"):
        MAF(2, rng=0).fit(np.zeros((4, 2)), standardize="whiten")


@pytest.mark.parametrize("factor", [[[1, 1], [0, 1]], [[1, 0], [0, 0]], [[1, 0]], [[np.nan, 0], [0, 1]]])
def test_a_factor_must_be_triangular(factor):
    with pytest.raises(ValueError, match=r"factor must be a lower triangular \(2, 2\) matrix with a positive diagonal"):
        npflows.Standardize(2, 0.0, 1.0, factor)


@pytest.mark.parametrize(("first", "second"), [("diagonal", "full"), ("full", "diagonal")])
def test_a_second_fit_says_that_it_keeps_the_units(first, second):
    x = thin(300)[0]
    flow = MAF(2, 1, (4,), rng=0).fit(x, standardize=first, **FIT)
    with pytest.warns(UserWarning, match=f"units of an earlier fit, which were not standardize='{second}'"):
        flow.fit(x, standardize=second, **FIT)
    flow.fit(x, standardize=first, **FIT)
