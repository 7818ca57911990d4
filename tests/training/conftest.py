"""The fixtures that the tests of training share."""

import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"
