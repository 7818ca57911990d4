"""Forks while another thread compiles or loads kernels.

The child has the forking thread alone, so that a lock which another thread held would stay locked there for ever, and what
that thread was changing would stay half changed.  A fork therefore waits until nobody compiles or loads, as it takes the
locks of Numba and LLVM itself, and both processes give them back.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from numba.core.compiler_lock import global_compiler_lock


def _locks() -> list[Any]:
    """What guards the compiler, in the order in which compiling takes them."""
    library = getattr(importlib.import_module("llvmlite.binding.ffi"), "lib", None)
    llvm = getattr(library, "_lock", None)
    return [global_compiler_lock] if llvm is None else [global_compiler_lock, llvm]


def hold_forks() -> None:
    """From now on, forks wait for the compiler."""
    if not hasattr(os, "register_at_fork"):
        return
    locks = _locks()

    def take() -> None:
        for lock in locks:
            lock.__enter__()

    def give_back() -> None:
        for lock in reversed(locks):
            lock.__exit__(None, None, None)

    os.register_at_fork(before=take, after_in_parent=give_back, after_in_child=give_back)
