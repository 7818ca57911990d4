"""Tasks shared out among processes of this Python.

Each process is a fresh interpreter that gets its tasks one by one, so that nothing is forked and no script is run again.
One whose caller is gone meets the end of its input and ends too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import IO, Any

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from npflows.core.processes import serve
serve(sys.argv[2])
"""
_ANSWER = "npflows.core.processes "
"""What the line of an answer begins with; others, which whatever starts with Python may print, are passed over."""


class Processes:
    """Processes that answer to tasks with the seconds that they took; a context that ends them.

    Parameters
    ----------
    function : str
        "module:name" of what each task, a tuple of strings, is handed to.
    n : int
        The number of processes, at least 1; each starts with its first task.
    environment : mapping of str to str
        Variables that they have besides those of this process.
    """

    def __init__(self, function: str, n: int, environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-c", _START, json.dumps([p for p in sys.path if isinstance(p, str)]), function]
        self._environment = {**os.environ, **environment}
        self._running: list[subprocess.Popen[str] | None] = [None] * n
        self._stopped = threading.Event()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for process in filter(None, self._running):
            if error[0] is not None:
                process.kill()
            with contextlib.suppress(OSError):
                process.communicate()

    def run(self, tasks: Sequence[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], float]]:
        """Hand out the tasks in their order; each comes back with its seconds when it is done, in any order.

        Raises
        ------
        RuntimeError
            With the message of the first task that fails.
        """
        waiting: SimpleQueue[tuple[str, ...]] = SimpleQueue()
        answers: SimpleQueue[tuple[tuple[str, ...], float, str]] = SimpleQueue()
        for task in tasks:
            waiting.put(task)

        def attend(place: int) -> None:
            with contextlib.suppress(Empty):
                while not self._stopped.is_set():
                    task = waiting.get_nowait()
                    answers.put((task, *self._ask(place, task)))

        for place in range(min(len(self._running), len(tasks))):
            threading.Thread(target=attend, args=(place,), daemon=True).start()
        for _ in tasks:
            task, seconds, complaint = answers.get()
            if complaint:
                raise RuntimeError(f"{' '.join(task)}: {complaint}")
            yield task, seconds

    def _ask(self, place: int, task: tuple[str, ...]) -> tuple[float, str]:
        """Have a process do a task: its seconds, and a complaint if it failed."""
        try:
            process = self._running[place]
            if process is None:
                process = self._running[place] = subprocess.Popen(
                    self._command, env=self._environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            stdin, stdout = process.stdin, process.stdout
            assert stdin is not None
            assert stdout is not None
            stdin.write(json.dumps(task) + "\n")
            stdin.flush()
            for line in stdout:
                if line.startswith(_ANSWER):
                    seconds, complaint = json.loads(line.removeprefix(_ANSWER))
                    return seconds, complaint
            return 0.0, f"the process that was to do it ended with status {process.wait()}"
        except OSError as error:  # it can't be started, or is gone
            return 0.0, f"there is no process to do it ({error})"


def serve(function: str) -> None:
    """Do the tasks that come in, until no more come."""
    out, sys.stdout = sys.stdout, sys.stderr  # what others print is no answer
    module, _, name = function.partition(":")
    __import__(module)
    do: Callable[..., Any] = getattr(sys.modules[module], name)
    for line in sys.stdin:
        _answer(out, do, json.loads(line))


def _answer(out: IO[str], do: Callable[..., Any], task: list[str]) -> None:
    started, complaint = time.perf_counter(), ""
    try:
        do(*task)
    except Exception as error:
        complaint = f"{type(error).__name__}: {str(error) or 'no message'}".splitlines()[0]
    print(_ANSWER + json.dumps((time.perf_counter() - started, complaint)), file=out, flush=True)
