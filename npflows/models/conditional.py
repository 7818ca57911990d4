"""Flows of densities p(x | condition)."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import DTypeLike

from npflows.base.base import Base
from npflows.core.checks import SeedLike, as_int
from npflows.flow import NormalizingFlow
from npflows.models.realnvp import RealNVP
from npflows.support.declaration import SupportLike


class ConditionalNormalizingFlow(NormalizingFlow):
    """A flow whose layers see a condition: `forward`, `inverse`, `log_prob`, `sample`, `fit` take `condition=` and never
    make one up.

    Every model does so where `condition_dim` is given; this class makes such a flow from a list of layers and refuses
    layers without a condition.

    Parameters
    ----------
    layers, base_distribution, condition_dim, embedding_dims, embedding_activation, support, columns,
    input_shape, dtype, rng
        As in `NormalizingFlow`.
    """

    _needs_condition = True


class ConditionalRealNVP(ConditionalNormalizingFlow, RealNVP):
    """Affine coupling flow of a density p(x | condition) (Dinh et al. 2017, arXiv:1605.08803).

    Parameters
    ----------
    input_dim : int or tuple of int
        Number of features, at least 2; or the shape (height, width, channels) of an image.
    condition_dim : int
        Width of the condition, at least 1; `npflows.one_hot` makes one from class labels.
    num_coupling_layers, hidden_dims, mask_type, scale_activation, network, actnorm
        As in `RealNVP`.
    activation, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    base_distribution, embedding_dims, log_tails
        See `npflows.distribution.options.FlowOptions`.
    support, columns
        See `npflows.distribution.options.TableOptions`.
    """

    def __init__(
        self,
        input_dim: int | Sequence[int],
        condition_dim: int,
        num_coupling_layers: int = 8,
        hidden_dims: Sequence[int] = (128, 128),
        mask_type: str = "checkerboard",
        *,
        scale_activation: str = "tanh_gain",
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        residual_activations: str = "all",
        gated: bool = False,
        condition_in: str = "first",
        network: str = "dense",
        actnorm: bool = False,
        base_distribution: str | Base = "normal",
        embedding_dims: Sequence[int] = (),
        log_tails: float | None = 5.0,
        support: SupportLike | None = None,
        columns: Sequence[str] | None = None,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        RealNVP.__init__(
            self,
            input_dim,
            num_coupling_layers,
            hidden_dims,
            mask_type,
            scale_activation=scale_activation,
            activation=activation,
            residual_blocks=residual_blocks,
            dropout=dropout,
            residual_activations=residual_activations,
            gated=gated,
            condition_in=condition_in,
            network=network,
            actnorm=actnorm,
            base_distribution=base_distribution,
            condition_dim=as_int(condition_dim, "condition_dim"),
            embedding_dims=embedding_dims,
            log_tails=log_tails,
            support=support,
            columns=columns,
            dtype=dtype,
            rng=rng,
        )
