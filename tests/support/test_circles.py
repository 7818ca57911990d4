"""Circles beside layers that mix or scale: these act on the columns of the line, and leave circles as they are."""

import copy
import pickle

import numpy as np
import pytest
from helpers import fitted
from support_cases import strong

import npflows
from npflows import LULinear, NeuralSplineFlow, NormalizingFlow, Permutation
from npflows.support import interval, periodic, positive, real

SUPPORT = [real(), periodic(0.0, 360.0), positive(), interval(0, 1)]
CIRCLES = np.array([False, True, False, False])
RNG = np.random.default_rng(0)
LINE = RNG.normal(size=(600, 3)) @ np.array([[1, 0.9, 0.5], [0, 0.3, -1], [0, 0, 0.2]])
TABLE = np.column_stack([
    LINE[:, 0],
    np.rad2deg(RNG.vonmises(0.0, 2.0, 600) + LINE[:, 0]) % 360,
    np.exp(LINE[:, 1]),
    1 / (1 + np.exp(-LINE[:, 2])),
])  # fmt: skip


def mixing(**options):
    return NeuralSplineFlow(4, 3, (12,), 4, **{"rng": 0, "dtype": "float64", "support": SUPPORT, **options})


def composed():
    """A flow of layers, put together by hand."""
    options = {"tail_bound": 4.0, "activation": "silu", "dtype": "float64", "rng": 0}
    layers = [
        LULinear(4, [2, 0, 1, 3], dtype="float64"),
        npflows.Rotation(CIRCLES[[2, 0, 1, 3]], 4.0, [1.0], dtype="float64"),
        npflows.SplineCouplingLayer([1, 0, 1, 0], (12,), circular=CIRCLES[[2, 0, 1, 3]], **options),
        Permutation(4, [3, 2, 1, 0], dtype="float64"),
        npflows.ActNormLayer(4, dtype="float64"),
        LULinear(4, "natural", dtype="float64"),
        npflows.Rotation(CIRCLES[[2, 0, 1, 3]][::-1], 4.0, [-2.0], dtype="float64"),
        npflows.SplineCouplingLayer([1, 0, 1, 0], (12,), circular=CIRCLES[[2, 0, 1, 3]][::-1], **options),
    ]
    return NormalizingFlow(layers, support=SUPPORT, dtype="float64")


FLOWS = {
    "coupling": mixing,
    "autoregressive": lambda: mixing(conditioner="autoregressive"),
    "actnorm": lambda: mixing(actnorm=True),
    "layers": composed,
}
for_every_flow = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)


def matrices(flow):
    return [leaf for leaf, _ in flow.leaves if isinstance(leaf, LULinear)]


@for_every_flow
def test_every_line_column_enters_every_other_and_circles_stay_what_they_are(make):
    flow, circles = strong(make(), 0.5), CIRCLES
    x = np.random.default_rng(1).uniform(-1, 1, (50, 4))
    for layer in flow.flow_layers[1:]:
        if isinstance(layer, LULinear):
            y, _ = layer.forward(x)
            after = circles[layer.order]
            np.testing.assert_array_equal(y[:, after], x[:, layer.order][:, after])
            moved = np.array([layer.forward(x + 0.1 * unit)[0] - y for unit in np.eye(4)])  # (by, row, seen in)
            seen = (np.abs(moved) > 1e-9).any(axis=1)
            assert seen[~circles][:, ~after].all()
            assert not seen[~circles][:, after].any()
            assert not seen[circles][:, ~after].any()
        if isinstance(layer, npflows.ActNormLayer):
            y, _ = layer.forward(x)
            np.testing.assert_array_equal(y[:, circles], x[:, circles])
            assert np.abs(y - x)[:, ~circles].min() > 0
        circles = circles[layer.order] if isinstance(layer, LULinear | Permutation) else circles


def test_what_is_fixed_counts_as_no_parameter():
    flow = mixing()
    for layer in matrices(flow):
        assert layer.num_params == 3 * 3 + 3
    every_circle = mixing(support=[periodic(0, 1)] * 4)
    assert [layer.num_params for layer in matrices(every_circle)] == [0] * 3
    without = mixing(support=[real()] * 4)
    assert [layer.num_params for layer in matrices(without)] == [4 * 4 + 4] * 3


@for_every_flow
def test_such_a_flow_is_exact(make):
    flow = fitted(make(), TABLE, max_epochs=3, learning_rate=1e-2)
    assert flow.verify(TABLE[:200], rng=0).passed


@for_every_flow
def test_the_circle_has_no_edge(make):
    flow = strong(make(), 0.5)
    ends = [TABLE[:40].copy(), TABLE[:40].copy()]
    ends[0][:, 1], ends[1][:, 1] = 0.0, np.nextafter(360.0, 0.0)
    (right, slope), (left, slope_left) = (flow.log_prob_and_grad(end) for end in ends)
    np.testing.assert_allclose(right, left, rtol=1e-9)
    np.testing.assert_allclose(slope, slope_left, rtol=1e-6, atol=1e-7)
    assert np.ptp(slope[:, 1]) > 1e-3, "flat at the seam: the test shows nothing"


@for_every_flow
def test_copies_and_files_keep_what_is_fixed(make, tmp_path):
    flow = fitted(make(), TABLE, max_epochs=2)
    flow.save(tmp_path / "flow.npz")
    for other in (npflows.load(tmp_path / "flow.npz"), pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
        assert other.num_params == flow.num_params
        np.testing.assert_array_equal(other.log_prob(TABLE), flow.log_prob(TABLE))
        matrix = matrices(fitted(other, TABLE, max_epochs=1))[0]
        after, factors = CIRCLES[matrix.order], matrix.named_params()["matrix"]
        assert not factors[after].any()
        assert not factors[:, after].any()
        assert np.count_nonzero(factors) == 9


def test_the_users_own_layer_is_left_alone():
    layer = LULinear(2, "natural", dtype="float64")
    flow = NormalizingFlow(
        [layer, npflows.SplineLayer(2, circular=[1, 0], dtype="float64")], support=[periodic(0, 1), real()], dtype="float64"
    )
    assert (layer.num_params, matrices(flow)[0].num_params) == (6, 2)
    layer.params = np.arange(6.0)  # as free as before
    assert matrices(flow)[0].params.tolist() == [0, 0]


def test_actnorm_is_set_from_data_on_the_line_alone():
    flow = strong(mixing(actnorm=True), 0.5)
    flow.initialize(TABLE)
    circles, scaled = CIRCLES, 0
    for layer in flow.flow_layers[1:]:
        if isinstance(layer, npflows.ActNormLayer):
            views = layer.named_params()
            assert not views["bias"][circles].any()
            assert not views["logs"][circles].any()
            scaled += np.count_nonzero(np.abs(views["logs"]) > 1e-3)
        circles = circles[layer.order] if isinstance(layer, LULinear) else circles
    assert scaled > 0


def test_a_matrix_beside_a_circle_fits_what_permutations_do_not():
    rng = np.random.default_rng(0)
    line = rng.normal(size=(4000, 4)) @ np.diag([1, 0.3, 0.1, 0.03]) @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    angle = np.rad2deg(rng.vonmises(0.0, 4.0, 4000) + line[:, 0]) % 360
    x = np.column_stack([line, angle])
    held_out, losses = x[3000:], {}
    for linear in ("lu", "permutation"):
        flow = NeuralSplineFlow(5, 2, (16,), 6, 3.0, linear=linear, support={4: periodic(0, 360)}, rng=0)
        options = {"standardize": "diagonal", "ema": None, "warmup_steps": 0}
        fitted(flow, x[:3000], max_epochs=10, learning_rate=1e-2, **options)
        losses[linear] = -flow.log_prob(held_out).mean()
    assert losses["lu"] < losses["permutation"] - 0.1, losses
