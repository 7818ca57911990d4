"""Densities in JAX: a function that `jit`, `grad`, `vmap` and the samplers of numpyro and blackjax take, without callbacks.

Made for JAX 0.5 and later, on the CPU.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from npflows.core.optional import required
from npflows.density import Density
from npflows.hosts.bounded import check_unbounded

TARGET = "npflows_log_prob"


def log_prob(density: Density, *, bounded: bool = False) -> Callable:
    """The log-density as a differentiable function of JAX on the CPU.

    The function takes x (..., dim) and, where the density takes one, a condition (..., condition_dim), both float64, and
    gives log-densities (...).  XLA calls the compiled density itself: nothing returns to Python.  There are first
    derivatives, forward and reverse, with respect to x and the condition.

    Parameters
    ----------
    density : Density
        What `npflows.embed` gives.  The function keeps it alive; `Density.refresh` reaches what is compiled, too.
    bounded : bool
        Say that the sampler keeps x inside the support, through transforms of its own; needed where columns are bounded.

    Returns
    -------
    callable

    Raises
    ------
    ImportError
        If JAX can't be imported.
    ValueError
        If columns are bounded and not `bounded`, or are whole numbers.
    RuntimeError
        If JAX computes in float32: set jax.config.update("jax_enable_x64", True) before anything else.
    """
    jax = required("jax", "npflows.hosts.jax", "JAX", "pip install jax")
    check_unbounded(density, bounded)
    if not jax.config.jax_enable_x64:
        raise RuntimeError(
            'densities are float64, which JAX leaves out by default: call jax.config.update("jax_enable_x64", True) first'
        )
    _register(jax, density.pointer("xla"))
    double = jax.numpy.float64

    def call(operands: tuple, gradients: bool) -> list:
        kinds = [jax.ShapeDtypeStruct(operands[0].shape[:-1], double)]
        if gradients:
            kinds += [jax.ShapeDtypeStruct(operand.shape, double) for operand in operands]
        function = jax.ffi.ffi_call(TARGET, kinds, vmap_method="broadcast_all")
        return list(function(*operands, handle=np.int64(density.handle)))

    @jax.custom_jvp
    def evaluated(*operands: Any) -> Any:
        return call(operands, False)[0]

    @evaluated.defjvp
    def _derivative(operands: tuple, tangents: tuple) -> tuple:
        value, *gradients = call(operands, True)
        change = sum((gradient * tangent).sum(-1) for gradient, tangent in zip(gradients, tangents))
        return value, change

    def function(x: Any, condition: Any = None) -> Any:
        x = _checked(jax, x, density.dim, "x")
        if density.condition_dim == 0:
            if condition is not None:
                raise ValueError("this density takes no condition")
            return evaluated(x)
        if condition is None:
            raise ValueError(f"this density takes a condition of {density.condition_dim} values")
        condition = _checked(jax, condition, density.condition_dim, "condition")
        shape = jax.numpy.broadcast_shapes(x.shape[:-1], condition.shape[:-1])
        return evaluated(*(jax.numpy.broadcast_to(part, (*shape, part.shape[-1])) for part in (x, condition)))

    return function


def _checked(jax: ModuleType, values: Any, width: int, name: str) -> Any:
    """An array (..., width) of float64, after a check."""
    array = jax.numpy.asarray(values)
    if array.shape[-1:] != (width,) or array.dtype != jax.numpy.float64:
        raise ValueError(f"{name} must be float64 of shape (..., {width}), got {array.dtype} of shape {array.shape}")
    return array


@functools.cache
def _register(jax: ModuleType, address: int) -> None:
    """Make the handler known to JAX, once in a process."""
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target(TARGET, capsule(address, None, None), platform="cpu")
