"""What comes from the user is told in one sentence, whatever it is."""

import numpy as np
import pytest

import npflows
import npflows.convert
import npflows.networks
import npflows.transformers
from npflows.core.checks import as_choice, as_flag, as_int, as_names, as_positive
from npflows.demo import demo

HUGE = 10**400


@pytest.mark.parametrize("value", [HUGE, 2 * HUGE, 10**5000], ids=["400", "401", "5001"])
def test_whole_numbers_of_hundreds_of_digits_are_refused(value):
    with pytest.raises(ValueError, match=r"n must be a whole number of at .* got one of .* bits"):
        as_int(value, "n")
    with pytest.raises(ValueError, match=r"scale must be a finite number above 0, got one of .* bits"):
        as_positive(value, "scale")


@pytest.mark.parametrize("value", [True, False, 0, 1, np.True_, np.int64(0)])
def test_a_flag_is_true_or_false(value):
    assert as_flag(value, "actnorm") is bool(value)


@pytest.mark.parametrize("value", ["no", "False", None, 2, 0.5, [True], np.array([1, 0]), HUGE], ids=str)
def test_what_is_neither_is_refused(value):
    with pytest.raises(TypeError, match="reverse_ordering must be True or False"):
        npflows.MAF(2, 1, (4,), reverse_ordering=value)


@pytest.mark.parametrize("value", [1.5, 3, "ab", object()])
def test_names_are_a_sequence_of_them(value):
    with pytest.raises(TypeError, match="columns must be a sequence of names"):
        npflows.MAF(2, 1, (4,), columns=value)
    assert as_names(("a", 1), 2, "columns", "a sample") == ["a", "1"]


@pytest.mark.parametrize("value", [np.array(["relu", "tanh"]), np.array("relu"), 3, None, ["relu"]])
def test_a_choice_is_a_string(value):
    with pytest.raises(ValueError, match="activation must be one of"):
        as_choice(value, "activation", ["relu", "tanh"])


ROWS = np.random.default_rng(0).normal(size=(40, 2))
FLAGS = {
    "exact": lambda v: FLOW.fit(ROWS, max_epochs=0, exact=v),
    "resume": lambda v: FLOW.fit(ROWS, max_epochs=0, resume=v),
    "sticking_the_landing": lambda v: FLOW.fit_variational(normal, max_steps=0, sticking_the_landing=v),
    "exact of fit_variational": lambda v: FLOW.fit_variational(normal, max_steps=0, exact=v),
    "with_layers": lambda v: FLOW.program(with_layers=v),
    "with_base": lambda v: FLOW.program(with_base=v),
    "inverse": lambda v: npflows.RationalQuadraticSplineTransform(2).apply_spline(*[np.ones((1, 1))] * 4, inverse=v),
    "gated": lambda v: npflows.networks.dense(2, (4,), 2, residual_blocks=1, gated=v, condition_dim=1),
    "gated of masked": lambda v: npflows.networks.masked(2, (4,), 2, residual_blocks=1, gated=v, condition_dim=1),
    "circular": lambda v: npflows.networks.masked(2, (4,), 2, circular=[v, False]),
    "circular of spline": lambda v: npflows.transformers.spline(4, 3.0, 1e-3, 1e-3, 1e-3, circular=v),
    "actnorm": lambda v: npflows.networks.convolutional(np.ones((2, 2, 1), int), (4,), 2, actnorm=v),
    "shift_first": lambda v: npflows.MAFLayer(2, (4,), shift_first=v),
    "quick": lambda v: demo(quick=v),
}
FLOW = npflows.MAF(2, 1, (4,), rng=0)


def normal(x):
    return -0.5 * (x**2).sum(axis=1), -x


@pytest.mark.parametrize("value", ["no", 2], ids=str)
@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_functions_are_true_or_false(name, value):
    with pytest.raises(TypeError, match=f"^{name.split()[0]} must be True or False, got .*{value}"):
        FLAGS[name](value)


def test_flags_of_pictures_are_true_or_false():
    pytest.importorskip("matplotlib")
    with pytest.raises(TypeError, match="colorbar must be True or False, got 'no'"):
        npflows.plotting.density_2d(FLOW, colorbar="no")
    with pytest.raises(TypeError, match="difference must be True or False, got 'no'"):
        npflows.plotting.calibration(None, difference="no")


@pytest.mark.parametrize("circular", [["no", "yes"], [2, 0], [0.5, 0], [None, None], "no"], ids=str)
def test_flags_of_circles_are_true_or_false(circular):
    for make in (lambda: npflows.SplineLayer(2, circular=circular), lambda: npflows.Rotation(circular, 1.0)):
        with pytest.raises(ValueError, match=r"circular must say for each of . values whether it is on a circle, got"):
            make()


MAPS = {
    "shift_first": lambda v: npflows.transformers.Affine("tanh", shift_first=v),
    "bounded": lambda v: npflows.transformers.Bernstein(4, 3.0, bounded=v),
    "free_ends": lambda v: npflows.transformers.Spline(4, 3.0, 1e-3, 1e-3, 1e-3, free_ends=v),
    "turned": lambda v: npflows.transformers.Spline(4, 3.0, 1e-3, 1e-3, 1e-3, turned=v),
    "circular": lambda v: npflows.transformers.Spline(4, 3.0, 1e-3, 1e-3, 1e-3, circular=(False, v)),
    "sloped_tails": lambda v: npflows.transformers.PiecewiseSpline("linear", 4, 3.0, 1e-3, 1e-3, 1e-3, sloped_tails=v),
}


@pytest.mark.parametrize("value", ["no", 2, np.array([1, 0]), None], ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_flags_of_scalar_maps_are_true_or_false(name, value):
    with pytest.raises(ValueError, match=f"needs .*{name}.* that (is|are) True or False, got"):
        MAPS[name](value)


@pytest.mark.parametrize("value", [np.array([1, 0]), np.array(True), None, 1.0, "yes"], ids=str)
def test_progress_is_shown_or_not(value):
    with pytest.raises(ValueError, match='progress must be True, False or "auto", got'):
        FLOW.fit(ROWS, max_epochs=0, progress=value)


def test_a_frame_is_wanted_or_not():
    assert isinstance(FLOW.sample(3, 0, as_frame=np.False_), np.ndarray)
    assert isinstance(FLOW.sample(3, 0, as_frame=0), np.ndarray)
    for value in (2, None, np.array([1, 0])):
        with pytest.raises(TypeError, match="as_frame must be True or False, got"):
            FLOW.sample(3, as_frame=value)
