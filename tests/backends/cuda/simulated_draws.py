"""Samples of base distributions drawn on the GPU, in numba.cuda's simulator: the numbers of the CPU but for rounding.

NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_draws.py
"""

import numpy as np
import pytest
from registry import condition

from npflows import (
    MAF,
    Beta,
    ConditionalGaussianMixture,
    NeuralSplineFlow,
    Normal,
    NormalizingFlow,
    Permutation,
    StudentT,
    Uniform,
)
from npflows.backends.cuda import arrays
from npflows.base import Cauchy, Cylinder, GaussianMixture, Laplace, Logistic
from npflows.core.counters import in_pieces
from npflows.support import periodic, positive

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
BASES = {
    "normal": lambda: Normal(3, dtype="float64"),
    "normal, scaled": lambda: Normal(3, [1, 2, 3], [0.5, 1, 2], learnable=True, dtype="float64"),
    "uniform": lambda: Uniform(3, [0, -1, 2], [1, 2, 5], dtype="float64"),
    "Student's t": lambda: StudentT(3, [0.1, 4.0, 1e6], dtype="float64"),
    "cylinder": lambda: Cylinder(3, [False, True, False], 2.0, dtype="float64"),
    "beta": lambda: Beta(3, dtype="float64"),
    "beta, flat": lambda: Beta(3, 0.7, 2.0, dtype="float64"),
    "Laplace": lambda: Laplace(3, [1, 0, -1], [1, 2, 0.5], dtype="float64"),
    "Cauchy": lambda: Cauchy(3, scale=0.5, dtype="float64"),
    "logistic": lambda: Logistic(3, 1.0, learnable=True, dtype="float64"),
    "mixture": lambda: GaussianMixture(3, 4, scale=0.3, weights=[1, 2, 3, 4], dtype="float64", rng=1),
    "mixture of one": lambda: GaussianMixture(3, 1, dtype="float64", rng=1),
}


def flow_on(base, device):
    return NormalizingFlow([Permutation(3, dtype="float64")], BASES[base](), dtype="float64").to(device)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_samples_are_those_of_the_cpu_to_rounding(base, temperature):
    flows = [flow_on(base, device) for device in ("cpu", "cuda")]
    for n in (0, 1, 7):
        expected, answer = (flow.sample(n, 5, temperature) for flow in flows)
        np.testing.assert_allclose(answer, expected, rtol=1e-13, atol=1e-14)
    found = [flow.sample_and_log_prob(7, 5, temperature) for flow in flows]
    np.testing.assert_allclose(found[1].x, found[0].x, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(found[1].log_prob, found[0].log_prob, rtol=1e-12)
    np.testing.assert_array_equal(found[1].x, answer)


@pytest.mark.parametrize("base", BASES)
def test_samples_in_pieces_are_those_of_one_call(base, monkeypatch):
    flow = flow_on(base, "cuda")
    expected = flow.sample(11, 5)
    generator = in_pieces(np.random.default_rng(5))
    pieces = [flow.sample(n, generator) for n in (1, 3, 2, 5)]  # which begin in the middle of a pair
    np.testing.assert_array_equal(np.concatenate(pieces), expected)
    monkeypatch.setattr(flow.executable(), "chunk_rows", 3)
    np.testing.assert_array_equal(flow.sample(11, 5), expected)
    generators = [np.random.default_rng(5) for _ in range(2)]
    flow.sample(4, generators[0])
    flow_on(base, "cpu").sample(4, generators[1])
    assert generators[0].random() == generators[1].random()  # as many numbers are taken from a Generator


def test_draws_stay_on_the_gpu(monkeypatch):
    flow = MAF(3, 1, (4,), condition_dim=2, rng=1).to("cuda")
    given = condition(flow, 5)
    expected = flow.sample(5, 2, condition=given)
    monkeypatch.setattr(Normal, "draw", lambda *_: pytest.fail("drawn on the host"))
    np.testing.assert_array_equal(flow.sample(5, 2, condition=given), expected)
    flow.sample_and_log_prob(5, 2, condition=given)


def test_supports_and_conditions_are_as_on_the_cpu():
    makers = (
        lambda: NeuralSplineFlow(2, 1, (4,), 2, support={0: positive(), 1: periodic(0, 2)}, dtype="float64", rng=1),
        lambda: NeuralSplineFlow(3, 1, (4,), 2, condition_dim=2, dtype="float64", rng=1),
    )
    for make in makers:
        flows = [make().to(device) for device in ("cpu", "cuda")]
        given = condition(flows[0], 6)
        expected, answer = (flow.sample(6, 3, condition=given) for flow in flows)
        np.testing.assert_allclose(answer, expected, rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match=r"^sample needs a finite condition"):
        flows[1].sample(6, 3, condition=np.where(given > given.min(), given, np.nan))
    with pytest.raises(ValueError, match=r"^temperature must be"):
        flows[1].sample(6, 3, -1.0, condition=given)


def test_a_base_with_a_network_draws_as_on_the_cpu():
    def make(device):
        base = ConditionalGaussianMixture(3, 2, 3, (4,), dtype="float64", rng=1)
        options = {"condition_dim": 2, "embedding_dims": (3, 2), "base_distribution": base, "dtype": "float64", "rng": 1}
        flow = MAF(3, 1, (4,), **options)
        flow.parameters.theta[flow.parameters.free] += np.random.default_rng(3).normal(size=flow.num_params) / 5
        return flow.to(device)

    flows = [make(device) for device in ("cpu", "cuda")]
    given = condition(flows[0], 6)
    for where in (given, given[0]):
        expected, answer = (flow.sample(6, 3, 0.7, condition=where) for flow in flows)
        np.testing.assert_allclose(answer, expected, rtol=1e-12, atol=1e-13)
        found = [flow.sample_and_log_prob(6, 3, condition=where) for flow in flows]
        np.testing.assert_allclose(found[1].log_prob, found[0].log_prob, rtol=1e-12)
        on_gpu = flows[1].sample(6, 3, 0.7, condition=arrays.give(where, None))
        np.testing.assert_array_equal(on_gpu.get(), answer)
    assert flows[1].sample(0, 3, condition=given[:0]).shape == (0, 3)
