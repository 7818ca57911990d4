"""What README.md says is there: every name of its table, every block of code, every command, every file it points to."""

import importlib
import inspect
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows.cli import main
from npflows.files.tables import write_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))


def part(title):
    """What stands below a heading."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


ROWS = [line for line in part("What there is").splitlines() if line.startswith("| ") and "`" in line]
NAMES = sorted({re.sub(r"=|\(.*\)", "", name) for row in ROWS for name in re.findall(r"`([^`]+)`", row)})


def exists(name):
    """Whether a name is a module, in one, a method of a flow, or a parameter of one or of its methods."""
    if name == "NPFLOWS_NUM_THREADS":
        return True
    if name.startswith("npflows."):
        name = name.removeprefix("npflows.")
        if hasattr(npflows, name):
            return True
        return importlib.import_module(f"npflows.{name}") is not None
    parameters = set(inspect.signature(npflows.NeuralSplineFlow).parameters)
    parameters |= set(inspect.signature(npflows.NormalizingFlow.log_prob).parameters)
    return hasattr(npflows, name) or hasattr(npflows.MAF(1), name) or name in parameters


def test_the_table_has_its_rows():
    assert len(ROWS) > 10
    assert {"NeuralSplineFlow", "sample_each", "support", "verify", "npflows.functional"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_table_exists_and_has_a_test(name):
    if name.startswith("Flow"):
        pytest.importorskip("sklearn")
        assert hasattr(importlib.import_module("npflows.sklearn"), name)
    elif name == "npflows.sklearn":
        pytest.importorskip("sklearn")
    else:
        assert exists(name)
    assert re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", TESTS)


def test_every_file_that_is_pointed_to_is_there():
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if not target.startswith("http")]
    assert len(targets) > 10
    assert not [target for target in targets if not (ROOT / target).exists()]


def smaller(code):
    """The same code with fewer epochs and steps."""
    return re.sub(r"max_(epochs|steps)=\d+", r"max_\1=2", code)


def test_the_ten_lines_print_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [code] = blocks(part("In ten lines"), "python")
    exec(smaller(code), {})
    density, *rows, same = capsys.readouterr().out.splitlines()
    assert np.isfinite(float(density))
    assert [len(re.findall(r"[\d.]+", row)) for row in rows] == [7, 7]
    assert same == "True"


def test_the_model_to_start_with_fits():
    [code] = blocks(part("Which model"), "python")
    place = {"npflows": npflows, "x": np.random.default_rng(0).normal(size=(1000, 7))}
    exec(smaller(code), place)
    assert len(place["flow"].history["epoch"]) == 2


def test_the_flow_is_drawn_to_a_density(capsys):
    [code] = blocks(part("Towards a density"), "python")
    place = {"npflows": npflows, "log_posterior_and_gradient": lambda x: (-0.5 * (x**2).sum(axis=1), -x)}
    exec(smaller(code).replace("100_000", "1000"), place)
    assert np.isfinite([float(word) for word in capsys.readouterr().out.split()]).all()


def test_the_commands_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(200, 5))
    x[:, 4] = np.exp(x[:, 4])
    for name in ("table.csv", "new.csv"):
        write_table(name, x, ["u", "g", "mass", "age", "w"])
    Path("support.json").write_text(json.dumps({"u": {"kind": "interval", "low": -9, "high": 9}}))
    [lines] = blocks(part("From the shell"), "sh")
    for line in lines.splitlines():
        command, *arguments = shlex.split(line, comments=True)
        assert command == "npflows"
        small = ["--epochs", "2", "--hidden", "8", "--layers", "2"] if arguments[0] == "fit" else []
        assert main([*arguments, *small]) == 0, line
    assert capsys.readouterr().err == ""
    assert {"flow.npz", "scores.csv", "samples.csv", "corner.png"} <= {path.name for path in tmp_path.iterdir()}
