"""Factors of matrices beside SciPy's."""

import numpy as np
import pytest
from scipy import linalg

from npflows.core.factors import lu, qr, reflections, signed_factors, triangle


@pytest.mark.parametrize("n", [1, 2, 7, 48])
def test_factors_are_scipys(n):
    matrix = np.random.default_rng(n).normal(size=(n, n))
    for ours, theirs in zip(lu(matrix), linalg.lu(matrix)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    np.testing.assert_allclose(qr(matrix), linalg.qr(matrix)[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_every_matrix_has_factors_with_signs(n):
    rng = np.random.default_rng(n)
    for matrix in (rng.normal(size=(n, n)), -np.eye(n), np.eye(n)[rng.permutation(n)]):
        packed, order, signs = signed_factors(matrix)
        lower, upper = np.tril(packed, -1) + np.eye(n), triangle(packed)
        assert (np.diag(upper) > 0).all()
        x = rng.normal(size=n)
        np.testing.assert_allclose(lower @ (signs * (upper @ x[order])), matrix @ x, rtol=0, atol=1e-12 * n)


@pytest.mark.parametrize("matrix", [np.zeros((2, 2)), np.ones((3, 3)), np.full((2, 2), np.nan)])
def test_a_matrix_without_an_inverse_has_none(matrix):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="has no inverse"):
        signed_factors(matrix)


def test_reflections_turn_their_vector_around_and_leave_what_is_orthogonal():
    vectors = np.random.default_rng(1).normal(size=(3, 4))
    v = vectors[0]
    along = np.random.default_rng(2).normal(size=4)
    along -= (along @ v) / (v @ v) * v
    np.testing.assert_allclose(reflections(vectors[:1]) @ (v + along), along - v, atol=1e-14)
    product = reflections(vectors)
    np.testing.assert_allclose(product @ product.T, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(product, reflections(vectors[2:]) @ reflections(vectors[:2]), atol=1e-14)
