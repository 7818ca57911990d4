import functools
import re

import numpy as np
import pytest

from npflows.backends.cpu.compiler.jit import DISABLED, inlined
from npflows.backends.cpu.kernels import vecmath

pytestmark = pytest.mark.filterwarnings("error")

BOUNDS = {
    "exp": 1.5,
    "expm1": 3,
    "log": 1.5,
    "log1p": 3,
    "tanh": 3,
    "softplus": 3,
    "sigmoid": 3,
    "sinpi": 5,
    "cospi": 5,
    "arctan": 5,
}  # units in the last place
DTYPES = [np.float32, np.float64]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
INF, NAN = np.inf, np.nan

for_every_function = pytest.mark.parametrize("name", BOUNDS)
for_both_types = pytest.mark.parametrize("dtype", DTYPES)
compiled_only = pytest.mark.skipif(DISABLED, reason="nothing is compiled")


@functools.cache
def loop(name, reassociate=False):
    function = getattr(vecmath, name)

    @inlined(reassociate=reassociate, python=True)
    def run(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return run


def evaluate(name, x, reassociate=False):
    out = np.empty_like(x)
    with np.errstate(all="raise"):
        loop(name, reassociate)(x, out)
    return out


@functools.cache
def points(dtype):
    """Numbers of every size, of which half in the ranges where the functions are neither constant nor linear."""
    rng = np.random.default_rng(0)
    n = 20 if DISABLED else 20_000
    info = np.finfo(dtype)
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    bits = rng.integers(0, np.iinfo(unsigned).max, 8 * n, dtype=unsigned, endpoint=True)
    limits = [np.log(float(info.max)), np.log(float(info.smallest_subnormal)), np.log(float(info.tiny)), 0]
    near = [limit + rng.uniform(-2, 2, n) for limit in limits]
    around = [rng.uniform(-width, width, n) for width in (0.5, 5, 25, 1000)]
    tiny = [info.tiny * rng.uniform(-1, 1, n), info.eps * rng.uniform(-1, 1, n), 1 + info.eps * rng.integers(-n, n, n)]
    return np.concatenate([bits.view(dtype), *(part.astype(dtype) for part in near + around + tiny)])


def exact(name, x):
    if name == "softplus":
        return np.logaddexp(x, 0)
    if name == "sigmoid":
        e = np.exp(-np.abs(x))
        return np.where(x > 0, 1, e) / (1 + e)
    if name in ("sinpi", "cospi"):
        r = np.fmod(x, 2)  # exact; then to where sine and cosine are small
        pi = 4 * np.arctan(x.dtype.type(1))
        folded = r if name == "sinpi" else r + x.dtype.type(0.5)
        near = np.rint(folded)
        small = r - near if name == "sinpi" else r - (near - x.dtype.type(0.5))
        return np.where(near % 2 == 0, 1, -1) * np.sin(pi * small)
    return getattr(np, name)(x)


@for_both_types
@for_every_function
def test_error_is_a_few_units_in_the_last_place(name, dtype):
    x, wider = points(dtype), WIDER[dtype]
    y = evaluate(name, x).astype(wider)
    with np.errstate(all="ignore"):
        expected = exact(name, x.astype(wider))
        rounded = expected.astype(dtype)
        finite = np.isfinite(rounded)
        error = np.abs(y - expected)[finite] / np.spacing(np.abs(rounded[finite]))
    # where long double is no wider, the reference itself is off by a unit
    assert error.max() <= BOUNDS[name] + (np.finfo(wider).nmant == np.finfo(dtype).nmant)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])


@for_both_types
@pytest.mark.parametrize(
    ("name", "arguments", "values"),
    [
        ("exp", [0, 1000, -1000, INF, -INF], [1, INF, 0, INF, 0]),
        ("expm1", [0, 1000, -1000, INF, -INF], [0, INF, -1, INF, -1]),
        ("log", [0, 1, INF, -1, -1e-40, -INF], [-INF, 0, INF, NAN, NAN, NAN]),
        ("log1p", [0, -1, INF, -2, -INF], [0, -INF, INF, NAN, NAN]),
        ("tanh", [0, 30, -30, INF, -INF], [0, 1, -1, 1, -1]),
        ("softplus", [1000, -1000, INF, -INF], [1000, 0, INF, 0]),
        ("sigmoid", [0, 1000, -1000, INF, -INF], [0.5, 1, 0, 1, 0]),
    ],
)
def test_limits_and_poles_are_exact(name, arguments, values, dtype):
    np.testing.assert_array_equal(evaluate(name, np.array(arguments, dtype)), np.array(values, dtype))


@for_both_types
@for_every_function
def test_nan_propagates(name, dtype):
    assert np.isnan(evaluate(name, np.full(67, NAN, dtype))).all()


@for_both_types
@for_every_function
def test_smallest_numbers_are_not_lost(name, dtype):
    x = np.finfo(dtype).smallest_subnormal * np.arange(-3, 4).astype(dtype)
    if name in ("expm1", "log1p", "tanh"):
        np.testing.assert_array_equal(evaluate(name, x), x)
    if name == "exp":
        x = np.array([np.log(float(np.finfo(dtype).smallest_subnormal))], dtype)
        assert evaluate(name, x) == np.finfo(dtype).smallest_subnormal


@for_both_types
def test_tanh_and_sigmoid_stay_in_their_range(dtype):
    x = points(dtype)
    x = x[~np.isnan(x)]
    assert np.abs(evaluate("tanh", x)).max() <= 1
    y = evaluate("sigmoid", x)
    assert y.min() >= 0
    assert y.max() <= 1


@for_both_types
@for_every_function
def test_result_does_not_depend_on_the_place_in_an_array(name, dtype):
    """Vectorized lanes, the scalar rest of a loop and a call from Python give the same bits."""
    x = np.random.default_rng(1).normal(scale=3, size=40 if DISABLED else 300).astype(dtype)
    x = np.abs(x) if name.startswith("log") else x
    whole = evaluate(name, x)
    assert [getattr(vecmath, name)(one) for one in x] == list(whole)
    for first in range(0, len(x), 10):
        for length in range(1, 3 if DISABLED else 70):
            part = slice(first, first + length)
            np.testing.assert_array_equal(evaluate(name, x[part]), whole[part])


@compiled_only
@for_both_types
@for_every_function
def test_result_does_not_depend_on_the_rules_of_the_caller(name, dtype):
    x = points(dtype)
    np.testing.assert_array_equal(evaluate(name, x, reassociate=True), evaluate(name, x))


@for_both_types
def test_result_has_the_type_of_the_argument(dtype):
    exp, expm1, log, log1p, tanh, softplus, sigmoid, sinpi, cospi, arctan = (getattr(vecmath, name) for name in BOUNDS)

    @inlined(python=True)
    def every(x):
        return exp(x), expm1(x), log(x), log1p(x), tanh(x), softplus(x), sigmoid(x), sinpi(x), cospi(x), arctan(x)

    every(dtype(0.5))
    assert DISABLED or str(every.nopython_signatures[0].return_type) == f"UniTuple({np.dtype(dtype).name} x 10)"
    assert {type(getattr(vecmath, name)(dtype(0.5))) for name in BOUNDS} == {dtype}


@for_every_function
def test_called_from_python_it_neither_warns_nor_changes_the_error_state(name):
    before = np.geterr()
    for x in (0.0, 1e-300, 1e300, -1e300, INF, -INF, NAN):
        getattr(vecmath, name)(np.float64(x))
    assert np.geterr() == before


@for_both_types
def test_exponential_of_negative_numbers_is_no_less_than_the_smallest_normal_one(dtype):
    x, tiny = points(dtype), np.finfo(dtype).tiny
    x = -np.abs(x[np.isfinite(x)])
    y, exact = evaluate("exp_of_negative", x), np.exp(x.astype(WIDER[dtype]))
    small = exact < tiny * 1.001
    assert (np.abs(y - exact)[~small] <= 3 * np.finfo(dtype).eps * exact[~small]).all()
    assert ((y[small] >= tiny) & (y[small] < 1.01 * tiny)).all()
    assert evaluate("exp_of_negative", np.array([0], dtype)) == 1
    assert np.isnan(evaluate("exp_of_negative", np.array([np.nan], dtype))).all()


@compiled_only
@for_both_types
@for_every_function
def test_loop_is_vectorized(name, dtype):
    run = loop(name)
    x = np.ones(4, dtype)
    run(x, x.copy())
    code = next(code for types, code in run.inspect_llvm().items() if str(types[0].dtype) == np.dtype(dtype).name)
    element = "float" if dtype == np.float32 else "double"
    assert re.search(rf"store <\d+ x {element}>", code)
    assert not re.search(rf"call .*{element} @(?!llvm|sqrt)", code)  # which is one instruction, called or not
