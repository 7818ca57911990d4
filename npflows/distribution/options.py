"""The keywords that all models share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from npflows.base.base import Base
from npflows.core.checks import as_dtype, as_flag, as_positive, as_widths
from npflows.layers.layer import Layer
from npflows.layers.log_tails import LogTails
from npflows.networks.embedding import Embedding
from npflows.networks.options import DenseOptions, NetworkOptions
from npflows.support.columns import Periodic, Real
from npflows.support.declaration import SupportLike, as_columns


@dataclass(kw_only=True, repr=False, eq=False)
class FlowOptions(NetworkOptions):
    """Keywords of every model, beside those of `NetworkOptions`.

    Parameters
    ----------
    base_distribution : {"normal", "uniform", "student_t", "laplace", "cauchy", "logistic"} or Base
        The distribution on the latent side.
    embedding_dims : sequence of int
        Where given, a dense network with these hidden units, the last its output, is trained between the condition and
        the layers.
    log_tails : float or None
        Latent values beyond this, counted in standard deviations, are drawn in by a logarithm (`LogTails`), so that
        a single sample far out gets a low density and not an absurd one; None for no such layer.  It needs the base
        distribution "normal"; others have tails or bounds of their own, and get none.  Nor do flows with a support that is
        more than lines and circles: half-lines, intervals and groups come to the line by logarithms, which do the same.
    """

    arguments_of_older_files: ClassVar[dict[str, Any]] = {"log_tails": None}
    """What files from before there was such an argument stand for."""

    base_distribution: str | Base = "normal"
    embedding_dims: Sequence[int] = ()
    log_tails: float | None = 5.0

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.embedding_dims = as_widths(self.embedding_dims, "embedding_dims")
        if self.embedding_dims and not self.condition_dim:
            raise ValueError(f"embedding_dims={self.embedding_dims} embed a condition, and condition_dim is 0")
        seen, base = self._network_arguments["condition_dim"], self.base_distribution
        if isinstance(base, Base) and base.condition_dim not in (0, seen):
            raise ValueError(f"the base has condition_dim={base.condition_dim} where the layers see {seen} values")
        self.log_tails = None if self.log_tails is None else as_positive(self.log_tails, "log_tails")

    @property
    def _network_arguments(self) -> dict[str, Any]:
        seen = self.embedding_dims[-1] if self.embedding_dims else self.condition_dim
        return {**super()._network_arguments, "condition_dim": seen}

    def _with_tails(
        self,
        layers: Sequence[Layer],
        dim: int,
        dtype: DTypeLike,
        support: SupportLike | None = None,
        names: Sequence[str] | None = None,
    ) -> list[Layer]:
        """The layers, with `LogTails` for all `dim` latent values after them where these options want it.

        Columns that come to the line by a logarithm would have densities that grow without bound toward their open ends:
        such tails fall more slowly than the map's determinant rises.
        """
        columns = as_columns(support, dim, names) or ()
        logarithmic = not all(isinstance(column, (Real, Periodic)) for column in columns)
        if self.log_tails is None or self.base_distribution != "normal" or logarithmic:
            return list(layers)
        return [*layers, LogTails(dim, self.log_tails, dtype=dtype)]

    def _assembly_arguments(self, dtype: DTypeLike, rng: np.random.Generator) -> dict[str, Any]:
        """The keyword arguments of `npflows.distribution.assembly.Assembly` with these options."""
        embedding, checked = None, as_dtype(dtype)
        if self.embedding_dims:
            shared = {name: value for name, value in self._network_arguments.items() if name in ("activation", "dropout")}
            embedding = Embedding(self.condition_dim, self.embedding_dims, dtype=checked, rng=rng, **shared)
        return {"base": self.base_distribution, "dtype": checked, "embedding": embedding}


@dataclass(kw_only=True, repr=False, eq=False)
class TableOptions(FlowOptions, DenseOptions):
    """Keywords of the models of tables, beside those of `FlowOptions` and `DenseOptions`.

    Parameters
    ----------
    actnorm : bool
        Whether an `ActNormLayer`, set from the data by `fit`, comes before each layer that has a network.
    support : sequence or mapping of npflows.support columns, optional
        Where each column lives; see `NormalizingFlow`.
    columns : sequence of str, optional
        Names of the columns.
    """

    actnorm: bool = False
    support: InitVar[SupportLike | None] = None
    columns: InitVar[Sequence[str] | None] = None

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.actnorm = as_flag(self.actnorm, "actnorm")
