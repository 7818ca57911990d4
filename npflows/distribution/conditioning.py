"""Conditions from what people have."""

from __future__ import annotations

import numpy as np

from npflows.core.checks import as_int, as_numeric


def one_hot(labels: object, num_classes: int | None = None) -> np.ndarray:
    """Integer class labels as conditions: 1 in the column of the label, 0 elsewhere.

    Parameters
    ----------
    labels : array_like of int (n,)
        0, 1, ..., num_classes - 1; a single one as well.
    num_classes : int, optional
        By default one more than the largest label.

    Returns
    -------
    ndarray (n, num_classes), or (num_classes,) for a single label
    """
    values = as_numeric(labels, "labels")
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if values.ndim > 1 or (values != whole).any():
        raise ValueError(f"labels must be whole numbers in one dimension, got {values.dtype} of shape {values.shape}")
    n_classes = int(whole.max(initial=-1)) + 1 if num_classes is None else as_int(num_classes, "num_classes")
    if whole.size and (whole.min() < 0 or whole.max() >= n_classes):
        wanted = "be at least 0" if num_classes is None else f"lie between 0 and {n_classes - 1}"
        raise ValueError(f"labels must {wanted}, got {whole.min()} to {whole.max()}")
    return (whole[..., None] == np.arange(n_classes)).astype(np.float64)
