"""Tables without a density are told of in one sentence; others are left alone."""

import numpy as np
import pytest
from helpers import COPIES_TOLD

import npflows
from npflows.training.inspection import grid_step

FIRST = {"max_epochs": 0, "validation_fraction": 0.0, "rng": 0, "progress": False}
N = 3000
RNG = np.random.default_rng(0)
A, B, C, E = RNG.standard_normal((4, N))


def maf(d, **options):
    return npflows.MAF(d, 1, (max(8, d),), rng=0, **options)


def table(*columns):
    return np.column_stack([A, B, *columns])


BAD = {
    "a column twice": (table(A), "column 2 is column 0 again"),
    "in other units": (table(9 / 5 * A + 32), "column 2 is column 0 again, but for a factor and a constant"),
    "in float32": (table((2.2 * B).astype(np.float32)).astype(np.float32), "column 2 is column 1 again"),
    "from float32 to float64": (
        table(A + B).astype(np.float32).astype(float),
        "column 2 is a sum of column 0 and column 1",
    ),
    "a sum": (table(A + B), "column 2 is a sum of column 0 and column 1, times factors"),
    "a difference far from 0": (table(1e6 + 1e3 * (A - B)), "column 2 is a sum of"),
    "a sum that comes first": (
        np.column_stack([A + B - 3 * C, A, B, C]),
        "column 3 is a sum of column 0, column 1 and column 2",
    ),
    "a sum of rounded values": (
        np.column_stack([u := np.round(A * 10), v := np.round(B * 10), u + v]),
        "column 2 is a sum of",
    ),
    "a sum of few whole numbers": (
        np.column_stack([u := RNG.integers(0, 30, N), v := RNG.integers(0, 30, N), u + v]),
        "column 2 is a sum of column 0 and column 1",
    ),
    "a sum beside an outlier": (np.where(np.arange(N)[:, None] == 3, 1e9, table(A + B)), "column 2 is a sum of"),
    "zeros": (table(np.where(C < 0.25, 0.0, RNG.exponential(size=N))), r"column 2 is 0 in \d+ % of the rows"),
    "clipped": (table(np.clip(C, -1, 1)), r"column 2 is -1 in 1\d % and 1 in 1\d % of the rows"),
    "two values": (table((A + C > 0).astype(float)), r"column 2 has 2 different values \(0, 1\)"),
    "cells alone": (RNG.integers(0, 4, (N, 2)), r"column 0, column 1 have 4 different values \(0, 1, 2, \.\.\.\)"),
    "truth values": (np.column_stack([A, B, A + C > 0]), r"column 2 has 2 different values \(0, 1\)"),
    "whole numbers": (table(RNG.poisson(3, N)), "different values .0, 1, 2, .*support=integer"),
    "many whole numbers": (table(RNG.poisson(400, N)), "column 2 holds whole numbers; declare whole numbers by"),
    "zeros among whole numbers": (table(RNG.poisson(60, N) * (C > 0)), "column 2 holds whole numbers;"),
    "two decimals": (
        table(np.round(A + 0.3 * C, 2)),
        "column 2 is rounded to steps of 0.01; add uniform noise of one step",
    ),
    "steps of 0.25": (table(0.25 * np.round(20 * C) + 0.1), "column 2 is rounded to steps of 0.25"),
    "decimals in float32": (table(20 + np.round(C, 2)).astype(np.float32), "column 2 is rounded to steps of 0.01"),
    "two digits": (table([float(f"{v:.1e}") for v in np.exp(3 * C)]), r"column 2 has \d+ different values in 3000 rows"),
}


@pytest.mark.filterwarnings("ignore:the standard deviation of x:UserWarning")
@pytest.mark.parametrize("case", BAD)
def test_what_has_no_density_is_named_with_a_remedy(case):
    x, said = BAD[case]
    with pytest.warns(UserWarning, match=f"^x has no density, so that .*{said}") as caught:
        maf(x.shape[1]).fit(x, **FIRST)
    assert sum("no density" in str(warning.message) for warning in caught) == 1
    assert caught[0].filename == __file__


GOOD = {
    "ordinary": table(0.5 * A + 0.5 * C),
    "thin": table(A + 1e-4 * C),
    "very thin": table(A + 1e-8 * C),
    "a thin sum": table(A + B + 1e-6 * C),
    "thin in float32": table(A + 1e-4 * C).astype(np.float32),
    "a fine grid": table(np.round(1e2 * C, 2)),
    "dates": table(58000 + 3e-3 * C),
    "a few zeros": table(np.where(C < -2, 0.0, C)),
    "rows that are repeated whole": table(C)[np.repeat(np.arange(200), RNG.multinomial(N, np.ones(200) / 200))],
    "a chain of one column": np.repeat(C[:250, None], RNG.geometric(0.1, 250), axis=0),
    "drawn with replacement": table(C)[RNG.integers(0, 400, N)],
    "long tails": table(RNG.standard_cauchy(N)),
    "few rows": table(np.round(C))[:40],
    "half precision": table(C).astype(np.float16),
    "hardly more rows than columns": RNG.standard_normal((60, 55)),
}


@COPIES_TOLD
@pytest.mark.filterwarnings("ignore:the standard deviation of x:UserWarning")
@pytest.mark.parametrize("case", GOOD)
def test_honest_tables_raise_no_warning(case):
    x = GOOD[case]
    maf(x.shape[1]).fit(x, **FIRST)


def test_everything_is_told_in_one_sentence_by_name():
    x = table(A + B, np.round(C), np.where(C > 0, C, 0.0))
    with pytest.warns(UserWarning, match="no density") as caught:
        maf(5, columns=["a", "b", "sum", "whole", "zeros"]).fit(x, **FIRST)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "sum is a sum of a and b, times factors, whole has" in message
    assert "of the rows; declare whole numbers" in message
    for remedy in ("fit rows with a repeated value apart", "drop columns that others determine"):
        assert remedy in message


def test_equal_faults_are_told_together():
    with pytest.warns(
        UserWarning, match=r": column 0, column 1, column 2, column 3 and 2 more are rounded to steps of 0\.1;"
    ):
        maf(6).fit(np.round(RNG.standard_normal((N, 6)), 1), **FIRST)


def test_whole_numbers_that_are_declared_have_a_density():
    x = table(RNG.poisson(3, N))
    maf(3, support={2: npflows.support.integer(0, 50)}).fit(x, **FIRST)
    images = RNG.integers(0, 16, (100, 4, 4, 1))
    npflows.Glow((4, 4, 1), num_scales=1, blocks_per_scale=1, hidden_dims=(4,), levels=16, rng=0).fit(images, **FIRST)


def test_images_of_whole_numbers_that_are_not_declared_are_told():
    images = RNG.integers(0, 16, (300, 4, 4, 1)).astype(float)
    glow = npflows.Glow((4, 4, 1), num_scales=1, blocks_per_scale=1, hidden_dims=(4,), rng=0)
    with pytest.warns(UserWarning, match=r"channel 0 has 16 different values \(0, 1, 2, \.\.\.\)"):
        glow.fit(images, **FIRST)


def test_a_column_that_the_condition_gives_has_no_density():
    condition = npflows.one_hot(RNG.integers(0, 3, N))  # which add up to 1: no fault of a condition
    condition = np.column_stack([condition, A])
    flow = npflows.MAF(2, 1, (8,), condition_dim=4, rng=0)
    with pytest.warns(UserWarning, match="column 0 is condition column 3 again"):
        flow.fit(np.column_stack([2 * A, B]), condition=condition, **FIRST)
    npflows.MAF(2, 1, (8,), condition_dim=4, rng=0).fit(np.column_stack([B, C]), condition=condition, **FIRST)


@COPIES_TOLD
@pytest.mark.filterwarnings("ignore:the weights are worth .* rows only:UserWarning")
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_one_column_with_an_atom_is_told(share):
    x = np.where(np.arange(N) < share * N, 0.0, np.abs(B))
    with pytest.warns(UserWarning, match=f"column 0 is 0 in {100 * share:.0f} % of the rows"):
        maf(1).fit(x[:, None], **FIRST)


@COPIES_TOLD
@pytest.mark.filterwarnings("ignore:the weights are worth .* rows only:UserWarning")
def test_values_that_rows_repeat_are_seen_before_equal_rows_are_merged():
    dry = C < 0.25
    x = np.column_stack([np.where(dry, 0.0, np.abs(A)), np.where(dry, 0.0, np.abs(B))])
    with pytest.warns(UserWarning, match=r"no density.*: the row \(0, 0\) is \d+ % of all; fit rows with"):
        maf(2).fit(x, **FIRST)


@pytest.mark.filterwarnings("ignore:the weights are worth .* rows only:UserWarning")
@pytest.mark.parametrize("share", [0.1, 0.6])
@pytest.mark.parametrize("others", [(), (B,)])
def test_whole_weights_count_copies(others, share):
    x = np.column_stack([A, *others])[: round((1 - share) * N)]
    x, weight = np.concatenate([[0.0 * x[0]], x]), np.append(round(share * N), np.ones(len(x)))
    with pytest.warns(UserWarning, match=f"is (0 in )?{100 * share:.0f} % of "):
        maf(x.shape[1]).fit(x, sample_weight=weight, **FIRST)
    maf(x.shape[1]).fit(x[1:], sample_weight=RNG.integers(1, 9, len(x) - 1), **FIRST)


def test_entries_that_stand_in_for_missing_ones_are_no_repeated_values():
    x = table(C)
    x[: N * 7 // 10, 1] = np.nan
    with pytest.warns(UserWarning, match="entries are missing") as caught:
        maf(3).fit(x, missing="nan", on_missing="impute", **FIRST)
    assert len(caught) == 1


def test_circles_take_no_part_in_sums():
    x = np.column_stack([A, np.mod(A, 1.0)])
    maf_with_circle = npflows.NeuralSplineFlow(
        2, 1, (8,), linear="permutation", tail_bound=9, support={1: npflows.support.periodic(0, 1)}, rng=0
    )
    maf_with_circle.fit(x, **FIRST)


@pytest.mark.parametrize(("values", "step"), [
    (np.arange(5) * 0.1 + 3, 0.1),
    (np.array([0.0, 3.0, 5.0, 6.0]), 1.0),
    (np.round(np.random.default_rng(0).normal(20, 3, 2000), 2).astype(np.float32), 0.01),
    (np.random.default_rng(0).normal(size=2000), 0.0),
    (np.array([1.0, 2.0]), 0.0),
])  # fmt: skip
def test_the_step_of_a_grid(values, step):
    assert grid_step(np.unique(values)) == pytest.approx(step, rel=1e-4)
