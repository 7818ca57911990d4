"""What is asked of cuda.core, on a driver that is none (virtual.py): arguments of kernels, memory, copies, streams, graphs,
and kernels on disk.

    NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_driver.py
"""

import gc
import importlib
import inspect
import operator
import sys

import numpy as np
import pytest
from registry import condition
from virtual import VirtualGpu

from npflows import MAF, CudaError, NeuralSplineFlow
from npflows.backends.cuda import arrays, device, disk, gpu, memory, recording, steps
from npflows.backends.cuda.compiler import Kernel, kernel
from npflows.backends.cuda.device import cuda
from npflows.backends.cuda.device_array import DeviceArray

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
MAKERS = {
    "MAF": lambda: MAF(3, 2, (4,), condition_dim=2, rng=1),
    "embedded condition, doubles": lambda: MAF(2, 1, (4,), condition_dim=2, embedding_dims=(3, 2), dtype="float64", rng=1),
    "spline, Student's t": lambda: NeuralSplineFlow(3, 1, (4,), 2, base_distribution="student_t", rng=1),
}


def forget():
    """As in a new process."""
    steps.sums_of_own.cache_clear()
    memory.Memory._copies.clear()
    for one in gc.get_objects():
        if isinstance(one, Kernel):
            one.loaded.clear()


@pytest.fixture
def virtual(monkeypatch, tmp_path):
    """gpu.py instead of the simulator, on a driver that is none."""

    def start(capability=(9, 0)):
        made = VirtualGpu(capability)
        forget()
        for cached in (gpu._stream, gpu._config):
            cached.cache_clear()
        for name in ("core", "driver", "ptx_of", "lowest_capability"):
            monkeypatch.setattr(gpu, name, getattr(made, name))
        monkeypatch.setattr(gpu, "_state", gpu._State())
        monkeypatch.setattr(device, "_turn", device._Turn())
        monkeypatch.setattr(device, "driver", gpu)
        for module in (recording, arrays):
            monkeypatch.setattr(module, "importlib", made)
        monkeypatch.setattr(disk, "cache_directory", lambda: tmp_path)
        gpu.require()
        return made

    start.folder = tmp_path
    yield start
    monkeypatch.undo()
    forget()


def answers(flow):
    """All kinds of work: densities, samples, gradients of each kind, steps of training that are recorded, and a fit."""
    x, given = np.random.default_rng(0).normal(size=(7, flow.input_dim)), condition(flow, 7)
    found = [flow.log_prob(x, given), *flow.inverse(x, given)]
    found.append(flow.sample(5, rng=2, condition=None if given is None else given[:5]))
    found += [*flow.forward_vjp(x, x, 0.5, given), flow.nll_and_grad(x, condition=given)[1]]
    executable, theta = flow.executable(), flow.parameters.theta
    optimizer = executable.optimizer(theta, flow.parameters.free, 0.1, 0.5)
    buffers, average = executable.gradient_buffers({7}, theta)[7], theta.copy()
    for number in range(4):
        log_prob = np.zeros(7)
        flow.accumulate(x + 0.1 * number, given, np.full(7, -1 / 7), buffers, log_prob=log_prob, key=number + 1)
        optimizer.step(buffers, 0.02, average, 0.3)
        found += [log_prob, theta.copy(), average.copy()]
    found += [optimizer.m, optimizer.v]
    flow.fit(x, condition=given, max_epochs=2, batch_size=3, progress=False, rng=3)
    return [*found, flow.params]


def samples(flow):
    return np.random.default_rng(0).normal(size=(7, flow.input_dim))


@pytest.mark.parametrize("name", MAKERS)
def test_a_flow_is_what_it_is_in_the_simulator_and_on_the_cpu(name, virtual):
    expected = answers(MAKERS[name]().to("cuda"))
    made = virtual()
    found = answers(MAKERS[name]().to("cuda"))
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(own, wanted)
    assert sum(one.startswith("a graph") for one in made.noted) >= 1
    flow = MAKERS[name]()
    tolerance = 1e-12 if flow.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found[0], flow.log_prob(samples(flow), condition(flow, 7)), rtol=0, atol=tolerance)


def test_arrays_on_the_gpu_stay_there_and_streams_of_others_are_kept_to(virtual):
    make = lambda: MAF(3, 1, (4,), dtype="float64", rng=1)  # noqa: E731
    x = samples(make())
    z = make().inverse(x)[0]
    virtual()
    flow = make().to("cuda")
    for number in (1, 77, 78, 2):
        with device.on(number):
            there = arrays.give(x, number)
        answer = flow.inverse(there)[0]
        assert answer.__cuda_array_interface__["stream"] == number
        again = flow.forward(answer)[0]
        np.testing.assert_allclose(again.get(), x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(answer.get(), z, rtol=0, atol=1e-12)


def test_work_of_several_streams_that_uses_the_same_memory_is_done_one_after_the_other(virtual):
    make = lambda: MAF(2, 1, (4,), dtype="float64", rng=1)  # noqa: E731
    rows = np.random.default_rng(0).normal(size=(12, 3, 2))
    expected = [make().inverse(x)[0] for x in rows]
    made = virtual()
    flow, given = make().to("cuda"), []
    for number, x in enumerate(rows):
        with device.on(70 + number % 3):
            given.append(arrays.give(x, 70 + number % 3))
    answers = [flow.inverse(one)[0] for one in given]
    assert sum(len(stream.asked) for stream in made.streams.values()) > 12
    for number in (11, 3, 0, 7, *range(12)):
        np.testing.assert_allclose(answers[number].get(), expected[number], rtol=0, atol=1e-12)


def test_kernels_are_kept_on_disk_for_each_capability_and_damaged_files_are_compiled_anew(virtual):
    def asked(capability=(9, 0)):
        """Log-densities in a new process, and how many kernels it compiled and loaded."""
        made = virtual(capability)
        found = MAF(2, 1, (3,), rng=1).to("cuda").log_prob(np.ones((2, 2)))
        return found, *(sum(one.startswith(word) for one in made.noted) for word in ("compiled", "loaded"))

    first, compiled, loaded = asked()
    files = sorted(virtual.folder.iterdir())
    assert compiled == loaded == len(files) > 2
    assert {file.suffix for file in files} == {".cubin"}
    second, *counts = asked()
    assert counts == [0, loaded]
    np.testing.assert_array_equal(second, first)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].write_bytes(b"")
    assert asked()[1:] == (2, loaded)
    assert asked()[1:] == (0, loaded)
    assert asked((8, 0))[1:] == (loaded, loaded)
    assert asked((8, 0))[1:] == (0, loaded)


def test_a_folder_that_can_not_be_written_costs_only_the_compiling(virtual, monkeypatch, tmp_path):
    virtual()
    monkeypatch.setattr(disk, "cache_directory", lambda: tmp_path / "none")
    assert np.isfinite(MAF(2, 1, (3,), rng=1).to("cuda").log_prob(np.ones((2, 2)))).all()
    monkeypatch.setattr(disk, "cache_directory", lambda: None)
    forget()
    assert np.isfinite(MAF(2, 1, (3,), rng=1).to("cuda").log_prob(np.ones((2, 2)))).all()


@kernel
def add_all(table, weight, count, single, double, other, sums):
    """sums (n,) of the rows of a table of any strides, and of all other arguments."""
    t = cuda.grid(1)
    if t < sums.size:
        total = 0.0
        for k in range(table.shape[1]):
            total += table[t, k]
        sums[t] = total + count * single + double + (weight[0] if other else 0.0)


WAYS = {
    "C": lambda x: x,
    "F": lambda x: x.reshape(6, 5).T,
    "every second column": lambda x: x[:, ::2],
    "one row for all": lambda x: np.broadcast_to(x[:1], x.shape),
    "backwards": lambda x: x[::-1, ::-1],
    "one column": lambda x: x[:, 2:3],
    "no columns": lambda x: x[:, :0],
}
LAYOUTS = {"C": "C", "F": "F", "no columns": "C"}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
@pytest.mark.parametrize("way", WAYS)
def test_arguments_of_every_kind_arrive(way, dtype, virtual):
    virtual()
    x = np.arange(30).reshape(5, 6).astype(dtype)
    part, there = WAYS[way](x), device.to_device(x)
    begin = there.pointer + (part.ctypes.data - x.ctypes.data if part.size else 0)
    table = device.view(begin, part.shape, part.strides, x.dtype, there)
    assert table.kind == f"{x.dtype.name} 2{LAYOUTS.get(way, 'A')}"
    weight, sums = device.to_device(np.array([1000.0])), device.empty(5, np.float64)
    for other in (True, False):
        device.launch(add_all, 5, table, weight, -3, np.float32(0.5), 0.25, other, sums)
        np.testing.assert_array_equal(device.to_host(sums), part.sum(axis=1, dtype=float) - 1.25 + 1000 * other)
    np.testing.assert_array_equal(device.to_host(table), part)
    np.testing.assert_array_equal(device.to_host(table[1:3]), part[1:3])


def test_arguments_that_are_none_are_refused_also_in_the_simulator(virtual):
    for start in (lambda: None, virtual):
        made = start()
        sums = device.empty(5, np.float64)
        for wrong, name in ((np.ones((5, 1)), "ndarray"), (np.int32(1), "int32")):
            with pytest.raises(TypeError, match=f"^a kernel takes arrays on the GPU and numbers, got {name}$"):
                device.launch(add_all, 5, sums.reshape(5, 1), sums, wrong, 1.0, 1.0, True, sums)
    wrong = gpu.flatten((sums, 1))
    assert wrong[1] == [0, 0, 5, 8, sums.pointer, 5, 8, 1]
    device.launch(add_all, 5, sums.reshape(5, 1), sums, 1, np.float32(1), 1.0, True, sums)
    with pytest.raises(RuntimeError, match="a kernel with parameters of"):  # as where kinds and values are not the same
        made.launch(made.stream(1), gpu._config(1, 1, 0), next(iter(add_all.loaded.values())).kernel, *wrong[1])


def test_an_array_of_the_gpu_is_cut_and_shaped_as_one_of_numpy():
    x = np.zeros((6, 4))
    there = DeviceArray(4096, x.shape, x.strides, x.dtype, None)
    for own, expected in (
        (there[2:5], x[2:5]),
        (there[4:99], x[4:99]),
        (there[3:1], x[3:1]),
        (there.reshape(24), x.reshape(24)),
        (there.reshape(2, 3, 4)[1:], x.reshape(2, 3, 4)[1:]),
    ):
        assert (own.shape, own.strides, len(own), own.size, own.ndim, own.nbytes) == (
            expected.shape, expected.strides, len(expected), expected.size, expected.ndim, expected.nbytes
        )  # fmt: skip
        if own.size:
            assert own.pointer - 4096 == expected.ctypes.data - x.ctypes.data
    column = DeviceArray(4096, (6,), (32,), x.dtype, None)
    assert column.reshape(6, 1).strides[0] == 32
    assert column.__cuda_array_interface__["strides"] == (32,)
    assert there.__cuda_array_interface__ == {
        "shape": (6, 4), "strides": None, "typestr": "<f8", "data": (4096, False), "version": 3, "stream": None
    }  # fmt: skip
    for wrong in (lambda: column.reshape(2, 3), lambda: there.reshape(5)):
        with pytest.raises(ValueError, match="can't have the shape"):
            wrong()
    with pytest.raises(IndexError, match="only rows that follow each other"):
        there[::2]


def test_copies_that_do_not_fit_are_refused(virtual):
    virtual()
    there = device.to_device(np.ones((3, 2)))
    for wrong in (np.ones((3, 2), np.float32), np.ones(6)):
        with pytest.raises(ValueError, match=r"can't be copied to float64 \(3, 2\)$"):
            device.copy(wrong, there)
    with pytest.raises(ValueError, match="an array with gaps"):
        device.copy(np.ones((2, 3)).T, there)


@pytest.mark.parametrize("n", [10, 100_000])
def test_what_is_copied_to_the_gpu_may_change_at_once(n, virtual):
    virtual()
    x = np.ones(n)
    there = device.to_device(x)
    x[:] = 2
    assert (device.to_host(there) == 1).all()


def test_memory_is_given_back_when_nothing_uses_it_any_more(virtual):
    made = virtual()
    for _ in range(5 * gpu.MOST_DROPPED):
        device.empty(100, np.float64)
    assert made.memory.used <= 800 * (gpu.MOST_DROPPED + 1)
    kept = device.to_device(np.ones(5))
    part = kept[1:3].reshape(2, 1)
    del kept
    for _ in range(5 * gpu.MOST_DROPPED):
        device.empty(100, np.float64)
    np.testing.assert_array_equal(device.to_host(part), np.ones((2, 1)))
    # what was taken before, in no turn, for another stream
    for number in range(80, 88):
        there, sums = device.to_device(np.ones((5, 1))), device.empty(5, np.float64)
        with device.on(number):
            device.launch(add_all, 5, there, sums, 1, np.float32(1), 1.0, False, sums)
            np.testing.assert_array_equal(device.to_host(sums), np.full(5, 3.0))
    # work on a stream of others that still runs
    with device.on(77):
        there, sums = device.to_device(np.ones((5, 1))), device.empty(5, np.float64)
        device.launch(add_all, 5, there, sums, 1, np.float32(1), 1.0, False, sums)
        del there
        for _ in range(5 * gpu.MOST_DROPPED):
            device.empty(100, np.float64)
        np.testing.assert_array_equal(device.to_host(sums), np.full(5, 3.0))


def test_memory_that_was_dropped_is_used_where_there_is_no_other(virtual):
    made = virtual()
    made.memory.limit = 10_000
    first = device.empty(1000, np.float64)
    with pytest.raises(CudaError, match=r"^the GPU has no memory left for this: use fewer rows"):
        device.empty(1000, np.float64)
    del first
    device.empty(1000, np.float64)


def test_more_shared_memory_than_all_kernels_have_is_asked_for_once(virtual):
    made = virtual()
    sums = device.empty(2, np.float64)
    given = sums.reshape(2, 1), sums, 1, np.float32(1), 1.0, False, sums
    for n_bytes in (48 << 10, 60_000, 50_000, 70_000):
        device.launch_blocks(add_all, 1, 2, *given, shared_bytes=n_bytes)
    device.wait()
    assert list(made.allowed.values()) == [70_000]


def test_a_gpu_that_is_too_old_is_told(virtual):
    with pytest.raises(CudaError, match=r"^flow.to\('cuda'\) needs .*; .* of compute capability 7.0 or higher, found 6.1$"):
        virtual((6, 1))
    made = virtual((7, 5))
    newer = kernel(add_all.py_func, "for newer ones", (8, 0))
    sums = device.empty(2, np.float64)
    with pytest.raises(CudaError, match=r"^this needs a GPU of compute capability 8.0 or higher, found 7.5: use flow.to"):
        device.launch(newer, 2, sums.reshape(2, 1), sums, 1, 1.0, 1.0, False, sums)
    assert made.noted == []


def test_a_cuda_core_that_can_not_be_imported_is_told(monkeypatch):
    def fail(name):
        raise ImportError("libnvJitLink.so.12: cannot open shared object file")

    monkeypatch.delitem(sys.modules, gpu.__name__)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(
        CudaError, match=r"^flow.to\('cuda'\) needs .*; cuda.core can't be imported: libnvJitLink.so.12: .*"
    ):
        __import__(gpu.__name__)


def test_a_gpu_newer_than_the_toolkit_gets_ptx(virtual, monkeypatch):
    made = virtual((99, 0))
    sums = device.empty(2, np.float64)

    def fail(*_, **__):
        raise RuntimeError("ERROR_INVALID_ARCH")

    monkeypatch.setattr(made.core, "Linker", fail)
    device.launch(add_all, 2, sums.reshape(2, 1), sums, 1, 1.0, 1.0, False, sums)
    device.wait()
    assert not list(virtual.folder.iterdir())


USED = {
    "Device": ("device_id",),
    "Device.set_current": (),
    "Device.sync": (),
    "Device.create_stream": (),
    "Device.allocate": ("size", "stream"),
    "Buffer.close": ("stream",),
    "Stream.from_handle": ("handle",),
    "Stream.create_graph_builder": (),
    "Stream.record": (),
    "Stream.wait": ("event_or_stream",),
    "Stream.sync": (),
    "Linker.link": ("target_type",),
    "LinkerOptions": ("arch",),
    "ObjectCode.from_cubin": ("module",),
    "ObjectCode.from_ptx": ("module",),
    "ObjectCode.get_kernel": ("name",),
    "launch": ("stream", "config", "kernel", "kernel_args"),
    "graph.GraphBuilder.begin_building": ("mode",),
    "graph.GraphBuilder.end_building": (),
    "graph.GraphBuilder.complete": (),
    "graph.Graph.launch": ("stream",),
    "utils.StridedMemoryView.from_any_interface": ("obj", "stream_ptr"),
    "utils.StridedMemoryView.from_cuda_array_interface": ("obj", "stream_ptr"),
}
"""What is called of cuda.core, and the arguments that are given."""
ATTRIBUTES = (
    "Device.device_id", "Device.compute_capability", "Buffer.handle", "Buffer.size", "Stream.handle", "Kernel.handle",
    "ObjectCode.code", "LEGACY_DEFAULT_STREAM", "PER_THREAD_DEFAULT_STREAM", "graph.GraphBuilder.stream",
)  # fmt: skip
DRIVER = {
    "cuMemcpyHtoDAsync": 4, "cuMemcpyDtoHAsync": 4, "cuMemcpyDtoDAsync": 4, "cuMemGetInfo": 0, "cuKernelSetAttribute": 4,
}  # fmt: skip
"""What is called of the driver, and how many arguments are given."""


def test_what_is_asked_of_cuda_core_is_there():
    core = importlib.import_module("cuda.core")
    for module in ("graph", "utils"):
        importlib.import_module(f"cuda.core.{module}")
    for name, given in USED.items():
        names = list(inspect.signature(operator.attrgetter(name)(core)).parameters)
        assert set(given) <= set(names), name
        assert name == "launch" or [one for one in names if one in given and one != "stream"] == [
            one for one in given if one != "stream"
        ]
    for name in ATTRIBUTES:
        operator.attrgetter(name)(core)
    assert core.LaunchConfig(grid=(3, 2), block=128, shmem_size=60_000).grid == (3, 2, 1)
    driver = importlib.import_module("cuda.bindings.driver")
    for name, count in DRIVER.items():
        told = getattr(driver, name).__doc__.splitlines()[0]
        assert len([one for one in told[told.index("(") + 1 : told.index(")")].split(",") if one]) == count, told
    assert driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert driver.CUresult(2).name == "CUDA_ERROR_OUT_OF_MEMORY"
