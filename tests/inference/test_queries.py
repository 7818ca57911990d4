"""Queries of a flow agree with what is known exactly and with brute force, and their errors with how far off they are."""

import functools
import math
import sys

import numpy as np
import pytest
import scipy.stats
from query_cases import F8, brute_force, curved, deviations, gaussian, given_normal, normal, points_of
from registry import randomize

from npflows import MAF, NeuralSplineFlow, NormalizingFlow, RealNVP, Standardize, StudentT, Uniform, support
from npflows.diagnostics import memorization, sbc_ranks, tarp_coverage, two_sample_test
from npflows.distribution import cost
from npflows.inference import grid_density
from npflows.inference.grid_density import conditional, marginal
from npflows.inference.information import entropy, kl_divergence
from npflows.inference.mode import mode
from npflows.inference.unit_cube import from_unit_cube, to_unit_cube


class TestMarginal:
    @pytest.mark.parametrize("columns", [[1], [2, 0], [0, 1, 2]])
    def test_of_a_normal_distribution_by_quadrature_is_exact(self, columns):
        flow, mean, covariance = gaussian(3)
        points = flow.sample(40, 0)[:, columns]
        result = marginal(flow, columns, points, rng=0)
        expected = normal(mean, covariance, columns).pdf(points)
        np.testing.assert_allclose(result.density, expected, rtol=1e-4)
        assert (result.error <= 1e-4 * expected).all()
        assert result.method == ("exact" if len(columns) == 3 else "quadrature")
        assert result.columns == tuple(columns)

    @pytest.mark.parametrize("columns", [[3], [4, 1], [0, 2, 3]])
    def test_of_a_normal_distribution_by_importance_sampling_has_true_errors(self, columns):
        flow, mean, covariance = gaussian(6)
        points = flow.sample(30, 0)[:, columns]
        expected = normal(mean, covariance, columns).pdf(points)
        results = [marginal(flow, columns, points, n_samples=40_000, rng=seed) for seed in range(4)]
        off = np.array([deviations(result, expected) for result in results])
        assert 0.7 < math.sqrt((off**2).mean()) < 1.4
        assert abs(off.mean()) < 0.5
        assert (np.median(results[0].error / expected)) < 0.06
        assert results[0].method == "importance"

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("dim", [2, 3])
    def test_of_a_curved_flow_is_that_of_brute_force(self, dim, dtype):
        flow = curved(dim, dtype=dtype)
        for column, axis in enumerate(points_of(flow, 3)):
            expected = [brute_force(flow, {column: value}) for value in axis]
            result = marginal(flow, column, axis, rng=0)
            np.testing.assert_allclose(result.density, expected, rtol=1e-3)
            sampled = marginal(flow, column, axis, method="importance", rng=0)
            assert (np.abs(deviations(sampled, expected)) < 4).all()
            assert (sampled.error < 0.1 * sampled.density).all()

    def test_of_heavy_tails_is_students_t(self):
        flow = NormalizingFlow([Standardize(4, 2.0, 3.0, **F8)], StudentT(4, [2.0, 3.0, 5.0, 1.0], **F8), **F8)
        grid = 2 + 3 * np.array([-30.0, -3.0, 0.0, 1.0, 8.0])
        expected = scipy.stats.t(3.0, 2.0, 3.0).pdf(grid)
        sampled = marginal(flow, 1, grid, rng=0)
        assert (np.abs(deviations(sampled, expected))[1:] < 4).all()
        two = marginal(flow, [1, 2], [grid, [2.0]], rng=0)
        np.testing.assert_allclose(two.density[:, 0], expected * scipy.stats.t(5.0, 2.0, 3.0).pdf(2.0), rtol=1e-3)

    def test_of_a_bounded_flow_is_zero_outside(self):
        flow = NormalizingFlow([Standardize(2, **F8)], Uniform(2, [0.0, -1.0], [2.0, 3.0], **F8), **F8)
        for method in ("quadrature", "importance"):
            result = marginal(flow, 0, [-0.5, 0.1, 1.0, 1.9, 2.5], method=method, n_samples=20_000, rng=0)
            np.testing.assert_allclose(result.density, [0, 0.5, 0.5, 0.5, 0], rtol=0.15)
            assert result.error[0] == result.error[-1] == 0

    @pytest.mark.parametrize("columns", [0, [2, 0]])
    def test_over_the_grid_that_it_chooses_it_integrates_to_one(self, columns):
        result = marginal(curved(3), columns, rng=0)
        axes = [result.grid] if columns == 0 else result.grid
        assert result.density.shape == tuple(len(axis) for axis in axes)
        assert result.density.sum() * np.prod([axis[1] - axis[0] for axis in axes]) == pytest.approx(1, abs=0.01)

    def test_axes_and_points_give_the_same(self):
        flow = curved(3)
        axes = [[0.0, 1.0, 2.0], [0.5, -0.5]]
        product = marginal(flow, [2, 1], axes, rng=0)
        assert product.density.shape == product.error.shape == (3, 2)
        assert [axis.tolist() for axis in product.grid] == axes
        points = np.array([[a, b] for a in axes[0] for b in axes[1]])
        listed = marginal(flow, [2, 1], points, rng=0)
        np.testing.assert_array_equal(listed.density, product.density.ravel())
        swapped = marginal(flow, [1, 2], points[:, ::-1], rng=0)
        np.testing.assert_allclose(swapped.density, listed.density, rtol=1e-4)
        assert marginal(flow, [2], [[0.0], [1.0]][0], rng=0).density.shape == (1,)

    def test_seed_decides(self):
        flow, *_ = gaussian(4)
        options = {"grid": [0.0, 1.0], "n_samples": 5000}
        first, again, other = (marginal(flow, 0, rng=seed, **options).density for seed in (1, np.random.default_rng(1), 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).all()

    def test_names_and_conditions(self):
        flow = randomize(MAF(3, 2, (8,), activation="tanh", condition_dim=1, rng=0, **F8))
        flow.columns = ["redshift", "g", "r"]
        result = marginal(flow, ["r", "redshift"], [[0.0, 0.5], [0.1]], condition=[0.3], rng=0)
        assert result.columns == ("r", "redshift")
        by_index = marginal(flow, [-1, 0], [[0.0, 0.5], [0.1]], condition=[0.3], rng=0)
        np.testing.assert_array_equal(result.density, by_index.density)
        elsewhere = marginal(flow, "r", [0.0, 0.5], condition=[-1.0], rng=0)
        assert elsewhere.columns == ("r",)
        assert (elsewhere.density != marginal(flow, "r", [0.0, 0.5], condition=[0.3], rng=0).density).all()


class TestConditional:
    @pytest.mark.parametrize(
        ("dim", "columns", "held"), [(2, [0], [1]), (3, [2], [0]), (3, [1], [2, 0]), (3, [0, 2], [1]), (4, [3], [0])]
    )
    def test_of_a_normal_distribution_by_quadrature_is_exact(self, dim, columns, held):
        flow, mean, covariance = gaussian(dim)
        given = {i: mean[i] + 0.7 * math.sqrt(covariance[i, i]) for i in held}
        expected = given_normal(mean, covariance, columns, given)
        points = expected.rvs(20, random_state=0).reshape(20, -1)
        result = conditional(flow, columns, given, points if len(columns) > 1 else points[:, 0], rng=0)
        assert result.method == "quadrature"
        np.testing.assert_allclose(result.density, expected.pdf(points), rtol=3e-4)

    @pytest.mark.parametrize(("columns", "held"), [([4], [1]), ([0], [5, 2]), ([3, 1], [0])])
    def test_of_a_normal_distribution_by_importance_sampling_has_true_errors(self, columns, held):
        flow, mean, covariance = gaussian(6)
        given = {i: mean[i] - math.sqrt(covariance[i, i]) for i in held}
        expected = given_normal(mean, covariance, columns, given)
        points = expected.rvs(20, random_state=0).reshape(20, -1)
        grid = points if len(columns) > 1 else points[:, 0]
        results = [conditional(flow, columns, given, grid, n_samples=40_000, rng=seed) for seed in range(4)]
        off = np.array([deviations(result, expected.pdf(points)) for result in results])
        assert 0.5 < math.sqrt((off**2).mean()) < 1.6
        assert results[0].method == "importance"

    def test_of_a_curved_flow_is_that_of_brute_force(self):
        flow = curved(3)
        axes = points_of(flow, 4)
        given = {0: axes[0][1]}
        expected = [brute_force(flow, {**given, 2: value}) / brute_force(flow, given) for value in axes[2]]
        result = conditional(flow, 2, given, axes[2], rng=0)
        np.testing.assert_allclose(result.density, expected, rtol=1e-3)
        sampled = conditional(flow, 2, given, axes[2], method="importance", rng=0)
        assert (np.abs(deviations(sampled, expected)) < 4).all()
        assert (sampled.error < 0.1 * sampled.density).all()

    def test_over_the_grid_that_it_chooses_it_integrates_to_one(self):
        flow = curved(3)
        flow.columns = ["a", "b", "c"]
        result = conditional(flow, "c", {"a": 0.2}, rng=0)
        assert result.columns == ("c",)
        assert result.density.sum() * (result.grid[1] - result.grid[0]) == pytest.approx(1, abs=0.01)
        flow.columns = None

    def test_where_there_is_no_density_is_refused(self):
        flow = NormalizingFlow([Standardize(2, **F8)], Uniform(2, **F8), **F8)
        with pytest.raises(ValueError, match=r"the flow has no density at \{1: 1.5\}"):
            conditional(flow, 0, {1: 1.5}, [0.5], rng=0)

    def test_where_samples_hardly_come_there_is_a_warning(self):
        flow = NormalizingFlow([Standardize(4, **F8)], StudentT(4, 0.5, **F8), **F8)
        randomized = randomize(MAF(5, 2, (12,), rng=0, **F8), strength=1.5)
        with pytest.warns(UserWarning, match="few samples lie near {0: 90000.0, 1: -90000.0, 2: 1.0}"):
            conditional(randomized, 4, {0: 9e4, 1: -9e4, 2: 1.0}, [0.0], method="importance", n_samples=2000, rng=0)
        assert np.isfinite(conditional(flow, 3, {0: 9.0}, [0.0, 9.0], rng=0).density).all()


class TestSupport:
    """Columns that are not on the whole line."""

    COLUMNS = [support.positive(1.0), support.interval(-1.0, 3.0), support.periodic(0.0, 6.0), support.real()]
    EXACT = [
        lambda x: scipy.stats.lognorm(1.0, loc=1.0).pdf(x),
        lambda x: scipy.stats.norm.pdf(np.log((x + 1) / (3 - x))) * 4 / (x + 1) / (3 - x),
        lambda x: np.full(len(x), 1 / 6),
        lambda x: scipy.stats.norm.pdf(x),
    ]

    def flow(self, which):
        return NormalizingFlow([Standardize(len(which), **F8)], support=[self.COLUMNS[i] for i in which], **F8)

    @pytest.mark.parametrize("method", ["quadrature", "importance"])
    @pytest.mark.parametrize("which", [[0, 1], [1, 2], [2, 0], [3, 2, 1]])
    def test_marginals_and_conditionals_of_bounded_columns(self, which, method):
        flow = self.flow(which)
        for ask in (
            lambda: marginal(flow, 0, method=method, n_samples=60_000, rng=0),
            lambda: conditional(flow, 0, {1: 2.0}, method=method, n_samples=60_000, rng=0),
        ):
            result = ask()
            expected = self.EXACT[which[0]](result.grid)
            np.testing.assert_allclose(result.density, expected, atol=5 * result.error.max() + 1e-4 * expected.max())
            assert result.error.max() < 0.2 * expected.max()
            area, exact = (
                (0.5 * (density[1:] + density[:-1]) * np.diff(result.grid)).sum() for density in (result.density, expected)
            )
            assert area == pytest.approx(exact, abs=0.005 if method == "quadrature" else 0.15)
            assert exact > 0.9

    def test_a_circle_has_no_ends(self):
        flow = randomize(
            NeuralSplineFlow(4, 2, (8,), 4, linear="permutation", support={0: support.periodic(0.0, 6.0)}, rng=0, **F8)
        )
        sampled = marginal(flow, 0, [0.0, 6.0, 1e-9, 3.0, -3.0], rng=0)
        np.testing.assert_allclose(sampled.density[:3], sampled.density[0], rtol=1e-6)
        np.testing.assert_allclose(sampled.density[3], sampled.density[4], rtol=1e-6)
        around = flow.sample(200_000, 1)[:, 0]
        counts = [np.sum(np.abs((around - c + 3) % 6 - 3) < 0.05) for c in (0.0, 3.0)]
        np.testing.assert_allclose(sampled.density[[0, 3]], np.array(counts) / 200_000 / 0.1, rtol=0.15)

    def test_outside_the_support_is_no_density(self):
        flow = self.flow([0, 1, 3])
        for method in ("quadrature", "importance"):
            assert marginal(flow, 0, [0.5, 1.0], method=method, rng=0).density.tolist() == [0, 0]
        with pytest.raises(ValueError, match=r"the flow has no density at \{1: 5\}"):
            conditional(flow, 0, {1: 5}, [2.0], rng=0)

    def test_whole_numbers_have_masses(self):
        flow = NormalizingFlow([Standardize(3, **F8)], support={0: support.integer(2, 5), 1: support.positive()}, **F8)
        ends = np.concatenate([[-np.inf], np.log(np.arange(1, 4) / np.arange(3, 0, -1)), [np.inf]])
        masses = np.diff(scipy.stats.norm.cdf(ends))
        result = marginal(flow, 0, method="importance", rng=0)
        assert result.grid.tolist() == [2, 3, 4, 5]
        assert (np.abs(deviations(result, masses)) < 4).all()
        np.testing.assert_allclose(result.density, masses, rtol=0.03)
        # log_prob of whole numbers is itself a mean over random points
        np.testing.assert_allclose(marginal(flow, 0, rng=0).density, masses, rtol=0.1)
        others = scipy.stats.lognorm(1.0).pdf([0.5, 2.0])
        np.testing.assert_allclose(marginal(flow, 1, [0.5, 2.0], n_samples=60_000, rng=0).density, others, rtol=0.15)
        both = marginal(flow, [0, 1], [[2, 3, 3.5, 6], [0.5, 2.0]], n_samples=60_000, method="importance", rng=0).density
        np.testing.assert_allclose(both, np.outer([masses[0], masses[1], 0, 0], others), rtol=0.2)
        given = conditional(flow, 0, {1: 0.5}, n_samples=60_000, rng=0)
        np.testing.assert_allclose(given.density, masses, rtol=0.2)
        assert conditional(flow, 1, {0: 4}, rng=0).density.max() == pytest.approx(
            scipy.stats.lognorm(1.0).pdf(0.37), rel=0.2
        )
        assert conditional(flow, 1, {0: 4}, method="quadrature", rng=0).method == "quadrature"
        with pytest.raises(ValueError, match="quadrature can't integrate over columns of whole numbers"):
            marginal(flow, 1, method="quadrature")

    def test_unit_cube_and_mode_stay_inside(self):
        flow = self.flow([0, 1, 2, 3])
        u = np.stack(np.meshgrid(*[[0.0, 1e-12, 0.3, 1.0]] * 4), -1).reshape(-1, 4)
        x = from_unit_cube(flow, u)
        assert np.isfinite(flow.log_prob(x)).all()
        inner = np.random.default_rng(0).random((100, 4))
        np.testing.assert_allclose(to_unit_cube(flow, from_unit_cube(flow, inner)), inner, rtol=1e-8, atol=1e-12)
        found = mode(self.flow([0, 3]), rng=0)
        np.testing.assert_allclose(found.x, [1 + math.exp(-1), 0], atol=1e-4)
        whole = NormalizingFlow([Standardize(2, **F8)], support=[support.integer(0, 8), support.real()], **F8)
        assert mode(whole, rng=0).x[0] in (0, 3, 4, 5, 8)
        with pytest.raises(ValueError, match="starts must lie inside the support"):
            mode(flow, starts=[[0.5, 0.0, 0.0, 0.0]])


class TestMode:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_of_a_normal_distribution_is_its_mean(self, dtype):
        flow, mean, covariance = gaussian(5, dtype)
        found = mode(flow, rng=0)
        tolerance = {"float32": 2e-3, "float64": 1e-5}[dtype]
        assert (np.abs(found.x - mean) < tolerance * np.sqrt(np.diag(covariance))).all()
        assert found.log_prob == pytest.approx(scipy.stats.multivariate_normal(mean, covariance).logpdf(mean), abs=1e-5)
        assert found.log_prob == flow.log_prob(found.x)

    def test_of_a_curved_flow_is_no_lower_than_any_of_a_fine_grid(self):
        flow = randomize(NeuralSplineFlow(2, 2, (12,), 4, activation="tanh", rng=0, **F8), strength=0.7)
        found = mode(flow, rng=0)
        low, high = np.quantile(flow.sample(4000, 0), (0.01, 0.99), axis=0)
        grid = np.stack(np.meshgrid(*[np.linspace(*ends, 500) for ends in zip(low, high)]), -1).reshape(-1, 2)
        assert found.log_prob >= flow.log_prob(grid).max()
        near = found.x + 1e-3 * np.random.default_rng(0).normal(size=(200, 2))
        assert found.log_prob >= flow.log_prob(near).max()
        np.testing.assert_allclose(mode(flow, rng=1).x, found.x, atol=1e-3)
        np.testing.assert_array_equal(mode(flow, rng=0).x, found.x)

    def test_starts_conditions_and_shapes(self):
        flow = curved(2, condition_dim=1)
        modes = [mode(flow, [c], starts=[[0.0, 0.0], [1.0, 1.0]], rng=0) for c in (-1.0, 1.0)]
        assert modes[0].x.shape == (2,)
        assert not np.allclose(modes[0].x, modes[1].x, atol=0.01)
        assert modes[1].log_prob > flow.log_prob(flow.sample(1000, 5, condition=[1.0]), [1.0]).max() - 1e-9
        assert mode(RealNVP((2, 2, 1), 2, (8,), rng=0), starts=1, rng=0).x.shape == (2, 2, 1)
        bounded = NormalizingFlow([Standardize(2, **F8)], Uniform(2, **F8), **F8)
        assert mode(bounded, starts=2, rng=0).log_prob == 0


class TestEntropyAndDivergence:
    def test_of_normal_distributions_are_known(self):
        flow, mean, covariance = gaussian(3)
        found = entropy(flow, 20_000, rng=0)
        assert abs(found.value - scipy.stats.multivariate_normal(mean, covariance).entropy()) < 4 * found.error
        assert found.error == pytest.approx(math.sqrt(1.5 / 20_000), rel=0.05)
        other = NormalizingFlow([Standardize(3, mean + 0.3, 2.0, **F8)], **F8)
        expected = 0.5 * (np.trace(covariance) / 4 + 3 * 0.09 / 4 - 3 + 3 * math.log(4) - np.linalg.slogdet(covariance)[1])
        for density in (other, other.log_prob, scipy.stats.multivariate_normal(mean + 0.3, 4 * np.eye(3)).logpdf):
            found = kl_divergence(flow, density, 20_000, rng=0)
            assert abs(found.value - expected) < 4 * found.error
            assert found.error < 0.05
        assert kl_divergence(flow, flow, 1000, rng=0).value == pytest.approx(0, abs=1e-12)

    def test_errors_are_true(self):
        flow, mean, covariance = gaussian(2)
        expected = scipy.stats.multivariate_normal(mean, covariance).entropy()
        off = [(e.value - expected) / e.error for e in (entropy(flow, 1000, rng=seed) for seed in range(100))]
        assert 0.8 < np.std(off) < 1.25

    def test_of_a_bounded_flow(self):
        flow = NormalizingFlow([Standardize(2, 0.0, [2.0, 3.0], **F8)], Uniform(2, **F8), **F8)
        assert entropy(flow, 10, rng=0).value == pytest.approx(math.log(6))
        found = kl_divergence(NormalizingFlow([Standardize(2, **F8)], **F8), flow, 100, rng=0)
        assert found.value == math.inf
        assert math.isnan(found.error)

    def test_conditions_go_to_both_or_are_one_for_each_sample(self):
        flow = curved(2, condition_dim=1)
        assert kl_divergence(flow, flow, 500, rng=0, condition=[0.5]).value == pytest.approx(0, abs=1e-12)
        assert kl_divergence(flow, gaussian(2)[0], 500, rng=0, condition=[0.5]).value > 0
        conditions = np.repeat([[-1.0], [1.0]], 10_000, axis=0)
        mean = entropy(flow, 20_000, rng=0, condition=conditions)
        each = [entropy(flow, 20_000, rng=0, condition=[c]).value for c in (-1.0, 1.0)]
        assert abs(mean.value - np.mean(each)) < 6 * mean.error
        assert entropy(flow, 100, rng=3, condition=[0.0]) == entropy(flow, 100, rng=3, condition=[0.0])


def named():
    flow = NormalizingFlow([Standardize(3, **F8)], **F8)
    flow.columns = ["z", "g", "r"]
    return flow


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f: marginal(f, "i"), "columns: the flow has no column 'i'; there are z, g, r"),
        (
            lambda f: marginal(gaussian(3)[0], "z"),
            "numbered from 0, without names; set flow.columns to name them",
        ),
        (lambda f: marginal(f, 3), "columns: the flow has no column 3; there are 3, numbered from 0: z, g, r"),
        (lambda f: marginal(f, 0.5), "columns: the flow has no column 0.5; there are 3, numbered from 0: z, g, r"),
        (lambda f: marginal(f, [0, "z"]), "columns must be at least one column, and none twice"),
        (lambda f: marginal(f, []), "columns must be at least one column"),
        (lambda f: marginal(f, 0, [[0.0, 1.0]]), r"an axis of grid must be finite numbers \(n,\), got shape \(1, 2\)"),
        (lambda f: marginal(f, 0, [0.0, np.nan]), "an axis of grid must be finite numbers"),
        (lambda f: marginal(f, [0, 1], [[0.0]]), r"grid must be a list of 2 axes or an array of points \(n, 2\)"),
        (lambda f: marginal(f, [0, 1], np.zeros((4, 3))), r"grid must be a list of 2 axes or a finite array"),
        (lambda f: marginal(f, [0, 1, 2]), "grid must be given for 3 columns"),
        (lambda f: marginal(f, 0, method="mcmc"), "method must be one of 'auto', 'quadrature', 'importance', got 'mcmc'"),
        (
            lambda f: marginal(gaussian(5)[0], 0, method="quadrature"),
            "quadrature can't integrate over 4 columns, 3 at most",
        ),
        (lambda f: marginal(f, 0, n_samples=10), "n_samples must be a whole number of at least 1000"),
        (lambda f: marginal(f, 0, condition=[1.0]), "this flow takes no condition"),
        (lambda f: conditional(f, 0, {}), "given must be a dict from columns to their values"),
        (lambda f: conditional(f, 0, [1.0]), "given must be a dict from columns to their values"),
        (lambda f: conditional(f, 0, {"i": 1.0}), "given: the flow has no column 'i'; there are z, g, r"),
        (lambda f: conditional(f, 0, {"z": 1.0}), "columns and given must have no column in common"),
        (lambda f: conditional(f, 0, {1: np.inf}), "values in given must be finite numbers, got inf"),
        (lambda f: conditional(f, 0, {1: [1.0, 2.0]}), "values in given must be finite numbers"),
        (lambda f: mode(f, starts=0), "starts must be a whole number of at least 1"),
        (lambda f: mode(f, starts=[[0.0, 1.0]]), r"starts must have shape \(n, 3\)"),
        (lambda f: entropy(f, 1), "n_samples must be a whole number of at least 2"),
        (lambda f: kl_divergence(f, gaussian(2)[0]), "other has 2 columns where this flow has 3"),
        (lambda f: kl_divergence(f, lambda x: x), r"must have shape \(65536,\), got \(65536, 3\)"),
        (lambda f: to_unit_cube(f, [[1.0, 2.0]]), r"x must have shape \(n, 3\)"),
        (lambda f: from_unit_cube(f, [[0.1, 0.2]]), r"u must have shape \(n, 3\)"),
    ],
)
def test_bad_input_gets_one_clear_sentence(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(named())


def test_what_is_no_density_is_refused():
    with pytest.raises(TypeError, match="other must be a flow or a function from x to its log-density, got str"):
        kl_divergence(named(), "normal")


def test_a_default_axis_stays_away_from_open_ends():
    z = np.random.default_rng(0).normal(size=(1000, 2))
    for sign, end in ((1, support.positive()), (-1, support.below(0))):
        x = np.column_stack([z[:, 0], sign * np.exp(z[:, 1])])
        flow = MAF(2, 1, (4,), support=[support.real(), end], rng=0).fit(x, max_epochs=2, rng=0, progress=False)
        found = flow.marginal([1])
        assert found.density.sum() * (found.grid[1] - found.grid[0]) == pytest.approx(1, abs=0.2)


def test_what_would_take_too_much_memory_is_refused_before_anything_is_drawn():
    flow = RealNVP(1000, 1, (4,), rng=0)
    with pytest.raises(ValueError, match=r"262144 of 1000 columns would take 2\.1 GB.* n_samples of at most 134217"):
        flow.marginal([0, 5])


CONDITIONS = np.linspace(-1, 1, 400)[:, None]
LONG = {
    "marginal": (5, 0, lambda flow: flow.marginal([0], n_samples=8000, rng=0), ": fewer n_samples or points of"),
    "conditional": (5, 0, lambda flow: flow.conditional([0], {1: 0.5}, n_samples=8000, rng=0), ": fewer n_samples or"),
    "marginal by quadrature": (3, 0, lambda flow: flow.marginal([0], rng=0), ": fewer points of the grid make it shorter"),
    "conditional by quadrature": (3, 1, lambda flow: flow.conditional([0], {1: 0.5}, condition=[0.1], rng=0), ": fewer p"),
    "entropy": (2, 1, lambda flow: flow.entropy(400, 0, CONDITIONS), ": fewer n_samples make it shorter"),
    "kl_divergence": (2, 0, lambda flow: flow.kl_divergence(flow, 400, 0), ": fewer n_samples make it shorter"),
    "importance_weights": (2, 0, lambda flow: flow.importance_weights(400, flow.log_prob, 0), ": fewer n_samples make it"),
    "mode": (2, 1, lambda flow: flow.mode([0.1], rng=0), ""),
    "sbc_ranks": (2, 1, lambda flow: sbc_ranks(flow, np.zeros((400, 2)), CONDITIONS, 31, 0), ": fewer rows or n_samples"),
    "tarp_coverage": (2, 0, lambda flow: tarp_coverage(flow, np.zeros((400, 2)), n_samples=9, rng=0), ": fewer rows or n_"),
    "memorization": (2, 0, lambda flow: memorization(flow, CONDITIONS * [1, 2], CONDITIONS * [2, 1], rng=0), ": fewer n_"),
    "two_sample_test": (2, 0, lambda flow: two_sample_test(flow, CONDITIONS * [1, 2], classifier=Guess()), ": fewer max_r"),
}


class Guess:
    def fit(self, x, y, sample_weight):
        raise AssertionError("too late")

    predict_proba = fit


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", LONG)
def test_what_will_take_long_is_said_before_more_than_a_few_samples_are_drawn(what, monkeypatch):
    dim, condition_dim, ask, advice = LONG[what]
    flow, drawn = curved(dim, condition_dim=condition_dim), []
    for name in ("sample", "sample_and_log_prob", "sample_each"):
        monkeypatch.setattr(flow, name, counting(getattr(flow, name), drawn))
    monkeypatch.setattr(cost, "SLOW", 0.0)
    monkeypatch.setattr(cost, "CLEAR", 0.0)  # a slow flow, of which as few as may be are timed
    with pytest.raises(UserWarning, match=f"^{what.split()[0]} will take about .* s{advice}"):
        ask(flow)
    assert sum(drawn) <= 64


def counting(function, drawn):
    def call(n, *arguments, **options):
        drawn.append(n)
        return function(n, *arguments, **options)

    return call


def test_what_is_soon_done_is_not_announced_whatever_its_first_call_takes(monkeypatch):
    seconds = iter([0.0, 1.0, 1.0, 5.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(seconds))
    rows = []
    assert cost.seconds_a_row(rows.append, 1000) == 1 / 16
    assert rows == [16, 16, 16]


def test_drawing_shows_how_many_samples_are_there(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(grid_density, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr("npflows.core.progress.Progress.seconds_between_lines", 0.0)
    monkeypatch.setattr("npflows.inference.unconstrained.PIECE_VALUES", 5 * 1024)
    flow = gaussian(5, "float64")[0]
    shown = flow.marginal([0], [0.0], n_samples=4000, rng=0, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["sample 1000/4000", "sample 2024/4000", "sample 3048/4000", "sample 4000/4000", "point 1/1"]
    monkeypatch.undo()
    np.testing.assert_array_equal(shown.density, flow.marginal([0], [0.0], n_samples=4000, rng=0).density)


@pytest.mark.parametrize(("dim", "given"), [(3, {}), (3, {2: 0.5}), (5, {}), (5, {4: 0.0})])
def test_long_work_shows_how_many_points_are_done(dim, given, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(grid_density, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr("npflows.core.progress.Progress.seconds_between_lines", 0.0)
    flow, grid = gaussian(dim, "float64")[0], np.linspace(-1, 1, 7)
    ask = functools.partial(flow.conditional, [0], given) if given else functools.partial(flow.marginal, [0])
    shown = ask(grid, n_samples=4000, rng=0, progress=True)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"point {7 + bool(given)}/{7 + bool(given)}"
    silent = ask(grid, n_samples=4000, rng=0, progress=False)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(shown.density, silent.density)


def test_short_work_shows_nothing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    gaussian(2, "float64")[0].marginal([0], [0.0], progress=True)
    assert capsys.readouterr().err == ""
