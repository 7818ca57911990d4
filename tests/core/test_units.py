"""Units: kept with the flow, converted on the way in, given back on the way out, and refused where they do not convert."""

import copy
import pickle

import numpy as np
import pytest

import npflows
from npflows.core.table import Table

X = np.random.default_rng(0).normal([10.0, 3.0], [1.0, 0.5], (200, 2))
OPTIONS = {"max_epochs": 0, "rng": 0}


def flow(**options):
    return npflows.MAF(2, 1, (8,), dtype="float64", rng=0, **options)


def test_units_of_a_table_are_kept_shown_and_saved(tmp_path):
    made = flow().fit(Table(X, ["r", "z"], ["km", None]), **OPTIONS)
    assert (made.columns, made.units) == (["r", "z"], ["km", None])
    assert "columns: r [km], z" in repr(made)
    made.save(tmp_path / "f.npz")
    for same in (npflows.load(tmp_path / "f.npz"), pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert same.units == ["km", None]
        assert same.reset().units is None  # a fit had learned them
    named = flow(columns=["r", "z"])
    named.units = ["km", None]
    assert named.fit(X, **OPTIONS).reset().units == ["km", None]
    for wrong in (["km"], "km", ["a", "b", "c"]):
        with pytest.raises(ValueError, match="units must be 2 units, None for a column without one, got"):
            named.units = wrong


def test_tables_with_units_in_any_order_give_them_to_the_right_columns():
    made = flow(columns=["z", "r"]).fit(Table(X, ["r", "z"], ["km", None]), **OPTIONS)
    assert made.units == [None, "km"]
    np.testing.assert_array_equal(made.log_prob(Table(X, ["r", "z"], ["km", None])), made.log_prob(X[:, ::-1]))


def test_a_table_with_weights_and_condition_is_fitted_with_both():
    weight, c = np.arange(200.0), np.random.default_rng(1).normal(size=(200, 1))
    table = Table(X, ["r", "z"], None, c, ["c"], ["s"], sample_weight=weight)
    conditional = npflows.MAF(2, 1, (8,), condition_dim=1, rng=0)
    options = {"max_epochs": 1, "rng": 0}
    made = copy.deepcopy(conditional).fit(table, **options)
    right = copy.deepcopy(conditional).fit(X, sample_weight=weight, condition=c, **options)
    np.testing.assert_array_equal(made.params, right.params)
    assert (made.condition_columns, made.condition_units, made.effective_rows) == (["c"], ["s"], right.effective_rows)
    unweighted = copy.deepcopy(conditional).fit(table, sample_weight=np.ones(200), **options)
    assert unweighted.effective_rows == 180
    logs = flow().fit(Table(X, log_weight=np.where(weight == 0, -np.inf, np.log(np.maximum(weight, 1)))), **options)
    np.testing.assert_allclose(logs.params, flow().fit(X, sample_weight=weight, **options).params, rtol=1e-12)


def test_estimators_take_the_weights_of_a_table_and_no_condition():
    pytest.importorskip("sklearn")
    from npflows.sklearn import FlowDensity

    estimator = FlowDensity(model="maf", max_epochs=0, random_state=0)
    table = Table(X, ["r", "z"], sample_weight=(X[:, 0] > 10).astype(float))
    np.testing.assert_array_equal(estimator.fit(table).flow_.standardize.loc,
                                  estimator.fit(X, sample_weight=table.sample_weight).flow_.standardize.loc)  # fmt: skip
    assert list(estimator.fit(table).feature_names_in_) == ["r", "z"]
    with pytest.raises(ValueError, match="the estimators take no condition"):
        estimator.fit(Table(X, condition=X))


def test_estimators_keep_units_and_convert_others():
    pytest.importorskip("sklearn")
    u, table = pytest.importorskip("astropy.units"), pytest.importorskip("astropy.table")
    from npflows.sklearn import FlowDensity

    estimator = FlowDensity(model="maf", max_epochs=1, random_state=0).fit(
        table.QTable({"r": X[:, 0] * u.km, "z": X[:, 1]})
    )
    assert estimator.units_ == estimator.flow_.units == ["km", None]
    plain = FlowDensity(model="maf", max_epochs=1, random_state=0).fit(X)
    assert plain.units_ is None
    right = plain.score_samples(X)
    in_meters = table.QTable({"r": X[:, 0] * 1000 * u.m, "z": X[:, 1]})
    np.testing.assert_allclose(estimator.score_samples(in_meters), right, rtol=1e-6)
    np.testing.assert_array_equal(estimator.score_samples(table.Table(X, names=["r", "z"])), right)
    with pytest.raises(ValueError, match="unit s, which does not convert into that of the flow, km"):
        estimator.score_samples(table.QTable({"r": X[:, 0] * u.s, "z": X[:, 1]}))
    with pytest.raises(TypeError, match="has the unit m, and flows take plain numbers"):
        plain.score_samples(in_meters)


def test_quantities_of_astropy_are_converted_or_refused():
    u = pytest.importorskip("astropy.units")
    table = pytest.importorskip("astropy.table")
    made = flow().fit(table.QTable({"r": X[:, 0] * u.km, "z": X[:, 1]}), **OPTIONS)
    assert made.units == ["km", None]
    right = made.log_prob(X)
    for given in (
        table.QTable({"z": X[:, 1], "r": (X[:, 0] * 1000) * u.m}),
        table.Table({"r": (X[:, 0] * 1e5) * u.cm, "z": X[:, 1]}),
        {"r": (X[:, 0] * 1000) * u.m, "z": X[:, 1]},
        Table(X * [1000, 1], ["r", "z"], ["m", None]),
        Table(X, ["r", "z"]),
    ):
        np.testing.assert_allclose(made.log_prob(given), right, rtol=1e-9)
    hidden = table.Table({"r": table.MaskedColumn(X[:, 0] * 1000, mask=X[:, 0] > 11, unit="m"), "z": X[:, 1]})
    np.testing.assert_array_equal(np.isnan(made.log_prob(hidden)), X[:, 0] > 11)
    with pytest.raises(
        ValueError, match="column 'r' of x has the unit s, which does not convert into that of the flow, km"
    ):
        made.log_prob(table.QTable({"r": X[:, 0] * u.s, "z": X[:, 1]}))
    with pytest.raises(TypeError, match=r"column 'z' of x has the unit m, and flows take plain numbers: pass x\['z'\]"):
        made.log_prob(table.QTable({"r": X[:, 0] * u.km, "z": X[:, 1] * u.m}))
    drawn = made.sample(5, 0, as_frame="astropy")
    assert (str(drawn["r"].unit), drawn["z"].unit) == ("km", None)
    whole = flow().fit(X * u.km, **OPTIONS)
    np.testing.assert_allclose(whole.log_prob(X * 1000 * u.m), whole.log_prob(X), rtol=1e-9)
    with pytest.raises(ValueError, match="x has the unit mag, which does not convert into that of the flow, km"):
        whole.log_prob(X * u.mag)


def test_logarithmic_units_convert_as_astropy_does_it():
    u = pytest.importorskip("astropy.units")
    made = flow()
    made.columns, made.units = ["f", "z"], ["Jy", None]
    magnitudes = Table(X + np.array([10, 0]), ["f", "z"], ["mag(AB)", None])
    flux = ((X[:, 0] + 10) * u.ABmag).to_value("Jy")
    np.testing.assert_allclose(made.log_prob(magnitudes), made.log_prob(np.column_stack([flux, X[:, 1]])), rtol=1e-9)


def test_quantities_of_pint_are_converted():
    pint = pytest.importorskip("pint")
    unit = pint.UnitRegistry()
    made = flow()
    made.columns, made.units = ["r", "z"], ["km", None]
    given = {"r": unit.Quantity(X[:, 0] * 1000, "m"), "z": X[:, 1]}
    np.testing.assert_allclose(made.log_prob(given), made.log_prob(X), rtol=1e-9)
    with pytest.raises(ValueError, match="which does not convert into that of the flow, km"):
        made.log_prob({"r": unit.Quantity(X[:, 0], "second"), "z": X[:, 1]})


class Percent(np.ndarray):
    """An array of percent, or of the unit one, as unyt has them: the class itself has no unit."""

    def __array_finalize__(self, other):
        self.units = getattr(other, "units", "%")

    def to_value(self, unit):
        factors = {"%": 1.0, "dimensionless": 100.0, "": 100.0}
        return np.asarray(self) * factors[self.units] / factors[unit]


def test_a_quantity_of_the_unit_one_is_converted_and_a_plain_number_counts_as_the_flows():
    percent = X.view(Percent)
    made = flow().fit(percent, **OPTIONS)
    assert made.units == ["%", "%"]
    one = (X / 100).view(Percent)
    one.units = "dimensionless"
    np.testing.assert_allclose(made.log_prob(one), made.log_prob(percent))
    np.testing.assert_array_equal(made.log_prob(X), made.log_prob(percent))
    assert flow().fit(one, **OPTIONS).units is None
    with pytest.raises(ValueError, match=r"x has the unit one .is dimensionless., which does not convert into that of the"):
        kilometers().log_prob(one)


def kilometers():
    made = flow()
    made.units = ["km", "km"]
    return made


def test_quantities_of_astropy_without_a_dimension_are_converted():
    units, QTable = pytest.importorskip("astropy.units"), pytest.importorskip("astropy.table").QTable
    made = flow().fit(QTable({"a": X[:, 0] * units.percent, "b": X[:, 1] * units.rad}), **OPTIONS)
    percent, one = (QTable({"a": a, "b": [0.5] * units.rad}) for a in ([50.0] * units.percent, [0.5] * units.one))
    np.testing.assert_allclose(made.log_prob(one), made.log_prob(percent))
    with pytest.raises(ValueError, match=r"column 'b' of x has the unit one .is dimensionless., .* of the flow, rad"):
        made.log_prob(QTable({"a": [0.5] * units.one, "b": [0.5] * units.one}))
    made = flow(columns=["a", "b"])
    made.units = ["km", "m"]
    np.testing.assert_allclose(made.log_prob(X * units.m), made.log_prob(X * [1e-3, 1.0]))  # one unit, for columns of two


@pytest.mark.parametrize("library", ["pint", "unyt"])
def test_quantities_of_other_libraries_without_a_dimension_are_converted(library):
    module = pytest.importorskip(library)
    quantity = module.UnitRegistry().Quantity if library == "pint" else module.unyt_array
    made = flow().fit({"a": quantity(X[:, 0], "percent"), "b": quantity(X[:, 1], "km")}, **OPTIONS)
    assert made.units[1] in ("kilometer", "km")
    ours = made.log_prob({"a": quantity(X[:, 0] / 100, "dimensionless"), "b": quantity(X[:, 1] * 1e3, "m")})
    np.testing.assert_allclose(ours, made.log_prob(X))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_marks_are_compared_before_units_are_converted(kind):
    seconds = (X * [60.0, 1.0]).astype(kind)
    seconds[4, 0] = seconds[5, 1] = 12
    seconds[6, 0] = 720  # which is 12 minutes, and no mark
    made, clean = flow(columns=["r", "z"]), flow(columns=["r", "z"])
    for one in (made, clean):
        one.units = ["min", None]
    kept = np.delete(np.arange(len(X)), [4, 5])
    clean.fit(Table(seconds[kept], ["r", "z"], ["s", None]), **OPTIONS)
    for missing in (12, {"r": 12, "z": [12, "nan"]}, [12, "masked"]):
        with pytest.warns(UserWarning, match="x: dropped 2 of 200 rows, which have missing entries"):
            made.reset().fit(Table(seconds, ["r", "z"], ["s", None]), missing=missing, **OPTIONS)
        np.testing.assert_array_equal(made.standardize.loc, clean.standardize.loc)
    with pytest.warns(UserWarning, match="x: 2 entries are missing in 2 of 200 rows"):
        made.reset().fit(Table(seconds, ["r", "z"], ["s", None]), missing=12, on_missing="impute", **OPTIONS)
    with pytest.warns(UserWarning, match="no entry is -1; is it written as the table has it"):
        clean.fit(Table(seconds[kept], ["r", "z"], ["s", None]), missing={"r": -1}, **OPTIONS)


@pytest.mark.filterwarnings("ignore:missing. no entry is 12:UserWarning")
def test_marks_of_what_is_validated_on_are_those_of_its_own_unit():
    made, seconds = flow(columns=["r", "z"]), X[:50] * [60.0, 1.0]
    seconds[4, 0] = 12
    made.units = ["min", None]
    with pytest.warns(UserWarning, match="validation_data: dropped 1 of 50 rows, which have missing entries"):
        made.fit(X[50:], validation_data=Table(seconds, ["r", "z"], ["s", None]), missing=12.0, **OPTIONS)


def test_units_of_a_list_of_rows_are_not_lost():
    rows = [list(row) for row in X[:3].view(Percent)]
    rows[0][0] = X[:1, 0].view(Percent)[..., 0:1].reshape(())
    with pytest.raises(TypeError, match="x has the unit %, and flows take plain numbers"):
        flow().log_prob(rows)


def test_a_row_of_a_table_of_astropy_has_the_units_of_its_columns():
    astropy, masked = pytest.importorskip("astropy.table"), np.ma.masked_array(X[:, 0] * 1e3, np.arange(len(X)) == 1)
    made = flow().fit(Table(X, ["r", "z"], ["km", None]), **OPTIONS)
    for column in (astropy.Column(X[:, 0] * 1e3, unit="m"), astropy.MaskedColumn(masked, unit="m")):
        table = astropy.Table({"r": column, "z": X[:, 1]})
        np.testing.assert_allclose(made.log_prob(table[0]), made.log_prob(X[0]))
        np.testing.assert_allclose(made.log_prob(table)[2:], made.log_prob(X)[2:])
    assert np.isnan(made.log_prob(table[1]))


def test_units_of_xarray_are_those_of_its_attributes():
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("astropy.units")
    made = flow().fit(Table(X, ["r", "z"], ["km", None]), **OPTIONS)
    data = xarray.Dataset({"r": ("n", X[:, 0] * 1e3, {"units": "m"}), "z": ("n", X[:, 1], {"units": "1"})})
    np.testing.assert_allclose(made.log_prob(data), made.log_prob(X))
    assert flow().fit(data, **OPTIONS).units == ["m", None]
    days = np.datetime64("2020-01-01", "ns") + np.arange(len(X)).astype("m8[D]")
    assert (
        flow().fit(xarray.Dataset({"r": ("n", days), "z": ("n", X[:, 1])}), **OPTIONS).units[0] == "days since 2020-01-01"
    )
