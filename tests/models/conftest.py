"""A trained flow that the tests share and do not change."""

import pytest
from image_cases import IMAGES, OPTIONS, glow


@pytest.fixture(scope="session")
def trained():
    return glow().fit(IMAGES, **{**OPTIONS, "max_epochs": 30, "learning_rate": 1e-2})
