"""Arrays of chains (n_draws, n_chains, input_dim), as samplers give them."""

import numpy as np
import pytest
import registry

import npflows

CHAINS = np.random.default_rng(0).normal(size=(7, 4, 3))


def made(condition_dim: int = 0) -> npflows.MAF:
    return registry.randomize(npflows.MAF(3, 1, (8,), condition_dim=condition_dim, rng=0), strength=0.4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_chains_keep_their_axes(order):
    flow, x = made(), np.array(CHAINS, order=order)
    expected, slopes = flow.log_prob_and_grad(x.reshape(-1, 3))
    np.testing.assert_array_equal(flow.log_prob(x), expected.reshape(7, 4))
    log_prob, slope = flow.log_prob_and_grad(x)
    np.testing.assert_array_equal(log_prob, expected.reshape(7, 4))
    np.testing.assert_array_equal(slope, slopes.reshape(7, 4, 3))


def test_chains_with_one_condition_or_one_for_each_draw():
    flow, conditions = made(2), np.random.default_rng(1).normal(size=(7, 4, 2))
    expected = flow.log_prob(CHAINS.reshape(-1, 3), conditions.reshape(-1, 2)).reshape(7, 4)
    np.testing.assert_array_equal(flow.log_prob(CHAINS, conditions), expected)
    np.testing.assert_array_equal(flow.log_prob(CHAINS, conditions[0, 0])[0, 0], expected[0, 0])
    assert flow.log_prob_and_grad(CHAINS, conditions, wrt="both")[2].shape == (7, 4, 2)


def test_no_draws_and_other_shapes():
    flow = made()
    assert flow.log_prob(CHAINS[:0]).shape == (0, 4)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\)"):
        flow.log_prob(CHAINS[..., :2])
    ensemble = npflows.Ensemble([flow, flow])
    np.testing.assert_array_equal(ensemble.log_prob(CHAINS), flow.log_prob(CHAINS))
