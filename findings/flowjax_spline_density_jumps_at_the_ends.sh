#!/usr/bin/env bash
# The density of a flowjax flow of rational-quadratic splines jumps at the ends of their interval.
#
# Behavior (flowjax 19.1.2): RationalQuadraticSpline learns the slopes at all knots, those at the two ends included, and is
# the identity beyond.  The slope of the map, and so the density, jumps there as soon as a slope is trained away from 1.
# One would expect: end slopes of 1, so that the density is continuous (Durkan et al. 2019, arXiv:1906.04032, section 3.1),
# as nflows, zuko and normflows have them; their splines have two derivatives less.
# It matters where a flow is taken over, as the numbers of parameters differ, and where a gradient crosses the ends.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 flowjax==19.1.2
"$work/venv/bin/python" -W ignore - <<'PY'
import importlib.metadata

import equinox as eqx
import jax.numpy as jnp
from flowjax.bijections import RationalQuadraticSpline
from paramax import unwrap

print("flowjax", importlib.metadata.version("flowjax"))
spline = RationalQuadraticSpline(knots=4, interval=2)
raw = spline.derivatives.args[0]
print("derivatives:", raw.shape[0], "of", spline.knots + 2, "knots")
assert raw.shape[0] == spline.knots + 2
moved = unwrap(eqx.tree_at(lambda s: s.derivatives.args[0], spline, raw + 1.0))
_, inside = moved.transform_and_log_det(jnp.array(2.0 - 1e-6))
_, outside = moved.transform_and_log_det(jnp.array(2.0 + 1e-6))
print(f"log slope just inside the end {inside:.3f}, just outside {outside:.3f}")
assert abs(inside) > 0.5 and outside == 0
PY
