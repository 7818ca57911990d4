"""Densities in PyTensor: an operation with a gradient, for models of PyMC and the samplers of PyMC and nutpie.

Made for PyTensor 2.30 and later, with PyMC 5 and 6, in its Numba and C modes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from npflows.core.optional import required
from npflows.density import Density
from npflows.hosts.bounded import check_unbounded

REMEDY = "pip install pymc"


def log_prob(density: Density, *, bounded: bool = False) -> Callable:
    """The log-density as a function of PyTensor's variables.

    The function takes x (dim,) and, where the density takes one, a condition (condition_dim,); it gives a scalar with first
    derivatives with respect to both: `pymc.Potential("flow", log_prob(density)(x))` in a model.  What PyTensor compiles in
    its Numba mode calls the compiled density itself; other modes call it through Python.

    Parameters
    ----------
    density : Density
        What `npflows.embed` gives.  The graph holds the density and not its address, so that it can be pickled, copied and
        sent to other processes.
    bounded : bool
        Say that the sampler keeps x inside the support, through transforms of its own; needed where columns are bounded.

    Returns
    -------
    callable

    Raises
    ------
    ImportError
        If PyTensor can't be imported.
    ValueError
        If columns are bounded and not `bounded`, or are whole numbers.
    """
    required("pytensor", "npflows.hosts.pytensor", "PyTensor", REMEDY)
    check_unbounded(density, bounded)
    operation = make_operation(density)

    def function(x: Any, condition: Any = None) -> Any:
        if (condition is not None) != (density.condition_dim > 0):
            wanted = f"a condition of {density.condition_dim} values" if density.condition_dim else "no condition"
            raise ValueError(f"this density takes {wanted}")
        return operation(*((x,) if condition is None else (x, condition)))

    return function


def make_operation(density: Density) -> Any:
    """The operation of a density: x, and perhaps a condition, to the log-density and its gradients."""
    return _operation_class()(density)


@functools.cache
def _operation_class() -> type:
    """The class of operations, made when PyTensor is first wanted."""
    tensor = required("pytensor.tensor", "npflows.hosts.pytensor", "PyTensor", REMEDY)
    graph = required("pytensor.graph", "npflows.hosts.pytensor", "PyTensor", REMEDY)
    basic = required("pytensor.link.numba.dispatch.basic", "npflows.hosts.pytensor", "PyTensor with Numba", REMEDY)

    class FlowLogProb(graph.Op):  # type: ignore[name-defined]
        """x (dim,), and perhaps a condition, to log_prob () and its gradients, which the pullback then has already."""

        __props__ = ("density",)
        default_output = 0

        def __init__(self, density: Density) -> None:
            self.density = density

        def __reduce__(self) -> tuple[Any, ...]:
            return make_operation, (self.density,)

        def make_node(self, *operands: Any) -> Any:
            vectors = [tensor.as_tensor_variable(operand).astype("float64") for operand in operands]
            for variable in vectors:
                if variable.ndim != 1:
                    raise ValueError(f"a density takes vectors, got a variable of {variable.ndim} axes")
            return graph.Apply(self, vectors, [tensor.dscalar(), *(tensor.dvector() for _ in vectors)])

        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            gradients = [np.empty(len(values)) for values in inputs]
            value = self.density.log_prob_and_grad(inputs[0], gradients[0], *_second(inputs), *_second(gradients))
            outputs[0][0] = np.asarray(value)
            for output, gradient in zip(outputs[1:], gradients):
                output[0] = gradient

        def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
            for cotangent in cotangents[1:]:
                if not _is_disconnected(cotangent):
                    raise NotImplementedError("densities have first derivatives alone")
            return [cotangents[0] * gradient for gradient in outputs[1:]]

        L_op = pullback

        def infer_shape(self, *arguments: Any) -> list[tuple]:
            return [(), *arguments[-1]]

    @basic.numba_funcify.register(FlowLogProb)
    def _numba(op: Any, node: Any = None, **options: Any) -> Any:
        density = op.density  # a global of what is compiled, which is therefore kept off the disk: it has an address in it

        @basic.numba_njit
        def of_x(x: Any) -> Any:
            row = np.ascontiguousarray(x)
            grad = np.empty(row.size)
            value = density.log_prob_and_grad(row, grad)
            return np.asarray(value), grad

        @basic.numba_njit
        def of_x_and_condition(x: Any, condition: Any) -> Any:
            row, given = np.ascontiguousarray(x), np.ascontiguousarray(condition)
            grad, dcondition = np.empty(row.size), np.empty(given.size)
            value = density.log_prob_and_grad(row, grad, given, dcondition)
            return np.asarray(value), grad, dcondition

        return of_x_and_condition if density.condition_dim else of_x

    return FlowLogProb


def _second(values: Any) -> Any:
    """What comes after the first value."""
    return values[1:]


def _is_disconnected(cotangent: Any) -> bool:
    """Whether nothing depends on an output."""
    return type(getattr(cotangent, "type", None)).__name__ == "DisconnectedType"
