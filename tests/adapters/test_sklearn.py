"""The scikit-learn estimators: scikit-learn's own checks in full, and what they promise beyond."""

import importlib
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npflows

pytest.importorskip("sklearn")

from estimator_cases import small
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.estimator_checks import parametrize_with_checks

from npflows.models.table import TABLE_MODELS
from npflows.sklearn import COMMON, SPECIFIC, TRAINING, FlowClassifier, FlowDensity, FlowOutlierDetector, distinct
from npflows.support import ordered, positive, real

ESTIMATORS = [FlowDensity, FlowClassifier, FlowOutlierDetector]


@parametrize_with_checks([*(cls() for cls in ESTIMATORS), FlowDensity(on_invalid="drop")])
@pytest.mark.filterwarnings("ignore:x has .* more columns than rows:UserWarning")  # so the checks' tables have
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_parameters_are_those_of_models_and_fit():
    models = [set(inspect.signature(model.model_class).parameters) for model in TABLE_MODELS.values()]
    assert all(set(COMMON) <= model for model in models)
    assert set(SPECIFIC) <= set.union(*models)
    assert not set(SPECIFIC) & set.intersection(*models)
    assert set(TRAINING) <= set(inspect.signature(npflows.NormalizingFlow.fit).parameters)
    names = {*COMMON, *SPECIFIC, *TRAINING, "model", "num_layers", "n_flows", "random_state"}
    assert set(FlowDensity().get_params()) == names
    assert set(FlowClassifier().get_params()) == names | {"embedding_dims"}
    assert set(FlowOutlierDetector().get_params()) == names | {"contamination"}


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("spline", {"num_bins": 5, "tail_bound": 4.0, "conditioner": "autoregressive", "linear": "reverse"}),
        ("maf", {"reverse_ordering": False, "scale_activation": "tanh", "actnorm": True}),
        ("iaf", {"orders": "random", "activation": "tanh"}),
        ("realnvp", {"mask_type": "half", "base_distribution": "student_t"}),
    ],
)
def test_parameters_reach_the_model(model, parameters, x):
    estimator = small(model=model, **parameters).fit(x)
    flow = estimator.flow_
    assert type(flow) is TABLE_MODELS[model].model_class
    assert (flow.num_coupling_layers if model == "realnvp" else flow.num_layers) == 2
    assert tuple(flow.hidden_dims) == (16,)
    given = {name: value for name, value in parameters.items() if value != "random"}  # drawn, those are kept as drawn
    assert {name: getattr(flow, name) for name in given} == given
    assert estimator.n_iter_ == 5 == len(flow.history["train_loss"])
    np.testing.assert_array_equal(estimator.score_samples(x), flow.log_prob(x))
    assert estimator.score(x) == estimator.score_samples(x).mean()


def test_parameters_reach_fit(x):
    seen = []
    estimator = small(max_epochs=3, validation_fraction=0.0, learning_rate=2e-3, schedule="constant", standardize=False)
    estimator.set_params(callbacks=[lambda flow, record: seen.append(record["learning_rate"])]).fit(x)
    assert seen == [2e-3] * 3
    np.testing.assert_array_equal(estimator.flow_.standardize.scale, 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "glow"}, "model must be one of 'maf', 'spline', 'realnvp', 'iaf', got 'glow'"),
        ({"model": "maf", "num_bins": 4}, "model='maf' has no parameter num_bins: leave it at None"),
        ({"model": "realnvp", "orders": "random", "linear": "lu"}, "has no parameter linear, orders"),
        ({"mask_type": "half"}, "model='spline' has no parameter mask_type"),
        ({"max_epochs": -1}, "max_epochs must be"),
        ({"hidden_dims": 0}, "hidden_dims must be"),
    ],
)
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_what_does_not_fit_is_refused_by_fit(cls, parameters, message, x):
    estimator = small(cls, **parameters)
    with pytest.raises(ValueError, match=message):
        estimator.fit(x, np.arange(len(x)) % 2)


def test_one_column():
    rng = np.random.default_rng(1)
    x = rng.normal(rng.choice([-2, 2], (600, 1)), 0.3)
    density = FlowDensity(random_state=0).fit(x)
    grid = np.linspace(-15, 15, 9001)
    p = np.exp(density.score_samples(grid[:, None]))
    assert p.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)
    assert p[np.abs(grid) < 0.5].max() < 0.5 * p.max()  # two humps
    assert density.sample(3).shape == (3, 1)
    with pytest.raises(ValueError, match="for one column use MAF"):
        small(model="realnvp").fit(x)


def test_fewest_rows():
    density = small(validation_fraction=0.0).fit([[0.0, 1.0], [1.0, 3.0]])
    assert np.isfinite(density.score([[0.5, 2.0]]))
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        small().fit([[0.0, 1.0]])


def test_a_constant_column_is_told(x):
    x[:, 1] = 7
    with pytest.warns(UserWarning, match="column 1 of x is constant"):
        density = small().fit(x)
    assert np.isfinite(density.score_samples(x)).all()


def test_a_sample_is_drawn_from_the_density(x):
    density = FlowDensity(random_state=0, max_epochs=20).fit(x)
    drawn = density.sample(20000, random_state=1)
    np.testing.assert_allclose(drawn.mean(axis=0), x.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.6)
    np.testing.assert_array_equal(drawn[:5], density.sample(20000, random_state=np.random.RandomState(1))[:5])
    assert density.sample().shape == (1, 2)
    assert (density.sample() != density.sample()).any()


def test_random_state(x):
    def score(random_state):
        return small(random_state=random_state, max_epochs=2).fit(x).score(x)

    assert score(3) == score(3) == score(np.random.RandomState(3)) != score(4)
    shared = np.random.RandomState(3)
    assert score(shared) != score(shared)
    everyones = check_random_state(None)
    state = everyones.get_state()
    one, other = score(None), score(None)
    everyones.set_state(state)
    assert one == score(None) != other
    with pytest.raises(ValueError, match="cannot be used to seed"):
        score("seed")


@pytest.mark.parametrize("model", TABLE_MODELS)
def test_weights_are_repeats_and_order_is_nothing(model, x):
    rng = np.random.default_rng(1)
    weight, new_order = rng.integers(0, 3, len(x)), rng.permutation(len(x))
    weighted = small(model=model).fit(x, sample_weight=weight).score_samples(x)
    repeated = small(model=model).fit(np.repeat(x, weight, axis=0)).score_samples(x)
    shuffled = small(model=model).fit(x[new_order], sample_weight=0.25 * weight[new_order]).score_samples(x)
    np.testing.assert_array_equal(weighted, repeated)
    np.testing.assert_array_equal(weighted, shuffled)
    assert (weighted != small(model=model).fit(x).score_samples(x)).all()


def test_distinct():
    rows, weight = distinct(np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [3.0, 3.0]]), [0.5, 1, 2, 0])
    np.testing.assert_array_equal(rows, [[0, 5], [1, 2]])
    np.testing.assert_array_equal(weight, [1, 2.5])
    holes = np.array([[1.0, np.nan], [np.nan, 5.0], [1.0, np.nan], [1.0, 3.0], [1.0, np.inf]])
    rows, weight = distinct(holes, None)
    np.testing.assert_array_equal(rows, [[1, 3], [1, np.inf], [1, np.nan], [np.nan, 5]])
    np.testing.assert_array_equal(weight, [1, 1, 2, 1])


def test_the_class_may_go_through_an_embedding(x):
    classifier = small(FlowClassifier, embedding_dims=(5, 3)).fit(x, np.arange(len(x)) % 2)
    assert classifier.flow_.embedding_dims == (5, 3)
    assert classifier.flow_.condition_dim == 2
    assert np.isfinite(classifier.predict_proba(x)).all()


def test_weights_move_the_density(x):
    right = x[:, 0] > 3
    density = small(max_epochs=20).fit(x, sample_weight=np.where(right, 1.0, 0.02))
    assert density.score(x[right]) > density.score(x[~right]) + 1


@pytest.mark.parametrize("weights", [3.0, [1.0, 2.0], [-1.0] * 120, [0.0] * 120, [[1.0]] * 120, [np.nan] * 120])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_bad_weights_are_refused(cls, weights, x):
    with pytest.raises(ValueError, match="sample_weight must"):
        small(cls).fit(x, np.arange(len(x)) % 2, sample_weight=weights)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_clone_and_pickle(cls, x):
    base = npflows.StudentT(2)
    estimator = small(cls, base_distribution=base, num_bins=5, callbacks=(print_nothing,))
    before = base.params
    estimator.fit(x, np.arange(len(x)) % 2)
    np.testing.assert_array_equal(base.params, before)
    again = pickle.loads(pickle.dumps(estimator))
    method = "predict_proba" if cls is FlowClassifier else "score_samples"
    np.testing.assert_array_equal(getattr(again, method)(x), getattr(estimator, method)(x))
    fresh = clone(estimator)
    assert not hasattr(fresh, "flow_")
    assert fresh.get_params()["num_bins"] == 5
    assert repr(fresh) == repr(estimator)
    np.testing.assert_array_equal(getattr(fresh.fit(x, np.arange(len(x)) % 2), method)(x), getattr(estimator, method)(x))


def print_nothing(flow, record):
    pass


def test_refitting_starts_afresh(x):
    density = small().fit(x)
    first, flow = density.score(x), density.flow_
    assert density.fit(x).score(x) == first
    assert density.flow_ is not flow


def test_grid_search(x):
    grid = {"hidden_dims": [(8,), (8, 8)], "num_layers": [1, 2], "model": ["spline", "realnvp"]}
    search = GridSearchCV(small(max_epochs=2), grid, cv=2).fit(x)
    assert len(search.cv_results_["params"]) == 8
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    assert tuple(search.best_estimator_.flow_.hidden_dims) == search.best_params_["hidden_dims"]
    assert search.score(x) == search.best_estimator_.score(x)


def test_pipeline(x):
    pipe = make_pipeline(StandardScaler(), small())
    pipe.fit(x * [1, 1e6], flowdensity__sample_weight=np.ones(len(x)))
    assert np.isfinite(pipe.score_samples(x * [1, 1e6])).all()
    assert pipe.set_params(flowdensity__max_epochs=1).fit(x)[-1].n_iter_ == 1


def test_support(x):
    x[:, 1] = np.exp(x[:, 1])
    density = small(support={1: positive()}).fit(x)
    assert np.isneginf(density.score_samples([[3.0, -1.0]]))
    assert (density.sample(1000, random_state=0)[:, 1] > 0).all()
    assert small(FlowOutlierDetector, support=[real(), positive()]).fit(x).predict([[3.0, -1.0]]) == -1
    classifier = small(FlowClassifier, support=[real(), positive()]).fit(x, np.arange(len(x)) % 4 == 0)
    np.testing.assert_allclose(classifier.predict_proba([[3.0, -1.0]]), [[0.75, 0.25]])


def test_names_of_columns(x):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x, columns=["mass", "radius"])
    density = small().fit(table)
    assert density.feature_names_in_.tolist() == density.flow_.columns == ["mass", "radius"]
    np.testing.assert_array_equal(density.score_samples(table), density.flow_.log_prob(x))
    named = small(support={"mass": real()}).fit(table)
    np.testing.assert_array_equal(named.score_samples(table), density.score_samples(table))
    with pytest.raises(ValueError, match="feature names should match"):
        density.score_samples(table[["radius", "mass"]])
    assert not hasattr(density.fit(x), "feature_names_in_")
    assert density.flow_.columns is None


def test_classifier_on_blobs_gives_bayes_probabilities():
    x, y = make_blobs(2000, centers=[[0, 0], [2, 0]], cluster_std=1.0, random_state=0)
    names = np.array(["left", "right"])
    classifier = FlowClassifier(random_state=0, learning_rate=5e-3, max_epochs=40).fit(x, names[y])
    assert classifier.classes_.tolist() == ["left", "right"]
    truth = 1 / (1 + np.exp(2 - 2 * x[:, 0]))
    found = classifier.predict_proba(x)
    assert np.abs(found[:, 1] - truth).mean() < 0.05
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(found), classifier.predict_log_proba(x))
    np.testing.assert_array_equal(classifier.predict(x), names[found.argmax(axis=1)])
    assert classifier.flow_.condition_dim == 2


def test_classifier_on_digits():
    x, y = load_digits(return_X_y=True)
    train, test, y_train, y_test = train_test_split(x, y, random_state=0, stratify=y)
    pipe = make_pipeline(PCA(16, random_state=0), FlowClassifier("maf", random_state=0, max_epochs=25))
    assert pipe.fit(train, y_train).score(test, y_test) > 0.9


def test_priors_are_the_weighted_frequencies(x):
    y = np.arange(len(x)) % 3
    classifier = small(FlowClassifier, max_epochs=1)
    np.testing.assert_allclose(classifier.fit(x, y).class_prior_, 1 / 3)
    classifier.fit(x, y, sample_weight=np.choose(y, [1.0, 3.0, 0.0]))
    np.testing.assert_allclose(classifier.class_prior_, [0.25, 0.75, 0])
    assert (classifier.predict_proba(x)[:, 2] == 0).all()
    far = np.full((1, 2), 1e300)  # where no class has any density
    np.testing.assert_allclose(classifier.predict_proba(far), [[0.25, 0.75, 0]])


def test_one_class_is_certain(x):
    classifier = small(FlowClassifier, max_epochs=1).fit(x, np.full(len(x), 4))
    assert (classifier.predict(x) == 4).all()
    assert (classifier.predict_proba(x) == 1).all()


def test_classes_must_be_classes(x):
    with pytest.raises(ValueError, match="Unknown label type"):
        small(FlowClassifier).fit(x, x[:, 0])


@pytest.mark.parametrize("contamination", [0.01, 0.07, 0.29, 0.5])
def test_outliers_are_the_share_asked_for(contamination):
    x = np.random.default_rng(2).standard_normal((100, 2))
    detector = small(FlowOutlierDetector, contamination=contamination).fit(x)
    label, decision = detector.predict(x), detector.decision_function(x)
    assert (label == -1).sum() == round(100 * contamination)
    np.testing.assert_array_equal(label, np.where(decision < 0, -1, 1))
    np.testing.assert_array_equal(decision, detector.score_samples(x) - detector.offset_)
    np.testing.assert_array_equal(detector.predict(x[:1]), label[:1])
    np.testing.assert_array_equal(small(FlowOutlierDetector, contamination=contamination).fit_predict(x), label)
    assert detector.predict([[30.0, -30.0], [0.0, 0.0]]).tolist() == [-1, 1]


def test_the_share_of_outliers_counts_weights():
    x = np.random.default_rng(2).standard_normal((200, 2))
    weight = np.random.default_rng(3).uniform(0, 2, 200)
    detector = small(FlowOutlierDetector, contamination=0.2).fit(x, sample_weight=weight)
    out = detector.predict(x) == -1
    share = weight[out].sum() / weight.sum()
    assert 0.2 - 2 / weight.sum() < share <= 0.2


def test_an_outlier_share_below_one_row_marks_none(x):
    assert (small(FlowOutlierDetector, contamination=1e-6).fit_predict(x) == 1).all()


@pytest.mark.parametrize("contamination", [0, 0.51, -1, "auto", None, np.nan])
def test_bad_contamination(contamination, x):
    with pytest.raises(ValueError, match="contamination must be"):
        small(FlowOutlierDetector, contamination=contamination).fit(x)


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    for name in ("sklearn", "sklearn.base"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "npflows.sklearn")
    with pytest.raises(ImportError, match=r"pip install 'npflows\[sklearn\]'"):
        importlib.import_module("npflows.sklearn")


def test_npflows_alone_does_not_import_scikit_learn():
    environment = {**os.environ, "PYTHONPATH": str(Path(npflows.__file__).parents[1])}
    code = "import sys, npflows; print('sklearn' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_group_of_columns_survives_a_clone():
    """scikit-learn copies the entries of a list one by one."""
    x = np.sort(np.random.default_rng(0).normal(size=(200, 2)), axis=1)
    for support in ([ordered(), ordered()], {(0, 1): ordered()}):
        fitted = clone(small(FlowDensity, support=support)).fit(x)
        samples = fitted.sample(100)
        assert (samples[:, 0] < samples[:, 1]).all()


def test_several_flows_are_one_density(x):
    estimator = small(n_flows=3, random_state=1).fit(x)
    assert isinstance(estimator.flow_, npflows.Ensemble)
    assert len(estimator.flow_) == 3
    assert len({member.params.tobytes() for member in estimator.flow_}) == 3
    np.testing.assert_array_equal(estimator.score_samples(x), estimator.flow_.log_prob(x))
    assert estimator.sample(5, random_state=0).shape == (5, x.shape[1])
    again = small(n_flows=3, random_state=1).fit(x)
    np.testing.assert_array_equal(again.score_samples(x), estimator.score_samples(x))
    with pytest.raises(ValueError, match="n_flows must be a whole number of at least 1"):
        small(n_flows=0).fit(x)
