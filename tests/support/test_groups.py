"""`ordered` and `simplex`: columns that live together, with an exact density."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import fitted, jacobian
from support_cases import strong

import npflows
from npflows import MAF, NeuralSplineFlow
from npflows.support import below, integer, interval, ordered, periodic, positive, real, simplex
from npflows.support.groups import Ordered, Simplex

RNG = np.random.default_rng(0)
SORTED = np.sort(RNG.normal(size=(300, 3)), axis=1)
SHARES = RNG.dirichlet([2.0, 3.0, 1.5, 4.0], 300)[:, :3]
NAMES = ["early", "mass", "middle", "angle", "late"]

GROUPS = {
    "ordered": (Ordered(), SORTED),
    "ordered above": (Ordered(lower=-8.0), SORTED),
    "ordered below": (Ordered(upper=8.0), SORTED),
    "ordered between": (Ordered(lower=-8.0, upper=5.0), SORTED),
    "simplex": (Simplex(), SHARES),
    "percentages": (Simplex(total=100.0), 100 * SHARES),
}
for_every_group = pytest.mark.parametrize("name", GROUPS)
OUTSIDE = {
    "ordered": [[0, 0, 1], [1, 0, 2], [0, 2, 1], [np.inf, 1, 2], [-np.inf, 0, 1]],
    "ordered above": [[-8, 0, 1], [-9, 0, 1], [0, 0, 1], [0, 2, 1]],
    "ordered below": [[0, 1, 8], [0, 1, 9], [0, 0, 1], [2, 0, 1]],
    "ordered between": [[-8, 0, 1], [0, 1, 5], [0, 1, 6], [0, 0, 1], [0, 2, 1], [-1e300, 0, 1e300]],
    "simplex": [[0, 0.1, 0.1], [0.1, -0.1, 0.1], [0.5, 0.25, 0.25], [0.5, 0.5, 0.5], [np.inf, 0.1, 0.1]],
    "percentages": [[0, 10, 10], [50, 25, 25], [99, 1, 1]],
}


def of(name, **options):
    """A flow of the three columns of a group alone, and its table."""
    group, x = GROUPS[name]
    return MAF(3, 2, (12,), **{"rng": 1, "dtype": "float64", "activation": "tanh", "support": [group] * 3, **options}), x


# the maps


@for_every_group
def test_there_and_back_with_the_log_determinant_of_the_jacobian(name):
    group, x = GROUPS[name]
    t, log_det = group.to_unconstrained(x)
    back, log_det_back = group.from_unconstrained(t)
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)
    slopes = jacobian(lambda ends: group.from_unconstrained(ends)[0], t[:20])
    np.testing.assert_allclose(np.linalg.slogdet(slopes)[1], log_det_back[:20], atol=1e-5)


@for_every_group
def test_gradients_are_those_of_differences(name):
    group, x = GROUPS[name]
    x = x[:20]
    rng = np.random.default_rng(3)
    dy, dlog = rng.normal(size=(20, 3)), rng.normal(size=20)
    t, _ = group.to_unconstrained(x)
    for there, vjp, at in (
        (group.to_unconstrained, group.to_unconstrained_vjp, x),
        (group.from_unconstrained, group.from_unconstrained_vjp, t),
    ):
        scale = 1e-6 * (group.room(x) if at is x else np.ones(x.shape))
        found = np.empty(x.shape)
        for d in range(3):
            move = scale * np.eye(3)[d]
            (high, log_high), (low, log_low) = there(at + move), there(at - move)
            found[:, d] = (((high - low) * dy).sum(1) + (log_high - log_low) * dlog) / (2 * scale[:, d])
        expected = vjp(at, dy, dlog)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@for_every_group
def test_absurd_numbers_on_the_line_stay_inside(name):
    group, _ = GROUPS[name]
    t = np.array(list(itertools.product((-1e30, -800.0, -40.0, 0.0, 40.0, 800.0, 1e30), repeat=3)))
    assert group.contains(group.from_unconstrained(t)[0]).all()


# flows


def test_a_flow_at_its_start_is_the_textbook_distribution():
    """Of the logarithms of gaps; and the logistic normal distribution (Aitchison and Shen 1980)."""
    normal, start = scipy.stats.norm.logpdf, {"log_tails": None, "dtype": "float64"}
    gaps = np.diff(SORTED, axis=1)
    first = normal(SORTED[:, 0]) + normal(np.log(gaps)).sum(1) - np.log(gaps).sum(1)
    np.testing.assert_allclose(MAF(3, 1, support=[ordered()] * 3, **start).log_prob(SORTED), first, rtol=1e-9)
    rest = 1 - SHARES.sum(1)
    logistic = normal(np.log(SHARES / rest[:, None])).sum(1) - np.log(SHARES).sum(1) - np.log(rest)
    np.testing.assert_allclose(MAF(3, 1, support=[simplex()] * 3, **start).log_prob(SHARES), logistic, rtol=1e-9)


def test_any_part_of_the_whole_may_be_left_out():
    """The start of a flow is not symmetric, but the set and its volume are: what is fitted comes out alike."""
    parts = np.random.default_rng(1).dirichlet([2.0, 3.0, 5.0], 4000)
    truth = scipy.stats.dirichlet([2.0, 3.0, 5.0]).logpdf(parts[3000:].T)
    for left_out in range(3):
        x = np.delete(parts, left_out, axis=1)
        flow = NeuralSplineFlow(2, 3, (16,), support=[simplex()] * 2, rng=0)
        fitted(flow, x[:3000], max_epochs=15, learning_rate=5e-3)
        assert abs(flow.log_prob(x[3000:]).mean() - truth.mean()) < 0.06


def test_a_fitted_density_integrates_to_one_over_the_group():
    lattice = (np.arange(600) + 0.5) / 600
    a, b = (axis.ravel() for axis in np.meshgrid(lattice, lattice, indexing="ij"))
    shares = np.column_stack([a, (1 - a) * b])
    flow = fitted(NeuralSplineFlow(2, 2, (8,), support=[simplex()] * 2, rng=0), SHARES[:, :2], learning_rate=1e-2)
    assert (np.exp(flow.log_prob(shares)) * (1 - a)).mean() == pytest.approx(1, abs=2e-3)
    low, high = -2.0, 3.0
    x = low + (high - low) * np.sort(RNG.random((300, 2)), axis=1)
    flow = fitted(NeuralSplineFlow(2, 2, (8,), support=[ordered(low, high)] * 2, rng=0), x, learning_rate=1e-2)
    first = low + (high - low) * a
    points = np.column_stack([first, first + (high - first) * b])
    assert (np.exp(flow.log_prob(points)) * (high - low) * (high - first)).mean() == pytest.approx(1, abs=2e-3)


@for_every_group
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_sample_leaves_the_group(name, dtype):
    flow, x = of(name, dtype=dtype)
    flow = strong(fitted(flow, x, max_epochs=1), 0.5)
    for temperature in (1.0, 0.1, 20.0):
        samples = flow.sample(5000, 4, temperature)
        assert GROUPS[name][0].contains(samples).all()
        assert np.isfinite(flow.log_prob(samples)).all()
    u = np.array(list(itertools.product((0.0, 1e-9, 0.5, 1.0), repeat=3)))
    assert GROUPS[name][0].contains(flow.from_unit_cube(u)).all()
    inner = np.random.default_rng(0).uniform(0.05, 0.95, (50, 3))
    if dtype == "float64":
        np.testing.assert_allclose(flow.to_unit_cube(flow.from_unit_cube(inner)), inner, atol=1e-6)


@for_every_group
def test_outside_the_density_is_zero_and_nan_stays_nan(name):
    flow, x = of(name)
    rows = np.array([*OUTSIDE[name], *x[:1]], float)
    log_prob, gradient = flow.log_prob_and_grad(rows)
    np.testing.assert_array_equal(np.isneginf(log_prob), [True] * len(OUTSIDE[name]) + [False])
    assert not gradient[:-1].any()
    assert np.isfinite(log_prob[-1])
    assert gradient[-1].any()
    assert np.isnan(flow.forward(rows)[0][:-1]).all()
    for d in range(3):
        lost = np.array([x[0], OUTSIDE[name][0]], float)
        lost[:, d] = np.nan
        assert np.isnan(flow.log_prob(lost)).all()


@for_every_group
def test_a_group_flow_is_exact(name):
    flow, x = of(name)
    assert fitted(flow, x, max_epochs=3, learning_rate=1e-2).verify(x[:100], rng=0).passed


def mixed(**options):
    """A flow with two groups among other columns, by name."""
    support = {("early", "middle", "late"): ordered(0.0), "mass": positive(), "angle": periodic(0, 360)}
    return NeuralSplineFlow(5, 2, (8,), 4, **{"columns": NAMES, "support": support, "rng": 0, **options})


TABLE = np.column_stack([
    np.cumsum(RNG.exponential(size=(300, 3)), axis=1)[:, [0]],
    RNG.lognormal(size=300),
    np.zeros((300, 1)),
    RNG.uniform(0, 360, 300),
    np.zeros((300, 1)),
])  # fmt: skip
TABLE[:, 2] = TABLE[:, 0] + RNG.exponential(size=300)
TABLE[:, 4] = TABLE[:, 2] + RNG.exponential(size=300)


def test_groups_live_beside_other_columns_and_in_files(tmp_path):
    flow = fitted(mixed(), TABLE, max_epochs=2)
    assert repr(flow.support[4]) == "Ordered(columns=[0, 2, 4], lower=0.0)"
    flow.save(tmp_path / "flow.npz")
    again = npflows.create(npflows.ModelConfiguration.from_dict(json.loads(json.dumps(flow.config.to_dict()))), rng=0)
    again.params = flow.params
    again.standardize.set(flow.standardize.loc, flow.standardize.scale)
    for other in (npflows.load(tmp_path / "flow.npz"), pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow), again):
        assert repr(other.support) == repr(flow.support)
        np.testing.assert_array_equal(other.log_prob(TABLE), flow.log_prob(TABLE))
        np.testing.assert_array_equal(other.sample(10, 0), flow.sample(10, 0))
    flow.reset(1)
    assert repr(flow.support[4]) == "Ordered(columns=[0, 2, 4], lower=0.0)"


def test_by_list_by_name_and_by_number_are_the_same_and_groups_may_cross():
    flow = mixed()
    members = [ordered(0.0), positive(), ordered(0.0), periodic(0, 360), ordered(0.0)]
    by_number = {(0, 2, 4): ordered(0.0), 1: positive(), 3: periodic(0, 360)}
    for support in (members, by_number, flow.support, copy.deepcopy(flow.support)):
        np.testing.assert_array_equal(mixed(support=support).log_prob(TABLE), flow.log_prob(TABLE))
    crossed = MAF(4, 1, (4,), support={(0, 3): ordered(), (2, 1): ordered()}, rng=0)
    np.testing.assert_array_equal(np.isfinite(crossed.log_prob([[0, 5, 4, 1], [0, 4, 5, 1], [1, 5, 4, 0]])), [1, 0, 0])


def test_the_order_of_the_columns_in_a_group_is_that_given():
    flow = MAF(2, 1, (4,), columns=["a", "b"], support={("b", "a"): ordered()}, rng=0)
    np.testing.assert_array_equal(np.isfinite(flow.log_prob([[1.0, 0.0], [0.0, 1.0]])), [True, False])


WRONG = {
    "one column of a list": ([ordered(), real()], "must be given for all of its columns, two or more and none twice"),
    "one column by name": ({"a": ordered()}, r"Ordered\(\) is of several columns: give it with a tuple of them, got 'a'"),
    "one column in a tuple": ({("a",): simplex()}, "must be given for all of its columns, two or more"),
    "no group": ({("a", "b"): positive()}, r"a tuple of columns is for ordered\(\) and simplex\(\), got"),
    "twice": ({("a", "a"): ordered()}, "support says twice where column a lives"),
    "in two groups": ({("a", "b"): ordered(), "b": real()}, "support says twice where column b lives"),
    "an unknown name": ({("a", "c"): ordered()}, "support has no column 'c'"),
    "not all": ([Ordered([0, 1]), real()], "must be given for all of its columns"),
    "no column": ({("a", "b"): ordered}, r"support must hold npflows.support.*simplex\(\), got"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_group_is_refused(case):
    support, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        MAF(2, 1, (4,), columns=["a", "b"], support=support)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ordered(1, 1), "low must be below high, got 1.0 and 1.0"),
        (lambda: ordered(np.inf), "lower must be a finite number, got inf"),
        (lambda: ordered(upper="1"), "upper must be a finite number, got '1'"),
        (lambda: simplex(0), "total must be a finite number above 0, got 0"),
        (lambda: simplex(None), "total must be a finite number above 0, got None"),
    ],
)
def test_wrong_ends_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fit_refuses_rows_outside_and_names_the_columns():
    x = TABLE.copy()
    x[7, 2] = x[7, 0]
    with pytest.raises(ValueError, match=r"early \(1 rows, Ordered\(.*\), middle \(1 rows, Ordered\(.*late \(1 rows"):
        fitted(mixed(), x)
    every = np.column_stack([SHARES, 1 - SHARES.sum(1)])
    with pytest.raises(ValueError, match=r"column 0 \(\d+ rows, Simplex\(columns=\[0, 1, 2, 3\]\)"):
        fitted(MAF(4, 1, (4,), support=[simplex()] * 4), every)


def test_missing_entries_take_a_whole_group_or_none_of_it():
    x = TABLE.copy()
    x[:30, [0, 2, 4]] = -1.0
    with pytest.warns(UserWarning, match="90 entries are missing in 30 of 300 rows"):
        flow = fitted(mixed(), x, missing=-1.0, on_missing="impute", max_epochs=1)
    assert np.isfinite(flow.log_prob(TABLE)).all()
    x[40, 2] = -1.0
    partly = pytest.raises(
        ValueError, match=r"1 rows have missing entries in some columns of Ordered\(.*leave these rows out"
    )
    with pytest.warns(UserWarning, match="91 entries are missing"), partly:
        fitted(mixed(), x, missing=-1.0, on_missing="impute", max_epochs=1)


# questions


def dirichlet(alpha=(2.0, 3.0, 5.0)):
    """A flow that is close to a Dirichlet distribution."""
    x = np.random.default_rng(1).dirichlet(alpha, 6000)[:, :2]
    return fitted(NeuralSplineFlow(2, 3, (16,), support=[simplex()] * 2, columns=["a", "b"], dtype="float64", rng=0), x,
                  max_epochs=15, learning_rate=5e-3)  # fmt: skip


@pytest.fixture(scope="module")
def shares_flow():
    return dirichlet()


def test_the_mode_lies_inside_and_where_the_density_is_highest(shares_flow):
    found = shares_flow.mode(rng=0)
    lattice = (np.arange(200) + 0.5) / 200
    grid = np.stack(np.meshgrid(lattice, lattice, indexing="ij"), -1).reshape(-1, 2)
    assert found.log_prob >= shares_flow.log_prob(grid).max()
    np.testing.assert_allclose(found.x, [1 / 7, 2 / 7], atol=0.1)
    flow = MAF(3, 1, support=[ordered(0.0, 1.0)] * 3, dtype="float64", rng=0)
    found = flow.mode(rng=0, starts=4)
    assert 0 < found.x[0] < found.x[1] < found.x[2] < 1
    assert found.log_prob >= flow.log_prob(flow.sample(20000, 0)).max()


@pytest.mark.parametrize("method", ["quadrature", "importance"])
def test_marginals_and_conditionals_of_a_group(method, shares_flow):
    grid = np.linspace(0.02, 0.9, 23)
    found = shares_flow.marginal("a", grid, method=method, n_samples=40_000, rng=0)
    lattice = (np.arange(20000) + 0.5) / 20000
    expected = [np.exp(shares_flow.log_prob(np.column_stack([np.full(20000, a), lattice]))).mean() for a in grid]
    np.testing.assert_allclose(found.density, expected, rtol=0.15, atol=0.02)
    given = shares_flow.conditional("a", {"b": 0.3}, grid, method=method, n_samples=40_000, rng=0)
    along = np.exp(shares_flow.log_prob(np.column_stack([grid, np.full(23, 0.3)])))
    line = np.exp(shares_flow.log_prob(np.column_stack([lattice, np.full(20000, 0.3)]))).mean()
    np.testing.assert_allclose(given.density, along / line, rtol=0.15, atol=0.02)
    assert found.density[-1] >= 0
    assert given.density[grid > 0.7].max() == 0


def test_variational_fits_learn_a_group():
    """The order statistics of three exponential variables."""
    flow = MAF(3, 3, (16,), support=[ordered(0.0)] * 3, rng=0)

    def target(x):
        return -x.sum(axis=1), -np.ones_like(x)

    flow.fit_variational(target, max_steps=300, batch_size=200, learning_rate=1e-2, rng=0, progress=False)
    weights = flow.importance_weights(4000, lambda x: -x.sum(axis=1), rng=0)
    assert weights.log_evidence == pytest.approx(-np.log(6), abs=0.05)
    assert weights.ess > 2000


def test_whole_numbers_and_groups_live_side_by_side():
    x = np.column_stack([SORTED[:, 0], RNG.integers(0, 4, 300), SORTED[:, 1]])
    flow = fitted(MAF(3, 2, (8,), support={(0, 2): ordered(), 1: integer(0, 3)}, rng=0), x, max_epochs=2)
    assert np.isfinite(flow.log_prob(x)).all()
    samples = flow.sample(1000, 0)
    assert (samples[:, 0] < samples[:, 2]).all()
    assert set(samples[:, 1]) <= {0, 1, 2, 3}


def test_an_interval_or_half_line_is_a_group_of_one_seen_alone():
    alone = [ordered().alone, ordered(1.0).alone, ordered(None, 2.0).alone, ordered(1, 2).alone, simplex(3.0).alone]
    assert list(map(repr, alone)) == list(map(repr, [real(), positive(1.0), below(2.0), interval(1, 2), interval(0, 3)]))
