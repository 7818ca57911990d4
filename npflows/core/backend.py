"""The protocols of a backend, which runs programs.  The rest of npflows knows backends by these protocols alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from npflows.core.bijection import Bijection
from npflows.core.counters import Place
from npflows.core.operations import Network, Program, Spline, Supports

IDENTITY = np.zeros((3, 0))
"""The affine map that is none: no columns."""


class State(NamedTuple):
    """The numbers that a program reads.

    Attributes
    ----------
    theta : ndarray
        The parameters, in one vector.
    standardization : ndarray (3, columns) or (3 + columns, columns)
        The float64 affine map from the user's units of samples: location, scale, and the share of each column in the
        logarithm of the map's determinant, with its sign changed.  Where more rows follow, they are a lower triangular
        matrix F, and the values (x - location) / scale become y with F y equal to them.  Without columns there is no map.
    condition_standardization : ndarray (3, columns)
        The same map of conditions, c = (condition - location) / scale.  The third row is where tails begin, infinity for
        none: c beyond it becomes sign(c) (tail + arsinh(|c| - tail)), as with `npflows.core.operations.LogTails`.
    """

    theta: NDArray
    standardization: NDArray = IDENTITY
    condition_standardization: NDArray = IDENTITY


class Result(NamedTuple):
    """The results of a program for n samples; an empty array stands for what was not asked for.

    Attributes
    ----------
    y : ndarray (n, output_dim)
    log_det, log_prob : ndarray (n,)
    """

    y: NDArray
    log_det: NDArray
    log_prob: NDArray


class Pullback(NamedTuple):
    """Gradients of a scalar through a program, and the log-density that was met on the way.

    Attributes
    ----------
    log_prob : ndarray (n,)
        Without meaning where the program has no base, or is inverted.
    dx : ndarray (n, input_dim)
    dcondition : ndarray (n, condition_dim)
    gradient : ndarray (theta.size,)
    """

    log_prob: NDArray
    dx: NDArray
    dcondition: NDArray
    gradient: NDArray


class Cotangents(NamedTuple):
    """Gradients of a scalar with respect to the input (n, d), the free parameters (num_params,) and, where there is one,
    the condition (n, condition_dim)."""

    input: NDArray
    params: NDArray
    condition: NDArray | None


class Share(NamedTuple):
    """The part of a batch whose gradient is computed here, where others compute that of the rest.

    Attributes
    ----------
    n : int
        Samples of the whole batch.
    first : int
        The first of the gradient buffers that are filled here.
    total : int
        Gradient buffers of the whole batch.
    """

    n: int
    first: int
    total: int


class Frozen(NamedTuple):
    """The numbers of a density that compiled callers evaluate.

    Attributes
    ----------
    state : State
    farthest : float
        Conditions whose standardized value is beyond it count as infinite.
    condition : ndarray (condition_dim,), optional
        Fixed for good; without it callers give one.
    supports : Supports, optional
        The bijection before the program.
    places : ndarray (draws, k)
        Where in their cells whole numbers are placed, the k columns of them, in each of the draws.
    keys : ndarray of uint64 (k,)
        For images, by which each one turns these places its own way.
    """

    state: State
    farthest: float
    condition: NDArray | None = None
    supports: Supports | None = None
    places: NDArray = np.zeros((0, 0))
    keys: NDArray = np.zeros(0, np.uint64)


class Embedded(Protocol):
    """A frozen density, made ready for compiled callers in this process."""

    handle: int
    """The address by which they know it."""
    numba_type: Any
    """The type that it has in compiled Python."""

    def set(self, frozen: Frozen) -> None:
        """Take other numbers; the handle stays."""

    def evaluate(
        self, x: NDArray, condition: NDArray | None, grad: NDArray | None, dcondition: NDArray | None, out: NDArray
    ) -> int:
        """Log-densities out (n,) of rows x (n, dim) under conditions (1 or n, condition_dim), and their gradients; a status
        below 0 where something does not fit."""
        ...

    def sample(self, z: NDArray, condition: NDArray | None, x: NDArray) -> int:
        """Rows x (n, dim) from those of the base distribution, and a status."""
        ...

    def entry(self, kind: str) -> int:
        """The address of a function that C may call: "evaluate", "sample" or "xla"."""
        ...

    def stub(self, signature: str, exponential: bool) -> int:
        """The address of a function without a handle among its arguments."""
        ...


BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""What every optimizer takes for Adam: the decay of its two moments, and what keeps it from dividing by 0."""


class Outcome(NamedTuple):
    """The outcome of an optimizer's step."""

    taken: bool
    gradient_norm: float


class Optimizer(Protocol):
    """Adam's state for one parameter vector, where the backend keeps it."""

    theta: NDArray
    free: NDArray
    m: NDArray
    v: NDArray
    steps: int
    weight_decay: float
    clip_norm: float | None

    def forget(self) -> None:
        """Start over with no moments."""

    def step(self, buffers: NDArray, rate: float, average: NDArray | None = None, share: float = 0.0) -> Outcome:
        """Add up the gradient buffers (g, p), in an order that follows from their number alone, and take a step, unless the
        gradient is not finite.

        A moving average of theta (p,) then moves toward it by its `share`, where free; the other entries keep their bits.
        """


class Executable(Protocol):
    """A program that a backend has compiled for one dtype.

    Its methods take contiguous float64 arrays of at most `chunk_rows` samples; `npflows.core.evaluation` cuts larger
    tables into chunks and converts what users give.
    """

    chunk_rows: int
    """Samples that one call takes at most."""
    input_dim: int
    output_dim: int
    condition_dim: int

    def bijection(self, given: Bijection) -> Bijection:
        """The same map as this backend evaluates it, for contiguous float64 arrays."""
        ...

    def transport(
        self, state: State, x: NDArray, condition: NDArray, out: Result, *, inverse: bool = False, origin: int = 0
    ) -> None:
        """Carry x (n, input_dim) through the program and fill the arrays of `out` that are not empty.

        `origin` is the number of the first sample.
        """

    def pullback(
        self,
        state: State,
        x: NDArray,
        condition: NDArray,
        dy: NDArray,
        dlog: NDArray,
        buffers: NDArray,
        log_prob: NDArray,
        dx: NDArray,
        dcondition: NDArray,
        *,
        inverse: bool = False,
        key: int = 0,
        origin: int = 0,
    ) -> None:
        """Carry cotangents back through the program at x (n, input_dim).

        With a base, dlog (n,) is the cotangent of log_prob, which is filled; without one, or for the inverse, it
        is that of log_det, and dy (n, output_dim) that of the result.  Fills dx and dcondition unless they are empty, and
        the gradient buffers (buffer_count, theta.size), whose sum is the gradient.  `key` is above 0 in training and seeds
        the random masks of dropout.
        """

    def buffer_count(self, n: int, n_bytes: int) -> int:
        """Gradient buffers of `n_bytes` for n samples; it follows from the program and n alone."""
        ...

    def gradient_buffers(self, sizes: Collection[int], theta: NDArray) -> dict[int, Any]:
        """Memory for the gradients of a training run, for each number of samples that its steps have.

        `pullback` fills it, and the optimizer's `step` reads it: arrays (buffer_count, theta.size), unless the backend
        keeps gradients where it computes.
        """
        ...

    def rows_within(self, n_values: int) -> int:
        """Samples whose intermediate values in the widest layer are at most so many numbers."""
        ...

    def optimizer(
        self, theta: NDArray, free: NDArray, weight_decay: float, clip_norm: float | None
    ) -> Optimizer:  # fmt: skip
        """Adam for a parameter vector, which it changes in place where `free` is true."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """An executable whose gradients can be shared out among processes: its `pullback` takes a keyword `share`, which says
    that samples and buffers are those of a part of a batch."""

    def buffer_rows(self, n: int, count: int, place: int) -> int:
        """How many samples of n, the first ones, have gradients in the buffers before number `place`, of `count`."""
        ...


class HostBuffers:
    """What executables have in common whose gradients are arrays of NumPy."""

    def buffer_count(self, n: int, n_bytes: int) -> int:
        """Gradient buffers of `n_bytes` for n samples."""
        raise NotImplementedError

    def gradient_buffers(self, sizes: Collection[int], theta: NDArray) -> dict[int, Any]:
        """Memory for the gradients of a training run; see `Executable`."""
        counts = {n: self.buffer_count(n, theta.nbytes) for n in sizes}
        memory = np.zeros((max(counts.values()), theta.size), theta.dtype)
        return {n: memory[:count] for n, count in counts.items()}


class Backend(Protocol):
    """An implementation of all operations."""

    name: str
    can_train: bool
    """Whether flows may be fitted here; one that is only good for evaluating them says no."""

    def compile(self, program: Program, dtype: np.dtype[Any]) -> Executable:
        """Make a program ready to run; what takes long may wait for its first use."""
        ...

    def network(self, operation: Network, theta: NDArray, x: NDArray) -> NDArray:
        """The outputs (n, n_out) of a network for inputs (n, n_in), without dropout and without a condition."""
        ...

    def activate(self, activation: str, values: NDArray) -> None:
        """Apply an activation function to an array (rows, columns) of the compute dtype, in place."""
        ...

    def spline(self, operation: Spline, x: NDArray, constrained: NDArray, inverse: bool) -> tuple[NDArray, NDArray]:
        """Map x (n, d) by splines whose shares of widths and heights and inner derivatives are given (n, d, multiplier):
        y (n, d) and the log-determinant (n,)."""
        ...

    def embed(self, executable: Any, frozen: Frozen) -> Embedded | None:
        """A density for compiled callers; None where nothing is compiled.

        Raises
        ------
        NotImplementedError
            If it has a support that is not evaluated here.
        """
        ...

    def uniforms(self, place: Place, n: int) -> NDArray:
        """n numbers (n,) from 0, included, to 1, float64; see `npflows.core.counters`.

        Each follows from the key and its own number alone, the same bits on every backend.
        """
        ...

    def normals(self, place: Place, n: int) -> NDArray:
        """n standard normal numbers (n,) in the same way, the same ones on every backend to rounding."""
        ...

    def student_ts(self, place: Place, n: int, df: NDArray) -> NDArray:
        """n rows (n, d) of Student's t in the same way, each column with its degrees of freedom (d,)."""
        ...

    def cache_folder(self) -> Path | None:
        """The folder in which compiled code is kept; None where nothing is compiled, or nothing can be written."""
        ...

    def parts(self, program: Program, dtype: np.dtype[Any]) -> list[str]:
        """The names of what has to be compiled for a program, what takes longest first."""
        ...

    def compile_part(self, part: str) -> None:
        """Compile what `parts` names, and keep it in the cache folder."""
        ...

    def target_environment(self, target: str | None) -> dict[str, str]:
        """The variables under which a process compiles for a portable target, or for its own CPU.

        Raises
        ------
        ValueError
            If the target is unknown, or this CPU can't run its code.
        """
        ...


_loaders: dict[str, Callable[[], Backend]] = {}
_on_demand: set[str] = set()
_loaded: dict[str, Backend] = {}


def register_backend(name: str, load: Callable[[], Backend], *, on_demand: bool = False) -> None:
    """Make a backend known by its name; the first one runs everything that names none.

    Parameters
    ----------
    name : str
    load : callable
        Gives the backend; called when it is first wanted.
    on_demand : bool
        Whether it needs a device, so that `load` may fail, and is chosen by its name alone.
    """
    _loaders.setdefault(name, load)
    if on_demand:
        _on_demand.add(name)


def available_backends() -> tuple[str, ...]:
    """The names of the backends that can run here, without those that need a device; the first one is the default."""
    return tuple(name for name in _loaders if name not in _on_demand)


def select(name: str | None = None) -> Backend:
    """The backend of a name; by default the one that this process runs on.

    Raises
    ------
    ValueError
        If there is no such backend here.
    """
    if name is None:
        name = next(iter(_loaders))
    if name not in _loaders:
        raise ValueError(f"there is no backend {name!r} here: expected {' or '.join(map(repr, _loaders))}")
    if name not in _loaded:
        _loaded[name] = _loaders[name]()
    return _loaded[name]


def require_training() -> None:
    """Refuse to fit where flows can only be evaluated.

    Raises
    ------
    NotImplementedError
        If the backend of this process can't train.
    """
    if not select().can_train:
        raise NotImplementedError(
            "flows can't be fitted where NumPy alone runs them: pip install numba scipy, and leave NPFLOWS_BACKEND unset"
        )


def backend() -> str:
    """The name of the backend that runs flows in this process.

    Returns
    -------
    {"cpu", "reference"}
        "cpu": kernels compiled by Numba.  "reference": NumPy alone, slower, where Numba can't be imported.
    """
    return select().name
