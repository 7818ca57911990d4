"""Tasks shared out among processes: all are done, errors come back in one line, and nothing is left behind."""

import os
import sys

import pytest

from npflows.core.processes import Processes

pytestmark = pytest.mark.skipif(not sys.executable, reason="no interpreter to start")


@pytest.mark.parametrize("n", [1, 3])
def test_every_task_is_done_once(tmp_path, n):
    with Processes("os:mkdir", n, {}) as crew:
        tasks = [(str(tmp_path / name),) for name in "abcde"]
        answers = list(crew.run(tasks))
    assert sorted(task for task, _ in answers) == tasks
    assert all(seconds >= 0 for _, seconds in answers)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcde")


def test_an_error_is_one_line_with_the_task(tmp_path):
    with pytest.raises(RuntimeError, match=r"^/nowhere/at/all: FileNotFoundError: .*/nowhere/at/all'$"), \
         Processes("os:mkdir", 2, {}) as crew:  # fmt: skip
        list(crew.run([("/nowhere/at/all",)]))
    assert all(process is None or process.returncode is not None for process in crew._running)


def test_a_process_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match=r"^gone: the process that was to do it ended with status 1$"), \
         Processes("sys:exit", 1, {}) as crew:  # fmt: skip
        list(crew.run([("gone",)]))


def test_what_python_prints_when_it_starts_is_no_answer(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('Welcome to this cluster\\n[1, 2]', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with Processes("os:mkdir", 1, {}) as crew:
        [(task, _)] = crew.run([(str(tmp_path / "a"),)])
    assert task == (str(tmp_path / "a"),)


def test_a_path_of_modules_may_hold_what_is_no_string(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path])
    with Processes("os:mkdir", 1, {}) as crew:
        assert len(list(crew.run([(str(tmp_path / "a"),)]))) == 1


def test_no_task_is_no_work():
    with Processes("os:mkdir", 4, {}) as crew:
        assert list(crew.run([])) == []
