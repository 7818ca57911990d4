"""Scalar maps: y from x, monotone, for each value by itself, with `multiplier` raw parameters for each value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npflows.core.operations.operation import Shapes, are_flags, require

SPLINES = ("rational_quadratic", "linear", "quadratic", "cubic", "rational_linear")
CLIPS = ("soft_clip", "hard_clip", "tanh_clip", "sigmoid_clip", "atan_clip")
"""The scale activations that keep scales between a least one and its inverse."""
SCALE_ACTIVATIONS = ("none", "tanh", "tanh_gain", "sigmoid", "softplus", *CLIPS)


@dataclass(frozen=True)
class Affine:
    """y = x exp(s) + t (Dinh et al. 2017, arXiv:1605.08803, equation 8), or, with `shift_first`, y = (x - t) exp(-s)
    (Papamakarios et al. 2017, arXiv:1705.07057, equation 4).

    Raw parameters are (t, r); s is r, tanh r, gain * tanh r, log(sigmoid(r + 2) + least) or log(softplus(r) + least), the
    exponential of which stays below `most`.  There are `n_gains` learned gains, which the values take in turn; by default
    one for each value.

    The clips have size b = -log(least) at most: soft_clip is r / (1 + |r| / b), hard_clip is r between log(least) and
    log(most), tanh_clip is b tanh r, sigmoid_clip b (2 sigmoid(r) - 1), and atan_clip 0.636 b arctan r; the last three are
    TANH, SIGMOID and ATAN of FrEIA, whose `clamp` is b (Ardizzone et al. 2018, https://github.com/vislearn/FrEIA).
    """

    scale_activation: str
    shift_first: bool = False
    n_gains: int | None = None
    least: float = 0.0
    most: float = math.inf
    multiplier = 2
    sigmoid_offset = 2.0
    atan_factor = 0.636

    def __post_init__(self) -> None:
        require(self.scale_activation in SCALE_ACTIVATIONS, self, f"a scale_activation of {', '.join(SCALE_ACTIVATIONS)}")
        require(self.least >= 0 and self.most > self.least, self, "scales with 0 <= least < most")
        require(are_flags(self.shift_first), self, "a shift_first that is True or False")
        require(self.n_gains is None or self.n_gains >= 1, self, "n_gains of at least 1")
        if self.scale_activation in CLIPS:
            require(0 < self.least < 1, self, "a least scale between 0 and 1")
        if self.scale_activation == "hard_clip":
            require(self.most < math.inf, self, "a finite largest scale")

    @property
    def theta_per_value(self) -> int:
        """Learned parameters of each value by itself."""
        return 1 if self.scale_activation == "tanh_gain" else 0

    def shapes(self, n: int) -> Shapes:
        """Learned parameters of the map of n values, besides those that a conditioner gives."""
        return {"gain": (self.n_gains or n,)} if self.scale_activation == "tanh_gain" else {}


@dataclass(frozen=True)
class Additive:
    """y = x + t (Dinh et al. 2015, arXiv:1410.8516, section 3.2)."""

    multiplier = 1
    theta_per_value = 0

    def shapes(self, n: int) -> Shapes:
        return {}


@dataclass(frozen=True)
class Spline:
    """The monotone rational-quadratic spline (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8) on
    [-tail_bound, tail_bound], the identity outside.

    Raw parameters are `num_bins` widths and heights, through softmax, and num_bins - 1 inner derivatives, through softplus;
    for a value on a circle one more, which is that of both ends.  `circular` says it for all values, or for each.  With
    `free_ends` there are num_bins + 1, those at the two ends included.

    With a `least_slope` above 0, raw widths and heights r are r / (1 + |2 r / log(least_slope)|) before, and derivatives
    are exp(r / (1 + |r / log(least_slope)|)).  With `turned`, x + tail_bound, wrapped to [-tail_bound, tail_bound), is
    mapped in place of x (Rezende et al. 2020, arXiv:2002.02428).
    """

    num_bins: int
    tail_bound: float
    min_bin_width: float
    min_bin_height: float
    min_derivative: float
    circular: tuple[bool, ...] = (False,)
    free_ends: bool = False
    least_slope: float = 0.0
    turned: bool = False
    theta_per_value = 0

    def __post_init__(self) -> None:
        require(self.num_bins >= 1 and len(self.circular) >= 1, self, "num_bins of at least 1, and flags of circles")
        require(0 < self.tail_bound < math.inf, self, "a tail_bound above 0")
        flags = (*self.circular, self.free_ends, self.turned)
        require(are_flags(*flags), self, "circular, free_ends and turned that are True or False")
        least = (self.min_bin_width, self.min_bin_height)
        require(all(size >= 0 and size * self.num_bins < 1 for size in least), self, "bins that fit into the interval")
        require(0 <= self.min_derivative < 1, self, "a min_derivative of at least 0 and below 1")
        require(0 <= self.least_slope < 1, self, "a least_slope of at least 0 and below 1")
        plain = not (self.free_ends or self.is_clipped)
        require(plain or not any(self.circular), self, "circles, or free ends, least slopes and turns, not both")

    @property
    def multiplier(self) -> int:
        return 3 * self.num_bins + (1 if self.free_ends else 0 if any(self.circular) else -1)

    @property
    def is_clipped(self) -> bool:
        """Whether raw parameters or values are changed before the spline that all others have."""
        return self.least_slope > 0 or self.turned

    @property
    def derivative_shift(self) -> float:
        """The number that is added to a raw derivative, so that 0 gives 1: its softplus is 1 - min_derivative."""
        return shift_of_derivatives(self.min_derivative)

    def shapes(self, n: int) -> Shapes:
        return {}


def shift_of_derivatives(least: float) -> float:
    """The number whose softplus is 1 - least."""
    return math.log(math.expm1(1 - least))


@dataclass(frozen=True)
class PiecewiseSpline:
    """A monotone spline of one of the kinds `SPLINES` on [-tail_bound, tail_bound].

    Beyond, the map is the identity, or, with `sloped_tails`, a line with the slope that the spline has at its end.  Of K
    bins the raw parameters are

    - linear (Mueller et al. 2019, arXiv:1808.03856, section 4.1): K heights, through softmax; all widths are the same;
    - quadratic (the same, section 4.2): K widths, through softmax, and derivatives at the K - 1 inner knots, through
      softplus, divided by their mean; those at the ends are 1 where `end_weight` is 1, or K + 1 with `free_ends`;
    - cubic (Durkan et al. 2019, arXiv:1906.02145, section 3): K widths and heights, and the derivatives at the ends as
      shares, through the logistic function, of 3 times the slope of the bin; those at inner knots are Steffen's (1990);
    - rational_linear (Dolatabadi et al. 2020, arXiv:2001.05168, section 3): K widths and heights, derivatives at the
      K - 1 inner knots, or at K + 1 with `free_ends`, through softplus, and where K bins are divided, through the logistic
      function;
    - rational_quadratic (Durkan et al. 2019, arXiv:1906.04032): K widths and heights, and K + 1 derivatives, with
      `free_ends`.

    The least height of quadratic splines is a least derivative, and the least derivative of cubic ones a least share m,
    from which on to 1 - m shares go.
    """

    kind: str
    num_bins: int
    tail_bound: float
    min_bin_width: float
    min_bin_height: float
    min_derivative: float
    free_ends: bool = False
    sloped_tails: bool = False
    end_weight: float = 1.0
    theta_per_value = 0
    least_density = 1e-3
    least_share = 0.025

    def __post_init__(self) -> None:
        require(self.kind in SPLINES, self, f"a kind of {', '.join(SPLINES)}")
        require(
            self.num_bins >= 2 and 0 < self.tail_bound < math.inf, self, "num_bins of at least 2, and a tail_bound above 0"
        )
        least = (self.min_bin_width, self.min_bin_height)
        require(all(size >= 0 and size * self.num_bins < 1 for size in least), self, "bins that fit into the interval")
        flags = (self.free_ends, self.sloped_tails)
        require(are_flags(*flags), self, "free_ends and sloped_tails that are True or False")
        most = 1 / 3 if self.kind == "cubic" else 1
        require(0 <= self.min_derivative < most, self, "a min_derivative of at least 0 and below 1, or 1/3 if it is cubic")
        if self.kind in ("linear", "cubic"):
            require(not self.free_ends, self, "free_ends=False where it is linear or cubic, as these always are")
        elif self.sloped_tails or self.kind == "rational_quadratic":
            require(self.free_ends, self, "free_ends=True where tails are sloped or it is rational-quadratic")
        weight = 0 < self.end_weight <= 1 and (self.end_weight == 1 or self.kind == "quadratic")
        require(weight, self, "an end_weight above 0 and at most 1, which is 1 unless it is quadratic")

    @property
    def num_derivatives(self) -> int:
        """Raw parameters that are derivatives at knots."""
        if self.kind == "linear":
            return 0
        return 2 if self.kind == "cubic" else self.num_bins + (1 if self.free_ends else -1)

    @property
    def multiplier(self) -> int:
        blocks = {"linear": 1, "quadratic": 1, "rational_linear": 3}.get(self.kind, 2)
        return blocks * self.num_bins + self.num_derivatives

    @property
    def derivative_shift(self) -> float:
        """The number that is added to a raw derivative, so that 0 gives a slope of 1 where all bins are as high as wide."""
        if self.kind == "quadratic":
            return 0.0
        if self.kind == "cubic":
            return math.log((1 / 3 - self.min_derivative) / (2 / 3 - self.min_derivative))
        return shift_of_derivatives(self.min_derivative)

    def shapes(self, n: int) -> Shapes:
        return {}


@dataclass(frozen=True)
class Bernstein:
    """An increasing Bernstein polynomial on [-tail_bound, tail_bound] (Sick et al. 2020, arXiv:2004.00464, equation 9).

    With X = (x + tail_bound) / (2 tail_bound) the map is sum_i c_i binomial(N, i) X^i (1 - X)^(N - i).  The two first
    increments of the coefficients c are the same, and so are the two last ones, so that the second derivative is 0 at
    both ends.  Of `num_parameters` = P raw ones, those of a `bounded` polynomial of degree P + 4 give increments through
    softmax; the map is onto the interval, with slopes of 1 at the ends (Arpogaus et al. 2022, arXiv:2204.13939), and the
    identity beyond.  Those of another, of degree P + 1, are the first coefficient plus tail_bound, and increments through
    softplus; beyond, the map is a line.
    """

    num_parameters: int
    tail_bound: float
    bounded: bool = True
    theta_per_value = 0

    def __post_init__(self) -> None:
        require(self.num_parameters >= 2, self, "num_parameters of at least 2")
        require(are_flags(self.bounded), self, "a bounded that is True or False")
        require(0 < self.tail_bound < math.inf, self, "a tail_bound above 0")

    @property
    def multiplier(self) -> int:
        return self.num_parameters

    @property
    def degree(self) -> int:
        """The degree of the polynomial."""
        return self.num_parameters + (4 if self.bounded else 1)

    @property
    def increment_shift(self) -> float:
        """The number that is added to a raw increment, so that 0 gives a slope of 1."""
        return math.log(math.expm1(2 * self.tail_bound / self.degree))

    def shapes(self, n: int) -> Shapes:
        return {}


@dataclass(frozen=True)
class LogisticMixture:
    """The logit of the distribution function of a mixture of logistics, then an affine map (Ho et al. 2019,
    arXiv:1902.00275, section 3.2):

        y = logit(sum_k p_k sigmoid((x - m_k) exp(-s_k))) exp(a) + b

    Raw parameters are b, a, and for the K components the logits of p, the locations m, to which the numbers `offsets` are
    added, as equal components would stay equal, and the log-scales s.  a and s are r / (1 + |r / log(least_scale)|) of raw
    ones r.
    """

    num_components: int
    least_scale: float = 1e-2
    theta_per_value = 0

    def __post_init__(self) -> None:
        require(self.num_components >= 1, self, "num_components of at least 1")
        require(0 < self.least_scale < 1, self, "a least_scale between 0 and 1")

    @property
    def multiplier(self) -> int:
        return 2 + 3 * self.num_components

    @property
    def limit(self) -> float:
        """What log-scales stay below."""
        return -math.log(self.least_scale)

    @property
    def offsets(self) -> tuple[float, ...]:
        """Numbers from -2 to 2 at equal distances."""
        k = self.num_components
        return tuple(2 * (2 * i + 1 - k) / k for i in range(k))

    def shapes(self, n: int) -> Shapes:
        return {}


ScalarMap = Affine | Additive | Spline | PiecewiseSpline | Bernstein | LogisticMixture
