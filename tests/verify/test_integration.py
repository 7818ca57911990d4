"""The integrals of `verify`: quadrature, bridge sampling, and the maps of a space to the cube."""

import math

import numpy as np
import pytest
import scipy.stats

from npflows import MAF
from npflows.verify import integration, verify
from npflows.verify.integration import Mixture, bridge, lobatto, quadrature
from npflows.verify.space import Axes, Space

INTEGRAL = "integral of the density"
LINE, HALF, INTERVAL = (-np.inf, np.inf), (0.0, np.inf), (0.0, 1.0)
DENSITIES = {
    "normal": (scipy.stats.norm(3, 0.2), LINE),
    "spike": (scipy.stats.norm(0.123, 1e-7), LINE),
    "heavy tails": (scipy.stats.t(1), LINE),
    "jumps": (scipy.stats.uniform(-1, 2.7), LINE),
    "half-line": (scipy.stats.lognorm(2.0), HALF),
    "half-line, jump at its end": (scipy.stats.expon(), HALF),
    "interval": (scipy.stats.beta(0.7, 3), INTERVAL),
}


def space_of(*ends):
    return Space(*np.array(ends, float).T)


@pytest.mark.parametrize("name", DENSITIES)
def test_quadrature_integrates_densities_of_one_column(name):
    p, ends = DENSITIES[name]
    result = quadrature(lambda x: p.logpdf(x[:, 0]), p.rvs((1000, 1), random_state=0), space_of(ends))
    assert abs(result.value - 1) < max(3e-6, 2 * result.error)
    assert result.error < (1e-3 if name == "interval" else 1e-6)  # which goes to infinity at its end


def test_quadrature_follows_a_ridge_and_a_jump_in_two_columns():
    ridge = scipy.stats.multivariate_normal([1, 2], [[1, 0.9995], [0.9995, 1]])
    result = quadrature(ridge.logpdf, ridge.rvs(2000, random_state=0), space_of(LINE, LINE))
    assert abs(result.value - 1) < 1e-5

    def triangle(x):
        return np.where((x > 0).all(axis=1) & (x.sum(axis=1) < 1), np.log(2), -np.inf)

    samples = np.random.default_rng(0).dirichlet(np.ones(3), 2000)[:, :2]
    result = quadrature(triangle, samples, space_of(LINE, LINE))
    assert abs(result.value - 1) < result.error < 1e-2


def test_quadrature_of_half_a_density_is_half():
    p = scipy.stats.norm()
    result = quadrature(lambda x: p.logpdf(x[:, 0]) - np.log(2), p.rvs((100, 1), random_state=0), space_of(LINE))
    assert result.value == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_lobatto_rule_is_exact_for_polynomials(n):
    nodes, weights = lobatto(n)
    for power in range(2 * n - 2):
        assert weights @ nodes**power == pytest.approx(1 / (power + 1), rel=1e-12)
    assert abs(weights @ nodes ** (2 * n - 2) - 1 / (2 * n - 1)) > 1e-9


def test_maps_of_a_space_are_undone_and_know_their_slope():
    space = Space(np.array([-np.inf, 1.0, -np.inf, 2.0]), np.array([np.inf, np.inf, 5.0, 2.5]))
    rng = np.random.default_rng(0)
    t = rng.normal(size=(50, 4))
    x, log_slope = space.from_unconstrained(t)
    np.testing.assert_allclose(space.to_unconstrained(x), t, atol=1e-9)
    ends = [
        np.diagonal([space.from_unconstrained(t[i] + h * np.eye(4))[0] for i in range(50)], axis1=1, axis2=2)
        for h in (1e-6, -1e-6)
    ]
    np.testing.assert_allclose(np.log((ends[0] - ends[1]) / 2e-6).sum(1), log_slope, atol=1e-6)
    axes = Axes(x, space)
    u = rng.uniform(0.01, 0.99, (50, 4))
    y, log_slope = axes.x(u)
    np.testing.assert_allclose(axes.u(y), u, atol=1e-12)
    ends = [np.diagonal([axes.x(u[i] + h * np.eye(4))[0] for i in range(50)], axis1=1, axis2=2) for h in (1e-6, -1e-6)]
    np.testing.assert_allclose(np.log((ends[0] - ends[1]) / 2e-6).sum(1), log_slope, atol=1e-6)


def test_bridge_sampling_is_right_within_its_error(monkeypatch):
    monkeypatch.setattr(integration, "PROPOSAL_ROWS", 400)
    line = space_of(LINE, LINE, LINE)

    def log_density(x):  # integrates to 0.3
        return np.log(0.3) - np.abs(x).sum(axis=1) - 3 * np.log(2)

    found = [
        bridge(log_density, lambda n, g: g.laplace(size=(n, 3)), 1000, line, np.random.default_rng(i)) for i in range(30)
    ]
    pulls = np.array([(result.value - 0.3) / result.error for result in found])
    assert abs(pulls.mean()) < 0.6
    assert 0.7 < pulls.std() < 1.4
    assert max(result.error for result in found) < 0.02


def test_bridge_sampling_stays_inside_bounds():
    p = scipy.stats.beta(2, 5), scipy.stats.expon(), scipy.stats.norm()

    def log_density(x):
        return sum(part.logpdf(x[:, j]) for j, part in enumerate(p))

    def draw(n, g):
        return np.stack([part.rvs(n, random_state=g) for part in p], axis=1)

    result = bridge(log_density, draw, 2000, space_of(INTERVAL, HALF, LINE), np.random.default_rng(0))
    assert abs(result.value - 1) < 4 * result.error < 0.1


def test_bridge_sampling_says_when_it_knows_nothing():
    rng, line = np.random.default_rng(0), space_of(LINE, LINE, LINE)
    result = bridge(lambda x: np.full(len(x), np.nan), lambda n, g: g.normal(size=(n, 3)), 100, line, rng)
    assert math.isnan(result.value)
    assert result.error == math.inf
    many = MAF(101, 1, (101,), rng=0)
    assert verify(many, many.sample(3, 0), rng=0)[INTEGRAL].verdict == "inconclusive"
    result = bridge(lambda x: -x.sum(axis=1), lambda n, g: np.zeros((0, 3)), 100, line, rng)
    assert result.error == math.inf


def test_mixture_is_a_density_that_its_samples_follow():
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(size=(600, 1)) - 5, 0.2 * rng.normal(size=(400, 1)) + 3])
    mixture = Mixture(samples, rng)
    grid = np.linspace(-60, 60, 200_001)
    p = np.exp(mixture.log_density(grid[:, None]))
    assert p.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-4)
    drawn = mixture.sample(3000, rng)[:, 0]
    between = np.cumsum(p) * (grid[1] - grid[0])
    assert scipy.stats.kstest(drawn, lambda v: np.interp(v, grid, between)).pvalue > 1e-3
