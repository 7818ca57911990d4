"""The kernels of supports against the classes of `npflows.support`, which are NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from npflows.core.backend import select
from npflows.core.operations import Program
from npflows.support import below, integer, interval, ordered, periodic, positive, real, simplex
from npflows.support.pixels import Pixels
from npflows.support.table import Support

pytestmark = pytest.mark.nojit


def table(columns: list) -> Support:
    groups: dict[int, list[int]] = {}
    for d, column in enumerate(columns):
        if hasattr(column, "of"):
            groups.setdefault(id(column), []).append(d)
    return Support([column.of(groups[id(column)]) if id(column) in groups else column for column in columns], 3.0)


FREE, ABOVE, UNDER, BETWEEN, PARTS = ordered(), ordered(lower=-1.0), ordered(upper=2.0), ordered(0.0, 5.0), simplex(2.0)
SUPPORTS = {
    "columns": table([positive(1.0), real(), below(-2.0), interval(-1.0, 4.0), periodic(0.0, 6.0), integer(0, 5)]),
    "ordered": table([FREE, real(), FREE, FREE]),
    "ordered above": table([ABOVE, ABOVE, real(), ABOVE]),
    "ordered below": table([UNDER, real(), UNDER, UNDER]),
    "ordered between": table([BETWEEN, BETWEEN, positive(), BETWEEN]),
    "simplex": table([PARTS, real(), PARTS, PARTS]),
    "pixels": Pixels(6, 8),
    "pixels, logit": Pixels(6, 8, 0.05),
}


@pytest.fixture(params=SUPPORTS)
def given(request):
    return SUPPORTS[request.param]


@pytest.fixture
def kernels(given):
    program = Program((), len(given.columns), len(given.columns))
    return select("cpu").compile(program, np.dtype("float32")).bijection(given)


@pytest.fixture
def t(given):
    rng = np.random.default_rng(0)
    return rng.normal(0, [[0.5]] * 40 + [[8.0]] * 20, (60, len(given.columns)))


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_kernels_are_used(given, kernels):
    assert kernels is not given
    assert kernels.operation() == given.operation()


def test_way_back_and_its_gradient(given, kernels, t):
    x, log_det = kernels.from_unconstrained(t)
    expected = given.from_unconstrained(t)
    close(x, expected[0])
    close(log_det, expected[1])
    dx, dlog_det = np.random.default_rng(1).normal(size=t.shape), np.linspace(-1, 1, len(t))
    close(kernels.from_unconstrained_vjp(t, dx, dlog_det), given.from_unconstrained_vjp(t, dx, dlog_det))


def awkward(given, t):
    """Rows inside, on the ends, outside, and with NaN and infinity."""
    x = given.from_unconstrained(t)[0]
    rng = np.random.default_rng(2)
    for i in range(20, 60):
        x[i, rng.integers(x.shape[1])] = [np.nan, np.inf, -np.inf, -10.0, 50.0, 0.0, 2.0][i % 7]
        if i % 5 == 0:
            x[i, rng.integers(x.shape[1])] = np.nan
    return x


def test_way_to_the_line_and_its_gradient(given, kernels, t):
    x = awkward(given, t)
    result, expected = kernels.to_unconstrained(x), given.to_unconstrained(x)
    assert (result.inside == expected.inside).all()
    assert not result.inside.all()
    close(result.t, expected.t)
    close(result.log_det, expected.log_det)
    dt, dlog_det = np.random.default_rng(3).normal(size=t.shape), np.linspace(-1, 1, len(t))
    with np.errstate(all="ignore"):
        expected_dx = given.to_unconstrained_vjp(x, dt, dlog_det)
    close(kernels.to_unconstrained_vjp(x, dt, dlog_det), expected_dx)


def test_row_alone_has_the_bits_it_has_among_others(given, kernels, t):
    x = awkward(given, t)
    together = kernels.to_unconstrained(x)
    for i in range(len(x)):
        alone = kernels.to_unconstrained(x[i : i + 1])
        for a, b in zip(alone, together):
            np.testing.assert_array_equal(a[0], b[i])
