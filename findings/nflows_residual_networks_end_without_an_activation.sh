#!/usr/bin/env bash
# The residual networks of nflows have no activation before their last dense layer, and its MADE stores weights unmasked.
#
# Behavior (nflows 0.14): ResidualNet and MADE with residual blocks compute final_layer(h) for the residual stream h as it is;
# the pre-activation blocks of the literature (He et al. 2016, arXiv:1603.05027) end with an activation, and MADE with
# feedforward blocks has one.  The state dict has the same shapes either way.
# One would expect: a network of shapes W_0, blocks, W_L computes W_L f(h) + b_L, as nflows' own MLP does.
# It matters where a state dict is taken over to another library: everything fits, and log_prob is off by nats.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps nflows==0.14
"$work/venv/bin/python" -W ignore - <<'PY'
import importlib.metadata

import torch
from nflows.nn.nets import ResidualNet
from nflows.transforms.made import MADE

print("nflows", importlib.metadata.version("nflows"))
torch.manual_seed(0)
x = torch.randn(100, 3)
net = ResidualNet(3, 2, hidden_features=8, num_blocks=1)
h = net.blocks[0](net.initial_layer(x))
as_it_is = (net(x) - net.final_layer(h)).abs().max().item()
activated = (net(x) - net.final_layer(torch.relu(h))).abs().max().item()
print(f"ResidualNet: off by {as_it_is:.1e} without an activation at the end, by {activated:.1e} with one")
assert as_it_is == 0 and activated > 0.01
made = MADE(3, 8, num_blocks=1, output_multiplier=2)
h = made.blocks[0](made.initial_layer(x))
assert torch.equal(made(x), made.final_layer(h))
hidden = made.final_layer
assert (hidden.weight[hidden.mask == 0] != 0).all(), "weights are masked where they are stored"
print("MADE: the same, and its stored weights are not 0 where the mask is")
PY
