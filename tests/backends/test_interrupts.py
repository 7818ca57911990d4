"""Signals and forks while threads share work or compile: nobody is left waiting, and the arrays are nobody else's."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npflows.backends.cpu.compiler.jit import DISABLED
from npflows.backends.cpu.threads import mailbox as protocol
from npflows.backends.cpu.threads import pool as threads
from npflows.core.threads import set_num_threads

pytestmark = pytest.mark.skipif(DISABLED, reason="nothing is shared without compilation")


class Shared:
    """Work that a helper ends only after two looks at it."""

    def __init__(self, monkeypatch):
        self.gate, self.counter, self.waits = 0, None, 0
        monkeypatch.setattr(threads, "share", lambda kind, dtype: self.share)
        monkeypatch.setattr(threads, "wait", self.wait)
        monkeypatch.setattr(threads, "address", lambda function, kind, dtype: 0)
        monkeypatch.setattr(threads, "NAP", 0.0)
        monkeypatch.setattr(threads._pool, "ready", lambda helpers: helpers)

    def share(self, mailbox, number, helpers, n_bytes, patience, arguments):
        self.gate, self.counter, self.waits = 1, arguments[1], 0
        self.counter[1] = protocol.BUSY

    def wait(self, mailbox, patience, counter):
        self.waits += 1
        if self.waits == 2:
            self.gate, counter[1] = 0, protocol.DONE


def run():
    threads.run(None, "combine", 2, 0, np.dtype(np.float64), ())


@pytest.fixture
def shared(monkeypatch):
    _ = threads._pool.patience
    set_num_threads(2)
    yield Shared(monkeypatch)
    set_num_threads(None)
    threads._local.shared = None


def interrupted(place):
    """Run with an interrupt at one bytecode of `run`; whether it came."""
    seen = 0

    def trace(frame, event, argument):
        nonlocal seen
        if frame.f_code is not threads.run.__code__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            seen += 1
            if seen == place:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_at_any_bytecode_leaves_no_helper_with_the_arrays(shared):
    place = 1
    while interrupted(place):
        assert shared.gate == 0, place
        place += 1
    assert place > 100
    assert shared.gate == 0


def test_interrupts_that_end_every_wait_are_settled_by_the_next_call(shared, monkeypatch):
    def impatient(mailbox, patience, counter):
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "wait", impatient)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert shared.gate == 1
    assert threads._local.shared is not None  # the arrays are kept for the helpers
    monkeypatch.setattr(threads, "wait", shared.wait)
    first = shared.counter
    run()
    assert first[1] == protocol.DONE
    assert shared.gate == 0
    assert threads._local.shared is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_while_another_thread_compiles_goes_on():
    script = Path(__file__).parents[1] / "fuzz" / "forks.py"
    done = subprocess.run([sys.executable, script, "2"], text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
