"""What does not fit is refused in a sentence."""

import embedded_cases as cases
import numba
import numpy as np
import pytest

import npflows


@numba.njit
def log_prob(density, x):
    return density.log_prob(x)


@numba.njit
def under(density, x, condition):
    return density.log_prob(x, condition)


@numba.njit
def into(density, x, grad):
    return density.log_prob_and_grad(x, grad)


@numba.njit
def rows(density, x, out):
    density.log_prob_rows(x, out)


@pytest.fixture(scope="module")
def density():
    return npflows.embed(cases.small())


def test_embed_takes_flows_and_fitting_conditions():
    with pytest.raises(TypeError, match=r"embed takes a flow, such as npflows\.MAF, got ndarray"):
        npflows.embed(np.zeros(3))
    with pytest.raises(ValueError, match="takes no condition"):
        npflows.embed(cases.small(), [1.0])
    flow = cases.small(condition_dim=2)
    with pytest.raises(ValueError, match="finite condition"):
        npflows.embed(flow, [1.0, np.nan])
    with pytest.raises(ValueError, match="condition"):
        npflows.embed(flow, [1.0])
    with pytest.raises(TypeError, match="rng as a whole number"):
        npflows.embed(flow, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "x",
    [np.zeros(3, np.float32), np.zeros((3, 2))[:, 0], np.zeros((1, 3)), 1.0],
    ids=["float32", "strided", "table", "number"],
)
def test_compiled_code_says_which_arrays_it_takes(density, x):
    with pytest.raises(numba.TypingError, match="takes x as a contiguous 1-dimensional float64 array"):
        log_prob(density, x)


def test_wrong_lengths(density):
    with pytest.raises(ValueError, match=r"number of values, density\.dim"):
        log_prob(density, np.zeros(4))
    with pytest.raises(ValueError, match="same shape"):
        into(density, np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="as many rows"):
        rows(density, np.zeros((5, 3)), np.zeros(4))
    with pytest.raises(ValueError, match="x must have 3 values, got 4"):
        density.log_prob(np.zeros(4))
    with pytest.raises(ValueError, match=r"out must have shape \(5,\)"):
        density.log_prob_rows(np.zeros((5, 3)), np.zeros(4))
    with pytest.raises(ValueError, match="grad must have 3 values"):
        density.log_prob_and_grad(np.zeros(3), np.zeros(2))
    with pytest.raises(TypeError, match="contiguous, writable float64 array"):
        density.log_prob_and_grad(np.zeros(3), np.zeros(3, np.float32))


def test_conditions_that_are_missing_or_not_wanted(density):
    conditional = npflows.embed(cases.small(condition_dim=2))
    for call in (lambda: log_prob(conditional, np.zeros(3)), lambda: under(density, np.zeros(3), np.zeros(2)),
                 lambda: under(conditional, np.zeros(3), np.zeros(3))):  # fmt: skip
        with pytest.raises(ValueError, match=r"density\.condition_dim"):
            call()
    with pytest.raises(ValueError, match="takes a condition of 2 values, got None"):
        conditional.log_prob(np.zeros(3))
    with pytest.raises(ValueError, match="the flow takes none"):
        density.log_prob(np.zeros(3), [1.0])
    with pytest.raises(ValueError, match="its condition is fixed"):
        npflows.embed(cases.small(condition_dim=2), [0, 0]).log_prob(np.zeros(3), [0, 0])


def test_functions_without_a_handle(density):
    with pytest.raises(ValueError, match="signature must be one of"):
        density.function("float (float)")
    with pytest.raises(ValueError, match="leave exp out"):
        density.function("double (double *, double *)", exp=True)
    with pytest.raises(ValueError, match="needs a fixed condition"):
        npflows.embed(cases.small(condition_dim=2)).function()
    with pytest.raises(ValueError, match="kind must be"):
        density.pointer("draw")
