"""Factors of matrices beside SciPy's."""

import numpy as np
import pytest
from scipy import linalg

from npflows.core.factors import lu, qr


@pytest.mark.parametrize("n", [1, 2, 7, 48])
def test_factors_are_scipys(n):
    matrix = np.random.default_rng(n).normal(size=(n, n))
    for ours, theirs in zip(lu(matrix), linalg.lu(matrix)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    np.testing.assert_allclose(qr(matrix), linalg.qr(matrix)[0], rtol=0, atol=1e-10)
