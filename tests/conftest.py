"""The fixtures of every test."""

import numpy as np
import pytest

import npflows

_FIRST: dict[str, dict] = {}


@pytest.fixture(autouse=True)
def default_threads():
    """Leave the number of threads as it was."""
    yield
    npflows.set_num_threads(None)


@pytest.fixture(autouse=True)
def same_numbers(request):
    """Each test draws the numbers that its module's RNG had after the import, whatever was run before."""
    rng = getattr(request.module, "RNG", None)
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = _FIRST.setdefault(request.module.__name__, rng.bit_generator.state)
