"""Work that threads share: who joins, who is told of errors, what happens when others have the mailbox."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import npflows
from npflows.backends.cpu.compiler.jit import DISABLED
from npflows.backends.cpu.threads import mailbox as protocol
from npflows.backends.cpu.threads import pool as threads
from npflows.extend import Layer, Parameter, kernel

pytestmark = pytest.mark.skipif(DISABLED, reason="nothing is shared without compilation")
X = np.random.default_rng(0).normal(size=(3000, 3))


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    for t in range(block.shape[1]):
        if block[0, t] > 50:
            raise ValueError("a value above 50")


@kernel
def backward(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    pass


class Picky(Layer):
    """The identity, which refuses some values."""

    kernels = (forward, forward, backward, backward)

    def __init__(self, n, *, dtype="float32"):
        super().__init__(n, [Parameter("none", np.zeros(0))], work_rows=0, temp_rows=0, dtype=dtype)


@pytest.fixture
def flow():
    npflows.set_num_threads(3)
    yield npflows.NormalizingFlow([Picky(3), npflows.MAFLayer(3, (8,), rng=1)])
    npflows.set_num_threads(None)


@pytest.mark.parametrize("row", [0, 1500, 2999])
def test_an_error_in_any_piece_reaches_the_caller_and_the_next_call_works(flow, row):
    expected = flow.log_prob(X)
    bad = X.copy()
    bad[row, 0] = 60
    for _ in range(20):
        with pytest.raises(ValueError, match="a value above 50"):
            flow.log_prob(bad)
        np.testing.assert_array_equal(flow.log_prob(X), expected)
    assert threads._pool.mailbox[protocol.GATE] == 0


def test_helpers_join(flow):
    """Not in every call, as they come when they come, but in some of many."""
    mailbox, seen, deadline = threads._pool.mailbox, 0, time.monotonic() + 60
    while not seen and time.monotonic() < deadline:
        with ThreadPoolExecutor(1) as other:
            running = other.submit(lambda: [flow.log_prob(X) for _ in range(50)])
            while not running.done():
                seen = max(seen, int(mailbox[protocol.GATE]) % protocol.ONE_MORE)
    assert seen > 0


def test_helpers_stop_looking_for_work(flow):
    flow.log_prob(X)
    deadline = time.monotonic() + 60
    while threads._pool.mailbox[protocol.LOOKING] and time.monotonic() < deadline:
        pass
    assert threads._pool.mailbox[protocol.LOOKING] == 0


def test_work_is_done_alone_while_others_have_the_mailbox(flow):
    expected, mailbox = flow.log_prob(X), threads._pool.mailbox
    assert mailbox[protocol.GATE] == 0
    mailbox[protocol.GATE] = protocol.CLAIMED
    try:
        np.testing.assert_array_equal(flow.log_prob(X), expected)
        bad = X.copy()
        bad[7, 0] = 60
        with pytest.raises(ValueError, match="a value above 50"):
            flow.log_prob(bad)
    finally:
        mailbox[protocol.GATE] = 0
    np.testing.assert_array_equal(flow.log_prob(X), expected)


def test_many_callers_and_more_helpers_than_cpus():
    npflows.set_num_threads(7)
    try:
        flows = [npflows.MAF(3, 2, (8,), rng=i) for i in range(8)]
        npflows.set_num_threads(1)
        expected = [(flow.log_prob(X), flow.nll_and_grad(X)[1]) for flow in flows]
        npflows.set_num_threads(7)

        def work(i):
            return flows[i % 8].log_prob(X), flows[i % 8].nll_and_grad(X)[1]

        with ThreadPoolExecutor(8) as pool:
            for i, found in enumerate(pool.map(work, range(160))):
                for there, here in zip(found, expected[i % 8]):
                    np.testing.assert_array_equal(there, here)
    finally:
        npflows.set_num_threads(None)
    assert threads._pool.mailbox[protocol.GATE] == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_what_a_signal_raises_waits_for_helpers(flow, monkeypatch, error):
    """While helpers still work, the caller's arrays are theirs too."""
    share, waits = protocol.share("transport", flow.dtype), []

    def interrupted(mailbox, number, helpers, n_bytes, patience, arguments):
        share(mailbox, number, helpers, n_bytes, patience, arguments)
        arguments[1][1] = protocol.BUSY
        raise error

    def wait(mailbox, patience, counter):
        waits.append(counter)
        if len(waits) == 1:
            raise error
        counter[1] = protocol.DONE

    monkeypatch.setattr(threads, "share", lambda kind, dtype: interrupted)
    monkeypatch.setattr(threads, "wait", wait)
    with pytest.raises(error):
        flow.log_prob(X)
    assert len(waits) == 2


def test_helpers_are_few_and_named(flow):
    for _ in range(5):
        flow.log_prob(X)
    assert sum(thread.name == "npflows" for thread in threading.enumerate()) <= max(threads._pool.size, 2)
