"""Compile the CUDA backend's kernels to machine code, without a GPU or a driver, and look for what must not be in it.

    python tests/backends/cuda/machine_code.py [--for 70,80,90] [--in-turn] [--dtypes float32,float64] [--all]
                                               [--entries NAME ...] [--table FILE]

Layers and flows of the registry run here on arrays that are none: their kernels are not launched but compiled, each once.
The status is 1 where one has parameters of other sizes than what is given to it (arguments.py), spills or a stack, calls,
approximate arithmetic of float32, denormal numbers flushed to zero, minima or maxima that drop NaN, a layer in float32 has
more double precision than the sums of its log-determinants, or less than `LEAST_SHARE` of a product's innermost loop are
multiply-adds.

Many kernels differ only in which activation, network and map they call.  By default as few of them are compiled as contain
each function in each kernel that calls it; with ``--all`` every one is.  The compiler's PTX does not depend on the
capability, but for names: it is made once, for the lowest one, and assembled for each.  It needs ``numba-cuda[cu12]``, and
nvidia-cuda-nvdisasm to look into loops.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ["NPFLOWS_BACKEND"] = "reference"  # so that nothing is compiled for the CPU
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from loops import product_loops
from no_gpu import NoGpu
from numba.cuda.descriptor import cuda_target
from numba.cuda.types import Array, float64
from occupancy import resident_warps
from registry import ALL, build, condition, source

import npflows
from npflows import MAF, NormalizingFlow, RealNVP
from npflows.backends.cuda import device
from npflows.backends.cuda.arguments import flatten
from npflows.backends.cuda.compiler import ptx_of
from npflows.backends.cuda.device_array import FIELDS
from npflows.core import evaluation
from npflows.core.counters import Law

OTHERS = {
    "MAF with dropout": lambda dtype: MAF(2, 1, (4,), activation="silu", dropout=0.5, dtype=dtype),
    "wide coupling": lambda dtype: RealNVP(4, 1, (WIDE, WIDE), mask_type="half", dtype=dtype),
    "wide MAF, residual blocks, condition": lambda dtype: MAF(
        3, 1, (WIDE,), residual_blocks=1, gated=True, dropout=0.5, condition_dim=2, dtype=dtype
    ),
}
"""Flows beside those of the registry."""
FORBIDDEN = r"\b[a-z0-9.]*(?:approx|\.ftz)[a-z0-9.]*\.f32|\b(?:min|max)\.f(?:32|64)|\b(?:ld|st)\.local|\bcall\b"
"""In PTX; libraries divide doubles with an approximation that they then correct."""
DOUBLE = r"^\s*(?:@%p\d+ )?((?:add|sub|mul|fma|div|sqrt|rcp)\.(?:rn\.)?f64)"
LAYERS, MOST_DOUBLES = ("carry", "carry_back", "carry_values", "carry_values_back", "finish", "finish_vjp"), 45
"""The kernels of layers, and the double instructions they may have: those of log-determinants, a logarithm included, and
of dropout's scale."""
LEAST_SHARE, MANY = {"float32": 0.75, "float64": 0.68}, 64
"""The share of multiply-adds in an innermost loop of a product, by dtype; these are the loops with so many or more."""
TENSOR = {"tensor_cores.multiply": (48, 6, 0.23), "tensor_core_sums.add_products": (24, 4, 0.2)}
"""Kernels for tensor cores, which GPUs of capability 8.0 and above have; of their inner loops the HMMA, the most loads from
shared memory, and the least share of HMMA, beside which 35 to 41 % of all split numbers and 27 to 32 % add sums."""
UNREADABLE = ("70",)
"""Capabilities whose machine code nvdisasm no longer reads."""
SUMMING = ("adam.decide",)
"""Kernels with shared memory and no products, which all others have that have some."""


device.driver, Nothing = NoGpu, device.empty

from npflows.backends.cuda import (  # noqa: E402
    adam,
    cublas,
    kernels,
    matrices,
    products,
    program,
    rows,
    supports,
    tensor_core_sums,
    tensor_cores,
    tensor_matrices,
    whole_numbers,
    wide,
)
from npflows.backends.cuda.backend import BACKEND  # noqa: E402
from npflows.backends.cuda.gpu import core, entry_of, linked  # noqa: E402
from npflows.backends.cuda.link import WIDE  # noqa: E402
from npflows.backends.cuda.networks import TWINS  # noqa: E402
from npflows.backends.cuda.texts import text_of  # noqa: E402
from npflows.core.backend import Pullback  # noqa: E402

OF_CPU = {twin.__code__: text_of(function) for function, twin in TWINS.items()}
"""The kernels of the CPU that have twins, by whose names they are known."""

cublas.find = lambda: None
program.Recordings.run = lambda self, key, uses, launches: launches()  # without a driver there are no graphs

launched: dict[tuple[Any, tuple[str, ...]], tuple[str, int, int]] = {}
"""Kernels with the kinds of their arguments; the entry that has them, and threads and shared memory of a block."""
packed: dict[tuple[Any, tuple[str, ...]], list[int]] = {}
"""The bytes of each number that is given to them."""
SIZES = {np.bool_: 1, np.float32: 4}
"""Bytes of numbers by their types, as cuda.core gives them to a kernel; of all others 8."""


def run(name: str, dtype: str) -> None:
    """Launch all kernels of an entry of the registry, that is, note them."""

    def note(function: Any, blocks: Any, threads: int, *arguments: Any, shared_bytes: int = 0) -> None:
        block = device.THREADS if threads == device.WARP else threads  # as where there are many samples
        kinds, values = flatten(arguments)
        packed[function, kinds] = [SIZES.get(type(value), 8) for value in values]
        launched.setdefault((function, kinds), (f"{name}, {dtype}", block, shared_bytes))

    for module in (device, program, adam, matrices, tensor_matrices, wide):
        module.launch_blocks = note
    obj = OTHERS[name](dtype) if name in OTHERS else build(name, dtype)
    is_flow, one = isinstance(obj, NormalizingFlow), np.ones(3, dtype)
    with np.errstate(all="ignore"):
        for with_base in (False, True)[: 1 + is_flow]:
            made = BACKEND.compile(obj.program(with_base=with_base) if is_flow else obj.program(), obj.dtype)
            ways = itertools.product((False, True), (0, products.FEW), (0, 1 << 30))  # blocks and tiles of either size
            for inverse, program.FEW, matrices.ENOUGH in ways:
                x = source(obj, 3, "inverse" if inverse else "forward")
                given = {"x": x, "condition": condition(obj, 3), "inverse": inverse}
                evaluation.transport(made, obj.state(), log_prob=with_base and not inverse, **given)
                evaluation.pullback(made, obj.state(), dy=x, dlog=np.ones(3), input=True, **given)
        for_others(made, dtype)
        made.optimizer(one.copy(), one > 0, 0.0, None).step(one[None], 0.1, one.copy())


def for_others(made: Any, dtype: str) -> None:
    """Launch the kernels for arrays that others have on the GPU, and for draws."""
    table, sums = Nothing((3, 2), np.float64), Nothing(3, np.float64)
    device.launch(kernels.spread, 3, Nothing((3, 2), dtype), table)
    device.launch(kernels.spread, 3, table, Nothing((3, 2), dtype))
    device.launch(kernels.lose, 3, table, table, 1.0, table)
    device.launch(rows.gather, 3, Nothing((3, 2), dtype), Nothing(3, np.int64), table)
    device.launch(rows.find_lost, 3, table, table, 1.0, Nothing(1, np.int64))
    device.launch(rows.settle, 3, sums, table, table)
    t, log_det, inside = supports.to_line(Nothing(9, np.int64), table)
    supports.finish(log_det, inside, t, log_det, log_det)
    supports.from_line(Nothing(9, np.int64), t)
    supports.to_line_vjp(Nothing(9, np.int64), table, table, sums)
    supports.from_line_vjp(Nothing(9, np.int64), table, table, sums)
    supports.keep_inside(inside, sums)
    columns, keys = Nothing(1, np.int64), Nothing(1, np.uint64)
    whole_numbers.place(table, columns, Nothing((3, 1), np.float64), keys)
    whole_numbers.is_unfit(table, 4)
    whole_numbers.mean([Pullback(sums, table, table, None)])
    whole_numbers.clear(columns, table)
    whole_numbers.quantize(table, columns, 4, np.dtype(np.uint8))
    if dtype == "float32":
        for_tensor_cores()
    numbers = np.ones(2)
    place, columns = (np.zeros(4, np.int64), 0), np.arange(2)
    for name in ("normal", "uniform", "student_t", "beta"):
        made.draw((Law(name, place, columns, numbers, numbers),), 0, 3, numbers, numbers)
    for one in (npflows.Laplace, npflows.Cauchy, npflows.Logistic):
        made.draw(one(2).laws(3, np.random.default_rng(0)), 0, 3)
    made.draw(npflows.GaussianMixture(2, rng=0).laws(3, np.random.default_rng(0)), 0, 3)


def for_tensor_cores() -> None:
    """Launch the kernels for tensor cores."""
    lines, flat, block = Nothing((1, 10), np.int64), Nothing(9, np.float32), Nothing((3, 3), np.float32)
    device.launch_blocks(tensor_cores.multiply, (1, 1), tensor_cores.THREADS, lines, flat, 0, flat, flat, 3,
                         shared_bytes=4 * tensor_cores.SHARED)  # fmt: skip
    device.launch_blocks(tensor_core_sums.add_products, (1, 1), tensor_core_sums.THREADS, lines, block, block, block, block,
                         block, 0, 3, shared_bytes=4 * tensor_core_sums.SHARED)  # fmt: skip


def tensor_loop(name: str, code: bytes) -> tuple[list[float], bool]:
    """The share of HMMA in a kernel's innermost loop, and whether it is as it must be."""
    count, loads, least = TENSOR[name]
    found = [loop for loop in product_loops(code, count) if loop.count("HMMA") == count]
    return [loop.share for loop in found], bool(found) and all(
        loop.share >= least and loop.count("LDS") <= loads and loop.count("HMMA.1688.F32.TF32") == count for loop in found
    )


def parts_of(function: Any, entry: str) -> set[tuple[str, str, str]]:
    """What a kernel is made of: the functions, each with the kernel that it is in, and the dtype."""
    text, *called = function.title.split("; ")
    return {(text, one, entry.rpartition(", ")[2]) for one in ("", *called)}


def few_that_have_all(kernels: dict[Any, tuple[str, int, int]]) -> list[Any]:
    """Kernels that are made of all that the given ones are made of: those first that have most of what is not yet there."""
    parts = {key: parts_of(key[0], entry) for key, (entry, _, _) in kernels.items()}
    left, chosen = set().union(*parts.values()), []
    while left:
        chosen.append(max(parts, key=lambda key: (len(parts[key] & left), -len(parts[key]))))
        left -= parts[chosen[-1]]
    return chosen


def parameters_of(ptx: str) -> list[int]:
    """The bytes of each parameter of the kernel in PTX."""
    entry = ptx[ptx.index(".entry") :]
    return [int(bits) // 8 for bits in re.findall(r"\.param [^,)]*?\.[a-z]+(\d+)", entry[: entry.index(")")])]


def fields_are_those_of_the_compiler() -> bool:
    """Whether arrays have the fields that numba.cuda takes them apart into, in the same order."""
    model = cuda_target.target_context.data_model_manager[Array(float64, 2, "C")]
    if model._fields != FIELDS:
        print(f"an array has the fields {model._fields}, not {FIELDS}")
    return model._fields == FIELDS


def assembled(ptx: str, capability: str) -> tuple[str, bytes]:
    """What the assembler says of a kernel, and its machine code."""
    options = core.LinkerOptions(arch=f"sm_{capability}", ptxas_options=["-v"])
    linker = core.Linker(core.ObjectCode.from_ptx(ptx.encode()), options=options)
    code = linker.link("cubin").code
    return linker.get_info_log(), code


def title(function: Any) -> str:
    """What a kernel is called: the text that it runs."""
    text = function.py_func
    cells = dict(zip(text.__code__.co_freevars, text.__closure__ or ()))
    if "run" in cells:
        text = cells["run"].cell_contents.py_func
    text = OF_CPU.get(text.__code__, text)
    return f"{text.__module__.rpartition('.')[2]}.{text.__name__}"


class Measured(NamedTuple):
    """A kernel for one capability; the least share of multiply-adds in a product's loop, or a dash."""

    title: str
    dtype: str
    capability: str
    registers: int
    warps: int
    shared: int
    kilobytes: int
    share: str


def table_of(measured: list[Measured]) -> list[str]:
    """A line for each kind of kernel, with the worst of its kernels for each dtype and capability."""
    kinds = {dtype: sorted({one.capability for one in measured if one.dtype == dtype}) for dtype in LEAST_SHARE}
    columns = [(dtype, capabilities) for dtype, capabilities in kinds.items() if capabilities]
    heads = ["kernel", "kernels", "shared memory, kB"]
    for dtype, capabilities in columns:
        names = "/".join(capabilities)
        heads += [f"{dtype}: registers, sm_{names}", f"resident warps, sm_{names}", "kB of code", "multiply-adds"]
    lines = [heads, ["---"] * len(heads)]
    for name in sorted({one.title for one in measured}):
        of_name = [one for one in measured if one.title == name]
        shared = max(one.shared for one in of_name)
        count = max(sum(one[:3] == kind for one in of_name) for kind in {one[:3] for one in of_name})
        line = [name, str(count), f"{shared / 1024:.1f}" if shared else "-"]
        for dtype, capabilities in columns:
            groups = [[one for one in of_name if one[1:3] == (dtype, capability)] for capability in capabilities]
            if not all(groups):
                line += ["-"] * 4
                continue
            line += [
                "/".join(str(max(one.registers for one in group)) for group in groups),
                "/".join(str(min(one.warps for one in group)) for group in groups),
                str(max(one.kilobytes for group in groups for one in group)),
                min((one.share for group in groups for one in group if one.share != "-"), default="-"),
            ]
        lines.append(line)
    return [f"| {' | '.join(line)} |" for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--for", dest="capabilities", default="70,80,90")
    parser.add_argument("--dtypes", default="float32,float64")
    parser.add_argument("--all", action="store_true", help="every kernel, also those of which others have all parts")
    parser.add_argument("--in-turn", action="store_true", help="each kernel for one of the capabilities, these in turn")
    parser.add_argument("--table", help="a Markdown file")
    parser.add_argument("--entries", nargs="+", default=[*ALL, *OTHERS])
    arguments = parser.parse_args()
    started, good = time.process_time(), fields_are_those_of_the_compiler()
    measured: list[Measured] = []
    for name in arguments.entries:
        for dtype in arguments.dtypes.split(","):
            run(name, dtype)
    chosen = list(launched) if arguments.all else few_that_have_all(launched)
    print(f"{len(chosen)} of {len(launched)} kernels", flush=True)
    capabilities = sorted(arguments.capabilities.split(","), key=int)
    compiling = assembling = 0.0
    gc.disable()  # it would look through all that the compiler makes, again and again
    for number, (function, types) in enumerate(chosen):
        entry, threads, shared = launched[function, types]
        begun = time.process_time()
        possible = [one for one in capabilities if int(one) >= 80 or title(function) not in TENSOR]
        if not possible:
            continue
        ptx = ptx_of(function, types)
        compiling += time.process_time() - begun
        for capability in [possible[number % len(possible)]] if arguments.in_turn else possible:
            begun = time.process_time()
            log, code = assembled(ptx, capability)
            if number == 0:  # as it is on a machine with a GPU
                plain = linked(ptx, (int(capability[:-1]), int(capability[-1])))
                good &= plain.startswith(b"\x7fELF") and entry_of(ptx).encode() in plain
            assembling += time.process_time() - begun
            found = re.findall(r"(\d+) bytes stack frame, (\d+) .*?, (\d+) ", log)
            spilled = sum(int(number) for numbers in found for number in numbers)
            registers = int(re.search(r"Used (\d+) registers", log)[1])
            wrong = dict(Counter(re.findall(FORBIDDEN, ptx)))
            if parameters_of(ptx) != packed[function, types]:
                wrong["parameters"] = f"{parameters_of(ptx)}, given {packed[function, types]}"
            doubles = Counter(re.findall(DOUBLE, ptx, re.M))
            is_layer = function.py_func.__name__ in LAYERS and "float32" in entry
            if is_layer and sum(doubles.values()) > MOST_DOUBLES:
                wrong |= doubles
            readable = capability not in UNREADABLE
            shares = [loop.share for loop in product_loops(code, MANY)] if readable else []
            least = f"{min(shares):.0%}" if shares else "-"
            dtype, name = entry.rpartition(", ")[2], title(function)
            of_products = readable and shared and name not in SUMMING
            if name in TENSOR:
                shares, right = tensor_loop(name, code)
                least = f"{min(shares):.0%} HMMA" if shares else "-"
                if not right:
                    wrong["HMMA"] = least
            elif of_products and min(shares, default=0) < LEAST_SHARE[dtype]:
                wrong["multiply-adds"] = least
            if spilled:
                wrong["bytes of stack and spills"] = spilled
            good &= not wrong
            warps = resident_warps(registers, threads, shared, capability)
            one = Measured(name, dtype, capability, registers, warps, shared, len(code) // 1024, least)
            measured.append(one)
            print(*one, entry, wrong or "", dict(doubles) if is_layer else "", flush=True)
    print(f"{time.process_time() - started:.0f} s of a CPU, {compiling:.0f} compiling and {assembling:.0f} assembling")
    if arguments.table:
        Path(arguments.table).write_text("\n".join(table_of(measured)) + "\n")
    return not good


if __name__ == "__main__":
    sys.exit(main())
