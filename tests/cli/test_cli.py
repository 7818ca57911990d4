"""The command `npflows`: what each command does with a table, and one clear line for whatever is wrong."""

import json
import sys

import numpy as np
import pytest
from command_cases import fails

import npflows
from npflows.cli import main
from npflows.files.tables import read_table, write_table
from npflows.training.likelihood import LikelihoodTrainer

NAMES = ["mass", "radius, km", "age"]
SMALL = ["--epochs", "2", "--hidden", "8", "--layers", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal([3.0, -100.0, 0.001], [1.0, 20.0, 1e-5], (120, 3))


@pytest.fixture
def table(rows, tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, rows, NAMES)
    return str(path)


@pytest.fixture(scope="module")
def flow_file(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "flow.npz"
    table = path.with_name("table.csv")
    write_table(table, rows, NAMES)
    assert main(["fit", str(table), "-o", str(path), "--quiet", *SMALL]) == 0
    return str(path)


def test_a_table_goes_through_every_command(table, rows, tmp_path, capsys):
    flow, scores, drawn = (str(tmp_path / name) for name in ("flow.npz", "scores.csv", "drawn.csv"))
    assert main(["fit", table, "-o", flow, *SMALL]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in ("120", "mass, radius, km, age", "MAF", "held-out log-likelihood", flow))
    assert npflows.load(flow).columns == NAMES

    assert main(["score", flow, table, "-o", scores]) == 0
    said = capsys.readouterr().out
    assert "mean log_prob" in said
    log_prob = read_table(scores)
    assert log_prob.columns == ["log_prob"]
    np.testing.assert_array_equal(log_prob.x[:, 0], npflows.load(flow).log_prob(rows))

    assert main(["sample", flow, "-n", "7", "-o", drawn, "--seed", "3"]) == 0
    samples = read_table(drawn)
    assert samples.columns == NAMES
    np.testing.assert_array_equal(samples.x, npflows.load(flow).sample(7, rng=3))

    capsys.readouterr()
    assert main(["info", flow]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in ("MAF", "radius, km", "-100", "format 1", npflows.__version__))
    assert main(["info", flow, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["columns"], facts["input_dim"]) == ("MAF", NAMES, 3)
    assert len(facts["history"]["train_loss"]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,four\n", "line 3, column b: 'four' is not a number"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, the header has 2"),
        ("a,a\n3,4\n", "more than one column named 'a'"),
        ("", "is empty"),
        ("a,b\n", "no rows"),
    ],
)
def test_a_csv_that_is_no_table_is_told_by_line_and_column(text, message, tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert message in fails(capsys, "fit", str(path), "-o", str(tmp_path / "flow.npz"))


def test_arrays_that_are_no_tables_are_refused(tmp_path, capsys, flow_file, rows):
    out = str(tmp_path / "flow.npz")
    path = tmp_path / "t.npy"
    np.save(path, rows[:, 0])
    assert "shape (rows, columns), got shape (120,)" in fails(capsys, "fit", str(path), "-o", out)
    np.save(path, np.array([["a", "b"]]))
    assert "must hold numbers" in fails(capsys, "fit", str(path), "-o", out)
    path.write_bytes(b"\x93NUMPY\x01")
    assert "can't be read" in fails(capsys, "fit", str(path), "-o", out)
    path = tmp_path / "t.npz"
    np.savez(path, a=rows, b=rows)
    assert "several 2-D arrays (a, b)" in fails(capsys, "fit", str(path), "-o", out)
    np.savez(path, x=rows, columns=np.array(["a"]))
    assert "names 1 columns, but has 3" in fails(capsys, "fit", str(path), "-o", out)
    np.savez(path, a=rows[:, 0], b=rows[:5, 0])
    assert "differ in length" in fails(capsys, "fit", str(path), "-o", out)
    np.savez(path, a=rows[:, 0], b=np.array(["x"] * 120))
    assert "column 'b' of" in fails(capsys, "fit", str(path), "-o", out)
    path.write_bytes(b"PK\x03\x04 cut off")
    assert "not a complete .npz" in fails(capsys, "fit", str(path), "-o", out)
    assert "holds a flow, not a table" in fails(capsys, "score", flow_file, flow_file)


def test_parquet_without_pyarrow_names_the_remedy(tmp_path, capsys, monkeypatch, flow_file):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "t.parquet"
    assert "pip install pyarrow" in fails(capsys, "sample", flow_file, "-n", "3", "-o", str(path))
    path.write_bytes(b"PAR1")
    assert "pip install pyarrow" in fails(capsys, "fit", str(path), "-o", str(tmp_path / "flow.npz"))


@pytest.mark.parametrize("model", ["maf", "spline", "realnvp", "iaf"])
def test_options_reach_the_flow(model, table, tmp_path):
    out = tmp_path / "flow.npz"
    columns = ["--columns", 'age, "radius, km"']
    more = ["--base", "student_t", "--dtype", "float64", "--activation", "tanh", "--validation-fraction", "0.5"]
    assert main(["fit", table, "-o", str(out), "--model", model, *columns, *more, *SMALL]) == 0
    flow = npflows.load(out)
    assert type(flow).__name__.lower() == ("neuralsplineflow" if model == "spline" else model)
    assert flow.columns == ["age", "radius, km"]
    assert flow.dtype == np.float64
    assert type(flow.base).__name__ == "StudentT"
    assert flow.arguments["activation"] == "tanh"
    assert len(flow.flow_layers) == (5 if model == "spline" else 2)  # with what mixes the values, and affine ends


def test_the_same_command_gives_the_same_flow(table, tmp_path):
    a, b, c = (str(tmp_path / f"{name}.npz") for name in "abc")
    assert main(["fit", table, "-o", a, *SMALL]) == main(["fit", table, "-o", b, *SMALL]) == 0
    assert main(["fit", table, "-o", c, "--seed", "1", *SMALL]) == 0
    params = [npflows.load(path).params for path in (a, b, c)]
    assert params[0].tobytes() == params[1].tobytes()
    assert params[0].tobytes() != params[2].tobytes()


def test_scoring_takes_columns_by_name_whatever_their_order(flow_file, rows, tmp_path):
    want = npflows.load(flow_file).log_prob(rows)
    mixed, bare, out = tmp_path / "mixed.csv", tmp_path / "bare.npy", tmp_path / "out.npy"
    write_table(mixed, np.column_stack([rows[:, 2], rows[:, 0] * 0, rows[:, :2]]), ["age", "extra", *NAMES[:2]])
    assert main(["score", flow_file, str(mixed), "-o", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out), want)
    np.save(bare, rows)
    assert main(["score", flow_file, str(bare), "-o", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out), want)
    np.save(bare, rows[:, ::-1])
    assert main(["score", flow_file, str(bare), "-o", str(out), "--columns", "2,1,0", "--quiet"]) == 0
    np.testing.assert_array_equal(np.load(out), want)


def test_a_table_without_names_gives_a_flow_without(rows, tmp_path, capsys):
    table, flow, out = (str(tmp_path / name) for name in ("t.npy", "flow.npz", "out.csv"))
    np.save(table, rows.astype(np.float32))
    assert main(["fit", table, "-o", flow, "--columns", "1,2", *SMALL]) == 0
    assert npflows.load(flow).columns is None
    assert main(["info", flow]) == main(["sample", flow, "-n", "2", "-o", out]) == 0
    assert read_table(out).columns == ["x0", "x1"]
    assert "without names" in capsys.readouterr().out


def test_missing_values_are_named_or_dropped_and_score_nan(rows, tmp_path, capsys, flow_file):
    table, flow, out = (str(tmp_path / name) for name in ("t.csv", "flow.npz", "out.npz"))
    x = rows.copy()
    x[5, 1], x[9, 0] = np.nan, np.inf
    write_table(table, x, NAMES)
    said = fails(capsys, "fit", table, "-o", flow, *SMALL)
    assert "2 of 120 rows" in said
    assert "5, 9" in said
    assert "columns mass, radius, km" in said
    assert "--drop-invalid or declare them: --missing nan" in said
    assert main(["fit", table, "-o", flow, "--drop-invalid", *SMALL]) == 0
    assert "npflows: warning: x: dropped 2 of 120 rows" in capsys.readouterr().err
    assert main(["score", flow_file, table, "-o", out]) == 0
    log_prob = read_table(out).x[:, 0]
    assert np.isnan(log_prob[5])
    assert log_prob[9] == -np.inf
    assert np.isfinite(log_prob).sum() == 118
    said = capsys.readouterr().out.split()
    assert said[said.index("-inf") + 1] == said[said.index("NaN") + 1] == "1"


def test_what_is_missing_is_declared_for_all_columns_or_for_some(rows, tmp_path, capsys):
    table, flow = str(tmp_path / "t.csv"), str(tmp_path / "flow.npz")
    x = rows.copy()
    x[3, 1], x[5, 1], x[9, 0] = 99.0, np.nan, 99.0
    write_table(table, x, NAMES)
    fit = ["fit", table, "-o", flow, *SMALL]
    for given, n in (["99,nan"], 3), (['mass=99,"radius, km=99","radius, km=nan"'], 3), (["1=99,1=nan"], 2):
        assert main([*fit, "--missing", *given]) == 0
        assert f"npflows: warning: x: dropped {n} of 120 rows, which have missing entries" in capsys.readouterr().err
    assert main([*fit, "--missing", "99,nan", "--on-missing", "impute"]) == 0
    assert "3 entries are missing in 3 of 120 rows" in capsys.readouterr().err
    filled = npflows.load(flow).params
    direct = npflows.MAF(3, 1, (8,), columns=NAMES, rng=0)
    with pytest.warns(UserWarning, match="3 entries are missing"):
        direct.fit(x, missing=[99.0, "nan"], on_missing="impute", max_epochs=2, rng=0, progress=False)
    np.testing.assert_array_equal(filled, direct.params)
    x[3, 1], x[9, 0] = -99.0, -99.0
    write_table(table, x, NAMES)
    assert "1 of 120 rows (numbered from 0: 5), columns radius, km" in fails(capsys, *fit, "--missing=-99")
    assert main([*fit, "--missing=-99,nan", "--quiet"]) == 0


def test_masked_and_empty_fields_are_told_from_nan(tmp_path, capsys):
    table, flow = tmp_path / "t.csv", str(tmp_path / "flow.npz")
    lines = [f"{i},{i * i % 7}" for i in range(40)]
    lines[3], lines[5], lines[9] = ",1.5", "2,NA", "null,2.5"
    table.write_text("\n".join(["a,b", *lines]))
    fit = ["fit", str(table), "-o", flow, *SMALL]
    said = fails(capsys, *fit)
    assert "in 3 of 40 rows (numbered from 0: 3, 5, 9), columns a, b, masked or empty: 2 in 'a', 1 in 'b'; clean" in said
    assert main([*fit, "--missing", "masked"]) == 0
    assert "x: dropped 3 of 40 rows, which have missing entries" in capsys.readouterr().err
    assert main([*fit, "--missing", "a=masked,b=masked,b=-1"]) == 0
    capsys.readouterr()
    lines[20] = "nan,3"
    table.write_text("\n".join(["a,b", *lines]))
    assert "in 1 of 40 rows (numbered from 0: 20), columns a; clean" in fails(capsys, *fit, "--missing", "masked")
    assert main([*fit, "--missing", "masked,nan", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--missing", "none"], "expected value,... or column=value,... with numbers, nan or masked, got 'none'"),
        (["--missing", "mass="], "expected value,... or column=value,... with numbers, nan or masked, got 'mass='"),
        (["--missing", "99,mass=nan"], "expected values for all columns, or column=value for each of some, got"),
        (["--missing", ""], "expected values for all columns, or column=value for each of some, got ''"),
        (["--missing", "mas=99"], "--missing: the fit of {table} has no column 'mas'; did you mean 'mass'?"),
        (
            ["--missing", "3=99"],
            "--missing: the fit of {table} has no column '3'; there are 3, numbered from 0: mass, radius, km",
        ),
        (["--on-missing", "impute"], "--on-missing impute needs --missing, what stands for a missing entry: nan, 99, ..."),
        (["--on-missing", "guess"], "invalid choice: 'guess'"),
    ],
)
def test_a_wrong_declaration_of_what_is_missing_is_told(given, message, table, tmp_path, capsys):
    said = fails(capsys, "fit", table, "-o", str(tmp_path / "flow.npz"), *given)
    assert message.format(table=table) in said
    assert not (tmp_path / "flow.npz").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "{missing}", "-o", "{out}"], "missing.csv: No such file"),
        (["fit", "{table}", "-o", "{out}", "--columns", "mas"], "no column 'mas'; did you mean 'mass'?"),
        (["fit", "{table}", "-o", "{out}", "--columns", "quux"], "there are mass, radius"),
        (["fit", "{table}", "-o", "{out}", "--columns", "3"], "there are 3, numbered from 0: mass"),
        (["fit", "{table}", "-o", "{out}", "--columns", "age,2"], "asked for twice"),
        (["fit", "{table}", "-o", "{out}", "--columns", "age,"], "expected names or numbers"),
        (["fit", "{table}", "-o", "{table}"], "would overwrite the input"),
        (["fit", "{table}", "-o", "{nowhere}"], "can't write"),
        (["fit", "{table}", "-o", "{folder}"], "is not a file"),
        (["fit", "{table}", "-o", "{out}", "--epochs", "0"], "--epochs: expected a whole number of at least 1, got '0'"),
        (["fit", "{table}", "-o", "{out}", "--learning-rate", "-1"], "expected a number above 0"),
        (["fit", "{table}", "-o", "{out}", "--learning-rate", "fast"], "expected a number above 0, got 'fast'"),
        (["fit", "{table}", "-o", "{out}", "--hidden", "8,0"], "--hidden: expected a whole number"),
        (["fit", "{table}", "-o", "{out}", "--validation-fraction", "1"], "from 0 to below 1"),
        (["fit", "{table}", "-o", "{out}", "--model", "glow"], "invalid choice: 'glow'"),
        (["fit", "{table}", "-o", "{out}", "--model", "realnvp", "--columns", "age"], "for one column use MAF"),
        (["fit", "{table}"], "required: -o"),
        (["score", "{table}", "{table}"], "table.csv"),
        (["score", "{missing}", "{table}"], "missing.csv: No such file"),
        (["score", "{flow}", "{missing}"], "missing.csv: No such file"),
        (["score", "{flow}", "{narrow}"], "no column 'radius, km'"),
        (["score", "{flow}", "{narrow_npy}"], "gives 2 columns, the flow takes mass, radius, km, age"),
        (["score", "{flow}", "{table}", "-o", "{nowhere}"], "can't write"),
        (["score", "{flow}", "{table}", "-o", "{out}.xls"], "told by its suffix, one of .csv"),
        (["sample", "{flow}", "-n", "-1", "-o", "{out}"], "a whole number of at least 0"),
        (["sample", "{flow}", "-n", "3", "-o", "{nowhere}"], "can't write"),
        (["sample", "{flow}", "-n", "3", "-o", "{out}", "--temperature", "0"], "a number above 0"),
        (["info", "{cut}"], "is not"),
        (["info", "{folder}"], "folder"),
        (["frobnicate"], "invalid choice"),
        ([], "COMMAND"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(argv, message, table, flow_file, rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LikelihoodTrainer, "run_round", lambda trainer: pytest.fail("trained before it was found out"))
    places = {
        "table": table,
        "flow": flow_file,
        "out": tmp_path / "out.npz",
        "missing": tmp_path / "missing.csv",
        "nowhere": tmp_path / "no" / "where.npz",
        "folder": tmp_path / "folder",
        "cut": tmp_path / "cut.npz",
        "narrow": tmp_path / "narrow.csv",
        "narrow_npy": tmp_path / "narrow.npy",
    }
    places["folder"].mkdir()
    with open(flow_file, "rb") as file:
        places["cut"].write_bytes(file.read()[:-100])
    for name in ("narrow", "narrow_npy"):
        write_table(places[name], rows[:, [0, 2]], ["mass", "age"])
    before = sorted(path.name for path in tmp_path.iterdir())
    assert message in fails(capsys, *(part.format(**places) for part in argv))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def epochs_then(error, count):
    """A stand-in for LikelihoodTrainer.run_round that raises after `count` epochs."""
    run_round = LikelihoodTrainer.run_round

    def run(trainer):
        if trainer.round > count:
            raise error
        return run_round(trainer)

    return run


def test_ctrl_c_keeps_the_best_so_far(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "flow.npz"
    monkeypatch.setattr(LikelihoodTrainer, "run_round", epochs_then(KeyboardInterrupt(), 1))
    assert main(["fit", table, "-o", str(out), *SMALL]) == 130
    assert "interrupted after epoch 1; the best so far is in" in capsys.readouterr().err
    flow = npflows.load(out)
    assert flow.columns == NAMES
    assert len(flow.history["epoch"]) == 1


def test_ctrl_c_while_the_flow_is_written_does_not_lose_it(table, tmp_path, capsys, monkeypatch):
    out, save, calls = tmp_path / "flow.npz", npflows.NormalizingFlow.save, []

    def interrupted(flow, path):
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        save(flow, path)

    monkeypatch.setattr(npflows.NormalizingFlow, "save", interrupted)
    assert main(["fit", table, "-o", str(out), *SMALL]) == 130
    assert "the best so far is in" in capsys.readouterr().err
    assert npflows.load(out).columns == NAMES


def test_ctrl_c_before_there_is_anything_leaves_the_old_file(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "flow.npz"
    out.write_bytes(b"old")
    monkeypatch.setattr(LikelihoodTrainer, "run_round", epochs_then(KeyboardInterrupt(), 0))
    assert main(["fit", table, "-o", str(out), *SMALL]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
    monkeypatch.setattr("npflows.cli.fitting.read_table", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["fit", table, "-o", str(out), *SMALL]) == 130
    assert out.read_bytes() == b"old"


def test_a_training_that_fails_keeps_the_best_so_far(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "flow.npz"
    monkeypatch.setattr(LikelihoodTrainer, "run_round", epochs_then(npflows.TrainingError("epoch 2: no good"), 1))
    said = fails(capsys, "fit", table, "-o", str(out), *SMALL)
    assert f"epoch 2: no good (the best so far is in {out})" in said
    assert npflows.load(out).columns == NAMES


def test_a_constant_column_is_a_warning_in_one_line(rows, tmp_path, capsys):
    table = tmp_path / "t.csv"
    write_table(table, rows * [1, 0, 1], NAMES)
    assert main(["fit", str(table), "-o", str(tmp_path / "flow.npz"), "--quiet", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("npflows: warning: ")
    assert err.count("\n") == 1


def test_samples_that_are_not_finite_are_told(flow_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(npflows.NormalizingFlow, "sample", lambda *_, **__: np.array([[1, 2, 3], [1, np.nan, 3.0]]))
    assert main(["sample", flow_file, "-n", "2", "-o", str(tmp_path / "out.csv"), "--quiet"]) == 0
    assert "1 of 2 samples are not finite" in capsys.readouterr().err


def test_the_number_of_threads_is_left_as_it_was(flow_file, table):
    before = npflows.get_num_threads()
    assert main(["score", flow_file, table, "--threads", str(before + 3), "--quiet"]) == 0
    assert npflows.get_num_threads() == before
