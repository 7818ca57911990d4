"""Factors of small matrices by NumPy: importing scipy.linalg takes longer than all else before Glow's first train step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def qr(matrix: Matrix) -> Matrix:
    """The orthogonal factor Q of a matrix Q R."""
    return np.linalg.qr(matrix)[0]


def lu(matrix: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """P, L and U with P L U = matrix, by Gaussian elimination with row pivoting (Golub and Van Loan 2013, section 3.4)."""
    n = len(matrix)
    upper, lower, rows = matrix.astype(np.float64), np.zeros((n, n)), np.arange(n)
    for i in range(n):
        pivot = i + int(np.argmax(np.abs(upper[i:, i])))
        for array in (upper, lower, rows):
            array[[i, pivot]] = array[[pivot, i]]
        lower[i:, i] = upper[i:, i] / upper[i, i]
        upper[i + 1 :] -= lower[i + 1 :, i : i + 1] * upper[i]
        upper[i + 1 :, i] = 0
    permutation = np.zeros((n, n))
    permutation[rows, np.arange(n)] = 1
    return permutation, lower, upper


def reflections(vectors: Matrix) -> Matrix:
    """H_k ... H_1 of Householder reflections H_j = 1 - 2 v_j v_j^T / |v_j|^2 by vectors (k, n)."""
    result = np.eye(vectors.shape[1])
    for v in vectors:
        result -= np.outer(2 / (v @ v) * v, v @ result)
    return result


def triangle(packed: Matrix) -> Matrix:
    """The upper triangular matrix whose diagonal is there as its logarithm; what is below is not read."""
    return np.triu(packed, 1) + np.diag(np.exp(np.diag(packed)))


def signed_factors(matrix: Matrix) -> tuple[Matrix, NDArray[np.int64], NDArray[np.int64]]:
    """Factors L, S and U with matrix @ x = L S U x[order], for any matrix with a determinant.

    Returns
    -------
    packed : ndarray (n, n)
        L below the diagonal, where it is 1, and U above it, with the logarithm of its diagonal, which is positive.
    order : ndarray (n,)
        The largest entry of each row in turn comes first.
    signs : ndarray (n,)
        The diagonal of S.

    Raises
    ------
    ValueError
        If the matrix has no inverse.
    """
    permutation, lower, upper = lu(np.asarray(matrix, np.float64).T)  # P L U = W^T, so that W = (U^T) (L^T) P^T
    pivots = np.diag(upper)
    if not np.isfinite(pivots).all() or not pivots.all():
        raise ValueError("the matrix has no inverse")
    signs = np.where(pivots < 0, -1, 1)
    below = upper.T / pivots
    packed = np.tril(below, -1) + np.triu(np.abs(pivots)[:, None] * lower.T, 1) + np.diag(np.log(np.abs(pivots)))
    return packed, permutation.argmax(axis=0), signs
