"""`NormalizingFlow`, the class of every model: an exact density with everything that can be done with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from numpy.typing import ArrayLike, DTypeLike

from npflows.base.base import Base
from npflows.core.checks import SeedLike, as_choice, as_dtype, as_int, as_rng, as_shape, as_widths
from npflows.core.deferred import DeferredMethod
from npflows.core.operations import ACTIVATIONS
from npflows.core.registry import construct, known_classes
from npflows.distribution.transformed import TransformedDistribution
from npflows.distribution.verification import VerificationReport
from npflows.files.configuration import ModelConfiguration, configuration_of
from npflows.files.flow_file import save
from npflows.inference.grid_density import conditional, marginal
from npflows.inference.importance import importance_weights
from npflows.inference.information import entropy, kl_divergence
from npflows.inference.mode import mode
from npflows.inference.unit_cube import from_unit_cube, to_unit_cube
from npflows.layers.layer import Layer
from npflows.networks.embedding import Embedding
from npflows.support.declaration import SupportLike
from npflows.support.pixels import Pixels
from npflows.training.fit import fit
from npflows.training.initialization import initialize
from npflows.training.variational import fit_variational
from npflows.verify import verify

if TYPE_CHECKING:
    from npflows.export.c_file import to_c
    from npflows.export.onnx_file import to_onnx

_Flow = TypeVar("_Flow", bound="NormalizingFlow")


class NormalizingFlow(TransformedDistribution):
    """An exact, trainable density: layers that carry data to a base distribution, and back.

    With either compute dtype, methods take arrays of any layout or numeric dtype and return float64.  Where they take
    samples (n, input_dim), one sample without its axis is taken as well, and the result comes without it too.

    Parameters
    ----------
    layers : sequence of Layer
        From data to latent.  The flow takes copies and puts a `Standardize` first where there is none.  Values that a
        `Split` leaves behind are left alone by the layers after it.
    base_distribution : {"normal", "uniform", "student_t", "laplace", "cauchy", "logistic"} or Base
        The distribution on the latent side.
    condition_dim : int, optional
        Width of the condition; that of the layers by default, and needed with `embedding_dims`.
    embedding_dims : sequence of int
        Where given, a dense network with these hidden units, the last its output and as wide as the layers' condition,
        is trained between the condition and the layers.
    embedding_activation : {"silu", "relu", "tanh", "elu", "leaky_relu"}
        The activation function of that network.
    support : sequence or mapping of npflows.support columns, optional
        Where each column lives, all on the whole line by default: `npflows.support.real()`, `positive()`, `interval()`,
        `periodic()`, `integer()`, `below()`, `ordered()`, `simplex()`, one for each column, or by number or name for some.
        Samples never leave it.
    columns : sequence of str, optional
        Names of the columns.
    input_shape : (int,) or (int, int, int), optional
        The shape (height, width, channels) of images; by default that of the first layer's input.
    dtype : {"float32", "float64"}
        The compute dtype, that of every layer.
    rng : int, numpy.random.Generator or None
        Draws the embedding's first weights.

    Attributes
    ----------
    input_dim, latent_dim : int
        Values of a sample on either side.
    flow_layers : list of Layer
        The layers, which work on the flow's own parameters.
    base : Base
        The base distribution, with `log_prob` and `sample`.
    history : dict of list
        The records of the last `fit` after each epoch, or of `fit_variational` after each round.
    verification : VerificationReport or None
        The last report of `verify`; it is saved with the flow.
    effective_rows : float or None
        How many rows of equal weight the rows of the last `fit` were worth: (sum of weights)^2 / (sum of their squares);
        None before the first one.
    robust_columns : list of str
        The columns, and conditions, whose location and scale are those of the bulk of their values, because few values far
        from all others would have decided mean and standard deviation; it is saved with the flow.
    columns, condition_columns : list of str or None
        Names of the columns and of the values of the condition, yours to set, or those of the first tables with names that
        `fit` was given; they are saved with the flow.  Where it has names, every method takes the columns of data frames
        and other tables with names by name; arrays go by position.
    on_extra_columns : {"raise", "ignore"}
        Whether columns of such tables that the flow has no names for are refused or left out with a warning; not saved.
    standardize : Standardize
        The first layer, whose `loc` and `scale` map from the user's units.
    condition_loc, condition_scale : ndarray (condition_dim,) or None
        Location and scale that conditions are standardized by.
    """

    _needs_condition: ClassVar[bool] = False
    """Whether every flow of the class has a condition."""

    def __init__(
        self,
        layers: Sequence[Layer],
        base_distribution: str | Base = "normal",
        *,
        condition_dim: int | None = None,
        embedding_dims: Sequence[int] = (),
        support: SupportLike | Pixels | None = None,
        columns: Sequence[str] | None = None,
        input_shape: Sequence[int] | None = None,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
        embedding_activation: str = "silu",
    ) -> None:
        given = list(layers) if isinstance(layers, Sequence) else []
        if not given or not all(isinstance(layer, Layer) for layer in given):
            raise ValueError(f"layers must be a sequence of at least one Layer, got {layers!r}")
        self.base_distribution = base_distribution
        self.embedding_dims: Sequence[int] = as_widths(embedding_dims, "embedding_dims")
        self.embedding_activation = as_choice(embedding_activation, "embedding_activation", ACTIVATIONS)
        embedding = None
        if self.embedding_dims:
            width = as_int(condition_dim, "condition_dim (with embedding_dims)")
            embedding = Embedding(width, self.embedding_dims, activation=self.embedding_activation, dtype=as_dtype(dtype),
                                  rng=as_rng(rng))  # fmt: skip
        shape = given[0].sample_shape if input_shape is None else as_shape(input_shape, "input_shape")
        super().__init__(given, shape, base_distribution, as_dtype(dtype), embedding, support=support, columns=columns)
        if self._needs_condition and not self.condition_dim:
            raise ValueError(
                f"{type(self).__name__} needs layers with a condition, and none here has condition_dim above 0"
            )
        if condition_dim not in (None, self.condition_dim):
            raise ValueError(f"condition_dim is {condition_dim!r}, and the layers take {self.condition_dim} values")

    @property
    def layers(self) -> list[Layer]:
        """The layers that the constructor would take to make this flow again: `flow_layers`."""
        return self.flow_layers

    @property
    def arguments(self) -> dict[str, Any]:
        values = super().arguments
        if len(self.input_shape) == 1 and "input_shape" in values:
            values["input_shape"] = None  # told by the layers
        return values

    @property
    def config(self) -> ModelConfiguration:
        """The configuration that `npflows.create` builds a flow of this kind from."""
        return configuration_of(self)

    fit, fit_variational, initialize = fit, fit_variational, initialize
    importance_weights, mode, entropy, kl_divergence = importance_weights, mode, entropy, kl_divergence
    to_unit_cube, from_unit_cube, marginal, conditional = to_unit_cube, from_unit_cube, marginal, conditional
    if TYPE_CHECKING:
        to_onnx, to_c = to_onnx, to_c
    else:
        to_onnx, to_c = DeferredMethod("npflows.export.onnx_file"), DeferredMethod("npflows.export.c_file")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the flow to one .npz file, in full or not at all; `npflows.load` reads it."""
        save(self, path)

    def verify(
        self, x: ArrayLike, condition: ArrayLike | None = None, rng: SeedLike = None, **options: Any
    ) -> VerificationReport:
        """A certificate of exactness at rows of x: see `npflows.verify.verify`; it is kept as `verification`, and saved."""
        self.verification = verify(self, x, condition, rng, **options)
        return self.verification

    def reset(self: _Flow, rng: SeedLike = None) -> _Flow:
        """Start afresh: new first weights, no standardization, no history, and no names that `fit` took from a table."""
        own = [type(part) for part in (*self.flow_layers, *(leaf for leaf, _ in self.leaves), self.base)]
        fresh = construct(type(self), self.arguments, as_rng(rng), known_classes(own))
        self.parameters.theta[:] = fresh.parameters.theta
        self._forget()
        return self
