"""Columns far outside the reach of splines are named, with a remedy that fits where they live."""

import re

import numpy as np
import pytest

import npflows
from npflows import LULinear, NormalizingFlow, Standardize

RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(400, 3)) @ RNG.normal(size=(3, 3)) * [1.0, 50.0, 1e-3] + [0.0, -300.0, 2.0]
OPTIONS = {"max_epochs": 2, "batch_size": 100, "rng": 2, "progress": False}
FIRST = {**OPTIONS, "max_epochs": 0, "validation_fraction": 0.0}


def outlying(*columns, rows=(3, 50)):
    """A table whose given columns have two values far from the others, not so far that these decide the scale."""
    x = np.random.default_rng(0).normal(size=(1000, 3))
    for column in columns:
        x[rows, column] = 40.0, -35.0
    return x


SPLINES = {
    "coupling": lambda tail_bound=3.0: npflows.NeuralSplineFlow(3, 2, (8,), 4, tail_bound, rng=0),
    "autoregressive": lambda tail_bound=3.0: npflows.NeuralSplineFlow(
        3, 2, (8,), 4, tail_bound, conditioner="autoregressive", rng=0
    ),
    "flow of layers": lambda tail_bound=3.0: NormalizingFlow(
        [LULinear(3, "natural"), npflows.SplineLayer(3, 4, tail_bound)]
    ),
}
every_spline = pytest.mark.parametrize("spline", SPLINES)


@every_spline
@pytest.mark.parametrize(("columns", "named", "not_named"), [((1,), ["column 1"], ["column 0", "column 2"]),
                                                             ((0, 2), ["column 0", "column 2"], ["column 1"])])  # fmt: skip
def test_columns_far_outside_the_splines_are_named(columns, named, not_named, spline):
    with pytest.warns(UserWarning, match=r"far outside the splines' tail_bound=3, .* or raise tail_bound") as caught:
        SPLINES[spline]().fit(outlying(*columns), **FIRST)
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    for name in named:
        assert f"{name} (2 of 1000 rows, the farthest at " in message
    assert not any(name in message for name in not_named)


def test_the_farthest_value_is_in_standardized_units():
    x = outlying(1)
    with pytest.warns(UserWarning, match=re.escape(f"the farthest at {(40 - x[:, 1].mean()) / x[:, 1].std():.3g};")):
        SPLINES["coupling"]().fit(x, **FIRST)


def test_columns_are_named_by_their_names():
    flow = SPLINES["coupling"]()
    flow.columns = ["mass", "age", "distance"]
    with pytest.warns(UserWarning, match=r"badly: age \(2 of 1000 rows, .*\), distance \(2 of .*; remove outliers"):
        flow.fit(outlying(1, 2), **FIRST)


REMEDIES = {
    "line": (
        npflows.support.real(),
        lambda x: np.where(x < 5e-4, 5.0, x),
        "remove outliers, transform the column, or raise",
    ),
    "long left tail of the logarithm": (
        npflows.support.positive(),
        lambda x: x,
        "its logarithm goes far down, as values come near 0: raise tail_bound, or lower the lower end of positive(0), or",
    ),
    "long right tail of the logarithm": (npflows.support.positive(), lambda x: 1 / x, "remove outliers, transform the col"),
    "end of an interval": (
        npflows.support.interval(0, 1),
        lambda x: x,
        "values come very near an end of Interval(low=0.0, high=1.0): raise tail_bound, or widen the interval",
    ),
    "end of a range": (
        npflows.support.integer(0, 10**9),
        lambda x: np.floor(x * 1e9 / 3 + 3e8) * (x > 5e-4),
        "most values are at one end of its range: raise tail_bound, or narrow the range",
    ),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_the_remedy_fits_where_the_column_lives(case):
    column, shape, remedy = REMEDIES[case]
    x = np.random.default_rng(0).uniform(0.1, 0.9, (1000, 2))
    x[:3, 1] = 3e-10
    x[:, 1] = shape(x[:, 1])
    flow = npflows.NeuralSplineFlow(2, 1, (8,), tail_bound=3.0, support={1: column}, rng=0)
    with pytest.warns(UserWarning, match=re.escape(remedy)) as caught:
        flow.fit(x, **FIRST)
    assert "badly: column 1 (3 of 1000 rows, the farthest at " in str(caught[0].message)


@every_spline
def test_data_within_reach_of_the_splines_and_larger_bounds_raise_no_warning(spline):
    SPLINES[spline]().fit(X, **FIRST)  # warnings are errors
    SPLINES[spline](tail_bound=12.0).fit(outlying(0, 1, 2), **FIRST)


@pytest.mark.parametrize("model", [npflows.MAF, npflows.RealNVP, npflows.IAF])
def test_models_without_splines_raise_no_warning(model):
    model(3, 2, (8,), rng=0).fit(outlying(0, 1, 2), **FIRST)
    NormalizingFlow([Standardize(3)]).fit(outlying(0, 1, 2), **FIRST)


@every_spline
@pytest.mark.filterwarnings("ignore:x has standardized values far outside")
@pytest.mark.filterwarnings("ignore:2 of 900 training rows of x dominate the training loss:UserWarning")
def test_densities_far_outside_are_finite(spline):
    x = outlying(1)
    flow = SPLINES[spline]().fit(x, **{**OPTIONS, "max_epochs": 3})
    assert np.isfinite(flow.history["train_loss"]).all()
    assert np.isfinite(flow.log_prob(x)).all()
    far = flow.log_prob(x.mean(axis=0) + flow.standardize.scale * [[1e3, 0, 0], [0, -1e3, 0], [1e3, -1e3, 1e3]])
    assert np.isfinite(far).all()
    assert (far < flow.log_prob(x[:3]).min() - 30).all()  # the tails of the density fall like exp(-log(x)^2 / 2)
