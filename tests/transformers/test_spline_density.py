"""The density of a spline flow integrates to one before and after training, and has tails."""

import numpy as np
import pytest
from registry import randomize

from npflows import (
    NeuralSplineFlow,
)


def axis_of(flow):
    return np.linspace(-10, 10, {1: 200_001, 2: 1201}[flow.input_dim])


def mass(flow):
    """The integral of the density over [-10, 10] in each column."""
    axis = axis_of(flow)
    points = np.stack(np.meshgrid(*[axis] * flow.input_dim, indexing="ij"), -1).reshape(-1, flow.input_dim)
    return np.exp(flow.log_prob(points)).sum() * (axis[1] - axis[0]) ** flow.input_dim


def table(dim, n=1500):
    """Two clumps, in 2-D bent ones."""
    rng = np.random.default_rng(0)
    x = rng.choice([-1.2, 0.8], (n, 1)) + 0.3 * rng.normal(size=(n, 1))
    return x if dim == 1 else np.hstack([x, np.sin(2 * x) + 0.4 * rng.normal(size=(n, 1))])


FLOWS = {
    "one column": lambda **o: NeuralSplineFlow(1, 2, **o),
    "one column, few bins": lambda **o: NeuralSplineFlow(1, 3, num_bins=3, tail_bound=2.0, **o),
} | {
    f"{conditioner}, {linear}": lambda c=conditioner, li=linear, **o: NeuralSplineFlow(
        2, 2, (16,), 5, conditioner=c, linear=li, affine_ends=False, **o
    )
    for conditioner in ("coupling", "autoregressive")
    for linear in ("lu", "permutation")
}


@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one_before_and_after_training_and_has_tails(name):
    flow = FLOWS[name](dtype="float64", rng=0)
    x, tolerance = table(flow.input_dim), {1: 1e-7, 2: 2e-4}[flow.input_dim]
    assert mass(flow) == pytest.approx(1, abs=tolerance)
    flow.fit(x, max_epochs=0, progress=False)  # sets the units alone
    before = flow.log_prob(x).mean()
    flow.fit(x, max_epochs=12, batch_size=128, learning_rate=1e-2, rng=0, progress=False)
    assert flow.log_prob(x).mean() > before + 0.2
    assert mass(flow) == pytest.approx(1, abs=tolerance)
    spread = np.array([3.0, 10.0, 100.0, 1e6])[:, None] * flow.tail_bound * x.std(0)
    for sign in (-1, 1):
        log_prob = flow.log_prob(x.mean(0) + sign * spread)
        assert np.isfinite(log_prob).all()
        assert (np.diff(log_prob) < 0).all()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one_for_random_parameters(name, seed):
    flow = randomize(FLOWS[name](dtype="float64", rng=seed), seed)
    tolerance = {1: 1e-5, 2: 1e-3}[flow.input_dim]
    assert mass(flow) == pytest.approx(1, abs=tolerance)
