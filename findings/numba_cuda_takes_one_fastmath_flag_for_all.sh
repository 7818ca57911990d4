#!/usr/bin/env bash
# numba.cuda compiles an njit function that a kernel calls with all of fast math where the function allows any part of it.
#
# Behavior (numba-cuda 0.30.4, numba 0.68.1): a / b in a function under njit(fastmath={"contract"}), called from a kernel, is
# div.approx.f32; under njit without fastmath, or as a device function of cuda.jit, it is div.rn.f32. Where a set of flags is
# given, it counts as True.
# One would expect: "contract" allows fused multiply-adds and nothing else, as on the CPU, so that a division stays correctly
# rounded and denormal numbers stay.
# It matters for whoever calls functions of the CPU from kernels: their results are no longer those of the CPU to rounding.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check 'numba-cuda[cu12]==0.30.4' numba==0.68.1
"$work/venv/bin/python" - <<'PY'
import importlib.metadata
import re
from types import SimpleNamespace

from numba import cuda, njit
from numba.cuda import dispatcher
from numba.cuda.types import Array, float32

dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(8, 0))  # no GPU is needed to compile
print("numba-cuda", importlib.metadata.version("numba-cuda"), "numba", importlib.metadata.version("numba"))


def divide(a, b):
    return a / b


def divisions(function):
    """The divisions in the code of a kernel that calls a function."""

    def kernel(x, y):
        i = cuda.grid(1)
        if i < x.size:
            x[i] = function(x[i], y[i])

    vector = Array(float32, 1, "C")
    ptx, _ = cuda.compile(kernel, (vector, vector), device=False, abi="numba", cc=(8, 0))
    return set(re.findall(r"\b(?:div|rcp)[a-z0-9.]*\.f32", ptx))


plain, contract, device = divisions(njit(divide)), divisions(njit(fastmath={"contract"})(divide)), divisions(
    cuda.jit(device=True)(divide)
)
print("njit:", plain, "with contract:", contract, "device function:", device)
assert plain == device == {"div.rn.f32"}, "a division without fast math is not rounded correctly"
assert contract == {"div.approx.f32"}, "a division with contract alone is no longer approximate"
print("with contract alone a division is approximate")
PY
