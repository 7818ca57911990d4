"""The outputs of a masked network by themselves."""

from __future__ import annotations

from npflows.backends.cpu.compiler.calls import call
from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels.blocks import gather
from npflows.backends.cpu.link import KERNELS, LayerKernels, Link, Scratch, scratch
from npflows.core import operations

# spec: this header, then the order and the network's spec
DIM, MULTIPLIER, NETWORK_FORWARD, HEADER = range(4)


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """The block's first dim rows are x; on return row j * dim + d is output j of feature d."""
    n, m = spec[DIM], spec[MULTIPLIER]
    x, out = work[:n], work[n : n + n * m]
    gather(block, spec, HEADER, x)
    call(spec[NETWORK_FORWARD], (spec[HEADER + n :], theta, context, key, first, x, out, work[n + n * m :], temp))
    for k in range(n):
        for j in range(m):
            target = block[j * n + spec[HEADER + k]]
            for t in range(target.size):
                target[t] = out[k * m + j, t]


def pack(operation: operations.MadeOutputs, link: Link) -> list[int]:
    """Pack the spec of the outputs: header, order, network."""
    network = operation.conditioner
    head = [network.n_features, network.multiplier, link.network(network, "forward", forward)]
    return [*head, *operation.order, *link.pack(network)]


def rows(operation: operations.MadeOutputs) -> Scratch:
    """Scratch: the input in order, the outputs, and the network's."""
    work, temp = scratch(operation.conditioner)
    return Scratch(operation.conditioner.n_features + operation.dim + work, temp)


KERNELS[operations.MadeOutputs] = LayerKernels(lambda operation: (forward,), pack, rows)
