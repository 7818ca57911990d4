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


GRAD = np.zeros(3)


@numba.njit
def into_global(density, x):
    return density.log_prob_and_grad(x, GRAD)


@numba.njit
def with_all_gradients(density, x, grad, out, condition, dcondition):
    density.log_prob_and_grad_rows(x, grad, out, condition, dcondition)


@numba.njit
def sample(density, z, x):
    density.sample_row(z, x)


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
    with pytest.raises(ValueError, match="rng must be a whole number of at least 0, got -1"):
        npflows.embed(flow, rng=-1)


def test_seeds_may_be_numpys_whole_numbers():
    flow, x = cases.with_integers(), np.array([2.0, 0.0, 0.0, 1.0])
    assert npflows.embed(flow, rng=np.int64(3)).log_prob(x) == npflows.embed(flow, rng=3).log_prob(x)


@pytest.mark.parametrize(
    "x",
    [np.zeros(3, np.float32), np.zeros((3, 2))[:, 0], np.zeros((1, 3)), 1.0],
    ids=["float32", "strided", "table", "number"],
)
def test_compiled_code_says_which_arrays_it_takes(density, x):
    with pytest.raises(numba.TypingError, match="takes x as a contiguous 1-dimensional float64 array"):
        log_prob(density, x)


def read_only(*shape):
    """Zeros that may not be written to, like a file mapped with mode="r"."""
    array = np.zeros(shape)
    array.flags.writeable = False
    return array


def test_compiled_code_does_not_write_to_read_only_arrays(density):
    x, kept = np.zeros(3), read_only(3)
    conditional, rows_of_x = npflows.embed(cases.small(condition_dim=2)), np.zeros((4, 3))
    given, arrays = (rows_of_x, np.zeros((4, 3)), np.zeros(4), np.zeros((4, 2)), np.zeros((4, 2))), {}
    for i, name in ((1, "grad"), (2, "out"), (4, "dcondition")):
        arrays[name] = [*given[:i], read_only(*given[i].shape), *given[i + 1 :]]
    for name, call in (
        ("grad", lambda: into_global(density, x)),
        ("grad", lambda: into(density, x, kept)),
        ("out", lambda: rows(density, rows_of_x, read_only(4))),
        ("x", lambda: sample(density, x, kept)),
        *((name, lambda array=array: with_all_gradients(conditional, *array)) for name, array in arrays.items()),
    ):
        with pytest.raises(numba.TypingError, match=f"writes to {name}, got a read-only array"):
            call()
    assert not kept.any()
    assert not GRAD.any()
    into(density, kept, np.empty(3))  # what is read may be read-only


def test_results_do_not_take_the_place_of_what_is_read(density):
    one = npflows.embed(npflows.NeuralSplineFlow(1, 1, support=[npflows.support.positive()], rng=0))
    x = np.ones((4, 1))
    with pytest.raises(ValueError, match="out must not share memory with x or the condition"):
        one.log_prob_and_grad_rows(x, np.empty((4, 1)), x[:, 0])
    conditional, condition = npflows.embed(cases.small(condition_dim=2)), np.zeros(2)
    with pytest.raises(ValueError, match="dcondition must not share memory"):
        conditional.log_prob_and_grad(np.zeros(3), np.empty(3), condition, condition)


def test_complex_numbers_and_text_are_refused(density):
    conditional = npflows.embed(cases.small(condition_dim=2))
    for call in (
        lambda x: density.log_prob(x),
        lambda x: density.log_prob_rows([x], np.empty(1)),
        lambda x: conditional.log_prob(np.zeros(3), x[:2]),
        lambda x: density.sample_row(x, np.empty(3)),
    ):
        with pytest.raises((TypeError, ValueError), match="complex"):
            call(np.array([1 + 5j, 2, 3]))
        with pytest.raises((TypeError, ValueError), match="must be an array of numbers, got dtype <U1"):
            call(np.array(["1", "2", "3"]))


def test_columns_with_names_are_taken_by_name():
    flow = cases.small(columns=["a", "b", "c"])
    density, out = npflows.embed(flow), np.empty(2)
    x = {"c": np.array([3.0, 3.5]), "a": np.array([1.0, 1.5]), "b": np.array([2.0, 2.5])}
    density.log_prob_rows(x, out)
    np.testing.assert_array_equal(out, flow.log_prob(x))
    assert density.log_prob({name: values[0] for name, values in x.items()}) == out[0]
    with pytest.raises(ValueError, match="x has no column 'b'"):
        density.log_prob({"a": 1.0, "c": 3.0})


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
    with pytest.raises(ValueError, match="grad must have 3 values for each row"):  # as many, but turned
        density.log_prob_and_grad_rows(np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="x must have the shape of z"):
        density.sample_rows(np.zeros((2, 3)), np.zeros((3, 2)))
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


def test_an_empty_condition_is_as_good_as_none(density):
    """So that compiled code can pass an array to densities with and without a condition."""
    fixed = npflows.embed(cases.small(condition_dim=2), [0, 0])
    for one in (density, fixed):
        expected = one.log_prob(np.zeros(3))
        assert under(one, np.zeros(3), np.zeros(0)) == expected
        assert one.log_prob(np.zeros(3), []) == expected


def test_functions_without_a_handle(density):
    for call in (density.function, density.low_level_callable):
        with pytest.raises(TypeError, match="exp must be True or False, got 'no'"):
            call(exp="no")
    with pytest.raises(ValueError, match="signature must be one of"):
        density.function("float (float)")
    with pytest.raises(ValueError, match="leave exp out"):
        density.function("double (double *, double *)", exp=True)
    with pytest.raises(ValueError, match="needs a fixed condition"):
        npflows.embed(cases.small(condition_dim=2)).function()
    with pytest.raises(ValueError, match="kind must be"):
        density.pointer("draw")
