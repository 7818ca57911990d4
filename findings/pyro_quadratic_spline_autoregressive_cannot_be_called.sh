#!/usr/bin/env bash
# spline_autoregressive(D, order="quadratic") of Pyro makes a transform that fails when it is called.
#
# Behavior (pyro-ppl 1.9.2): the helper gives its network four outputs for each spline, widths, heights, derivatives and the
# lambdas of order="linear", whatever the order is; with order="quadratic" the transform unpacks three, and raises ValueError.
# spline_coupling() takes no order at all.
# One would expect: three outputs.  The classes SplineAutoregressive and SplineCoupling work with a network of three.
# It matters where flows of both orders are tried out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 pyro-ppl==1.9.2 numpy
"$work/venv/bin/python" -W ignore - <<'PY'
import importlib.metadata

import pyro.distributions.transforms as T
import torch
from pyro.nn import AutoRegressiveNN

print("pyro-ppl", importlib.metadata.version("pyro-ppl"))
x = torch.randn(5, 3)
try:
    T.spline_autoregressive(3, order="quadratic")(x)
except ValueError as error:
    print("spline_autoregressive(3, order='quadratic'):", error)
else:
    raise AssertionError("it can be called")
network = AutoRegressiveNN(3, [30], param_dims=[8, 8, 7])
print("with a network of three outputs:", T.SplineAutoregressive(3, network, order="quadratic")(x).shape)
PY
