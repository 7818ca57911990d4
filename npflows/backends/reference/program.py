"""How the reference backend runs programs: one operation after the other, on samples as rows in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference import bases
from npflows.backends.reference.adam import Adam
from npflows.backends.reference.common import Given
from npflows.backends.reference.layers import forward, forward_vjp, inverse, inverse_vjp
from npflows.backends.reference.networks import network, network_vjp
from npflows.backends.reference.standardization import (
    from_standardized,
    from_standardized_vjp,
    standardized,
    standardized_condition,
    standardized_condition_vjp,
    standardized_vjp,
)
from npflows.core.backend import HostBuffers, Result, State
from npflows.core.bijection import Bijection
from npflows.core.operations import BASE_LAYER, EMBEDDING_LAYER, ConvNet, Custom, Network, Placed, Program
from npflows.core.underflow import ignore_underflow

CHUNK = 4096
"""Samples that one call takes at most."""
CHUNK_VALUES = 1 << 24
"""Intermediate values of all samples of a call, about."""


class Trace(NamedTuple):
    """The values on the way through the layers.

    Attributes
    ----------
    entering : list of ndarray
        The values that enter each layer, in the order in which they are run.
    values : ndarray (n, max(input_dim, output_dim))
        Those that leave the last one.
    log_det : ndarray (n,)
    condition : ndarray (n, condition_dim)
        The standardized condition, which enters the embedding.
    context : ndarray (n, width)
        The values of it that the layers see.
    """

    entering: list[NDArray]
    values: NDArray
    log_det: NDArray
    condition: NDArray
    context: NDArray


class ReferenceExecutable(HostBuffers):
    """A program, run in float64 whatever the dtype of its parameters.

    Parameters
    ----------
    program : Program

    Raises
    ------
    NotImplementedError
        If it has a layer or base distribution of the user's own, which is compiled by Numba.
    """

    def __init__(self, program: Program) -> None:
        for placed in (*program.layers, *filter(None, [program.base])):
            if isinstance(placed.operation, Custom):
                raise NotImplementedError(
                    f"the reference backend can't run {placed.operation.name}, which npflows.extend compiles with Numba"
                )
        self.program = program
        self.input_dim, self.output_dim = program.input_dim, program.output_dim
        self.condition_dim = program.condition_dim
        parts = (*program.layers, *([program.base] if program.base and program.base_network else []))
        widest = [_intermediate_values(placed.operation) for placed in parts]
        self._widest = max([program.input_dim, program.output_dim, *widest])
        self.chunk_rows = max(1, min(CHUNK, self.rows_within(CHUNK_VALUES)))

    def bijection(self, given: Bijection) -> Bijection:
        """See `npflows.core.backend.Executable`."""
        return given

    def rows_within(self, n_values: int) -> int:
        """Samples whose intermediate values in the widest layer are at most so many numbers."""
        return n_values // self._widest

    def buffer_count(self, n: int, n_bytes: int) -> int:
        """One gradient buffer: samples are not shared out."""
        return 1

    def optimizer(self, theta: NDArray, free: NDArray, weight_decay: float, clip_norm: float | None) -> Adam:
        """Adam for a parameter vector, which it changes in place where `free` is true."""
        return Adam(theta, free, weight_decay, clip_norm)

    @ignore_underflow
    def transport(
        self, state: State, x: NDArray, condition: NDArray, out: Result, *, inverse: bool = False, origin: int = 0
    ) -> None:
        """Carry x (n, input_dim) through the program and fill the arrays of `out` that are not empty."""
        program, theta = self.program, state.theta.astype(np.float64)
        with np.errstate(all="ignore"):
            trace = self._run(state, theta, x, condition, inverse, 0, origin)
            if out.y.size:
                y = trace.values[:, : out.y.shape[1]]
                if program.standardized and inverse:
                    y = from_standardized(state.standardization, y)
                out.y[:] = y
            if out.log_det.size:
                out.log_det[:] = trace.log_det
            if out.log_prob.size:
                out.log_prob[:] = self._log_prob(self._base_numbers(theta, trace, 0, origin), trace, x, condition)

    @ignore_underflow
    def pullback(
        self,
        state: State,
        x: NDArray,
        condition: NDArray,
        dy: NDArray,
        dlog: NDArray,
        buffers: NDArray,
        log_prob: NDArray,
        dx: NDArray,
        dcondition: NDArray,
        *,
        inverse: bool = False,
        key: int = 0,
        origin: int = 0,
    ) -> None:
        """Carry cotangents back through the program at x (n, input_dim); the first buffer receives the gradient."""
        program, theta = self.program, state.theta.astype(np.float64)
        dtheta = np.zeros_like(theta)
        with np.errstate(all="ignore"):
            trace = self._run(state, theta, x, condition, inverse, key, origin)
            dvalues = np.zeros_like(trace.values)
            dcontext = np.zeros_like(trace.context)
            if program.base is not None and not inverse:
                numbers = self._base_numbers(theta, trace, key, origin)
                log_prob[:] = self._log_prob(numbers, trace, x, condition)
                by_base = bases.log_prob_vjp(program.base.operation, numbers, trace.values[:, : self.output_dim], dlog)
                dvalues[:, : self.output_dim] = by_base.z
                if program.base_network is None:
                    _part(program.base, dtheta)[:] += by_base.theta
                else:
                    dcontext += self._network_vjp(program.base_network, theta, trace.context, by_base.theta, dtheta,
                                                  _layer_key(key, BASE_LAYER), origin)  # fmt: skip
            else:
                mapped = program.standardized and inverse
                dvalues[:, : dy.shape[1]] = from_standardized_vjp(state.standardization, dy) if mapped else dy
            dcontext += self._run_back(theta, trace, dvalues, dlog, dtheta, inverse, key, origin)
            if program.embedding is not None:
                dcontext = self._network_vjp(program.embedding, theta, trace.condition, dcontext, dtheta,
                                             _layer_key(key, EMBEDDING_LAYER), origin)  # fmt: skip
            if dx.size:
                by_layers = dvalues[:, : dx.shape[1]]
                mapped = program.standardized and not inverse
                dx[:] = standardized_vjp(state.standardization, by_layers) if mapped else by_layers
            if dcondition.size:
                dcondition[:] = standardized_condition_vjp(state.condition_standardization, condition, dcontext)
            if buffers.size:
                buffers[:] = 0
                buffers[0] = dtheta

    def _run(
        self, state: State, theta: NDArray, x: NDArray, condition: NDArray, inverted: bool, key: int, origin: int
    ) -> Trace:  # fmt: skip
        """All layers, in either direction."""
        program, n = self.program, len(x)
        if program.standardized and not inverted:
            x = standardized(state.standardization, x)
        values = np.zeros((n, max(program.input_dim, program.output_dim)))
        values[:, : x.shape[1]] = x
        log_det = np.zeros(n)
        if program.standardized:
            log_det += state.standardization[2].sum() if inverted else -state.standardization[2].sum()
        condition = condition[:, : program.condition_dim].reshape(n, program.condition_dim)
        condition = standardized_condition(state.condition_standardization, condition)
        context = condition
        if program.embedding is not None:
            given = Given(condition, _layer_key(key, EMBEDDING_LAYER), origin)
            context = network(program.embedding.operation, _part(program.embedding, theta), condition, given)
        step, entering = inverse if inverted else forward, []
        for number, placed in enumerate(self._in_direction(inverted)):
            entering.append(values)
            dim = placed.operation.dim
            given = Given(context, _layer_key(key, number), origin)
            y, more = step(placed.operation, _part(placed, theta), values[:, :dim], given)
            values = np.concatenate([y, values[:, dim:]], axis=1)
            log_det = log_det + more
        return Trace(entering, values, log_det, condition, context)

    def _run_back(
        self,
        theta: NDArray,
        trace: Trace,
        dvalues: NDArray,
        dlog: NDArray,
        dtheta: NDArray,
        inverted: bool,
        key: int,
        origin: int,
    ) -> NDArray:
        """Carry `dvalues` back through all layers, in place, and add to `dtheta`; returns the gradient of the context."""
        dcontext = np.zeros_like(trace.context)
        step = inverse_vjp if inverted else forward_vjp
        numbered = list(enumerate(zip(self._in_direction(inverted), trace.entering)))
        for number, (placed, entering) in reversed(numbered):
            dim = placed.operation.dim
            given = Given(trace.context, _layer_key(key, number), origin)
            gradients = step(placed.operation, _part(placed, theta), entering[:, :dim], dvalues[:, :dim], dlog, given)
            dvalues[:, :dim] = gradients.x
            _part(placed, dtheta)[:] += gradients.theta
            dcontext += gradients.context
        return dcontext

    @staticmethod
    def _network_vjp(
        placed: Placed, theta: NDArray, x: NDArray, dout: NDArray, dtheta: NDArray, key: int, origin: int
    ) -> NDArray:  # fmt: skip
        """The gradient of what enters the embedding or the network of the base; adds that of its parameters to `dtheta`."""
        gradients = network_vjp(placed.operation, _part(placed, theta), x, dout, Given(x, key, origin))
        _part(placed, dtheta)[:] += gradients.theta
        return gradients.x

    def _base_numbers(self, theta: NDArray, trace: Trace, key: int, origin: int) -> NDArray:
        """The parameters of the base distribution, or what its network gives for each sample (n, n_out)."""
        base, placed = self.program.base, self.program.base_network
        if base is None:
            raise ValueError("a program without a base distribution has no log_prob")
        if placed is None:
            return _part(base, theta)
        given = Given(trace.context, _layer_key(key, BASE_LAYER), origin)
        return network(placed.operation, _part(placed, theta), trace.context, given)

    def _in_direction(self, inverted: bool) -> tuple[Placed, ...]:
        """The layers in the order in which they are run."""
        return self.program.layers[::-1] if inverted else self.program.layers

    def _log_prob(self, numbers: NDArray, trace: Trace, x: NDArray, condition: NDArray) -> NDArray:
        """The log-density of the samples, from the numbers of the base distribution: NaN where a sample or its condition
        has NaN; -inf where numbers left the range, infinite ones included."""
        assert self.program.base is not None  # as it has numbers
        z = trace.values[:, : self.output_dim]
        values = trace.log_det + bases.log_prob(self.program.base.operation, numbers, z)
        missing = np.isnan(x).any(axis=1)
        if condition.size:
            missing |= np.isnan(condition).any(axis=1)
        return np.where(np.isfinite(values), values, np.where(missing, np.nan, -np.inf))


def _part(placed: Placed, theta: NDArray) -> NDArray:
    """An operation's own part of a vector like theta."""
    return theta[placed.offset : placed.offset + placed.operation.size]


def _layer_key(key: int, layer: int) -> int:
    """A key of each layer's own from that of the step; 0 stays 0."""
    return key * 1024 + layer if key > 0 else 0


def _intermediate_values(operation: Any) -> int:
    """About how many numbers one sample needs in a layer."""
    conditioner: Network | None = getattr(operation, "conditioner", None)
    if conditioner is None:
        return operation.dim
    if isinstance(conditioner, ConvNet):
        return operation.dim + sum(conditioner.channels) * conditioner.height * conditioner.width
    return operation.dim + sum(conditioner.widths)
