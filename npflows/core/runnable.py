"""Base class of all that has parameters and a program that backends run."""

from __future__ import annotations

from typing import Any

from npflows.core.backend import Executable, State, select
from npflows.core.operations import Program
from npflows.core.parameters import Parametrized


class Runnable(Parametrized):
    """Base class of everything that is run by itself, on its own parameters; a subclass writes `program`."""

    _executable: Executable | None = None

    def program(self) -> Program:
        """The operations that backends run."""
        raise NotImplementedError

    def executable(self) -> Executable:
        """The program, ready to run: compiled when it is first asked for, and not pickled."""
        if self._executable is None:
            self._executable = select().compile(self.program(), self.dtype)
        return self._executable

    def state(self) -> State:
        """The numbers that the program reads."""
        return State(self.parameters.theta)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_executable": None}
