"""The steps before the layers: `flow.preprocessing` for samples, `flow.conditioning` for conditions."""

import pickle

import numpy as np
import pytest

import npflows
from npflows import support

RNG = np.random.default_rng(0)
X = np.column_stack([RNG.normal(size=50), RNG.gamma(2, size=50), RNG.integers(0, 4, 50)])
C = RNG.normal(5.0, 3.0, (50, 2))


def mixed(**options):
    columns = [support.real(), support.positive(), support.integer(0, 3)]
    return npflows.MAF(3, 1, (4,), support=columns, columns=["a", "b", "c"], rng=0, **options)


def test_without_a_support_nothing_is_done_to_rows():
    steps = npflows.MAF(3, 1, (4,), rng=0).preprocessing
    rng = np.random.default_rng(0)
    assert not steps.has_support
    back, log_det = steps.from_unconstrained(X)
    assert back is X
    assert not log_det.any()
    assert not any([steps.has_integers, steps.is_image, *steps.periodic, *steps.integer])
    assert all(step is X for step in (steps.center(X), steps.scatter(X, rng), steps.on_line(X), steps.round(X)))
    assert next(iter(steps.cells(X, 8, 0))) is X
    assert (steps.outside(X), steps.pixel_dtype, steps.names) == ({}, None, None)
    assert steps.labels == ["column 0", "column 1", "column 2"]
    assert rng.random() == np.random.default_rng(0).random(), "nothing is drawn"


def test_whole_numbers_are_placed_in_their_cells_and_come_back():
    steps = mixed().preprocessing
    assert steps.integer.tolist() == [False, False, True]
    for placed in (steps.center(X), steps.scatter(X, np.random.default_rng(1)), *steps.cells(X, 5, 2)):
        np.testing.assert_array_equal(placed[:, :2], X[:, :2])
        assert ((placed[:, 2] > X[:, 2]) & (placed[:, 2] < X[:, 2] + 1)).all()
        np.testing.assert_array_equal(steps.round(placed.copy()), X)
    assert steps.center(X)[:, 2].tolist() == (X[:, 2] + 0.5).tolist()
    low, high = steps.ends_on_line(X)
    assert (low[:, 2] < steps.on_line(X)[:, 2]).all()
    assert (high[:, 2] > steps.on_line(X)[:, 2]).all()


def test_rows_go_to_the_line_and_back():
    steps = mixed().preprocessing
    assert steps.has_support
    placed = steps.center(X)
    t, log_det, inside = steps.to_unconstrained(placed)
    assert inside.all()
    back, more = steps.from_unconstrained(t)
    np.testing.assert_allclose(back, placed, rtol=1e-12)
    np.testing.assert_allclose(more, -log_det, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(steps.round(back)[:, 2], X[:, 2])


def test_rows_outside_are_counted_by_column():
    x = X.copy()
    x[:3, 1], x[7, 2], x[8, 2], x[9, 0] = -1.0, 4.0, 0.5, np.nan
    assert mixed().preprocessing.outside(x) == {1: 3, 2: 2}


@pytest.mark.parametrize("levels", [None, 4])
def test_images_of_whole_numbers_keep_the_dtype_of_the_training_data(levels):
    flow = npflows.Glow((4, 4, 1), 1, 1, (4, 4), levels=levels, rng=0)
    assert flow.preprocessing.is_image is (levels is not None)
    first = flow.preprocessing.pixel_dtype
    assert first == (None if levels is None else np.dtype(np.uint8).str)
    flow.fit(RNG.integers(0, 4, (20, 4, 4, 1)).astype(np.int32), max_epochs=0, rng=0, progress=False)
    assert flow.sample(2, 0).dtype == (np.float64 if levels is None else np.int32)
    flow.reset(0)
    assert flow.preprocessing.pixel_dtype == first


def test_location_and_scale_of_the_condition_are_readable():
    assert (mixed().condition_loc, mixed().condition_scale) == (None, None)
    flow = mixed(condition_dim=2)
    np.testing.assert_array_equal([flow.condition_loc, flow.condition_scale], [[0, 0], [1, 1]])
    flow.fit(X, condition=C, max_epochs=0, validation_fraction=0, rng=0, progress=False)
    np.testing.assert_allclose(flow.condition_loc, C.mean(axis=0))
    np.testing.assert_allclose(flow.condition_scale, C.std(axis=0))
    np.testing.assert_allclose(flow.conditioning.inner(C), (C - C.mean(axis=0)) / C.std(axis=0))
    flow.condition_loc[:] = 7.0
    np.testing.assert_allclose(flow.condition_loc, C.mean(axis=0), err_msg="what is read is a copy")
    flow.reset(0)
    np.testing.assert_array_equal([flow.condition_loc, flow.condition_scale], [[0, 0], [1, 1]])


def test_a_pickled_flow_has_one_standardization():
    flow = pickle.loads(pickle.dumps(mixed(condition_dim=2)))
    assert flow.preprocessing.standardization is flow.standardize
    flow.standardize.set([1.0, 2.0, 3.0], 2.0)
    assert flow.state().standardization[0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", ["columns", "condition_columns"])
def test_names_must_fit(kind):
    flow = mixed(condition_dim=2)
    with pytest.raises(ValueError, match=f"{kind} must be . names, one for each value of"):
        setattr(flow, kind, ["a"])
    with pytest.raises(ValueError, match="condition_columns must be None"):
        mixed().condition_columns = ["a"]
