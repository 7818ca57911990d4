"""The slow, obvious NumPy implementation of every operation: the oracle that every backend is tested against, and what runs
flows where Numba can't be imported.

One file for each kind of operation has a function for each direction, with its gradient beside it: networks.py and
convnet.py, scalar_maps.py, spline.py and those of further scalar maps, layers.py, reflections.py and conditioned.py
(layers with a network), bases.py, program.py. Samples are rows, and everything is computed in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference import (  # they register what they implement
    bernstein,
    conditioned,
    convnet,
    logistic_mixture,
    piecewise_spline,
    reflections,
)
from npflows.backends.reference.activations import ACTIVATIONS
from npflows.backends.reference.common import Given
from npflows.backends.reference.counters import normals, student_ts, uniforms
from npflows.backends.reference.networks import network
from npflows.backends.reference.program import ReferenceExecutable
from npflows.backends.reference.spline import evaluate
from npflows.core.backend import Backend, Frozen
from npflows.core.counters import Place
from npflows.core.operations import Network, Program, Spline

__all__ = ["BACKEND", "ReferenceBackend", "ReferenceExecutable", "bernstein", "conditioned", "convnet", "logistic_mixture",
           "piecewise_spline", "reflections"]  # fmt: skip


class ReferenceBackend:
    """The backend that computes with NumPy alone."""

    name = "reference"
    can_train = False

    def compile(self, program: Program, dtype: np.dtype[Any]) -> ReferenceExecutable:
        """Make a program ready to run; the dtype is that of its parameters, which are converted to float64.

        A density that leaves the range of float32 is therefore finite here.
        """
        return ReferenceExecutable(program)

    def network(self, operation: Network, theta: NDArray, x: NDArray) -> NDArray:
        """The outputs (n, n_out) of a network for inputs (n, n_in), without dropout and without a condition."""
        with np.errstate(all="ignore"):
            return network(operation, theta.astype(np.float64), x.astype(np.float64), Given(np.zeros((len(x), 0))))

    def activate(self, activation: str, values: NDArray) -> None:
        """Apply an activation function to an array, in place."""
        function, _ = ACTIVATIONS[activation]
        with np.errstate(all="ignore"):
            values[:] = function(values.astype(np.float64))

    def spline(self, operation: Spline, x: NDArray, constrained: NDArray, inverse: bool) -> tuple[NDArray, NDArray]:
        """Map x (n, d) by splines whose shares of widths and heights and inner derivatives are given (n, d, multiplier):
        y (n, d) and the log-determinant (n,)."""
        with np.errstate(all="ignore"):
            y, log_slopes = evaluate(operation, x.astype(np.float64), constrained.astype(np.float64), inverse=inverse)
        return y, log_slopes.sum(axis=1)

    def embed(self, executable: Any, frozen: Frozen) -> None:
        """Nothing is compiled here; see `npflows.core.backend.Backend`."""

    def uniforms(self, place: Place, n: int) -> NDArray:
        """n uniform numbers; see `npflows.core.backend.Backend`."""
        return uniforms(*place, n)

    def normals(self, place: Place, n: int) -> NDArray:
        """n standard normal numbers; see `npflows.core.backend.Backend`."""
        return normals(*place, n)

    def student_ts(self, place: Place, n: int, df: NDArray) -> NDArray:
        """n rows of Student's t; see `npflows.core.backend.Backend`."""
        return student_ts(*place, np.tile(df, (n, 1)))

    def cache_folder(self) -> None:
        """Nothing is compiled here."""

    def parts(self, program: Program, dtype: np.dtype[Any]) -> list[str]:
        """Nothing has to be compiled."""
        return []

    def compile_part(self, part: str) -> None:
        """Nothing has to be compiled."""

    def target_environment(self, target: str | None) -> dict[str, str]:
        """Nothing depends on the CPU."""
        return {}


BACKEND: Backend = ReferenceBackend()
