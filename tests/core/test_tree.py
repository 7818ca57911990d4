"""The order in which gradients are added up: the same for one who has them all and for many who have some."""

import itertools

import numpy as np
import pytest

from npflows.backends.cpu.adam import Adam
from npflows.core.tree import add_up


def rows(count: int) -> np.ndarray:
    """Numbers of sizes so different that every order of adding up has other bits."""
    rng = np.random.default_rng(count)
    return (rng.normal(size=(count, 1500)) * 10.0 ** rng.integers(-3, 4, (count, 1))).astype(np.float32)


def whole(values: np.ndarray) -> np.ndarray:
    (total,) = add_up(dict(enumerate(values.copy())), len(values), len(values)).values()
    return total


def test_the_order_is_that_of_pairs():
    a, b, c, d, e, f, g = given = rows(7)
    np.testing.assert_array_equal(whole(given), ((a + b) + (c + d)) + ((e + f) + g))
    np.testing.assert_array_equal(whole(given[:5]), ((a + b) + (c + d)) + e)
    np.testing.assert_array_equal(whole(given[:1]), a)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 31, 76])
def test_parts_of_any_size_give_the_same_bits(count):
    given, rng = rows(count), np.random.default_rng(1)
    for pieces in range(1, 6):
        places = [0, *np.sort(rng.integers(0, count + 1, pieces - 1)).tolist(), count]
        sums = {}
        for start, stop in itertools.pairwise(places):
            part = add_up(dict(zip(range(start, stop), given[start:stop].copy(), strict=True)), stop, count)
            assert len(part) <= 2 * max(1, (stop - start).bit_length())
            sums.update(part)
        (total,) = add_up(sums, count, count).values()
        np.testing.assert_array_equal(total, whole(given))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 8, 11, 76])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_adds_up_in_this_order(count, dtype):
    """Also beyond a strip and beyond a piece of parameters."""
    given = np.hstack([rows(count)] * 45).astype(dtype)
    adam = Adam(np.zeros(given.shape[1], dtype), np.ones(given.shape[1], bool), 0.0, None)
    adam.step(given.copy(), 1e-3)
    np.testing.assert_array_equal(adam.gradient, whole(given))
