"""Models as plain data that JSON can hold."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npflows.base import BASES
from npflows.core.checks import SeedLike, as_choice, as_rng, as_shape
from npflows.core.columns import did_you_mean
from npflows.core.registry import construct, known_classes
from npflows.distribution.transformed import TransformedDistribution
from npflows.files.archive import read_json


@dataclass
class ModelConfiguration:
    """A model as plain data: `create` builds the model, and a flow's `config` gives its configuration.

    Attributes
    ----------
    name : str
        A name of your choice.
    model_class : str
        The model's class.  Of a dotted path only the last part counts: "MAF" and "npflows.models.maf.MAF" are the same.
    input_dim : int or sequence of int, optional
        Number of values of a sample, or the shape (height, width, channels) of an image.
    output_dim : int or sequence of int, optional
        The same as `input_dim`: a flow has as many latent values.
    hidden_dims : sequence of int, optional
        Units of the networks' hidden layers.
    parameters : dict
        Further arguments of the class by name.  Beside the name of a `base_distribution`, `base_distribution_params` is a
        dict with arguments of that distribution, {"loc": 0.0, "scale": 2.0} for instance.  RealNVP's
        `num_coupling_layers` may be called `num_layers`, as in other models.
    metadata : dict
        Further data about the model.  `flow_params`, a dict, holds arguments of a `NeuralSplineFlow` as well.
    """

    name: str
    model_class: str
    input_dim: int | Sequence[int] | None = None
    output_dim: int | Sequence[int] | None = None
    hidden_dims: Sequence[int] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The fields as JSON; `from_json` reads it."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfiguration:
        """Make a configuration from a dict of its fields; an unknown field is an error that names it."""
        known = [f.name for f in dataclasses.fields(cls)]
        _refuse_unknown("ModelConfiguration", values, known)
        missing = [name for name in ("name", "model_class") if name not in values]
        if missing:
            raise ValueError(f"a ModelConfiguration needs {' and '.join(missing)}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> ModelConfiguration:
        """Make a configuration from the JSON that `to_json` wrote."""
        values = read_json(text)
        if not isinstance(values, dict):
            raise ValueError(f"the JSON of a ModelConfiguration is an object, got {type(values).__name__}")
        return cls.from_dict(values)


def create(config: ModelConfiguration | Mapping[str, Any], rng: SeedLike = None, classes: Iterable[type] = ()) -> Any:
    """Build a model.

    Parameters
    ----------
    config : ModelConfiguration or dict of its fields
        An argument may be given in several places if the values agree.
    rng : int, numpy.random.Generator or None
        Draws the first weights.
    classes : iterable of type
        Custom models, layers and bases that the configuration names.

    Raises
    ------
    ValueError
        If the class or a parameter is unknown, with the most similar one that exists; or an argument is missing, does not
        fit or contradicts another one.
    TypeError
        If the configuration, or one of its fields, is of the wrong type.
    """
    if not isinstance(config, ModelConfiguration):
        if not isinstance(config, Mapping):
            raise TypeError(f"config must be a ModelConfiguration or a dict of its fields, got {config!r}")
        config = ModelConfiguration.from_dict(config)
    if not isinstance(config.model_class, str):
        raise TypeError(f"model_class must be the name of a class, got {config.model_class!r}")
    models = known_classes(classes, TransformedDistribution)
    name = config.model_class.rpartition(".")[2]
    if name not in models:
        raise ValueError(f"model_class {config.model_class!r} is unknown; {did_you_mean(name, models)}")
    cls = models[name]
    flow = construct(cls, _constructor_arguments(config, cls), as_rng(rng), known_classes(classes))
    sizes = (flow.input_shape, (flow.latent_dim,))
    if config.output_dim is not None and as_shape(config.output_dim, "output_dim") not in sizes:
        raise ValueError(f"output_dim is {config.output_dim!r}, and {name} gives {flow.latent_dim} latent values")
    if config.input_dim is not None and as_shape(config.input_dim, "input_dim") not in sizes:
        raise ValueError(f"input_dim is {config.input_dim!r}, and {name} takes {flow.latent_dim} values")
    return flow


def configuration_of(flow: TransformedDistribution) -> ModelConfiguration:
    """The configuration from which `create` builds a flow of the same kind, random choices resolved."""
    arguments = flow.arguments
    shape = flow.input_shape
    arguments.pop("image_shape", None)
    input_dim = arguments.pop("input_dim", shape[0] if len(shape) == 1 else list(shape))
    name = type(flow).__name__
    return ModelConfiguration(
        name=name,
        model_class=name,
        input_dim=input_dim,
        output_dim=flow.latent_dim,
        hidden_dims=arguments.pop("hidden_dims", None),
        parameters=arguments,
    )


def _constructor_arguments(config: ModelConfiguration, cls: type[TransformedDistribution]) -> dict[str, Any]:
    """The arguments of a model's constructor, from all the fields that hold some, after checking their names."""
    accepted = {name: p for name, p in inspect.signature(cls).parameters.items() if name != "rng"}
    sources = [_as_dict(config.parameters, "parameters")]
    flow_params = _as_dict(config.metadata, "metadata").get("flow_params")
    if flow_params is not None:
        sources.append(_as_dict(flow_params, "metadata['flow_params']"))
        if cls.__name__ != "NeuralSplineFlow":
            raise ValueError(f"metadata['flow_params'] are arguments of a NeuralSplineFlow, and this is a {cls.__name__}")
    aliases, input_dim = cls.parameter_aliases, config.input_dim
    if isinstance(input_dim, (list, tuple)) and len(input_dim) == 1:
        input_dim = input_dim[0]
    fields = {"input_dim": input_dim, "hidden_dims": config.hidden_dims}
    if aliases.get("input_dim", "input_dim") not in accepted:
        del fields["input_dim"]  # told by the layers; `create` compares it with them
    sources.append({name: value for name, value in fields.items() if value is not None})
    arguments: dict[str, Any] = {}
    given_as: dict[str, str] = {}
    for source in sources:
        for name, value in source.items():
            target = aliases.get(name, name)
            if target in arguments:
                value = _agreed(cls, target, (given_as[target], arguments[target]), (name, value))
            arguments[target], given_as[target] = value, name
    known = [*accepted, *aliases, *(["base_distribution_params"] if "base_distribution" in accepted else [])]
    _refuse_unknown(cls.__name__, arguments, known)
    base_params = arguments.pop("base_distribution_params", None)
    needed = [name for name, p in accepted.items()
              if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and name not in arguments]  # fmt: skip
    if needed:
        raise ValueError(f"{cls.__name__} needs {' and '.join(needed)}")
    if base_params:
        defaults = {name: p.default for name, p in accepted.items() if p.default is not p.empty}
        arguments["base_distribution"] = _base_description(
            base_params, {"input_dim": config.input_dim, **defaults, **arguments}
        )
    return arguments


def _agreed(cls: type, target: str, first: tuple[str, Any], second: tuple[str, Any]) -> Any:
    """The value of an argument that is given twice; an error if the values differ."""
    (name, value), (other_name, other) = first, second
    if _plain(value) == _plain(other):
        return value
    if target in ("input_dim", "image_shape"):  # a number of values may come beside the shape
        shapes = as_shape(value, name), as_shape(other, other_name)
        longer, shorter = sorted(shapes, key=len, reverse=True)
        if len(shorter) == 1 and math.prod(longer) == shorter[0]:
            return longer if len(longer) > 1 else longer[0]
    if name == other_name:
        raise ValueError(f"{name} is given twice, as {value!r} and {other!r}")
    raise ValueError(f"{name}={value!r} and {other_name}={other!r} contradict each other: {cls.__name__} has one {target}")


def _base_description(params: object, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A base distribution with arguments of its own, as `construct` builds it."""
    params = _as_dict(params, "base_distribution_params")
    base, dtype = arguments["base_distribution"], arguments.get("dtype", "float32")
    if not isinstance(base, str):
        raise ValueError(f"base_distribution_params need the name of a base_distribution, and it is {base!r}")
    cls = BASES[as_choice(base, "base_distribution", list(BASES))]
    size = arguments.get("image_shape", arguments["input_dim"])
    if size is None:
        raise ValueError("base_distribution_params need input_dim")
    accepted = [name for name in inspect.signature(cls).parameters if name not in ("dim", "dtype", "rng")]
    _refuse_unknown(f"base_distribution {base!r}", params, accepted)
    return {"class": cls.__name__, "config": {"dim": math.prod(as_shape(size, "input_dim")), **params, "dtype": dtype}}


def _plain(value: object) -> object:
    """Sequences and arrays as tuples, for a comparison of values that may have been through JSON."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _as_dict(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, got {value!r}")
    return value


def _refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{owner} has no parameter {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
