"""What comes from the user is told in one sentence, whatever it is."""

import numpy as np
import pytest

import npflows
from npflows.core.checks import as_choice, as_flag, as_int, as_names, as_positive

HUGE = 10**400


@pytest.mark.parametrize("value", [HUGE, 2 * HUGE, 10**5000], ids=["400", "401", "5001"])
def test_whole_numbers_of_hundreds_of_digits_are_refused(value):
    with pytest.raises(ValueError, match=r"n must be a whole number of at .* got one of .* bits"):
        as_int(value, "n")
    with pytest.raises(ValueError, match=r"scale must be a finite number above 0, got one of .* bits"):
        as_positive(value, "scale")


@pytest.mark.parametrize("value", [True, False, 0, 1, np.True_, np.int64(0)])
def test_a_flag_is_true_or_false(value):
    assert as_flag(value, "actnorm") is bool(value)


@pytest.mark.parametrize("value", ["no", "False", None, 2, 0.5, [True], np.array([1, 0]), HUGE], ids=str)
def test_what_is_neither_is_refused(value):
    with pytest.raises(TypeError, match="reverse_ordering must be True or False"):
        npflows.MAF(2, 1, (4,), reverse_ordering=value)


@pytest.mark.parametrize("value", [1.5, 3, "ab", object()])
def test_names_are_a_sequence_of_them(value):
    with pytest.raises(TypeError, match="columns must be a sequence of names"):
        npflows.MAF(2, 1, (4,), columns=value)
    assert as_names(("a", 1), 2, "columns", "a sample") == ["a", "1"]


@pytest.mark.parametrize("value", [np.array(["relu", "tanh"]), np.array("relu"), 3, None, ["relu"]])
def test_a_choice_is_a_string(value):
    with pytest.raises(ValueError, match="activation must be one of"):
        as_choice(value, "activation", ["relu", "tanh"])
