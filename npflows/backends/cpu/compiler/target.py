"""The target that Numba compiles for in this process, and the portable ones whose machine code this CPU can run.

Numba compiles for the CPU at hand, or for what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say.  Whatever depends on the CPU asks
here, so that those two variables govern all of it.
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import numba
from llvmlite import binding
from numba.core import codegen


class Target(NamedTuple):
    """What machine code is made for, in LLVM's words.

    Attributes
    ----------
    triple : str
        Architecture and system.
    cpu : str
        A CPU, or a level that many CPUs have.
    features : str
        Those that are on and off beside the CPU's own.
    """

    triple: str
    cpu: str
    features: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What entries are kept by: the same without the version of the system, which macOS has in the triple."""
        return self.triple.rstrip("0123456789."), self.cpu, self.features


_V3 = frozenset(
    {"cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"}
    | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
)
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

LEVELS = {
    "x86-64-v4": (("x86_64",), "x86-64-v4", "-prefer-256-bit", _V4),
    "x86-64-v3": (("x86_64",), "x86-64-v3", "", _V3),
    "armv8-a": (("aarch64", "arm64"), "generic", "+neon", frozenset[str]()),
}
"""The portable targets by name, the fastest first: names of the architecture, LLVM's CPU and features, and what a CPU must
have to run their code, after the x86-64 psABI.  Of "x86-64-v4" LLVM would use half the vectors' width."""

_PROBES = {
    "avx": ("vaddps %ymm", "fadd <8 x float> %a, %b", "<8 x float>"),
    "avx2": ("vpaddd %ymm", "add <8 x i32> %a, %b", "<8 x i32>"),
    "bmi2": ("shlx", "shl i64 %a, %b", "i64"),
    "fma": ("vfmadd", "call <4 x float> @llvm.fma.v4f32(<4 x float> %a, <4 x float> %b, <4 x float> %a)", "<4 x float>"),
    "avx512f": ("vaddps %zmm", "fadd <16 x float> %a, %b", "<16 x float>"),
    "avx512bw": ("vpaddb %zmm", "add <64 x i8> %a, %b", "<64 x i8>"),
    "avx512dq": ("vpmullq %zmm", "mul <8 x i64> %a, %b", "<8 x i64>"),
    "avx512vl": ("vpminsq %xmm", "call <2 x i64> @llvm.smin.v2i64(<2 x i64> %a, <2 x i64> %b)", "<2 x i64>"),
}
"""By feature an instruction that LLVM uses only where it is on, and an operation on two values of a type that calls for
it."""


def own_target() -> Target:
    """The target that Numba compiles for, as its `codegen().magic_tuple()` has it."""
    name, given = numba.config.CPU_NAME, numba.config.CPU_FEATURES
    cpu = binding.get_host_cpu_name() if name is None else name
    return Target(binding.get_process_triple(), cpu, codegen.get_host_cpu_features() if given is None else given)


def _is_named() -> bool:
    """Is another target than the CPU at hand asked for?"""
    return numba.config.CPU_NAME is not None or numba.config.CPU_FEATURES is not None


def _host_features() -> frozenset[str]:
    """What the CPU itself can do; nothing where LLVM can't tell."""
    try:
        return frozenset(name for name, there in binding.get_host_cpu_features().items() if there)
    except RuntimeError:
        return frozenset()


@functools.cache
def features() -> frozenset[str]:
    """The features of the CPU, in LLVM's names, that Numba compiles for.

    Where NUMBA_CPU_NAME or NUMBA_CPU_FEATURES is set, LLVM does not list what follows from them, but shows it: these are
    then the ones of `_PROBES` that its code makes use of.
    """
    cpu = own_target()
    if not _is_named():
        return frozenset(name[1:] for name in cpu.features.split(",") if name[:1] == "+")
    if not cpu.triple.startswith("x86_64"):
        return frozenset()
    codegen.initialize_llvm()
    machine = binding.Target.from_triple(cpu.triple).create_target_machine(cpu=cpu.cpu, features=cpu.features)
    return frozenset(name for name in _PROBES if _shows(machine, name))


def _shows(machine: binding.TargetMachine, feature: str) -> bool:
    """Does code for the machine use the instruction that shows the feature?"""
    instruction, operation, kind = _PROBES[feature]
    text = f"define {kind} @f({kind} %a, {kind} %b) {{\n %r = {operation}\n ret {kind} %r\n}}\n"
    if "@" in operation:
        name, n = operation.split("@")[1].split("(")[0], operation.count("%")
        text += f"declare {kind} @{name}({', '.join([kind] * n)})\n"
    return instruction in " ".join(machine.emit_assembly(binding.parse_assembly(text)).split())


def vector_bytes() -> int:
    """The width of a vector register of the target."""
    return 64 if "avx512f" in features() else 32 if "avx" in features() else 16


def portable() -> list[str]:
    """The names of the portable targets whose code this CPU can run, the fastest first.

    What NUMBA_CPU_NAME and NUMBA_CPU_FEATURES take away from the CPU is not used.
    """
    here, has, used = binding.get_process_triple().split("-")[0], _host_features(), features()
    return [
        name
        for name, (architectures, _, _, needed) in LEVELS.items()
        if here in architectures and needed <= has and (needed & _PROBES.keys() if _is_named() else needed) <= used
    ]


def portable_target(name: str) -> Target:
    """The target of a portable level, for this system."""
    return Target(binding.get_process_triple(), *LEVELS[name][1:3])


@functools.cache
def runnable(own: Target) -> tuple[Target, ...]:
    """The targets whose machine code may run here, the best first: this CPU's own, then the portable ones.

    With NPFLOWS_PORTABLE=0 in the environment the first one alone.
    """
    if os.environ.get("NPFLOWS_PORTABLE") == "0":
        return (own,)
    others = (portable_target(name) for name in portable())
    return (own, *(target for target in others if target != own))


def environment(name: str | None) -> dict[str, str]:
    """The variables under which a process compiles for a portable level, or for its own target if None, whatever kernels of
    other targets there are.

    Raises
    ------
    ValueError
        If there is no such level, or this CPU can't run its code: kernels are tried once they are compiled.
    """
    if name is None:
        return {"NPFLOWS_PORTABLE": "0"}
    if name not in LEVELS:
        raise ValueError(f"target must be one of {', '.join(map(repr, LEVELS))}, got {name!r}")
    if name not in portable():
        raise ValueError(f"this CPU can't run code for the target {name!r}: compile for it on one that can")
    _, cpu, features_ = portable_target(name)
    return {"NPFLOWS_PORTABLE": "0", "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features_}
