"""Networks of layers of your own, `Coupling` and `Autoregressive`; a layer draws their first weights."""

from npflows.networks.convnet import convolutional
from npflows.networks.made import masked
from npflows.networks.mlp import dense

__all__ = ["convolutional", "dense", "masked"]
