"""A mixture of normal distributions as base whose weights, means and scales follow from the condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base.base import Base
from npflows.base.gaussian_mixture import MixtureBase
from npflows.base.mixture_numbers import MixtureNumbers
from npflows.core import operations
from npflows.core.backend import Executable, select
from npflows.core.checks import SeedLike, as_choice, as_int, as_rng, as_widths
from npflows.networks.mlp import dense, first_parameters

VALUES_AT_ONCE = 1 << 22
"""Numbers of all mixtures that the network gives at a time, about."""
NEEDS_CONDITION = "ConditionalGaussianMixture is another distribution under each condition: use flow.base_under(condition)"


class ConditionalGaussianMixture(Base):
    """A mixture of normal distributions, each of independent columns, under a condition c:
    sum_k weights_k(c) N(z; loc_k(c), diag(scale_k(c)^2)).

    A dense network gives the logits of the weights, the means, and the logarithms of the standard deviations (mixture
    density networks, Bishop 1994, Aston University NCRG/94/004).  It sees of the condition what the layers of the flow
    see, standardized, and embedded where the flow has an embedding.  At first the mixture does not depend on the
    condition: weights are equal, means drawn from the standard normal distribution, and standard deviations 1.

    The flow has the condition even where none of its layers has one.  Methods of the base alone need
    `flow.base_under(condition)`.  Exports to C and ONNX have no such base.

    Parameters
    ----------
    dim : int
        Number of columns.
    condition_dim : int
        Values that the network sees: those of the condition, or the last of `embedding_dims`.
    n_components : int
        Number of normal distributions.
    hidden_dims : sequence of int
        Units of the network's hidden layers.
    activation : {"silu", "relu", "tanh", "elu", "leaky_relu"}
        The activation function of the network.
    dtype : {"float32", "float64"}
    rng : int, numpy.random.Generator or None
        Draws the first weights and means.

    Raises
    ------
    ValueError
        If a number is below 1, or the activation unknown.
    """

    def __init__(
        self,
        dim: int,
        condition_dim: int,
        n_components: int = 2,
        hidden_dims: Sequence[int] = (64, 64),
        *,
        activation: str = "silu",
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        self.dim, self.condition_dim = as_int(dim, "dim"), as_int(condition_dim, "condition_dim")
        self.n_components, self.hidden_dims = as_int(n_components, "n_components"), as_widths(hidden_dims)
        self.activation = as_choice(activation, "activation", operations.ACTIVATIONS)
        n_out = self.n_components * (2 * self.dim + 1)
        self._network = dense(self.condition_dim, self.hidden_dims, n_out, activation=self.activation)
        generator = as_rng(rng)
        super().__init__(dim, first_parameters(self._network, generator), dtype=dtype)
        loc = slice(self.n_components, self.n_components * (self.dim + 1))
        bias = self.parameters.views()[f"bias_{len(self.hidden_dims)}"]
        bias[loc] = generator.standard_normal(self.n_components * self.dim)

    def operation(self) -> operations.ConditionalGaussianMixture:
        return operations.ConditionalGaussianMixture(self.dim, self.n_components, self._network)

    def under(self, context: NDArray | None) -> Base:
        return _UnderConditions(self, context)

    def _numbers(self, context: NDArray[np.float64]) -> MixtureNumbers:
        """The mixtures under conditions (n, condition_dim) as the network sees them."""
        raw = select().network(self._network, self.parameters.theta, context)
        logits, loc, log_scale = np.split(raw, [self.n_components, self.n_components * (self.dim + 1)], axis=1)
        shape = len(raw), self.n_components, self.dim
        return MixtureNumbers.of(logits, loc.reshape(shape), log_scale.reshape(shape))

    @property
    def center(self) -> NDArray[np.float64]:
        raise ValueError(NEEDS_CONDITION)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        raise ValueError(NEEDS_CONDITION)

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        raise ValueError(NEEDS_CONDITION)

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        raise ValueError(NEEDS_CONDITION)

    def _seen(self, n: int) -> NDArray:
        raise ValueError(NEEDS_CONDITION)


class _UnderConditions(MixtureBase):
    """The mixtures under one condition, or under one for each sample, as the network sees them."""

    def __init__(self, base: ConditionalGaussianMixture, context: NDArray | None) -> None:
        if context is None:
            raise ValueError(f"{type(base).__name__} needs a condition, got None")
        self.dim, self.parameters = base.dim, base.parameters
        self._base, self._context, self._n_means = base, context, len(context)

    def __repr__(self) -> str:
        n = len(self._context)
        return f"{self._base!r} under {'one condition' if n == 1 else f'{n} conditions'}"

    def executable(self) -> Executable:
        return self._base.executable()

    def _seen(self, n: int) -> NDArray:
        """The conditions of n samples."""
        if len(self._context) not in (1, n):
            raise ValueError(f"there must be one condition, or one for each of the {n} samples, got {len(self._context)}")
        return np.broadcast_to(self._context, (n, self._context.shape[1]))

    def _mixtures(self, n: int) -> Iterator[tuple[slice, MixtureNumbers]]:
        context = self._seen(n)
        if len(self._context) == 1:
            yield slice(0, n), self._base._numbers(self._context)
            return
        at_once = max(1, VALUES_AT_ONCE // self._base.operation().conditioner.n_out)
        for start in range(0, max(n, 1), at_once):
            part = slice(start, min(start + at_once, n))
            yield part, self._base._numbers(context[part])
