"""Compile the CUDA backend's kernels to machine code, without a GPU or a driver, and look for what must not be in it.

    python tests/backends/cuda/machine_code.py [--for 70,80,90] [--dtypes float32,float64] [--all] [--entries NAME ...]

Layers and flows of the registry run here on arrays that are none: their kernels are not launched but compiled, each once.
The status is 1 where one has spills, a stack, calls, approximate arithmetic of float32, denormal numbers flushed to zero,
minima or maxima that drop NaN, or a layer in float32 has more double precision than the sums of its log-determinants.  By
default these are the kernels of `CHOSEN` entries, one of each kind.  It needs ``numba-cuda[cu12]``.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from numba import cuda
from numba.cuda import dispatcher
from numba.cuda.np.numpy_support import from_dtype
from numba.cuda.types import Array, boolean, float32, float64, int64
from registry import ALL, build, condition, source

from npflows import MAF, NormalizingFlow
from npflows.core import evaluation

dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(8, 0))  # kernels that call functions ask for it
cuda.current_context = lambda: None

DROPOUT = "MAF with dropout"
CHOSEN = (
    "coupling, learned gain", "MAF layer, condition", "spline of each column, circles", "LU", "1x1 convolution, full",
    "log tails", "rotation", "given permutation", "flow of Standardize alone",
)  # fmt: skip
"""Entries that have a kernel of each kind, those of convolutions apart."""
FORBIDDEN = r"\b[a-z0-9.]*(?:approx|\.ftz)[a-z0-9.]*\.f32|\b(?:min|max)\.f(?:32|64)|\b(?:ld|st)\.local|\bcall\b"
"""In PTX; libraries divide doubles with an approximation that they then correct."""
DOUBLE = r"^\s*(?:@%p\d+ )?((?:add|sub|mul|fma|div|sqrt|rcp)\.(?:rn\.)?f64)"
LAYERS, MOST_DOUBLES = ("carry", "carry_back"), 45
"""The kernels of layers, and the double instructions they may have: those of log-determinants, a logarithm included, and
of dropout's scale."""
CALLING = ("student_t.log_prob",)
"""Kernels that may call: log-gamma is a function of NVIDIA's library, once for each column."""


class Nothing:
    """Stands for an array on a GPU."""

    def __init__(self, shape: Any, dtype: Any) -> None:
        self.array = np.broadcast_to(np.zeros((), dtype), shape)

    shape = property(lambda self: self.array.shape)
    size = property(lambda self: self.array.size)
    dtype = property(lambda self: self.array.dtype)

    def __getitem__(self, key: Any) -> Nothing:
        return Nothing(self.array[key].shape, self.dtype)

    def reshape(self, *shape: int) -> Nothing:
        return Nothing(shape, self.dtype)

    def copy_to_host(self) -> np.ndarray:
        return self.array.copy()


cuda.to_device = lambda array: Nothing(array.shape, array.dtype)
cuda.device_array = Nothing

from npflows.backends.cuda import device, program  # noqa: E402
from npflows.backends.cuda.backend import BACKEND  # noqa: E402

launched: dict[tuple[Any, tuple], str] = {}
"""Kernels with the types of their arguments, and the entry that has them."""


def type_of(argument: Any) -> Any:
    """The type that a kernel's argument has."""
    if isinstance(argument, Nothing):
        return Array(from_dtype(argument.dtype), len(argument.shape), "C")
    for kind, found in ((np.float32, float32), (bool, boolean), (int, int64), (float, float64)):
        if isinstance(argument, kind):
            return found
    raise TypeError(f"a kernel was given a {type(argument)}")


def run(name: str, dtype: str) -> None:
    """Launch all kernels of an entry of the registry, that is, note them."""

    def note(function: Any, blocks: Any, threads: int, *arguments: Any, shared_bytes: int = 0) -> None:
        launched.setdefault((function, tuple(map(type_of, arguments))), f"{name}, {dtype}")

    device.launch_blocks = program.launch_blocks = note
    obj = MAF(2, 1, (4,), activation="silu", dropout=0.5, dtype=dtype) if name == DROPOUT else build(name, dtype)
    is_flow, one = isinstance(obj, NormalizingFlow), np.ones(3, dtype)
    with np.errstate(all="ignore"):
        for with_base in (False, True)[: 1 + is_flow]:
            made = BACKEND.compile(obj.program(with_base=with_base) if is_flow else obj.program(), obj.dtype)
            for inverse in (False, True):
                x = source(obj, 3, "inverse" if inverse else "forward")
                given = {"x": x, "condition": condition(obj, 3), "inverse": inverse}
                evaluation.transport(made, obj.state(), log_prob=with_base and not inverse, **given)
                evaluation.pullback(made, obj.state(), dy=x, dlog=np.ones(3), input=True, **given)
        made.optimizer(one.copy(), one > 0, 0.0, None).step(one[None], 0.1, one.copy())


def machine_code(function: Any, types: tuple, capability: str) -> tuple[str, str, int]:
    """The PTX of a kernel, what the assembler says of it, and its size."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    cc = int(capability[:-1]), int(capability[-1])
    ptx, _ = cuda.compile(function.py_func, types, device=False, abi="numba", cc=cc)
    options = LinkerOptions(arch=f"sm_{capability}", ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    code = linker.link("cubin").code
    return ptx, linker.get_info_log(), len(code)


def title(function: Any) -> str:
    """What a kernel is called: the text that it runs."""
    text = function.py_func
    cells = dict(zip(text.__code__.co_freevars, text.__closure__ or ()))
    if "run" in cells:
        text = cells["run"].cell_contents.py_func
    return f"{text.__module__.rpartition('.')[2]}.{text.__name__}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--for", dest="capabilities", default="70,80,90")
    parser.add_argument("--dtypes", default="float32,float64")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table")
    parser.add_argument("--entries", nargs="+", default=CHOSEN)
    arguments = parser.parse_args()
    started, good, lines = time.process_time(), True, []
    for name in ALL if arguments.all else arguments.entries:
        for dtype in arguments.dtypes.split(","):
            run(name, dtype)
    print(f"{len(launched)} kernels", flush=True)
    for (function, types), entry in launched.items():
        for capability in arguments.capabilities.split(","):
            ptx, log, size = machine_code(function, types, capability)
            may_call = title(function) in CALLING
            own = log[log.index("Compiling entry function") :] if may_call else log  # or with all functions that it calls
            found = re.findall(r"(\d+) bytes stack frame, (\d+) .*?, (\d+) ", own)
            spilled = sum(int(number) for numbers in found for number in numbers)
            registers = int(re.search(r"Used (\d+) registers", log)[1])
            wrong = dict(Counter(re.findall(FORBIDDEN, ptx)))
            doubles = Counter(re.findall(DOUBLE, ptx, re.M))
            is_layer = function.py_func.__name__ in LAYERS and "float32" in entry
            if is_layer and sum(doubles.values()) > MOST_DOUBLES:
                wrong |= doubles
            if may_call:
                wrong.pop("call", None)
            good &= not (spilled or wrong)
            lines.append((title(function), entry, f"sm_{capability}", registers, spilled, size // 1024))
            print(*lines[-1], wrong or "", dict(doubles) if is_layer else "", flush=True)
    print(f"{time.process_time() - started:.0f} s of a CPU")
    if arguments.table:
        rows = [
            "| kernel | first met in | for | registers | stack and spills | kB |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        rows += [f"| {' | '.join(map(str, line))} |" for line in lines]
        Path(arguments.table).write_text("\n".join(rows) + "\n")
    return not good


if __name__ == "__main__":
    sys.exit(main())
