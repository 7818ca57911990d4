"""The CPU's kernels as code of a GPU.

A kernel of `backends/cpu` works on a block (rows, lanes) and is a plain function of arrays.  Given one lane it does what
one thread of a GPU has to do.  `Texts.again(function)` makes it anew with another compiler, and with it all that it calls;
some functions stand for others there.

To call the CPU's compiled functions from a kernel would be shorter, and wrong: numba.cuda takes their rules for floating
point, of which there are two, for all of "fast math", with approximate divisions and no denormal numbers.
"""

from __future__ import annotations

import copy
import dis
import functools
from collections.abc import Callable, Iterator
from types import CellType, FunctionType, ModuleType
from typing import Any

import numpy as np

from npflows.backends.cpu.compiler import calls
from npflows.backends.cpu.kernels import vecmath

ELEMENTARY = ("exp", "exp_of_negative", "expm1", "log", "log1p", "tanh", "softplus", "sigmoid", "sinpi", "cospi", "arctan")


def least(a, b):
    """min(a, b) as Python means it, NaN where a is; a GPU's own drops NaN."""
    return b if b < a else a


def most(a, b):
    """max(a, b) in the same way."""
    return b if b > a else a


def flat(block):
    """The entries of a block of one lane."""
    return block[:, 0]


def no_sums(d, out):
    """Sums over samples of rows that stay where they are come later (sums.py)."""


def as_real(bits):
    """The float64 whose bits an integer of a spec holds."""
    return np.int64(bits).view(np.float64)


def text_of(function: Any) -> Any:
    """The function of Python that a compiled one was made of."""
    return getattr(function, "py_func", function)


def _is_ours(value: Any) -> bool:
    text = text_of(value)
    return isinstance(text, FunctionType) and text.__module__.startswith("npflows.backends")


def _loaded(text: FunctionType) -> dict[str, Any]:
    """The globals that a text uses."""
    loaded = {one.argval for one in dis.get_instructions(text) if one.opname == "LOAD_GLOBAL"}
    return {name: text.__globals__[name] for name in loaded if name in text.__globals__}


def _used(text: FunctionType) -> Iterator[Any]:
    """The values that a text uses: globals, cells, and what it may take from modules of the CPU's kernels."""
    for value in [*_loaded(text).values(), *(cell.cell_contents for cell in text.__closure__ or ())]:
        if isinstance(value, ModuleType) and value.__name__.startswith("npflows.backends"):
            yield from (getattr(value, name, None) for name in text.__code__.co_names)
        else:
            yield value


@functools.cache
def calls_by_address(text: FunctionType) -> bool:
    """Whether a text calls functions by their addresses, itself or by way of what it calls."""
    left, seen = [text], {text}
    while left:
        for value in _used(left.pop()):
            if value is calls.call:
                return True
            if _is_ours(value) and text_of(value) not in seen:
                seen.add(text_of(value))
                left.append(text_of(value))
    return False


class Texts:
    """Functions of the CPU's kernels for one compiler, each compiled once.

    Parameters
    ----------
    compile : callable
        From a function of Python to one that kernels can call.
    choose : callable
        From a function of float32 and one of float64 to one that is either, by its argument.
    replaced : dict
        What stands for a function, by the function.
    call : callable
        What stands for a call by address.
    numpy : dict
        What stands for functions of NumPy, by their names.
    """

    def __init__(
        self, compile: Callable, choose: Callable, replaced: dict[Any, Any], call: Callable, numpy: dict[str, Any]
    ) -> None:  # fmt: skip
        self._compile = compile
        self._common: Texts | None = None
        self._known: dict[Any, Any] = {calls.call: call, calls.flat: compile(flat), calls.as_real: compile(as_real)}
        self._known |= {text_of(function): other for function, other in replaced.items()}
        self._builtins = {"min": compile(least), "max": compile(most)}
        self._numpy = ModuleType("numpy")
        self._numpy.__dict__.update(np.__dict__, **numpy)
        self._vecmath = ModuleType("vecmath")
        single, double = vecmath._SINGLE, vecmath._DOUBLE
        for name in ELEMENTARY:
            both = self.again(getattr(single, name)), self.again(getattr(double, name))
            setattr(self._vecmath, name, choose(*both))

    def calling(self, call: Callable, replaced: dict[Any, Callable]) -> Texts:
        """Texts with another stand-in for calls by address; what makes no such call is compiled once for both, but for
        functions written for a GPU in the place of some."""
        other = copy.copy(self)
        stands = {text_of(function): self._compile(one) for function, one in replaced.items()}
        other._common, other._known = self, {**self._known, calls.call: call, **stands}
        return other

    def compiled(self, function: Callable) -> Any:
        """A function that is written for a GPU already, for kernels to call."""
        return self._compile(function)

    def again(self, function: Any) -> Any:
        """A function and all that it calls, compiled anew."""
        text = text_of(function)
        if text not in self._known and self._common is not None and not calls_by_address(text):
            return self._common.again(text)
        if text not in self._known:
            names = text.__code__.co_names
            renewed = {name: self._renewed(value, names) for name, value in _loaded(text).items()}
            scope = {**text.__globals__, **self._builtins, **renewed}
            cells = tuple(CellType(self._renewed(cell.cell_contents, names)) for cell in text.__closure__ or ())
            anew = FunctionType(text.__code__, scope, text.__name__, text.__defaults__, cells or None)
            self._known[text] = self._compile(anew)
        return self._known[text]

    def _renewed(self, value: Any, names: tuple[str, ...]) -> Any:
        """What stands for a value that a text knows, of which, if it is a module, it uses some names."""
        if value is np:
            return self._numpy
        if value is vecmath:
            return self._vecmath
        if isinstance(value, ModuleType) and value.__name__.startswith("npflows.backends"):
            ours = [name for name in names if _is_ours(getattr(value, name, None))]
            renewed = ModuleType(value.__name__)
            renewed.__dict__.update(value.__dict__, **{name: self.again(getattr(value, name)) for name in ours})
            return renewed
        return self.again(value) if _is_ours(value) or (callable(value) and value in self._known) else value
