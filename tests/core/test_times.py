"""Times: with a unit and an epoch that the flow keeps and checks, and given back by samples."""

import datetime

import numpy as np
import pytest

import npflows
from npflows.core.times import Times, between, in_unit, instants, since, times_of, unit_for
from npflows.files.tables import read_table, stream_table, write_table

HOURS = np.arange(200)
T = np.datetime64("2020-01-01T12:00", "us") + HOURS * np.timedelta64(3600, "s")
A = np.random.default_rng(0).normal(size=200)
DAYS = 0.5 + HOURS / 24
OPTIONS = {"max_epochs": 0, "rng": 0}


def flow(**options):
    return npflows.MAF(2, 1, (8,), dtype="float64", rng=0, **options)


@pytest.mark.parametrize("step", ["ns", "us", "ms", "s", "m", "h"])
def test_instants_are_days_since_the_day_of_the_first_one(step):
    times = times_of(T.astype(f"M8[{step}]"))
    assert unit_for(times) == "days since 2020-01-01"
    np.testing.assert_allclose(in_unit(times, unit_for(times)), DAYS, rtol=1e-15)
    np.testing.assert_array_equal(instants(DAYS, "days since 2020-01-01").values, T)


def test_what_no_instant_is_stays_unknown():
    values = T.copy()
    values[3] = np.datetime64("NaT")
    for given in (values, np.ma.masked_array(T, HOURS == 3), [*T[:3].tolist(), None, *T[4:].tolist()]):
        numbers = in_unit(times_of(given), "days since 2020-01-01")
        assert np.flatnonzero(np.isnan(numbers)).tolist() == [3]
    assert np.isnat(instants(np.array([1.0, np.nan, np.inf]), "s since 2020-01-01").values).tolist() == [False, True, True]
    assert unit_for(Times(np.full(3, np.datetime64("NaT", "s")))) == "days since 2000-01-01"


def test_python_and_numpy_objects_are_instants_and_mixtures_are_none():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    utc = datetime.timezone.utc
    aware = [datetime.datetime(2020, 1, 1, 14, tzinfo=zone), datetime.datetime(2020, 1, 1, 12, tzinfo=utc)]
    found = times_of(aware)
    assert found.zone == "UTC"
    np.testing.assert_array_equal(found.values, np.datetime64("2020-01-01T12:00"))
    assert times_of(np.array([aware[0], 1.0], object)) is None
    assert times_of([aware[0], datetime.datetime(2020, 1, 1)]) is None  # one has a time zone, the other none
    assert times_of(np.array([datetime.date(2020, 1, 1), datetime.timedelta(1)], object)) is None
    assert times_of(["2020-01-01"]) is None
    assert unit_for(times_of(datetime.timedelta(days=2))) == "s"


@pytest.mark.parametrize(
    ("unit", "epoch", "seconds", "zone"),
    [
        ("days since 2020-01-01", "2020-01-01", 86400, ""),
        ("seconds since 1992-10-8 15:15:42.5 -6:00", "1992-10-08T21:15:42.5", 1, "UTC"),  # an example of CF's
        ("hours since 1900-01-01 00:00:00Z", "1900-01-01", 3600, "UTC"),
        ("ms since 2020-01-01T06:30 UTC", "2020-01-01T06:30", 1e-3, "UTC"),
    ],
)
def test_units_with_an_epoch(unit, epoch, seconds, zone):
    assert since(unit) == (seconds, np.datetime64(epoch), zone)


def test_units_without_one():
    for unit in ("days", "km since 2020-01-01", "days since yesterday", "days since 2020-02-30", "", None):
        assert since(unit) is None


def test_no_digit_is_lost_near_the_epoch():
    times = np.datetime64("2026-03-01T00:00:00.123456789") + np.arange(1000) * np.timedelta64(937, "ns")
    unit = unit_for(Times(times))
    np.testing.assert_array_equal(instants(in_unit(Times(times), unit), unit).values, times)
    old = np.array(["0001-01-01", "9999-12-31T23:59:59"], "M8[s]")  # nanoseconds have no room for these
    unit = "days since 2000-01-01"
    assert (np.abs(instants(in_unit(Times(old), unit), unit).values - old) < np.timedelta64(100, "us")).all()
    np.testing.assert_allclose(between([0.0, 24.0], "hours since 2020-01-01", "days since 2019-12-31"), [1, 2], rtol=0)
    assert between([0.0], "s since 2020-01-01", "s since 2020-01-01 UTC") is None


def test_a_flow_keeps_the_epoch_and_checks_it(tmp_path):
    made = flow().fit({"t": T, "a": A}, **OPTIONS)
    assert made.units == ["days since 2020-01-01", None]
    assert "t [days since 2020-01-01]" in repr(made)
    right = made.log_prob({"a": A, "t": T})
    np.testing.assert_allclose(right, made.log_prob(np.column_stack([DAYS, A])), rtol=1e-14)
    for same in (T.astype("M8[ns]"), T.astype("M8[ms]"), T.astype(object)):  # days since 1970 or 2020 in any of them
        np.testing.assert_array_equal(made.log_prob({"a": A, "t": same}), right)
    made.save(tmp_path / "f.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "f.npz").log_prob({"a": A, "t": T}), right)
    later = {"t": T + np.timedelta64(1, "D"), "a": A}
    np.testing.assert_allclose(made.log_prob(later), made.log_prob(np.column_stack([DAYS + 1, A])), rtol=1e-14)
    with pytest.raises(ValueError, match="column 't' of x has durations, which do not convert into the unit of the flow"):
        made.log_prob({"t": T - T[0], "a": A})
    aware = [value.replace(tzinfo=datetime.timezone.utc) for value in T.tolist()]
    with pytest.raises(ValueError, match=r"'t' of x has times of a time zone, and the flow's, .* are times without one"):
        made.log_prob({"t": aware, "a": A})
    with pytest.raises(TypeError, match=r"column 'a' of x holds dates or times .*, and numbers are taken here"):
        made.log_prob({"t": T, "a": T})


def test_durations_are_seconds_unless_the_flow_says_otherwise():
    table = {"t": T - T[0], "a": A}
    made = flow().fit(table, **OPTIONS)
    assert made.units == ["s", None]
    np.testing.assert_array_equal(made.log_prob(table), made.log_prob(np.column_stack([HOURS * 3600.0, A])))
    made.units = ["h", None]
    np.testing.assert_array_equal(made.log_prob(table), made.log_prob(np.column_stack([HOURS, A])))


def test_an_array_of_instants_alone_and_conditions():
    made = npflows.MAF(1, 1, (8,), rng=0).fit(T[:, None], **OPTIONS)
    assert made.units == ["days since 2020-01-01"]
    np.testing.assert_allclose(made.log_prob(T[:, None]), made.log_prob(DAYS[:, None]), rtol=1e-12)
    given = npflows.MAF(1, 1, (8,), condition_dim=1, rng=0).fit({"a": A}, condition={"t": T}, **OPTIONS)
    assert given.condition_units == ["days since 2020-01-01"]
    drawn = given.sample(3, 0, condition={"t": T[:3]})
    np.testing.assert_allclose(drawn, given.sample(3, 0, condition=DAYS[:3, None]), rtol=1e-6)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "astropy"])
@pytest.mark.parametrize("zone", ["", " UTC"])
def test_samples_are_instants_again(kind, zone):
    pytest.importorskip(kind)
    made = flow(columns=["t", "a"])
    made.units = [f"days since 2020-01-01{zone}", None]
    made.fit(np.column_stack([DAYS, A]), **OPTIONS)
    drawn = made.sample(20, 0, as_frame=kind)
    again = flow().fit(drawn, **OPTIONS)
    assert again.units[0].startswith("days since 20")
    assert again.units[0].endswith("UTC") == bool(zone)
    np.testing.assert_allclose(made.log_prob(drawn), made.log_prob(made.sample(20, 0)), rtol=1e-9)


def test_text_holds_instants_in_columns_of_their_own(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, np.column_stack([DAYS, A]), ["t", "a"], ["days since 2020-01-01 UTC", None])
    assert path.read_text().splitlines()[1].startswith("2020-01-01T12:00:00.000000000Z,")
    table = read_table(path)
    assert table.units == ["days since 2020-01-01 UTC", None]
    np.testing.assert_allclose(table.x, np.column_stack([DAYS, A]), rtol=1e-15)
    assert len(read_table(path, where="t >= '2020-01-02' and a > 0")) == (A[12:] > 0).sum()
    with pytest.raises(npflows.TableError, match="compares times with numbers: write an instant in quotes"):
        read_table(path, where="t > 3")
    path.write_text("t,a\n2020-01-01 03:00,1\n,2\n2020-01-02T03:00:00,3\n")
    np.testing.assert_array_equal(read_table(path).x, [[0.125, 1], [np.nan, 2], [1.125, 3]])
    path.write_text("2020-01-01,1\n2020-01-02,2\n")  # no header
    np.testing.assert_array_equal(read_table(path).x, [[0, 1], [1, 2]])
    for text, sentence in (
        ("t\n2020-01-01\n3\n", "column t holds numbers as well as instants"),
        ("t\n2020-01-01\n2020-01-01Z\n", "column t holds instants with a time zone and others without one"),
        ("t\n2020-02-30\n", "line 2, column t: '2020-02-30' is not a number"),
    ):
        path.write_text(text)
        with pytest.raises(npflows.TableError, match=sentence):
            read_table(path)


def test_pieces_of_a_stream_have_one_epoch(tmp_path):
    dtype = [("t", "M8[us]"), ("a", "f8")]
    rows = np.empty(200_000, dtype)
    rows["t"], rows["a"] = T[0] + np.arange(200_000) * np.timedelta64(60, "s"), np.arange(200_000)
    np.save(tmp_path / "t.npy", rows[::-1].copy())
    stream = stream_table(tmp_path / "t.npy")
    last = stream.read(3)
    assert stream.read(0).units == last.units
    minutes = (rows["t"][::-1] - since(last.units[0]).epoch) / np.timedelta64(60, "s")
    np.testing.assert_allclose(stream.table().x[:, 0] * 1440, minutes, rtol=0, atol=1e-6)
