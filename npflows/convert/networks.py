"""Networks of other libraries in npflows' dense and masked ones, exactly.

Where hidden units have degrees in another order, or in other numbers, they get places in a wider network, whose further
units have no weights.  A residual network whose last hidden values go to the output without an activation keeps each of
them twice, u and -u, as relu(u) - relu(-u) = u.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npflows.convert.state_dict import Arrays, ConversionError

Linear = tuple[NDArray, NDArray]
"""Weights (rows, columns), 0 where a mask forbids them, and biases (rows,)."""


@dataclass(frozen=True)
class Dense:
    """A network as another library has it.

    Attributes
    ----------
    layers : list of Linear
        The first one, those of blocks or further hidden ones, and the last.
    residual : bool
        Whether layers 1 and 2, 3 and 4, ... are residual blocks, after the last of which there is no activation.
    degrees : list of ndarray or None
        Of the units of each hidden layer, where the network is masked.
    """

    layers: list[Linear]
    residual: bool
    degrees: list[NDArray[np.int64]] | None = None

    def places(self, n_features: int) -> tuple[int, list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        """The width of the hidden layers in npflows, and the places there of the units u of each, and of their -u."""
        widths = [len(bias) for _, bias in self.layers[:-1]]
        twice = 2 if self.residual else 1
        if self.degrees is None:
            width = twice * max(widths) if self.residual else 0
            return width, [np.arange(n) for n in widths], [n + np.arange(n) for n in widths]
        lowest, n_degrees = (1, n_features - 1) if n_features > 1 else (0, 1)
        counts = [np.bincount(d - lowest, minlength=n_degrees) for d in self.degrees]
        most = twice * max(int(c.max()) for c in counts)
        first, second = [], []
        for degrees, count in zip(self.degrees, counts):
            rank = np.empty(len(degrees), np.int64)
            rank[np.argsort(degrees, kind="stable")] = np.concatenate([np.arange(c) for c in count])
            first.append((degrees - lowest) * most + rank)
            second.append((degrees - lowest) * most + count[degrees - lowest] + rank)
        return most * n_degrees, first, second


def fill(network: Dense, views: Arrays, n_features: int) -> None:
    """Write a network into the parameters of npflows' network of the width that `places` gives."""
    _, first, second = network.places(n_features)
    for view in views.values():
        view[...] = 0
    last = len(network.layers) - 1
    for number, (weight, bias) in enumerate(network.layers):
        rows = np.arange(len(bias)) if number == last else first[number]
        columns = np.arange(weight.shape[1]) if number == 0 else first[number - 1]
        _put(views[f"weight_{number}"], rows, columns, weight)
        views[f"bias_{number}"][rows] = bias
        if not network.residual:
            continue
        if number == last:
            _put(views[f"weight_{number}"], rows, second[number - 1], -weight)
        elif number % 2 == 0:
            _put(views[f"weight_{number}"], second[number], columns, -weight)
            views[f"bias_{number}"][second[number]] = -bias


def _put(view: NDArray, rows: NDArray, columns: NDArray, values: NDArray) -> None:
    view[np.ix_(rows, columns)] = values


def masked(arrays: Arrays, name: str) -> Linear:
    """The masked linear layer of a name; weights are stored as they are, and the mask beside them."""
    return arrays[f"{name}.weight"] * arrays[f"{name}.mask"], arrays[f"{name}.bias"]


def linear(arrays: Arrays, name: str) -> Linear:
    """The linear layer of a name."""
    return arrays[f"{name}.weight"], arrays[f"{name}.bias"]


def check_masks(
    arrays: Arrays, names: list[str], n_features: int, multiplier: int
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The order of the features and the degrees of all hidden layers, after comparing all masks with what they say.

    A feature has the lowest degree of the units that see it, the last one is seen by none.
    """
    first, seen = arrays[f"{names[0]}.degrees"].astype(np.int64), arrays[f"{names[0]}.mask"] != 0
    lowest = np.where(seen, first[:, None], n_features).min(axis=0) if n_features > 1 else np.ones(1, np.int64)
    order = np.argsort(lowest, kind="stable")
    degrees = [np.argsort(order) + 1]
    for name in names[:-1]:
        degrees.append(arrays[f"{name}.degrees"].astype(np.int64))
        if not np.array_equal(arrays[f"{name}.mask"] != 0, degrees[-1][:, None] >= degrees[-2]):
            raise ConversionError(f"the mask of {name} is not that of its degrees")
    of_outputs = np.repeat(degrees[0], multiplier)
    if not np.array_equal(arrays[f"{names[-1]}.mask"] != 0, of_outputs[:, None] > degrees[-1]):
        raise ConversionError(f"the mask of {names[-1]} is not that of outputs side by side for each feature")
    return order, degrees[1:]
