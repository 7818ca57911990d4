"""The script that compares two trees finds every difference and names it."""

import numpy as np
import pytest
from compare_bits import report

ONE = np.array([1.0, -2.0, 0.0])
SAME = {"MAF | float32 | sample": np.array([1.0, np.nan, np.inf])}
CHANGES = {
    "one value": (np.array([1.0, -2.0 + 1e-7, 0.0]), "1.0e-07 of values up to 2.0e+00"),
    "sign of zero": (np.array([1.0, -2.0, -0.0]), "the sign of a zero, or the bits of a NaN"),
    "NaN": (np.where(ONE == 0, np.nan, ONE), "1 of 3 are NaN in one of the two"),
    "type": (ONE.astype(np.float32), "float64 (3,) became float32 (3,)"),
    "shape": (ONE[:2], "float64 (3,) became float64 (2,)"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_difference_is_named(name, capsys):
    now, words = CHANGES[name]
    assert not report(SAME | {"MAF | float32 | log_prob": ONE}, SAME | {"MAF | float32 | log_prob": now})
    printed = capsys.readouterr().out
    assert f"MAF    float32  log_prob  {words}\n" in printed
    assert "1 entries compared, 2 arrays, 1 differ" in printed


def test_an_array_that_one_tree_lacks_is_a_difference(capsys):
    more = SAME | {"MAF | float32 | log_prob": ONE}
    assert not report(more, SAME)
    assert "only before" in capsys.readouterr().out
    assert not report(SAME, more)
    assert "only now" in capsys.readouterr().out


def test_equal_trees_are_equal_and_new_entries_are_listed(capsys):
    assert report(SAME, SAME | {"Glow | float32 | sample": ONE})
    assert capsys.readouterr().out == "only now: Glow\n1 entries compared, 1 arrays, 0 differ\n"


def test_trees_without_a_common_entry_are_refused():
    with pytest.raises(SystemExit, match="no entry in common"):
        report(SAME, {"Glow | float32 | sample": ONE})
