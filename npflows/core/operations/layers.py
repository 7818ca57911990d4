"""Layers: invertible maps of samples with `dim` values."""

from __future__ import annotations

from dataclasses import dataclass

from npflows.core.operations.networks import ConvNet, Made, Mlp
from npflows.core.operations.operation import Operation, Shapes, prefixed_shapes
from npflows.core.operations.scalar_maps import ScalarMap

PARAMETERIZATIONS = ("plu", "full")


@dataclass(frozen=True)
class Coupling(Operation):
    """`kept` values are left unchanged and condition the map of the `moved` ones (Dinh et al. 2017, arXiv:1605.08803).

    The last `n_circles` of the kept values are on circles, the interval [-bound, bound] whose ends are one point; the
    network sees their cosines and then their sines.  `inverted` exchanges the directions.
    """

    kept: tuple[int, ...]
    moved: tuple[int, ...]
    conditioner: Mlp | ConvNet
    transformer: ScalarMap
    n_circles: int = 0
    bound: float = 1.0
    inverted: bool = False

    @property
    def dim(self) -> int:
        return len(self.kept) + len(self.moved)

    @property
    def shapes(self) -> Shapes:
        return prefixed_shapes("network.", self.conditioner.shapes) | self.transformer.shapes(len(self.moved))


@dataclass(frozen=True)
class Autoregressive(Operation):
    """The map of each value is conditioned on the values before it in `order` (Papamakarios et al. 2017,
    arXiv:1705.07057).

    `forward` takes the direction in which the network's input is known, unless `inverted` (Kingma et al. 2016,
    arXiv:1606.04934).  The network sees the cosine and sine of a value that has two rows, in [-bound, bound].
    """

    order: tuple[int, ...]
    conditioner: Made
    transformer: ScalarMap
    inverted: bool = False
    bound: float = 1.0

    @property
    def dim(self) -> int:
        return len(self.order)

    @property
    def shapes(self) -> Shapes:
        return prefixed_shapes("network.", self.conditioner.shapes) | self.transformer.shapes(self.dim)


@dataclass(frozen=True)
class Elementwise(Operation):
    """A scalar map of each value by itself; its raw parameters are learned directly.  `inverted` exchanges the
    directions."""

    dim: int
    transformer: ScalarMap
    inverted: bool = False

    @property
    def shapes(self) -> Shapes:
        return {"raw": (self.dim, self.transformer.multiplier)} | self.transformer.shapes(self.dim)


@dataclass(frozen=True)
class LULinear(Operation):
    """y = L S U x[order] + shift.

    The strict lower part of `matrix` is that of L, whose diagonal is 1, its strict upper part that of U, and its diagonal
    the logarithm of U's.  S is diagonal, with a sign 1 or -1 for each value, and the unit matrix without `signs`.
    """

    order: tuple[int, ...]
    signs: tuple[int, ...] = ()

    @property
    def dim(self) -> int:
        return len(self.order)

    @property
    def shapes(self) -> Shapes:
        return {"matrix": (self.dim, self.dim), "shift": (self.dim,)}


@dataclass(frozen=True)
class Householder(Operation):
    """y = H_k ... H_1 x with the reflections H_j = 1 - 2 v_j v_j^T / |v_j|^2 of `vectors`."""

    dim: int
    reflections: int

    @property
    def shapes(self) -> Shapes:
        return {"vectors": (self.reflections, self.dim)}


@dataclass(frozen=True)
class QRLinear(Operation):
    """y = Q R x + shift, with the reflections Q of `vectors` as in `Householder`.

    The strict upper part of `upper` is that of R, and its diagonal the logarithm of R's; what is below is not read.
    """

    dim: int
    reflections: int

    @property
    def shapes(self) -> Shapes:
        n = self.dim
        return {"upper": (n, n), "vectors": (self.reflections, n), "shift": (n,)}


@dataclass(frozen=True)
class SVDLinear(Operation):
    """y = Q_1 D Q_2 x + shift, with the reflections Q_1 of `left` and Q_2 of `right` as in `Householder`, and the diagonal
    D = exp(logs)."""

    dim: int
    reflections: int

    @property
    def shapes(self) -> Shapes:
        n, k = self.dim, self.reflections
        return {"left": (k, n), "logs": (n,), "right": (k, n), "shift": (n,)}


@dataclass(frozen=True)
class Permutation(Operation):
    """y[k] = x[order[k]]."""

    order: tuple[int, ...]

    @property
    def dim(self) -> int:
        return len(self.order)


@dataclass(frozen=True)
class Rotation(Operation):
    """y = x + angle for the values in `places`, wrapped to [-bound, bound); x elsewhere."""

    dim: int
    places: tuple[int, ...]
    bound: float

    @property
    def shapes(self) -> Shapes:
        return {"angles": (len(self.places),)}


@dataclass(frozen=True)
class LogTails(Operation):
    """y = x where |x| <= bound, and sign(x) (bound + arsinh(|x| - bound)) beyond, for the values in `places`; x elsewhere.

    The tails grow like the logarithm; the map has two continuous derivatives.
    """

    dim: int
    places: tuple[int, ...]
    bound: float


@dataclass(frozen=True)
class ActNorm(Operation):
    """y = (x + bias) exp(logs) for each of the channels, which the values take in turn."""

    dim: int
    channels: int

    @property
    def shapes(self) -> Shapes:
        return {"logs": (self.channels,), "bias": (self.channels,)}


@dataclass(frozen=True)
class Conv1x1(Operation):
    """y = W x for the channels x of every pixel; with "plu", W = L U with factors as in `LULinear`."""

    dim: int
    channels: int
    parameterization: str

    @property
    def shapes(self) -> Shapes:
        return {"matrix": (self.channels, self.channels)}


@dataclass(frozen=True)
class MadeOutputs(Operation):
    """Output j of feature d of a masked network as value j * D + d of the result; it has no inverse."""

    order: tuple[int, ...]
    conditioner: Made

    @property
    def dim(self) -> int:
        return len(self.order) * self.conditioner.multiplier

    @property
    def shapes(self) -> Shapes:
        return self.conditioner.shapes
