"""A scalar map of each value by itself, its parameters learnt directly: no conditioner."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import Link, call
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import copy
from npflows.core.parameters import Parameter
from npflows.layers.layer import Layer
from npflows.networks.mlp import add_lane_sums, fill_rows
from npflows.transformers.affine import Affine
from npflows.transformers.rational_quadratic import RationalQuadratic

# spec: this header, then the scalar map's; theta: raw parameters of all values, then the map's own
DIM, MULTIPLIER, MAP_FORWARD, MAP_INVERSE, MAP_VJP, MAP_SOLVE, HEADER = range(7)
# work: the values before the map, the raw parameters


@inlined
def parts(spec, work):
    """x (dim, lanes) and raw (dim * multiplier, lanes)."""
    n = spec[DIM]
    return work[:n], work[n : n + n * spec[MULTIPLIER]]


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    x, raw = parts(spec, work)
    fill_rows(theta, raw)
    copy(block, x)
    call(spec[MAP_FORWARD], (spec[HEADER:], theta[raw.shape[0] :], block, raw, log_det))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    x, raw = parts(spec, work)
    fill_rows(theta, raw)
    call(spec[MAP_INVERSE], (spec[HEADER:], theta[raw.shape[0] :], block, raw, log_det))
    copy(block, x)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    x, raw = parts(spec, work)
    own = raw.shape[0]
    call(spec[MAP_VJP], (spec[HEADER:], theta[own:], x, raw, dblock, dlog_det, dtheta[own:]))
    if dtheta.size > 0:
        add_lane_sums(raw, dtheta[:own])


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With dL = -dlog_det: solve for dY, push (dY, dL) through the forward vjp, and dy = -dY."""
    x, raw = parts(spec, work)
    own, n = raw.shape[0], spec[DIM]
    direct, dL = temp[:n], temp[n]
    for t in range(dL.size):
        dL[t] = -dlog_det[t]
        for k in range(n):
            dblock[k, t] = -dblock[k, t]
    call(spec[MAP_SOLVE], (spec[HEADER:], theta[own:], x, raw, dblock, dL, dtheta[own:]))
    copy(dblock, direct)
    call(spec[MAP_VJP], (spec[HEADER:], theta[own:], x, raw, direct, dL, dtheta[own:]))
    if dtheta.size > 0:
        add_lane_sums(raw, dtheta[:own])
    for k in range(n):
        for t in range(dL.size):
            dblock[k, t] = -dblock[k, t]


class Elementwise(Layer, abstract=True):
    """A scalar map of each of n values, with raw parameters of its own that start at zero."""

    kernels = (forward, inverse, forward_vjp, inverse_vjp)

    def __init__(self, n: int, transformer: Affine | RationalQuadratic, dtype: object) -> None:
        self._transformer = transformer
        m = transformer.multiplier
        parameters = [Parameter("raw", np.zeros((n, m))), *transformer.parameters(n)]
        super().__init__(n, parameters, work_rows=n * (1 + m), temp_rows=n + 1, dtype=dtype)

    def spec(self, link: Link) -> list[int]:
        maps = self._transformer.kernels
        return [
            self.input_dim,
            self._transformer.multiplier,
            link(maps["forward"], "transformer", forward),
            link(maps["inverse"], "transformer", inverse),
            link(maps["vjp"], "transformer_vjp", forward_vjp, inverse_vjp),
            link(maps["solve"], "transformer_vjp", inverse_vjp),
            *self._transformer.spec(),
        ]
