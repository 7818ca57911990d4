"""What fits on several ranks need, as far as it can be tested by one process; tests/on_mpi has the rest."""

import itertools
import sys

import numpy as np
import pytest

import npflows
from npflows.core.backend import Share, select
from npflows.training.communicator import Alone, cuts, lengths
from npflows.training.moments import moments


def test_without_mpi4py_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    with pytest.raises(ImportError, match=r"comm= needs mpi4py and an MPI: pip install 'npflows\[mpi\]'"):
        npflows.MAF(2, 1, (4,), rng=0).fit(np.zeros((9, 2)), comm="world")


@pytest.mark.parametrize(("n", "size"), [(0, 3), (2, 3), (7, 3), (8, 2), (1001, 16)])
def test_parts_are_about_equal_and_all(n, size):
    parts = lengths(cuts(n, size))
    assert sum(parts) == n
    assert max(parts) - min(parts) <= 1


def test_a_process_that_is_alone_has_everything():
    rows = np.arange(6).reshape(3, 2)
    assert Alone().gather(rows, [3]) is rows
    assert Alone().exchange(rows, [3], [3]) is rows
    assert Alone().share(5) == [5]
    assert Alone().broadcast(5) == 5


@pytest.mark.parametrize("n", [100, 1500, 2500, 9000])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_parts_of_a_batch_have_the_gradients_of_the_whole(n, size):
    if select().name != "cpu":
        pytest.skip("compiled programs alone divide batches")
    flow = npflows.MAF(3, 2, (16,), rng=0)
    x, dlog = np.random.default_rng(0).standard_normal((n, 3)), np.full(n, -1 / n)
    executable = flow.executable()
    count = executable.buffer_count(n, flow.parameters.theta.nbytes)
    whole, log_prob = np.empty((count, flow.parameters.theta.size), flow.dtype), np.empty(n)
    flow.accumulate(x, None, dlog, whole, log_prob=log_prob, key=1, dropout=0.2)
    buffers, found = np.empty_like(whole), np.empty(n)
    for first, last in itertools.pairwise(cuts(count, size)):
        part = slice(executable.buffer_rows(n, count, first), executable.buffer_rows(n, count, last))
        if first < last:
            flow.accumulate(x[part], None, dlog[part], buffers[first:last], log_prob=found[part], key=1, dropout=0.2,
                            origin=part.start, share=Share(n, first, count))  # fmt: skip
    np.testing.assert_array_equal(found, log_prob)
    np.testing.assert_array_equal(buffers, whole)


def test_moments_are_those_of_numpy():
    x = np.random.default_rng(0).standard_normal((70_000, 3))
    together = moments(lambda: iter([(x, None)]), len(x))
    np.testing.assert_allclose(together.loc, x.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(together.scale, x.std(axis=0), rtol=1e-12)
