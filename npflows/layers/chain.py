"""Layers that are made of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core.parameters import Parameter
from npflows.layers.image import ImageLayer
from npflows.layers.layer import Layer


class Chain(ImageLayer, abstract=True):
    """Layers one after the other as one layer, on one parameter buffer; a program runs them one by one.

    Parameters
    ----------
    parts : mapping of str to Layer
        By name, in the direction data -> latent; the chain takes them over.
    dtype : {"float32", "float64"}
    """

    def __init__(self, parts: Mapping[str, Layer], *, dtype: DTypeLike) -> None:
        self.parts = dict(parts)
        first, *_ = self.parts.values()
        parameters = [
            Parameter(f"{name}.{p.name}", part.parameters.views()[p.name], p.free)
            for name, part in self.parts.items()
            for p in part.parameters.entries
        ]
        condition_dim = max(part.condition_dim for part in self.parts.values())
        super().__init__(first.input_dim, parameters, condition_dim=condition_dim, dtype=dtype)
        self._bind_parts()

    def bind(self, part: NDArray) -> None:
        super().bind(part)
        self._bind_parts()

    def share(self, other: Layer) -> None:
        super().share(other)
        assert isinstance(other, Chain)
        for mine, theirs in zip(self.parts.values(), other.parts.values()):
            mine.share(theirs)

    def _bind_parts(self) -> None:
        """Let the parts work on their shares of the chain's parameters."""
        start = 0
        for part in self.parts.values():
            end = start + part.theta_size
            part.bind(self.parameters.theta[start:end])
            start = end

    def leaves(self) -> list[tuple[Layer, int]]:
        result, start = [], 0
        for part in self.parts.values():
            result += [(leaf, start + at) for leaf, at in part.leaves()]
            start += part.theta_size
        return result

    @property
    def initialized(self) -> bool | None:
        """Whether everything in it that is set from data has been set; None where nothing is."""
        states = [part.initialized for part in self.parts.values() if part.initialized is not None]
        return all(states) if states else None

    @initialized.setter
    def initialized(self, value: bool | None) -> None:
        for part in self.parts.values():
            if part.initialized is not None and value is not None:
                part.initialized = value

    def initialize(self, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None) -> None:
        """Set each part in turn from what enters it when rows x enter the chain; see `ActNormLayer.initialize`."""
        layer = self._for(x, False)
        assert isinstance(layer, Chain)
        entering = x
        for mine, part in zip(self.parts.values(), layer.parts.values()):
            context = condition if part.condition_dim else None
            if mine.initialized is not None:
                part.initialize(entering, sample_weight, context)
                mine.initialized = part.initialized
            entering, _ = part.forward(entering, context)

    @property
    def result_shape(self) -> tuple[int, ...]:
        *_, last = self.parts.values()
        return last.result_shape

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind_parts()
