"""The reference layers by themselves: round trips, log-determinants and gradients, against differences."""

import numpy as np
import pytest

from npflows.backends.reference.common import Given
from npflows.backends.reference.layers import forward, forward_vjp, inverse, inverse_vjp
from npflows.core.operations import (
    ActNorm,
    Additive,
    Affine,
    Autoregressive,
    Conv1x1,
    ConvNet,
    Coupling,
    Elementwise,
    Householder,
    LogTails,
    LULinear,
    Made,
    MadeOutputs,
    Mlp,
    Permutation,
    QRLinear,
    Rotation,
    Spline,
    SVDLinear,
)

CONDITION_DIM = 2
SEEN = {"condition_dim": CONDITION_DIM}


def spline(*circular):
    return Spline(4, 2.0, 0.01, 0.02, 0.03, circular or (False,))


def dense(n_in, n_out, hidden=(7,), **options):
    return Mlp(hidden, options.pop("activation", "tanh"), n_in=n_in, n_out=n_out, **options)


def masked(n, multiplier, hidden=(9, 8), rows=None, **options):
    return Made.of(n, multiplier, hidden, rows or (1,) * n, activation=options.pop("activation", "silu"), **options)


def coupling_of_images(scalar_map, hidden=(3, 4), **options):
    """Two of three channels of images of 3 x 2 pixels are moved by what is seen of the other one."""
    pixels = np.arange(6)
    kept, moved = 3 * pixels, np.sort(np.concatenate([3 * pixels + 1, 3 * pixels + 2]))
    channel, pixel = (moved % 3 - 1) * scalar_map.multiplier, moved // 3
    places = (channel[:, None] + np.arange(scalar_map.multiplier)) * 6 + pixel[:, None]
    channels = (1, *hidden, 2 * scalar_map.multiplier)
    network = ConvNet(3, 2, channels, tuple(pixels.tolist()), tuple(places.ravel().tolist()), "tanh", **options)
    return Coupling(tuple(kept.tolist()), tuple(moved.tolist()), network, scalar_map)


LAYERS = {
    "permutation": Permutation((2, 0, 3, 1)),
    "rotation": Rotation(4, (1, 2), 3.0),
    "log tails": LogTails(4, (0, 1, 3), 0.7),
    "ActNorm": ActNorm(6, 3),
    "1x1 convolution": Conv1x1(6, 3, "plu"),
    "1x1 convolution, full": Conv1x1(6, 3, "full"),
    "LU": LULinear((2, 0, 1, 3)),
    "LU, signs": LULinear((2, 0, 1, 3), (1, -1, -1, 1)),
    "reflections": Householder(4, 3),
    "QR": QRLinear(3, 2),
    "SVD": SVDLinear(3, 4),
    "coupling": Coupling((0, 2), (1, 3, 4), dense(2, 6), Affine("tanh")),
    "coupling, no hidden layer": Coupling((0, 2), (1,), dense(2, 2, ()), Affine("none")),
    "coupling, shift first": Coupling((3,), (1, 0, 2), dense(1, 6, (6, 5), **SEEN), Affine("tanh_gain", True)),
    "coupling, gains in turn": Coupling((0,), (1, 2, 3, 4), dense(1, 8), Affine("tanh_gain", n_gains=2)),
    "coupling, sigmoid, elu": Coupling((0, 1), (2, 3), dense(2, 4, activation="elu", **SEEN), Affine("sigmoid")),
    "coupling, unbounded, residual": Coupling(
        (0, 1), (2, 3), dense(2, 4, (6, 6, 6, 6, 6), residual=True, **SEEN), Affine("none")
    ),
    "coupling, condition alone": Coupling((), (0, 1), dense(0, 4, **SEEN), Affine("tanh")),
    "coupling, additive, dropout": Coupling((0, 1), (2, 3), dense(2, 2, (8, 8), dropout=0.4), Additive()),
    "coupling, dropout, residual": Coupling(
        (0, 1), (2, 3), dense(2, 4, (8, 8, 8), residual=True, dropout=0.4, activation="silu"), Affine("tanh")
    ),
    "coupling, spline": Coupling((1, 3), (0, 2), dense(2, 22, **SEEN), spline()),
    "coupling, spline, circles": Coupling(
        (1, 0, 4), (2, 3), dense(5, 24, activation="leaky_relu"), spline(False, True), n_circles=2, bound=2.0
    ),
    "images": coupling_of_images(Affine("tanh_gain", n_gains=2), actnorm=True, **SEEN),
    "images, one convolution": coupling_of_images(Affine("sigmoid", True), (), **SEEN),
    "images, additive": coupling_of_images(Additive(), (3,)),
    "autoregressive": Autoregressive((2, 0, 3, 1), masked(4, 2), Affine("tanh_gain", True)),
    "autoregressive, condition, dropout": Autoregressive(
        (1, 0, 2), masked(3, 2, **SEEN, dropout=0.3), Affine("none", True)
    ),
    "autoregressive, inverted": Autoregressive((1, 0, 2), masked(3, 2, **SEEN), Affine("tanh_gain"), inverted=True),
    "autoregressive, one value": Autoregressive((0,), masked(1, 2, **SEEN), Affine("tanh", True)),
    "autoregressive, residual": Autoregressive(
        (1, 0, 2), masked(3, 2, (9, 9, 9), residual=True, **SEEN), Affine("tanh", True)
    ),
    "autoregressive, spline": Autoregressive((2, 0, 1), masked(3, 11, **SEEN), spline()),
    "autoregressive, spline, circles": Autoregressive(
        (2, 0, 1, 3), masked(4, 12, rows=(2, 1, 2, 1)), spline(True, False, True, False), bound=2.0
    ),
    "elementwise": Elementwise(3, Affine("tanh_gain")),
    "elementwise, inverted": Elementwise(3, spline(), inverted=True),
    "elementwise, spline, circles": Elementwise(3, spline(True, False, True)),
}
MAPS = LAYERS | {"outputs of a masked network": MadeOutputs((1, 0, 2), masked(3, 2, **SEEN))}

for_every_layer = pytest.mark.parametrize("name", LAYERS)
for_every_map = pytest.mark.parametrize("name", MAPS)


def setting(operation, n=4):
    """Parameters, samples and what else is given."""
    rng = np.random.default_rng(1)
    theta = 0.4 * rng.normal(size=operation.size)
    return theta, 0.9 * rng.normal(size=(n, operation.dim)), Given(rng.normal(size=(n, CONDITION_DIM)), key=7, first=3)


def differences(function, at, step=1e-6):
    """The gradient of a number with respect to every entry of an array, by central differences."""
    result, point = np.zeros(at.shape), at.copy()
    for i in np.ndindex(at.shape):
        ends = []
        for sign in (1, -1):
            point[i] = at[i] + sign * step
            ends.append(function(point))
        point[i] = at[i]
        result[i] = (ends[0] - ends[1]) / (2 * step)
    return result


def assert_gradients(step, step_vjp, operation, theta, x, given):
    """A vjp is the gradient of (dy . y + dlog_det . log_det) with respect to samples, parameters and condition."""
    rng = np.random.default_rng(2)
    dy, dlog_det = rng.normal(size=x.shape), rng.normal(size=len(x))

    def scalar(theta, x, context):
        y, log_det = step(operation, theta, x, given._replace(context=context))
        return (dy * y).sum() + (dlog_det * log_det).sum()

    gradients = step_vjp(operation, theta, x, dy, dlog_det, given)
    assert gradients.theta.shape == (operation.size,)
    context = given.context
    close = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(gradients.x, differences(lambda x: scalar(theta, x, context), x), **close)
    np.testing.assert_allclose(gradients.theta, differences(lambda t: scalar(t, x, context), theta), **close)
    np.testing.assert_allclose(gradients.context, differences(lambda c: scalar(theta, x, c), context), **close)


@for_every_layer
def test_round_trip(name):
    operation = LAYERS[name]
    theta, x, given = setting(operation)
    y, log_det = forward(operation, theta, x, given)
    back, log_det_back = inverse(operation, theta, y, given)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-12)


@for_every_layer
def test_log_det_is_that_of_the_jacobian(name):
    operation = LAYERS[name]
    theta, x, given = setting(operation, n=1)
    y, log_det = forward(operation, theta, x, given)
    columns = [differences(lambda x, i=i: forward(operation, theta, x, given)[0][0, i], x)[0] for i in range(x.shape[1])]
    assert log_det[0] == pytest.approx(np.linalg.slogdet(np.array(columns))[1], abs=1e-7)
    assert operation.size == 0 or name == "rotation" or not np.allclose(x, y)


@for_every_map
def test_gradients_of_forward(name):
    assert_gradients(forward, forward_vjp, MAPS[name], *setting(MAPS[name]))


@for_every_layer
def test_gradients_of_inverse(name):
    assert_gradients(inverse, inverse_vjp, LAYERS[name], *setting(LAYERS[name]))


def test_a_sample_on_a_circle_is_wrapped():
    operation = Rotation(2, (0,), 3.0)
    y, _ = forward(operation, np.array([1.5]), np.array([[2.0, 2.0], [-3.0, 9.0], [1.5, 0.0]]), Given(np.zeros((3, 0))))
    np.testing.assert_allclose(y, [[-2.5, 2.0], [-1.5, 9.0], [-3.0, 0.0]])


def test_a_layer_without_an_inverse_says_so():
    operation = MAPS["outputs of a masked network"]
    theta, x, given = setting(operation)
    with pytest.raises(NotImplementedError, match="can't invert a layer MadeOutputs"):
        inverse(operation, theta, x, given)


def test_an_unknown_layer_is_refused():
    for step in (forward, inverse):
        with pytest.raises(NotImplementedError, match="object"):
            step(object(), np.zeros(0), np.zeros((1, 1)), Given(np.zeros((1, 0))))
    for step in (forward_vjp, inverse_vjp):
        with pytest.raises(NotImplementedError, match="object"):
            step(object(), np.zeros(0), np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), Given(np.zeros((1, 0))))
