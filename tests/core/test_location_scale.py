"""Location and scale of columns that few rows do not decide."""

import numpy as np
import pytest

from npflows.core.location_scale import robust_location_scale, sample_places
from npflows.core.statistics import weighted_quantiles

N = 4000
RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(N)


def found(column, weight=None):
    column = np.asarray(column, float)[:, None]
    mean = np.average(column, axis=0, weights=weight)
    deviation = np.sqrt(np.average((column - mean) ** 2, axis=0, weights=weight))
    result = robust_location_scale(column, weight, mean, deviation)
    if not result.is_robust[0]:
        assert (result.loc[0], result.scale[0]) == (mean[0], deviation[0])
    return result.loc[0], result.scale[0], bool(result.is_robust[0]), result.sentinel[0]


def replaced(column, n, values):
    column = column.copy()
    column[:n] = values
    return column


HONEST = {
    "normal": NORMAL,
    "exponential": RNG.exponential(size=N),
    "lognormal of 1.5": np.exp(1.5 * NORMAL),
    "Student t of 3 degrees": RNG.standard_t(3.0, N),
    "30 % zeros beside an exponential": np.where(RNG.random(N) < 0.3, 0.0, RNG.exponential(size=N)),
    "95 % zeros": np.where(RNG.random(N) < 0.95, 0.0, NORMAL),
    "99.5 % zeros": np.where(RNG.random(N) < 0.995, 0.0, NORMAL),
    "two values": (NORMAL > 1.5).astype(float),
    "two narrow peaks": np.where(RNG.random(N) < 0.5, 0.0, 100.0) + 1e-3 * NORMAL,
    "a cluster of 3 %": np.where(RNG.random(N) < 0.03, 100 + 5 * NORMAL, NORMAL),
    "clipped at both ends": np.clip(NORMAL, -1, 1),
    "one mild outlier": replaced(NORMAL, 1, 50.0),
    "a constant": np.full(N, 2.5),
}


@pytest.mark.parametrize("case", HONEST)
def test_columns_that_few_rows_do_not_decide_keep_mean_and_standard_deviation(case):
    assert not found(HONEST[case])[2]


WILD = {
    "one value": replaced(NORMAL, 1, 1e6),
    "the largest floats": replaced(NORMAL, 2, (1e150, -1e150)),
    "five different ones": replaced(NORMAL, 5, (1e3, -1e4, 1e5, 3e8, 2e12)),
    "1 % anywhere": replaced(NORMAL, N // 100, RNG.uniform(-1e6, 1e6, N // 100)),
    "1 % of -9999": replaced(NORMAL, N // 100, -9999.0),
    "30 % of 1e20": replaced(NORMAL, 3 * N // 10, 1e20),
    "99 and -99 and one outlier": replaced(replaced(replaced(NORMAL, 300, 99.0), 100, -99.0), 1, 1e7),
}


@pytest.mark.parametrize("case", WILD)
@pytest.mark.parametrize("unit", [1.0, 1e-30])
def test_columns_that_few_rows_decide_have_location_and_scale_of_the_others(case, unit):
    loc, scale, is_robust, _ = found(WILD[case] * unit)
    assert is_robust
    assert abs(loc) < 0.1 * unit
    assert scale == pytest.approx(unit, rel=0.1)


@pytest.mark.parametrize("n", [20, 50, 200])
def test_one_row_of_a_small_table_does_not_decide(n):
    loc, scale, is_robust, _ = found(replaced(NORMAL[:n], 1, 1e9))
    assert is_robust
    assert abs(loc) < 0.6
    assert 0.6 < scale < 1.7


def test_sentinels_are_told_from_single_outliers():
    assert found(WILD["1 % of -9999"])[3] == -9999
    assert found(WILD["30 % of 1e20"])[3] == 1e20
    assert np.isnan(found(WILD["1 % anywhere"])[3])
    assert found(np.where(RNG.random(N) < 0.3, 0.0, 1000 + NORMAL))[3] == 0


def test_a_sentinel_of_rows_that_were_merged_is_found_by_its_weight():
    column, weight = replaced(NORMAL, 1, -999.0), replaced(np.ones(N), 1, 0.05 * N)
    loc, scale, is_robust, sentinel = found(column, weight)
    assert (is_robust, sentinel, abs(loc) < 0.1) == (True, -999, True)
    assert scale == pytest.approx(1, rel=0.1)


def test_a_row_counts_by_its_weight():
    column, weight = replaced(NORMAL, 400, 1e3 + NORMAL[:400]), np.ones(N)
    assert not found(column, weight)[2]  # a tenth of the rows
    weight[:400] = 0.01
    loc, scale, is_robust, _ = found(column, weight)
    assert is_robust
    assert (abs(loc) < 0.1, scale) == (True, pytest.approx(1, rel=0.1))
    few = replaced(NORMAL, 3, 1e3)
    assert found(few)[2]
    assert not found(few, replaced(np.ones(N), 3, N / 2.0))[2]  # most of the weight


def test_rows_of_weight_0_do_not_count():
    column, weight = replaced(NORMAL, 2000, 1e9 * NORMAL[:2000]), replaced(np.ones(N), 2000, 0.0)
    same = np.array_equal(found(column, weight), found(NORMAL[2000:]), equal_nan=True)
    assert same


def test_quantiles_are_those_of_repeated_values():
    values, weights = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1, 3, 1, 2])
    np.testing.assert_allclose(weighted_quantiles(values, np.ones(4), (0.125, 0.5, 1)), [1, 3, 8])
    median = weighted_quantiles(values, weights, (0.5,))
    np.testing.assert_allclose(median, 2 + 2 * (0.5 - 2.5 / 7) / (4.5 / 7 - 2.5 / 7))


@pytest.mark.parametrize("n", [1, 99, 20000, 20001, 10**6])
def test_sampled_places_are_different_and_reach_both_ends(n):
    places = sample_places(n, 7)
    assert (places[0], places[-1]) == (0, n - 1)
    assert len(np.unique(places)) == len(places) == min(n, 20000)
