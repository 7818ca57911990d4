#!/usr/bin/env bash
# A conditional masked autoregressive layer of nflows does not condition its first feature.
#
# Behavior (nflows 0.14): MADE adds the context to its hidden units, whose degrees begin at 1 where there is more than one
# feature, and the first feature's outputs see units of lower degrees alone: its scale and shift are the same for every
# context.  A flow of one such layer, or of several without permutations, has p(x_1 | context) = p(x_1).
# One would expect: every feature depends on the context, as in the conditional networks of zuko and flowjax.
# It matters where such a layer is taken over: hidden units of degree 0, which see the condition alone, would add what the
# original has not; and where the last layer's first feature is what one asks for.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps nflows==0.14
"$work/venv/bin/python" -W ignore - <<'PY'
import importlib.metadata

import torch
from nflows.transforms import MaskedAffineAutoregressiveTransform

print("nflows", importlib.metadata.version("nflows"))
torch.manual_seed(0)
layer = MaskedAffineAutoregressiveTransform(3, 16, context_features=2, num_blocks=2)
for parameter in layer.parameters():
    parameter.data += 0.5 * torch.randn_like(parameter)
x = torch.randn(100, 3)
z, _ = layer(x, torch.randn(100, 2))
w, _ = layer(x, torch.randn(100, 2))
moved = (z - w).abs().amax(0)
print("largest change of each feature under another context:", moved.tolist())
assert moved[0] == 0 and (moved[1:] > 0.01).all()
PY
