"""The kernels that a program may call, listed without compiling any, so that several processes can compile them."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
from numba import types

from npflows.backends.cpu.compiler.calls import Wanted, address, listed, signature
from npflows.backends.cpu.compiler.disk import DiskCache
from npflows.backends.cpu.compiler.folders import cache_directory
from npflows.backends.cpu.kernels import counters, supports
from npflows.backends.cpu.program import CompiledProgram
from npflows.backends.cpu.threads import mailbox, pool
from npflows.core.operations import Program, StudentT

SHARED = {
    "transport": "npflows.backends.cpu.driver",
    "pullback": "npflows.backends.cpu.driver",
    "combine": "npflows.backends.cpu.kernels.adam",
    "update": "npflows.backends.cpu.kernels.adam",
}
"""The kernels that threads share, by their kind, which is also their name, and where they are."""
SUPPORTS = {
    "to_line": "support",
    "to_line_vjp": "support_vjp",
    "from_line": "support_inverse",
    "from_line_vjp": "support_vjp",
}
"""The kernels of supports, and their kinds."""
_SHARE, _PREPARE, _ENTRY = "share", "prepare", "entry"
_ENTRIES = "npflows.backends.cpu.embedded.entries"


def parts(program: Program, dtype: np.dtype) -> list[str]:
    """What a program may have to compile, each as "module name kind dtype", what takes longest first."""
    executable = CompiledProgram(program, dtype)
    with listed() as wanted:
        for inverse, gradient in itertools.product((False, True), repeat=2):
            executable.plan(inverse, gradient)
            if executable.has_one_lane:
                for by_column in (False, True):
                    executable.plan(inverse, gradient, one_lane=True, by_column=by_column)
    wanted += [Wanted(module, kind, kind, dtype.name) for kind, module in SHARED.items()]
    wanted += [Wanted(mailbox.__name__, _SHARE, kind, dtype.name) for kind in SHARED]
    for kind in ("draw", "draw_student_t") if isinstance(program.base and program.base.operation, StudentT) else ("draw",):
        wanted += [Wanted(counters.__name__, kind, kind, "float64"), Wanted(mailbox.__name__, _SHARE, kind, "float64")]
    wanted += [Wanted(supports.__name__, name, kind, "float64") for name, kind in SUPPORTS.items()]
    wanted += [Wanted(_ENTRIES, kind, _ENTRY, dtype.name) for kind in ("evaluate", "sample")]
    wanted += [Wanted(pool.__name__, _PREPARE, "threads", dtype.name)]
    return [" ".join(one) for one in sorted(dict.fromkeys(wanted), key=lambda one: (_cost(one), one))]


def _cost(one: Wanted) -> int:
    """Small for what takes long to compile."""
    if one.kind in SHARED or one.kind == _ENTRY:
        return 0
    return 1 if one.kind.endswith("_vjp") else 2 if one.kind in ("layer", "network") else 3


def compile_part(part: str) -> None:
    """Compile one of them, or load it.

    Raises
    ------
    OSError
        If what was compiled can't be written.
    """
    module, name, kind, dtype = part.split()
    if name == _PREPARE:
        pool.prepare()
    elif kind == _ENTRY:
        importlib.import_module(_ENTRIES).address_of(name, np.dtype(dtype))
    elif name == _SHARE:
        arguments: Any = types.Tuple(signature(kind, dtype).args)
        share: Any = mailbox.share(kind, np.dtype(dtype))
        share.compile((types.int64[::1], *[types.int64] * 4, arguments))
    else:
        address(getattr(importlib.import_module(module), name), kind, np.dtype(dtype))
    if (lost := DiskCache.lost) is not None:
        raise OSError(f"kernels can't be kept in {cache_directory()}: {lost.strerror}")
