"""The command with conditions, weights and supports; `verify` and `plot`."""

import json
import sys

import numpy as np
import pytest
from command_cases import fails

import npflows
from npflows import support
from npflows.cli import main
from npflows.files.tables import Parts, TableError, open_source, read_table, take, write_table
from npflows.training.likelihood import LikelihoodTrainer

NAMES = ["time", "flux", "band, no.", "mass"]
SMALL = ["--epochs", "2", "--hidden", "8", "--layers", "1", "--threads", "1"]
CONDITION = ["--condition", '"band, no.",time']


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal([3.0, -100.0, 0.0, 0.5], [1.0, 20.0, 1.0, 0.1], (120, 4))


@pytest.fixture(scope="module")
def files(rows, tmp_path_factory):
    """A table, and a flow of flux and mass given time and band; one of flux alone; one without a condition."""
    folder = tmp_path_factory.mktemp("flows")
    names = ("table.csv", "flow.npz", "one.npz", "plain.npz", "bare.npy", "bare.npz")
    places = {name: str(folder / name) for name in names}
    write_table(places["table.csv"], rows, NAMES)
    np.save(places["bare.npy"], rows)
    table, more = places["table.csv"], ["--quiet", *SMALL]
    assert main(["fit", table, "-o", places["flow.npz"], *CONDITION, *more]) == 0
    assert main(["fit", table, "-o", places["one.npz"], "--columns", "flux", "--condition", "mass", *more]) == 0
    assert main(["fit", table, "-o", places["plain.npz"], *more]) == 0
    assert main(["fit", places["bare.npy"], "-o", places["bare.npz"], "--condition", "2,0", *more]) == 0
    return places


def test_conditions_go_through_every_command(files, rows, tmp_path, capsys):
    flow, scores, drawn = (str(tmp_path / name) for name in ("flow.npz", "scores.npy", "drawn.csv"))
    assert main(["fit", files["table.csv"], "-o", flow, *CONDITION, *SMALL]) == 0
    said = capsys.readouterr().out
    assert "flux, mass" in said
    assert "band, no., time" in said
    loaded = npflows.load(flow)
    assert (loaded.columns, loaded.condition_columns) == (["flux", "mass"], ["band, no.", "time"])
    x, condition = rows[:, [1, 3]], rows[:, [2, 0]]

    assert main(["score", flow, files["table.csv"], "-o", scores]) == 0
    np.testing.assert_array_equal(np.load(scores), loaded.log_prob(x, condition))
    other = tmp_path / "other.csv"
    write_table(other, rows[:, ::-1], ["mass", "b", "flux", "t"])
    assert main(["score", flow, str(other), "-o", scores, "--condition", "b,3"]) == 0
    np.testing.assert_array_equal(np.load(scores), loaded.log_prob(x, condition))
    assert main(["score", flow, str(other), "-o", scores, "--condition", '"band, no.=1.5", time = -2e0', "--quiet"]) == 0
    np.testing.assert_array_equal(np.load(scores), loaded.log_prob(x, [1.5, -2]))

    assert main(["sample", flow, "-n", "7", "-o", drawn, "--seed", "3", "--condition", 'time=1,"band, no.=2"']) == 0
    samples = read_table(drawn)
    assert samples.columns == ["flux", "mass"]
    np.testing.assert_array_equal(samples.x, loaded.sample(7, 3, condition=[2, 1]))
    assert main(["sample", flow, "-n", "120", "-o", drawn, "--seed", "3", "--condition", files["table.csv"]]) == 0
    np.testing.assert_array_equal(read_table(drawn).x, loaded.sample(120, 3, condition=condition))
    write_table(other, condition[:1], ["band, no.", "time"])
    assert main(["sample", flow, "-n", "5", "-o", drawn, "--seed", "3", "--condition", str(other)]) == 0
    np.testing.assert_array_equal(read_table(drawn).x, loaded.sample(5, 3, condition=condition[0]))

    capsys.readouterr()
    assert main(["info", flow]) == 0
    assert "band, no., time" in capsys.readouterr().out
    assert main(["info", flow, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["condition_dim"], facts["condition_columns"]) == (2, ["band, no.", "time"])


def test_tables_without_names_give_conditions_by_number(files, rows, tmp_path, capsys):
    flow, out = npflows.load(files["bare.npz"]), str(tmp_path / "out.npy")
    assert (flow.columns, flow.condition_columns) == (None, None)
    assert main(["score", files["bare.npz"], files["bare.npy"], "-o", out, "--condition", "2,0"]) == 0
    np.testing.assert_array_equal(np.load(out), flow.log_prob(rows[:, [1, 3]], rows[:, [2, 0]]))
    assert main(["sample", files["bare.npz"], "-n", "4", "-o", out, "--seed", "1", "--condition", "1=5,0=6"]) == 0
    np.testing.assert_array_equal(np.load(out), flow.sample(4, 1, condition=[6, 5]))
    assert main(["info", files["bare.npz"]]) == 0
    assert "2 values, without names" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["maf", "spline", "realnvp", "iaf"])
def test_every_model_takes_conditions_weights_and_supports(model, files, tmp_path, capsys):
    out, where = tmp_path / "flow.npz", tmp_path / "support.json"
    where.write_text('{"flux": {"kind": "interval", "low": -1e3, "high": 1e3}, "1": {"kind": "positive", "lower": -9}}')
    more = ["--condition", "time", "--weights", "2", "--support", str(where), "--model", model, *SMALL]
    table = tmp_path / "table.csv"
    x = np.abs(read_table(files["table.csv"]).x)
    write_table(table, x, NAMES)
    assert main(["fit", str(table), "-o", str(out), *more]) == 0
    said = capsys.readouterr().out.split()
    w = x[:, 2]
    assert float(said[said.index("effective") + 2].rstrip(",")) == pytest.approx(w.sum() ** 2 / (w**2).sum(), abs=0.06)
    flow = npflows.load(out)
    assert (flow.columns, flow.condition_columns) == (["flux", "mass"], ["time"])
    assert [repr(column) for column in flow.support] == ["Interval(low=-1000.0, high=1000.0)", "Positive(lower=-9.0)"]
    assert main(["info", str(out)]) == 0
    assert "Interval(low=-1000.0, high=1000.0)" in capsys.readouterr().out


def test_weights_reach_the_fit(files, rows, tmp_path, capsys):
    table, out = tmp_path / "table.csv", str(tmp_path / "flow.npz")
    x = rows.copy()
    x[:, 3] = np.arange(120) < 60
    write_table(table, x, NAMES)
    assert main(["fit", str(table), "-o", out, "--weights", "mass", "--validation-fraction", "0", *SMALL]) == 0
    assert "60.0, by the weights" in capsys.readouterr().out
    flow = npflows.load(out)
    assert flow.columns == NAMES[:3]
    np.testing.assert_allclose(flow.standardize.loc, x[:60, :3].mean(axis=0))


def test_weights_that_are_missing_are_told_or_dropped(files, rows, tmp_path, capsys):
    table, out = str(tmp_path / "table.csv"), str(tmp_path / "flow.npz")
    x = np.abs(rows)
    x[3, 3], x[5, 0] = np.nan, np.inf
    write_table(table, x, NAMES)
    more = ["fit", table, "-o", out, "--weights", "mass", "--condition", "time", *SMALL]
    said = fails(capsys, *more)
    assert "2 of 120 rows (numbered from 0: 3, 5), columns time, mass" in said
    assert main([*more, "--drop-invalid"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert "npflows: warning: dropped 1 of 120 rows whose weight is missing or infinite" in err
    assert any("x: dropped 1 of 120 rows" in line for line in err)
    x = rows.copy()
    x[7, 3] = -2
    write_table(table, x, NAMES)
    assert "row 7 (numbered from 0): the weight mass is -2, below 0" in fails(capsys, *more)
    write_table(table, rows * [1, 1, 1, 0], NAMES)
    assert "the weights mass are 0 in all rows" in fails(capsys, *more)


def test_circles_choose_what_keeps_them(files, rows, tmp_path, capsys):
    out, where = str(tmp_path / "flow.npz"), tmp_path / "support.json"
    where.write_text('{"time": {"kind": "periodic", "low": 0, "high": 24}, "flux": "real"}')
    more = ["fit", files["table.csv"], "-o", out, "--support", str(where), *SMALL]
    assert "has a periodic column, which only a spline flow can keep: pass --model spline" in fails(capsys, *more)
    assert main([*more, "--model", "spline"]) == 0
    flow = npflows.load(out)
    assert flow.support[0].is_periodic
    drawn = flow.sample(100, rng=0)[:, 0]
    assert ((drawn >= 0) & (drawn < 24)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON (Expecting property name"),
        ("[1]", "must hold an object like"),
        ('{"flx": "real"}', "the flow has no column 'flx'; did you mean 'flux'?"),
        ('{"9": "real"}', "the flow has no column '9'; there are 4, numbered from 0: time, flux"),
        ('{"flux": "real", "1": "real"}', "gives column '1' twice"),
        (
            '{"flux": "half"}',
            "column flux: the kind must be one of real, positive, below, interval, periodic, integer, ordered, simplex, "
            'got "half"',
        ),
        ('{"flux": 3}', "the kind must be one of"),
        ('{"flux": {"kind": ["real"]}}', "the kind must be one of"),
        ('{"flux": "interval"}', "interval takes low, high, got none"),
        ('{"flux": {"kind": "positive", "low": 1}}', "positive takes lower, got low"),
        ('{"flux": {"kind": "real", "low": 1}}', "real takes no arguments, got low"),
        ('{"flux": {"kind": "interval", "low": 2, "high": 1}}', "low must be below high, got 2 and 1"),
        ('{"flux": {"kind": "interval", "low": "a", "high": 1}}', "low must be a finite number, got 'a'"),
        ('{"flux": {"kind": "integer", "low": "a", "high": 1}}', "column flux: "),
        ('{"flux": {"kind": "integer", "low": 0, "high": Infinity}}', "column flux: "),
        ('{"flux": {"kind": "integer", "low": 0, "high": NaN}}', "column flux: "),
        ('{"flux": "ordered"}', "Ordered() is of several columns: name them all, as in \"a, b\", got 'flux'"),
        ('{"flux, tim": "ordered"}', "the flow has no column 'tim'; did you mean 'time'?"),
        ('{"flux, 0": "ordered", "time": "real"}', "gives column 'time' twice"),
        ('{"flux, flux": "ordered"}', "gives column 'flux, flux' twice"),
        ('{"flux,time": {"kind": "simplex", "total": 0}}', "total must be a finite number above 0, got 0"),
        ('{"flux,time": {"kind": "simplex", "total": 1e-9}}', "Simplex(columns=[1, 0], total=1e-09)"),
        ('{"flux": "positive"}', "x has values outside their support"),
    ],
)
def test_a_support_that_does_not_fit_is_told_in_one_line(text, message, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LikelihoodTrainer, "run_round", lambda trainer: pytest.fail("trained before it was found out"))
    where = tmp_path / "support.json"
    where.write_text(text)
    out = str(tmp_path / "flow.npz")
    said = fails(capsys, "fit", files["table.csv"], "-o", out, "--support", str(where), *SMALL)
    assert message in said
    assert [path.name for path in tmp_path.iterdir()] == ["support.json"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "{table.csv}", "-o", "{out}", "--condition", "tim"], "no column 'tim'; did you mean 'time'?"),
        (["fit", "{table.csv}", "-o", "{out}", "--condition", "time,0"], "asked for twice: 'time'"),
        (["fit", "{table.csv}", "-o", "{out}", "--condition", "time", "--columns", "mass,time"], "asked for twice: 'time'"),
        (["fit", "{table.csv}", "-o", "{out}", "--condition", "time", "--weights", "time"], "asked for twice: 'time'"),
        (["fit", "{table.csv}", "-o", "{out}", "--condition", "0,1,2,3"], "has no columns beside 0, 1, 2, 3"),
        (["fit", "{bare.npy}", "-o", "{out}", "--condition", "time"], "there are 4, numbered from 0, without names"),
        (["fit", "{bare.npy}", "-o", "{out}", "--condition", "0", "--weights", "0"], "asked for twice: 0"),
        (["fit", "{table.csv}", "-o", "{out}", "--condition", ""], "--condition: expected names or numbers"),
        (["fit", "{table.csv}", "-o", "{out}", "--weights", "w"], "has no column 'w'"),
        (["fit", "{table.csv}", "-o", "{out}", "--support", "{missing}"], "missing.csv: No such file"),
        (["fit", "{table.csv}", "-o", "{table.csv}.npz", "--support", "{table.csv}"], "is not JSON"),
        (["score", "{flow.npz}", "{narrow}"], "has no column 'band, no.'"),
        (["score", "{flow.npz}", "{bare.npy}"], "the flow needs a condition (band, no., time), "),
        (["score", "{flow.npz}", "{table.csv}", "--condition", "time"], "gives 1 columns for it; say which"),
        (["score", "{flow.npz}", "{table.csv}", "--condition", "time=1"], "--condition lacks band, no."),
        (["score", "{flow.npz}", "{table.csv}", "--condition", "time=x"], "expected name=value,... with finite numbers"),
        (["score", "{flow.npz}", "{table.csv}", "--condition", "time=1,b"], "expected name=value,..."),
        (["score", "{flow.npz}", "{table.csv}", "--condition", "time=1,time=2"], "'time' is given twice"),
        (["score", "{plain.npz}", "{table.csv}", "--condition", "time"], "takes no condition: leave out --condition"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{out}"], "needs a condition (band, no., time): --condition name=value"),
        (["sample", "{bare.npz}", "-n", "3", "-o", "{out}"], "needs a condition (2 values, without names)"),
        (["sample", "{bare.npz}", "-n", "3", "-o", "{out}", "--condition", "a=1"], "has no value 'a'; there are 2"),
        (["sample", "{plain.npz}", "-n", "3", "-o", "{out}", "--condition", "a=1"], "takes no condition"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{out}", "--condition", "tme=1"], "no value 'tme'; did you mean 'time'"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{out}", "--condition", "time=1,1=2"], "time is given twice"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{out}", "--condition", "time=nan"], "finite numbers, got 'time=nan'"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{out}", "--condition", "{missing}"], "missing.csv: No such file"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{out}", "--condition", "{table.csv}"], "expected 1, or one for each"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{out}", "--condition", "{bare.npy}"], "has 4 columns, the flow's"),
        (["sample", "{flow.npz}", "-n", "3", "-o", "{narrow}", "--condition", "{narrow}"], "would overwrite the input"),
        (["verify", "{flow.npz}", "{missing}"], "missing.csv: No such file"),
        (["verify", "{flow.npz}", "{table.csv}", "--rows", "0"], "a whole number of at least 1"),
        (["verify", "{plain.npz}", "{narrow}"], "has no column 'time'"),
        (["plot", "{flow.npz}", "-o", "{out}"], "a picture's suffix is .png, .pdf or .svg"),
        (["plot", "{missing}", "-o", "{out}.png"], "missing.csv: No such file"),
        (["plot", "{flow.npz}", "-o", "{nowhere}.png"], "can't write"),
        (["plot", "{flow.npz}", "-o", "{out}.png", "--kind", "pie"], "invalid choice: 'pie'"),
        (["plot", "{flow.npz}", "-o", "{out}.png", "--kind", "latent"], "--kind latent needs a TABLE"),
        (["plot", "{plain.npz}", "-o", "{out}.png", "--weights", "mass"], "--weights needs a TABLE"),
        (["plot", "{flow.npz}", "{table.csv}", "-o", "{out}.png", "--kind", "training"], "leave out the table"),
        (["plot", "{flow.npz}", "-o", "{out}.png"], "say for which condition: --condition name=value,..."),
        (["plot", "{flow.npz}", "{table.csv}", "-o", "{out}.png", "--kind", "density"], "say for which condition"),
        (["plot", "{plain.npz}", "-o", "{out}.png", "--condition", "a=1"], "takes no condition"),
        (["plot", "{plain.npz}", "-o", "{out}.png", "--kind", "density"], "this one has 4: --kind corner"),
        (["plot", "{flow.npz}", "{empty}", "-o", "{out}.png"], "has no row to draw"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(argv, message, files, rows, tmp_path, capsys, monkeypatch):
    if argv[0] == "plot":
        pytest.importorskip("matplotlib")
    if argv[0] == "verify":
        pytest.importorskip("npflows.verify")
    monkeypatch.setattr(LikelihoodTrainer, "run_round", lambda trainer: pytest.fail("trained before it was found out"))
    places = {
        **files,
        "out": tmp_path / "out.npz",
        "missing": tmp_path / "missing.csv",
        "nowhere": tmp_path / "no" / "where",
        "narrow": tmp_path / "narrow.csv",
        "empty": tmp_path / "empty.csv",
    }
    write_table(places["narrow"], rows[:, [1, 3]], ["flux", "mass"])
    write_table(places["empty"], rows[:0], NAMES)
    before = sorted(path.name for path in tmp_path.iterdir())
    for name, place in places.items():
        argv = [part.replace(f"{{{name}}}", str(place)) for part in argv]
    assert message in fails(capsys, *argv)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_columns_beside_the_others_are_read_in_every_format(rows, tmp_path):
    for suffix in ("csv", "npy", "npz"):
        path = tmp_path / f"t.{suffix}"
        write_table(path, rows, NAMES)
        read = read_table(path, condition=["3", "0"])
        np.testing.assert_array_equal(read.x, rows[:, 1:3])
        np.testing.assert_array_equal(read.condition, rows[:, [3, 0]])
        assert read.condition_columns == (None if suffix == "npy" else ["mass", "time"])
        assert read_table(path).condition is None
        read = take(open_source(path), Parts(["1"], ["2"], expected_condition=["mass"]))
        np.testing.assert_array_equal(read.condition, rows[:, [2] if suffix == "npy" else [3, 2]])
    path = tmp_path / "t.csv"
    path.write_text("id,a,b\nx,1,2\n")
    assert read_table(path, ["b"], condition=["a"]).condition.tolist() == [[1.0]]
    with pytest.raises(TableError, match="'x' is not a number"):
        read_table(path, condition=["a"])


def test_names_of_conditions_belong_to_the_flow(tmp_path):
    flow = npflows.MAF(1, num_layers=1, hidden_dims=(4,), condition_dim=2, rng=0)
    assert flow.condition_columns is None
    flow.condition_columns = ("a", 3)
    assert flow.condition_columns == ["a", "3"]
    flow.save(tmp_path / "flow.npz")
    assert npflows.load(tmp_path / "flow.npz").condition_columns == ["a", "3"]
    with pytest.raises(ValueError, match="must be 2 names"):
        flow.condition_columns = ["a"]
    with pytest.raises(ValueError, match="condition_columns must be None"):
        npflows.MAF(1, num_layers=1, hidden_dims=(4,), rng=0).condition_columns = ["a"]


@pytest.mark.parametrize("change", ["missing", "wrong"])
def test_files_of_before_have_no_names_of_conditions(change, files, tmp_path):
    with np.load(files["flow.npz"]) as content:
        arrays = dict(content)
    about = json.loads(str(arrays["about"]))
    del about["condition_columns"], about["checksum"], arrays["checksum"]  # which files of before lack too
    if change == "wrong":
        about["condition_columns"] = ["a"]
    np.savez(tmp_path / "old.npz", **{**arrays, "about": np.array(json.dumps(about))})
    if change == "missing":
        assert npflows.load(tmp_path / "old.npz").condition_columns is None
    else:
        with pytest.raises(npflows.FlowFileError, match=r"condition_columns are \['a'\], expected 2 names"):
            npflows.load(tmp_path / "old.npz")


def test_info_of_a_flow_that_was_fitted_to_a_density(tmp_path, capsys):
    flow = npflows.MAF(1, num_layers=1, hidden_dims=(4,), rng=0)
    flow.history = {"round": [1, 2], "step": [50, 100], "elbo": [-3.0, -2.0], "validation_elbo": [float("nan"), -2.5],
                    "ess": [0.1, 0.5], "tempering": [0.5, 1.0], "seconds": [0.1, 0.1]}  # fmt: skip
    flow.save(tmp_path / "flow.npz")
    assert main(["info", str(tmp_path / "flow.npz")]) == 0
    said = capsys.readouterr().out
    assert "evidence lower bound  -2.5000" in said
    assert "100" in said


@pytest.fixture
def right(files, rows, tmp_path):
    """A flow in float64 with nothing to find wrong."""
    flow = npflows.MAF(2, num_layers=1, hidden_dims=(4,), condition_dim=1, columns=["flux", "mass"], dtype="float64", rng=0)
    flow.fit(rows[:, [1, 3]], condition=rows[:, :1], max_epochs=1, rng=0, progress=False)
    flow.condition_columns = ["time"]
    path = str(tmp_path / "right.npz")
    flow.save(path)
    return path


def test_verify_prints_the_report_and_tells_by_its_status(right, files, capsys, monkeypatch):
    verify = pytest.importorskip("npflows.verify")
    assert main(["verify", right, files["table.csv"], "--rows", "50"]) == 0
    out, err = capsys.readouterr()
    assert "integral" in out
    assert "pass" in out
    assert err == ""
    assert main(["verify", right, files["table.csv"], "--rows", "20", "--condition", "time=3", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert verify.VerificationReport.from_dict(facts).passed
    check = verify.Check("finite", 3.0, 0.0, "FAIL")
    monkeypatch.setattr(
        "npflows.cli.using.verify_flow", lambda *_, **__: verify.VerificationReport("a", "b", "c", (check,))
    )
    assert main(["verify", right, files["table.csv"]]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main(["verify", right, files["table.csv"], "--quiet"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["plain.npz"],
        ["plain.npz", "table.csv", "--weights", "0"],
        ["plain.npz", "table.csv", "-n", "50"],
        ["flow.npz", "table.csv"],
        ["flow.npz", "table.csv", "--weights", "positive", "-n", "300"],
        ["flow.npz", "--condition", '"band, no.=0",time=3'],
        ["flow.npz", "--kind", "training"],
        ["one.npz", "table.csv", "--kind", "density", "--condition", "mass=0.5"],
        ["one.npz", "--kind", "density", "--condition", "0=0.5"],
        ["flow.npz", "table.csv", "--kind", "density", "--condition", '"band, no.=0",time=3'],
        ["flow.npz", "table.csv", "--kind", "latent"],
        ["flow.npz", "table.csv", "--kind", "calibration", "--weights", "positive"],
    ],
)
def test_plot_draws_every_kind(argv, files, rows, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    if "latent" in argv or "calibration" in argv:
        pytest.importorskip("npflows.diagnostics")
    table, out = tmp_path / "table.csv", tmp_path / "out.png"
    x = np.column_stack([rows, np.abs(rows[:, 0])])
    x[4, 1] = np.nan
    if "--weights" in argv and argv[argv.index("--weights") + 1] == "0":
        argv = ["positive" if part == "0" else part for part in argv]
    write_table(table, x, [*NAMES, "positive"])
    places = {**files, "table.csv": str(table)}
    assert main(["plot", *(places.get(part, part) for part in argv), "-o", str(out)]) == 0
    assert capsys.readouterr() == (f"drawn in {out}\n", "")
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_plot_without_matplotlib_names_the_remedy(files, tmp_path, capsys, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    said = fails(capsys, "plot", files["plain.npz"], "-o", str(tmp_path / "out.png"))
    assert "pip install 'npflows[plot]'" in said


def test_the_kinds_of_a_support_file_are_those_of_the_library():
    from npflows.cli.inputs import KINDS

    assert set(KINDS) == {name for name in support.__all__ if name[0].islower()} - {"infer"}


def test_marks_of_missing_entries_in_the_condition(rows, tmp_path, capsys):
    marked = rows.copy()
    marked[:7, 0] = 99.0
    table, right, flow = (str(tmp_path / name) for name in ("table.csv", "right.npz", "flow.npz"))
    write_table(table, rows[7:], NAMES)
    assert main(["fit", table, "-o", right, *CONDITION, "--quiet", *SMALL]) == 0
    write_table(table, marked, NAMES)
    for missing in ("99", "time=99", "time=99,flux=-1"):
        assert main(["fit", table, "-o", flow, *CONDITION, "--missing", missing, "--quiet", *SMALL]) == 0
        assert "condition: dropped 7 of 120 rows, which have missing entries" in capsys.readouterr().err
        np.testing.assert_array_equal(npflows.load(flow).params, npflows.load(right).params)
    marked[:7, 0] = np.nan
    write_table(table, marked, NAMES)
    assert main(["fit", table, "-o", flow, *CONDITION, "--missing", "nan", "--quiet", *SMALL]) == 0
    capsys.readouterr()
    message = fails(capsys, "fit", table, "-o", flow, *CONDITION, "--missing", "nan", "--on-missing", "impute", *SMALL)
    assert "fills in entries of x alone" in message
