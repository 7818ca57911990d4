"""What users' functions give: numbers, after a check."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_real(value: Any, what: str) -> float:
    """A real number, or the one of an array of a single one; `what` begins the sentence that refuses all else."""
    try:
        if not np.iscomplexobj(value):
            return float(value if np.ndim(value) == 0 else np.reshape(value, ()))
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{what} must give one real number for each point, got {value!r}")
