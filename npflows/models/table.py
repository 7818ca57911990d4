"""The models that the command line, the scikit-learn estimators and `npflows.warmup` offer by short names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npflows.core.operations import ACTIVATIONS
from npflows.flow import NormalizingFlow
from npflows.models.glow import Glow
from npflows.models.maf import IAF, MAF
from npflows.models.neural_spline import NeuralSplineFlow
from npflows.models.realnvp import RealNVP


@dataclass(frozen=True)
class Model:
    """A model that is offered by a short name.

    Attributes
    ----------
    model_class : type
    small : Mapping
        Arguments of a small flow that uses all that flows of this class use by default.
    variants : sequence of Mapping
        Further arguments of flows that use something else besides.
    for_tables : bool
        Whether samples are rows of a table; else they are images.
    """

    model_class: type[NormalizingFlow]
    small: Mapping[str, Any]
    variants: Sequence[Mapping[str, Any]]
    for_tables: bool = True

    def build(self, *args: Any, **arguments: Any) -> NormalizingFlow:
        """Build a flow of the class from arguments of its constructor."""
        constructor: Callable[..., NormalizingFlow] = self.model_class
        return constructor(*args, **arguments)

    @property
    def depth(self) -> str:
        """The name of the class's argument for the number of layers."""
        return self.model_class.parameter_aliases.get("num_layers", "num_layers")


_FOR_ALL: list[Mapping[str, Any]] = [{"activation": activation} for activation in ACTIVATIONS]
_FOR_TABLES: list[Mapping[str, Any]] = [
    *_FOR_ALL,
    {"base_distribution": "student_t"},
    {"dropout": 0.1},
    {"actnorm": True},
]
MODELS = {
    "maf": Model(MAF, {"input_dim": 3, "num_layers": 2}, _FOR_TABLES),
    "spline": Model(
        NeuralSplineFlow,
        {"input_dim": 3, "num_layers": 2, "num_bins": 4},
        [*_FOR_TABLES, {"conditioner": "autoregressive"}, {"linear": "permutation"}],
    ),
    "realnvp": Model(RealNVP, {"input_dim": 3, "num_coupling_layers": 2}, _FOR_TABLES),
    "iaf": Model(IAF, {"input_dim": 3, "num_layers": 2}, _FOR_TABLES),
    "glow": Model(
        Glow,
        {"image_shape": (4, 4, 1), "num_scales": 2, "blocks_per_scale": 1, "levels": 4},
        _FOR_ALL,
        for_tables=False,
    ),
}
"""The models by their short names."""
TABLE_MODELS = {name: model for name, model in MODELS.items() if model.for_tables}
"""Those whose samples are rows of a table."""
