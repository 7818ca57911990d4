"""Operations that make no sense are refused when they are made."""

import pytest

from npflows.core.operations import (
    Affine,
    Bernstein,
    ConvNet,
    LogisticMixture,
    Made,
    Mlp,
    PiecewiseSpline,
    Spline,
    described,
    operation_of,
)

MASKED = {"n_in": 2, "n_out": 4, "multiplier": 2, "feature_rows": (1, 1)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Made((4,), "relu", **{**MASKED, "feature_rows": (1, 3)}), "Made needs n_in rows"),
        (lambda: Made((4,), "relu", **{**MASKED, "n_out": 5}), "Made needs n_out as"),
        (lambda: Made((2,), "relu", **MASKED, hidden_degrees=((1,),)), "Made needs a degree for each hidden unit"),
        (lambda: Made((2,), "relu", **MASKED, hidden_degrees=((1, 0),)), "Made needs degrees that rise"),
        (
            lambda: Made((2, 2, 2), "relu", True, **MASKED, hidden_degrees=((0, 1), (0, 1), (0, 0))),
            "Made needs degrees that do not fall",
        ),
        (lambda: Mlp((4,), "relu", dropout=1.0), "Mlp needs a dropout"),
        (lambda: ConvNet(2, 2, (1, 1), (0, 4), (1,), "relu"), "ConvNet needs places within the images"),
        (lambda: ConvNet(2, 2, (1, 1), (0, 0), (1,), "relu"), "ConvNet needs places within the images, each once"),
        (lambda: ConvNet(0, 2, (1, 1), (), (1,), "relu"), "ConvNet needs a height"),
        (lambda: ConvNet(2, 2, (1,), (0,), (1,), "relu"), "ConvNet needs channels"),
        (lambda: Affine("softplus", least=2.0, most=1.0), "Affine needs scales"),
        (lambda: Affine("tanh_gain", n_gains=0), "Affine needs n_gains"),
        (lambda: Spline(4, 3.0, 0.3, 0.0, 0.0), "Spline needs bins that fit"),
        (lambda: Spline(4, 3.0, 0.0, 0.0, 0.0, (True,), turned=True), "Spline needs circles, or free ends"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "operation",
    [
        Affine("tanh_gain", True, 3),
        Affine("softplus", least=1e-3, most=3.0),
        Spline(4, 3.0, 1e-3, 0.0, 0.0, (True, False)),
        PiecewiseSpline("quadratic", 4, 3.0, 1e-3, 1e-3, 1e-3, end_weight=0.5),
        Bernstein(5, 3.0, False),
        LogisticMixture(3),
        Mlp((4, 4, 4), "silu", True, 0.1, 2, n_in=3, n_out=2, linear=(2,), gated=True, condition_layers=(0, 1)),
        Made((2,), "relu", **MASKED, hidden_degrees=((0, 1),)),
        ConvNet(2, 2, (1, 3, 1), (0, 3), (1, 2), "tanh", True),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_a_description_says_everything(operation):
    assert operation_of(described(operation)) == operation
