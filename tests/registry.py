"""Every layer and every model by name; every check of the suite runs on all of them.

An entry is a constructor that takes `dtype` and `rng`.  To have a new layer or model tested, add an entry here.
"""

import numpy as np
import pytest

from npflows import (
    IAF,
    MAF,
    ActNormLayer,
    AffineCouplingLayer,
    Autoregressive,
    Beta,
    Cauchy,
    Chain,
    ConditionalGaussianMixture,
    ConditionalNormalizingFlow,
    ConditionalRealNVP,
    Coupling,
    CouplingLayer,
    Elementwise,
    GaussianMixture,
    Glow,
    GlowBlock,
    Householder,
    IAFLayer,
    InvertibleConv1x1,
    Laplace,
    Logistic,
    LogTails,
    LULinear,
    MAFLayer,
    MonotoneAutoregressiveLayer,
    MonotoneCouplingLayer,
    MonotoneLayer,
    NeuralSplineFlow,
    Normal,
    NormalizingFlow,
    Permutation,
    QRLinear,
    RealNVP,
    Rotation,
    SplineAutoregressiveLayer,
    SplineCouplingLayer,
    SplineLayer,
    Split,
    Squeeze,
    Standardize,
    StudentT,
    SVDLinear,
    Uniform,
    support,
)
from npflows.layers import ImageLayer
from npflows.networks import convolutional, dense, masked
from npflows.transformers import Additive, Affine, spline

LAYERS = {
    "coupling": lambda **o: CouplingLayer([1, 0, 0], (12,), "tanh", activation="tanh", **o),
    "coupling, learned gain": lambda **o: CouplingLayer([0, 1, 1, 0, 1], (16, 8), "tanh_gain", activation="silu", **o),
    "coupling, unbounded scale": lambda **o: CouplingLayer([0, 1], (8,), "none", **o),
    "coupling, unbounded scale, tanh": lambda **o: CouplingLayer([0, 1, 0, 0], (8,), "none", activation="tanh", **o),
    "coupling, condition": lambda **o: CouplingLayer([1, 0, 0, 0, 1, 0], (12,), activation="elu", condition_dim=2, **o),
    "coupling, leaky": lambda **o: CouplingLayer([0, 1, 1, 1], (16,), "tanh_gain", activation="leaky_relu", **o),
    "coupling, no hidden layer": lambda **o: CouplingLayer([1, 0, 0], (), **o),
    "coupling, residual blocks": lambda **o: CouplingLayer(
        [1, 0, 1, 0], (8,), activation="silu", residual_blocks=2, condition_dim=1, **o
    ),
    "spline coupling": lambda **o: SplineCouplingLayer([1, 0, 0, 1], (12,), 5, 2.0, activation="silu", **o),
    "spline coupling, condition": lambda **o: SplineCouplingLayer([0, 1, 0], (12, 8), 3, condition_dim=2, **o),
    "spline, autoregressive": lambda **o: SplineAutoregressiveLayer(4, (16,), [2, 0, 3, 1], 4, activation="tanh", **o),
    "spline, autoregressive, residual": lambda **o: SplineAutoregressiveLayer(
        3, (12,), None, 2, activation="silu", residual_blocks=1, condition_dim=1, **o
    ),
    "spline, autoregressive, circles": lambda **o: SplineAutoregressiveLayer(
        5, (12,), [2, 0, 4, 3, 1], 4, 6.0, circular=[1, 0, 1, 0, 1], activation="silu", condition_dim=1, **o
    ),
    "spline, autoregressive, many circles, residual": lambda **o: SplineAutoregressiveLayer(
        11,
        (14,),
        np.roll(np.arange(11), 3),
        3,
        6.0,
        circular=np.arange(11) % 3 < 2,
        activation="tanh",
        residual_blocks=1,
        **o,
    ),
    "spline of each column": lambda dtype, rng: SplineLayer(3, 6, 2.5, dtype=dtype),
    "spline of each column, inverted": lambda dtype, rng: SplineLayer(
        3, 5, 2.5, free_ends=True, inverted=True, dtype=dtype
    ),
    "LU": lambda **o: LULinear(5, **o),
    "LU, one value": lambda **o: LULinear(1, "natural", **o),
    "LU, signs": lambda **o: LULinear(5, [3, 0, 4, 1, 2], [1, -1, 1, -1, -1], **o),
    "reflections": lambda dtype, rng: Householder(5, dtype=dtype),
    "reflections, an odd number": lambda dtype, rng: Householder(3, 7, dtype=dtype),
    "QR": lambda dtype, rng: QRLinear(5, dtype=dtype),
    "QR, one value": lambda dtype, rng: QRLinear(1, 1, dtype=dtype),
    "SVD": lambda dtype, rng: SVDLinear(4, dtype=dtype),
    "SVD, an odd number": lambda dtype, rng: SVDLinear(5, 3, dtype=dtype),
    "spline coupling, circles": lambda **o: SplineCouplingLayer(
        [1, 0, 1, 0, 1], (12,), 4, 6.0, circular=[1, 1, 0, 0, 1], activation="silu", condition_dim=1, **o
    ),
    "spline of each column, circles": lambda dtype, rng: SplineLayer(3, 4, 6.0, circular=[0, 1, 1], dtype=dtype),
    "spline of one column on a circle, condition": lambda **o: SplineAutoregressiveLayer(
        1, (8,), None, 3, 6.0, circular=[True], activation="tanh", condition_dim=1, **o
    ),
    "spline coupling, linear, slopes of the ends": lambda **o: SplineCouplingLayer(
        [1, 0, 0, 1], (12,), 5, 2.0, spline="linear", tails="end_slope", activation="silu", **o
    ),
    "spline, autoregressive, linear": lambda **o: SplineAutoregressiveLayer(
        3, (12,), [1, 2, 0], 4, spline="linear", activation="tanh", **o
    ),
    "spline, autoregressive, quadratic": lambda **o: SplineAutoregressiveLayer(
        3, (12,), None, 4, spline="quadratic", activation="silu", condition_dim=1, **o
    ),
    "spline of each column, quadratic, slopes of the ends": lambda dtype, rng: SplineLayer(
        3, 5, 2.5, spline="quadratic", tails="end_slope", dtype=dtype
    ),
    "spline coupling, quadratic, end weight": lambda **o: SplineCouplingLayer(
        [0, 1, 0], (12,), 3, spline="quadratic", end_weight=0.5, activation="tanh", **o
    ),
    "spline coupling, cubic": lambda **o: SplineCouplingLayer(
        [1, 0, 0], (12,), 4, 2.0, spline="cubic", activation="silu", inverted=True, **o
    ),
    "spline, autoregressive, cubic, slopes of the ends": lambda **o: SplineAutoregressiveLayer(
        4, (12,), [2, 0, 3, 1], 5, 2.0, spline="cubic", tails="end_slope", activation="tanh", **o
    ),
    "spline coupling, rational-linear": lambda **o: SplineCouplingLayer(
        [1, 0, 1, 0], (12,), 4, 2.0, spline="rational_linear", activation="tanh", condition_dim=1, **o
    ),
    "spline, autoregressive, rational-linear, slopes of the ends": lambda **o: SplineAutoregressiveLayer(
        3, (12,), None, 3, spline="rational_linear", tails="end_slope", activation="silu", inverted=True, **o
    ),
    "spline of each column, slopes of the ends": lambda dtype, rng: SplineLayer(3, 4, 1.5, tails="end_slope", dtype=dtype),
    "mixture of logistics, coupling": lambda **o: MonotoneCouplingLayer(
        [1, 0, 0, 1], (12,), num_terms=3, activation="tanh", condition_dim=1, **o
    ),
    "mixture of logistics, autoregressive": lambda **o: MonotoneAutoregressiveLayer(
        3, (12,), [2, 0, 1], num_terms=4, min_scale=0.2, activation="silu", inverted=True, **o
    ),
    "mixture of logistics of each column": lambda dtype, rng: MonotoneLayer(2, num_terms=1, inverted=True, dtype=dtype),
    "Bernstein polynomials, coupling": lambda **o: MonotoneCouplingLayer(
        [0, 1, 0], (12,), scalar_map="bernstein", tail_bound=3.0, bounded=False, activation="tanh", inverted=True, **o
    ),
    "Bernstein polynomials, autoregressive": lambda **o: MonotoneAutoregressiveLayer(
        4, (12,), [2, 0, 3, 1], scalar_map="bernstein", num_terms=6, tail_bound=2.0, activation="silu", condition_dim=1, **o
    ),
    "Bernstein polynomial of each column": lambda dtype, rng: MonotoneLayer(
        3, scalar_map="bernstein", num_terms=5, tail_bound=1.5, bounded=False, dtype=dtype
    ),
    "rotation": lambda **o: Rotation([0, 1, 1, 0], 6.0, **o),
    "log tails": lambda dtype, rng: LogTails(4, 0.7, dtype=dtype),
    "ActNorm": lambda dtype, rng: ActNormLayer(4, dtype=dtype),
    "ActNorm, images": lambda dtype, rng: ActNormLayer(3, image_size=(2, 4), dtype=dtype),
    "1x1 convolution": lambda **o: InvertibleConv1x1(5, **o),
    "1x1 convolution, images": lambda **o: InvertibleConv1x1(3, image_size=(3, 2), **o),
    "1x1 convolution, full": lambda **o: InvertibleConv1x1(4, "full", image_size=(2, 2), **o),
    "coupling, least scale": lambda **o: CouplingLayer(
        [1, 0, 0, 1], (12,), "sigmoid", activation="tanh", min_scale=1e-3, shift_first=True, **o
    ),
    "coupling, softplus": lambda **o: CouplingLayer([0, 1, 0], (8,), "softplus", activation="silu", min_scale=1e-3, **o),
    "MAF layer, softplus, scale first": lambda **o: MAFLayer(
        4, (16,), None, "softplus", activation="tanh", shift_first=False, min_scale=1e-3, condition_dim=1, **o
    ),
    "IAF layer, sigmoid, shift first": lambda **o: IAFLayer(
        3, (12,), [2, 0, 1], "sigmoid", activation="tanh", shift_first=True, min_scale=0.1, **o
    ),
    "coupling, gates": lambda **o: CouplingLayer(
        [1, 0, 1, 0],
        (7,),
        "soft_clip",
        min_scale=1e-2,
        activation="tanh",
        residual_blocks=2,
        gated=True,
        residual_activations="blocks",
        condition_dim=2,
        **o,
    ),
    "MAF layer, degrees given, inner activations": lambda **o: MAFLayer(
        4,
        (6,),
        [2, 0, 3, 1],
        "soft_clip",
        activation="silu",
        min_scale=1e-2,
        residual_blocks=2,
        residual_activations="inner",
        hidden_degrees=[[0, 0, 1, 2, 2, 3]] * 5,
        condition_dim=1,
        **o,
    ),
    "IAF layer, gates, degrees given": lambda **o: IAFLayer(
        5,
        (8,),
        None,
        "softplus",
        min_scale=1e-3,
        max_scale=0.9,
        activation="tanh",
        residual_blocks=2,
        residual_activations="blocks",
        gated=True,
        condition_in="blocks",
        hidden_degrees=[[1, 1, 2, 2, 3, 3, 4, 4]] * 5,
        condition_dim=2,
        **o,
    ),
    "coupling, hard clip": lambda **o: CouplingLayer(
        [1, 0, 0, 1], (12,), "hard_clip", activation="tanh", min_scale=0.7, max_scale=1.2, **o
    ),
    "MAF layer, tanh clip": lambda **o: MAFLayer(3, (12,), None, "tanh_clip", activation="tanh", min_scale=0.1, **o),
    "IAF layer, sigmoid clip": lambda **o: IAFLayer(
        4, (12,), [2, 0, 3, 1], "sigmoid_clip", activation="silu", min_scale=0.1, condition_dim=1, **o
    ),
    "coupling, arctangent clip": lambda **o: CouplingLayer(
        [0, 1, 0], (8,), "atan_clip", activation="tanh", min_scale=0.1, shift_first=True, condition_dim=1, **o
    ),
    "coupling of a network and a map": lambda **o: Coupling(
        [1, 0, 0, 1], dense(2, (10,), 28, activation="tanh", condition_dim=1), spline(5, 2.0, 0.0, 0.0, 0.0), **o
    ),
    "coupling of a network and a map, circles": lambda **o: Coupling(
        [1, 0, 1, 0],
        dense(3, (9,), 24, activation="silu"),
        spline(4, 6.0, 1e-3, 1e-3, 1e-3, [True, False]),
        circular=[1, 1, 0, 0],
        bound=6.0,
        inverted=True,
        **o,
    ),
    "coupling of convolutions and a map": lambda **o: Coupling(
        [1, 0] * 6,
        convolutional(np.resize([1, 0], (2, 3, 2)), (5,), 8, activation="tanh"),
        spline(3, 3.0, 0.0, 0.0, 0.0),
        **o,
    ),
    "autoregressive layer of a network and a map": lambda **o: Autoregressive(
        [2, 0, 1, 3], masked(4, (9, 8), 1, activation="tanh", condition_dim=1), Additive(), inverted=True, **o
    ),
    "map of each column": lambda dtype, rng: Elementwise(3, Affine("tanh_clip", least=0.2), dtype),
    "chain": lambda **o: Chain(
        [Permutation(3, "random", **o), MAFLayer(3, (8,), activation="tanh", condition_dim=2, **o), LULinear(3, **o)]
    ),
    "spline coupling, free ends, inverted": lambda **o: SplineCouplingLayer(
        [1, 0, 0, 1], (12,), 4, 2.0, 0.0, 0.0, 0.0, free_ends=True, inverted=True, activation="tanh", condition_dim=1, **o
    ),
    "spline, autoregressive, inverted, least slope": lambda **o: SplineAutoregressiveLayer(
        4, (16,), [2, 0, 3, 1], 4, 2.0, 0.0, 0.0, 0.0, least_slope=1e-2, inverted=True, activation="tanh", **o
    ),
    "spline, autoregressive, turned": lambda **o: SplineAutoregressiveLayer(
        3, (9,), None, 4, 6.0, 1e-3, 1e-3, 0.0, least_slope=1e-3, turned=True, activation="tanh", condition_dim=1, **o
    ),
    "image coupling": lambda **o: AffineCouplingLayer(
        4, (6, 5), scale_activation="sigmoid", image_size=(3, 5), activation="tanh", **o
    ),
    "image coupling, odd channels": lambda **o: AffineCouplingLayer(
        3, (6,), scale_activation="tanh_gain", image_size=(2, 3), **o
    ),
    "image coupling, condition": lambda **o: AffineCouplingLayer(
        2, (6, 7, 5), scale_activation="none", image_size=(4, 2), activation="silu", condition_dim=2, **o
    ),
    "image coupling, no ActNorm": lambda **o: AffineCouplingLayer(
        2, (8, 8), image_size=(3, 3), activation="silu", actnorm=False, condition_dim=1, **o
    ),
    "image coupling, additive": lambda **o: AffineCouplingLayer(
        4, (8,), coupling="additive", image_size=(2, 2), activation="leaky_relu", **o
    ),
    "image coupling, dense": lambda **o: AffineCouplingLayer(
        4, (16,), "dense", scale_activation="sigmoid", image_size=(2, 2), activation="tanh", condition_dim=1, **o
    ),
    "image coupling, vectors": lambda **o: AffineCouplingLayer(5, (8, 8), activation="elu", **o),
    "convolutions, checkerboard": lambda **o: CouplingLayer(
        (np.indices((4, 3, 2))[:2].sum(0) + 1) % 2, (6, 6), "tanh_gain", network="conv", activation="silu", **o
    ),
    "one convolution, condition": lambda **o: CouplingLayer(
        [[[1, 0, 0]] * 3] * 2, (), "tanh", network="conv", shift_first=True, condition_dim=2, **o
    ),
    "Glow block": lambda **o: GlowBlock(4, (6, 6), image_size=(2, 3), activation="tanh", **o),
    "Glow block, full, condition": lambda **o: GlowBlock(
        3, (8,), parameterization="full", scale_activation="tanh", image_size=(2, 2), condition_dim=1, **o
    ),
    "squeeze": lambda dtype, rng: Squeeze(3, image_size=(4, 2), dtype=dtype),
    "split": lambda dtype, rng: Split(4, image_size=(3, 2), condition_dim=1, dtype=dtype),
    "split, standard": lambda dtype, rng: Split(2, "standard", image_size=(2, 2), dtype=dtype),
    "reversal": lambda **o: Permutation(5, **o),
    "random permutation": lambda **o: Permutation(6, "random", **o),
    "given permutation": lambda **o: Permutation(4, [2, 0, 3, 1], **o),
    "standardize, correlations": lambda dtype, rng: Standardize(
        3, [5.0, -2.0, 0.0], [2.0, 0.25, 1.0], [[1.0, 0, 0], [-0.6, 0.8, 0], [0.0, 0.8, 0.6]], dtype=dtype
    ),
    "standardize": lambda dtype, rng: Standardize(3, [5.0, -2.0, 0.0], [2.0, 0.25, 1.0], dtype=dtype),
}


def _autoregressive(layer):
    return {
        "": lambda **o: layer(4, (16,), activation="tanh", **o),
        ", random order": lambda **o: layer(6, (24, 16), [3, 0, 5, 1, 4, 2], "none", activation="silu", **o),
        ", one feature": lambda **o: layer(1, (8,), **o),
        ", one feature, condition": lambda **o: layer(1, (8,), activation="tanh", condition_dim=2, **o),
        ", condition": lambda **o: layer(3, (12,), [2, 0, 1], "tanh", activation="elu", condition_dim=2, **o),
        ", deep, condition": lambda **o: layer(5, (10, 16), activation="silu", condition_dim=1, **o),
        ", no hidden layer": lambda **o: layer(4, (), **o),
        ", three hidden layers": lambda **o: layer(5, (16, 8, 24), activation="leaky_relu", **o),
        ", residual blocks": lambda **o: layer(5, (12,), activation="silu", residual_blocks=2, condition_dim=1, **o),
        ", many features": lambda **o: layer(18, (40, 34), np.roll(np.arange(18), 5)[::-1], activation="elu", **o),
    }


for _kind, _class in (("MAF layer", MAFLayer), ("IAF layer", IAFLayer)):
    LAYERS |= {_kind + variant: make for variant, make in _autoregressive(_class).items()}


def _mixed(dtype, rng):
    options = {"dtype": dtype, "rng": rng, "activation": "tanh", "condition_dim": 1}
    layers = [
        Permutation(3, "random", dtype=dtype, rng=rng),
        CouplingLayer([0, 1, 0], (8,), "none", **options),
        MAFLayer(3, (8,), [1, 2, 0], **options),
        Permutation(3, dtype=dtype),
        IAFLayer(3, (8, 8), **options),
    ]
    return NormalizingFlow(layers, Normal(3, [1.0, 0.0, -1.0], [1.0, 2.0, 0.5], dtype=dtype), dtype=dtype)


def _conditional(dtype, rng):
    layers = [
        CouplingLayer([0, 1, 0], (8,), condition_dim=2, activation="tanh", dtype=dtype, rng=rng),
        LULinear(3, dtype=dtype, rng=rng),
    ]
    return ConditionalNormalizingFlow(layers, "normal", condition_dim=4, embedding_dims=(5, 2), dtype=dtype, rng=rng)


def _linear(dtype, rng):
    layers = [
        QRLinear(3, dtype=dtype),
        CouplingLayer([0, 1, 0], (8,), activation="tanh", condition_dim=1, dtype=dtype, rng=rng),
        Householder(3, 3, dtype=dtype),
        LULinear(3, [2, 0, 1], [-1, 1, -1], dtype=dtype),
        MAFLayer(3, (8,), activation="silu", dtype=dtype, rng=rng),
        SVDLinear(3, dtype=dtype),
    ]
    return NormalizingFlow(layers, dtype=dtype)


def _image_layers(dtype, rng):
    layers = [
        Squeeze(1, dtype=dtype),
        GlowBlock(4, (6, 6), activation="tanh", dtype=dtype, rng=rng),
        Split(4, dtype=dtype),
        InvertibleConv1x1(2, dtype=dtype, rng=rng),
        AffineCouplingLayer(2, (5,), scale_activation="none", activation="tanh", dtype=dtype, rng=rng),
    ]
    return NormalizingFlow(layers, input_shape=(4, 2, 1), dtype=dtype)


def _only_standardize(dtype, rng):
    base = StudentT(2, [3.0, 50.0], learnable=False, dtype=dtype)
    return NormalizingFlow([Standardize(2, [1.0, 2.0], [3.0, 0.1], dtype=dtype)], base, dtype=dtype)


def _without_correlations(dtype, rng):
    factor = np.linalg.cholesky([[1.0, 0.9, -0.3], [0.9, 1.0, -0.5], [-0.3, -0.5, 1.0]])
    layers = [
        Standardize(3, [1.0, 2.0, 0.0], [0.5, 0.1, 1.0], factor, dtype=dtype),
        CouplingLayer([0, 1, 0], (8,), "none", activation="tanh", condition_dim=1, dtype=dtype, rng=rng),
        LogTails(3, 1.5, dtype=dtype),
    ]
    columns = [support.positive(), support.real(), support.interval(-30.0, 60.0)]
    return NormalizingFlow(layers, support=columns, dtype=dtype)


def _with_base(base, **own):
    """A flow of three columns on a base distribution, by a coupling whose scales are clipped."""

    def make(dtype, rng):
        options = {"activation": "tanh", "min_scale": 0.3, "condition_dim": 1, "dtype": dtype, "rng": rng}
        layers = [CouplingLayer([0, 1, 0], (8,), "atan_clip", **options)]
        return NormalizingFlow(layers, base(3, dtype=dtype, **own), dtype=dtype)

    return make


def _on_conditional_mixture(dtype, rng):
    """A condition of which the base alone has anything, through an embedding."""
    layers = [LULinear(2, dtype=dtype, rng=rng), CouplingLayer([0, 1], (8,), activation="silu", dtype=dtype, rng=rng)]
    base = ConditionalGaussianMixture(2, 5, 4, (), dtype=dtype, rng=rng)
    return NormalizingFlow(layers, base, condition_dim=3, embedding_dims=(6, 5), dtype=dtype, rng=rng)


NOT_EXPORTED = ("flow on a conditional mixture", "conditional mixture, embedding")
"""Models whose base exports to C and ONNX refuse by name."""

MODELS = {
    "flow on Laplace": _with_base(Laplace, loc=[1.0, 0.0, -1.0], scale=[1.0, 2.0, 0.5], learnable=True),
    "flow on Cauchy": _with_base(Cauchy, scale=0.5),
    "flow on Cauchy, learned": _with_base(Cauchy, learnable=True),
    "flow on logistic": _with_base(Logistic, loc=0.5, learnable=True),
    "flow on a mixture": _with_base(GaussianMixture, n_components=4, scale=0.7, weights=[1.0, 2.0, 3.0, 1.0], rng=1),
    "flow on a conditional mixture": _with_base(
        ConditionalGaussianMixture, condition_dim=1, n_components=3, hidden_dims=(9, 8), rng=3
    ),
    "conditional mixture, embedding": _on_conditional_mixture,
    "flow on a mixture, fixed": _with_base(GaussianMixture, learnable=False, rng=2),
    "RealNVP": lambda **o: RealNVP(5, 4, (12,), activation="tanh", **o),
    "RealNVP, half, relu": lambda **o: RealNVP(2, 3, (16, 16), "half", base_distribution="student_t", **o),
    "RealNVP, channel-wise, silu": lambda **o: RealNVP(3, 2, (8,), "channel-wise", activation="silu", **o),
    "RealNVP, uniform": lambda **o: RealNVP(2, 2, (8,), scale_activation="tanh", base_distribution="uniform", **o),
    "RealNVP, condition": lambda **o: RealNVP(3, 2, (8,), scale_activation="none", condition_dim=2, **o),
    "RealNVP, image": lambda **o: RealNVP((4, 4, 2), 2, (20,), activation="tanh", **o),
    "RealNVP, image, channel-wise": lambda **o: RealNVP((2, 3, 2), 3, (16,), "channel-wise", activation="silu", **o),
    "MAF": lambda **o: MAF(4, 3, (16,), activation="tanh", **o),
    "MAF, two features": lambda **o: MAF(2, 2, (12, 12), scale_activation="none", activation="silu", **o),
    "MAF, one feature": lambda **o: MAF(1, 2, (8,), base_distribution="student_t", **o),
    "MAF, beta": lambda dtype, rng: MAF(
        3,
        2,
        (12,),
        scale_activation="tanh",
        activation="tanh",
        base_distribution=Beta(3, 13.0, 4.0, dtype=dtype),
        dtype=dtype,
        rng=rng,
    ),
    "MAF, random orders": lambda **o: MAF(5, 2, (16, 8), orders="random", base_distribution="student_t", **o),
    "MAF, uniform, condition": lambda dtype, rng: MAF(
        3, 2, (12,), base_distribution=Uniform(3, -1.0, [1.0, 2.0, 3.0], dtype=dtype), condition_dim=2, dtype=dtype, rng=rng
    ),
    "IAF": lambda **o: IAF(4, 3, (16,), activation="tanh", **o),
    "IAF, two features": lambda **o: IAF(2, 2, (12,), activation="silu", base_distribution="student_t", **o),
    "IAF, one feature, uniform": lambda **o: IAF(1, 2, (8,), base_distribution="uniform", **o),
    "IAF, one order, condition": lambda **o: IAF(3, 2, (12,), False, activation="elu", condition_dim=1, **o),
    "NSF": lambda **o: NeuralSplineFlow(5, 3, (12,), 4, 3.0, affine_ends=False, activation="silu", **o),
    "NSF, quadratic splines": lambda **o: NeuralSplineFlow(
        3, 2, (12,), 4, 3.0, spline="quadratic", tails="end_slope", affine_ends=False, activation="silu", **o
    ),
    "NSF, two features": lambda **o: NeuralSplineFlow(
        2, 2, (12,), 4, linear="permutation", affine_ends=False, activation="tanh", **o
    ),
    "NSF, one feature": lambda **o: NeuralSplineFlow(1, 2, num_bins=5, base_distribution="student_t", **o),
    "NSF, one feature, condition": lambda **o: NeuralSplineFlow(1, 2, (8,), 3, affine_ends=False, condition_dim=2, **o),
    "NSF, autoregressive": lambda **o: NeuralSplineFlow(
        3,
        2,
        (10,),
        4,
        conditioner="autoregressive",
        linear="reverse",
        affine_ends=False,
        residual_blocks=1,
        condition_dim=1,
        activation="tanh",
        **o,
    ),
    "NSF, ActNorm": lambda **o: NeuralSplineFlow(3, 2, (8,), 3, affine_ends=False, actnorm=True, activation="silu", **o),
    "NSF, affine ends": lambda **o: NeuralSplineFlow(
        3, 1, (8,), 4, 3.0, affine_ends=True, activation="tanh", condition_dim=1, **o
    ),
    "MAF, ActNorm, condition": lambda **o: MAF(3, 2, (8,), actnorm=True, activation="tanh", condition_dim=1, **o),
    "RealNVP, ActNorm": lambda **o: RealNVP(3, 2, (8,), actnorm=True, activation="tanh", **o),
    "MAF, embedded condition": lambda **o: MAF(3, 2, (8,), activation="tanh", condition_dim=3, embedding_dims=(6, 2), **o),
    "NSF, embedded condition": lambda **o: NeuralSplineFlow(
        2, 2, (8,), 3, affine_ends=False, activation="silu", condition_dim=2, embedding_dims=(3,), **o
    ),
    "conditional RealNVP": lambda **o: ConditionalRealNVP(3, 2, 3, (8,), activation="tanh", **o),
    "conditional RealNVP, image": lambda **o: ConditionalRealNVP((2, 2, 2), 1, 2, (12,), activation="silu", **o),
    "NSF, circles": lambda **o: NeuralSplineFlow(
        4,
        3,
        (12,),
        4,
        linear="permutation",
        activation="silu",
        **o,
        support=[support.periodic(0, 360), support.real(), support.periodic(-1, 1), support.positive()],
    ),
    "NSF, autoregressive, circles": lambda **o: NeuralSplineFlow(
        4,
        2,
        (12,),
        4,
        conditioner="autoregressive",
        linear="permutation",
        activation="tanh",
        condition_dim=1,
        **o,
        support=[support.periodic(0, 360), support.real(), support.periodic(-1, 1), support.positive()],
    ),
    "NSF, circles beside a matrix": lambda **o: NeuralSplineFlow(
        4,
        2,
        (12,),
        4,
        actnorm=True,
        activation="silu",
        **o,
        support=[support.periodic(0, 360), support.real(), support.periodic(-1, 1), support.positive()],
    ),
    "NSF, autoregressive, a circle beside a matrix": lambda **o: NeuralSplineFlow(
        3, 2, (12,), 4, conditioner="autoregressive", activation="tanh", support={1: support.periodic(0, 360)}, **o
    ),
    "NSF, a circle": lambda **o: NeuralSplineFlow(1, 2, num_bins=4, support=[support.periodic(0.0, 2.0)], **o),
    "MAF, half-lines and intervals": lambda **o: MAF(
        3, 2, (12,), activation="tanh", support=[support.positive(-1.0), support.interval(2, 5), support.real()], **o
    ),
    "MAF, a half-line below and ordered columns": lambda **o: MAF(
        4, 2, (12,), activation="tanh", support={0: support.below(1.0), (3, 1): support.ordered()}, **o
    ),
    "NSF, a simplex and ordered columns between ends": lambda **o: NeuralSplineFlow(
        5,
        2,
        (12,),
        4,
        affine_ends=False,
        activation="silu",
        support={(0, 2): support.simplex(10), (4, 1, 3): support.ordered(-2, 5)},
        **o,
    ),
    "conditional flow of layers": _conditional,
    "RealNVP, image, convolutions": lambda **o: RealNVP((4, 4, 1), 2, (6, 6), network="conv", activation="silu", **o),
    "RealNVP, image, convolutions, channel-wise": lambda **o: RealNVP(
        (2, 3, 2), 2, (8,), "channel-wise", network="conv", activation="tanh", condition_dim=1, **o
    ),
    "Glow": lambda **o: Glow((4, 4, 2), 2, 1, (6, 6), activation="tanh", **o),
    "Glow, one scale, one channel": lambda **o: Glow(
        (2, 4, 1), 1, 2, (8,), split_prior="standard", coupling="additive", parameterization="full", **o
    ),
    "Glow, condition": lambda **o: Glow(
        (4, 4, 1), 2, 1, (6,), activation="silu", scale_activation="tanh_gain", condition_dim=3, embedding_dims=(4, 2), **o
    ),
    "flow of image layers": _image_layers,
    "flow of layers": _mixed,
    "flow of linear layers": _linear,
    "flow of Standardize alone": _only_standardize,
    "flow without correlations": _without_correlations,
}

ALL = LAYERS | MODELS

for_everything = pytest.mark.parametrize("name", ALL)
for_every_layer = pytest.mark.parametrize("name", LAYERS)
for_every_model = pytest.mark.parametrize("name", MODELS)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
both_directions = pytest.mark.parametrize("direction", ["forward", "inverse"])

SMOOTH = {"tanh", "silu"}


def fresh(name, dtype="float64"):
    """A new object, its parameters as the constructor leaves them."""
    return ALL[name](dtype=dtype, rng=np.random.default_rng(1))


def randomize(obj, seed=2, strength=1.0):
    """Give an object random parameters; at initialization almost everything is the identity.

    They are smaller the wider the layers, and gains start lower than else, so that the map stretches by a factor of ten
    or so, whatever its size.
    """
    rng = np.random.default_rng(seed)
    widest = max((width for part in parts(obj) for width in getattr(part, "hidden_dims", ())), default=16)
    widest = max([widest, *(9 * part.num_channels for part in parts(obj) if hasattr(part, "num_channels"))])  # 3x3 each
    scale = strength / np.sqrt(widest)
    obj.params = np.clip(obj.params, -1.6, 1.6) + scale * rng.normal(size=obj.num_params)
    if isinstance(obj, NormalizingFlow):
        loc, spread = rng.normal(size=(2, obj.input_dim))
        circles = obj.preprocessing.periodic
        loc, spread = np.where(circles, 0, loc), np.where(circles, 0, spread)
        factor = obj.standardize.factor
        obj.standardize.set(obj.standardize.loc + loc, obj.standardize.scale * np.exp(0.3 * spread), factor)
        if obj.condition_dim:
            loc, spread = rng.normal(size=(2, obj.condition_dim))
            obj.standardize_condition(0.3 * loc, np.exp(0.3 * spread))
    return obj


def build(name, dtype="float64"):
    """An object with random parameters."""
    return randomize(fresh(name, dtype))


def parts(obj):
    """The layers of a flow, or the layer itself."""
    return obj.flow_layers if isinstance(obj, NormalizingFlow) else [obj]


def is_of_images(obj):
    """Whether there are layers of images, most of which start as something else than the identity."""
    return any(isinstance(part, ImageLayer) and not isinstance(part, ActNormLayer) for part in parts(obj))


def is_smooth(obj):
    """Whether every derivative is continuous."""
    return all(getattr(part, "activation", "tanh") in SMOOTH for part in parts(obj))


def condition(obj, n, seed=3):
    """One condition for each of n samples, None where the object takes none."""
    width = obj.condition_dim
    return np.random.default_rng(seed).normal(size=(n, width)) if width else None


def data(obj, n, seed=4):
    """n samples (n, input_dim) that the object can map to the latent side, for `condition(obj, n)`."""
    if isinstance(obj, NormalizingFlow):
        return flat(obj.sample(n, seed, condition=condition(obj, n)))
    return np.random.default_rng(seed).normal(size=(n, obj.input_dim))


def latent(obj, n, seed=5):
    """n samples (n, input_dim) from the latent side, for `condition(obj, n)`."""
    rng = np.random.default_rng(seed)
    if isinstance(obj, NormalizingFlow):
        return obj.base_under(condition(obj, n)).sample(n, rng)
    return rng.normal(size=(n, obj.input_dim))


def source(obj, n, direction):
    """The values that the given direction starts from."""
    return data(obj, n) if direction == "forward" else latent(obj, n)


def flat(samples):
    """Samples of any shape as (n, dim)."""
    return np.reshape(samples, (len(samples), -1)) if np.size(samples) else np.zeros((len(samples), 0))
