"""The fixtures of every test."""

import pytest

import npflows


@pytest.fixture(autouse=True)
def default_threads():
    """Leave the number of threads as it was."""
    yield
    npflows.set_num_threads(None)
