"""Products of Householder reflections (Tomczak and Welling 2016, arXiv:1611.09630, equation 6).

Each reflection is its own inverse, so that gradients take the values between reflections from the result, one by one.
"""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import copy, dot
from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch
from npflows.core import operations

# spec: the dimension, the number of reflections; theta: vectors (reflections, dim); work: the result


@inlined
def squared_length(vector):
    """v . v, of which no sum is reordered."""
    result = vector.dtype.type(0)
    for i in range(vector.size):
        result += vector[i] * vector[i]
    return result


@inlined
def project(vector, block, along):
    """along = v . block, lane by lane."""
    for t in range(along.size):
        along[t] = 0
    for i in range(vector.size):
        add_multiple(along, vector[i], block[i])


@inlined
def add_multiple(target, weight, row):
    """target += weight * row."""
    for t in range(target.size):
        target[t] += weight * row[t]


@inlined
def add_vector(block, weight, vector, along):
    """block += weight * v along, an outer product."""
    for i in range(vector.size):
        add_multiple(block[i], weight * vector[i], along)


@inlined
def reflect(vectors, n, count, backward, block, along):
    """block = H_count ... H_1 block, or with `backward` the inverse, H_1 ... H_count block."""
    for step in range(count):
        j = count - 1 - step if backward else step
        vector = vectors[j * n : (j + 1) * n]
        project(vector, block, along)
        add_vector(block, vectors.dtype.type(-2) / squared_length(vector), vector, along)


@inlined
def reflect_vjp(vectors, n, count, backward, values, dblock, along, dalong, dvectors):
    """The gradient of `reflect` in `dblock`, from that of its result, which is in `values`; that of vectors is added.

    With y = H x, s = |v|^2, a = v . y = -v . x and b = v . dy: dx = H dy, dv = 2 / s (a dy - b x - 2 a b / s v).
    """
    one = vectors.dtype.type(1)
    two = one + one
    for step in range(count):
        j = step if backward else count - 1 - step
        vector = vectors[j * n : (j + 1) * n]
        weight = two / squared_length(vector)
        project(vector, dblock, dalong)
        if dvectors.size > 0:
            project(vector, values, along)
            add_vector(values, -weight, vector, along)
            both = weight * dot(along, dalong)
            for i in range(n):
                dvectors[j * n + i] += weight * (dot(along, dblock[i]) - dot(dalong, values[i]) - both * vector[i])
        add_vector(dblock, -weight, vector, dalong)


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = H_k ... H_1 x."""
    reflect(theta, spec[0], spec[1], False, block, temp[0])
    copy(block, work)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = H_1 ... H_k y."""
    reflect(theta, spec[0], spec[1], True, block, temp[0])
    copy(block, work)


@inlined
def pull_back(spec, theta, backward, dblock, work, temp, dtheta):
    """`reflect_vjp` from the result in `work`, which stays what it is."""
    values = temp[2 : 2 + spec[0]]
    copy(work, values)
    reflect_vjp(theta, spec[0], spec[1], backward, values, dblock, temp[0], temp[1], dtheta)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """From the last reflection to the first."""
    pull_back(spec, theta, False, dblock, work, temp, dtheta)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """From the first reflection to the last."""
    pull_back(spec, theta, True, dblock, work, temp, dtheta)


KERNELS[operations.Householder] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: [operation.dim, operation.reflections],
    lambda operation: Scratch(operation.dim, operation.dim + 2),
)
