"""Questions whose answer is one number draw their samples piece by piece."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

import npflows
from npflows.base import StudentT
from npflows.inference import drawing
from npflows.support import integer, periodic, positive, real

SUPPORT = [positive(), real(), integer(0, 3)]


def bent(**options):
    """A flow of no simple form."""
    flow = npflows.MAF(3, 2, (8,), **{"rng": 0, **options})
    flow.params = np.random.default_rng(1).normal(0, 0.3, flow.num_params)
    return flow


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 10 samples of three values."""
    monkeypatch.setattr(drawing, "LEAST_ROWS", 10)
    monkeypatch.setattr(drawing, "PIECE_VALUES", 30)


FLOWS = {
    "plain": lambda: bent(),
    "a learned base": lambda: bent(base_distribution=npflows.Normal(3, learnable=True)),
    "heavy tails": lambda: bent(base_distribution=StudentT(3)),
    "a uniform base": lambda: npflows.NeuralSplineFlow(3, 1, (4,), base_distribution="uniform", rng=0),
    "supports": lambda: bent(support=SUPPORT),
}


@pytest.mark.parametrize("name", FLOWS)
def test_pieces_give_the_same_numbers_to_the_bit(name, request):
    flow, other = FLOWS[name](), lambda x: -np.abs(x).sum(axis=1)
    whole = flow.entropy(95, 0), flow.kl_divergence(bent(), 95, 0), flow.kl_divergence(other, 95, 0)
    weights = flow.importance_weights(95, other, 0)
    request.getfixturevalue("small_pieces")
    assert [len(piece.x) for piece in drawing.draw(flow, 95, np.random.default_rng(0))] == [10] * 9 + [5]
    assert (flow.entropy(95, 0), flow.kl_divergence(bent(), 95, 0), flow.kl_divergence(other, 95, 0)) == whole
    again = flow.importance_weights(95, other, 0)
    np.testing.assert_array_equal(again.x, weights.x)
    np.testing.assert_array_equal(again.log_weights, weights.log_weights)


def test_every_piece_has_its_own_conditions():
    flow = npflows.ConditionalRealNVP(3, 1, rng=0)
    flow.params = flow.params + np.random.default_rng(1).normal(0, 0.1, flow.num_params)
    conditions = np.linspace(-2, 2, 95)[:, None]
    for condition in (conditions, [0.5], [[0.5]]):
        whole = flow.entropy(95, 0, condition), flow.kl_divergence(bent(), 95, 0, condition)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(drawing, "LEAST_ROWS", 10)
            patch.setattr(drawing, "PIECE_VALUES", 30)
            assert (flow.entropy(95, 0, condition), flow.kl_divergence(bent(), 95, 0, condition)) == whole
    with pytest.raises(ValueError, match="condition must have one row, or one for each of the 95 samples, got 3"):
        flow.entropy(95, 0, condition=np.zeros((3, 1)))


def test_circles_are_drawn_in_pieces_too(small_pieces):
    flow = npflows.NeuralSplineFlow(3, 1, (4,), linear="permutation", support={0: periodic(0, 5)}, rng=0)
    expected = np.log(5) + 2 * scipy.stats.norm.entropy()
    found = flow.entropy(2000, 0)
    assert abs(found.value - expected) < 4 * found.error < 0.2


def test_the_mode_is_found_from_few_of_the_samples(monkeypatch):
    flow = bent(dtype="float64", activation="tanh")
    whole = flow.mode(rng=0)
    monkeypatch.setattr(drawing, "LEAST_ROWS", 100)
    monkeypatch.setattr(drawing, "PIECE_VALUES", 3 * 4096)
    found = flow.mode(rng=0)
    assert found.log_prob == pytest.approx(whole.log_prob, abs=1e-6)
    np.testing.assert_allclose(found.x, whole.x, atol=1e-3)
    assert found.log_prob >= flow.sample_and_log_prob(65536, 0).log_prob.max()


@pytest.mark.parametrize(
    "ask",
    [lambda flow, n: flow.entropy(n, 0), lambda flow, n: flow.kl_divergence(lambda x: -x[:, 0], n, 0)],
    ids=["entropy", "kl_divergence"],
)
def test_memory_does_not_grow_with_the_samples_of_a_wide_flow(ask):
    d, n = 1000, 30_000
    flow = npflows.NormalizingFlow([npflows.Permutation(d)], base_distribution=npflows.Normal(d, learnable=True))
    ask(flow, 10)
    tracemalloc.start()
    ask(flow, n)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.25 * n * d * 8
