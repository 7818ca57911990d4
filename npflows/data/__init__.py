"""The table that `npflows demo`, the examples and the tests use; README.txt beside it says where it comes from."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray


def load_galaxies() -> tuple[NDArray[np.float32], list[str]]:
    """20,000 simulated galaxies: redshift and six magnitudes.

    Returns
    -------
    x : ndarray (20000, 7) of float32
        In random order.
    columns : list of str
        redshift, u, g, r, i, z, y.
    """
    with files("npflows.data").joinpath("galaxies.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["x"], arrays["columns"].tolist()
