"""How the transforms of a flow of nflows see its conditions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.convert.errors import ConversionError
from npflows.convert.networks import linear
from npflows.convert.tensors import Tensors
from npflows.flow import NormalizingFlow


@dataclass(frozen=True)
class Seen:
    """What a transform sees of the conditions: columns of the embedding, or the conditions themselves.

    Attributes
    ----------
    width : int
        Columns that all transforms see.
    own : int
        The first of those that a masked network adds in its first layer, already through an activation.
    plain : int
        The first of those of the conditions as they are.
    """

    width: int = 0
    own: int = 0
    plain: int = 0

    def weights(self, first: int, weight: NDArray) -> NDArray:
        """Weights (rows, width) that are zero but for some columns, from the first of these on."""
        result = np.zeros((len(weight), self.width), weight.dtype)
        result[:, first : first + weight.shape[1]] = weight
        return result


@dataclass(frozen=True)
class Conditions:
    """How the transforms of a flow see its conditions.

    nflows' masked networks add f(C c + b), which has an activation of its own: of all of them together one embedding is
    made, whose columns each network has some of.
    """

    n: int
    activation: str
    made: dict[str, tuple[NDArray, NDArray]]
    plain: bool

    @classmethod
    def of(cls, arrays: Tensors, facts: dict[str, dict[str, Any]]) -> Conditions:
        """From the arrays of a flow."""
        made = {}
        for prefix in facts:
            name = f"{prefix}autoregressive_net.context_layer"
            if arrays.some_below(f"{name}."):
                made[prefix] = linear(arrays, name)
        inner = _widths(arrays, r"blocks\.\d+\.context_layer\.weight")
        sole = _widths(arrays, r"spline_predictor\.0\.weight")
        widths = {weight.shape[1] for weight, _ in made.values()} | set(inner) | set(sole)
        if len(widths) > 1:
            raise ConversionError(f"the transforms see conditions of several widths: {sorted(widths)}")
        activations = {facts[prefix]["activation"] for prefix in made}
        if len(activations) > 1:
            raise ConversionError("masked networks with a condition and several activations are not taken over")
        plain = bool(inner or sole)
        activation = next(iter(activations), "relu")
        if made and plain and activation != "relu":
            raise ConversionError(f"masked residual networks with a condition and {activation} are not taken over, only "
                                  f"those with relu")  # fmt: skip
        return cls(next(iter(widths), 0), activation, made, plain)

    @property
    def _ends(self) -> NDArray[np.int64]:
        """Where the columns of each masked network end in the embedding."""
        return np.cumsum([0, *(len(bias) for _, bias in self.made.values())])

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of a flow that embeds its conditions."""
        if not self.made:
            return {}
        n = int(self._ends[-1])
        dims = (n + 2 * self.n, n + self.n) if self.plain else (n, n)
        return {"condition_dim": self.n, "embedding_dims": dims, "embedding_activation": self.activation}

    def of_transform(self, prefix: str) -> Seen:
        """What one of the transforms sees."""
        if not self.made:
            return Seen(self.n)
        end = int(self._ends[-1])
        k = list(self.made).index(prefix) if prefix in self.made else 0
        return Seen(end + (self.n if self.plain else 0), int(self._ends[k]), end)

    def fill(self, flow: NormalizingFlow) -> None:
        """Write the embedding; with relu it passes conditions on, as relu(c) - relu(-c) = c."""
        embedding = flow.conditioning.embedding
        if embedding is None:
            return
        views, end, eye = embedding.parameters.views(), int(self._ends[-1]), np.eye(self.n)
        for view in views.values():
            view[...] = 0
        views["weight_0"][:end] = np.concatenate([weight for weight, _ in self.made.values()])
        views["bias_0"][:end] = np.concatenate([bias for _, bias in self.made.values()])
        views["weight_1"][:end, :end] = np.eye(end)
        if self.plain:
            views["weight_0"][end:] = np.concatenate([eye, -eye])
            views["weight_1"][end:, end:] = np.concatenate([eye, -eye], axis=1)


def _widths(arrays: Tensors, ending: str) -> list[int]:
    """The columns of matrices whose names end as given."""
    return [a.shape[1] for name, a in arrays.items() if re.search(f"{ending}$", name) and a.ndim == 2]


def standardize_condition(flow: NormalizingFlow, table: Tensors) -> None:
    """Set location and scale of a flow's conditions, from one number for all columns or one of each."""
    shape = () if "_mean" in table and not table["_mean"].ndim else (flow.condition_dim,)
    loc, scale = (table.take(name, *shape).astype(float) for name in ("_mean", "_std"))
    if flow.condition_dim:
        flow.standardize_condition(*(np.broadcast_to(a, (flow.condition_dim,)) for a in (loc, scale)))
