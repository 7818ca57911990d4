#!/usr/bin/env bash
# flowjax trains the location and scale of the base distribution when it is given as Normal, not as StandardNormal.
#
# Behavior (flowjax 19.1.2, jax 0.10.2): masked_autoregressive_flow(key, base_dist=Normal(zeros(2))) has the base's loc and
# scale among its trainable leaves, and fit_to_data moves them; with StandardNormal((2,)) the base stays what it is.
# One would expect: two spellings of the standard normal give the same flow, and a base distribution that is written down
# with numbers keeps these numbers, as in zuko, nflows and normflows.
# It matters where weights are carried over, flows are compared, or latent values are tested against N(0, 1).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check flowjax==19.1.2 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PY'
import flowjax
import importlib.metadata
import jax
import jax.numpy as jnp
import jax.random as jr
from flowjax.distributions import Normal, StandardNormal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_data
from paramax import unwrap

print("flowjax", importlib.metadata.version("flowjax"), "jax", jax.__version__)
x = 5.0 + 2.0 * jr.normal(jr.key(0), (500, 2))


def fitted(base):
    flow = masked_autoregressive_flow(jr.key(1), base_dist=base, flow_layers=2, nn_width=8)
    return unwrap(fit_to_data(jr.key(2), flow, x, max_epochs=5, show_progress=False)[0]).base_dist


moved = fitted(Normal(jnp.zeros(2)))
loc, scale = moved.loc, moved.scale
print("Normal(zeros(2)) after a fit: loc", loc, "scale", scale)
kept = fitted(StandardNormal((2,)))
parameters = [leaf for leaf in jax.tree_util.tree_leaves(kept) if hasattr(leaf, "dtype")]
print("StandardNormal((2,)) after a fit:", len(parameters), "arrays")
assert float(jnp.abs(loc).max()) > 1e-3 and float(jnp.abs(scale - 1).max()) > 1e-3, "the base has stayed"
assert not parameters, "StandardNormal has parameters now"
print("the base given as Normal is trained")
PY
