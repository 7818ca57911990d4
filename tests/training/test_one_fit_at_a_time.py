"""A flow is fitted by one fit at a time, and two rows are no reason to call a column constant."""

import copy
import threading
import warnings

import numpy as np
import pytest
from helpers import fitted

import npflows

X = np.random.default_rng(0).normal(size=(200, 2))


def maf():
    return npflows.MAF(2, 1, (6,), rng=1)


def test_two_threads_that_fit_one_flow_are_told_so():
    flow, inside, go_on, told = maf(), threading.Event(), threading.Event(), []

    def hold(flow, record):
        inside.set()
        go_on.wait(60)

    thread = threading.Thread(target=lambda: fitted(flow, X, callbacks=hold))
    thread.start()
    assert inside.wait(60)
    try:
        with pytest.raises(RuntimeError, match="this flow is being fitted already"):
            fitted(flow, X)
        fitted(copy.deepcopy(flow), X)
    finally:
        go_on.set()
        thread.join()
    expected = fitted(maf(), X)
    np.testing.assert_array_equal(flow.params, expected.params)
    fitted(flow, X)
    assert told == []


def test_a_callback_that_fits_its_flow_is_told_so():
    with pytest.raises(RuntimeError, match="the fit that this callback belongs to"):
        fitted(maf(), X, callbacks=lambda flow, record: fitted(flow, X))


def test_a_fit_that_ended_in_an_error_is_over():
    def fail(flow, record):
        raise KeyError("mine")

    flow = maf()
    with pytest.raises(KeyError, match="mine"):
        fitted(flow, X, callbacks=fail)
    fitted(flow, X)


def test_two_rows_are_both_trained_on():
    flow = maf()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fitted(flow, [[0.0, 1.0], [2.0, 5.0]])
    assert not any("constant" in str(warning.message) for warning in told)
    np.testing.assert_allclose(flow.standardize.loc, [1.0, 3.0])
