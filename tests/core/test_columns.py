"""Columns by number or name, and the hints at what may be meant."""

import numpy as np
import pytest

from npflows.core.columns import column_number, did_you_mean

NAMES = ["mass", "radius", "2"]


@pytest.mark.parametrize(
    ("key", "options", "number"),
    [
        ("radius", {}, 1),
        (0, {}, 0),
        (np.int64(2), {}, 2),
        (-1, {"from_end": True}, 2),
        ("0", {"numerals": True}, 0),
        ("2", {}, 2),
    ],
)
def test_a_column_is_found_by_name_or_number(key, options, number):
    assert column_number(key, 3, NAMES, owner="x", **options) == number
    assert column_number(key, 3, np.array(NAMES), owner="x", **options) == number


def test_a_name_comes_before_a_number_in_text():
    assert column_number("1", 2, ["1", "0"], owner="x", numerals=True) == 0


@pytest.mark.parametrize(
    ("key", "names", "options", "message"),
    [
        ("mas", NAMES, {}, "x has no column 'mas'; did you mean 'mass'?"),
        ("quux", NAMES, {"kind": "value"}, "x has no value 'quux'; there are mass, radius, 2"),
        ("0", NAMES, {}, "x has no column '0'; there are mass, radius, 2"),
        ("3", NAMES, {"numerals": True}, "x has no column '3'; there are 3, numbered from 0: mass, radius, 2"),
        (-1, NAMES, {}, "x has no column -1; there are 3, numbered from 0: mass, radius, 2"),
        (-4, NAMES, {"from_end": True}, "x has no column -4; there are 3"),
        (True, NAMES, {}, "x has no column True"),
        (1.0, NAMES, {}, "x has no column 1.0"),
        ("mass", None, {}, "x has no column 'mass'; there are 3, numbered from 0, without names"),
        ("mass", None, {"naming": "pass columns="}, "numbered from 0, without names; pass columns="),
    ],
)
def test_a_column_that_does_not_exist_is_refused_with_a_hint(key, names, options, message):
    with pytest.raises(ValueError) as told:  # noqa: PT011
        column_number(key, 3, names, owner="x", **options)
    assert str(told.value).startswith(message) or str(told.value).endswith(message)


def test_a_message_lists_twenty_names_at_most():
    assert did_you_mean("x", [f"column {i}" for i in range(30)]).endswith("column 19, ...")
