#!/usr/bin/env bash
# A flow of Pyro with MatrixExponential has a log_prob whose exponential does not integrate to 1.
#
# Behavior (pyro-ppl 1.9.2): MatrixExponential(M) computes y = exp(M) x by a series of `iterations` terms, 8 by default, x from
# y by the series of exp(-M), and log |det| as trace(M).  The two truncated series are not inverse to each other, and neither
# has that determinant.
# One would expect: a log-density of something.  With the starting values, entries below 1 / sqrt(D), it is off by 1e-6 or so;
# a trained M of norm 3 makes the integral 0.55.
# It matters where densities are compared, and where a flow is taken over: no map has these numbers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 pyro-ppl==1.9.2 numpy
"$work/venv/bin/python" -W ignore - <<'PY'
import importlib.metadata

import pyro.distributions as dist
import torch

print("pyro-ppl", importlib.metadata.version("pyro-ppl"))
torch.set_default_dtype(torch.float64)
for m in (0.5, 1.0, 3.0):
    transform = dist.transforms.MatrixExponential(1)
    transform.weights.data[:] = m
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(1), torch.ones(1)), [transform])
    y = torch.linspace(-400, 400, 800001)[:, None]
    with torch.no_grad():
        total = torch.trapezoid(flow.log_prob(y).exp(), y[:, 0]).item()
        x = torch.ones(1)
        back = transform._inverse(transform._call(x)).item()
    print(f"M = {m}: the density integrates to {total:.6f}, and 1 comes back as {back:.6f}")
assert abs(total - 1) > 0.1 and abs(back - 1) > 0.1
PY
