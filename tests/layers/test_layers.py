"""Every layer and model is the invertible map that it promises to be, for input of any size and layout."""

import numpy as np
import pytest
from helpers import Reference, jacobian
from registry import (
    ALL,
    both_directions,
    both_dtypes,
    build,
    condition,
    data,
    flat,
    for_everything,
    fresh,
    is_of_images,
    latent,
    parts,
    source,
)

from npflows import (
    CouplingLayer,
    Householder,
    LogTails,
    LULinear,
    NormalizingFlow,
    Permutation,
    QRLinear,
    Rotation,
    Standardize,
    SVDLinear,
)
from npflows.core import operations

TOLERANCE = {"float32": 5e-5, "float64": 1e-12}


def assert_close(actual, expected, tolerance):
    """Equal up to rounding, measured against the largest value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max(initial=0)))


def jacobians(obj, direction, n):
    """Numeric Jacobian (n, d, d) of a layer or flow."""
    x, context = source(obj, n, direction), condition(obj, n)
    repeated = None if context is None else np.repeat(context, 2 * x.shape[1], axis=0)
    return jacobian(lambda ends: getattr(obj, direction)(ends, repeated)[0], x)


def dependence_of(operation, direction, free):
    """Which result (row) of one operation depends on which input (column), where so many of its parameters are free."""
    n = operation.dim
    same, seen = np.eye(n, dtype=bool), np.zeros((n, n), bool)
    match operation:
        case operations.Permutation(order=order):
            return same[np.array(order) if direction == "forward" else np.argsort(order)]
        case operations.Autoregressive(order=order):
            place = np.argsort(order)
            return place[:, None] >= place
        case operations.Coupling(kept=kept, moved=moved, conditioner=network):
            seen[np.ix_(moved, kept)] = True
            if isinstance(network, operations.ConvNet):
                reach = 2 if len(network.channels) > 2 else 1  # of two convolutions of 3 x 3 pixels, or of one
                shape = network.height, network.width, n // (network.height * network.width)
                y, x, _ = np.indices(shape).reshape(3, -1)
                seen &= (abs(y[:, None] - y) <= reach) & (abs(x[:, None] - x) <= reach)
            return same | seen
        case operations.Conv1x1(channels=channels):
            pixel = np.arange(n) // channels
            return pixel[:, None] == pixel
        case operations.LULinear(order=order):
            mixed = same | free[: n * n].reshape(n, n)  # what is not free is the identity
            there = mixed @ same[np.array(order)]
            return there if direction == "forward" else there.T
        case operations.Householder() | operations.QRLinear() | operations.SVDLinear():
            return np.ones((n, n), bool)
        case operations.ActNorm() | operations.Elementwise() | operations.LogTails() | operations.Rotation():
            return same
    raise NotImplementedError(f"say what {type(operation).__name__} promises")


def dependence(obj, direction):
    """The same for a layer or flow."""
    program = obj.program(with_base=False) if isinstance(obj, NormalizingFlow) else obj.program()
    seen = np.eye(obj.input_dim, dtype=bool)
    factor = getattr(parts(obj)[0], "factor", None)
    there = None if factor is None else np.linalg.inv(factor) if direction == "forward" else factor
    mixed = np.eye(obj.input_dim, dtype=bool) if there is None else np.abs(there) > 1e-9
    if direction == "forward":
        seen = mixed
    for operation, start in program.layers if direction == "forward" else program.layers[::-1]:
        free = obj.parameters.free[start : start + operation.size]
        seen[: operation.dim] = dependence_of(operation, direction, free) @ seen[: operation.dim]
    return mixed @ seen if direction == "inverse" else seen


@both_dtypes
@for_everything
def test_there_and_back_again(name, dtype):
    obj, n = build(name, dtype), 300
    context = condition(obj, n)
    for there, back, x in (("forward", "inverse", data(obj, n)), ("inverse", "forward", latent(obj, n))):
        y, log_det = getattr(obj, there)(x, context)
        returned, log_det_back = getattr(obj, back)(y, context)
        assert_close(flat(returned), x, 10 * TOLERANCE[dtype])
        assert_close(log_det_back, -log_det, 10 * TOLERANCE[dtype])


@both_directions
@for_everything
def test_log_det_is_that_of_the_jacobian(name, direction):
    obj, n = build(name), 5
    _, expected = np.linalg.slogdet(jacobians(obj, direction, n))
    _, log_det = getattr(obj, direction)(source(obj, n, direction), condition(obj, n))
    np.testing.assert_allclose(log_det, expected, rtol=1e-6, atol=1e-6)


@both_directions
@for_everything
def test_every_promised_dependence_is_there_and_no_other(name, direction):
    obj = build(name)
    size, promised = np.abs(jacobians(obj, direction, 20)).max(0), dependence(obj, direction)
    assert size[~promised].max(initial=0) < 1e-8 * size.max()
    assert size[promised].min() > 1e-6 * size.max()


def starts_elsewhere(obj):
    """Whether a layer starts with another scale than 1, as a mixture, or with other slopes than 1 at its ends."""
    is_mixture = getattr(obj, "scalar_map", None) == "logistic_mixture" and obj.num_terms > 1
    return (
        getattr(obj, "scale_activation", None) in ("sigmoid", "softplus") or is_mixture or getattr(obj, "end_weight", 1) < 1
    )


@both_dtypes
@pytest.mark.parametrize(
    "name", [name for name in ALL if not is_of_images(fresh(name)) and not starts_elsewhere(fresh(name))]
)
def test_starts_as_the_identity_up_to_what_is_fixed(name, dtype):
    obj = fresh(name, dtype)
    x = data(obj, 20)
    expected_y, expected_log_det = x, 0.0
    if getattr(obj, "support", None):
        expected_y, expected_log_det, _ = obj.preprocessing.to_unconstrained(x)
    for part in (leaf for layer in parts(obj) for leaf, _ in layer.leaves()):
        if isinstance(part, (Householder, LogTails, LULinear, Permutation, QRLinear, Rotation, Standardize, SVDLinear)):
            expected_y, more = Reference(part).forward(expected_y)
            expected_log_det = expected_log_det + more
        elif getattr(part, "turned", False):
            expected_y = np.mod(expected_y, 2 * part.tail_bound) - part.tail_bound
    y, log_det = obj.forward(x, condition(obj, 20))
    # a spline of equal bins is the identity but for rounding, and so are polynomials, supports and rotations; tails are
    # compiled
    of_maps = (operations.Affine, operations.Additive, type(None))
    maps = [not isinstance(getattr(p, "transformer", None), of_maps) for p in parts(obj)]
    rounded = any(maps) or any(isinstance(p, (LogTails, Rotation)) for p in parts(obj))
    if getattr(obj, "support", None) or rounded or getattr(parts(obj)[0], "factor", None) is not None:
        rounding = 100 * np.finfo(dtype).eps
        np.testing.assert_allclose(flat(y), expected_y, rtol=rounding, atol=rounding)
        np.testing.assert_allclose(log_det, expected_log_det, atol=rounding * obj.input_dim * len(parts(obj)))
    else:
        np.testing.assert_array_equal(flat(y), expected_y.astype(dtype))
        np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-15)


@both_directions
@for_everything
def test_rows_do_not_see_each_other(name, direction):
    obj, n = build(name), 300
    x, context = source(obj, n, direction), condition(obj, n)
    y, log_det = getattr(obj, direction)(x, context)
    mixed = np.random.default_rng(0).permutation(n)
    for some in (mixed[:1], mixed[:17], mixed):
        part_y, part_log_det = getattr(obj, direction)(x[some], None if context is None else context[some])
        assert_close(part_y, y[some], 1e-13)
        assert_close(part_log_det, log_det[some], 1e-13)


@both_dtypes
@both_directions
@for_everything
def test_row_with_nan_or_infinity_leaves_other_rows_untouched(name, direction, dtype):
    obj, n = build(name, dtype), 40
    x, context = source(obj, n, direction), condition(obj, n)
    clean = getattr(obj, direction)(x, context)
    spoilt, bad = x.copy(), [3, 17, 18, 39]
    spoilt[bad] = np.array([np.nan, np.inf, -np.inf, 1e30])[:, None]
    good = np.delete(np.arange(n), bad)
    for result, expected in zip(getattr(obj, direction)(spoilt, context), clean):
        np.testing.assert_array_equal(result[good], expected[good])


@both_directions
@for_everything
def test_no_rows_give_no_rows(name, direction):
    obj = build(name)
    y, log_det = getattr(obj, direction)(np.zeros((0, obj.input_dim)), condition(obj, 0))
    assert flat(y).shape[0] == 0
    one, _ = getattr(obj, direction)(source(obj, 1, direction), condition(obj, 1))
    assert y.shape[1:] == one.shape[1:]
    assert log_det.shape == (0,)
    gradients = getattr(obj, f"{direction}_vjp")(np.zeros((0, obj.input_dim)), np.zeros((0, obj.input_dim)), 0.0,
                                                 condition(obj, 0))  # fmt: skip
    assert flat(gradients.input).shape == flat(y).shape
    np.testing.assert_array_equal(gradients.params, np.zeros(obj.num_params))


@both_directions
@for_everything
def test_single_row_comes_and_goes_without_its_axis(name, direction):
    obj = build(name)
    x, context = source(obj, 1, direction), condition(obj, 1)
    y, log_det = getattr(obj, direction)(x, context)
    one_y, one_log_det = getattr(obj, direction)(x[0], None if context is None else context[0])
    np.testing.assert_array_equal(one_y, y[0])
    assert one_log_det == log_det[0]
    assert np.ndim(one_log_det) == 0


@for_everything
def test_one_condition_serves_all_rows(name):
    obj = build(name)
    if not obj.condition_dim:
        with pytest.raises(ValueError, match="takes no condition"):
            obj.forward(data(obj, 3), [[1.0]])
        return
    x, one = latent(obj, 20), condition(obj, 1)
    for direction in ("forward", "inverse"):
        expected = getattr(obj, direction)(x, np.repeat(one, 20, axis=0))
        for given in (one, one[0], one[0].tolist()):
            for result, wanted in zip(getattr(obj, direction)(x, given), expected):
                np.testing.assert_array_equal(result, wanted)
    with pytest.raises(ValueError, match="needs a condition"):
        obj.forward(x)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def strided(x):
    wide = np.full((2 * len(x), 3 * x.shape[1]), np.nan)
    wide[::2, 1::3] = x
    return wide[::2, 1::3]


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "strided": strided,
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
    "float32": lambda x: x.astype(np.float32),
    "int": lambda x: x.astype(int),
    "int8": lambda x: x.astype(np.int8),
    "big-endian": lambda x: x.astype(">f8"),
    "list": lambda x: x.tolist(),
    "unaligned": lambda x: np.frombuffer(b"?" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@for_everything
def test_layout_of_the_input_does_not_matter(name, layout):
    obj, rng, other = build(name, "float32"), np.random.default_rng(0), LAYOUTS[layout]
    x = rng.integers(-3, 4, (17, obj.input_dim)).astype(float)
    context = rng.integers(-3, 4, (17, obj.condition_dim)).astype(float) if obj.condition_dim else None
    other_context = None if context is None else other(context)
    before = x.copy()
    for direction in ("forward", "inverse"):
        for result, expected in zip(getattr(obj, direction)(other(x), other_context), getattr(obj, direction)(x, context)):
            np.testing.assert_array_equal(result, expected)
            assert result.dtype == np.float64
        expected = getattr(obj, f"{direction}_vjp")(x, x, 1.0, context)
        result = getattr(obj, f"{direction}_vjp")(other(x), other(x), 1.0, other_context)
        np.testing.assert_array_equal(result.input, expected.input)
        np.testing.assert_array_equal(result.params, expected.params)
    np.testing.assert_array_equal(x, before)


@both_dtypes
@pytest.mark.parametrize("raw", [1e4, -1e4])
def test_log_scale_is_held_where_exp_would_overflow(raw, dtype):
    layer = CouplingLayer([1, 0], (), "none", dtype=dtype)
    layer.params = [0.0, 0.0, 0.0, raw]  # two weights, then the biases of shift and log-scale
    limit = {"float32": 87, "float64": 708}[dtype]
    x = np.array([[1.0, 0.5], [0.0, 0.0]])
    y, log_det = layer.forward(x)
    np.testing.assert_array_equal(log_det, np.sign(raw) * limit)
    assert np.isfinite(y).all()
    back, log_det_back = layer.inverse(y)
    np.testing.assert_allclose(back, x, rtol=1e-6)
    np.testing.assert_array_equal(log_det_back, -log_det)
    assert layer.forward_vjp(x, np.zeros_like(x), 1.0).params[3] == 0


def test_a_coupling_with_a_dense_network_has_nothing_to_be_set_from_data():
    layer = CouplingLayer([1, 0, 0], (4,), rng=0)
    before = layer.params
    layer.initialize(np.arange(15.0).reshape(5, 3))
    np.testing.assert_array_equal(layer.params, before)
    assert layer.initialized is None


def test_large_offset_does_not_eat_the_digits_in_float32():
    spread = np.random.default_rng(0).normal(size=(100, 1))
    layer = Standardize(1, 58000.0, 0.003, dtype="float32")
    y, _ = layer.forward(58000 + 0.003 * spread)
    np.testing.assert_allclose(y, spread, atol=1e-5)
    np.testing.assert_allclose(layer.inverse(spread)[0], 58000 + 0.003 * spread, rtol=0, atol=1e-9)
