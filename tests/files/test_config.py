"""Models from configurations, and back, through JSON."""

import json

import numpy as np
import pytest
from registry import MODELS, build

import npflows
from npflows import ModelConfiguration, create


def same_density(a, b):
    x = np.random.default_rng(0).normal(size=(4, a.latent_dim))
    condition = np.zeros((4, a.condition_dim)) if a.condition_dim else None
    np.testing.assert_array_equal(a.log_prob(x, condition), b.log_prob(x, condition))


@pytest.mark.parametrize("name", MODELS)
def test_a_flow_is_built_again_from_its_configuration_and_its_json(name):
    flow = build(name, "float32")
    config = flow.config
    assert config.input_dim in (flow.latent_dim, list(flow.input_shape))
    assert config.output_dim == flow.latent_dim
    again = ModelConfiguration.from_json(config.to_json())
    assert again == config
    twin = create(again, rng=7)
    assert type(twin) is type(flow)
    assert twin.config == config
    assert twin.num_params == flow.num_params


@pytest.mark.parametrize("model_class", ["MAF", "npflows.MAF", "npflows.models.maf.MAF"])
def test_class_is_named_in_full_or_by_its_last_part(model_class):
    config = ModelConfiguration("mine", model_class, 3, hidden_dims=[8], parameters={"num_layers": 2})
    flow = create(config, rng=0)
    assert flow.arguments["hidden_dims"] == [8]
    same_density(flow, npflows.MAF(3, 2, (8,), rng=0))
    same_density(create(config.to_dict(), rng=0), flow)


def test_flow_params_of_the_metadata_are_those_of_the_spline_flow():
    spline = {"num_layers": 2, "num_bins": 5, "tail_bound": 4.0}
    config = ModelConfiguration(
        "nsf", "NeuralSplineFlow", 2, hidden_dims=(8,), metadata={"flow_params": spline, "by": "me"}
    )
    flow = create(config, rng=0)
    assert {name: flow.arguments[name] for name in spline} == spline
    with pytest.raises(ValueError, match="arguments of a NeuralSplineFlow, and this is a MAF"):
        create(ModelConfiguration("x", "MAF", 2, metadata={"flow_params": spline}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_class": "MAF", "parameters": {"num_layer": 2}},
            "MAF has no parameter 'num_layer'; did you mean 'num_layers'",
        ),
        ({"model_class": "RealNVPP"}, "model_class 'RealNVPP' is unknown; did you mean 'RealNVP'"),
        ({"model_class": "torch.MAF"}, "model_class 'torch.MAF' is unknown"),
        ({"model_class": "LULinear"}, "model_class 'LULinear' is unknown"),
        ({"model_class": "MAF", "output_dim": 3}, "output_dim is 3, and MAF gives 2 latent values"),
        ({"model_class": "MAF", "parameters": {"input_dim": 2}}, "input_dim is given twice"),
        ({"model_class": "MAF", "hidden": [3]}, "no parameter 'hidden'; did you mean 'hidden_dims'"),
        ({}, "needs model_class"),
        ({"model_class": "MAF", "parameters": {"rng": 3}}, "no parameter 'rng'"),
        ({"model_class": "MAF", "input_dim": None}, "MAF needs input_dim"),
        ({"model_class": "ConditionalRealNVP", "input_dim": None}, "ConditionalRealNVP needs input_dim and condition_dim"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        create({"name": "x", "input_dim": 2, **fields})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("MAF", "config must be a ModelConfiguration or a dict of its fields, got 'MAF'"),
        (ModelConfiguration("x", npflows.MAF, 2), "model_class must be the name of a class, got <class"),
        (ModelConfiguration("x", "MAF", 2, parameters=[3]), r"parameters must be a dict, got \[3\]"),
        (ModelConfiguration("x", "MAF", 2, metadata=None), "metadata must be a dict, got None"),
        (
            ModelConfiguration("x", "NeuralSplineFlow", 2, metadata={"flow_params": 8}),
            "flow_params'\\] must be a dict, got 8",
        ),
    ],
)
def test_what_is_of_the_wrong_type_is_told(config, message):
    with pytest.raises(TypeError, match=message):
        create(config)


def test_json_that_is_no_configuration_is_refused():
    with pytest.raises(ValueError, match="is an object, got list"):
        ModelConfiguration.from_json("[]")


def test_support_survives_json():
    flow = npflows.NeuralSplineFlow(2, 2, (8,), linear="permutation", rng=0,
                                    support=[npflows.support.periodic(0, 360), npflows.support.integer(0, 5)])  # fmt: skip
    config = ModelConfiguration.from_json(flow.config.to_json())
    assert json.loads(config.to_json())["parameters"]["support"][0]["config"] == {"low": 0.0, "high": 360.0}
    assert repr(create(config).support) == repr(flow.support)
