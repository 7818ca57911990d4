"""Launches of training steps that are recorded once and then launched together, in numba.cuda's simulator.

    NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_recording.py

A list stands for the CUDA graph; what is asked of a driver to make one is looked at in a stand-in for cuda.core.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from registry import condition, data

from npflows import MAF, NeuralSplineFlow
from npflows.backends.cuda import adam, device, program, recording
from npflows.backends.cuda.recording import CudaGraph, Recordings, SimulatedGraph

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
MAKERS = {
    "MAF": lambda: MAF(3, 2, (4,), condition_dim=2, rng=1, dtype="float64"),
    "embedded condition": lambda: MAF(3, 1, (4,), condition_dim=2, embedding_dims=(3, 2), rng=1),
    "spline": lambda: NeuralSplineFlow(3, 1, (4,), 3, rng=1),
    "dropout": lambda: MAF(3, 1, (6,), dropout=0.4, rng=1),
    "Student's t": lambda: MAF(3, 1, (4,), base_distribution="student_t", rng=1),
}


def spread(flow):
    """A flow of which no part does nothing."""
    theta, free = flow.parameters.theta, flow.parameters.free
    theta[free] += np.random.default_rng(3).normal(scale=0.3, size=free.sum())
    return flow


def steps(flow, sizes, between=lambda flow: None):
    """Parameters, gradients and log-densities of steps with batches of these sizes."""
    executable, theta = flow.executable(), flow.parameters.theta
    optimizer = executable.optimizer(theta, flow.parameters.free, 0.0, None)
    buffers, found = executable.gradient_buffers(set(sizes), theta), []
    x, given = np.random.default_rng(0).normal(size=(max(sizes), 3)), condition(flow, max(sizes))
    for number, n in enumerate(sizes):
        rows, context = x[:n] + 0.1 * number, None if given is None else given[:n]
        dlog, log_prob = np.linspace(-1, 1, n) / n, np.zeros(n)
        flow.accumulate(rows, context, dlog, buffers[n], log_prob=log_prob, key=number + 1)
        found += [log_prob, buffers[n].array.copy_to_host()]
        optimizer.step(buffers[n], 0.02)
        found.append(theta.copy())
        between(flow)
    return found


def one_by_one(monkeypatch):
    monkeypatch.setattr(Recordings, "run", lambda self, key, uses, launches: launches())


def assert_same(found, expected):
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(own, wanted)


@pytest.mark.parametrize("name", MAKERS)
def test_recorded_steps_are_those_launched_one_by_one(name, monkeypatch):
    sizes = (4, 4, 4, 3, 4, 3, 3)
    found = steps(spread(MAKERS[name]().to("cuda")), sizes)
    one_by_one(monkeypatch)
    assert_same(found, steps(spread(MAKERS[name]().to("cuda")), sizes))


def test_from_the_third_step_on_nothing_is_launched_one_by_one(monkeypatch):
    flow, launched, counts = spread(MAKERS["MAF"]().to("cuda")), [], []
    for module in (program, adam):
        for name in ("launch", "launch_blocks"):
            original = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *a, original=original, **o: (launched.append(1), original(*a, **o)))

    def count(flow):
        counts.append(len(launched))
        launched.clear()

    steps(flow, (3, 3, 3, 3), count)
    assert counts[0] == counts[1] > 5  # compiled, recorded
    assert counts[2:] == [0, 0]


def test_what_happens_in_between_changes_nothing(monkeypatch):
    def between(flow):
        flow.log_prob(data(flow, 9), condition(flow, 9))  # takes more memory, elsewhere
        flow.parameters.theta[flow.parameters.free] *= 1.01  # as other parameters, which are copied there anew

    sizes = (4, 4, 4, 4)
    found = steps(spread(MAKERS["MAF"]().to("cuda")), sizes, between)
    one_by_one(monkeypatch)
    assert_same(found, steps(spread(MAKERS["MAF"]().to("cuda")), sizes, between))


def test_recorded_steps_drop_what_the_cpu_does():
    make = lambda: MAF(3, 1, (8,), dropout=0.5, dtype="float64", rng=1)  # noqa: E731
    flows = [spread(make()).to(device) for device in ("cuda", "cpu")]
    n = 6
    rows, dlog, log_prob, expected = data(flows[0], n), np.full(n, 1 / n), np.zeros((4, n)), np.zeros((4, n))
    buffers = flows[0].executable().gradient_buffers({n}, flows[0].parameters.theta)[n]
    for key in range(4):
        flows[0].accumulate(rows, None, dlog, buffers, log_prob=log_prob[key], key=key + 1)
        gradient = np.zeros((1, flows[1].parameters.theta.size))
        flows[1].accumulate(rows, None, dlog, gradient, log_prob=expected[key], key=key + 1)
        free = flows[1].parameters.free
        assert_close(buffers.array.copy_to_host()[free], gradient[0, free])
        assert_close(flows[0].log_prob(rows), flows[1].log_prob(rows))  # drops nothing
    assert_close(log_prob, expected)
    assert (log_prob[2] != log_prob[3]).any()


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_launches_are_made_anew_where_an_array_is_another_or_too_many_are_kept():
    recordings, made = Recordings(), []
    a, b = object(), object()
    launches = lambda: made.append(1)  # noqa: E731
    for uses in ((a,), (a,), (a,), (b,), (b,), (a,)):
        recordings.run("key", lambda uses=uses: uses, launches)
    assert len(made) == 5  # all but the third
    for number in range(2 * recording.MOST):
        recordings.run(number, tuple, launches)
    assert len(recordings._known) == recording.MOST


def test_copies_among_recorded_launches_are_refused_and_the_launches_go_one_by_one():
    array, made = device.empty(3, np.float64), []
    for copies in (
        lambda: device.to_host(array),
        lambda: device.to_device(np.ones(3)),
        lambda: device.empty(2, np.float64),
    ):
        with pytest.raises(RuntimeError, match=r"^memory is copied or taken among launches that are recorded"):
            SimulatedGraph(copies)
    recordings = Recordings()

    def launches():
        made.append(1)
        device.to_host(array)
        return "left"

    assert recordings.run("key", tuple, launches) == "left"
    with pytest.warns(UserWarning, match=r"^launches can't be recorded in a CUDA graph here, and go one by one"):
        assert recordings.run("key", tuple, launches) == "left"
    assert recordings.run("key", tuple, launches) == "left"
    assert len(made) == 4


class Builder:
    """Stands for cuda.core's, whose stream records."""

    def __init__(self, asked):
        self.asked, self.stream = asked, SimpleNamespace(handle=4711)

    def begin_building(self, mode):
        self.asked.append(f"begin {mode}")

    def end_building(self):
        self.asked.append("end")
        return self

    def complete(self):
        return SimpleNamespace(launch=lambda stream: self.asked.append(f"launch on {stream}"))


def test_a_graph_is_recorded_on_a_stream_of_its_own_and_launched_on_the_present_one(monkeypatch):
    asked = []
    stream = SimpleNamespace(create_graph_builder=lambda: Builder(asked))
    gpu = SimpleNamespace(set_current=lambda: asked.append("current"), create_stream=lambda: stream)
    core = SimpleNamespace(Device=lambda number: gpu, Stream=SimpleNamespace(from_handle=lambda handle: handle))
    monkeypatch.setattr(recording, "importlib", SimpleNamespace(import_module=lambda name: core))

    def launches():
        asked.append(f"launches on {device.current_stream()}")
        return "left"

    with device.on(77):
        graph = CudaGraph(launches)
        graph.launch()
        assert device.current_stream() == 77
    assert asked == ["current", "begin relaxed", "launches on 4711", "end", "launch on 77"]
    assert graph.result == "left"

    def failing():
        raise RuntimeError("no")

    del asked[:]
    with device.on(77), pytest.raises(RuntimeError, match="no"):
        CudaGraph(failing)
    assert asked == ["current", "begin relaxed", "end"]
    assert device.current_stream() == 77
