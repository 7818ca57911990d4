"""`npflows demo` and the table that comes with the package."""

import sys

import numpy as np
import pytest

from npflows.cli import main
from npflows.data import load_galaxies


def test_the_galaxies_come_with_the_package():
    x, columns = load_galaxies()
    assert x.shape == (20000, 7)
    assert x.dtype == np.float32
    assert columns == ["redshift", "u", "g", "r", "i", "z", "y"]
    assert np.isfinite(x).all()
    assert len(np.unique(x, axis=0)) > 19900
    assert np.corrcoef(x.T).min() > 0


def held_out(said):
    """The log-likelihoods that the demonstration printed."""
    lines = [line.rsplit(None, 1) for line in said.splitlines()]
    return {line[0].strip(): float(line[1]) for line in lines if line and line[0].startswith(("  G", "  k", "  n"))}


def test_the_flow_beats_the_classical_estimates_and_is_drawn(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "demo.png"
    assert main(["demo", "--quick", "-o", str(picture)]) == 0
    said, err = capsys.readouterr()
    assert err == ""
    scores = held_out(said)
    assert list(scores) == ["Gaussian", "kernel density estimate (SciPy)", "normalizing flow (npflows MAF)"]
    assert list(scores.values()) == sorted(scores.values())
    assert "the same log-densities to the last bit" in said
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("asked", [False, True])
def test_without_matplotlib_all_but_the_picture_works(asked, tmp_path, capsys, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    status = main(["demo", "--quick", *(["-o", "demo.png"] if asked else [])])
    out, err = capsys.readouterr()
    assert "pip install 'npflows[plot]'" in (err if asked else out)
    assert status == (2 if asked else 0)
    assert (out == "") == asked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("picture", "message"), [("no/demo.png", "can't write"), ("demo.bmp", "a picture's suffix")])
def test_a_picture_that_can_not_be_written_is_told_before_training(picture, message, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quick", "-o", picture]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert list(tmp_path.iterdir()) == []
