"""Flows inside other people's programs: frozen densities that compiled code calls."""

from __future__ import annotations

import copy
import ctypes
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.backend import Embedded, Frozen, select
from npflows.core.checks import SeedLike, as_flag, as_int, as_numeric, as_rng
from npflows.core.optional import scipy
from npflows.distribution.conditioning import FARTHEST
from npflows.distribution.transformed import TransformedDistribution
from npflows.support.columns import Column

SIGNATURES = (
    "double (int, double *)",
    "double (double *)",
    "double (double *, double *)",
    "double (int, double *, void *)",
)
"""The C functions without a handle that `Density.function` makes."""

KINDS = ("evaluate", "sample", "xla")
"""The C functions that take a handle, or bring one along."""


class Density:
    """The density of a flow as it was when `embed` was called, for compiled callers.

    In Python functions that Numba compiles it is an argument like any other, and has the methods below with the same
    arguments; there arrays must be contiguous float64.  A function that takes a density can be kept on disk
    (``cache=True``); one that finds it in a global variable works, and is compiled anew in each process.  Any number of
    threads may call at once.  Where a density takes no condition, an empty one is as good as None, so that compiled code
    can pass an array to all densities.  Arrays that are written to must not overlap others.

    Parameters
    ----------
    flow, condition, draws, rng
        As in `embed`, which checks them.

    Attributes
    ----------
    handle : int
        The address by which C and Fortran know the density, valid in this process and its forks while the object lives.
    dim : int
        Values of a sample.
    condition_dim : int
        Values of the condition that each call takes; 0 where there is none, or a fixed one.
    """

    def __init__(
        self, flow: TransformedDistribution, condition: NDArray | None = None, draws: int = 16, rng: SeedLike = 0
    ) -> None:  # fmt: skip
        self._flow, self._condition, self._draws, self._rng = flow, condition, draws, rng
        self._cells: tuple[NDArray, NDArray] = np.zeros((0, 0)), np.zeros(0, np.uint64)
        if flow.preprocessing.bijection is not None and flow.preprocessing.has_integers:
            self._cells = flow.preprocessing.bijection.cell_places(draws, as_rng(rng))
        self.dim = flow.latent_dim
        self.condition_dim = flow.condition_dim if condition is None else 0
        self._frozen = self._freeze()
        self._embedded: Embedded | None = select().embed(flow.executable(device="cpu"), self._frozen)
        self._interpreted = copy.deepcopy(flow) if self._embedded is None else None

    def _freeze(self) -> Frozen:
        """Copies of the flow's numbers as they are now."""
        flow = self._flow
        state = flow.state()
        bijection = flow.preprocessing.bijection
        return Frozen(
            type(state)(*(table.copy() for table in state)),
            FARTHEST[flow.dtype.name],
            self._condition,
            None if bijection is None else bijection.operation(),
            *self._cells,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        self._require_current()
        return Density, (self._flow, self._condition, self._draws, self._rng)

    def __repr__(self) -> str:
        takes = f", a condition of {self.condition_dim}" if self.condition_dim else ""
        return f"Density({type(self._flow).__name__} of {self.dim} values{takes})"

    @property
    def columns(self) -> list[Column] | None:
        """Where each column of samples lives; None where all are the whole line."""
        bijection = self._flow.preprocessing.bijection
        return None if bijection is None else list(bijection.columns)

    @property
    def is_current(self) -> bool:
        """Whether the flow still has the numbers that it had when the density was made, or last refreshed."""
        return all(_same_bits(a, b) for a, b in zip(self._flow.state(), self._frozen.state))

    def _require_current(self) -> None:
        if not self.is_current:
            raise RuntimeError(
                "the flow has changed since its density was embedded: call density.refresh() to take over the change, or "
                "embed a copy of the flow (copy.deepcopy) to keep the density as it was"
            )

    def refresh(self) -> None:
        """Take over the flow's numbers as they are now; `handle` and all functions stay.

        No thread may evaluate the density meanwhile.
        """
        self._frozen = self._freeze()
        if self._embedded is None:
            self._interpreted = copy.deepcopy(self._flow)
        else:
            self._embedded.set(self._frozen)

    def _compiled(self) -> Embedded:
        """The density of this process.

        Raises
        ------
        RuntimeError
            Where nothing is compiled, or the flow has changed.
        """
        if self._embedded is None:
            raise RuntimeError(
                "nothing is compiled here, as Numba is missing or NUMBA_DISABLE_JIT or NPFLOWS_BACKEND=reference is set: a "
                "density then has its methods in Python alone"
            )
        self._require_current()
        return self._embedded

    @property
    def handle(self) -> int:
        """The address of the density in this process."""
        return self._compiled().handle

    @property
    def _numba_type_(self) -> Any:
        """By which Numba types the object."""
        return None if self._embedded is None else self._embedded.numba_type

    def log_prob(self, x: ArrayLike, condition: ArrayLike | None = None) -> float:
        """The log-density of x (dim,), the number that `NormalizingFlow.log_prob` gives.

        Parameters
        ----------
        x : array_like (dim,)
            One row; where its columns have names, as in pandas, they are taken by name.  The density is 0 outside the
            support, and for images and integer columns also where a value is no whole number.
        condition : array_like (condition_dim,), optional
            Where the density takes one.

        Raises
        ------
        ValueError
            If a length does not fit, or a condition is missing or not wanted.
        """
        out = np.empty(1)
        self._evaluate(self._rows(x, "x", 1), self._conditions(condition), None, None, out)
        return float(out[0])

    def log_prob_and_grad(
        self,
        x: ArrayLike,
        grad: NDArray[np.float64],
        condition: ArrayLike | None = None,
        dcondition: NDArray[np.float64] | None = None,
    ) -> float:
        """The log-density of x (dim,); its gradient goes to `grad` (dim,), that with respect to the condition to
        `dcondition` (condition_dim,), see `NormalizingFlow.log_prob_and_grad`."""
        out = np.empty(1)
        self._evaluate(self._rows(x, "x", 1), self._conditions(condition), _written(grad, "grad", 1),
                       _written(dcondition, "dcondition", 1), out)  # fmt: skip
        return float(out[0])

    def log_prob_rows(
        self, x: ArrayLike, out: NDArray[np.float64], condition: ArrayLike | None = None
    ) -> None:  # fmt: skip
        """Write the log-densities of the rows of x (n, dim) to `out` (n,), under one condition or one for each row."""
        self._evaluate(self._rows(x, "x", 2), self._conditions(condition), None, None, _written(out, "out", 1))

    def log_prob_and_grad_rows(
        self,
        x: ArrayLike,
        grad: NDArray[np.float64],
        out: NDArray[np.float64],
        condition: ArrayLike | None = None,
        dcondition: NDArray[np.float64] | None = None,
    ) -> None:
        """The same with the gradients `grad` (n, dim) and, where it is given, `dcondition` (n, condition_dim)."""
        self._evaluate(self._rows(x, "x", 2), self._conditions(condition), _written(grad, "grad", 2),
                       _written(dcondition, "dcondition", 2), _written(out, "out", 1))  # fmt: skip

    def sample_row(
        self, z: ArrayLike, x: NDArray[np.float64], condition: ArrayLike | None = None
    ) -> None:  # fmt: skip
        """Write to x (dim,) the sample that z (dim,), drawn from the base distribution, becomes."""
        self._sample(self._rows(z, "z", 1), self._conditions(condition), _written(x, "x", 1))

    def sample_rows(
        self, z: ArrayLike, x: NDArray[np.float64], condition: ArrayLike | None = None
    ) -> None:  # fmt: skip
        """Write to the rows of x (n, dim) the samples that those of z become."""
        self._sample(self._rows(z, "z", 2), self._conditions(condition), _written(x, "x", 2))

    def pointer(self, kind: str = "evaluate") -> int:
        """The address of a C function that takes the handle; `npflows embed --header` prints its declaration.

        Parameters
        ----------
        kind : {"evaluate", "sample", "xla"}
            "xla": the handler of XLA's foreign function interface that `npflows.hosts.jax` registers.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        return self._compiled().entry(kind)

    def function(self, signature: str = SIGNATURES[0], *, exp: bool = False) -> int:
        """The address of a C function of x alone that returns the log-density, for callers that pass no handle.

        Parameters
        ----------
        signature : str
            ``double (int, double *)``: the number of values, and x; ``double (double *)``: x;
            ``double (double *, double *)``: x, and where to write the gradient; ``double (int, double *, void *)``: the
            last argument is ignored.
        exp : bool
            Return the density.

        Returns
        -------
        int
            Valid in this process and its forks while the density lives.  The function returns NaN for a wrong number of
            values.

        Raises
        ------
        ValueError
            For another signature, or if the density takes a condition.
        """
        if signature not in SIGNATURES:
            raise ValueError(f"signature must be one of {', '.join(map(repr, SIGNATURES))}, got {signature!r}")
        if self.condition_dim:
            raise ValueError("a function of x alone needs a fixed condition: give embed(flow, condition=...)")
        exponential = as_flag(exp, "exp")
        if exponential and signature == SIGNATURES[2]:
            raise ValueError("with its gradient a function gives the log-density: leave exp out")
        return self._compiled().stub(signature, exponential)

    def low_level_callable(self, *, exp: bool = False) -> Any:
        """The log-density, or with `exp` the density, as `scipy.LowLevelCallable`, for `scipy.integrate.nquad` and others.

        It keeps the density alive.
        """
        module = scipy("_lib._ccallback", "low_level_callable")
        kind = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int, ctypes.POINTER(ctypes.c_double))
        function: Any = kind(self.function(exp=exp))
        function.density = self
        return module.LowLevelCallable(function)

    def _rows(self, values: ArrayLike, name: str, axes: int) -> NDArray:
        """(n, dim), contiguous, of one row or a table of x, whose columns may have names, or of z."""
        rows = as_numeric(values, name, self._flow.headers.x if name == "x" else None)
        if rows.ndim != axes:
            raise ValueError(f"{name} must be {'one row' if axes == 1 else 'a table of rows'}, got shape {rows.shape}")
        return np.atleast_2d(np.ascontiguousarray(rows, np.float64))

    def _conditions(self, values: ArrayLike | None) -> NDArray | None:
        """(1 or n, condition_dim), contiguous."""
        if values is None:
            return None
        rows = as_numeric(values, "condition", self._flow.headers.condition)
        if rows.ndim not in (1, 2):
            raise ValueError(f"condition must be one row or a table of rows, got shape {rows.shape}")
        return np.atleast_2d(np.ascontiguousarray(rows, np.float64))

    def _evaluate(
        self, x: NDArray, condition: NDArray | None, grad: NDArray | None, dcondition: NDArray | None, out: NDArray
    ) -> None:  # fmt: skip
        """Fill out (n,) and, where they are given, the gradients."""
        self._check(x, condition)
        n, wanted = len(x), (self.dim, self.condition_dim)
        if out.shape != (n,):
            raise ValueError(f"out must have shape ({n},), got {out.shape}")
        for values, name, width in ((grad, "grad", wanted[0]), (dcondition, "dcondition", wanted[1])):
            if values is not None and (values.size != n * width or values.shape[-1] != width):
                raise ValueError(f"{name} must have {width} values for each row of x, got shape {values.shape}")
        for written, name in ((out, "out"), (dcondition, "dcondition")):
            if written is not None and any(np.may_share_memory(written, a) for a in (x, condition) if a is not None):
                raise ValueError(f"{name} must not share memory with x or the condition: give an array made by np.empty")
        if self._embedded is not None:
            _raise(self._compiled().evaluate(x, condition, grad, dcondition, out))
            return
        self._require_current()
        flow, given = self._python()
        rows, context = x.reshape(n, *flow.input_shape), condition if self.condition_dim else given
        options: dict[str, Any] = {"draws": self._draws, "rng": self._rng}
        if grad is None and dcondition is None:
            out[:] = flow.log_prob(rows, _one(context), **options)
            return
        if dcondition is None or not self.condition_dim:
            out[:], dx = flow.log_prob_and_grad(rows, _one(context), **options)
        else:
            out[:], dx, dcondition.reshape(n, -1)[:] = flow.log_prob_and_grad(rows, _one(context), wrt="both", **options)
        if grad is not None:
            grad.reshape(n, -1)[:] = dx.reshape(n, -1)

    def _sample(self, z: NDArray, condition: NDArray | None, x: NDArray) -> None:
        self._check(z, condition, "z")
        if x.size != z.size or x.shape[-1] != self.dim:
            raise ValueError(f"x must have the shape of z, {z.shape}, got {x.shape}")
        if self._embedded is not None:
            _raise(self._compiled().sample(z, condition, x.reshape(z.shape)))
            return
        self._require_current()
        flow, given = self._python()
        values, _ = flow.inverse(z.reshape(len(z), *flow.input_shape), _one(condition if self.condition_dim else given))
        x.reshape(z.shape)[:] = values.reshape(z.shape)

    def _python(self) -> tuple[TransformedDistribution, NDArray | None]:
        """The copy of the flow that is used where nothing is compiled, and the fixed condition."""
        assert self._interpreted is not None
        return self._interpreted, None if self._condition is None else self._condition[None]

    def _check(self, x: NDArray, condition: NDArray | None, name: str = "x") -> None:
        if x.shape[1] != self.dim:
            raise ValueError(f"{name} must have {self.dim} values, got {x.shape[1]}")
        if self.condition_dim == 0 and condition is not None and condition.shape[1]:
            fixed = "its condition is fixed" if self._condition is not None else "the flow takes none"
            raise ValueError(f"this density takes no condition: {fixed}")
        if self.condition_dim and condition is None:
            raise ValueError(f"this density takes a condition of {self.condition_dim} values, got None")
        if condition is not None and (condition.shape[1] != self.condition_dim or len(condition) not in (1, len(x))):
            raise ValueError(
                f"the condition must have {self.condition_dim} values, and one row or as many as {name}, got shape "
                f"{condition.shape}"
            )


def embed(
    flow: TransformedDistribution, condition: ArrayLike | None = None, *, draws: int = 16, rng: SeedLike = 0
) -> Density:  # fmt: skip
    """Freeze a flow into a density that compiled code calls: Numba, C, Fortran, SciPy's integrators.

    Parameters
    ----------
    flow : NormalizingFlow
        Later changes of it reach the density by `Density.refresh` alone; until then using the density from Python raises.
    condition : array_like (condition_dim,), optional
        Fixed for good.  Without it every call takes a condition, where the flow has one.
    draws : int
        Points of each cell of whole numbers, where the flow has integer columns or pixels; see `NormalizingFlow.log_prob`.
    rng : int
        Draws them.

    Returns
    -------
    Density

    Raises
    ------
    TypeError
        If it is given no flow.
    ValueError
        If the condition does not fit, or is not finite.

    Examples
    --------
    >>> density = npflows.embed(flow)
    >>> @numba.njit
    ... def metropolis(density, x, n, scale):
    ...     p = density.log_prob(x)
    ...     for _ in range(n):
    ...         y = x + scale * np.random.normal(0.0, 1.0, x.size)
    ...         q = density.log_prob(y)
    ...         if np.log(np.random.random()) < q - p:
    ...             x, p = y, q
    ...     return x
    """
    if not isinstance(flow, TransformedDistribution):
        raise TypeError(f"embed takes a flow, such as npflows.MAF, got {type(flow).__name__}")
    fixed = None
    if condition is not None:
        if not flow.condition_dim:
            raise ValueError("this flow takes no condition (condition_dim=0): leave condition out")
        rows = flow.conditioning.finite_rows(condition, 1, "embed")
        assert rows is not None
        fixed = np.array(rows[0], np.float64)
    if not isinstance(rng, (int, np.integer)):
        raise TypeError(
            f"embed takes rng as a whole number, so that the same points are drawn again elsewhere, got {rng!r}"
        )
    return Density(flow, fixed, as_int(draws, "draws"), as_int(rng, "rng", 0))


def _same_bits(a: NDArray, b: NDArray) -> bool:
    """Whether two arrays of one dtype hold the same numbers, NaN included."""
    return np.array_equal(a.ravel().view(np.int32), b.ravel().view(np.int32))


def _raise(status: int) -> None:
    if status < 0:
        raise ValueError(f"the arguments do not fit (status {status})")


def _one(condition: NDArray | None) -> NDArray | None:
    """A condition for all rows without its axis."""
    return condition[0] if condition is not None and len(condition) == 1 else condition


def _written(values: Any, name: str, axes: int) -> Any:
    """An array that results are written to, after a check; None for none."""
    if values is None:
        return None
    if not isinstance(values, np.ndarray) or values.dtype != np.float64 or not values.flags.carray or values.ndim != axes:
        kind = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"{name} must be a contiguous, writable float64 array of {axes} axes, got {kind}")
    return values
