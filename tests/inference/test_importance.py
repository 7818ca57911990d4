"""`importance_weights`: what the weights, the effective sample size and the log-evidence with its error are worth."""

import math

import numpy as np
import pytest

import npflows
from npflows.core.statistics import effective_sample_size
from npflows.inference import importance
from npflows.inference.importance import ImportanceWeights

LOC, SCALE = np.array([1.0, -2.0]), np.array([0.7, 1.4])
EVIDENCE = math.log(3.0) + math.log(2 * math.pi) + np.log(SCALE).sum()


def gaussian(x):
    """3 times a normal density without its constant: its integral is exp(EVIDENCE)."""
    return math.log(3.0) - 0.5 * (((x - LOC) / SCALE) ** 2).sum(axis=1)


def proposal(dtype="float64"):
    """A flow that is a normal density, near the target and wider."""
    flow = npflows.RealNVP(2, 2, (8,), dtype=dtype, rng=0)  # starts as the identity
    flow.standardize.set(LOC + 0.3, 1.3 * SCALE)
    return flow


def bent(dtype="float64"):
    """A flow of no simple form."""
    flow = npflows.MAF(2, 2, (8,), dtype=dtype, rng=0)
    flow.params = np.random.default_rng(1).normal(0, 0.3, flow.num_params)
    flow.standardize.set([100.0, -0.01], [20.0, 1e-3])
    return flow


@pytest.mark.parametrize(("dtype", "room"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("constant", [0.0, -7.5, 1e3])
def test_a_flow_is_its_own_perfect_proposal(constant, dtype, room):
    flow = bent(dtype)
    result = flow.importance_weights(500, lambda x: flow.log_prob(x) + constant, 0)
    assert result.ess == pytest.approx(500, rel=room)
    assert result.log_evidence == pytest.approx(constant, abs=max(room, 1e-12 * constant))
    assert result.elbo == pytest.approx(constant, abs=max(room, 1e-12 * constant))
    assert result.log_evidence_error < 1e-6
    np.testing.assert_allclose(result.weights, 1 / 500, rtol=10 * room)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(4))
def test_the_evidence_of_a_gaussian_is_right_within_its_error(seed, dtype):
    result = proposal(dtype).importance_weights(2000, gaussian, seed)
    assert abs(result.log_evidence - EVIDENCE) < 4 * result.log_evidence_error < 0.1
    assert result.elbo < EVIDENCE - 0.05


@pytest.mark.parametrize("n", [20, 500])
def test_the_quoted_error_is_the_spread_over_seeds(n):
    flow = proposal()
    results = [flow.importance_weights(n, gaussian, seed) for seed in range(400)]
    estimates = np.array([result.log_evidence for result in results])
    quoted = math.sqrt(np.mean([result.log_evidence_error**2 for result in results]))
    assert estimates.std() == pytest.approx(quoted, rel=0.15)
    assert np.exp(estimates).mean() == pytest.approx(math.exp(EVIDENCE), rel=5 * quoted / 20)


def test_weighted_samples_are_samples_of_the_target():
    result = proposal().importance_weights(20000, gaussian, 1)
    mean = result.weights @ result.x
    assert result.weights.sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(mean, LOC, atol=0.05)
    np.testing.assert_allclose(np.sqrt(result.weights @ (result.x - mean) ** 2), SCALE, rtol=0.03)
    assert np.abs(result.x.mean(axis=0) - LOC).min() > 0.2, "the samples are right without weights: the test shows nothing"


def test_the_weights_are_density_over_density():
    flow = bent()
    result = flow.importance_weights(50, lambda x: -np.abs(x).sum(axis=1), 3)
    np.testing.assert_array_equal(result.x, flow.sample(50, 3))
    np.testing.assert_allclose(result.log_weights, -np.abs(result.x).sum(axis=1) - flow.log_prob(result.x), rtol=1e-9)


def test_the_effective_sample_size_is_that_of_kong():
    log_weights = np.log([1.0, 2.0, 3.0, 4.0])
    for shift in (0.0, 1e4, -1e4):  # whatever the unit of p
        result = ImportanceWeights(np.zeros((4, 2)), log_weights + shift)
        assert result.ess == pytest.approx(100 / 30)
        assert result.log_evidence == pytest.approx(shift + math.log(2.5))
        np.testing.assert_allclose(result.weights, [0.1, 0.2, 0.3, 0.4])
    shares = np.array([1.0, 2.0, 3.0, 4.0]) / 2.5
    assert result.log_evidence_error == pytest.approx(shares.std(ddof=1) / 2)
    assert effective_sample_size(np.array([5.0, -1e3, -1e3]), log=True) == 1


def test_where_the_density_is_zero_the_weight_is_zero():
    def half(x):
        return np.where(x[:, 0] > LOC[0], gaussian(x), -np.inf)

    result = proposal().importance_weights(4000, half, 2)
    outside = result.x[:, 0] <= LOC[0]
    assert 500 < outside.sum() < 3500
    assert (result.weights[outside] == 0).all()
    assert (result.weights[~outside] > 0).all()
    assert result.elbo == -math.inf
    assert abs(result.log_evidence - (EVIDENCE - math.log(2))) < 4 * result.log_evidence_error < 0.2
    inside = result.log_weights[~outside]
    assert result.ess == pytest.approx(effective_sample_size(inside, log=True))


def test_a_density_that_is_zero_at_all_samples_has_no_evidence():
    result = proposal().importance_weights(5, lambda x: np.full(len(x), -np.inf), 0)
    assert (result.ess, result.log_evidence, result.log_evidence_error, result.elbo) == (0, -math.inf, math.inf, -math.inf)
    assert "log_evidence=-inf +- inf" in repr(result)


def test_a_density_that_is_zero_at_all_samples_has_weights_of_zero():
    result = proposal().importance_weights(5, lambda x: np.full(len(x), -np.inf), 0)
    np.testing.assert_array_equal(result.weights, np.zeros(5))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_density_that_is_no_number_is_refused_with_its_place(bad):
    flow, third = proposal(), proposal().sample(10, 0)[3]
    with pytest.raises(ValueError, match=rf"a number or -inf, got {bad} at x = \[") as caught:
        flow.importance_weights(10, lambda x: np.where(np.arange(len(x)) == 3, bad, 0.0), 0)
    assert str(third) in str(caught.value)


SHAPES = {
    "a column": lambda x: np.zeros((len(x), 1)),
    "one number": lambda x: 0.0,
    "too few": lambda x: np.zeros(len(x) - 1),
    "a value for each column": lambda x: x,
    "a tuple that begins with a column": lambda x: (np.zeros((len(x), 1)), x),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_density_of_another_shape_is_refused(name):
    with pytest.raises(ValueError, match=r"log-density of x \(10, 2\) must have shape \(10,\), got \("):
        proposal().importance_weights(10, SHAPES[name], 0)


FORMS = {
    "float32": lambda x: gaussian(x).astype(np.float32),
    "list": lambda x: gaussian(x).tolist(),
    "with the gradient": lambda x: (gaussian(x), -x),
    "with more": lambda x: (gaussian(x), -x, "anything"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_density_may_come_in_any_form(name):
    result, expected = (proposal().importance_weights(300, density, 4) for density in (FORMS[name], gaussian))
    np.testing.assert_allclose(result.log_weights, expected.log_weights, rtol=1e-5, atol=1e-5)
    assert result.log_weights.dtype == np.float64


def test_without_a_density_there_is_nothing_to_weigh():
    with pytest.raises(ValueError, match=r"needs log_density=: this flow has not been fitted by fit_variational"):
        proposal().importance_weights(10)
    fitted = proposal().fit(np.random.default_rng(0).normal(size=(50, 2)), max_epochs=1, rng=0, progress=False)
    with pytest.raises(ValueError, match="needs log_density="):
        fitted.importance_weights(10)


@pytest.mark.parametrize("n", [0, -1, 2.5, "3", None])
def test_a_number_of_samples_that_can_not_be_is_refused(n):
    with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1"):
        proposal().importance_weights(n, gaussian)


def test_the_same_seed_gives_the_same_samples_and_weights():
    flow = bent()
    first, again, from_generator, other = (
        flow.importance_weights(100, gaussian, rng) for rng in (7, 7, np.random.default_rng(7), 8)
    )
    for result in (again, from_generator):
        np.testing.assert_array_equal(result.x, first.x)
        np.testing.assert_array_equal(result.log_weights, first.log_weights)
    assert not np.array_equal(other.x, first.x)
    assert not np.array_equal(*(flow.importance_weights(5, gaussian).x for _ in range(2)))


def test_one_sample_has_no_error():
    result = proposal().importance_weights(1, gaussian, 0)
    assert result.x.shape == (1, 2)
    assert result.ess == 1
    assert result.weights.tolist() == [1.0]
    assert result.log_evidence == result.elbo == result.log_weights[0]
    assert result.log_evidence_error == math.inf
    assert "n=1, ess=1.0" in repr(result)


def test_the_flow_is_left_as_it_was():
    flow = proposal()
    before = flow.params, flow.standardize.table.copy(), dict(flow.history), repr(flow)
    flow.importance_weights(100, gaussian, 0)
    for a, b in zip(before, (flow.params, flow.standardize.table, flow.history, repr(flow))):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="needs log_density="):
        flow.importance_weights(100)


def test_a_density_may_write_into_its_x_and_the_samples_are_the_users():
    def spoiling(x):
        log_density = gaussian(x)
        x[:] = 0
        return log_density

    result, clean = (proposal().importance_weights(10, density, 0) for density in (spoiling, gaussian))
    np.testing.assert_array_equal(result.x, clean.x)
    np.testing.assert_array_equal(result.log_weights, clean.log_weights)
    result.x[:] = 0


def test_many_samples_are_weighed_in_pieces_and_in_order(monkeypatch):
    asked = []

    def density(x):
        asked.append(len(x))
        return gaussian(x)

    whole = proposal().importance_weights(250, density, 0)
    monkeypatch.setattr(importance, "PIECE", 100)
    pieces = proposal().importance_weights(250, density, 0)
    assert asked == [250, 100, 100, 50]
    np.testing.assert_array_equal(pieces.log_weights, whole.log_weights)


def test_images_keep_their_shape_and_the_density_sees_rows():
    flow, seen = npflows.RealNVP((2, 2, 2), 2, (8,), rng=0), []

    def density(x):
        seen.append(x)
        return -0.5 * (x**2).sum(axis=1)

    result = flow.importance_weights(30, density, 0)
    assert result.x.shape == (30, 2, 2, 2)
    np.testing.assert_array_equal(seen[0], result.x.reshape(30, 8))
    assert result.log_evidence == pytest.approx(4 * math.log(2 * math.pi), abs=1e-4)


def test_its_repr_says_how_good_it_is():
    result = ImportanceWeights(np.zeros((4, 2)), np.log([1.0, 2.0, 3.0, 4.0]))
    assert repr(result) == "ImportanceWeights(n=4, ess=3.3, log_evidence=0.91629 +- 0.26, elbo=0.79451)"
