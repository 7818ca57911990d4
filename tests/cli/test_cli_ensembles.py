"""`npflows fit --ensemble`: a file with several flows, scored with their spread and drawn from."""

import json

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


def test_what_a_file_holds(fitted, capsys):
    folder, _ = fitted
    assert main(["info", f"{folder}/e.npz"]) == 0
    said = capsys.readouterr().out
    for text in ("2 flows, whose mixture is the density", "MAF", "a, b", "c", "member 1", "epochs 2, the best was"):
        assert text in said
    assert main(["info", f"{folder}/e.npz", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ensemble"] == len(facts["members"]) == 2
    assert facts["members"][1]["columns"] == ["a", "b"]
    assert len(facts["members"][1]["history"]["epoch"]) == 2


@pytest.mark.parametrize("kind", ["density", "corner"])
def test_pictures_are_of_the_mixture(fitted, tmp_path, capsys, kind):
    pytest.importorskip("matplotlib")
    folder, _ = fitted
    command = ["plot", f"{folder}/e.npz", "--kind", kind, "--condition", "c=0.3", "-o", str(tmp_path / "p.png")]
    assert main(command) == 0
    assert "drawn in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["export", "{}/e.npz", "-o", "{}/e.c"], "export writes one flow"),
        (["verify", "{}/e.npz", "{}/t.csv", "--condition", "c"], "verify measures one flow"),
        (["plot", "{}/e.npz", "--kind", "training", "-o", "{}/e.png"], "--kind training draws one flow"),
        (["plot", "{}/e.npz", "{}/t.csv", "--kind", "latent", "-o", "{}/e.png"], "--kind latent draws one flow"),
    ],
    ids=str,
)
def test_commands_for_one_flow_say_what_can_be_done(fitted, capsys, command, complaint):
    folder, _ = fitted
    said = fails(capsys, *(part.replace("{}", str(folder)) for part in command))
    assert f"{complaint}, and {folder}/e.npz holds an ensemble of 2: write a member to a file of its own" in said
