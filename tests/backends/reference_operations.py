"""The operations of layers, base distributions and flows, for the tests of the reference backend."""

from npflows.transformers.additive import Additive
from npflows.transformers.affine import Affine

from npflows.base import Cylinder, Normal, StudentT, Uniform
from npflows.core import operations
from npflows.core.operations import Placed, Program
from npflows.layers import (
    ActNormLayer,
    Autoregressive,
    Coupling,
    Elementwise,
    InvertibleConv1x1,
    LULinear,
    Permutation,
    Rotation,
    Standardize,
)
from npflows.layers.multiscale import Rearrangement
from npflows.networks.convnet import ConvNet
from npflows.networks.made import MADENetwork


def of_network(network):
    """The operation of a network."""
    if isinstance(network, ConvNet):
        return operations.ConvNet(*network.shape, network._channels, tuple(network._in_places.tolist()),
                                  tuple(network._out_places.tolist()), network.activation, network.actnorm,
                                  network.condition_dim)  # fmt: skip
    options = {
        "activation": network.activation,
        "residual": network.residual_blocks > 0,
        "dropout": network.dropout,
        "condition_dim": network.condition_dim,
    }
    if isinstance(network, MADENetwork):
        return operations.Made.of(
            network.n_features, network.multiplier, network.hidden_dims, tuple(network._rows.tolist()), **options
        )
    return operations.Mlp(network.hidden_dims, n_in=network.n_in, n_out=network.n_out, **options)


def of_scalar_map(scalar_map):
    """The operation of a scalar map."""
    if isinstance(scalar_map, Additive):
        return operations.Additive()
    if isinstance(scalar_map, Affine):
        return operations.Affine(scalar_map.scale_activation, scalar_map.shift_first, scalar_map.n_gains)
    sizes = ("num_bins", "tail_bound", "min_bin_width", "min_bin_height", "min_derivative")
    return operations.Spline(*(getattr(scalar_map, name) for name in sizes), tuple(scalar_map.circular.tolist()))


def of_layer(layer):
    """The operation of a layer, or of a base distribution."""
    if hasattr(layer, "operation"):
        return layer.operation()
    kinds = {
        Coupling: lambda: operations.Coupling(
            tuple(layer._kept.tolist()),
            tuple(layer._moved.tolist()),
            of_network(layer._network),
            of_scalar_map(layer._transformer),
            layer._n_circle,
            layer._bound,
        ),
        Autoregressive: lambda: operations.Autoregressive(
            tuple(layer.order.tolist()),
            of_network(layer._network),
            of_scalar_map(layer._transformer),
            layer._inverted,
            layer._bound,
        ),
        Elementwise: lambda: operations.Elementwise(layer.input_dim, of_scalar_map(layer._transformer)),
        LULinear: lambda: operations.LULinear(tuple(layer.order.tolist())),
        (Permutation, Rearrangement): lambda: operations.Permutation(tuple(layer.order.tolist())),
        Rotation: lambda: operations.Rotation(layer.input_dim, tuple(layer._where.tolist()), layer.bound),
        ActNormLayer: lambda: operations.ActNorm(layer.input_dim, layer.num_channels),
        InvertibleConv1x1: lambda: operations.Conv1x1(layer.input_dim, layer.num_channels, layer.parameterization),
        Normal: lambda: operations.Normal(layer.dim, layer.learnable),
        StudentT: lambda: operations.StudentT(layer.dim),
        Uniform: lambda: operations.Uniform(layer.dim),
        Cylinder: lambda: operations.Cylinder(tuple(layer.periodic.tolist())),
    }
    for kind, make in kinds.items():
        if isinstance(layer, kind):
            return make()
    raise NotImplementedError(f"say what the operation of {type(layer).__name__} is")


def of_layers(layers, offsets):
    """Where layers begin, as they are placed in a program."""
    return tuple(Placed(of_layer(layer), offset) for layer, offset in zip(layers, offsets))


def program_of(obj, with_base=True):
    """The program of a flow or of a layer."""
    if isinstance(obj, Standardize):
        return Program((), obj.input_dim, obj.input_dim, standardized=True)
    if not hasattr(obj, "flow_layers"):
        return Program(of_layers(*zip(*obj.leaves())), obj.input_dim, obj.input_dim, condition_dim=obj.condition_dim)
    embedding = obj.conditioning.embedding and Placed(of_network(obj.conditioning.embedding._network), obj._offsets[-2])
    return Program(
        of_layers(*zip(*obj.leaves)) if obj.leaves else (),
        obj.latent_dim,
        obj.latent_dim,
        base=Placed(of_layer(obj.base), obj._offsets[-1]) if with_base else None,
        condition_dim=obj.condition_dim,
        embedding=embedding,
        standardized=True,
    )
