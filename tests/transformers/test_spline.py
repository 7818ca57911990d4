"""The rational-quadratic spline by itself: the identity at zero, its knots, its root, what it refuses."""

import numpy as np
import pytest
from registry import both_directions, both_dtypes
from spline_cases import (
    BINS,
    BOUND,
    KINDS,
    LEAST,
    OTHER,
    SLACK,
    TRANSFORM,
    assert_between,
    difficult,
    for_every_kind,
    formula,
    knots_of,
    layer_of,
    parameters_of,
    raw_parameters,
    root,
)

from npflows import (
    NeuralSplineFlow,
    RationalQuadraticSplineTransform,
    SplineAutoregressiveLayer,
    SplineCouplingLayer,
    SplineLayer,
)


@both_dtypes
@both_directions
@pytest.mark.parametrize(("bins", "bound"), [(2, 3.0), (5, 0.3), (8, BOUND), (64, 100.0)])
def test_raw_zeros_are_the_identity(bins, bound, direction, dtype):
    layer, eps = SplineLayer(1, bins, bound, dtype=dtype), np.finfo(dtype).eps
    x = difficult(np.linspace(-bound, bound, bins + 1), dtype)
    y, log_det = getattr(layer, direction)(x)
    np.testing.assert_allclose(y, x, rtol=0, atol=2 * eps * bound)
    np.testing.assert_allclose(log_det, 0, atol=2 * eps)


@pytest.mark.parametrize("bins", [2, 3, 8, 64])
@pytest.mark.parametrize("least", [1e-3, 1e-2])
def test_raw_zeros_give_equal_bins_and_slopes_of_1(bins, least):
    transform = RationalQuadraticSplineTransform(bins, 3.0, least, least, least)
    widths, heights, derivatives = transform.constrain_parameters(*[np.zeros((2, 3, n)) for n in (bins, bins, bins + 1)])
    np.testing.assert_allclose(widths, 6 / bins, rtol=1e-15)
    np.testing.assert_allclose(heights, 6 / bins, rtol=1e-15)
    np.testing.assert_allclose(derivatives, 1, rtol=1e-15)
    x = np.linspace(-4, 4, 6).reshape(2, 3)
    for inverse in (False, True):
        y, log_det = transform.apply_spline(x, widths, heights, derivatives, inverse)
        np.testing.assert_allclose(y, x, rtol=1e-15)
        np.testing.assert_allclose(log_det, 0, atol=1e-14)


@for_every_kind
def test_bins_fill_the_interval_and_nothing_falls_below_its_least(kind):
    transform, raw = RationalQuadraticSplineTransform(BINS, BOUND, 0.01, 0.02, 0.05), raw_parameters(kind)[:, None]
    widths, heights, derivatives = transform.constrain_parameters(
        raw[..., :BINS], raw[..., BINS : 2 * BINS], raw[..., 2 * BINS :]
    )
    rounding = 1 - 1e-12
    for sizes, least in ((widths, 0.01), (heights, 0.02)):
        np.testing.assert_allclose(sizes.sum(-1), 2 * BOUND, rtol=1e-14)
        assert sizes.min() >= 2 * BOUND * least * rounding
        if kind == "extreme":
            assert sizes.min() == pytest.approx(2 * BOUND * least, rel=1e-9)
    assert derivatives.min() >= 0.05 * rounding
    if kind == "flat":
        np.testing.assert_allclose(derivatives[..., 1:-1], 0.05, rtol=1e-9)
    np.testing.assert_array_equal(derivatives[..., [0, -1]], 1)


def test_raw_parameters_may_be_of_any_size():
    raw = np.array([[[1e4, -1e4, 0.0, 1e300, 3.0, -1e300]]])
    widths, heights, derivatives = TRANSFORM.constrain_parameters(raw, -raw, raw[..., :-1])
    for sizes, largest, least in ((widths, 3, 1e-3), (heights, 5, 2e-3)):
        np.testing.assert_allclose(sizes[0, 0, [largest, 1]], 2 * BOUND * np.array([1 - 5 * least, least]), rtol=1e-12)
    np.testing.assert_allclose(derivatives[0, 0, [2, 4]], [LEAST["min_derivative"], 1e300], rtol=1e-9)


def test_slopes_at_the_ends_are_ignored_or_left_out():
    rng = np.random.default_rng(0)
    raw = [rng.normal(size=(4, 3, n)) for n in (BINS, BINS, BINS + 1)]
    parameters = TRANSFORM.constrain_parameters(*raw)
    for inner in (raw[2][..., 1:-1], np.pad(raw[2][..., 1:-1], [(0, 0), (0, 0), (1, 1)], constant_values=-7.0)):
        for a, b in zip(TRANSFORM.constrain_parameters(*raw[:2], inner), parameters):
            np.testing.assert_array_equal(a, b)
    x, other = rng.uniform(-3, 3, (4, 3)), parameters[2].copy()
    other[..., 0], other[..., -1] = 7.0, -1.0
    for inverse in (False, True):
        for a, b in zip(TRANSFORM.apply_spline(x, *parameters[:2], other, inverse),
                        TRANSFORM.apply_spline(x, *parameters, inverse)):  # fmt: skip
            np.testing.assert_array_equal(a, b)


@pytest.mark.nojit
@both_dtypes
@for_every_kind
def test_knots_go_to_knots(kind, dtype):
    """Within rounding of x and of y, as a slope may be 1000."""
    rounding = 10 * np.finfo(dtype).eps * BOUND
    for raw in raw_parameters(kind, 5):
        layer = layer_of(raw, dtype)
        left, right = knots_of(layer.params.astype(np.float64))
        slack = np.exp(np.maximum(formula(left - rounding, raw)[1], formula(left + rounding, raw)[1]))
        y = layer.forward(left[:, None])[0][:, 0]
        assert (np.abs(y - right) <= rounding * (1 + slack)).all()


@pytest.mark.parametrize("kind", ["random", "strong", "steep"])
def test_slope_at_a_knot_is_the_derivative_given_and_the_same_on_both_sides(kind):
    """By differences of the map itself; bins of unequal width, so that no factor of the width hides."""
    raw = raw_parameters(kind)
    widths, heights, derivatives = parameters_of(raw)
    for i in range(len(raw)):
        own = [np.broadcast_to(p[i], (BINS + 1, *p[i].shape)) for p in (widths, heights, derivatives)]
        at = np.concatenate([[-BOUND], np.cumsum(widths[i, 0]) - BOUND])[:, None]
        at[-1] = BOUND
        y, log_det = TRANSFORM.apply_spline(at, *own)
        np.testing.assert_allclose(np.exp(log_det), derivatives[i, 0], rtol=1e-9)
        step = 1e-6 * widths[i].min()
        for side in (step, -step):  # beyond the ends it is that of the identity, 1
            near, far = (TRANSFORM.apply_spline(at + n * side, *own)[0] for n in (1, 2))
            np.testing.assert_allclose(
                ((4 * near - 3 * y - far) / (2 * side))[:, 0], derivatives[i, 0], rtol=1e-5, atol=1e-6
            )
            log_det_near = TRANSFORM.apply_spline(at + 1e-6 * side, *own)[1]
            np.testing.assert_allclose(log_det_near, log_det, atol=1e-9)


@both_dtypes
@both_directions
@for_every_kind
def test_beyond_the_bound_is_the_identity_and_on_it_the_map_is_continuous(kind, direction, dtype):
    bound = np.array(BOUND, dtype)
    beyond = np.array([np.nextafter(bound, np.inf, dtype=dtype), 2.6, 4.0, 1e5, 1e30, np.finfo(dtype).max, np.inf], dtype)
    beyond = np.concatenate([beyond, -beyond]).astype(np.float64)[:, None]
    ends = np.array([[-BOUND], [BOUND]])
    rounding = 10 * np.finfo(dtype).eps
    for raw in raw_parameters(kind):
        layer = layer_of(raw, dtype)
        y, log_det = getattr(layer, direction)(beyond)
        np.testing.assert_array_equal(y, beyond)
        np.testing.assert_array_equal(log_det, 0)
        y, log_det = getattr(layer, direction)(ends)
        np.testing.assert_allclose(y, ends, rtol=0, atol=SLACK[dtype])
        if kind == "random":
            np.testing.assert_allclose(log_det, 0, atol=1000 * rounding)


@pytest.mark.nojit
@for_every_kind
def test_transform_is_that_of_the_paper(kind):
    rng, raw = np.random.default_rng(1), raw_parameters(kind, 15)
    x, parameters = rng.uniform(-1.1 * BOUND, 1.1 * BOUND, (15, 1)), parameters_of(raw)
    y, log_det = TRANSFORM.apply_spline(x, *parameters)
    expected = np.array([formula(*pair) for pair in zip(x[:, 0], raw)])
    by_layers = np.array([np.hstack(layer_of(own).forward(value)) for value, own in zip(x, raw)])
    for result in (np.column_stack([y, log_det]), by_layers):
        np.testing.assert_allclose(result[:, 0], expected[:, 0], rtol=0, atol=1e-11)
        np.testing.assert_allclose(result[:, 1], expected[:, 1], rtol=1e-9, atol=1e-9)
    back, log_det_back = TRANSFORM.apply_spline(y, *parameters, inverse=True)
    again = TRANSFORM.apply_spline(back, *parameters)
    np.testing.assert_allclose(again[0], y, rtol=0, atol=1e-8)
    np.testing.assert_allclose(again[1], -log_det_back, atol=1e-7)


@pytest.mark.parametrize("kind", ["random", "strong", "steep"])
def test_inverse_is_the_root_that_bisection_finds(kind):
    rng, raw = np.random.default_rng(2), raw_parameters(kind, 20)
    y = rng.uniform(-1.1 * BOUND, 1.1 * BOUND, (20, 1))
    x, log_det = TRANSFORM.apply_spline(y, *parameters_of(raw), inverse=True)
    expected = np.array([root(*pair) for pair in zip(y[:, 0], raw)])
    np.testing.assert_allclose(x[:, 0], expected[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(log_det, expected[:, 1], rtol=1e-6, atol=1e-6)


def test_columns_of_the_transform_have_splines_of_their_own_and_log_dets_add_up():
    rng = np.random.default_rng(0)
    x, raw = rng.uniform(-3, 3, (7, 4)), rng.normal(size=(7, 4, 3 * BINS - 1))
    parameters = TRANSFORM.constrain_parameters(*np.split(raw, [BINS, 2 * BINS], axis=2))
    expected = np.array([[formula(*p) for p in zip(*row)] for row in zip(x, raw)])
    y, log_det = TRANSFORM.apply_spline(x.tolist(), *[p.tolist() for p in parameters])
    np.testing.assert_allclose(y, expected[..., 0], atol=1e-12)
    np.testing.assert_allclose(log_det, expected[..., 1].sum(1), atol=1e-12)
    log_dets = [TRANSFORM.apply_spline(x[:, [k]], *[p[:, [k]] for p in parameters])[1] for k in range(4)]
    np.testing.assert_allclose(sum(log_dets), log_det, atol=1e-12)


@pytest.mark.parametrize("inverse", [False, True])
def test_one_row_gets_the_numbers_of_the_same_row_among_others(inverse):
    rng, raw = np.random.default_rng(0), raw_parameters("strong", 20)
    x, parameters = rng.uniform(-3, 3, (20, 1)), parameters_of(raw)
    y, log_det = TRANSFORM.apply_spline(x, *parameters, inverse)
    for i in range(20):
        one, log_det_of_one = TRANSFORM.apply_spline(x[[i]], *(p[[i]] for p in parameters), inverse)
        np.testing.assert_allclose(one[0], y[i], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(log_det_of_one[0], log_det[i], rtol=1e-12, atol=1e-12)


@both_dtypes
@both_directions
@for_every_kind
def test_no_parameters_and_no_value_are_too_much_for_rounding(kind, direction, dtype):
    """Also on knots and next to them; as steep and flat pieces make much of a last digit, both x and y may lack a few."""
    slack = SLACK[dtype]
    for raw in raw_parameters(kind):
        layer = layer_of(raw, dtype)
        double = layer_of(layer.params, "float64")
        left, right = knots_of(layer.params.astype(np.float64))
        start = difficult(left if direction == "forward" else right, dtype)
        end, log_det = getattr(layer, direction)(start)
        back, log_det_back = getattr(layer, OTHER[direction])(end)
        for result in (end, log_det, back, log_det_back):
            assert np.isfinite(result).all()
        assert max(np.abs(end).max(), np.abs(back).max()) <= BOUND + slack
        assert np.diff(end[:, 0]).min() >= -slack

        def exact(x, double=double):
            return double.forward(x)[0]

        if direction == "forward":
            assert_between(end, exact, start, slack)
            assert_between(end, exact, back, 2 * slack)
            low, high, sign = start - slack, start + slack, 1
        else:
            assert_between(start, exact, end, slack)
            assert_between(back, exact, end, slack)
            low, high = (double.inverse(start + move)[0] + move for move in (-slack, slack))
            sign = -1
        # the log-det is that of some x as near as this; it peaks on knots and between them
        near = np.concatenate([low + (high - low) * np.linspace(0, 1, 201), np.clip(left, low, high)], axis=1)
        near = sign * double.forward(near.reshape(-1, 1))[1].reshape(near.shape)
        assert (log_det >= near.min(1) - 5e-4).all()
        assert (log_det <= near.max(1) + 5e-4).all()


@both_dtypes
@pytest.mark.parametrize("least", [1e-6, 1e-12])
def test_least_sizes_next_to_nothing_do_no_harm(least, dtype):
    """The discriminant of the root is all rounding where a bin is a million times steeper than its ends."""
    sizes = dict.fromkeys(LEAST, least)
    for kind in KINDS:
        for raw in raw_parameters(kind):
            layer = layer_of(raw, dtype, least=sizes)
            left, right = knots_of(layer.params.astype(np.float64), sizes)
            for x, direction in ((difficult(left, dtype, 100), "forward"), (difficult(right, dtype, 100), "inverse")):
                y, log_det = getattr(layer, direction)(x)
                assert np.isfinite(log_det).all()
                assert np.abs(y).max() <= BOUND + SLACK[dtype]
                gradients = getattr(layer, f"{direction}_vjp")(x, np.zeros_like(x), 0.0)
                assert not gradients.input.any()
                assert not gradients.params.any()


WRONG = {
    "one bin": ({"num_bins": 1}, "num_bins must be a whole number of at least 2, got 1"),
    "bins and a half": ({"num_bins": 2.5}, "num_bins must be a whole number of at least 2, got 2.5"),
    "no interval": ({"tail_bound": 0.0}, "tail_bound must be a finite number above 0, got 0.0"),
    "negative bound": ({"tail_bound": -3}, "tail_bound must be a finite number above 0, got -3"),
    "bound NaN": ({"tail_bound": np.nan}, "tail_bound must be a finite number above 0, got nan"),
    "bound infinite": ({"tail_bound": np.inf}, "tail_bound must be a finite number above 0, got inf"),
    "bound missing": ({"tail_bound": None}, "tail_bound must be a finite number above 0, got None"),
    "width that fills": ({"min_bin_width": 0.25}, "min_bin_width must be below 1 / num_bins = 0.25, got 0.25"),
    "height too much": ({"min_bin_height": 0.3}, "min_bin_height must be below 1 / num_bins = 0.25, got 0.3"),
    "many bins": ({"num_bins": 1000}, "min_bin_width must be below 1 / num_bins = 0.001, got 0.001"),
    "width below 0": ({"min_bin_width": -0.1}, "min_bin_width must be a finite number of at least 0, got -0.1"),
    "height NaN": ({"min_bin_height": np.nan}, "min_bin_height must be a finite number of at least 0, got nan"),
    "slope below 0": ({"min_derivative": -0.1}, "min_derivative must be a finite number of at least 0, got -0.1"),
    "slope 1": ({"min_derivative": 1.0}, "min_derivative must be below 1, got 1.0"),
}
MAKERS = {
    "transform": RationalQuadraticSplineTransform,
    "layer": lambda **o: SplineLayer(2, **o),
    "coupling": lambda **o: SplineCouplingLayer([0, 1], (4,), **o),
    "autoregressive": lambda **o: SplineAutoregressiveLayer(2, (4,), **o),
    "flow": lambda **o: NeuralSplineFlow(2, 1, (4,), **o),
    "flow of one column": lambda **o: NeuralSplineFlow(1, 1, **o),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("case", list(WRONG.values()), ids=list(WRONG))
def test_a_spline_that_can_not_be_is_refused(case, maker):
    options, message = case
    with pytest.raises(ValueError, match=message):
        MAKERS[maker](**{"num_bins": 4, **options})


@pytest.mark.parametrize("what", [{"conditioner": "mlp"}, {"linear": "svd"}])
def test_an_unknown_part_of_the_flow_is_refused_with_those_known(what):
    ((name, value),) = what.items()
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
        NeuralSplineFlow(2, 1, (4,), **what)


X, SIZES, SLOPES = np.zeros((5, 2)), np.full((5, 2, 4), 1.5), np.ones((5, 2, 5))
UNEVEN, NEGATIVE, NONE, DOWN, HOLE = *np.repeat(SIZES[None], 3, axis=0), *np.repeat(SLOPES[None], 2, axis=0)
UNEVEN[3, 1, 2], NEGATIVE[0, 0], NONE[4, 1] = 1.6, [-1.5, 4.5, 1.5, 1.5], [1.5, 1.5, 3.0, 0.0]
DOWN[4, 0, 2], HOLE[2, 1, 1] = -1.0, np.nan
APPLIED = {
    "x of one axis": ((X[:, 0], SIZES, SIZES, SLOPES), r"x must have shape \(n, d\) .*, got \(5,\) and \(5, 2, 4\)"),
    "x of other rows": ((X[:4], SIZES, SIZES, SLOPES), r"x must have shape .*, got \(4, 2\) and \(5, 2, 4\)"),
    "other columns": ((X[:, :1], SIZES, SIZES, SLOPES), r"x must have shape .*, got \(5, 1\) and \(5, 2, 4\)"),
    "other bins": (
        (X, SIZES[..., :3], SIZES[..., :3], SLOPES[..., :4]),
        r"widths and heights must have shape \(n, d, 4\), got \(5, 2, 3\)",
    ),
    "heights unlike widths": ((X, SIZES, SIZES[:4], SLOPES), r"must have shape \(n, d, 4\), .* and \(4, 2, 4\)"),
    "widths of two axes": ((X, SIZES[0], SIZES, SLOPES), r"widths \(n, d, K\), got \(5, 2\) and \(2, 4\)"),
    "inner slopes alone": ((X, SIZES, SIZES, SLOPES[..., 1:-1]), r"derivatives must have shape \(n, d, 5\), .*2, 3\)"),
    "slopes of other rows": ((X, SIZES, SIZES, SLOPES[1:]), r"derivatives must have shape \(n, d, 5\), got \(4, 2, 5"),
    "slopes of two axes": ((X, SIZES, SIZES, SLOPES[0]), r"derivatives must have shape \(n, d, 5\), got \(2, 5\)"),
    "widths that leave a gap": ((X, UNEVEN, SIZES, SLOPES), r"widths must be positive and sum to 2 \* tail_bound = 6"),
    "heights that leave a gap": ((X, SIZES, UNEVEN, SLOPES), r"heights must be positive and sum to 2 \* tail_bound = 6"),
    "negative height": ((X, SIZES, NEGATIVE, SLOPES), "heights must be positive"),
    "no width": ((X, NONE, SIZES, SLOPES), "widths must be positive"),
    "width NaN": ((X, SIZES * np.nan, SIZES, SLOPES), "widths must be positive"),
    "downhill": ((X, SIZES, SIZES, DOWN), "derivatives must be positive"),
    "slope NaN": ((X, SIZES, SIZES, HOLE), "derivatives must be positive"),
}


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("case", list(APPLIED.values()), ids=list(APPLIED))
def test_bins_that_do_not_fit_are_refused(case, inverse):
    arguments, message = case
    with pytest.raises(ValueError, match=message):
        RationalQuadraticSplineTransform(4).apply_spline(*arguments, inverse)


RAW = {
    "two axes": ([np.zeros((5, 4))] * 3, r"widths and heights must have shape \(n, d, 4\), got \(5, 4\)"),
    "other bins": ([np.zeros((5, 2, 5))] * 3, r"widths and heights must have shape \(n, d, 4\), got \(5, 2, 5\)"),
    "K slopes": ([np.zeros((5, 2, 4))] * 3, r"derivatives must have shape \(n, d, 5\), got \(5, 2, 4\)"),
}


@pytest.mark.parametrize("case", list(RAW.values()), ids=list(RAW))
def test_raw_parameters_of_another_shape_are_refused(case):
    raw, message = case
    with pytest.raises(ValueError, match=message):
        RationalQuadraticSplineTransform(4).constrain_parameters(*raw)


def test_words_are_no_numbers():
    with pytest.raises(TypeError, match="x must be an array of numbers"):
        RationalQuadraticSplineTransform(4).apply_spline([["a", "b"]], SIZES[:1], SIZES[:1], SLOPES[:1])


def test_no_rows_and_nan_go_through_the_transform():
    transform = RationalQuadraticSplineTransform(4)
    for inverse in (False, True):
        y, log_det = transform.apply_spline(X[:0], SIZES[:0], SIZES[:0], SLOPES[:0], inverse)
        assert y.shape == (0, 2)
        assert log_det.shape == (0,)
        x = X.copy()
        x[[1, 3], [0, 1]] = np.nan, np.inf
        y, log_det = transform.apply_spline(x, SIZES, SIZES, SLOPES, inverse)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
        np.testing.assert_array_equal(np.isnan(log_det), [False, True, False, False, False])
        assert y[3, 1] == np.inf
