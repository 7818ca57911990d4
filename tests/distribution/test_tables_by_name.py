"""Flows that know the names of their columns take tables by name, in every method, and give them back."""

import copy
import pickle

import numpy as np
import pytest
from helpers import COPIES, SHARED_TOLD

import npflows
from npflows import MAF, diagnostics
from npflows.core.table import Table

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 3)) * [1, 5, 0.2] + [0, 20, 3]
C = X[:, :2] + RNG.standard_normal((200, 2))
NAMES, GIVEN = ["z", "i", "r"], ["u", "g"]
OPTIONS = {"max_epochs": 1, "rng": 0, "progress": False}


def table(x, names, order):
    return {names[i]: x[:, i] for i in order}


def frame(x=X, order=(2, 0, 1)):
    return table(x, NAMES, order)


def given(c=C, order=(1, 0)):
    return table(c, GIVEN, order)


def maf(**options):
    return MAF(3, 1, (8,), rng=0, **options)


def conditional():
    flow = MAF(3, 1, (8,), condition_dim=2, columns=NAMES, rng=0)
    flow.condition_columns = GIVEN
    return flow


CONDITIONAL = conditional().fit(X, condition=C, **OPTIONS)
METHODS = {
    "log_prob": lambda f, x, c: f.log_prob(x, c),
    "log_prob_and_grad": lambda f, x, c: f.log_prob_and_grad(x, c),
    "nll_and_grad": lambda f, x, c: f.nll_and_grad(x, None, c),
    "bits_per_dim": lambda f, x, c: f.bits_per_dim(x, c),
    "forward": lambda f, x, c: f.forward(x, c),
    "forward_vjp": lambda f, x, c: f.forward_vjp(x, np.ones((20, 3)), 0.0, c),
    "__call__": lambda f, x, c: f(x, c)["log_prob_x"],
    "to_unit_cube": lambda f, x, c: f.to_unit_cube(x, c),
    "from_unit_cube": lambda f, x, c: f.from_unit_cube(np.full((20, 3), 0.5), c),
    "inverse": lambda f, x, c: f.inverse(np.zeros((20, 3)), c),
    "sample": lambda f, x, c: f.sample(20, 0, condition=c),
    "sample_each": lambda f, x, c: f.sample_each(2, c, 0),
    "entropy": lambda f, x, c: f.entropy(20, 0, c),
    "pit": lambda f, x, c: diagnostics.pit(f, x, c).u,
    "sbc_ranks": lambda f, x, c: diagnostics.sbc_ranks(f, x, c, 3, 0, bins=2).ranks,
    "verify": lambda f, x, c: [check.value for check in copy.deepcopy(f).verify(x, c, 0).checks[:3]],
    "fit": lambda f, x, c: conditional().fit(x, condition=c, **OPTIONS).params,
    "fit with validation data": lambda f, x, c: conditional().fit(
        X, condition=C, validation_data=x, validation_condition=c, **OPTIONS).history["validation_loss"],
    "initialize": lambda f, x, c: conditional().initialize(x, None, c).standardize.table,
}  # fmt: skip


@SHARED_TOLD
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_a_table_is_of_no_consequence(method):
    call = METHODS[method]
    right, found = call(CONDITIONAL, X[:20], C[:20]), call(CONDITIONAL, frame(X[:20]), given(C[:20]))
    for a, b in zip(right if isinstance(right, tuple) else [right], found if isinstance(found, tuple) else [found]):
        np.testing.assert_array_equal(np.asarray(a, object), np.asarray(b, object))


@SHARED_TOLD
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"from_unit_cube", "inverse", "sample", "sample_each", "entropy"}))
def test_a_table_brings_its_condition_with_it(method):
    call = METHODS[method]
    x = Table(X[:20, ::-1], NAMES[::-1], None, C[:20, ::-1], GIVEN[::-1])
    right, found = call(CONDITIONAL, X[:20], C[:20]), call(CONDITIONAL, x, None)
    for a, b in zip(right if isinstance(right, tuple) else [right], found if isinstance(found, tuple) else [found]):
        np.testing.assert_array_equal(np.asarray(a, object), np.asarray(b, object))


def test_a_condition_that_is_given_goes_before_that_of_a_table():
    x = Table(X, NAMES, None, C, GIVEN)
    np.testing.assert_array_equal(CONDITIONAL.log_prob(x, C[0]), CONDITIONAL.log_prob(X, C[0]))
    np.testing.assert_array_equal(maf().log_prob(x), maf().log_prob(X))  # a flow that takes none leaves it
    with pytest.raises(ValueError, match="this flow needs a condition of 2 values for each sample: pass condition="):
        CONDITIONAL.log_prob(Table(X, NAMES))
    ensemble = npflows.Ensemble([CONDITIONAL, CONDITIONAL])
    np.testing.assert_allclose(ensemble.log_prob(x), CONDITIONAL.log_prob(X, C))


def test_each_flow_of_a_divergence_takes_the_condition_by_its_own_names():
    other = MAF(3, 1, (8,), condition_dim=2, columns=NAMES, rng=1)
    other.condition_columns = GIVEN[::-1]
    other.fit(X, condition=C[:, ::-1], **OPTIONS)
    x, log_prob = CONDITIONAL.sample_and_log_prob(50, 0, condition=C[:50])
    expected = (log_prob - other.log_prob(x, C[:50, ::-1])).mean()
    assert CONDITIONAL.kl_divergence(other, 50, 0, given(C[:50])).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"inverse", "sample", "from_unit_cube", "sample_each", "entropy"}))
def test_a_column_too_few_or_too_many_is_refused(method):
    with pytest.raises(ValueError, match="has no column 'i'"):
        METHODS[method](CONDITIONAL, table(X[:20], NAMES, (0, 2)), C[:20])
    with pytest.raises(ValueError, match="has columns that the flow does not take: w; pass"):
        METHODS[method](CONDITIONAL, {**frame(X[:20]), "w": X[:20, 0]}, C[:20])


def test_so_it_is_with_a_row_and_a_row_for_the_condition():
    row, condition = dict(zip(NAMES[::-1], X[3, ::-1])), dict(zip(GIVEN[::-1], C[3, ::-1]))
    assert CONDITIONAL.log_prob(row, condition) == CONDITIONAL.log_prob(X[3], C[3])


def test_columns_that_are_not_the_flows_are_left_out_on_request():
    flow = copy.deepcopy(CONDITIONAL)
    flow.on_extra_columns = "ignore"
    everything = {**frame(), **given()}
    with pytest.warns(UserWarning, match="left out columns that the flow does not take"):
        found = flow.log_prob(everything, everything)
    np.testing.assert_array_equal(found, flow.log_prob(X, C))
    assert flow.on_extra_columns == "ignore"
    with pytest.raises(ValueError, match="on_extra_columns must be one of 'raise', 'ignore', got 'drop'"):
        flow.on_extra_columns = "drop"


def test_fit_remembers_the_names_of_a_table(tmp_path):
    flow = MAF(3, 1, (8,), condition_dim=2, rng=0).fit(frame(), condition=given(), **OPTIONS)
    assert flow.columns == ["r", "z", "i"]
    assert flow.condition_columns == ["g", "u"]
    right = flow.log_prob(X[:, [2, 0, 1]], C[:, ::-1])
    for make in COPIES.values():
        again = make(flow, tmp_path / "flow.npz")
        np.testing.assert_allclose(again.log_prob(table(X, NAMES, (0, 1, 2)), table(C, GIVEN, (0, 1))), right, rtol=1e-12)
        assert again.reset(0).columns is None
        assert again.condition_columns is None
    flow.fit(frame(order=(1, 2, 0)), condition=given(order=(0, 1)), **OPTIONS)
    assert flow.columns == ["r", "z", "i"]
    with pytest.raises(ValueError, match=r"x has no column 'z'; .*, from the table of an earlier fit"):
        flow.fit(table(X, ["a", "i", "r"], (0, 1, 2)), condition=C, **OPTIONS)


def test_names_that_the_user_gave_outlast_a_reset(tmp_path):
    flow = maf(columns=NAMES).fit(frame(), **OPTIONS)
    for make in COPIES.values():
        assert make(flow, tmp_path / "flow.npz").reset(0).columns == NAMES
    flow = maf().fit(frame(), **OPTIONS)
    flow.columns = ["a", "b", "c"]
    assert flow.reset(0).columns == ["a", "b", "c"]


def test_a_fit_that_is_refused_leaves_no_names():
    flow = maf()
    with pytest.raises(ValueError, match="NaN or infinite"):
        flow.fit({**frame(), "i": np.full(200, np.nan)}, **OPTIONS)
    assert flow.columns is None


def test_a_checkpoint_keeps_the_names(tmp_path):
    path = tmp_path / "run.npz"
    right = maf().fit(frame(), **{**OPTIONS, "max_epochs": 3})

    def stop(flow, record):
        raise KeyboardInterrupt

    options = {**OPTIONS, "max_epochs": 3, "checkpoint": path, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        maf().fit(frame(), callbacks=stop, **options)
    flow = maf().fit(frame(), **options)
    assert flow.columns == ["r", "z", "i"]
    np.testing.assert_array_equal(flow.params, right.params)


def test_a_flow_without_names_goes_by_position():
    flow = maf().fit(X, **OPTIONS)
    assert flow.columns is None
    np.testing.assert_array_equal(flow.log_prob(frame()), flow.log_prob(X[:, [2, 0, 1]]))


def test_arrays_go_by_position_where_the_flow_has_names():
    np.testing.assert_array_equal(maf(columns=NAMES).log_prob(X), maf().log_prob(X))


def test_names_that_are_numbers_are_names_in_any_order():
    flow = MAF(3, num_layers=1, hidden_dims=(8,), rng=0).fit(table(X, [1, 2, 0], (0, 1, 2)), **OPTIONS)
    assert flow.columns == ["1", "2", "0"]
    np.testing.assert_array_equal(flow.log_prob(table(X, [1, 2, 0], (2, 0, 1))), flow.log_prob(X))


def test_missing_by_the_names_of_the_table():
    holes = frame(np.where(np.arange(200)[:, None] < [0, 7, 0], 99.0, X))
    with pytest.warns(UserWarning, match="x: dropped 7 of 200 rows, which have missing entries"):
        flow = maf().fit(holes, missing={"i": 99.0}, **OPTIONS)
    np.testing.assert_array_equal(flow.params, maf().fit(X[7:][:, [2, 0, 1]], **OPTIONS).params)


@pytest.mark.parametrize("kind", [True, "pandas", "polars", "pyarrow", "astropy"])
def test_samples_come_as_a_frame(kind):
    pytest.importorskip("pandas" if kind is True else kind)
    flow = maf(columns=NAMES)
    drawn, (x, log_prob) = flow.sample(5, 0, as_frame=kind), flow.sample_and_log_prob(5, 0, as_frame=kind)
    np.testing.assert_array_equal(flow.log_prob(drawn), flow.log_prob(flow.sample(5, 0)))
    np.testing.assert_allclose(flow.log_prob(x), log_prob, rtol=1e-4)
    names = getattr(drawn, "column_names", None) or getattr(drawn, "colnames", None) or drawn.columns
    assert list(names) == NAMES


def test_frames_that_can_not_be_made_are_refused():
    with pytest.raises(ValueError, match="as_frame must be one of 'pandas', 'polars'"):
        maf().sample(5, as_frame="xarray")
    with pytest.raises(ValueError, match="as_frame needs samples that are rows of columns"):
        npflows.Glow((4, 4, 1), 1, 1, rng=0).sample(1, as_frame=True)


def test_names_outlast_pickling_of_an_untrained_flow():
    assert pickle.loads(pickle.dumps(maf(columns=NAMES))).columns == NAMES
