"""The masked network of autoregressive layers, evaluated at once, or one feature after the other in the same cost.

Features have positions 1..D in their order, hidden units degrees 0..D-1.  A unit of degree d sees the features of
position <= d and units of degree <= d; the outputs of position p see units of degree < p (Germain et al. 2015,
arXiv:1502.03509, equations 8 and 9: only the output is strict).  Units are sorted by degree, so every mask is a staircase.
A feature on a circle enters as two rows of the same position, its cosine and sine.

`advance` and `retreat` are one step of the sequential direction and of its gradient.  Step i of the first makes final the
units of degree i, which need the features before i alone, and the outputs of position i + 1: every weight is used once.
The steps go in groups: what comes from before the group is one large product, and the steps inside have small ones.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from npflows.backends.cpu.compiler.calls import call
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.matmul import FROM_BIAS, FROM_RESULT, FROM_ZERO, HEIGHT, matmul, matmul_transposed
from npflows.core.checks import warn_user
from npflows.networks import mlp
from npflows.networks.mlp import (
    ACTIVATION,
    BIAS,
    COLUMNS,
    CONDITION_WEIGHT,
    ENTERED,
    GROUP,
    MLP,
    N_CONDITION,
    N_DENSE,
    N_FEATURES,
    N_OUT,
    PRODUCT_ADDRESS,
    ROWS,
    UNLOCKED,
    WEIGHT,
    add_skip,
    drop_out,
    hidden,
    hidden_gradient,
    hidden_layers,
    leave_hidden,
    record,
)


@inlined
def unlocked(spec, layer, degree):
    """Units of a hidden layer with at most this degree; layer -1 is the input, where position stands for degree."""
    if degree < 0:
        return 0
    if layer < 0:
        return spec[spec[ENTERED] + min(degree, spec[N_FEATURES])]
    r = record(spec, layer)
    return spec[r + ROWS] if degree >= spec[N_FEATURES] else spec[spec[r + UNLOCKED] + degree]


@inlined
def multiply(spec, theta, layer, r0, r1, c0, c1, h, y, start):
    """y[r0:r1] = start + W[r0:r1, c0:c1] @ h[c0:c1]."""
    if r1 > r0:
        r = record(spec, layer)
        columns = spec[r + COLUMNS]
        matmul(spec[PRODUCT_ADDRESS], theta[spec[r + WEIGHT] + r0 * columns + c0 :], columns, h[c0:], y[r0:], r1 - r0,
               c1 - c0, start, theta[spec[r + BIAS] + r0 :])  # fmt: skip


@inlined
def multiply_transposed(spec, theta, layer, r0, r1, c0, c1, d, below, start):
    """below[c0:c1] = start + W[r0:r1, c0:c1].T @ d[r0:r1]."""
    if c1 > c0:
        r = record(spec, layer)
        columns = spec[r + COLUMNS]
        matmul_transposed(spec[PRODUCT_ADDRESS], theta[spec[r + WEIGHT] + r0 * columns + c0 :], columns, d[r0:],
                          below[c0:], c1 - c0, r1 - r0, start)  # fmt: skip


@kernel
def advance(spec, theta, context, key, first, x, out, work, temp, i):
    """Given the features before i, finish the units of degree i and the rows of out that belong to feature i.  Steps go
    0, 1, 2, ..."""
    last, m = spec[N_DENSE] - 1, spec[N_OUT] // spec[N_FEATURES]
    g0 = i - i % spec[GROUP]
    g1 = min(g0 + spec[GROUP], spec[N_FEATURES])
    if i == g0:  # what the whole group takes from before it
        h = x
        for layer in range(last + 1):
            r0, r1, y = g0 * m, g1 * m, out
            if layer < last:
                r0, r1 = unlocked(spec, layer, g0 - 1), unlocked(spec, layer, g1 - 1)
                y, _ = hidden(spec, work, layer)
            multiply(spec, theta, layer, r0, r1, 0, unlocked(spec, layer - 1, g0 - 1), h, y, FROM_BIAS)
            if layer == 0 and spec[N_CONDITION] > 0 and r1 > r0:
                n = spec[N_CONDITION]
                matmul(spec[PRODUCT_ADDRESS], theta[spec[CONDITION_WEIGHT] + r0 * n :], n, context, y[r0:], r1 - r0, n,
                       FROM_RESULT, theta)  # fmt: skip
            h = y
    h = x
    for layer in range(last + 1):
        c0, c1 = unlocked(spec, layer - 1, g0 - 1), unlocked(spec, layer - 1, i)
        if layer < last:
            y, before = hidden(spec, work, layer)
            r0, r1 = unlocked(spec, layer, i - 1), unlocked(spec, layer, i)
            multiply(spec, theta, layer, r0, r1, c0, c1, h, y, FROM_RESULT)
            add_skip(spec, work, layer, r0, r1, y, before)
            call(spec[ACTIVATION], (y[r0:r1], before[r0:r1]))
            drop_out(spec, key, first, layer, r0, y[r0:r1])
            h = y
        else:
            multiply(spec, theta, layer, i * m, (i + 1) * m, c0, c1, h, out, FROM_RESULT)


@kernel
def retreat(spec, theta, context, key, first, dx, dout, work, temp, i):
    """Given the rows of dout that belong to features after i, finish the gradients of the units of degree i + 1 and
    put into its rows of dx what reaches feature i through the network.  Steps go D - 1, ..., 1, 0, -1."""
    last, m, n = spec[N_DENSE] - 1, spec[N_OUT] // spec[N_FEATURES], spec[N_FEATURES]
    g0, g1 = -1, 0
    if i >= 0:
        g0 = i - i % spec[GROUP]
        g1 = min(g0 + spec[GROUP], n)
    if i == g1 - 1:  # what the whole group takes from after it
        d = dout
        for layer in range(last, -1, -1):
            r0, r1 = (g1 * m, n * m) if layer == last else (unlocked(spec, layer, g1), unlocked(spec, layer, n))
            c0, c1 = unlocked(spec, layer - 1, g0), unlocked(spec, layer - 1, g1)
            below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
            multiply_transposed(spec, theta, layer, r0, r1, c0, c1, d, below, FROM_ZERO)
            d = below
    d = dout
    for layer in range(last, -1, -1):
        r0, r1 = (i + 1) * m, g1 * m
        if layer < last:
            r0, r1 = unlocked(spec, layer, i), unlocked(spec, layer, g1)
        c0, c1 = unlocked(spec, layer - 1, i), unlocked(spec, layer - 1, i + 1)
        below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
        multiply_transposed(spec, theta, layer, r0, r1, c0, c1, d, below, FROM_RESULT)
        if layer > 0:
            leave_hidden(spec, key, first, layer - 1, c0, c1, below, work, temp)
        d = below


@kernel
def weights_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """What is left of the gradient after the last `retreat`: adds to dtheta and dcontext."""
    mlp.weights_vjp(spec, theta, context, x, dout, work, temp, dtheta, dcontext)


CALL = 30
"""What a product costs besides its multiplications, in multiplications for each lane."""


@functools.lru_cache(maxsize=256)  # the layers of a flow are alike, and this takes milliseconds
def staircase_panels(lengths: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Cut rows of rising length into panels (first row, end row, longest) of equal height, as many as are cheapest."""
    n = len(lengths)
    best, least = (), np.inf
    for n_panels in range(1, max(2, n // 4)):
        edges = sorted({min(n, HEIGHT * round(n * p / n_panels / HEIGHT)) for p in range(n_panels)} | {n})
        panels = tuple((a, b, lengths[b - 1]) for a, b in itertools.pairwise(edges))
        cost = sum((b - a) * length + CALL for a, b, length in panels)
        if cost < least:
            best, least = panels, cost
    return best


class MADENetwork(MLP):
    """The masked network of D features with `multiplier` outputs each.

    Parameters
    ----------
    input_dim : int
        D.
    hidden_dims : sequence of int
    multiplier : int
        Outputs of a feature; row k * multiplier + j of the result is output j of the k-th feature in order.
    circular : array_like of bool (D,), optional
        Whether the k-th feature in order enters as two rows, cosine and sine.
    activation, residual_blocks, dropout, condition_dim, rng
        As in `MLP`.  With a condition there are units of degree 0, which see it alone.

    Notes
    -----
    Weights of the first layer have their columns in the order of the features, not by their index.
    """

    kernels = {
        **MLP.kernels,
        "advance": (advance, "network_step"),
        "retreat": (retreat, "network_step"),
        "weights": (weights_vjp, "network_vjp"),
    }

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        multiplier: int,
        *,
        circular: np.ndarray | None = None,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        condition_dim: int = 0,
        rng: np.random.Generator,
    ) -> None:
        self.multiplier, self.n_features = multiplier, input_dim
        self._rows = np.ones(input_dim, int) if circular is None else 1 + np.asarray(circular, int)
        lowest = 0 if condition_dim or input_dim == 1 else 1
        n_degrees = input_dim - lowest
        positions = np.arange(1, input_dim + 1)
        self.degrees = [
            np.repeat(positions, self._rows),
            *(lowest + np.arange(h) * n_degrees // h for h in hidden_layers(hidden_dims, residual_blocks)),
            np.repeat(positions, multiplier) - 1,  # the strict output, said as <=
        ]
        super().__init__(len(self.degrees[0]), hidden_dims, input_dim * multiplier, activation=activation,
                         residual_blocks=residual_blocks, dropout=dropout, condition_dim=condition_dim,
                         rng=rng)  # fmt: skip

    def _mask(self, layer: int) -> np.ndarray:
        return self.degrees[layer][None, :] <= self.degrees[layer + 1][:, None]

    def _condition_mask(self) -> np.ndarray:
        return np.ones((self._widths[1], self.condition_dim), bool)

    def dependence(self) -> np.ndarray:
        """Which output position (row) really sees which feature position (column), both from 0."""
        seen = np.eye(self.n_in, dtype=bool)
        for layer in range(len(self._widths) - 1):
            seen = (self._mask(layer).astype(int) @ seen) > 0
        return seen[:: self.multiplier, self.entered()[:-1]]

    def _row_panels(self, layer: int) -> list[tuple[int, int, int]]:
        return list(staircase_panels(tuple(self._mask(layer).sum(axis=1).tolist())))

    def _column_panels(self, layer: int) -> list[tuple[int, int, int]]:
        heights = self._mask(layer).sum(axis=0)  # rows at the bottom of each column, fewer and fewer
        n, rows = len(heights), self._widths[layer + 1]
        mirrored = staircase_panels(tuple(heights[::-1].tolist()))
        return [(n - b, n - a, rows - height) for a, b, height in reversed(mirrored)]

    def _unlocked(self, layer: int) -> list[int]:
        if layer == len(self._widths) - 2:
            return []
        return np.searchsorted(self.degrees[layer + 1], np.arange(self.n_features), side="right").tolist()

    def entered(self) -> list[int]:
        """Input rows of the first 0, 1, 2, ... features."""
        return np.append(0, np.cumsum(self._rows)).tolist()

    def _group(self) -> int:
        return int(np.clip(np.sqrt(self.n_features), 4, 16))

    def warn_of_lost_dependence(self, order: np.ndarray) -> None:
        """Warn if too few hidden units leave some output without a feature that it should see."""
        lost = np.argwhere(np.tril(~self.dependence(), -1))
        if len(lost):
            pairs = ", ".join(f"{order[p]} on {order[q]}" for p, q in lost[:5]) + (", ..." if len(lost) > 5 else "")
            needed = self.n_features - (0 if self.condition_dim else 1)
            warn_user(
                f"hidden_dims={self.hidden_dims} is too narrow for {self.n_features} features: {len(lost)} dependences are "
                f"lost (feature {pairs}); use at least {needed} units in every hidden layer"
            )
