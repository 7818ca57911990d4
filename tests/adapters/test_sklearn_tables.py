"""What the estimators do with names, masks and units."""

import pathlib

import numpy as np
import pytest

from npflows.core.table import Table

sklearn = pytest.importorskip("npflows.sklearn")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((100, 2)) + np.array([0, 3])
NAMES = ["z", "i"]
OPTIONS = {"num_layers": 1, "hidden_dims": (8,), "max_epochs": 2, "random_state": 0}
PLAIN = sklearn.FlowDensity(**OPTIONS).fit(X)


def structured(x=X, order=(0, 1)):
    table = np.empty(len(x), [(NAMES[i], "f8") for i in order])
    for i in order:
        table[NAMES[i]] = x[:, i]
    return table


def frame(library, x=X, order=(0, 1)):
    columns = {NAMES[i]: x[:, i] for i in order}
    if library == "structured":
        return structured(x, order)
    module = pytest.importorskip("astropy.table" if library == "astropy" else library)
    return getattr(module, "Table" if library == "astropy" else "DataFrame")(columns)


@pytest.mark.parametrize("library", ["structured", "pandas", "polars", "astropy"])
def test_names_are_kept_and_another_order_is_refused_as_scikit_learn_does(library):
    density = sklearn.FlowDensity(**OPTIONS).fit(frame(library))
    assert list(density.feature_names_in_) == density.flow_.columns == NAMES
    np.testing.assert_array_equal(density.score_samples(frame(library)), PLAIN.score_samples(X))
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        density.score_samples(frame(library, order=(1, 0)))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        density.score_samples(X)


def test_masks_are_missing_values():
    mask = np.arange(200).reshape(100, 2) == 7
    masked = np.ma.masked_array(np.where(mask, -999.0, X), mask)
    with pytest.raises(ValueError, match=r"contains masked entries \(1 in column 1\) in 1 rows \(3\)"):
        sklearn.FlowDensity(**OPTIONS).fit(masked)
    with pytest.warns(UserWarning, match="x: dropped 1 of 100 rows"):
        density = sklearn.FlowDensity(missing="nan", **OPTIONS).fit(masked)
    clean = sklearn.FlowDensity(**OPTIONS).fit(np.delete(X, 3, axis=0))
    with pytest.warns(UserWarning, match="x: dropped 1 of 100 rows"):
        density = sklearn.FlowDensity(missing="masked", **OPTIONS).fit(masked)
    np.testing.assert_array_equal(density.flow_.params, clean.flow_.params)
    assert np.flatnonzero(np.isnan(density.score_samples(masked))).tolist() == [3]
    holes = np.where(mask, np.nan, X)
    for table in (holes, np.ma.masked_array(holes, ~mask & (mask[:, ::-1]))):
        with pytest.raises(ValueError, match=r"X contains .*NaN in 1 rows \(3\)"):
            sklearn.FlowDensity(**OPTIONS).fit(table)
        with pytest.raises(ValueError, match=r"X contains NaN in 1 rows \(3\): clean them, or make the estimator with"):
            sklearn.FlowDensity(missing="masked", **OPTIONS).fit(table)
    np.testing.assert_array_equal(density.flow_.params, clean.flow_.params)
    weights = np.ma.masked_array(np.ones(100), np.arange(100) == 3)
    with pytest.raises(ValueError, match="sample_weight must be finite; entry 3 is not"):
        sklearn.FlowDensity(**OPTIONS).fit(X, sample_weight=weights)
    labels = np.ma.masked_array(np.arange(100) % 2, np.arange(100) == 3)
    with pytest.raises(ValueError, match="y has 1 masked entries; leave these rows out"):
        sklearn.FlowClassifier(**OPTIONS).fit(X, labels)


def test_matrices_are_plain_arrays():
    np.testing.assert_array_equal(sklearn.FlowDensity(**OPTIONS).fit(X.view(np.matrix)).flow_.params, PLAIN.flow_.params)


def test_marks_of_missing_entries_are_not_sought_among_classes():
    x, y = np.where(np.arange(200).reshape(100, 2) == 7, 0.0, X), np.arange(100) % 2
    with pytest.warns(UserWarning, match="x: dropped 1 of 100 rows"):
        sklearn.FlowClassifier(missing=0.0, **OPTIONS).fit(x, y)


def test_text_and_units_that_do_not_convert_are_refused_by_name():
    with pytest.raises(TypeError, match="column 'z' of X must be an array of numbers"):
        sklearn.FlowDensity(**OPTIONS).fit({"z": ["a"] * 100, "i": X[:, 1]})
    units = pytest.importorskip("astropy.units")
    estimator = sklearn.FlowDensity(**OPTIONS).fit(X * units.mag)
    assert estimator.units_ == ["mag", "mag"]
    with pytest.raises(ValueError, match="X has the unit km, which does not convert into that of the flow, mag"):
        estimator.score_samples(X * units.km)


def test_a_path_is_refused_with_how_a_file_is_read():
    for path in ("p.fits", pathlib.Path("p.fits")):
        with pytest.raises(TypeError, match=r"if it is the name of a file, pass npflows.read_table\('p.fits'\)"):
            sklearn.FlowDensity(**OPTIONS).fit(path)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_masked_entries_of_data_frames_are_declared(library):
    module = pytest.importorskip(library)
    a = [None if i == 3 else v for i, v in enumerate(X[:, 0].tolist())]
    frame = {
        "pandas": lambda: module.DataFrame({"a": module.array(a, dtype="Float64"), "b": X[:, 1]}),
        "polars": lambda: module.DataFrame({"a": a, "b": X[:, 1]}),
        "pyarrow": lambda: module.table({"a": a, "b": X[:, 1]}),
    }[library]()
    with pytest.raises(ValueError, match=r"X contains masked entries \(1 in 'a'\) in 1 rows \(3\)"):
        sklearn.FlowDensity(**OPTIONS).fit(frame)
    with pytest.warns(UserWarning, match="x: dropped 1 of 100 rows"):
        density = sklearn.FlowDensity(missing="masked", **OPTIONS).fit(frame)
    assert density.feature_names_in_.tolist() == ["a", "b"]
    assert np.flatnonzero(np.isnan(density.score_samples(frame))).tolist() == [3]


def test_marks_are_compared_in_the_unit_of_the_table():
    with_unit = Table(X, ["a", "b"], ["min", None])
    seconds = Table(X * [60.0, 1.0], ["a", "b"], ["s", None])
    seconds.x[3, 0] = 12.0
    with pytest.warns(UserWarning, match="no entry is 12"):
        density = sklearn.FlowDensity(missing=12.0, **OPTIONS).fit(with_unit)
    assert np.flatnonzero(np.isnan(density.score_samples(seconds))).tolist() == [3]
    assert density.score(seconds) == density.score(Table(np.delete(X, 3, axis=0), ["a", "b"], ["min", None]))
