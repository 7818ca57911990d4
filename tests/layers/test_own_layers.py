"""Layers that users make of the parts of npflows': saved, loaded and reset, or refused in a sentence."""

import copy
import json
import pickle

import numpy as np
import pytest
from helpers import COPIES

import npflows
from npflows import Autoregressive, Chain, Coupling, Elementwise, NormalizingFlow
from npflows.layers import ActNormLayer, CouplingLayer, LULinear, Permutation, Squeeze
from npflows.networks import convolutional, dense, masked
from npflows.transformers import Additive, Affine, Spline, spline

SOFTPLUS = Affine("softplus", least=0.1)


class Named(CouplingLayer):
    """A layer of npflows with another name."""


class Own(Coupling):
    """A coupling of any network and any scalar map."""

    def __init__(self, mask, width=4, *, dtype="float32", rng=None):
        self.mask, self.width = np.asarray(mask), width
        network = dense(int(self.mask.sum()), (width,), int((self.mask == 0).sum()) * SOFTPLUS.multiplier)
        super().__init__(self.mask, network, SOFTPLUS, dtype, rng=np.random.default_rng(rng))


class OwnBase(npflows.Normal):
    """A base with another name."""


def flow_of_own_layers():
    layers = [Named([0, 1, 1], (4,), rng=0), LULinear(3, rng=0), Own([1, 0, 1]), Permutation(3)]
    return NormalizingFlow(layers, OwnBase(3, 0.5), rng=0)


def test_a_list_of_layers_of_ones_own(tmp_path):
    flow = flow_of_own_layers()
    flow.parameters.theta += 0.1 * flow.parameters.free
    flow.save(tmp_path / "flow.npz")
    with pytest.raises(ValueError, match="pass it in classes="):
        npflows.load(tmp_path / "flow.npz")
    back = npflows.load(tmp_path / "flow.npz", classes=[Named, Own, OwnBase])
    np.testing.assert_array_equal(back.parameters.theta, flow.parameters.theta)
    assert [type(layer) for layer in back.flow_layers[1:]] == [Named, LULinear, Own, Permutation]


def test_reset():
    flow = flow_of_own_layers()
    first = flow.reset(3).parameters.theta.copy()
    flow.parameters.theta += 1.0
    np.testing.assert_array_equal(flow.reset(3).parameters.theta, first)


class Forgetful(CouplingLayer):
    """A layer that keeps one of its arguments under another name."""

    def __init__(self, width, *, dtype="float32"):
        super().__init__([0, 1, 1], (width,), dtype=dtype, rng=0)


def test_a_layer_that_keeps_no_arguments(tmp_path):
    with pytest.raises(TypeError, match=r"Forgetful can't be saved, copied or shown, as it lacks an attribute .*'width'"):
        NormalizingFlow([Forgetful(4)], rng=0).save(tmp_path / "flow.npz")
    assert not list(tmp_path.iterdir())


def flow_of_parts(dtype="float32"):
    """A flow of every layer that is made of a network and a scalar map, and of a chain that has a condition."""
    options = {"dtype": dtype, "rng": 0}
    bins = spline(4, 3.0, 0.0, 0.0, 1e-3)
    chained = Chain(
        [LULinear(4, **options), CouplingLayer([1, 0, 0, 1], (5,), condition_dim=2, **options)], ["matrix", "coupling"]
    )
    layers = [
        Coupling([1, 0, 1, 0], dense(2, (6,), 2 * bins.multiplier, activation="silu"), bins, **options),
        Coupling(
            [1, 0, 0, 1], convolutional(np.reshape([1, 0, 0, 1], (2, 2, 1)), (3,), 1), Additive(), inverted=True, **options
        ),
        chained,
        Autoregressive([2, 0, 1, 3], masked(4, (7,), 2, residual_blocks=1, condition_dim=2), SOFTPLUS, **options),
        Elementwise(4, Affine("hard_clip", least=0.5, most=3.0), dtype=dtype),
        Chain([chained, Permutation(4, dtype=dtype)]),
    ]
    return NormalizingFlow(layers, dtype=dtype, rng=0)


@pytest.mark.parametrize("way", [*COPIES, "configuration", "reset"])
def test_flows_of_networks_scalar_maps_and_chains_come_back(way, tmp_path):
    flow, c = flow_of_parts(), np.random.default_rng(1).normal(size=(20, 2))
    flow.initialize(np.random.default_rng(2).normal(size=(200, 4)), condition=np.resize(c, (200, 2)))
    if way == "reset":
        back = flow.reset(3)
        first = back.parameters.theta.copy()
        flow = copy.deepcopy(flow.reset(3))
        np.testing.assert_array_equal(flow.parameters.theta, first)
    elif way == "configuration":
        back = npflows.create(json.loads(flow.config.to_json()), rng=1)
        back.params = flow.params
        back.standardize.set(flow.standardize.loc, flow.standardize.scale, flow.standardize.factor)
        back.standardize_condition(flow.condition_loc, flow.condition_scale)
    else:
        back = COPIES[way](flow, tmp_path / "flow.npz")
    x = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_array_equal(back.log_prob(x, c), flow.log_prob(x, c))
    assert repr(back) == repr(flow)
    assert back.num_params == flow.num_params


def test_a_chain_is_its_layers_one_after_the_other():
    rng, c = np.random.default_rng(0), np.random.default_rng(1).normal(size=(9, 2))
    layers = [layer for layer in flow_of_parts("float64").flow_layers[1:] if not isinstance(layer, Chain)]
    layers = [copy.deepcopy(layer) for layer in layers]
    chain = Chain(layers)
    chain.params = chain.params + 0.3 * rng.normal(size=chain.num_params)
    again = pickle.loads(pickle.dumps(copy.deepcopy(chain)))
    again.params = again.params  # its layers work on the chain's own parameters still
    y, total = rng.normal(size=(9, 4)), 0.0
    expected = chain.forward(y, c)
    for layer in again.layers:
        y, log_det = layer.forward(y, c if layer.condition_dim else None)
        total = total + log_det
    np.testing.assert_allclose(expected[0], y, rtol=1e-13)
    np.testing.assert_allclose(expected[1], total, rtol=1e-12)
    assert next(iter(chain.named_params())).startswith("0.")
    assert not np.array_equal(layers[0].params, chain.layers[0].params), "the chain has taken the layer itself"


def test_chains_of_images_and_of_their_values(tmp_path):
    of_images = Chain([Squeeze(1, image_size=(4, 2)), ActNormLayer(4, image_size=(2, 1))])
    assert (of_images.sample_shape, of_images.result_shape) == ((4, 2, 1), (2, 1, 4))
    of_values = Chain([Permutation(4), LULinear(4, rng=0)])
    flow = NormalizingFlow([of_images, npflows.Split(4), of_values], input_shape=(4, 2, 1), rng=0)
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4, 2, 1))
    flow.initialize(x)
    flow.save(tmp_path / "flow.npz")
    back = npflows.load(tmp_path / "flow.npz")
    np.testing.assert_array_equal(back.log_prob(x), flow.log_prob(x))
    np.testing.assert_allclose(flow.inverse(flow.forward(x)[0])[0], x, atol=1e-5)
    assert all(layer.initialized for layer in back.data_dependent_layers)


def test_circles_pass_through_layers_of_parts():
    circular, bins = np.array([True, False, True]), [4, 3.0, 1e-3, 1e-3, 1e-3]
    order = [1, 2, 0]
    layers = [
        Coupling([1, 0, 0], dense(2, (5,), 24), spline(*bins, circular[1:]), circular=circular, bound=3.0, rng=0),
        Chain([Elementwise(3, spline(*bins, circular)), Permutation(3, [2, 1, 0])]),
        Autoregressive(
            order, masked(3, (8,), 12, circular=circular[order]), spline(*bins, circular[order]), bound=3.0, rng=0
        ),
    ]
    angle = npflows.support.periodic(0.0, 360.0)
    flow = NormalizingFlow(layers, support=[angle, npflows.support.real(), angle], rng=0)
    flow.params = flow.params + 0.5 * np.random.default_rng(0).normal(size=flow.num_params)
    x = flow.sample(10, 1)
    around = x + np.array([360.0, 0.0, -360.0])
    np.testing.assert_allclose(flow.log_prob(around), flow.log_prob(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="takes values \\[0, 2\\] for circular where \\[0\\] are on circles"):
        NormalizingFlow(layers, support={0: angle}, rng=0)


TWO, ROUND = dense(1, (4,), 2), spline(4, 3.0, 0.0, 0.0, 0.0, True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Coupling([1, 0], dense(1, (4,), 3), SOFTPLUS), "needs 1 inputs and 2 outputs, got one of 1 and 3"),
        (lambda: Coupling([1, 0], dense(2, (4,), 2), SOFTPLUS), "needs 1 inputs and 2 outputs, got one of 2 and 2"),
        (lambda: Coupling([1, 0], TWO, ROUND), "does not map 1 values of which .. are on"),
        (
            lambda: Coupling([1, 0], dense(1, (4,), 12), spline(4, 3.0, 0, 0, 0, True), circular=[0, 1], bound=2),
            "the bound 2",
        ),
        (lambda: Coupling([1, 0], dense(1, (4,), 11), Spline(4, 3.0, 0, 0, 0, (False,) * 3)), "does not map 1 values"),
        (lambda: Autoregressive([0, 1], masked(2, (4,), 3), SOFTPLUS), "2 features and 2 outputs for each, got 2 and 3"),
        (lambda: Autoregressive([0, 1], masked(2, (4,), 2), Affine("tanh_gain", n_gains=1)), "leave n_gains at None"),
        (lambda: Autoregressive([0, 0], masked(2, (4,), 2), SOFTPLUS), "order must"),
        (lambda: Elementwise(2, spline(4, 3.0, 0, 0, 0, [True] * 3)), "does not map 2 values"),
        (lambda: Chain([]), "at least one layer"),
        (lambda: Chain([Permutation(2), Permutation(3)]), r"layer 1 \(Permutation\) takes 3 values"),
        (
            lambda: Chain([Permutation(2), LULinear(2, dtype="float64")]),
            "dtype float64 where the first one has float32",
        ),
        (lambda: Chain([npflows.Standardize(2)]), "has its place in the list of a flow"),
        (lambda: Chain([npflows.Split(4, image_size=(2, 2))]), "has its place in the list of a flow"),
        (lambda: Chain([Permutation(2)] * 2, ["a", "a"]), "names must be 2 different ones"),
        (lambda: Affine("cosine"), "Affine needs a scale_activation of none"),
        (lambda: Affine("tanh_clip"), "Affine needs a least scale between 0 and 1"),
        (lambda: Affine("hard_clip", least=0.5), "Affine needs a finite largest scale"),
        (lambda: CouplingLayer([1, 0], (4,), "hard_clip", min_scale=0.5, max_scale=0.4), "above min_scale=0.5"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("network", "scalar_map"), [(masked(2, (4,), 1), Additive()), (TWO, "affine"), (None, Additive())])
def test_what_is_no_part_is_refused(network, scalar_map):
    with pytest.raises(TypeError, match="must be a"):
        Coupling([1, 0], network, scalar_map)
