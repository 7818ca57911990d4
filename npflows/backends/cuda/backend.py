"""The CUDA backend: flows on an NVIDIA GPU."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.backend import CpuBackend
from npflows.backends.cuda.device import require_device
from npflows.backends.cuda.program import CudaProgram
from npflows.core.backend import Frozen
from npflows.core.operations import Program


class CudaBackend(CpuBackend):
    """See `npflows.core.backend.Backend`; what is no program runs on the CPU."""

    name = "cuda"

    def compile(self, program: Program, dtype: np.dtype) -> CudaProgram:  # type: ignore[override]
        """Make a program ready to run; kernels are compiled when they are first launched."""
        require_device()
        return CudaProgram(program, dtype)

    def embed(self, executable: object, frozen: Frozen) -> None:
        """Nothing of a GPU's is embedded; see `npflows.core.backend.Backend`."""


require_device()
BACKEND = CudaBackend()
