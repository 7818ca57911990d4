"""Ensembles: the mixture's numbers, the same bits for any number of processes, files, and sentences for wrong input."""

import copy
import sys

import numpy as np
import pytest
import registry
from scipy.special import logsumexp

import npflows
from npflows import Ensemble, FlowFileError

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(400, 2)) @ np.array([[1.0, 0.5], [0.0, 0.7]]) + [3.0, -1.0]


def made(n=3, dim=2, **options):
    return Ensemble(
        registry.randomize(npflows.MAF(dim, 2, (8,), rng=seed, **options), strength=0.4, seed=seed) for seed in range(n)
    )


def fitted(**options):
    return Ensemble.fit(
        lambda seed: npflows.MAF(2, 1, (8,), rng=seed), TABLE, 3, rng=0, max_epochs=2, progress=False, **options
    )


@pytest.fixture(scope="module")
def pair():
    """The same ensemble, fitted in this process and in two."""
    pytest.importorskip("joblib")
    return fitted(processes=1, bootstrap="rows"), fitted(processes=2, bootstrap="rows")


def test_the_density_is_the_mean_of_the_members():
    ensemble, x = made(dtype="float64"), RNG.normal(size=(50, 2))
    x[3] = np.nan
    log_probs = np.array([flow.log_prob(x) for flow in ensemble])
    expected = logsumexp(log_probs, axis=0) - np.log(3)
    np.testing.assert_allclose(ensemble.log_prob(x), expected, rtol=1e-13)
    log_prob, spread = ensemble.log_prob_and_spread(x)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-13)
    densities = np.exp(log_probs)
    np.testing.assert_allclose(spread, densities.std(axis=0, ddof=1) / densities.mean(axis=0), rtol=1e-12)
    assert np.isscalar(ensemble.log_prob(x[0]))


def test_the_density_integrates_to_1():
    ensemble = made(dim=1, dtype="float64")
    grid = np.linspace(-60, 60, 60_001)[:, None]
    assert np.exp(ensemble.log_prob(grid)).sum() * 2e-3 == pytest.approx(1, abs=1e-8)


def test_the_gradient_is_that_of_the_mixture():
    ensemble, x = made(dtype="float64", condition_dim=1), RNG.normal(size=(6, 2))
    condition, step = RNG.normal(size=(6, 1)), 1e-6
    log_prob, dx, dcondition = ensemble.log_prob_and_grad(x, condition, wrt="both")
    np.testing.assert_allclose(log_prob, ensemble.log_prob(x, condition))
    for d in range(2):
        shift = step * np.eye(2)[d]
        slope = (ensemble.log_prob(x + shift, condition) - ensemble.log_prob(x - shift, condition)) / (2 * step)
        np.testing.assert_allclose(dx[:, d], slope, rtol=1e-6, atol=1e-7)
    slope = (ensemble.log_prob(x, condition + step) - ensemble.log_prob(x, condition - step)) / (2 * step)
    np.testing.assert_allclose(dcondition[:, 0], slope, rtol=1e-6, atol=1e-7)
    one, alone = ensemble.log_prob_and_grad(x[0], condition[0])
    assert one == log_prob[0]
    np.testing.assert_array_equal(alone, dx[0])


def test_where_no_member_has_density_nothing_is_nan():
    flows = [npflows.MAF(2, 1, (4,), support=[npflows.support.positive()] * 2, rng=seed) for seed in range(2)]
    ensemble, outside = Ensemble(flows), np.array([[-1.0, 2.0]])
    log_prob, gradient = ensemble.log_prob_and_grad(outside)
    assert log_prob == -np.inf
    assert (gradient == 0).all()
    assert ensemble.log_prob_and_spread(outside).spread == 0


def test_samples_are_of_all_members_and_follow_the_condition():
    flows = [npflows.MAF(1, 1, (4,), condition_dim=1, rng=0) for _ in range(2)]
    for flow, place in zip(flows, (-100.0, 100.0)):
        flow.standardize.set(np.array([place]), np.array([1.0]), None)
    ensemble = Ensemble(flows)
    x = ensemble.sample(2000, 1, condition=[0.5])
    assert x.shape == (2000, 1)
    assert 850 < (x > 0).sum() < 1150
    np.testing.assert_array_equal(x, ensemble.sample(2000, 1, condition=[0.5]))
    assert ensemble.sample(0, 1, condition=[0.5]).shape == (0, 1)
    with pytest.raises(ValueError, match="needs a finite condition"):
        ensemble.sample(2, 1, condition=[np.nan])


def test_the_same_bits_in_one_process_and_in_two(pair):
    one, two = pair
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a.params, b.params)
        assert a.history["train_loss"] == b.history["train_loss"]
    assert not np.array_equal(one.members[0].params, one.members[1].params)


def test_bootstrap_fits_other_rows():
    plain, drawn = fitted(processes=1), fitted(processes=1, bootstrap="rows")
    assert all(a.effective_rows > 1.3 * b.effective_rows for a, b in zip(plain, drawn))


def test_a_file_gives_the_same_ensemble(pair, tmp_path):
    ensemble = pair[0]
    ensemble.save(tmp_path / "e.npz")
    read = Ensemble.load(tmp_path / "e.npz")
    assert len(read) == 3
    np.testing.assert_array_equal(read.log_prob(TABLE), ensemble.log_prob(TABLE))
    assert repr(read) == "Ensemble of 3: MAF, 2 values, 38 parameters each"
    with pytest.raises(FlowFileError, match=r"holds an ensemble: read it with npflows\.Ensemble\.load"):
        npflows.load(tmp_path / "e.npz")
    ensemble.members[0].save(tmp_path / "one.npz")
    with pytest.raises(FlowFileError, match=r"holds no ensemble: if it is one flow, read it with npflows\.load"):
        Ensemble.load(tmp_path / "one.npz")


def in_units(units):
    flow = npflows.MAF(2, 1, (4,), rng=0)
    flow.units = units
    return flow


def test_the_whole_line_is_the_same_said_or_unsaid():
    Ensemble([npflows.MAF(2, 1, (4,)), npflows.MAF(2, 1, (4,), support=[npflows.support.real()] * 2)])


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([], "at least one member"),
        (npflows.MAF(2, 1, (4,), rng=0), "members must be flows, got one MAF"),
        ([npflows.MAF(2, 1, (4,), rng=0), npflows.MAF(3, 1, (4,), rng=0)], "same input_shape"),
        ([npflows.MAF(2, 1, (4,), rng=0), 7], "member 1 is a int"),
        (
            [npflows.MAF(2, 1, (4,)), npflows.MAF(2, 1, (4,), support={0: npflows.support.integer(0, 3)})],
            r"same support: of column 0 member 0 has Real\(\), member 1 has Integer\(low=0, high=3\)",
        ),
        ([in_units(["km", None]), in_units(["m", None])], "same units: of column 0 member 0 has km, member 1 has m"),
        ([in_units(None), in_units(["m", None])], "same units: member 0 has None, member 1 has"),
    ],
)
def test_members_that_do_not_belong_together(members, complaint):
    with pytest.raises((ValueError, TypeError), match=complaint):
        Ensemble(members)


def test_wrong_arguments_are_refused_before_anything_is_fitted():
    def make(seed):
        return npflows.MAF(2, 1, (4,), rng=seed)

    for options, complaint in (
        ({"n": 0}, "n must be"),
        ({"bootstrap": "columns"}, "bootstrap must be"),
        ({"checkpoint": "a.npz"}, "fitted in one go"),
        ({"processes": 0}, "processes must be"),
    ):
        with pytest.raises(ValueError, match=complaint):
            Ensemble.fit(make, TABLE, **options)
    with pytest.raises(TypeError, match="make must be a function that gives a flow, got MAF: make=lambda seed"):
        Ensemble.fit(make(0), TABLE)
    with pytest.raises(TypeError, match="make must give a flow, got int"):
        Ensemble.fit(lambda seed: seed, TABLE)
    with pytest.raises(ValueError, match="sample_weight must"):
        Ensemble.fit(make, TABLE, sample_weight=np.zeros(400))


WEIGHTS = np.random.default_rng(1).uniform(0.1, 3.0, 400)


def fitted_to(x, **options):
    return Ensemble.fit(
        lambda seed: npflows.MAF(2, 1, (8,), rng=seed), x, 2, rng=0, max_epochs=1, processes=1, progress=False, **options
    )


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.params, b.params)


@pytest.mark.parametrize("bootstrap", [None, "rows"])
@pytest.mark.parametrize("logarithms", [False, True])
def test_the_weights_of_a_table_count_with_a_bootstrap_too(bootstrap, logarithms):
    parts = {"log_weight": np.log(WEIGHTS)} if logarithms else {"sample_weight": WEIGHTS}
    expected = fitted_to(TABLE, bootstrap=bootstrap, **parts)
    found = fitted_to(npflows.Table(TABLE, ["a", "b"], **parts), bootstrap=bootstrap)
    same(expected, found)
    assert found.columns == ["a", "b"]
    assert not np.array_equal(found.members[0].params, fitted_to(TABLE, bootstrap=bootstrap).members[0].params)


@pytest.mark.parametrize(
    "options", [{"bootstrap": "rows"}, {"sample_weight": WEIGHTS}, {}], ids=["rows", "weights", "plain"]
)
@pytest.mark.parametrize("kind", ["mapping", "structured", "list", "pandas", "masked"])
def test_every_kind_of_table(kind, options):
    x = {"a": TABLE[:, 0], "b": TABLE[:, 1]}
    if kind == "structured":
        x = np.rec.fromarrays(TABLE.T, names="a,b")
    elif kind == "list":
        x = TABLE.tolist()
    elif kind == "pandas":
        x = pytest.importorskip("pandas").DataFrame(x)
    elif kind == "masked":
        x = np.ma.masked_invalid(TABLE)
    found = fitted_to(x, **options)
    same(fitted_to(TABLE, **options), found)
    assert found.columns == (None if kind in ("list", "masked") else ["a", "b"])


def test_a_condition_for_all_rows_and_rows_to_validate_on_in_tables_of_their_own():
    def make(seed):
        return npflows.MAF(1, 1, (8,), condition_dim=1, rng=seed)

    options = {"n": 2, "rng": 0, "max_epochs": 1, "processes": 1, "progress": False, "bootstrap": "rows"}
    table = npflows.Table(TABLE[:, :1], ["a"], condition=TABLE[:, 1:], condition_columns=["c"])
    held = npflows.Table(TABLE[:50, :1] + 1, ["a"], condition=TABLE[:50, 1:], condition_columns=["c"])
    found = Ensemble.fit(make, table, validation_data=held, **options)
    expected = Ensemble.fit(make, TABLE[:, :1], condition=TABLE[:, 1:], validation_data=TABLE[:50, :1] + 1,
                            validation_condition=TABLE[:50, 1:], **options)  # fmt: skip
    same(expected, found)
    assert (found.columns, found.condition_columns) == (["a"], ["c"])
    with pytest.warns(UserWarning, match="column 0 of the condition has one value"):
        assert len(Ensemble.fit(make, TABLE[:, :1], condition=[0.5], **options)) == 2


def test_a_stream_that_fits_into_memory(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", TABLE)
    same(fitted_to(TABLE, bootstrap="rows"), fitted_to(npflows.stream_table(tmp_path / "x.npy"), bootstrap="rows"))
    monkeypatch.setattr("npflows.training.streaming.IN_MEMORY", 100)
    assert len(fitted_to(npflows.stream_table(tmp_path / "x.npy"))) == 2
    with pytest.raises(ValueError, match="bootstrap needs a table in memory"):
        fitted_to(npflows.stream_table(tmp_path / "x.npy"), bootstrap="rows")


def test_units_without_names_are_learned():
    table = npflows.Table(TABLE, None, ["km", None])
    assert fitted_to(table, bootstrap="rows").units == ["km", None]


def test_one_flow_for_all_members_is_refused():
    flow = npflows.MAF(2, 1, (4,), rng=0)
    with pytest.raises(ValueError, match="make must give a new flow each time"):
        Ensemble.fit(lambda seed: flow, TABLE, 3, processes=1)
    assert not flow.history


def test_what_an_ensemble_is_asked_instead_of_a_flow():
    ensemble = made(condition_dim=1, dtype="float64")
    ensemble.members[0].condition_columns = ensemble.members[1].condition_columns = ["c"]
    assert ensemble.condition_columns == ["c"]
    assert ensemble.dtype == np.float64
    assert (ensemble.input_dim, ensemble.latent_dim, ensemble.units, ensemble.support) == (2, 2, None, None)
    with pytest.raises(TypeError, match="verify measures flows, got Ensemble: of an ensemble verify each of its members"):
        npflows.verify.verify(ensemble, TABLE)
    with pytest.raises(AttributeError, match=r"no attribute 'preprocessing': its members are flows, which have it"):
        npflows.diagnostics.pit(ensemble, TABLE)
    with pytest.raises(AttributeError, match=r"^an Ensemble has no attribute 'nothing'$"):
        _ = ensemble.nothing
    assert copy.deepcopy(ensemble).log_prob(TABLE[:1], [[0.1]]) == ensemble.log_prob(TABLE[:1], [[0.1]])


def test_without_joblib_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install joblib, or processes=1"):
        fitted(processes=2)


def test_each_warning_comes_once_with_its_member():
    x = np.vstack([TABLE, [[1e6, 0.0]]])
    with pytest.warns(UserWarning, match=r"\(member \d\)$") as caught:
        Ensemble.fit(lambda seed: npflows.MAF(2, 1, (8,), rng=seed), x, 2, rng=0, max_epochs=1, processes=1, progress=False)
    messages = [str(one.message) for one in caught]
    assert len(set(messages)) == len(messages)
