"""The CUDA backend in numba.cuda's simulator, where no GPU is:

    NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated.py

Every entry of the registry on a few samples against the reference backend; steps of training against the CPU; what must not
change.  It needs the package numba-cuda.
"""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from registry import ALL, LAYERS, build, condition, data, source

import npflows
from npflows import MAF, ConditionalGaussianMixture, Glow, NeuralSplineFlow, NormalizingFlow
from npflows.backends.cuda import program
from npflows.backends.reference import BACKEND as REFERENCE
from npflows.core import backend as backends
from npflows.core import evaluation

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
N = 2
CASES = [(name, "float64", N + i % 2) for i, name in enumerate(ALL)] + [(name, "float32", N) for name in list(LAYERS)[::6]]
"""Entries with so many samples: few (products.FEW) and many in turn."""
TOLERANCE = {"float32": (5e-5, 1e-3), "float64": (1e-12, 1e-9)}
"""How far values and gradients may be off, measured against the largest of their kind where that is above 1."""


def assert_close(actual, expected, tolerance):
    """Equal up to rounding."""
    largest = np.abs(expected).max(initial=1.0, where=np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest)


def both(program, dtype):
    """The program on both backends."""
    return [backend.compile(program, dtype) for backend in (backends.select("cuda"), REFERENCE)]


@pytest.mark.parametrize(("name", "dtype", "n"), CASES)
def test_every_entry_is_what_the_reference_says(name, dtype, n):
    """Either direction with its gradients, and the density."""
    obj, rng = build(name, dtype), np.random.default_rng(6)
    of_values, of_gradients = TOLERANCE[dtype]
    is_flow, free = isinstance(obj, NormalizingFlow), obj.parameters.free
    pair = both(obj.program(with_base=False) if is_flow else obj.program(), obj.dtype)
    given = {"state": obj.state(), "condition": condition(obj, n)}
    for inverse in (False, True):
        x = source(obj, n, "inverse" if inverse else "forward")
        own, expected = (evaluation.transport(one, x=x, inverse=inverse, **given) for one in pair)
        assert_close(own.y, expected.y, of_values)
        assert_close(own.log_det, expected.log_det, of_values)
        slopes = {"dy": rng.normal(size=x.shape), "dlog": rng.normal(size=n), "input": True, "inverse": inverse}
        own, expected = (evaluation.pullback(one, x=x, **slopes, **given) for one in pair)
        assert_close(own.dx, expected.dx, of_gradients)
        assert_close(own.dcondition, expected.dcondition, of_gradients)
        assert_close(own.gradient[free], expected.gradient[free], of_gradients)
    if is_flow:
        given |= {"x": data(obj, n), "bijection": obj.preprocessing.bijection}
        own, expected = (evaluation.pullback(one, dlog=slopes["dlog"], **given) for one in both(obj.program(), obj.dtype))
        assert_close(own.log_prob, expected.log_prob, of_values)
        assert_close(own.gradient[free], expected.gradient[free], of_gradients)


MAKERS = {
    "MAF": lambda: MAF(3, 2, (6,), dropout=0.3, condition_dim=1, base_distribution="student_t", dtype="float64", rng=1),
    "spline": lambda: NeuralSplineFlow(3, 1, (5,), 3, activation="silu", dtype="float64", rng=1),
    "conditional mixture": lambda: on_conditional_mixture("float64"),
    "Glow": lambda: Glow((2, 2, 1), 1, 1, (3,), activation="tanh", dtype="float64", rng=1),
}


def on_conditional_mixture(dtype):
    """A flow whose base and layers both see an embedded condition."""
    base = ConditionalGaussianMixture(3, 2, 2, (5,), dtype=dtype, rng=1)
    return MAF(3, 1, (4,), condition_dim=2, embedding_dims=(3, 2), base_distribution=base, dtype=dtype, rng=1)


def three_steps(flow, keys=(1, 2, 3)):
    """Parameters and their moving average after steps of training with all that there is to them."""
    n = 11
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (n, *flow.input_shape)) if len(flow.input_shape) > 1 else rng.normal(size=(n, 3))
    flow.initialize(x, condition=condition(flow, n))
    rows = flow.preprocessing.scatter(x.reshape(n, -1).astype(float), np.random.default_rng(0))
    program, theta = flow.executable(), flow.parameters.theta
    optimizer = program.optimizer(theta, flow.parameters.free, 0.1, 0.5)
    average, buffers = theta.copy(), program.gradient_buffers({n}, theta)[n]
    for key in keys:
        flow.accumulate(rows, condition(flow, n), np.full(n, -1 / n), buffers, log_prob=np.zeros(n), key=key)
        assert optimizer.step(buffers, 0.02, average, 0.3).taken
    return theta, average, optimizer.m, optimizer.v


@pytest.mark.parametrize("name", MAKERS)
def test_training_goes_where_it_goes_on_the_cpu(name):
    """With the same random masks, and with the same bits each time.

    On the CPU parameters that begin 1e-15 off end 2e-6 off, and first moments 1e-8: where a gradient is 0 but for rounding
    Adam takes steps along the rounding.
    """
    on_cpu, on_gpu, again = (three_steps(MAKERS[name]().to(device)) for device in ("cpu", "cuda", "cuda"))
    for own, expected, second, tolerance in zip(on_gpu, on_cpu, again, (2e-5, 2e-5, 1e-7, 1e-10)):
        np.testing.assert_allclose(own, expected, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(own, second)


@pytest.mark.parametrize("name", ["MAF", "spline", "conditional mixture"])
def test_few_samples_are_the_same_to_the_bit(name, monkeypatch):
    """Where some threads only help to multiply, in both directions of a step."""
    trained = []
    for few in (0, 100):
        monkeypatch.setattr(program, "FEW", few)
        trained.append(three_steps(MAKERS[name]().to("cuda")))
    for one, other in zip(*trained):
        np.testing.assert_array_equal(one, other)


def test_a_fit_and_its_questions_are_those_of_the_cpu():
    x = np.random.default_rng(0).normal(size=(40, 2)) @ [[1.0, 0.5], [0.0, 0.2]]
    options = {"max_epochs": 2, "batch_size": 32, "rng": 3, "progress": False, "ema": 0.5, "learning_rate": 0.02}
    flows = [MAF(2, 1, (4,), rng=1, dtype="float64").to(device).fit(x, **options) for device in ("cpu", "cuda")]
    assert [flow.device for flow in flows] == ["cpu", "cuda"]
    for question in (
        lambda flow: flow.params,
        lambda flow: flow.log_prob(x),
        lambda flow: flow.log_prob_and_grad(x[:5])[1],
        lambda flow: flow.sample(7, rng=1),
        lambda flow: flow.nll_and_grad(x[:5])[1],
        lambda flow: np.array(flow.history["train_loss"]),
    ):
        np.testing.assert_allclose(question(flows[1]), question(flows[0]), rtol=1e-8, atol=1e-10)


def test_a_fit_resumes_to_the_bit(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 2))
    options = {"batch_size": 15, "rng": 3, "progress": False, "ema": 0.5, "learning_rate": 0.02, "schedule": "constant"}
    whole = MAF(2, 1, (4,), rng=1).to("cuda").fit(x, max_epochs=4, **options)
    file = tmp_path / "run.npz"
    MAF(2, 1, (4,), rng=1).to("cuda").fit(x, max_epochs=2, checkpoint=file, **options)
    resumed = MAF(2, 1, (4,), rng=1).to("cuda").fit(x, max_epochs=4, checkpoint=file, resume=True, **options)
    np.testing.assert_array_equal(resumed.params, whole.params)


def test_numbers_of_rows_may_come_in_any_order():
    flow, x = MAF(2, 1, (4,), rng=0).to("cuda"), np.random.default_rng(0).normal(size=(9, 2))
    whole = flow.log_prob(x)
    for n in (2, 9, 1, 5, 9, 2):
        np.testing.assert_array_equal(flow.log_prob(x[:n]), whole[:n])
        assert flow.nll_and_grad(x[:n])[0] == pytest.approx(-whole[:n].mean(), rel=1e-6)


def test_flows_on_several_threads_do_not_disturb_each_other():
    flows = [MAF(2, 1, (4,), rng=seed).to("cuda") for seed in (0, 1)]
    x = np.random.default_rng(0).normal(size=(6, 2))
    expected = [flow.log_prob(x) for flow in flows]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: flows[i % 2].log_prob(x), range(6)))
    for i, log_prob in enumerate(found):
        np.testing.assert_array_equal(log_prob, expected[i % 2])


def test_a_table_that_does_not_fit_goes_in_pieces(monkeypatch):
    flow = MAF(3, 1, (5,), condition_dim=1, dtype="float64", rng=0).to("cuda")
    x, given, slopes = data(flow, 11), condition(flow, 11), np.arange(11.0)
    whole = flow.pullback(x, given, dlog=slopes, input=True)
    y = flow.transport(x, given).y
    monkeypatch.setattr(flow.executable(), "chunk_rows", 4)
    # as training does, in one call
    gradient, log_prob = np.zeros((1, flow.parameters.theta.size)), np.zeros(11)
    flow.accumulate(x, given, slopes, gradient, log_prob=log_prob)
    np.testing.assert_allclose(gradient[0], whole.gradient, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(log_prob, whole.log_prob)
    np.testing.assert_array_equal(flow.transport(x, given).y, y)


def test_what_is_not_there_is_told_as_on_the_cpu():
    flow = MAF(2, 1, (4,), dtype="float64", rng=0)
    x = np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0], [1e30, -1e30]])
    expected = flow.log_prob(x)
    log_prob = flow.to("cuda").log_prob(x)
    assert np.isnan(log_prob[1])
    assert log_prob[2] == -np.inf
    np.testing.assert_allclose(log_prob, expected, rtol=1e-12)
    assert flow.log_prob(x[:0]).shape == (0,)
    assert flow.sample(0).shape == (0, 2)


def test_copies_and_files_know_no_device(tmp_path):
    flow = MAF(2, 1, (4,), rng=0).to("cuda")
    expected = flow.log_prob(np.ones((2, 2)))
    flow.save(tmp_path / "flow.npz")
    for other in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow), npflows.load(tmp_path / "flow.npz")):
        assert other.device == "cpu"
    again = npflows.load(tmp_path / "flow.npz", device="cuda")
    assert again.device == "cuda"
    np.testing.assert_array_equal(again.log_prob(np.ones((2, 2))), expected)
    assert flow.to("cpu").device == "cpu"
