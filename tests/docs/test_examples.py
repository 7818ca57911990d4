"""The guides run from beginning to end, at their small size and without a warning."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import COPIES_TOLD

EXAMPLES = Path(__file__).parents[2] / "examples"
GUIDES = (
    "anomaly_detection",
    "density_estimation",
    "digits_by_class",
    "glow_digits",
    "glow_fashion",
    "periodic_angles",
    "photometric_redshifts",
    "posterior",
    "posterior_as_prior",
    "temperature",
    pytest.param("weighted_samples", marks=COPIES_TOLD),  # whose text tells of it
)
"""The other examples are run by CI alone."""


@pytest.mark.parametrize("name", GUIDES)
def test_guide_prints_and_draws(name, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    picture = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", [name, "--quick", "-o", str(picture)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in (printed := capsys.readouterr().out)
    assert "nan" not in printed


def test_the_subset_is_the_table_its_readme_describes():
    with np.load(EXAMPLES / "data" / "dc2_subset.npz") as tables:
        assert tables["train"].shape == (1500, 13)
        assert tables["validation"].shape == (500, 13)
        assert len(tables["columns"]) == 13
    assert "MIT License" in (EXAMPLES / "data" / "README.txt").read_text()
