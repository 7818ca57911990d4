"""A table and a flow to draw."""

import numpy as np
import pytest

import npflows


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((500, 3))


@pytest.fixture(scope="module")
def flow_1d():
    flow = npflows.MAF(1, num_layers=1, hidden_dims=(4,), condition_dim=2, columns=["mass [kg]"], rng=0)
    x = np.random.default_rng(0).standard_normal((50, 3))
    return flow.fit(x[:, :1], condition=x[:, 1:], max_epochs=1, rng=0, progress=False)
