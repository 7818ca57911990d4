"""Equal rows: merged into weights where they are copies, left alone where a table has few cells."""

import numpy as np
import pytest
from helpers import COPIES_TOLD, NO_DENSITY_TOLD, fitted, same_bits

import npflows
from npflows.support import integer
from npflows.training import fit as fit_module
from npflows.training import repeats
from npflows.training.rows import MissingEntries, Rows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3000, 3))


def flow_of(d=3, **options):
    return npflows.MAF(d, 1, (8,), rng=1, **options)


def all_rows(x, condition=None, weight=None):
    return Rows(np.ascontiguousarray(x), np.arange(len(x)), weight, condition)


def chain(n, d, step, rng=0):
    """A Metropolis chain at a normal density."""
    rng = np.random.default_rng(rng)
    x, rows = np.zeros(d), np.empty((n, d))
    for i in range(n):
        y = x + step * rng.normal(size=d)
        if np.log(rng.random()) < 0.5 * (x @ x - y @ y):
            x = y
        rows[i] = x
    return rows


def split_of(x, **options):
    """The training and validation rows of a fit."""
    seen = {}

    class Spy(fit_module.LikelihoodTrainer):
        def __init__(self, flow, train, validation, **options):
            super().__init__(flow, train, validation, **options)
            seen.update(train=train, validation=validation, flow=flow)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "LikelihoodTrainer", Spy)
        flow = options.pop("flow", None) or flow_of(x.shape[1])
        fitted(flow, x, **{"max_epochs": 1, **options})
    return seen["train"], seen["validation"], seen["flow"]


def values(rows):
    x, _, condition = rows.take(np.arange(len(rows)))
    return {tuple(row) for row in (x if condition is None else np.column_stack([x, condition]))}


COPIES = {
    "chain": chain(3000, 3, 3.0),
    "chain, one column": chain(3000, 1, 8.0),
    "chain, printed with 3 decimals": chain(3000, 3, 2.0).round(3),
    "bootstrap": X[RNG.integers(0, 3000, 3000)],
    "merged catalogs, float32": np.concatenate([X, X[:1000]]).astype(np.float32),
    "bootstrap with a class": np.column_stack([X, X[:, 0] > 0])[RNG.integers(0, 3000, 3000)],
    "bootstrap of rounded magnitudes": X.round(3)[RNG.integers(0, 3000, 3000)],
    "bootstrap of many binary columns": (RNG.random((500, 40)) < 0.5)[RNG.integers(0, 500, 1500)].astype(float),
}
CELLS = {
    "32 cells": (RNG.random((20000, 5)) < 0.4).astype(float),
    "one binary column": (RNG.random((500, 1)) < 0.4).astype(float),
    "counts": RNG.poisson(20, (3000, 2)).astype(float),
    "counts as integers": RNG.poisson(8, (3000, 1)),
    "a, b and their sum": (lambda a: np.column_stack([a, a.sum(axis=1)]))(RNG.integers(0, 20, (3000, 2))).astype(float),
    "columns several times": (RNG.random((3000, 2)) < 0.5)[:, [0, 0, 0, 1, 1, 1]].astype(float),
    "rounded": X[:, :2].round(1),
    "rounded, float32": X[:, :2].round(1).astype(np.float32),
    "long tail": RNG.geometric(0.03, (3000, 1)).astype(float),
    "one-hot": np.eye(7)[RNG.integers(0, 7, 1000)],
}


@COPIES_TOLD
@NO_DENSITY_TOLD
@pytest.mark.filterwarnings("ignore:.*(weights are worth|too narrow)")
@pytest.mark.parametrize("name", COPIES)
def test_copies_are_merged_and_lie_on_one_side_of_the_split(name):
    x = COPIES[name]
    distinct, counts = np.unique(x, axis=0, return_counts=True)
    train, validation, flow = split_of(x)
    assert len(train) + len(validation) == len(distinct) < len(x)
    assert not values(train) & values(validation)
    weights = np.concatenate([rows.weight[rows.index] for rows in (train, validation)])
    assert sorted(weights) == sorted(counts)
    weight = train.weight[train.index]
    assert flow.effective_rows == pytest.approx(weight.sum() ** 2 / (weight**2).sum())


@NO_DENSITY_TOLD
@pytest.mark.parametrize("name", CELLS)
def test_a_table_of_few_cells_is_split_by_rows(name):
    x = CELLS[name]
    train, validation, flow = split_of(x)
    assert len(train) + len(validation) == len(x)
    assert train.weight is None
    assert flow.effective_rows == len(train)


def test_declared_whole_numbers_are_split_by_rows_however_sparse():
    x = RNG.integers(0, 5000, (200, 1))[RNG.integers(0, 200, 400)]
    train, validation, _ = split_of(x, flow=flow_of(1, support=[integer(0, 5000)]))
    assert len(train) + len(validation) == 400


def test_equal_rows_are_counted_aloud():
    message = r"x: 1000 of 4000 rows equal rows before them; equal rows are merged .* 3000 distinct rows are left"
    with pytest.warns(UserWarning, match=message):
        fitted(flow_of(), np.concatenate([X, X[:1000]]), max_epochs=1)


def test_a_few_copies_are_merged_without_a_word():
    train, validation, _ = split_of(np.concatenate([X, X[:3]]))
    assert len(train) + len(validation) == 3000
    assert not values(train) & values(validation)


def test_a_table_without_copies_keeps_its_rows_and_weights():
    rows = all_rows(X)
    assert repeats.without_copies(flow_of(), rows, repeats.row_keys(rows), "x") is rows


@COPIES_TOLD
def test_a_fit_of_copies_is_a_fit_of_weights():
    counts = RNG.integers(1, 4, len(X))
    first = np.concatenate([X, np.repeat(X, counts - 1, axis=0)])
    same_bits(fitted(flow_of(), first), fitted(flow_of(), X, sample_weight=counts.astype(float)))


@COPIES_TOLD
def test_weights_of_equal_rows_add_up():
    weight = RNG.uniform(0.5, 2, 4000)
    train, validation, _ = split_of(np.concatenate([X, X[:1000]]), sample_weight=weight)
    total = np.append(weight[:1000] + weight[3000:], weight[1000:3000])
    for rows in (train, validation):
        np.testing.assert_array_equal(rows.weight[rows.index], total[rows.index])


def test_rows_are_equal_only_if_their_conditions_are():
    x, c = np.repeat(X[:500], 2, axis=0), RNG.normal(size=(1000, 1))
    rows = all_rows(x, c)
    assert repeats.first_equals(rows, repeats.row_keys(rows)) is None
    c[1::2] = c[::2]
    rows = all_rows(x, c)
    first = repeats.first_equals(rows, repeats.row_keys(rows))
    np.testing.assert_array_equal(first, np.repeat(np.arange(0, 1000, 2), 2))


def test_zero_equals_minus_zero_and_missing_entries_equal_each_other():
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [99.0, 2.0], [np.nan, 2.0], [3.0, 2.0], [2.0, 99.0]])
    rows = all_rows(x)
    rows.missing = MissingEntries(np.array([2, 3, 5]), np.array([[True, False], [True, False], [False, True]]))
    first = repeats.first_equals(rows, repeats.row_keys(rows))
    np.testing.assert_array_equal(first, [0, 0, 2, 2, 4, 5])


def test_rows_of_the_same_hash_are_still_compared():
    rows = all_rows(X[:4])
    np.testing.assert_array_equal(repeats.first_equals(all_rows(X[[0, 1, 0, 2]]), np.zeros(4, np.uint64)), [0, 1, 0, 3])
    assert repeats.first_equals(rows, np.zeros(4, np.uint64)) is None


@pytest.mark.parametrize("layout", ["F", "strided", "int", "big-endian"])
def test_the_layout_of_a_table_does_not_matter(layout):
    x = RNG.integers(-5, 5, (300, 3)).astype(float)
    other = {
        "F": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=0)[::2],
        "int": x.astype(np.int32),
        "big-endian": x.astype(">f8"),
    }[layout]
    keys = [repeats.row_keys(Rows(table, np.arange(300))) for table in (x, other)]
    np.testing.assert_array_equal(*keys)


@NO_DENSITY_TOLD
def test_validation_data_that_are_also_training_rows_are_a_warning():
    other = RNG.normal(size=(300, 3))
    message = r"validation_data: 2 of 302 rows \(300, 301\) are also rows of x"
    with pytest.warns(UserWarning, match=message):
        fitted(flow_of(), X, validation_data=np.concatenate([other, X[[5, 9]]]), max_epochs=1)
    fitted(flow_of(), X, validation_data=other, max_epochs=1)
    cells = CELLS["counts"]
    fitted(flow_of(2), cells[:2000], validation_data=cells[2000:], max_epochs=1)


@COPIES_TOLD
def test_a_resumed_run_of_copies_has_the_same_bits(path):
    x = np.concatenate([X, X[:1000]])
    whole = fitted(flow_of(), x, max_epochs=5)
    fitted(flow_of(), x, max_epochs=5, checkpoint=path, callbacks=lambda flow, record: record["epoch"] == 2)
    same_bits(fitted(flow_of(), x, max_epochs=5, checkpoint=path, resume=True), whole)


@COPIES_TOLD
def test_a_chain_is_fitted_to_its_density_and_not_to_its_points():
    """Today's loss on new rows may not be far from the truth; with copies on both sides it was by thousands."""
    x, new = chain(3000, 3, 3.0), np.random.default_rng(1).normal(size=(2000, 3))
    flow = npflows.MAF(3, 3, (32,), rng=0)
    with pytest.warns(UserWarning, match="equal rows before them"):
        flow.fit(x, learning_rate=3e-3, max_epochs=40, rng=0, progress=False)
    assert -flow.log_prob(new).mean() < 1.5 * np.log(2 * np.pi * np.e) + 0.6
