"""`npflows info` says how the columns were standardized."""

import json

import numpy as np
import pytest

from npflows import MAF
from npflows.cli import main


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    flow = MAF(3, 1, (4,), columns=["g", "r", "z"], rng=0)
    flow.standardize.set(0.0, 1.0, [[1, 0, 0], [1, 1e-4, 0], [0, 0, 1]])
    flow.robust_columns = ["z"]
    path = tmp_path_factory.mktemp("flow") / "flow.npz"
    flow.save(path)
    return str(path)


def test_in_words(path, capsys):
    assert main(["info", path]) == 0
    out = capsys.readouterr().out
    assert "scaled by the bulk of the rows: z\n" in out
    assert "scaled after what the columns before say of them: r\n" in out


def test_as_json(path, capsys):
    assert main(["info", path, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["standardize"]
    assert facts["robust_columns"] == ["z"]
    np.testing.assert_allclose(facts["factor"][1], [1, 1e-4, 0], rtol=0.2)
