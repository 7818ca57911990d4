"""Arrays that lie in a GPU's memory: how they are told from others, and what runs programs on them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from npflows.core.backend import Pullback, Result, State
from npflows.core.bijection import Bijection, Unconstrained
from npflows.core.counters import Law

DLPACK_CUDA = (2, 13)
"""The devices of DLPack that are memory of an NVIDIA GPU: ``kDLCUDA`` and ``kDLCUDAManaged``."""
ON_HOST = (
    "bring it to the host first, by .get() of CuPy or .cpu() of PyTorch; a flow on 'cuda' takes it as it is in log_prob, "
    "forward, inverse, their gradients, fit and as the condition of sample"
)
"""What a message advises."""


def is_on_gpu(values: Any) -> bool:
    """Whether something is an array in the memory of an NVIDIA GPU, by DLPack or ``__cuda_array_interface__``."""
    if type(values) is np.ndarray:
        return False
    try:
        device = getattr(values, "__dlpack_device__", None)
        if callable(device):
            return int(device()[0]) in DLPACK_CUDA
        return isinstance(getattr(values, "__cuda_array_interface__", None), dict)
    except Exception:  # an array on several devices, for instance, has no answer
        return False


@runtime_checkable
class StaysOnGpu(Protocol):
    """An optimizer whose steps can leave the parameters, and their moving average, where they are computed."""

    def staying(self) -> AbstractContextManager[None]:
        """A context within which arrays of the host have the numbers from before it; programs that are given them use those
        of the last step.  `forget` brings them to the host, as the end of the context does, however it comes."""
        ...


@runtime_checkable
class TakesGpuArrays(Protocol):
    """An executable that carries arrays of its GPU, and gives arrays there; the methods raise `CudaError` as others do."""

    def take(self, values: Any, name: str) -> Any:
        """An array of another library that lies on the GPU, or one of the host, as this backend's own; `name` is the
        argument's, for messages.

        Memory is not copied where it is on the GPU already, and used only after what its owner has it wait for.

        Raises
        ------
        TypeError
            If it does not hold float32, float64 or whole numbers.
        ValueError
            If it is on another GPU.
        """
        ...

    def fetch(self, values: Any) -> NDArray:
        """A copy, on the host, of an array of another library or this backend's own."""
        ...

    def give(self, array: Any, stream: int | None) -> Any:
        """An array of this backend's own, or of the host, for the user: on the GPU, with ``__cuda_array_interface__`` and
        ``__dlpack__``; ready on a stream, or for None finished."""
        ...

    def on_stream_of(self, *values: Any) -> AbstractContextManager[int | None]:
        """A context within which work runs on the caller's stream, which is that of the first array that tells it.

        It gives the number of the stream, or None where not all arrays on the GPU tell theirs, and the caller has to wait.
        """
        ...

    def hold(self, table: NDArray) -> Any:
        """A table (n, d) of the host in the memory of the GPU: the one that it was fetched from if it was, else a copy.

        None where there is no room for it, or its dtype is not one that is taken.
        """
        ...

    def gather(self, table: Any, index: NDArray[np.integer], name: str) -> Any:
        """Rows (len(index), d) of a table from `hold` or `take`, by their numbers, for `Executable.pullback` and `pull`.

        They are there until rows of the same name are chosen.
        """
        ...

    def enter(self, x: Any, bijection: Bijection) -> Unconstrained:
        """Rows from `gather` or `scatter` on the line, on the GPU until others are; the rest is on the host."""
        ...

    def scatter(self, x: Any, bijection: Bijection, places: NDArray[np.float64]) -> Any:
        """Rows from `gather` with whole numbers at places (n, columns) of their cells, on the GPU until others are."""
        ...

    def draw(
        self,
        laws: tuple[Law, ...],
        start: int,
        n: int,
        center: NDArray[np.float64] | None = None,
        factor: NDArray[np.float64] | None = None,
    ) -> Any:
        """Samples (n, dim), from number `start` on, of laws that have all columns together.

        With a factor (dim,), distances from the center (dim,) are multiplied by it.
        """
        ...

    def all_near(self, state: State, condition: Any, farthest: float) -> bool:
        """Whether all conditions (n, condition_dim), from `take`, are finite and within `farthest` once standardized."""
        ...

    def maps(self, given: Bijection) -> bool:
        """Whether a map between the user's values and the line is evaluated here."""
        ...

    def carry(
        self,
        state: State,
        x: Any,
        condition: Any,
        *,
        inverse: bool,
        wanted: tuple[bool, bool, bool],
        farthest: float,
        bijection: Bijection | None = None,
    ) -> Result:
        """Carry x (n, input_dim) through the program as `Executable.transport` does.

        Parameters
        ----------
        state : State
        x, condition : array
            From `take`, of any strides; one condition (1, condition_dim) is that of all samples, and None is none.
        inverse : bool
        wanted : (bool, bool, bool)
            Whether y, log_det and log_prob are.
        farthest : float
            Everything is NaN where a standardized condition is not finite, or is beyond it.
        bijection : Bijection, optional
            The map before the program, one that `maps` takes; y is wanted of the inverse then.

        Returns
        -------
        Result
            Arrays of float64 of this backend's own; None stands for what was not asked for.
        """
        ...

    def pull(
        self,
        state: State,
        x: Any,
        condition: Any,
        *,
        dlog: Any,
        dy: Any = None,
        inverse: bool = False,
        input: bool = True,
        gradient: bool = True,
        with_condition: bool = True,
        farthest: float,
        bijection: Bijection | None = None,
    ) -> Pullback:
        """Carry cotangents back through the program as `Executable.pullback` does.

        Parameters
        ----------
        state, x, condition, inverse, farthest, bijection
            As in `carry`.
        dlog : array (n,)
            On the GPU or of the host.
        dy : array (n, output_dim), optional
        input, gradient : bool
            Whether dx and dcondition, and the gradient of theta, are wanted.
        with_condition : bool
            Whether dcondition is, if dx is.

        Returns
        -------
        Pullback
            float64 arrays of this backend's own, but for the gradient, which is one of the host.
        """
        ...

    def settle(self, found: Pullback, bijection: Bijection | None) -> None:
        """Make gradients 0 in rows where one is not finite or the density is 0, NaN where that is, and 0 in columns of
        whole numbers."""

    def mean(self, draws: Iterable[Pullback]) -> Pullback:
        """The logarithm of the mean density of one draw or more, in which whole numbers lie elsewhere in their cells, and
        its gradients where the draws have some."""
        ...

    def place(
        self, x: Any, bijection: Bijection, places: NDArray[np.float64], keys: NDArray[np.uint64] | None = None
    ) -> Any:
        """Rows (n, d), from `take`, with whole numbers at places (1 or n, columns) of their cells, which images turn by
        keys (columns,); a value that is no whole number becomes infinite."""
        ...

    def fits(self, x: Any, bijection: Bijection) -> bool:
        """Whether rows, if they have to be images of whole numbers, are."""
        ...

    def quantize(self, x: Any, bijection: Bijection, dtype: np.dtype | None) -> Any:
        """Rows with the whole number of each cell, perhaps in place, and in a dtype if one is given."""
        ...
