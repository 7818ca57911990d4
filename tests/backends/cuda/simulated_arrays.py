"""Arrays that lie on the GPU, in numba.cuda's simulator: what goes in is not copied, and what comes out lies there.

    NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_arrays.py

Stand-ins have the interfaces that arrays of CuPy, PyTorch and JAX have.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from registry import condition, data

from npflows import MAF, NeuralSplineFlow, RealNVP
from npflows.backends.cuda import arrays, device, program
from npflows.core.gpu_arrays import is_on_gpu
from npflows.training.held import HeldRows

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
N = 6


class ByInterface:
    """An array with ``__cuda_array_interface__`` alone."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__array_interface__, "version": 3, "stream": None}


class ByDlpack:
    """An array with DLPack, which notes the streams that it was asked for."""

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream=None, **options):
        self.streams.append(stream)
        return self.array.__dlpack__(**options)

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


KINDS = [ByInterface, ByDlpack]
WAYS = {
    "as it is": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "whole numbers": lambda x: np.rint(x).astype(np.int16),
    "Fortran": np.asfortranarray,
    "every second column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
}


@pytest.fixture(scope="module")
def flow():
    return MAF(3, 2, (5,), condition_dim=2, dtype="float64", rng=1).to("cuda")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_the_numbers_are_those_of_numpy_arrays(flow, kind, way):
    x, given = WAYS[way](data(flow, N)), condition(flow, N)
    for method in (flow.log_prob, flow.forward, flow.inverse):
        for other in (given, kind(WAYS[way](given.astype(x.dtype)))):
            expected = method(x, given if other is given else other.array)
            answer = method(kind(x), other)
            for own, wanted in zip(*((one if isinstance(one, tuple) else (one,)) for one in (answer, expected))):
                assert is_on_gpu(own)
                assert (own.shape, own.dtype) == (wanted.shape, np.float64)
                np.testing.assert_array_equal(own.get(), wanted)


def test_what_comes_out_has_both_interfaces_and_goes_in_again(flow):
    x, given = data(flow, N), condition(flow, N)
    z, _ = flow.forward(ByDlpack(x), given)
    expected = flow.forward(x, given)[0]
    np.testing.assert_array_equal(np.from_dlpack(z), expected)
    interface = z.__cuda_array_interface__
    assert (interface["shape"], interface["typestr"], interface["version"]) == ((N, 3), "<f8", 3)
    assert interface["stream"] is None  # all work is done
    assert z.__dlpack_device__() == (2, 0)
    assert (len(z), z.ndim, repr(z)) == (N, 2, "GpuArray(shape=(6, 3), dtype=float64)")
    np.testing.assert_allclose(flow.inverse(z, given)[0].get(), x, atol=1e-10)


def test_nothing_is_copied_and_the_owner_is_told_the_stream(flow):
    x = ByDlpack(data(flow, N))
    for kind in (x, ByInterface(x.array)):
        assert np.shares_memory(arrays.take(kind, "x")._ary, x.array)
    assert x.streams == [1]  # CUDA's legacy default stream, on which everything runs here
    before = x.array.copy()
    flow.log_prob(x, condition(flow, N))
    flow.inverse(x, condition(flow, N))
    assert x.streams == [1, 1, 1]
    np.testing.assert_array_equal(x.array, before)


def test_the_stream_of_the_interface_is_waited_for_and_another_gpu_refused(flow, monkeypatch):
    seen = []

    def found(values, stream_ptr):
        seen.append((values, stream_ptr))
        return SimpleNamespace(is_device_accessible=True, device_id=1)

    x = ByDlpack(data(flow, N))
    monkeypatch.setattr("cuda.core.utils.StridedMemoryView", SimpleNamespace(from_any_interface=found))
    with pytest.raises(ValueError, match=r"^x is on GPU 1, and the flow runs on GPU 0: copy it there, or choose"):
        flow.log_prob(x, condition(flow, N))
    assert seen == [(x, 1)]


def test_one_condition_is_that_of_all_samples(flow):
    x, given = data(flow, N), condition(flow, N)[2]
    expected = flow.log_prob(x, given)
    for one in (given, given[None]):
        np.testing.assert_array_equal(flow.log_prob(ByDlpack(x), ByInterface(one)).get(), expected)
        np.testing.assert_array_equal(flow.log_prob(x, ByInterface(one)).get(), expected)


def test_numbers_that_are_none_are_told_as_on_the_host(flow):
    x, given = data(flow, N), condition(flow, N)
    x[0, 1], x[1, 0], x[2, 2] = np.nan, np.inf, 1e30
    given[3, 0], given[4, 1], given[5, 1] = np.nan, -np.inf, 1e200
    for method in (flow.log_prob, flow.forward, flow.inverse):
        answer, expected = method(ByDlpack(x), ByDlpack(given)), method(x, given)
        for own, wanted in zip(*((one if isinstance(one, tuple) else (one,)) for one in (answer, expected))):
            np.testing.assert_array_equal(own.get(), wanted)
    with pytest.raises(ValueError, match=r"^sample needs a finite condition"):
        flow.sample(N, rng=0, condition=ByDlpack(given))


def test_samples_under_a_condition_on_the_gpu_lie_there(flow):
    given = condition(flow, N)
    expected = flow.sample(N, rng=4, condition=given)
    assert isinstance(expected, np.ndarray)
    np.testing.assert_array_equal(flow.sample(N, rng=4, condition=ByDlpack(given)).get(), expected)


def test_more_rows_than_are_carried_at_once(flow, monkeypatch):
    x, given = data(flow, 11), condition(flow, 11)
    expected = flow.forward(x, given)
    monkeypatch.setattr(flow.executable(), "chunk_rows", 4)
    for own, wanted in zip(flow.forward(ByDlpack(x), ByDlpack(given)), expected):
        np.testing.assert_array_equal(own.get(), wanted)
    z, log_det = flow.forward(ByInterface(x[:0]), ByInterface(given[:0]))
    assert (z.shape, log_det.shape) == ((0, 3), (0,))


def test_samples_that_are_images_have_their_shape():
    flow = RealNVP((4, 4, 1), 1, (3,), rng=0).to("cuda")
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1))
    z, _ = flow.forward(ByDlpack(x))
    assert z.shape == x.shape
    np.testing.assert_array_equal(z.get(), flow.forward(x)[0])
    np.testing.assert_array_equal(flow.log_prob(ByDlpack(x.reshape(2, 16))).get(), flow.log_prob(x))


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_told_in_one_sentence(flow, kind):
    x, given = data(flow, N), condition(flow, N)
    for wrong, told in (
        (x[0], r"x on a GPU must have a row for each sample, \(n, 3\), got shape \(3,\)"),
        (x[:, :2], r"x on a GPU must have a row for each sample, \(n, 3\), got shape \(6, 2\)"),
    ):
        with pytest.raises(ValueError, match=f"^{told}$"):
            flow.log_prob(kind(wrong), given)
    with pytest.raises(TypeError, match=r"^x on a GPU must hold float32, float64 or whole numbers, got float16: "):
        flow.log_prob(kind(x.astype(np.float16)), given)
    with pytest.raises(ValueError, match=r"^condition must have one row, or one for each of the 6 samples, got 4$"):
        flow.log_prob(kind(x), kind(given[:4]))
    with pytest.raises(ValueError, match=r"^this flow needs a condition of 2 values"):
        flow.log_prob(kind(x))
    with pytest.raises(ValueError, match=r"^this flow takes no condition"):
        NeuralSplineFlow(3, 1, (4,), 2, rng=0).to("cuda").log_prob(kind(x), kind(given))


def same(answer, expected):
    """Whether arrays on the GPU, or numbers of the host, are those of NumPy to the bit."""
    for own, wanted in zip(answer, expected, strict=True):
        np.testing.assert_array_equal(own.get() if is_on_gpu(own) else own, wanted)


@pytest.mark.parametrize(("kind", "way"), [(ByInterface, "as it is"), (ByDlpack, "float32"), (ByInterface, "Fortran")])
def test_gradients_are_those_of_numpy_arrays(flow, kind, way):
    x, given, rng = WAYS[way](data(flow, N)), condition(flow, N), np.random.default_rng(0)
    dy, dlog = WAYS[way](rng.normal(size=(N, 3))), rng.normal(size=N)
    answer = flow.log_prob_and_grad(kind(x), kind(given), wrt="both")
    assert all(map(is_on_gpu, answer))
    same(answer, flow.log_prob_and_grad(x, given, wrt="both"))
    same(flow.log_prob_and_grad(kind(x), given), flow.log_prob_and_grad(x, given))
    for method in (flow.forward_vjp, flow.inverse_vjp):
        expected = method(x, dy, dlog, given)
        answer = method(kind(x), kind(dy), kind(dlog), kind(given))
        assert [is_on_gpu(one) for one in answer] == [True, False, True]  # parameters are on the host
        same(answer, expected)
        same(method(kind(x), dy, dlog, given[1]), method(x, dy, dlog, given[1]))
    weight = np.array([1.0, 0.0, 2.0, 0.5, 0.0, 1.0])
    for weights in ((None, None), (weight, kind(weight))):
        same(flow.nll_and_grad(kind(x), weights[1], kind(given)), flow.nll_and_grad(x, weights[0], given))
    same(flow.nll_and_grad(kind(x), condition=given[0]), flow.nll_and_grad(x, condition=given[0]))


def test_gradients_of_numbers_that_are_none_are_told_as_on_the_host(flow):
    x, given = data(flow, N), condition(flow, N)
    x[0, 1], x[1, 0], x[2, 2] = np.nan, np.inf, 1e160
    given[3, 0], given[4, 1] = np.nan, -np.inf
    for wrt in ("x", "both"):
        same(flow.log_prob_and_grad(ByDlpack(x), ByDlpack(given), wrt=wrt), flow.log_prob_and_grad(x, given, wrt=wrt))
    for method in (flow.forward_vjp, flow.inverse_vjp):
        same(method(ByDlpack(x), np.ones((N, 3)), 1.0, ByDlpack(given)), method(x, np.ones((N, 3)), 1.0, given))
    weight = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # rows without weight may hold anything
    loss, gradient = flow.nll_and_grad(ByDlpack(x), weight, ByDlpack(given))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    loss, gradient = flow.nll_and_grad(ByDlpack(x[3:]), None, ByDlpack(given[3:]))
    assert np.isnan(loss)
    assert np.isnan(gradient).all()


def test_gradients_of_more_rows_than_are_carried_at_once(flow, monkeypatch):
    x, given = data(flow, 11), condition(flow, 11)
    monkeypatch.setattr(flow.executable(), "chunk_rows", 4)
    same(flow.log_prob_and_grad(ByDlpack(x), ByDlpack(given)), flow.log_prob_and_grad(x, given))
    same(flow.nll_and_grad(ByDlpack(x), None, ByDlpack(given)), flow.nll_and_grad(x, None, given))


def test_gradients_that_do_not_fit_are_told_in_one_sentence(flow):
    x, given = ByDlpack(data(flow, N)), condition(flow, N)
    with pytest.raises(ValueError, match=r"^cotangents must have one row for each of the 6 samples, got 5$"):
        flow.forward_vjp(x, np.ones((5, 3)), 0.0, given)
    with pytest.raises(ValueError, match=r"^dz on a GPU must have a row for each sample, \(n, 3\), got shape \(6, 2\)$"):
        flow.forward_vjp(x, ByDlpack(np.ones((6, 2))), 0.0, given)
    with pytest.raises(ValueError, match=r"^dlog_det must have length 6"):
        flow.inverse_vjp(x, x, np.ones(5), given)
    with pytest.raises(ValueError, match=r"^sample_weight must have length 6"):
        flow.nll_and_grad(x, ByDlpack(np.ones(5)), given)
    with pytest.raises(ValueError, match=r"^x must have at least one row$"):
        flow.nll_and_grad(ByDlpack(np.ones((0, 3))), None, given[:0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_fit_of_a_table_on_the_gpu_is_that_of_one_of_the_host_and_its_rows_stay_there(monkeypatch, dtype):
    rng = np.random.default_rng(0)
    x, given, weight = rng.normal(size=(40, 3)).astype(dtype), rng.normal(size=(40, 1)), rng.uniform(size=40)
    options = {"max_epochs": 2, "batch_size": 12, "rng": 3, "progress": False, "learning_rate": 0.02}
    sent = []
    to_device = device.to_device

    def noting(array):
        sent.append(np.shape(array))
        return to_device(array)

    make = lambda: MAF(3, 1, (4,), condition_dim=1, rng=1, dtype="float64").to("cuda")  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(HeldRows, "of", lambda *_: None)
        expected = make().fit(x, condition=given, sample_weight=weight, **options)
    for module in (arrays, program):
        monkeypatch.setattr(module, "to_device", noting)
    same([make().fit(x, condition=given, sample_weight=weight, **options).params], [expected.params])
    assert sent.count((40, 3)) == 1  # once for all
    assert not {(12, 3), (13, 3), (12, 1)} & set(sent)
    del sent[:]
    fitted = make().fit(ByDlpack(x), condition=ByInterface(given), sample_weight=ByDlpack(weight), **options)
    same([fitted.params], [expected.params])
    assert not {(40, 3), (40, 1)} & set(sent)
    assert fitted.history["train_loss"] == expected.history["train_loss"]


def test_a_table_without_room_or_of_another_dtype_goes_to_the_gpu_in_batches(monkeypatch):
    x = np.random.default_rng(0).normal(size=(30, 2))
    options = {"max_epochs": 1, "batch_size": 10, "rng": 3, "progress": False}
    expected = MAF(2, 1, (4,), rng=1).to("cuda").fit(x, **options).params
    assert arrays.hold(np.ones((2, 2), np.float16)) is None
    monkeypatch.setattr(arrays, "free_memory", lambda: 100.0)
    assert arrays.hold(x) is None
    same([MAF(2, 1, (4,), rng=1).to("cuda").fit(x, **options).params], [expected])


class Streams:
    """Notes what is launched, recorded and waited for on which stream."""

    def __init__(self, monkeypatch):
        self.noted, streams = [], self

        class Event:
            def record(self, stream=0):
                streams.noted.append(("record", stream))

            def wait(self, stream=0):
                streams.noted.append(("wait", stream))

        launch_blocks = device.launch_blocks

        def launching(function, *arguments, **options):
            streams.noted.append(("launch", device.current_stream()))
            return launch_blocks(function, *arguments, **options)

        monkeypatch.setattr(device.cuda, "event", Event)
        monkeypatch.setattr(device, "launch_blocks", launching)
        monkeypatch.setattr(arrays, "wait", lambda: streams.noted.append(("host waits", device.current_stream())))

    def of(self, what):
        return [stream for kind, stream in self.noted if kind == what]


class OnStream(ByInterface):
    """An array of a library that works on a stream of its own, as CuPy's and Numba's arrays tell it."""

    def __init__(self, array, stream):
        super().__init__(array)
        self.stream = stream

    @property
    def __cuda_array_interface__(self):
        return {**super().__cuda_array_interface__, "stream": self.stream}


def test_work_runs_on_the_stream_of_the_caller_and_the_host_goes_on(flow, monkeypatch):
    x, given = data(flow, N), condition(flow, N)
    streams = Streams(monkeypatch)
    expected = flow.log_prob(x, given)
    assert set(streams.of("launch")) == {1}
    del streams.noted[:]
    answer = flow.log_prob(OnStream(x, 77), OnStream(given, 77))
    assert set(streams.of("launch")) == {77}
    assert streams.noted[0] == ("wait", 77)  # for what was launched before, which uses the same scratch memory
    assert streams.of("host waits") == []
    assert answer.__cuda_array_interface__["stream"] == 77
    del streams.noted[:]
    again = flow.forward(answer_of(x, 77), given)[0]
    assert set(streams.of("launch")) == {77}
    assert streams.of("wait") == []  # it goes on where it was
    del streams.noted[:]
    again.__dlpack__(stream=5)
    again.__dlpack__(stream=-1)
    again.__dlpack__(stream=None)
    assert streams.noted == [("wait", 5), ("wait", 1)]
    np.testing.assert_array_equal(answer.get(), expected)
    assert streams.noted[-1][0] == "record"
    del streams.noted[:]
    flow.log_prob(x, given)
    assert set(streams.of("launch")) == {1}
    np.testing.assert_array_equal(flow.log_prob(x, given), expected)


def answer_of(array, stream):
    """An array that this backend gave on a stream."""
    with device.on(stream):
        return arrays.give(array, stream)


def test_results_are_finished_where_a_stream_is_not_known(flow, monkeypatch):
    x, given = data(flow, N), condition(flow, N)
    streams = Streams(monkeypatch)
    answer = flow.log_prob(OnStream(x, 77), ByDlpack(given))
    assert set(streams.of("launch")) == {77}
    assert streams.of("host waits") == [77]
    assert answer.__cuda_array_interface__["stream"] is None
    del streams.noted[:]
    assert flow.log_prob(ByDlpack(x), given).__cuda_array_interface__["stream"] is None
    assert set(streams.of("launch")) == {1}
    assert streams.of("host waits") == [1]


def test_pytorch_is_asked_for_its_stream(flow, monkeypatch):
    class Tensor(ByDlpack):
        device = "cuda:0"

    current = SimpleNamespace(cuda_stream=91)
    torch = SimpleNamespace(Tensor=Tensor, cuda=SimpleNamespace(current_stream=lambda device: current))
    monkeypatch.setitem(sys.modules, "torch", torch)
    x, given = Tensor(data(flow, N)), condition(flow, N)
    streams = Streams(monkeypatch)
    flow.log_prob(x, given)
    assert set(streams.of("launch")) == {91}
    assert x.streams == [91]
    current.cuda_stream = 0  # the default one
    flow.log_prob(x, given)
    assert x.streams == [91, 1]


def test_streams_within_each_other_wait_for_each_other(monkeypatch):
    streams = Streams(monkeypatch)
    with device.on(5):
        with device.on():
            assert device.current_stream() == 5
        del streams.noted[:]
        with device.on(6):
            assert device.current_stream() == 6
        assert device.current_stream() == 5
        assert streams.noted == [("record", 5), ("wait", 6), ("record", 6), ("wait", 5)]
    with device.on():
        assert device.current_stream() == 1


def test_a_condition_of_sample_stays_on_the_gpu(flow, monkeypatch):
    given = condition(flow, N)
    expected = flow.sample(N, rng=4, condition=given)
    fetched = []
    monkeypatch.setattr(flow.executable(), "fetch", fetched.append, raising=False)
    same([flow.sample(N, rng=4, condition=ByDlpack(given))], [expected])
    assert not fetched
    with pytest.raises(ValueError, match=r"^condition must have one row, or one for each of the 5 samples, got 6$"):
        flow.sample(5, rng=0, condition=ByDlpack(given))
    with pytest.raises(ValueError, match=r"^this flow takes no condition"):
        MAF(3, 1, (4,), rng=0).to("cuda").sample(2, condition=ByDlpack(given[:2]))


@pytest.mark.parametrize("kind", KINDS)
def test_bits_for_each_dimension_come_to_the_host(flow, kind):
    x, given = data(flow, N), condition(flow, N)
    assert flow.bits_per_dim(kind(x), given) == flow.bits_per_dim(x, given)
