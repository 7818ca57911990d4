"""What is refused, or fails, on a GPU, in numba.cuda's simulator: one sentence each, and the flow on the CPU is as it was.

NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_errors.py
"""

import os
from dataclasses import replace

import numpy as np
import pytest

import npflows
from npflows import MAF, CudaError, NormalizingFlow, StudentT
from npflows.backends.cuda import device
from npflows.extend import Layer, Parameter, kernel

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
NEEDED = r"^flow\.to\('cuda'\) needs an NVIDIA GPU and pip install 'npflows\[cuda12\]' \(or cuda13\)"


def raising(error):
    """A function that fails."""

    def fail(*_, **__):
        raise error

    return fail


@kernel
def shift(spec, theta, context, key, first, block, log_det, work, temp):
    block[0, 0] += 1


@kernel
def shift_back(spec, theta, context, key, first, block, log_det, work, temp):
    block[0, 0] -= 1


@kernel
def shift_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    pass


class Shift(Layer):
    kernels = (shift, shift_back, shift_vjp, shift_vjp)

    def __init__(self, *, dtype="float32"):
        super().__init__(2, [Parameter("none", np.zeros(1))], work_rows=1, temp_rows=0, dtype=dtype)


def test_a_layer_of_the_users_own_is_refused_and_the_flow_is_as_it_was():
    flow = NormalizingFlow([Shift()])
    before = flow.log_prob(np.ones((1, 2)))
    with pytest.raises(NotImplementedError, match=r"^Shift is of your own making.* no CUDA kernel: use flow.to\('cpu'\)$"):
        flow.to("cuda")
    assert flow.device == "cpu"
    np.testing.assert_array_equal(flow.log_prob(np.ones((1, 2))), before)


@pytest.mark.parametrize(
    "told",
    [
        "Error at driver init: \nCUDA driver library cannot be found.\n",
        "[35] Call to cuInit results in CUDA_ERROR_INSUFFICIENT_DRIVER",
        "[803] Call to cuInit results in CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "[100] Call to cuInit results in CUDA_ERROR_NO_DEVICE",
    ],
)
def test_no_gpu_and_a_driver_that_does_not_start_are_told_with_its_words(monkeypatch, told):
    flow = MAF(2, 1, (4,), rng=0)
    with monkeypatch.context() as patch:
        patch.setattr(device.cuda, "current_context", raising(RuntimeError(told)))
        with pytest.raises(CudaError, match=f"{NEEDED}; the driver says: .*[^.]$") as error:
            flow.to("cuda")
    assert "\n" not in str(error.value)
    assert told.split()[-1].rstrip(".") in str(error.value)
    assert flow.device == "cpu"
    assert flow.to("cuda").device == "cuda"


def test_a_driver_too_old_for_the_kernels_is_told_when_they_are_loaded(monkeypatch):
    told = "ptxas application ptx input; [222] Call to cuModuleLoadDataEx results in CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
    flow = MAF(2, 1, (4,), rng=0)
    before = flow.log_prob(np.ones((1, 2)))
    flow.to("cuda")
    with monkeypatch.context() as patch:
        patch.setattr(device.cuda, "to_device", raising(RuntimeError(told)))
        with pytest.raises(CudaError, match=f"{NEEDED}, and a driver for that version of CUDA; the driver says: .*N$"):
            flow.log_prob(np.ones((1, 2)))
    np.testing.assert_array_equal(flow.to("cpu").log_prob(np.ones((1, 2))), before)


@pytest.mark.parametrize("after", [0, 3, 25])
def test_a_fit_that_runs_out_of_memory_loses_nothing(monkeypatch, after):
    x, made = np.random.default_rng(0).normal(size=(30, 2)), []
    flow = MAF(2, 1, (4,), rng=0).to("cuda")

    def failing_later(take):
        def fail(*given, **options):
            made.append(1)
            if len(made) > after:
                raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
            return take(*given, **options)

        return fail

    with monkeypatch.context() as patch:
        for name in ("to_device", "device_array"):
            patch.setattr(device.cuda, name, failing_later(getattr(device.cuda, name)))
        with pytest.raises(CudaError, match=r"^the GPU has no memory left for this: use fewer rows"):
            flow.fit(x, max_epochs=5, batch_size=10, progress=False, rng=0)
    on_gpu = flow.log_prob(x)
    assert np.isfinite(flow.params).all()
    np.testing.assert_allclose(flow.to("cpu").log_prob(x), on_gpu, rtol=1e-4, atol=1e-4)
    flow.to("cuda").fit(x, max_epochs=1, batch_size=10, progress=False, rng=0)


def test_a_base_without_a_kernel_is_refused_and_the_flow_is_as_it_was(monkeypatch):
    flow = NormalizingFlow([npflows.Permutation(2)], StudentT(2))
    program, before = flow.program(), flow.log_prob(np.ones((1, 2)))
    own = npflows.core.operations.Custom("Mine", 2, (), lambda link: [], 0)
    other = replace(program, base=program.base._replace(operation=own))
    with monkeypatch.context() as patch:
        patch.setattr(type(flow), "program", lambda self, **_: other)
        with pytest.raises(NotImplementedError, match=r"Mine is of your own making.* no CUDA kernel: use flow.to\('cpu'\)"):
            flow.to("cuda")
    assert flow.device == "cpu"
    np.testing.assert_array_equal(flow.log_prob(np.ones((1, 2))), before)


def test_memory_that_ends_is_told_in_one_sentence(monkeypatch):
    fail = raising(RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"))
    flow = MAF(2, 1, (4,), rng=0).to("cuda")
    with monkeypatch.context() as patch:
        patch.setattr(device.cuda, "to_device", fail)
        with pytest.raises(CudaError, match="the GPU has no memory left for this"):
            flow.log_prob(np.ones((1, 2)))
    assert np.isfinite(flow.log_prob(np.ones((1, 2)))).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_is_refused_and_may_go_on_with_the_cpu():
    flow = MAF(2, 1, (4,), rng=0).to("cuda")
    flow.log_prob(np.ones((1, 2)))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            flow.log_prob(np.ones((1, 2)))
            told = "nothing"
        except CudaError as error:
            told = str(error)
        try:
            MAF(2, 1, (4,), rng=0).to("cuda")
        except CudaError as error:
            told += " again" * (str(error) == told)
        finite = np.isfinite(flow.to("cpu").log_prob(np.ones((1, 2)))).all()
        os.write(write, f"{finite} {told}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        found = told.read()
    assert found.startswith("True a process that was forked after CUDA started can't use the GPU")
    assert found.endswith(" again")
    os.waitpid(child, 0)
