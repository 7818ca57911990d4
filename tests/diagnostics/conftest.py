"""Flows that are the distribution of their tables exactly."""

import pytest
from diagnostic_cases import LOC, SCALE

from npflows import MAF


@pytest.fixture
def flow():
    """Exactly the distribution of `normal`."""
    flow = MAF(3, 1, (8,), dtype="float64", rng=0)
    flow.standardize.set(LOC, SCALE)
    return flow


@pytest.fixture
def conditional():
    """Exactly the distribution of `linear`: a flow without hidden layers whose shift is (2 c, -c)."""
    flow = MAF(2, 1, (), condition_dim=1, scale_activation="none", dtype="float64", rng=0)
    flow.params = [0, 0, 0, 0, 0, 0, 2, 0, -1, 0]  # two weights, four biases, then the condition's weights
    return flow
