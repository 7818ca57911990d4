"""The forms that the target of `fit_variational` may return, and the mistakes in it that are found."""

import numpy as np
import pytest
from helpers import refused, same_bits
from targets import SHORT, banana, realnvp, short_run, slope, two_modes, value

import npflows
from npflows import TrainingError

TARGETS = {
    "no function": ("banana", TypeError, r"log_density_and_grad must be a function of x \(n, 2\), got 'banana'"),
    "nothing": (None, TypeError, "log_density_and_grad must be a function"),
    "one array": (
        value,
        TypeError,
        r"must return two arrays, the log-density \(n,\) and its gradient \(n, 2\), got ndarray",
    ),
    "returns nothing": (lambda x: None, TypeError, "must return two arrays, .* got NoneType"),
    "three arrays": (lambda x: (*banana(x), 0), TypeError, "must return two arrays, .* got tuple"),
    "a column": (
        lambda x: (value(x)[:, None], slope(x)),
        ValueError,
        r"shapes \(8,\) and \(8, 2\) for x of shape \(8, 2\), got \(8, 1\) and \(8, 2\)",
    ),
    "the sum": (lambda x: (value(x).sum(), slope(x)), ValueError, r"got \(\) and \(8, 2\)"),
    "transposed gradient": (lambda x: (value(x), slope(x).T), ValueError, r"got \(8,\) and \(2, 8\)"),
    "swapped": (lambda x: banana(x)[::-1], ValueError, r"got \(8, 2\) and \(8,\)"),
    "the gradient of the sum": (lambda x: (value(x), slope(x).sum(axis=0)), ValueError, r"got \(8,\) and \(2,\)"),
    "NaN": (lambda x: (value(x) * np.nan, slope(x)), ValueError, r"must be a number or -inf, got nan at x = \["),
    "infinite": (lambda x: (value(x) + np.inf, slope(x)), ValueError, r"must be a number or -inf, got inf at x = \["),
}


def log_normal(x):
    """A wide density on the half-line."""
    with np.errstate(all="raise"):
        t = np.log(x)
        return -((t / 3) ** 2).sum(axis=1) / 2 - t.sum(axis=1), -(t / 9 + 1) / x


def test_the_target_is_never_asked_outside_the_support():
    flow = realnvp(support=[npflows.support.positive()] * 2)
    flow.standardize.set(0.0, 4.0)
    short_run(flow, log_normal, max_steps=300)
    assert flow.history["ess"][-1] > 0.9


@pytest.mark.parametrize("case", TARGETS.values(), ids=TARGETS)
def test_a_wrong_target_is_refused_before_anything_is_changed(case):
    target, error, message = case
    refused(error, message, lambda flow: short_run(flow, target), realnvp())


def test_a_target_that_writes_into_x_writes_into_its_own():
    def shifting(x):
        result = banana(x)
        x -= 1.0
        return result

    flows = [short_run(realnvp(), target, max_steps=20) for target in (banana, shifting)]
    same_bits(*flows)


def test_x_is_writable_float64_rows_at_every_call():
    sizes = []

    def target(x):
        assert (x.dtype, x.ndim, x.flags.writeable) == (np.float64, 2, True)
        sizes.append(len(x))
        return banana(x)

    short_run(target=target, max_steps=20)
    assert sizes[-1] == 128
    assert 64 in sizes


def empty(x):
    """No density anywhere."""
    return np.full(len(x), -np.inf), np.zeros_like(x)


def half(x):
    log_p, gradient = banana(x)
    return np.where(x[:, 0] > 0, log_p, -np.inf), gradient


def hole(x):
    log_p, gradient = banana(x)
    return np.where(x[:, 0] > 2.5, np.nan, log_p), gradient  # not where the first look goes


@pytest.mark.parametrize("target", [empty, half, hole])
def test_a_target_that_is_not_finite_everywhere_ends_with_its_place_and_the_first_parameters(target):
    flow = realnvp()
    before = flow.params
    message = r"round \d+: .* log-density or its gradient is not finite at \d+ of 1000 samples, at \[.*\] for instance: .*"
    with pytest.raises(TrainingError, match=message + "give the flow a support= if parameters are bounded") as caught:
        short_run(flow, target, batch_size=1000, max_steps=100)
    np.testing.assert_array_equal(flow.params, before)
    if target is half:
        place = float(str(caught.value).split("at [")[1].split()[0].rstrip("]"))
        assert place <= 0


def test_a_gradient_of_nan_is_refused_before_anything_is_changed():
    refused(ValueError, "gradient", lambda flow: short_run(flow, lambda x: (value(x), slope(x) * np.nan)), realnvp())


def test_bad_steps_are_counted_and_not_taken():
    calls = []

    def target(x):
        calls.append(len(x))
        log_p, gradient = banana(x)
        return (log_p * np.nan if len(calls) == 5 else log_p), gradient

    flow = short_run(target=target, max_steps=6, steps_per_round=3)  # two calls before, three steps, validation
    assert flow.history["skipped_steps"] == [1, 0]
    assert np.isfinite(flow.history["elbo"]).all()


FORMS = {
    "float32": lambda x: tuple(a.astype(np.float32) for a in banana(x)),
    "lists": lambda x: tuple(a.tolist() for a in banana(x)),
    "Fortran order": lambda x: (banana(x)[0], np.asfortranarray(banana(x)[1])),
    "a view of a larger array": lambda x: (np.repeat(banana(x)[0], 2)[::2], np.repeat(banana(x)[1], 2, axis=1)[:, ::2]),
    "read-only": lambda x: tuple(np.frombuffer(a.tobytes()).reshape(a.shape) for a in banana(x)),
    "a list of two": pytest.param(lambda x: list(banana(x))),
}


@pytest.mark.parametrize("target", FORMS.values(), ids=FORMS)
def test_what_the_target_returns_may_come_in_any_form(target):
    flow, expected = short_run(target=target, max_steps=20), short_run(max_steps=20)
    np.testing.assert_allclose(flow.params, expected.params, atol=1e-5)
    np.testing.assert_allclose(flow.history["elbo"], expected.history["elbo"], rtol=1e-4)


def test_a_target_may_return_the_same_array_each_time_or_x_itself():
    memory = np.empty((1000, 2))

    def target(x):
        memory[: len(x)] = -x
        return -0.5 * (x**2).sum(axis=1), memory[: len(x)]

    one, other = (short_run(target=f, max_steps=20) for f in (target, lambda x: (-0.5 * (x**2).sum(axis=1), -x)))
    same_bits(one, other)
    same_bits(*(short_run(target=f, max_steps=2) for f in (growing, lambda x: (growing(x)[0], x + 0))))


def growing(x):
    """No density, and its gradient is x itself."""
    return 0.5 * (x**2).sum(axis=1), x


WRONG_GRADIENTS = {
    "sign": lambda x: -slope(x),
    "factor": lambda x: 2 * slope(x),
    "zero": lambda x: np.zeros_like(x),
    "swapped columns": lambda x: slope(x)[:, ::-1],
    "one column": lambda x: slope(x) * [1.0, 0.0],
    "of another point": lambda x: slope(x + 0.5),
}


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_a_wrong_gradient_is_a_warning_that_says_where(name):
    message = r"gradient that log_density_and_grad returns does not seem .* at \[.*\] the log-density changes by .* says "
    with pytest.warns(UserWarning, match=message) as caught:
        realnvp().fit_variational(lambda x: (value(x), WRONG_GRADIENTS[name](x)), **{**SHORT, "max_steps": 1})
    assert caught[0].filename == __file__
    assert sum("does not seem" in str(warning.message) for warning in caught) == 1


def funnel(x):
    v, y = x[:, 0], x[:, 1]
    squares = y**2 * np.exp(-v)
    return -(v**2) / 18 - 0.5 * squares - 0.5 * v, np.column_stack([-v / 9 + 0.5 * squares - 0.5, -y * np.exp(-v)])


RIGHT_GRADIENTS = {
    "bent": banana,
    "funnel": funnel,
    "steep": lambda x: (-1e8 * (x**2).sum(axis=1), -2e8 * x),
    "steep and far": lambda x: (-1e4 * ((x - 1e3) ** 2).sum(axis=1), -2e4 * (x - 1e3)),
    "quartic": lambda x: (-1e3 * (x**4).sum(axis=1), -4e3 * x**3),
    "exponential": lambda x: (-np.exp(3 * x).sum(axis=1), -3 * np.exp(3 * x)),
    "with a kink": lambda x: (-np.abs(x).sum(axis=1), -np.sign(x)),
    "flat": lambda x: (np.zeros(len(x)), np.zeros_like(x)),
    "large constant": lambda x: (value(x) + 1e9, slope(x)),
    "float32": lambda x: tuple(a.astype(np.float32) for a in banana(x)),
    "float32, large constant": lambda x: ((value(x) - 1e4).astype(np.float32), slope(x)),
    "two modes": two_modes,
    "wrong where few samples are": lambda x: (value(x), np.where(x[:, :1] > 1, 0, slope(x))),
}


@pytest.mark.parametrize("name", RIGHT_GRADIENTS)
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_a_right_gradient_raises_no_warning(name, unit):
    flow = realnvp()
    flow.standardize.set(3 * unit, unit)

    def target(x):
        log_p, gradient = RIGHT_GRADIENTS[name](x / unit - 3)
        return log_p, gradient / unit

    short_run(flow, target, max_steps=1)  # warnings are errors
