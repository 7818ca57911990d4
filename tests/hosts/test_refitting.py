"""The flow that samplers fit again and again: what it keeps, what it is told, and what it needs that is not there."""

import importlib
import pickle
import sys

import numpy as np
import pytest
from helpers import same_bits

import npflows
from npflows.core.threads import at_most_threads
from npflows.hosts.refitting import RefittedFlow, standardize

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 3)) @ np.array([[1.0, 0.9, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 2.0]]) + [5, -3, 0]
WEIGHT = RNG.uniform(0.1, 1, 400)


def made(rng=0, **options):
    flow = npflows.MAF(3, num_layers=2, hidden_dims=(16,), rng=rng)
    return RefittedFlow(3, flow, rng, **{"patience": 20, **options})


def test_points_are_standardized_anew_by_their_weights_and_correlations():
    flow = npflows.MAF(3, num_layers=1, hidden_dims=(8,), rng=0)
    for x in (X, 1e-3 * X[::-1]):  # the points have drawn together
        standardize(flow, x, WEIGHT)
        table = npflows.NormalizingFlow([flow.standardize]).forward(x)[0]
        share = WEIGHT / WEIGHT.sum()
        np.testing.assert_allclose(share @ table, 0, atol=1e-5)
        np.testing.assert_allclose(np.cov(table.T, aweights=share, ddof=0), np.eye(3), atol=1e-5)


def test_columns_without_spread_and_columns_that_follow_from_others_are_no_trouble():
    flow = npflows.MAF(3, num_layers=1, hidden_dims=(8,), rng=0)
    constant = np.column_stack([X[:, 0], np.full(400, 2.0), X[:, 2]])
    standardize(flow, constant)
    assert flow.standardize.scale[1] == 1
    standardize(flow, np.column_stack([X[:, 0], X[:, 0], X[:, 2]]))
    assert np.isfinite(flow.log_prob(X)).all()
    standardize(flow, X[:4])
    assert flow.standardize.factor is None


def test_the_second_fit_begins_with_the_first_ones_parameters():
    found = made(max_epochs=30)
    found.fit(X, WEIGHT)
    before = found.flow.params
    found.fit(2 * X + 1, WEIGHT)
    assert found.n_fits == 2
    # the same shape, moved and stretched: what was learned holds, and the loss can only fall from there
    again = made()
    again.flow.params = before
    standardize(again.flow, 2 * X + 1, WEIGHT)
    loss = -(WEIGHT * again.flow.log_prob(2 * X + 1)).sum() / WEIGHT.sum()
    assert -(WEIGHT * found.flow.log_prob(2 * X + 1)).sum() / WEIGHT.sum() < loss + 0.1
    assert loss < 8.0


def test_the_same_seed_gives_the_same_flow_and_so_does_its_copy():
    first, second = made(rng=4, max_epochs=5), made(rng=4, max_epochs=5)
    first.fit(X, WEIGHT)
    second.fit(X, WEIGHT)
    copied = pickle.loads(pickle.dumps(first))
    for found in (first, second, copied):
        found.fit(X[:300])
    same_bits(first.flow, second.flow)
    same_bits(first.flow, copied.flow)


def test_fits_are_silent_and_leave_settings_alone(recwarn):
    threads = npflows.get_num_threads()
    found = made(max_epochs=3, learning_rate=10.0)
    found.fit(X)
    assert npflows.get_num_threads() == threads
    assert not recwarn.list
    assert np.isfinite(found.flow.log_prob(X)).all()


def test_at_most_threads_holds_in_its_block_alone():
    npflows.set_num_threads(3)
    with at_most_threads(1):
        assert npflows.get_num_threads() == 1
        with at_most_threads(2):
            assert npflows.get_num_threads() == 2
    assert npflows.get_num_threads() == 3
    npflows.set_num_threads(1)
    with at_most_threads(2):
        assert npflows.get_num_threads() == 1


def test_flows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="flow must have 3 columns, as the problem has, got 2"):
        npflows.hosts.pocomc(3, flow=npflows.MAF(2, rng=0))
    with pytest.raises(ValueError, match="flow must have no support"):
        npflows.hosts.pocomc(1, flow=npflows.NeuralSplineFlow(1, support=[npflows.support.positive()], rng=0))
    with pytest.raises(ValueError, match="flow must take no condition"):
        npflows.hosts.pocomc(2, flow=npflows.ConditionalRealNVP(2, 1, rng=0))
    with pytest.raises(TypeError, match="flow must be a NormalizingFlow, got str"):
        npflows.hosts.pocomc(2, flow="maf6")
    with pytest.raises(ValueError, match="n_dim must be a whole number of at least 1, got 0"):
        npflows.hosts.pocomc(0)
    with pytest.raises(ValueError, match="sample_weight: the sampler gives these itself"):
        npflows.hosts.pocomc(2, sample_weight=[1.0])
    with pytest.raises(TypeError, match="max_epoch"):
        npflows.hosts.pocomc(2, max_epoch=3)


def test_points_and_weights_that_do_not_fit_are_refused():
    flow = npflows.hosts.pocomc(2, rng=0)
    x = X[:50, :2].copy()
    with pytest.raises(ValueError, match=r"weights must have length 50, one for each row, got shape \(3,\)"):
        flow.fit(x, np.ones(3))
    with pytest.raises(ValueError, match="weights must not be negative"):
        flow.fit(x, -np.ones(50))
    with pytest.raises(ValueError, match=r"x must have shape \(n, 2\), got \(400, 3\)"):
        flow.fit(X)
    with pytest.raises(ValueError, match="points x must be finite, but there are no rows"):
        flow.fit(x[:0])
    x[7] = 1.0, np.nan
    with pytest.raises(ValueError, match=r"points x must be finite, but row 7 of 50 is \[1.0, nan\]"):
        flow.fit(x)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"npflows.hosts.pocomc needs PyTorch, as pocoMC does: pip install pocomc"):
        npflows.hosts.pocomc(2, rng=0).sample(3)
    for name in [name for name in sys.modules if name.partition(".")[0] == "nessai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "npflows.hosts.nessai", raising=False)
    monkeypatch.setitem(sys.modules, "nessai", None)
    with pytest.raises(ImportError, match=r"npflows.hosts.nessai needs nessai: pip install"):
        importlib.import_module("npflows.hosts.nessai")
