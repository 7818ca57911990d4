"""Estimators and tables with NaN, infinity or declared missing entries."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimator_cases import small
from sklearn.model_selection import GridSearchCV

from npflows.sklearn import FlowClassifier, FlowOutlierDetector


def spoilt(x, value=np.nan):
    """The table with a value in a quarter of its rows, and which rows these are."""
    x, bad = x.copy(), np.arange(len(x)) % 4 == 1
    x[bad, 1] = value
    return x, bad


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_with_nan_or_infinity_are_refused_or_dropped(value, x):
    table, bad = spoilt(x, value)
    with pytest.raises(ValueError, match="contains"):
        small().fit(table)
    with pytest.warns(UserWarning, match="x: dropped 30 of 120 rows with NaN or infinite values"):
        density = small(on_invalid="drop").fit(table)
    clean = small().fit(x[~bad])
    np.testing.assert_array_equal(density.score_samples(table)[~bad], clean.score_samples(x[~bad]))
    assert not np.isfinite(density.score_samples(table)[bad]).any()
    assert density.score(table) == density.score(x[~bad])
    with pytest.raises(ValueError, match="contains"):
        clean.score_samples(table)
    with pytest.raises(ValueError, match="X has no row without missing entries, and NaN or infinite values, to score"):
        density.score(table[bad])


@pytest.mark.filterwarnings("ignore:missing. no entry is -1:UserWarning")
@pytest.mark.parametrize("mark", [99.0, "nan"])
def test_missing_entries_are_declared(mark, x):
    table, bad = spoilt(x, float(mark))
    with pytest.warns(UserWarning, match="x: dropped 30 of 120 rows, which have missing entries"):
        density = small(missing={1: mark}).fit(table)
    np.testing.assert_array_equal(density.score_samples(x[~bad]), small().fit(x[~bad]).score_samples(x[~bad]))
    assert density.score(table) == density.score(x[~bad])
    with pytest.warns(UserWarning, match="30 entries are missing in 30 of 120 rows"):
        filled = small(missing=[mark, -1], on_missing="impute").fit(table)
    assert filled.score(table) != density.score(table)
    table[0, 0] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        small(missing=mark).fit(table)
    with pytest.raises(ValueError, match='on_missing="impute" needs missing='):
        small(on_missing="impute").fit(x)


@pytest.mark.filterwarnings("ignore:x:UserWarning")
def test_dropped_rows_count_neither_as_outliers_nor_for_the_priors(x):
    table, bad = spoilt(x)
    detector = small(FlowOutlierDetector, contamination=0.2, on_invalid="drop").fit(table)
    clean = small(FlowOutlierDetector, contamination=0.2).fit(x[~bad])
    assert detector.offset_ == clean.offset_
    np.testing.assert_array_equal(detector.predict(x), clean.predict(x))
    y = np.where(bad | (np.arange(len(x)) % 3 == 0), "a", "b")
    classifier = small(FlowClassifier, on_invalid="drop").fit(table, y)
    np.testing.assert_array_equal(classifier.predict_proba(x), small(FlowClassifier).fit(x[~bad], y[~bad]).predict_proba(x))
    np.testing.assert_allclose(small(FlowClassifier, missing="nan", on_missing="impute").fit(table, y).class_prior_[0],
                               (y == "a").mean())  # fmt: skip
    for fitted, method in ((detector, "predict"), (detector, "decision_function"), (classifier, "predict")):
        with pytest.raises(ValueError, match="contains NaN"):
            getattr(fitted, method)(table)


def test_a_search_goes_over_a_table_with_holes(x):
    table, _ = spoilt(x)
    with pytest.warns(UserWarning, match="x: dropped"):
        search = GridSearchCV(small(max_epochs=1, on_invalid="drop"), {"num_layers": [1, 2]}, cv=2).fit(table)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
