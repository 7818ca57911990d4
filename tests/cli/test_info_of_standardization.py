"""`npflows info` says how the columns were standardized."""

import json

import numpy as np
import pytest

from npflows import MAF
from npflows.cli import main

FIT = {"max_epochs": 1, "validation_fraction": 0.0, "progress": False, "rng": 0}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 3))
    x[:, 1] = x[:, 0] + 1e-4 * x[:, 1]
    x[:9, 2] = 1e6
    flow = MAF(3, 1, (4,), columns=["g", "r", "z"], rng=0)
    with pytest.warns(UserWarning, match=r"z \(9 of 600 are 1e\+06"):
        flow.fit(x, **FIT)
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
