"""The kernels that the host launches: each thread carries one sample through one layer, or through what stands before and
after the layers.

Blocks have lanes for whole blocks of threads (`memory.whole`), as these multiply together: in lanes beyond the last sample
anything may lie, and all of it stays there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from npflows.backends.cpu import driver, standardization
from npflows.backends.cpu.compiler.calls import SIGNATURES
from npflows.backends.cpu.kernels import mlp, student_t
from npflows.backends.cpu.kernels.convolution import CONVOLVE, CONVOLVE_OUTER
from npflows.backends.cpu.kernels.matmul import PRODUCT
from npflows.backends.cpu.kernels.outer import OUTER
from npflows.backends.cuda import helpers, products
from npflows.backends.cuda.device import NUMPY, choose, cuda, device_function, dispatcher, kernel, number_or_first, running
from npflows.backends.cuda.gamma import log_gamma_ratio
from npflows.backends.cuda.link import Called, name_of, number_of
from npflows.backends.cuda.texts import Texts, no_sums, text_of

REPLACED = {
    text_of(PRODUCT[0]): products.product,
    text_of(OUTER[0]): products.outer,
    text_of(CONVOLVE[0]): products.convolve,
    text_of(CONVOLVE_OUTER[0]): products.convolve_outer,
}
"""What is written for a GPU, in place of tiles of vector registers."""
key_of = number_or_first()
"""The key of a layer's random masks; from an array where the same launches, recorded, have other keys each time."""


Instead = tuple[tuple[str, Callable], ...]
"""What stands for all functions of a kind that are called by their numbers, by the kinds of `SIGNATURES`."""


def texts_calling(called: tuple[Called, ...], instead: Instead = (), replaced: dict[Any, Callable] | None = None) -> Texts:
    """The texts of the CPU's kernels, which call these functions by their numbers; what is replaced is so in texts that
    call some."""
    return _made(called, instead, replaced or {}) if instead or replaced else _shared(called)


@functools.cache
def _shared(called: tuple[Called, ...]) -> Texts:
    """Those in which nothing is replaced, which all kernels share that call the same."""
    return _made(called, (), {})


def _made(called: tuple[Called, ...], instead: Instead, replaced: dict[Any, Callable]) -> Texts:
    """`texts_calling`.  Networks call no networks or maps: their texts are those of all whose networks call the same."""
    functions: dict[int, tuple[Any, str]] = {}
    texts, stands = _common().calling(dispatcher(functions, SIGNATURES.values()), replaced), dict(instead)
    few = few_lanes(called)
    called_by_networks = tuple(one for one in called if not one.kind.startswith(("network", "transformer")))
    for one in called:
        shares = one.kind.startswith("network") and one.kind not in stands
        text = stands.get(one.kind) or REPLACED.get(one.text, one.text)
        function = (_shared(called_by_networks) if shares else texts).again(text)
        if few and one.kind in helpers.SHARED_KINDS:
            function = helpers.shared_activation(number_of(one), one.kind, function)
        functions[number_of(one)] = function, SIGNATURES[one.kind]
    return texts


@functools.cache
def _common() -> Texts:
    """The texts that call nothing by its number, of all kernels."""
    replaced = {
        mlp.add_lane_sums: device_function(no_sums),
        student_t.log_gamma_ratio: device_function(log_gamma_ratio),
    }
    return Texts(device_function, choose, replaced, dispatcher({}, ()), NUMPY)


def made_of(function: Callable, called: tuple[Called, ...] = (), instead: Instead = ()) -> str:
    """A kernel's text and what it calls, in words."""
    text, stands = text_of(function), [f"{other.__qualname__} for each {kind}" for kind, other in instead]
    return "; ".join([f"{text.__module__}.{text.__qualname__}", *map(name_of, called), *stands])


def multiplies_together(called: tuple[Called, ...]) -> bool:
    """Whether a kernel that calls these functions has products of whole blocks of threads."""
    return any(one.dense and one.kind == PRODUCT[1] for one in called)


def few_lanes(called: tuple[Called, ...]) -> bool:
    """Whether only some threads of a block have a lane in a kernel that calls these functions."""
    return any(helpers.helps(one.text) for one in called)


def lanes_of_block(texts: Texts, called: tuple[Called, ...]) -> tuple[Callable, Callable]:
    """What gives a thread its lane, or once it has nothing to help with a number beyond all; what it does at its end."""
    if not few_lanes(called):
        return lane_of_thread, no_end
    shared = {number_of(one): (texts.again(one.text), SIGNATURES[one.kind])
              for one in called if one.kind in helpers.SHARED_KINDS}  # fmt: skip
    kinds = [SIGNATURES[kind] for kind in helpers.SHARED_KINDS]
    return helpers.make_lane_or_help(texts.again(helpers.MULTIPLY), dispatcher(shared, kinds)), helpers.dismiss


@device_function
def lane_of_thread(theta, block):
    """The number of a thread."""
    return running.grid(1)


@device_function
def no_end():
    """Nothing, where no threads wait."""


def layer(function: Callable, called: tuple[Called, ...]) -> Any:
    """The kernel of a layer's map."""
    texts = texts_calling(called)
    run, (lane, end_of_lane) = texts.again(function), lanes_of_block(texts, called)

    def carry(spec, theta, start, end, context, key, first, block, log_det, work, temp):
        t = lane(theta, block)
        if t < block.shape[1]:
            run(spec, theta[start:end], context[:, t : t + 1], key_of(key), first + t, block[:, t : t + 1],
                log_det[t : t + 1], work[:, t : t + 1], temp[:, t : t + 1])  # fmt: skip
            end_of_lane()

    return kernel(carry, made_of(function, called))


def layer_vjp(function: Callable, called: tuple[Called, ...]) -> Any:
    """The kernel of its gradient; `own` (rows, lanes) is each thread's gradient of the parameters that it adds up itself,
    from number `own_start` on."""
    texts = texts_calling(called)
    run, (lane, end_of_lane) = texts.again(function), lanes_of_block(texts, called)

    def carry_back(
        spec, theta, start, end, context, key, first, dblock, dlog_det, work, temp, own, own_start, own_rows, dcontext
    ):
        t = lane(theta, dblock)
        if t < dblock.shape[1]:
            for i in range(own_start, own_rows):
                own[i, t] = 0
            run(spec, theta[start:end], context[:, t : t + 1], key_of(key), first + t, dblock[:, t : t + 1],
                dlog_det[t : t + 1], work[:, t : t + 1], temp[:, t : t + 1], own[:own_rows, t],
                dcontext[:, t : t + 1])  # fmt: skip
            end_of_lane()

    return kernel(carry_back, made_of(function, called))


def network(function: Callable, called: tuple[Called, ...]) -> Any:
    """The kernel of an embedding."""
    texts = texts_calling(called)
    run, (lane, end_of_lane) = texts.again(function), lanes_of_block(texts, called)

    def embed(spec, theta, start, end, key, first, x, out, work, temp):
        t = lane(theta, x)
        if t < x.shape[1]:
            run(spec, theta[start:end], x[:, t : t + 1], key_of(key), first + t, x[:, t : t + 1], out[:, t : t + 1],
                work[:, t : t + 1], temp[:, t : t + 1])  # fmt: skip
            end_of_lane()

    return kernel(embed, made_of(function, called))


def network_vjp(function: Callable, called: tuple[Called, ...]) -> Any:
    """The kernel of its gradient."""
    texts = texts_calling(called)
    run, (lane, end_of_lane) = texts.again(function), lanes_of_block(texts, called)

    def embed_back(spec, theta, start, end, key, first, x, dout, dx, work, temp, own, own_rows):
        t = lane(theta, x)
        if t < x.shape[1]:
            run(spec, theta[start:end], x[:, t : t + 1], key_of(key), first + t, x[:, t : t + 1], dout[:, t : t + 1],
                dx[:, t : t + 1], work[:, t : t + 1], temp[:, t : t + 1], own[:own_rows, t], dx[:, t : t + 1])  # fmt: skip
            end_of_lane()

    return kernel(embed_back, made_of(function, called))


def base(function: Callable) -> Any:
    """The kernel that adds the base's log-density and settles what is not finite (see `driver.settle`)."""
    texts = texts_calling(())
    run, settle = texts.again(function), texts.again(driver.settle)

    def add_base(spec, theta, start, end, z, X, C, with_condition, sums, log_prob):
        t = cuda.grid(1)
        if t < X.shape[0]:
            log_prob[t] = sums[t]
            run(spec, theta[start:end], z[:, t : t + 1], log_prob[t : t + 1])
            log_prob[t] = settle(X[t : t + 1], C[t * with_condition :], 0, 0, log_prob[t])

    return kernel(add_base, made_of(function))


def base_vjp(function: Callable) -> Any:
    """The kernel of its gradient."""
    run = texts_calling(()).again(function)

    def pull_base(spec, theta, start, end, dz, dlog, own, own_rows):
        t = cuda.grid(1)
        if t < dz.shape[1]:
            for i in range(own_rows):
                own[i, t] = 0
            run(spec, theta[start:end], dz[:, t : t + 1], dlog[t : t + 1], own[:own_rows, t])

    return kernel(pull_base, made_of(function))


class Ends:
    """The kernels before and after the layers."""

    def __init__(self) -> None:
        texts = texts_calling(())
        load, load_mixed = texts.again(standardization.load), texts.again(standardization.load_mixed)
        load_cotangent = texts.again(standardization.load_cotangent)
        load_mixed_cotangent = texts.again(standardization.load_mixed_cotangent)
        load_standardized = texts.again(standardization.load_standardized)
        store, store_mixed = texts.again(standardization.store), texts.again(standardization.store_mixed)
        store_cotangent = texts.again(standardization.store_cotangent)
        store_mixed_cotangent = texts.again(standardization.store_mixed_cotangent)
        store_condition_cotangent = texts.again(standardization.store_condition_cotangent)

        def enter(X, affine, wanted, mixed, log_det, u, block, sums):
            t = cuda.grid(1)
            if t < X.shape[0]:
                sums[t] = log_det
                if mixed:
                    load_mixed(X, t, 1, affine, u[:, t : t + 1], block[:, t : t + 1])
                else:
                    load(X, t, 1, affine, wanted, block[:, t : t + 1])

        def enter_condition(C, affine, condition):
            t = cuda.grid(1)
            if t < C.shape[0]:
                load_standardized(C, t, 1, affine, condition[:, t : t + 1])

        def leave(block, affine, wanted, mixed, Y):
            t = cuda.grid(1)
            if t < Y.shape[0]:
                if mixed:
                    store_mixed(block[:, t : t + 1], t, 1, affine, Y)
                else:
                    store(block[:, t : t + 1], t, 1, affine, wanted, Y)

        def enter_cotangent(dY, affine, wanted, mixed, u, dblock):
            t = cuda.grid(1)
            if t < dY.shape[0]:
                if mixed:
                    load_mixed_cotangent(dY, t, 1, affine, u[:, t : t + 1], dblock[:, t : t + 1])
                else:
                    load_cotangent(dY, t, 1, affine, wanted, dblock[:, t : t + 1])

        def leave_cotangent(dblock, affine, wanted, mixed, u, dX):
            t = cuda.grid(1)
            if t < dX.shape[0]:
                if mixed:
                    store_mixed_cotangent(dblock[:, t : t + 1], t, 1, affine, u[:, t : t + 1], dX)
                else:
                    store_cotangent(dblock[:, t : t + 1], t, 1, affine, wanted, dX)

        def leave_condition(dcondition, C, affine, dC):
            t = cuda.grid(1)
            if t < dC.shape[0]:
                store_condition_cotangent(dcondition[:, t : t + 1], C, t, 1, affine, dC)

        self.enter, self.enter_condition, self.leave = kernel(enter), kernel(enter_condition), kernel(leave)
        self.enter_cotangent, self.leave_cotangent = kernel(enter_cotangent), kernel(leave_cotangent)
        self.leave_condition = kernel(leave_condition)


@kernel
def copy(source, target):
    """target = source, of the same shape (rows, lanes), and of perhaps another dtype."""
    t = cuda.grid(1)
    if t < source.shape[1]:
        for k in range(source.shape[0]):
            target[k, t] = source[k, t]


@kernel
def clear(block):
    """A block of zeros."""
    t = cuda.grid(1)
    if t < block.shape[1]:
        for k in range(block.shape[0]):
            block[k, t] = 0


@kernel
def spread(source, target):
    """target (n, d) = source (n, d) of any strides and dtype, or its only row in each."""
    t = cuda.grid(1)
    if t < target.shape[0]:
        row = t if source.shape[0] > 1 else 0
        for k in range(target.shape[1]):
            target[t, k] = source[row, k]


@kernel
def lose(C, affine, farthest, values):
    """NaN in the rows of values (n, d) whose condition is not finite, or farther away once it is standardized."""
    t = cuda.grid(1)
    if t < values.shape[0]:
        for k in range(C.shape[1]):
            if not abs(C[t, k] - affine[0, k]) <= farthest * affine[1, k]:
                for d in range(values.shape[1]):
                    values[t, d] = np.nan
