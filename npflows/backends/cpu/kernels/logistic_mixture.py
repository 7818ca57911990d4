"""The logit of the distribution function of a mixture of logistics, then an affine map (arXiv:1902.00275, section 3.2).

With z_k = (x - m_k) exp(-s_k), the distribution function C, 1 - C and the density are sums over components of
p_k sigmoid(z_k), of p_k sigmoid(-z_k) and of p_k exp(-s_k) sigmoid(z_k) sigmoid(-z_k), of which the k-th has the shares
A_k, B_k and Q_k.  Then

    y = (log C - log(1 - C)) exp(a) + b,    log dy/dx = a + log(density) - log C - log(1 - C)

with logarithms of sums of exponentials, so that nothing is lost far out or between components.  a and s_k are
r / (1 + |r| / L) of raw r, with L = -log(least scale).  Raw parameters stay as they are until the vjp.
"""

from __future__ import annotations

from npflows.backends.cpu.compiler.calls import as_real
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.affine import soft_clip, soft_clip_slope
from npflows.backends.cpu.kernels.newton import MOST_STEPS, newton_step, rounding_of
from npflows.backends.cpu.link import KERNELS, MapKernels, bits
from npflows.core import operations

COMPONENTS, LIMIT = range(2)  # spec: their number, the bits of L
SHIFT, SCALE, LOGITS = range(3)  # rows of raw parameters: b, a, then K logits, K locations, K log-scales
# temp: A_k, B_k, Q_k


@inlined(always=True)
def log_scale(spec, rows, t, k):
    """a or s_k, from the raw one in row k."""
    real = rows.dtype.type
    return soft_clip(rows[k, t], real(as_real(spec[LIMIT])), real(1))


@inlined(always=True)
def slope_of_log_scale(spec, rows, s):
    """Its derivative by the raw one, from a or s_k."""
    real = rows.dtype.type
    return soft_clip_slope(s, real(as_real(spec[LIMIT])), real(1))


@inlined(always=True)
def component(spec, rows, t, k):
    """Location and inverse scale of the k-th component."""
    n, real = spec[COMPONENTS], rows.dtype.type
    offset = real(2 * (2 * k + 1 - n)) / real(n)
    return rows[LOGITS + n + k, t] + offset, vecmath.exp(-log_scale(spec, rows, t, LOGITS + 2 * n + k))


@inlined(always=True)
def shares(rows, t):
    """The logarithm of the sum of exponentials of all rows, which become shares of it."""
    n, top, total = rows.shape[0], rows[0, t], rows.dtype.type(0)
    for k in range(1, n):
        top = rows[k, t] if rows[k, t] > top else top
    for k in range(n):
        rows[k, t] = vecmath.exp(rows[k, t] - top)
        total += rows[k, t]
    for k in range(n):
        rows[k, t] /= total
    return top + vecmath.log(total)


@inlined(always=True)
def evaluate(spec, x, rows, t, below, above, inside):
    """log C - log(1 - C), and the logarithm of its derivative by x but for that of sum_k p_k, which follows; the last
    three rows hold A_k, B_k and Q_k then."""
    n = spec[COMPONENTS]
    for k in range(n):
        location, inverse = component(spec, rows, t, k)
        z = (x - location) * inverse
        down, up = vecmath.softplus(-z), vecmath.softplus(z)
        below[k, t] = rows[LOGITS + k, t] - down
        above[k, t] = rows[LOGITS + k, t] - up
        inside[k, t] = rows[LOGITS + k, t] - log_scale(spec, rows, t, LOGITS + 2 * n + k) - down - up
    low, high = shares(below, t), shares(above, t)
    return low - high, shares(inside, t) - low - high


@inlined(always=True)
def log_weights(spec, rows, t):
    """log sum_k exp(logit of p_k)."""
    n, top, total = spec[COMPONENTS], rows[LOGITS, t], rows.dtype.type(0)
    for k in range(1, n):
        top = rows[LOGITS + k, t] if rows[LOGITS + k, t] > top else top
    for k in range(n):
        total += vecmath.exp(rows[LOGITS + k, t] - top)
    return top + vecmath.log(total)


@inlined
def bend_of(spec, x, rows, t, below, above, inside):
    """d(log dy/dx)/dx from what `evaluate` left."""
    bend, one = rows.dtype.type(0), rows.dtype.type(1)
    for k in range(spec[COMPONENTS]):
        location, inverse = component(spec, rows, t, k)
        up, down = vecmath.sigmoid((x - location) * inverse), vecmath.sigmoid((location - x) * inverse)
        bend += inverse * (above[k, t] * up - below[k, t] * down + inside[k, t] * (one - up - up))
    return bend


@inlined
def root(spec, y, rows, t, below, above, inside):
    """The x whose log C - log(1 - C) is y, and the logarithm of the derivative there.  It lies between the values m_k + y
    exp(s_k) of single components."""
    one, rounding, total = rows.dtype.type(1), rounding_of(rows), log_weights(spec, rows, t)
    location, inverse = component(spec, rows, t, 0)
    low = high = location + y / inverse
    steepest = inverse
    for k in range(1, spec[COMPONENTS]):
        location, inverse = component(spec, rows, t, k)
        value = location + y / inverse
        low, high = value if value < low else low, value if value > high else high
        steepest = inverse if inverse > steepest else steepest
    x = low + (high - low) / (one + one)
    found, log_slope = evaluate(spec, x, rows, t, below, above, inside)
    last = abs(found - y) * (one + one)
    for _ in range(MOST_STEPS):
        new, low, high = newton_step(x, found - y, vecmath.exp(log_slope + total), low, high, last, one)
        last, moved = abs(found - y), abs(new - x)
        x = new
        found, log_slope = evaluate(spec, x, rows, t, below, above, inside)
        if moved <= rounding * (abs(x) + one / steepest):
            break
    return x, log_slope + total


@inlined
def value_vjp(spec, x, rows, t, dy, dlog, below, above, inside):
    """dL/dx; in place of raw parameters their gradient.

    With gradients g_C, g_D and dlog of log C, log(1 - C) and the logarithm of the density, that of z_k is
    g_C A_k sigmoid(-z_k) - g_D B_k sigmoid(z_k) + dlog Q_k (1 - 2 sigmoid(z_k)).
    """
    n, real = spec[COMPONENTS], rows.dtype.type
    one, dx = real(1), real(0)
    y, _ = evaluate(spec, x, rows, t, below, above, inside)
    total = log_weights(spec, rows, t)
    a = log_scale(spec, rows, t, SCALE)
    g_y = dy * vecmath.exp(a)
    rows[SCALE, t] = (g_y * y + dlog) * slope_of_log_scale(spec, rows, a)
    rows[SHIFT, t] = dy
    g_below, g_above = g_y - dlog, -g_y - dlog
    for k in range(n):
        location, inverse = component(spec, rows, t, k)
        z = (x - location) * inverse
        up, down = vecmath.sigmoid(z), vecmath.sigmoid(-z)
        share = dlog * inside[k, t]
        g_z = g_below * below[k, t] * down - g_above * above[k, t] * up + share * (one - up - up)
        weight = dlog * vecmath.exp(rows[LOGITS + k, t] - total)
        s = log_scale(spec, rows, t, LOGITS + 2 * n + k)
        dx += g_z * inverse
        rows[LOGITS + k, t] = g_below * below[k, t] + g_above * above[k, t] + share + weight
        rows[LOGITS + n + k, t] = -g_z * inverse
        rows[LOGITS + 2 * n + k, t] = (-g_z * z - share) * slope_of_log_scale(spec, rows, s)
    return dx


@inlined
def parts(spec, temp):
    """Rows for A_k, for B_k and for Q_k."""
    n = spec[COMPONENTS]
    return temp[:n], temp[n : 2 * n], temp[2 * n : 3 * n]


@kernel
def forward(spec, theta, x, raw, log_det, temp):
    """y = f(x) and log_det += log dy/dx."""
    below, above, inside = parts(spec, temp)
    m = LOGITS + 3 * spec[COMPONENTS]
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        for t in range(x.shape[1]):
            y, log_slope = evaluate(spec, x[i, t], rows, t, below, above, inside)
            a = log_scale(spec, rows, t, SCALE)
            x[i, t] = y * vecmath.exp(a) + rows[SHIFT, t]
            log_det[t] += log_slope + log_weights(spec, rows, t) + a


@kernel
def inverse(spec, theta, x, raw, log_det, temp):
    """x = f^-1(y) and log_det -= log dy/dx."""
    below, above, inside = parts(spec, temp)
    m = LOGITS + 3 * spec[COMPONENTS]
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        for t in range(x.shape[1]):
            a = log_scale(spec, rows, t, SCALE)
            y = (x[i, t] - rows[SHIFT, t]) * vecmath.exp(-a)
            x[i, t], log_slope = root(spec, y, rows, t, below, above, inside)
            log_det[t] -= log_slope + a


@kernel
def forward_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx: dL/dy in, dL/dx out; raw: raw parameters in, their gradient out."""
    below, above, inside = parts(spec, temp)
    m = LOGITS + 3 * spec[COMPONENTS]
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        for t in range(x.shape[1]):
            dx[i, t] = value_vjp(spec, x[i, t], rows, t, dx[i, t], dlog_det[t], below, above, inside)


@kernel
def solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx = (dx - dlog_det d(log dy/dx)/dx) / (dy/dx): what an inverse's gradient needs."""
    below, above, inside = parts(spec, temp)
    m = LOGITS + 3 * spec[COMPONENTS]
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        for t in range(x.shape[1]):
            _, log_slope = evaluate(spec, x[i, t], rows, t, below, above, inside)
            log_slope += log_weights(spec, rows, t) + log_scale(spec, rows, t, SCALE)
            bend = bend_of(spec, x[i, t], rows, t, below, above, inside)
            dx[i, t] = (dx[i, t] - dlog_det[t] * bend) * vecmath.exp(-log_slope)


def pack(operation: operations.LogisticMixture, value: int | None) -> list[int]:
    """Pack the spec of the map."""
    return [operation.num_components, *bits(operation.limit)]


ROLES = {"forward": forward, "inverse": inverse, "vjp": forward_vjp, "solve": solve}
KERNELS[operations.LogisticMixture] = MapKernels(
    lambda operation: ROLES, pack, lambda operation, n: 3 * operation.num_components
)
