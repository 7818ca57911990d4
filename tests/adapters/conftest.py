"""A table for the estimators."""

import numpy as np
import pytest


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((120, 2)) @ np.array([[1.0, 0.8], [0.0, 0.4]]) + 3
