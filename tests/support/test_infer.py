"""`support.infer` guesses supports from a table and says why."""

import numpy as np
import pytest
from helpers import fitted
from support_cases import NAMES, TABLE, mixed

import npflows
from npflows.support import infer, periodic, positive

RNG = np.random.default_rng(0)


# infer

RAW = {
    "counts": RNG.poisson(4.0, 500),
    "flag": RNG.integers(0, 2, 500),
    "probability": RNG.beta(0.5, 0.5, 500),
    "flux": np.exp(2 * RNG.normal(size=500)),
    "log-likelihood": -np.exp(2 * RNG.normal(size=500)),
    "redshift": RNG.normal(3.0, 0.5, 500),
    "angle": RNG.uniform(0, 360, 500),
    "number": np.arange(500) + 0.0,
    "always 1": np.ones(500),
    "empty": np.full(500, np.nan),
}


def test_infer_guesses_and_says_why():
    guess = infer(np.column_stack(list(RAW.values())), list(RAW))
    kinds = dict(zip(RAW, map(repr, guess)))
    assert kinds == {
        "counts": f"Integer(low={RAW['counts'].min()}, high={RAW['counts'].max()})",
        "flag": "Integer(low=0, high=1)",
        "probability": "Interval(low=0.0, high=1.0)",
        "flux": "Positive()",
        "log-likelihood": "Below()",
        "redshift": "Real()",
        "angle": "Real()",  # a circle can't be told from an interval
        "number": "Real()",
        "always 1": "Real()",
        "empty": "Real()",
    }
    lines = repr(guess).splitlines()
    assert len(lines) == len(RAW)
    assert all(line.startswith(f"{name}: {kind}") for line, (name, kind) in zip(lines, kinds.items()))
    assert "whole numbers, 2 different" in lines[1]
    assert "no finite value" in lines[9]
    assert repr(infer(TABLE)).startswith("column 0: ")


def test_what_infer_gives_can_be_corrected_and_used():
    guess = infer(TABLE, NAMES)
    guess[0], guess[NAMES.index("angle")] = positive(2.0), periodic(0, 360)
    assert "angle: Periodic(low=0.0, high=360.0)" in repr(guess)
    flow = fitted(mixed(support=guess), TABLE)
    assert np.isfinite(flow.log_prob(TABLE)).all()


def test_infer_looks_past_nan_and_masked_values():
    x = RAW["flag"].astype(float)
    masked = np.ma.masked_array(np.where(np.arange(500) % 7, x, 99.0), np.arange(500) % 7 == 0).reshape(-1, 1)
    holes = np.where(np.arange(500) % 7, x, np.nan).reshape(-1, 1)
    for table in (masked, holes):
        assert repr(infer(table)[0]) == "Integer(low=0, high=1)"


def test_infer_takes_the_names_of_a_data_frame():
    class Frame:
        columns = ["a", "b"]

        def __array__(self, dtype=None, copy=None):
            return np.column_stack([RAW["flag"], RAW["redshift"]])

    assert [line.split(":")[0] for line in repr(infer(Frame())).splitlines()] == ["a", "b"]


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros((0, 2)), np.zeros((2, 2, 2))])
def test_infer_needs_a_table(x):
    with pytest.raises(ValueError, match=r"x must be a table \(n, d\) with at least one row, got shape"):
        infer(x)


def test_names_for_what_is_inferred_must_be_one_for_each_column():
    with pytest.raises(ValueError, match=r"columns must be 2 names, one for each column of x, got \['a'\]"):
        npflows.support.infer(np.ones((3, 2)), ["a"])
