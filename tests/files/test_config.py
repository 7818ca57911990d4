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


def through_json(config):
    return ModelConfiguration.from_json(config.to_json())


@pytest.mark.parametrize("model_class", ["MAF", "npflows.MAF", "npflows.models.maf.MAF", "workshop.models.flow.MAF"])
def test_only_the_last_part_of_the_path_of_a_class_counts(model_class):
    config = ModelConfiguration("mine", model_class, 3, hidden_dims=[8], parameters={"num_layers": 2})
    flow = create(config, rng=0)
    assert flow.arguments["hidden_dims"] == [8]
    same_density(flow, npflows.MAF(3, 2, (8,), rng=0))
    same_density(create(config.to_dict(), rng=0), flow)
    assert flow.config.model_class == "MAF"


def test_a_base_distribution_takes_its_own_parameters():
    config = ModelConfiguration(
        "real_nvp",
        "workshop.generative_models.models.flow.RealNVP",
        input_dim=2,
        output_dim=2,
        hidden_dims=[8, 8],
        parameters={
            "num_coupling_layers": 8,
            "mask_type": "checkerboard",
            "base_distribution": "normal",
            "base_distribution_params": {"loc": 0.0, "scale": 1.0},
        },
    )
    flow = create(through_json(config), rng=0)
    same_density(flow, npflows.RealNVP(2, 8, (8, 8), rng=0))
    config.parameters["base_distribution_params"] = {"loc": [1.0, 2.0], "scale": 0.5}
    flow = create(config, rng=0)
    base = npflows.Normal(2, [1.0, 2.0], 0.5)
    same_density(flow, npflows.RealNVP(2, 8, (8, 8), base_distribution=base, rng=0))
    assert through_json(flow.config) == flow.config
    same_density(create(through_json(flow.config), rng=0), flow)
    assert config.parameters["base_distribution"] == "normal"  # the configuration is left as it was


@pytest.mark.parametrize(
    ("name", "params", "base"),
    [
        ("uniform", {"low": -4.0, "high": 4.0}, lambda dtype: npflows.Uniform(3, -4.0, 4.0, dtype=dtype)),
        ("student_t", {"df": 5.0}, lambda dtype: npflows.StudentT(3, 5.0, dtype=dtype)),
    ],
)
def test_every_base_distribution_takes_its_own_parameters(name, params, base):
    given = {"num_layers": 1, "base_distribution": name, "base_distribution_params": params, "dtype": "float64"}
    flow = create(ModelConfiguration("x", "MAF", 3, hidden_dims=[4], parameters=given), rng=0)
    same_density(flow, npflows.MAF(3, 1, (4,), base_distribution=base("float64"), dtype="float64", rng=0))
    assert through_json(flow.config) == flow.config


def test_an_image_is_described_by_its_shape_in_any_of_the_places():
    scales = {"num_scales": 2, "blocks_per_scale": 1, "actnorm": False}
    flow = npflows.Glow((8, 8, 3), 2, 1, (4,), actnorm=False, rng=0)
    for input_dim, more in (
        ((8, 8, 3), {}),
        ([8, 8, 3], {"image_shape": (8, 8, 3)}),
        (192, {"image_shape": [8, 8, 3]}),
        (None, {"image_shape": (8, 8, 3)}),
        (None, {"input_dim": (8, 8, 3)}),
    ):
        config = ModelConfiguration(
            "glow", "Glow", input_dim, output_dim=input_dim, hidden_dims=[4], parameters={**scales, **more}
        )
        for given in (config, through_json(config)):
            same_density(create(given, rng=0), flow)


def test_the_default_shape_of_glow_may_be_repeated():
    scales = {"image_shape": (32, 32, 3), "num_scales": 3, "blocks_per_scale": 1}
    config = ModelConfiguration("glow", "Glow", (32, 32, 3), (32, 32, 3), [4], scales)
    assert create(through_json(config), rng=0).input_shape == (32, 32, 3)


def test_the_base_of_glow_takes_parameters():
    given = {"num_scales": 1, "blocks_per_scale": 1, "base_distribution_params": {"scale": 2.0}}
    flow = create(ModelConfiguration("glow", "Glow", (4, 4, 1), hidden_dims=[4], parameters=given), rng=0)
    assert repr(flow.base) == repr(npflows.Normal(16, scale=np.full(16, 2.0)))


def test_a_shape_of_one_axis_is_a_number():
    flow = create(ModelConfiguration("x", "MAF", [3], (3,), [4], {"num_layers": 1}), rng=0)
    same_density(flow, npflows.MAF(3, 1, (4,), rng=0))


def test_an_image_is_given_and_returned_by_a_realnvp():
    config = ModelConfiguration("x", "RealNVP", (4, 4, 2), (4, 4, 2), [4], {"num_coupling_layers": 1})
    same_density(create(through_json(config), rng=0), npflows.RealNVP((4, 4, 2), 1, (4,), rng=0))


@pytest.mark.parametrize("name", ["MAF", "IAF"])
def test_autoregressive_flows_take_the_number_and_the_order_of_their_layers(name):
    given = {"num_layers": 2, "reverse_ordering": False}
    config = ModelConfiguration("x", f"models.flow.{name}", 3, 3, [4], given)
    same_density(create(through_json(config), rng=0), getattr(npflows, name)(3, 2, (4,), False, rng=0))


@pytest.mark.parametrize("name", ["RealNVP", "ConditionalRealNVP"])
def test_num_layers_is_another_name_of_the_number_of_coupling_layers(name):
    more = {"condition_dim": 2} if name == "ConditionalRealNVP" else {}
    config = ModelConfiguration("x", name, 3, 3, [4], {"num_layers": 2, **more})
    flow = create(through_json(config), rng=0)
    same_density(flow, getattr(npflows, name)(3, num_coupling_layers=2, hidden_dims=(4,), **more, rng=0))
    assert flow.config.parameters["num_coupling_layers"] == 2
    assert "num_layers" not in flow.config.parameters


def test_an_argument_may_be_repeated():
    config = ModelConfiguration("x", "MAF", 3, 3, (4,), {"input_dim": 3, "hidden_dims": [4], "num_layers": 1})
    same_density(create(config, rng=0), npflows.MAF(3, 1, (4,), rng=0))


def test_flow_params_of_the_metadata_are_those_of_the_spline_flow():
    spline = {"num_layers": 2, "num_bins": 5, "tail_bound": 4.0, "base_distribution": "normal"}
    config = ModelConfiguration(
        "nsf", "NeuralSplineFlow", 2, hidden_dims=(8,), metadata={"flow_params": spline, "by": "me"}
    )
    flow = create(through_json(config), rng=0)
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
        ({"model_class": "torch.nn.Linear"}, "model_class 'torch.nn.Linear' is unknown"),
        ({"model_class": "LULinear"}, "model_class 'LULinear' is unknown"),
        ({"model_class": "MAF", "output_dim": 3}, "output_dim is 3, and MAF gives 2 latent values"),
        ({"model_class": "MAF", "output_dim": (2, 1, 2)}, r"output_dim is \(2, 1, 2\), and MAF gives 2 latent values"),
        ({"model_class": "MAF", "parameters": {"input_dim": 3}}, "input_dim is given twice, as 3 and 2"),
        (
            {"model_class": "RealNVP", "parameters": {"num_layers": 3, "num_coupling_layers": 4}},
            "num_layers=3 and num_coupling_layers=4 contradict each other: RealNVP has one num_coupling_layers",
        ),
        (
            {"model_class": "Glow", "input_dim": (8, 8, 3), "parameters": {"image_shape": (8, 8, 1)}},
            r"image_shape=\(8, 8, 1\) and input_dim=\(8, 8, 3\) contradict each other: Glow has one image_shape",
        ),
        (
            {"model_class": "Glow", "input_dim": 64, "parameters": {"image_shape": (8, 8, 3)}},
            r"image_shape=\(8, 8, 3\) and input_dim=64 contradict each other",
        ),
        (
            {"model_class": "MAF", "parameters": {"base_distribution_params": {"locc": 0.0}}},
            "base_distribution 'normal' has no parameter 'locc'; did you mean 'loc'",
        ),
        (
            {"model_class": "MAF", "parameters": {"base_distribution_params": {"scale": -1.0}}},
            "scale must be positive",
        ),
        (
            {
                "model_class": "MAF",
                "parameters": {"base_distribution": "gumbel", "base_distribution_params": {"loc": 0.0}},
            },
            "base_distribution must be one of 'normal', 'uniform', .*, got 'gumbel'",
        ),
        (
            {
                "model_class": "MAF",
                "parameters": {
                    "base_distribution": {"class": "Normal", "config": {"dim": 2}},
                    "base_distribution_params": {"loc": 0.0},
                },
            },
            "base_distribution_params need the name of a base_distribution",
        ),
        (
            {"model_class": "MAF", "parameters": {"base_distribution_param": {}}},
            "no parameter 'base_distribution_param'; did you mean 'base_distribution_params'",
        ),
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
            ModelConfiguration("x", "MAF", 2, parameters={"base_distribution_params": 3.0}),
            "base_distribution_params must be a dict, got 3.0",
        ),
        (
            ModelConfiguration("x", "NeuralSplineFlow", 2, metadata={"flow_params": 8}),
            "flow_params'\\] must be a dict, got 8",
        ),
    ],
)
def test_what_is_of_the_wrong_type_is_told(config, message):
    with pytest.raises(TypeError, match=message):
        create(config)


def test_layers_tell_the_dimension_of_a_flow_and_a_configuration_may_not_contradict_them():
    config = npflows.NormalizingFlow([npflows.MAFLayer(3, (4,), rng=0)]).config
    assert config.model_class == "NormalizingFlow"
    config.parameters["base_distribution_params"] = {"scale": 2.0}
    assert create(through_json(config), rng=0).base.dim == 3
    config.input_dim = 4
    config.parameters.pop("base_distribution_params")
    with pytest.raises(ValueError, match="input_dim is 4, and NormalizingFlow takes 3 values"):
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
