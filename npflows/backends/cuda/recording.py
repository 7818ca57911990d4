"""Launches that are recorded once, in a CUDA graph, and from then on launched together: the host takes longer to launch a
kernel from Python than a small one runs.

A recording holds the kernels with all of their arguments, so that these have to be the same each time: numbers, and where
arrays lie.  What changes from one time to the next is put into the same arrays before.  In the simulator a list stands for
the graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

from npflows.backends.cuda import device
from npflows.backends.cuda.device import current_device, current_stream, recording
from npflows.core.checks import warn_user

MOST = 16
"""Recordings that are kept."""
Value = TypeVar("Value")


class Graph(Protocol):
    """Launches that were recorded."""

    def launch(self) -> None:
        """Launch them on the present stream."""


class CudaGraph:
    """Launches in a CUDA graph.

    Parameters
    ----------
    launches : callable
        Launches them.
    """

    def __init__(self, launches: Callable[[], Any]) -> None:
        self._core = importlib.import_module("cuda.core")
        gpu = self._core.Device(current_device())
        gpu.set_current()
        stream = gpu.create_stream()
        builder = stream.create_graph_builder()
        builder.begin_building("relaxed")
        try:
            with recording(int(builder.stream.handle)):
                self.result = launches()
        finally:
            builder.end_building()
        self._graph = builder.complete()

    def launch(self) -> None:
        """Launch them on the present stream."""
        self._graph.launch(self._core.Stream.from_handle(current_stream()))


class SimulatedGraph:
    """Launches in a list."""

    def __init__(self, launches: Callable[[], Any]) -> None:
        self._noted: list[Callable[[], None]] = []
        with recording(current_stream(), self._noted):
            self.result = launches()

    def launch(self) -> None:
        """Launch them one after the other."""
        for one in self._noted:
            one()


class _Entry:
    """What is known of launches: the arrays that they use, and their graph once there is one."""

    def __init__(self, uses: tuple[Any, ...]) -> None:
        self.uses = uses
        self.graph: Any = None
        self.refused = False


class Recordings:
    """The launches of one program, by what they are for."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Entry] = {}

    def run(self, key: Hashable, uses: Callable[[], tuple[Any, ...]], launches: Callable[[], Value]) -> Value:
        """Launch what is the same each time that the key and the arrays are.

        The first time kernels are launched one by one, which may compile them and take memory; the second time they are
        recorded; from then on the recording is launched.

        Parameters
        ----------
        key : hashable
        uses : callable
            Gives the arrays that were there before, and whatever else is another object where an address has changed.
        launches : callable
            Only launches, and gives arrays that it leaves.
        """
        known = self._known.get(key)
        if known is None or any(a is not b for a, b in zip(known.uses, uses(), strict=True)):
            self._known.pop(key, None)
            while len(self._known) >= MOST:
                del self._known[next(iter(self._known))]
            result = launches()
            self._known[key] = _Entry(uses())  # with the memory that the launches took
            return result
        if known.refused:
            return launches()
        if known.graph is None:
            try:
                known.graph = (CudaGraph if device.driver.GRAPHS else SimulatedGraph)(launches)
            except Exception as error:  # a driver without it, for instance; what was recorded has not run
                known.refused = True
                warn_user(f"launches can't be recorded in a CUDA graph here, and go one by one, which is slower: {error}")
                return launches()
        known.graph.launch()
        return known.graph.result
