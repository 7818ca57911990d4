"""The spline of a single sample: loops over the bins of a value, whose raw parameters lie side by side."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.kernels import vecmath


@inlined
def softmax(values):
    """Of either half of the values, in place."""
    n = values.size // 2
    for half in (values[:n], values[n:]):
        top = half[0]
        for k in range(1, n):
            top = half[k] if half[k] > top else top
        for k in range(n):
            half[k] -= top
    for k in range(values.size):
        values[k] = vecmath.exp_of_negative(values[k])
    for half in (values[:n], values[n:]):
        total = values.dtype.type(0)
        for k in range(n):
            total += half[k]
        inverse = values.dtype.type(1) / total
        for k in range(n):
            half[k] *= inverse


@inlined
def find_bin(value, by_height, widths, heights, bound, least_w, scale_w, least_h, scale_h):
    """The number of the bin that holds a value, its left knot and size along x, and along y."""
    found, x0, y0 = 0, -bound, -bound
    edge_x, edge_y = x0, y0
    for k in range(1, widths.size):
        edge_x += least_w + scale_w * widths[k - 1]
        edge_y += least_h + scale_h * heights[k - 1]
        if value >= (edge_y if by_height else edge_x):
            found, x0, y0 = k, edge_x, edge_y
    return found, x0, least_w + scale_w * widths[found], y0, least_h + scale_h * heights[found]


@inlined
def sizes_vjp(shares, k, g_knot, g_size, scale):
    """Turn the gradient of bin k, which holds the value, into that of the raw parameters of all sizes."""
    mean = shares.dtype.type(0)
    for j in range(k + 1):
        mean += shares[j] * (g_knot if j < k else g_size)
    zero = shares.dtype.type(0)
    for j in range(shares.size):
        shares[j] *= scale * ((g_knot if j < k else g_size if j == k else zero) - mean)
