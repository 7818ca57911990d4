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
