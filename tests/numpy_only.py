"""Checks what works where there is NumPy and nothing else, every golden flow, and that all else is refused in a sentence.

    python tests/numpy_only.py

needs neither pytest nor SciPy nor Numba.  It prints a line for each flow, and ends with status 1 if anything is wrong.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import make_golden
import numpy as np

import npflows
from npflows import diagnostics

ABSENT = ("numba", "llvmlite", "scipy")
NEEDS_SCIPY = " needs SciPy: pip install scipy"


def differences(name: str) -> tuple[float, float]:
    """How far the values of a golden flow are from those in its file, and from its inverse what it samples; the first in
    units of what is allowed."""
    flow = npflows.load(make_golden.FOLDER / f"{name}.npz")
    inputs, wanted = make_golden.recorded(name)
    values = make_golden.expected(flow, inputs)
    off = make_golden.deviation(values, wanted) / make_golden.TOLERANCE[flow.dtype.name]
    condition = inputs["condition"][0] if flow.condition_dim else None
    samples = flow.sample(5, 1, condition=condition)
    z = flow.base_under(condition).sample(5, 1)
    of_samples = make_golden.deviation({"x": samples}, {"x": flow.inverse(z, condition)[0]})
    return float(off), float(of_samples)


def refusal(call: Callable[[], Any]) -> str:
    """The sentence with which something is refused."""
    try:
        call()
    except (ImportError, NotImplementedError) as error:
        return str(error)
    return "it was not refused"


def works() -> dict[str, bool]:
    """Whether what needs more than values and samples, but not SciPy, is right."""
    flow, uniform = (npflows.load(make_golden.FOLDER / f"{name}.npz") for name in ("maf", "spline_uniform"))
    point = np.full((1, uniform.latent_dim), 0.3)
    x = uniform.from_unit_cube(point)
    density = uniform.marginal([0, 1], x, rng=0).density
    return {
        "verify": flow.verify(flow.sample(200, 1), rng=0).passed,
        "marginal of every column": bool(np.allclose(density, np.exp(uniform.log_prob(x)), rtol=1e-5)),
        "from_unit_cube of a uniform base": bool(np.allclose(uniform.to_unit_cube(x), point, rtol=1e-5)),
    }


def refusals() -> list[tuple[str, Callable[[], Any], str]]:
    """The names of functions that do not work, a call of each, and words of the sentence with which it is refused."""
    flow = npflows.load(make_golden.FOLDER / "maf.npz")
    table = np.random.default_rng(0).normal(size=(100, 3))
    return [
        ("fit", lambda: flow.fit(table), "pip install numba scipy"),
        ("fit_variational", lambda: flow.fit_variational(lambda x: (x.sum(1), x)), "pip install numba scipy"),
        ("npflows.extend", lambda: importlib.import_module("npflows.extend"), "npflows.extend needs Numba"),
        ("npflows.sklearn", lambda: importlib.import_module("npflows.sklearn"), "pip install 'npflows[sklearn]'"),
        ("to_unit_cube", lambda: flow.to_unit_cube(table), NEEDS_SCIPY),
        ("from_unit_cube", lambda: flow.from_unit_cube(np.full((1, 3), 0.5)), NEEDS_SCIPY),
        ("mode", flow.mode, NEEDS_SCIPY),
        ("marginal", lambda: flow.marginal(0), NEEDS_SCIPY),
        ("conditional", lambda: flow.conditional(0, {1: 0.5}), NEEDS_SCIPY),
        ("pit", lambda: diagnostics.pit(flow, table), NEEDS_SCIPY),
        ("coverage", lambda: diagnostics.coverage(flow, table), NEEDS_SCIPY),
        ("sbc_ranks", lambda: diagnostics.sbc_ranks(flow, table), NEEDS_SCIPY),
        ("tarp_coverage", lambda: diagnostics.tarp_coverage(flow, table), NEEDS_SCIPY),
        ("memorization", lambda: diagnostics.memorization(flow, table, table), NEEDS_SCIPY),
    ]


def main() -> int:
    """Check everything and return the exit status."""
    wrong = []
    if npflows.backend() != "reference":
        wrong.append(f"flows run on {npflows.backend()!r}")
    for name in make_golden.FLOWS:
        off, of_samples = differences(name)
        print(f"{name}: {off:.2f} of the allowed difference, samples {of_samples:.1e}")
        if not (off <= 1 and of_samples == 0):
            wrong.append(f"{name} is off")
    for what, right in works().items():
        print(f"{what}: {'works' if right else 'is wrong'}")
        if not right:
            wrong.append(f"{what} is wrong")
    for what, call, words in refusals():
        said = refusal(call)
        print(f"{what}: {said}")
        if words not in said:
            wrong.append(f"{what} should be refused with {words!r}")
    wrong += [f"{module} was imported" for module in ABSENT if sys.modules.get(module) is not None]
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
