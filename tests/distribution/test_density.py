"""Densities integrate to one and samples follow them, at any temperature."""

import numpy as np
import pytest
import scipy.stats
from helpers import scipy_distribution
from registry import build, randomize

from npflows import IAF, MAF, CouplingLayer, IAFLayer, MAFLayer, NormalizingFlow, Permutation, RealNVP

BASES = ["normal", "uniform", "student_t"]
for_every_base = pytest.mark.parametrize("base", BASES)


def plain(dim, **options):
    """A flow of layers that no model arranges so."""
    base, layer_options = options.pop("base_distribution"), {k: options[k] for k in ("dtype", "rng")}
    layers = [IAFLayer(dim, (8,), **options), Permutation(dim, **layer_options), MAFLayer(dim, (8,), **options)]
    if dim > 1:
        layers.append(CouplingLayer([0, 1], (8,), "tanh_gain", **options))
    return NormalizingFlow(layers, base, dtype=options["dtype"])


MAKE = {
    "MAF": lambda dim, **options: MAF(dim, 2, (12,), **options),
    "IAF": lambda dim, **options: IAF(dim, 2, (12,), **options),
    "RealNVP": lambda dim, **options: RealNVP(dim, 3, (12,), **options),
    "flow of layers": plain,
}
CASES = [(name, dim) for name in MAKE for dim in (1, 2) if (name, dim) != ("RealNVP", 1)]
for_every_case = pytest.mark.parametrize(("name", "dim"), CASES, ids=[f"{name} in {dim}-D" for name, dim in CASES])


def make(name, dim, base):
    """A smooth flow with random parameters."""
    options = {"activation": "tanh", "base_distribution": base, "dtype": "float64", "rng": 0}
    return randomize(MAKE[name](dim, **options), seed=dim)


class Grid:
    """Points that cover nearly all of a flow's mass, and the volume that each stands for.

    Toward the ends the points lie ever further apart, so that heavy tails are covered as well; under a uniform base
    they are equally spaced, as the density jumps.
    """

    def __init__(self, flow):
        self.flow, dim = flow, flow.input_dim
        per_axis = {1: 20_001, 2: 701}[dim]
        samples = flow.sample(1000, 0)
        if flow.base.support is None:
            u = (np.arange(per_axis) + 0.5) / per_axis * np.pi - np.pi / 2
            center, width = np.median(samples, axis=0), 2 * np.std(samples, axis=0)
            axes = [c + w * np.tan(u) for c, w in zip(center, width)]
            steps = [w / np.cos(u) ** 2 * np.pi / per_axis for w in width]
        else:
            low, high = samples.min(0), samples.max(0)
            low, high = low - 0.3 * (high - low), high + 0.3 * (high - low)
            u = (np.arange(per_axis) + 0.5) / per_axis
            axes = [a + (b - a) * u for a, b in zip(low, high)]
            steps = [np.full(per_axis, (b - a) / per_axis) for a, b in zip(low, high)]
        self.axes = axes
        self.points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dim)
        self.volume = np.prod(np.meshgrid(*steps, indexing="ij"), axis=0).ravel()

    def mass(self, log_prob):
        """The probability that each point stands for."""
        return np.exp(log_prob) * self.volume

    def tolerance(self):
        """The error of the grid itself, whose coarsest part is the jumps of the density."""
        return 1e-6 if self.flow.base.support is None else {1: 2e-4, 2: 3e-3}[self.flow.input_dim]


def assert_drawn_from(samples, log_prob_of_samples, grid, log_prob):
    """A Kolmogorov-Smirnov test of every column, and in 2-D of log_prob itself, against the density on the grid."""
    mass = grid.mass(log_prob)
    table = mass.reshape([len(axis) for axis in grid.axes])
    for d, axis in enumerate(grid.axes):
        marginal = table.sum(tuple(k for k in range(len(grid.axes)) if k != d))
        between = np.cumsum(marginal) - marginal / 2
        assert scipy.stats.kstest(samples[:, d], lambda v, axis=axis, p=between: np.interp(v, axis, p)).pvalue > 1e-3
    if len(grid.axes) > 1:
        order = np.argsort(log_prob)
        values, below = log_prob[order], np.cumsum(mass[order])
        assert scipy.stats.kstest(log_prob_of_samples, lambda v: np.interp(v, values, below)).pvalue > 1e-3


@for_every_base
@for_every_case
def test_density_integrates_to_one_and_samples_follow_it(name, dim, base):
    flow = make(name, dim, base)
    grid = Grid(flow)
    log_prob = flow.log_prob(grid.points)
    assert grid.mass(log_prob).sum() == pytest.approx(1, abs=grid.tolerance())
    samples = flow.sample(3000, 1)
    assert_drawn_from(samples, flow.log_prob(samples), grid, log_prob)


@pytest.mark.parametrize("temperature", [0.6, 1.7])
@for_every_base
@for_every_case
def test_density_of_what_was_drawn_takes_the_temperature_into_account(name, dim, base, temperature):
    flow = make(name, dim, base)
    grid = Grid(flow)

    def tempered(x):  # a change of variables, by hand
        z, log_det = flow.forward(x)
        cold = flow.base.center + (z - flow.base.center) / temperature
        return scipy_distribution(flow.base).logpdf(cold).sum(1) - dim * np.log(temperature) + log_det

    samples, log_prob = flow.sample_and_log_prob(3000, 1, temperature)
    np.testing.assert_array_equal(samples, flow.sample(3000, 1, temperature))
    np.testing.assert_allclose(log_prob, tempered(samples), rtol=1e-9, atol=1e-9)
    if base != "uniform" or temperature < 1:  # else the grid would have to be wider
        assert grid.mass(tempered(grid.points)).sum() == pytest.approx(1, abs=2 * grid.tolerance())
        assert_drawn_from(samples, log_prob, grid, tempered(grid.points))


@pytest.mark.parametrize("name", ["RealNVP", "MAF, uniform, condition", "IAF, one order, condition", "flow of layers"])
def test_density_of_what_was_drawn_is_log_prob(name):
    flow = build(name)
    condition = np.random.default_rng(0).normal(size=(50, flow.condition_dim)) if flow.condition_dim else None
    x, log_prob = flow.sample_and_log_prob(50, 1, condition=condition)
    np.testing.assert_allclose(log_prob, flow.log_prob(x, condition), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["MAF, uniform, condition", "IAF, one order, condition", "RealNVP, condition"])
def test_condition_changes_the_density(name):
    flow = build(name)
    x = flow.sample(20, 0, condition=np.zeros(flow.condition_dim))
    first = flow.log_prob(x, np.zeros(flow.condition_dim))
    assert not np.isclose(flow.log_prob(x, np.full(flow.condition_dim, 0.5)), first).any()


@for_every_base
def test_temperature_scales_the_spread_around_the_center(base):
    flow = MAF(2, 1, (4,), base_distribution=base, dtype="float64")
    flow.standardize.set([5.0, -1.0], [2.0, 0.1])
    center = flow.inverse(flow.base.center)[0]
    warm, cold = (flow.sample(50, 3, temperature) - center for temperature in (1.0, 0.25))
    np.testing.assert_allclose(cold, 0.25 * warm, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf, "hot", None])
def test_impossible_temperature_is_refused(temperature):
    flow = MAF(2, 1, (4,))
    for draw in (flow.sample, flow.sample_and_log_prob):
        with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
            draw(3, 0, temperature)


@for_every_base
def test_units_of_the_user_are_those_of_the_density(base):
    """Measuring in millimeters instead of meters lowers log_prob by log(1000) for each column."""
    flow = make("MAF", 2, base)
    x = flow.sample(20, 0)
    in_meters = flow.log_prob(x)
    flow.standardize.set(1000 * flow.standardize.loc, 1000 * flow.standardize.scale)
    np.testing.assert_allclose(flow.log_prob(1000 * x), in_meters - 2 * np.log(1000), rtol=1e-9)
