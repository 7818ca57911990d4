"""`npflows fit --ensemble`: a file with several flows, scored with their spread and drawn from."""

import numpy as np
import pytest
from command_cases import fails

from npflows import Ensemble
from npflows.cli import main


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A table and an ensemble of two flows that was fitted to it."""
    pytest.importorskip("joblib")
    folder = tmp_path_factory.mktemp("ensemble")
    x = np.random.default_rng(0).normal(size=(300, 3))
    np.savetxt(folder / "t.csv", x, delimiter=",", header="a,b,c", comments="")
    command = f"fit {folder}/t.csv -o {folder}/e.npz --columns a,b --condition c --layers 1 --hidden 8 --epochs 2"
    assert main([*command.split(), "--ensemble", "2", "--bootstrap", "--quiet"]) == 0
    return folder, x


def test_the_file_holds_an_ensemble_with_names(fitted):
    ensemble = Ensemble.load(fitted[0] / "e.npz")
    assert len(ensemble) == 2
    assert [member.condition_columns for member in ensemble] == [["c"]] * 2
    assert ensemble.columns == ["a", "b"]


def test_scores_have_their_spread(fitted, capsys):
    folder, x = fitted
    assert main(["score", f"{folder}/e.npz", f"{folder}/t.csv", "--condition", "c", "-o", f"{folder}/s.csv"]) == 0
    assert "mean log_prob" in capsys.readouterr().out
    log_prob, spread = Ensemble.load(folder / "e.npz").log_prob_and_spread(x[:, :2], x[:, 2:])
    table = np.genfromtxt(folder / "s.csv", delimiter=",", names=True)
    assert table.dtype.names == ("log_prob", "spread")
    np.testing.assert_allclose(table["log_prob"], log_prob)
    np.testing.assert_allclose(table["spread"], spread)


def test_samples(fitted):
    folder, _ = fitted
    assert main(f"sample {folder}/e.npz -n 50 --condition c=0.3 -o {folder}/x.csv --quiet".split()) == 0
    table = np.genfromtxt(folder / "x.csv", delimiter=",", names=True)
    assert table.dtype.names == ("a", "b")
    assert len(table) == 50


def test_what_a_fit_says(fitted, capsys):
    folder, _ = fitted
    command = f"fit {folder}/t.csv -o {folder}/f.npz --columns a,b --layers 1 --hidden 8 --epochs 1 --ensemble 2"
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert "2 times MAF" in out
    assert "held-out log-likelihood" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--bootstrap"], "--bootstrap needs --ensemble"), (["--ensemble", "2", "--stream"], "neither --stream nor --device")],
)
def test_options_that_do_not_go_together(fitted, capsys, arguments, complaint):
    folder, _ = fitted
    assert complaint in fails(capsys, "fit", f"{folder}/t.csv", "-o", f"{folder}/g.npz", *arguments)


def test_other_commands_say_what_the_file_is(fitted, capsys):
    folder, _ = fitted
    assert "holds an ensemble" in fails(capsys, "info", f"{folder}/e.npz")
