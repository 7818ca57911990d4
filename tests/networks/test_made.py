"""The masked network sees exactly what the order allows: all of it, and nothing else."""

import linecache
import re

import numpy as np
import pytest
from helpers import jacobian
from registry import both_dtypes, randomize

from npflows import IAF, MADE, MAF, IAFLayer, MAFLayer
from npflows.backends.reference.common import Given
from npflows.backends.reference.layers import forward
from npflows.networks.made import masked, reach

FORMS = {
    "one hidden layer": lambda **o: MADE(4, (12,), activation="tanh", **o),
    "random order": lambda **o: MADE(7, (16, 12), order=[3, 6, 0, 5, 1, 4, 2], activation="silu", **o),
    "three hidden layers": lambda **o: MADE(5, (8, 16, 12), order=[4, 2, 0, 3, 1], activation="elu", **o),
    "as few units as features allow": lambda **o: MADE(5, (4, 4), activation="tanh", **o),
    "deeper than it has features": lambda **o: MADE(3, (6, 6, 6, 6), activation="tanh", **o),
    "two features": lambda **o: MADE(2, (5, 5, 5), order=[1, 0], activation="tanh", **o),
    "one feature": lambda **o: MADE(1, (5,), **o),
    "nine features": lambda **o: MADE(9, (24, 17, 24), order=[8, 1, 6, 3, 4, 5, 2, 7, 0], activation="tanh", **o),
    "wide": lambda **o: MADE(9, (70, 50), activation="tanh", **o),
    "no hidden layer": lambda **o: MADE(5, (), order=[4, 2, 0, 3, 1], **o),
    "one output": lambda **o: MADE(4, (9,), 1, activation="tanh", **o),
    "five outputs": lambda **o: MADE(4, (9, 9), 5, order=[1, 0, 3, 2], activation="tanh", **o),
}
WITH_CONDITION = {
    f"{name}, condition": lambda form=form, **o: form(condition_dim=2, **o)
    for name, form in FORMS.items()
    if name != "as few units as features allow"
}
for_every_form = pytest.mark.parametrize("make", (FORMS | WITH_CONDITION).values(), ids=FORMS | WITH_CONDITION)


def build(make, dtype="float64"):
    """A network with random parameters, some inputs and conditions."""
    network, rng = randomize(make(dtype=dtype, rng=0), strength=2.0), np.random.default_rng(0)
    x = rng.normal(size=(20, network.input_dim))
    return network, x, rng.normal(size=(20, network.condition_dim)) if network.condition_dim else None


def dependence(network, x, condition=None, floor=1e-7):
    """Which feature (column) each output of each feature (output_multiplier, row) really depends on."""
    repeated = None if condition is None else np.repeat(condition, 2 * x.shape[1], axis=0)
    slopes = jacobian(lambda ends: np.concatenate(network(ends, repeated), axis=1), x)
    return (np.abs(slopes).max(0) > floor).reshape(-1, network.input_dim, network.input_dim)


@pytest.mark.nojit
@both_dtypes
@for_every_form
def test_outputs_are_those_of_the_reference(make, dtype):
    network, x, condition = build(make, dtype)
    given = Given(np.zeros((20, 0)) if condition is None else condition)
    columns, _ = forward(network.operation(), network.parameters.theta.astype(np.float64), x, given)
    outputs, expected = network(x, condition), np.hsplit(columns, network.output_multiplier)
    assert len(outputs) == network.output_multiplier
    tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype] * max(1, np.abs(expected).max())
    for output, wanted in zip(outputs, expected):
        assert output.shape == x.shape
        np.testing.assert_allclose(output, wanted, rtol=0, atol=tolerance)


@for_every_form
def test_every_dependence_that_the_order_allows_is_there_and_no_other(make):
    network, x, condition = build(make)
    place = np.argsort(network.order)
    for seen in dependence(network, x, condition):
        np.testing.assert_array_equal(seen, place[:, None] > place)


@pytest.mark.parametrize("make", WITH_CONDITION.values(), ids=WITH_CONDITION)
def test_every_output_depends_on_the_whole_condition(make):
    network, x, condition = build(make)
    slopes = jacobian(lambda ends: np.concatenate(network(np.repeat(x, 4, axis=0), ends), axis=1), condition)
    assert (np.abs(slopes).max(0) > 1e-7).all()


@pytest.mark.parametrize("input_dim", range(2, 10))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_depth_loses_a_dependence(depth, input_dim):
    """Masks that are strict at every layer would lose all of them once input_dim <= depth + 1."""
    rng = np.random.default_rng(100 * depth + input_dim)
    network, x, _ = build(lambda **o: MADE(input_dim, rng.integers(input_dim, 20, depth), order=rng.permutation(input_dim),
                                           activation="tanh", **o))  # fmt: skip
    place = np.argsort(network.order)
    for seen in dependence(network, x):
        np.testing.assert_array_equal(seen, place[:, None] > place)


def lost_in_message(message):
    """The pairs (output, feature) that a warning names."""
    return {tuple(map(int, pair)) for pair in re.findall(r"(\d+) on (\d+)", message)}


@pytest.mark.parametrize(
    ("hidden_dims", "condition_dim"),
    [((1,), 0), ((3,), 0), ((2, 8), 0), ((8, 3), 0), ((8, 2, 8), 0), ((4,), 2), ((3, 5), 1)],
)
def test_too_few_hidden_units_warn_of_exactly_what_is_lost(hidden_dims, condition_dim):
    order = [2, 0, 4, 1, 3]
    with pytest.warns(UserWarning, match="too narrow for 5 features") as warnings:
        network, x, condition = build(lambda **o: MADE(5, hidden_dims, order=order, activation="tanh",
                                                       condition_dim=condition_dim, **o))  # fmt: skip
    message, place = str(warnings[0].message), np.argsort(order)
    lost = (place[:, None] > place) & ~dependence(network, x, condition).any(0)
    named, every = lost_in_message(message), set(map(tuple, np.argwhere(lost).tolist()))
    assert f"{len(every)} dependences are lost" in message
    assert named == every if len(every) <= 5 else named < every
    assert f"at least {5 if condition_dim else 4} units" in message


def seen_by_products(network):
    """Which output position sees which feature position, from the product of all masks."""
    seen = np.eye(network.n_in, dtype=bool)
    for layer in range(len(network.widths) - 1):
        seen = (network.mask(layer).astype(int) @ seen) > 0
    return seen[:: network.multiplier, network.entered[:-1]]


@pytest.mark.parametrize("seed", range(60))
def test_how_far_outputs_reach_is_what_the_product_of_the_masks_says(seed):
    rng = np.random.default_rng(seed)
    n, depth = int(rng.integers(1, 13)), int(rng.integers(0, 4))
    network = masked(n, rng.integers(1, 18, depth).tolist(), int(rng.integers(1, 4)), circular=rng.random(n) < 0.3,
                     condition_dim=int(rng.integers(0, 2)))  # fmt: skip
    np.testing.assert_array_equal(seen_by_products(network), np.arange(n) < reach(network)[:, None])


def test_a_network_of_a_thousand_features_says_what_it_lost():
    with pytest.warns(UserWarning, match=r"too narrow for 1000 features: 500 .*feature 1 on 0, 3 on 2, .*, 9 on 8, \.\.\."):
        MADE(1000, (500, 999), condition_dim=1)


@pytest.mark.parametrize("make", [MADE, MAFLayer, IAFLayer, MAF, IAF])
def test_warning_of_lost_dependence_points_at_the_users_line(make):
    with pytest.warns(UserWarning, match="too narrow for 5 features") as warnings:
        make(5, hidden_dims=(3,))
    assert linecache.getline(warnings[0].filename, warnings[0].lineno).strip() == "make(5, hidden_dims=(3,))"


@pytest.mark.parametrize("model", [MAF, IAF])
def test_order_really_reverses_from_layer_to_layer(model):
    """A reversed order together with a flip of the features would cancel out."""
    flow = randomize(model(4, 3, (12,), activation="tanh", dtype="float64", rng=0))
    orders = [layer.order.tolist() for layer in flow.flow_layers[1:-1]]
    assert orders == [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]]
    x = np.random.default_rng(0).normal(size=(20, 4))
    for layer, triangle in zip(flow.flow_layers[1:], (np.tril, np.triu, np.tril)):
        size = np.abs(jacobian(lambda ends, layer=layer: layer.forward(ends)[0], x)).max(0)
        np.testing.assert_array_equal(size > 1e-7, triangle(np.ones((4, 4), bool)))
    assert (np.abs(jacobian(lambda ends: flow.forward(ends)[0], x)).max(0) > 1e-7).all()


@pytest.mark.parametrize("model", [MAF, IAF])
def test_orders_may_be_drawn_given_or_left_alone(model):
    drawn = [layer.order.tolist() for layer in model(6, 4, (8,), orders="random", rng=0).flow_layers[1:-1]]
    again = [layer.order.tolist() for layer in model(6, 4, (8,), orders="random", rng=0).flow_layers[1:-1]]
    assert drawn == again
    assert len(set(map(tuple, drawn))) > 1
    given = [[2, 0, 1], [1, 2, 0]]
    assert [layer.order.tolist() for layer in model(3, 2, (8,), orders=given).flow_layers[1:-1]] == given
    same = [layer.order.tolist() for layer in model(3, 2, (8,), reverse_ordering=False).flow_layers[1:-1]]
    assert same == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3], [[0, 1, 2]], [0.5, 1, 2], "abc"])
@pytest.mark.parametrize("make", [MADE, MAFLayer, IAFLayer])
def test_order_that_is_no_permutation_is_refused(make, order):
    with pytest.raises(ValueError, match=re.escape("order must be a permutation of 0..2")):
        make(3, (8,), order=order)


@for_every_form
def test_one_row_none_and_params_work_as_everywhere(make):
    network, x, condition = build(make)
    outputs = network(x, condition)
    one = network(x[0], None if condition is None else condition[0])
    none = network(x[:0], None if condition is None else condition[:0])
    for output, single, empty in zip(outputs, one, none):
        np.testing.assert_allclose(single, output[0], rtol=1e-12, atol=1e-12)
        assert empty.shape == (0, network.input_dim)
    network.params = np.full(network.num_params, 2.0)
    assert network.num_params == sum((value == 2).sum() for value in network.named_params().values())
    assert repr(network).startswith(f"MADE(input_dim={network.input_dim}")
