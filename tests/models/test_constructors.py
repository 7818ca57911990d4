"""Constructors: shared keywords are alike everywhere and described, and subclasses may have constructors of their own."""

import dataclasses
import inspect
import re

import numpy as np
import pytest

import npflows
from npflows.distribution.options import FlowOptions, TableOptions
from npflows.layers.glow import ImageCouplingOptions
from npflows.networks.options import DenseOptions, NetworkOptions
from npflows.transformers.options import SplineOptions

OPTIONS = (NetworkOptions, DenseOptions, SplineOptions, FlowOptions, TableOptions, ImageCouplingOptions)
CLASSES = [value for name in npflows.__all__ if inspect.isclass(value := getattr(npflows, name))
           and value.__module__.startswith("npflows.") and not issubclass(value, Exception)]  # fmt: skip


def described(owner):
    """The names that the docstring of a class describes."""
    text = inspect.cleandoc(owner.__doc__ or "")
    entries = re.findall(r"^((?:\w+, ?\n?)*\w+)(?: : .*)?$", text, re.MULTILINE)
    return {name for entry in entries for name in re.split(r",\s*", entry)}


@pytest.mark.parametrize("owner", [*CLASSES, *OPTIONS], ids=lambda owner: owner.__name__)
def test_every_argument_is_described(owner):
    inherited = {name for base in owner.__mro__[1:] if base in OPTIONS for name in inspect.signature(base).parameters}
    names = set(inspect.signature(owner).parameters) - (inherited if owner in OPTIONS else set()) - {"message"}
    assert names <= described(owner)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__name__)
def test_shared_keywords_have_one_default(options):
    users = [owner for owner in CLASSES if issubclass(owner, options)]
    assert users
    for field in dataclasses.fields(options):
        if field.default is not dataclasses.MISSING:
            defaults = {inspect.signature(owner).parameters[field.name].default for owner in users}
            assert defaults - {inspect.Parameter.empty} == {field.default}  # ConditionalRealNVP needs condition_dim


class Stack(npflows.NormalizingFlow):
    """A flow with a constructor of its own, on that of a list of layers."""

    def __init__(self, depth, *, dtype="float32", rng=None):
        self.depth = depth
        generator = np.random.default_rng(rng)
        layers = [npflows.MAFLayer(2, (8,), condition_dim=3, dtype=dtype, rng=generator) for _ in range(depth)]
        super().__init__(layers, "student_t", condition_dim=1, embedding_dims=(4, 3), dtype=dtype, rng=generator)


class Narrow(npflows.MAF):
    """A model with a constructor of its own, on that of another model."""

    def __init__(self, depth, *, dtype="float32", rng=None):
        self.depth = depth
        shared = {"condition_dim": 1, "embedding_dims": (4, 3), "dtype": dtype, "rng": rng}
        super().__init__(2, depth, (8,), activation="tanh", log_tails=None, **shared)


@pytest.mark.parametrize(("cls", "activation"), [(Stack, "silu"), (Narrow, "tanh")])
def test_subclasses_have_constructors_of_their_own(cls, activation):
    flow = cls(2, rng=0)
    assert flow.arguments == {"depth": 2, "dtype": "float32"}
    assert [type(layer).__name__ for layer in flow.flow_layers] == ["Standardize", "MAFLayer", "MAFLayer"]
    assert flow.conditioning.embedding.activation == activation
    assert flow.condition_dim == 1
    twin = npflows.create({**flow.config.to_dict(), "input_dim": None}, rng=0, classes=[cls])
    np.testing.assert_array_equal(twin.params, flow.params)
    np.testing.assert_array_equal(flow.reset(0).params, twin.params)
    assert not np.array_equal(flow.reset(1).params, twin.params)


def test_the_checked_arguments_are_kept():
    flow = npflows.MAF(2, np.int64(3), 8, actnorm=1, dropout=0, rng=0)
    kept = flow.num_layers, flow.hidden_dims, flow.actnorm, flow.dropout
    assert kept == (3, (8,), True, 0.0)
    assert [type(value) for value in kept] == [int, tuple, bool, float]
    layer = npflows.SplineLayer(2, np.int64(4), 2, circular=[0, 0])
    assert (type(layer.num_bins), type(layer.tail_bound), layer.circular) == (int, float, None)
