"""Models as plain data: what to build, in a form that JSON can hold."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from npflows.core.checks import as_rng
from npflows.core.registry import construct, known_classes
from npflows.distribution.transformed import TransformedDistribution

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow


@dataclass
class ModelConfiguration:
    """What `create` builds a model from, and what a flow's `config` gives back.

    Attributes
    ----------
    name : str
        Yours to choose.
    model_class : str
        The model's class, in full ("npflows.models.maf.MAF" or "npflows.MAF") or by its last part ("MAF").
    input_dim : int or sequence of int, optional
        Values of a sample, or the shape of an image.
    output_dim : int, optional
        The same number again; a flow has as many latent values.
    hidden_dims : sequence of int, optional
        Units of the networks' hidden layers.
    parameters : dict
        Further arguments of the class by name.
    metadata : dict
        Whatever else belongs to it.  `flow_params`, a dict, holds arguments of a `NeuralSplineFlow` as well.
    """

    name: str
    model_class: str
    input_dim: int | Sequence[int] | None = None
    output_dim: int | None = None
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
        """From a dict of the fields; a field that does not exist is refused by name."""
        known = [f.name for f in dataclasses.fields(cls)]
        _refuse_unknown("ModelConfiguration", values, known)
        missing = [name for name in ("name", "model_class") if name not in values]
        if missing:
            raise ValueError(f"a ModelConfiguration needs {' and '.join(missing)}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> ModelConfiguration:
        """From what `to_json` wrote."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"the JSON of a ModelConfiguration is an object, got {type(values).__name__}")
        return cls.from_dict(values)


def create(config: ModelConfiguration | Mapping[str, Any], rng: object = None, classes: Iterable[type] = ()) -> Any:
    """Build a model.

    Parameters
    ----------
    config : ModelConfiguration or dict of its fields
    rng : int, numpy.random.Generator or None
        Draws the first weights.
    classes : iterable of type
        Models, layers and bases of your own that the configuration names.

    Raises
    ------
    ValueError
        If the class or a parameter is unknown, with the nearest one that exists, or an argument is missing or does not fit.
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
    cls = models.get(config.model_class.rpartition(".")[2])
    full = () if cls is None else (f"{cls.__module__}.{cls.__qualname__}", f"{cls.__module__.split('.')[0]}.{cls.__name__}")
    if cls is None or ("." in config.model_class and config.model_class not in full):
        raise ValueError(f"model_class {config.model_class!r} is unknown{_nearest(config.model_class, models)}")
    accepted = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "rng")]
    arguments = dict(_as_dict(config.parameters, "parameters"))
    flow_params = _as_dict(config.metadata, "metadata").get("flow_params")
    if flow_params is not None:
        _as_dict(flow_params, "metadata['flow_params']")
        if cls.__name__ != "NeuralSplineFlow":
            raise ValueError(f"metadata['flow_params'] are arguments of a NeuralSplineFlow, and this is a {cls.__name__}")
        _disjoint(arguments, flow_params)
        arguments.update(flow_params)
    if "image_shape" in accepted and config.input_dim is not None:
        _disjoint(arguments, {"image_shape": config.input_dim})
        arguments["image_shape"] = config.input_dim
    for name in ("input_dim", "hidden_dims"):
        value = getattr(config, name)
        if value is not None and name in accepted:
            _disjoint(arguments, {name: value})
            arguments[name] = value
    _refuse_unknown(cls.__name__, arguments, accepted)
    needed = [name for name, p in inspect.signature(cls).parameters.items()
              if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and name not in arguments]  # fmt: skip
    if needed:
        raise ValueError(f"{cls.__name__} needs {' and '.join(needed)}")
    flow = construct(cls, arguments, as_rng(rng), known_classes(classes))
    if config.output_dim not in (None, flow.latent_dim):
        raise ValueError(f"output_dim is {config.output_dim!r}, and {cls.__name__} gives {flow.latent_dim} latent values")
    return flow


def configuration_of(flow: NormalizingFlow) -> ModelConfiguration:
    """What `create` would build a flow of the same kind from, random choices resolved."""
    arguments = flow.arguments
    shape = flow.input_shape
    arguments.pop("image_shape", None)
    input_dim = arguments.pop("input_dim", shape[0] if len(shape) == 1 else list(shape))
    cls = type(flow)
    return ModelConfiguration(
        name=cls.__name__,
        model_class=f"{cls.__module__}.{cls.__qualname__}",
        input_dim=input_dim,
        output_dim=flow.latent_dim,
        hidden_dims=arguments.pop("hidden_dims", None),
        parameters=arguments,
    )


def _as_dict(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, got {value!r}")
    return value


def _disjoint(arguments: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    twice = sorted(set(arguments) & set(more))
    if twice:
        raise ValueError(f"{', '.join(twice)} is given twice")


def _refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{owner} has no parameter {unknown[0]!r}{_nearest(unknown[0], known)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what may be meant."""
    known = list(known)
    near = difflib.get_close_matches(name.rpartition(".")[2], known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
