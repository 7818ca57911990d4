"""What the entries of a frame do with rows: log-density and gradients, and samples, one block after the other."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import as_real, call, carve
from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.driver import padded, pullback_block, transport_block
from npflows.backends.cpu.embedded.frame import (
    AFFINE,
    AFFINE_ROWS,
    COLUMNS,
    CONDITION_AFFINE,
    CONDITION_COLUMNS,
    CONDITION_DIM,
    CONDITIONS,
    DIM,
    FAR,
    FIXED,
    FORWARD_THETA,
    FROM_LINE,
    GRADIENT_PLAN,
    GRADIENT_PLAN_SIZE,
    GRADIENT_THETA,
    INTEGERS,
    INVERSE_THETA,
    KEYS,
    LEVELS,
    N_INTEGERS,
    N_PLACES,
    NOWHERE,
    OK,
    ONE_GRADIENT_PLAN,
    ONE_GRADIENT_PLAN_SIZE,
    ONE_LANE,
    ONE_SAMPLE_PLAN,
    ONE_SAMPLE_PLAN_SIZE,
    ONE_VALUE_PLAN,
    ONE_VALUE_PLAN_SIZE,
    PLACES,
    SAMPLE_PLAN,
    SAMPLE_PLAN_SIZE,
    SCRATCH_ROWS,
    SLOT_BYTES,
    SLOT_DOUBLES,
    SUPPORT,
    SUPPORT_SIZE,
    THETA,
    THETA_SIZE,
    TO_LINE,
    TO_LINE_VJP,
    VALUE_PLAN,
    VALUE_PLAN_SIZE,
    WIDTH,
    WRONG_CONDITION,
    WRONG_DIM,
)
from npflows.backends.cpu.embedded.memory import LINE, allocate, claim, free, release, table, vector
from npflows.backends.cpu.kernels.blocks import copy
from npflows.backends.cpu.kernels.pixel_supports import level_of
from npflows.core.operations import EDGE


@inlined
def as_checked(f, n, dim, condition_rows, condition_dim):
    """OK, or what does not fit."""
    if dim != f[DIM]:
        return WRONG_DIM
    if condition_dim != f[CONDITION_DIM] or (condition_dim > 0 and condition_rows != 1 and condition_rows != n):
        return WRONG_CONDITION
    return OK


@inlined
def load_conditions(f, condition, condition_rows, a, C, affine, unknown):
    """Fill C with the conditions of rows a, a + 1, ..., and unknown with 1 where one is not finite, or beyond the range of
    the compute dtype; there C has something that is."""
    far = as_real(f[FAR])
    for t in range(C.shape[0]):
        unknown[t] = 0.0
        given = vector(f[FIXED], C.shape[1], 0.0)
        if f[FIXED] == 0:
            given = vector(condition + 8 * C.shape[1] * (a + t if condition_rows > 1 else 0), C.shape[1], 0.0)
        for d in range(C.shape[1]):
            C[t, d] = given[d]
            loc, scale = (affine[0, d], affine[1, d]) if affine.shape[1] > 0 else (0.0, 1.0)
            if not abs(given[d] - loc) <= far * scale:
                unknown[t] = 1.0
        if unknown[t] != 0.0:
            for d in range(C.shape[1]):
                C[t, d] = affine[0, d] if affine.shape[1] > 0 else 0.0


@inlined
def hashed(z):
    """A number from 0 to 1 from a whole one (SplitMix64's finalizer; Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64(z ^ (z >> np.uint64(31))) * 2.0**-64


@inlined
def place(f, draw, X, P):
    """P = X with whole numbers at a place of their cells: that of a draw, which for images is turned, for each its own
    way.  A value that is no whole number becomes infinite, which is outside."""
    n = f[N_INTEGERS]
    columns, places = vector(f[INTEGERS], n, 0), vector(f[PLACES] + 8 * draw * n, n, 0.0)
    copy(X, P)
    for t in range(X.shape[0]):
        image = np.uint64(0)
        if f[LEVELS] > 0:
            keys = vector(f[KEYS], n, np.uint64(0))
            for j in range(n):
                x = X[t, columns[j]]
                image += np.uint64(np.int64(x) if np.isfinite(x) else 0) * (keys[j] | np.uint64(1))
        for j in range(n):
            x = X[t, columns[j]]
            share = places[j]
            if f[LEVELS] > 0:
                share = (share + hashed(image + vector(f[KEYS], n, np.uint64(0))[j])) % 1.0
                share = EDGE if share < EDGE else 1 - EDGE if share > 1 - EDGE else share
            P[t, columns[j]] = np.inf if np.isfinite(x) and x != np.floor(x) else x + share


@inlined
def add_draw(log_prob, wants_gradient, dX, dC, highest, total, gX, gC):
    """Add a draw's density to the sum of all, whose terms are multiplied by exp(-highest), and its gradients likewise."""
    for t in range(log_prob.size):
        new = log_prob[t] if log_prob[t] > highest[t] or np.isnan(log_prob[t]) else highest[t]
        old_share = np.exp(highest[t] - new) if highest[t] > -np.inf else 0.0
        share = np.exp(log_prob[t] - new) if new > -np.inf else 0.0
        highest[t] = new
        total[t] = total[t] * old_share + share
        if wants_gradient:
            for d in range(dX.shape[1]):
                gX[t, d] = gX[t, d] * old_share + share * dX[t, d]
            for d in range(dC.shape[1]):
                gC[t, d] = gC[t, d] * old_share + share * dC[t, d]


@inlined
def mean_of_draws(draws, highest, total, gX, gC, log_prob):
    """The logarithm of the mean density, and its gradients in place."""
    for t in range(log_prob.size):
        log_prob[t] = np.log(total[t] / draws) + highest[t] if highest[t] > -np.inf or np.isnan(highest[t]) else -np.inf
        for d in range(gX.shape[1]):
            gX[t, d] /= total[t]
        for d in range(gC.shape[1]):
            gC[t, d] /= total[t]


@inlined
def store_gradients(f, dX, dC, wants_condition, log_prob, a, grad, dcondition):
    """Write the gradients of rows a, a + 1, ...: NaN where the log-density is, 0 where the density is 0 or the gradient has
    left the range of the compute dtype, and in columns of whole numbers."""
    integers = vector(f[INTEGERS], f[N_INTEGERS], 0)
    for t in range(dX.shape[0]):
        lost, unknown = log_prob[t] == -np.inf, np.isnan(log_prob[t])
        for d in range(dX.shape[1]):
            lost |= not np.isfinite(dX[t, d])
        if wants_condition:
            for d in range(dC.shape[1]):
                lost |= not np.isfinite(dC[t, d])
        if grad != 0:
            out = vector(grad + 8 * (a + t) * dX.shape[1], dX.shape[1], 0.0)
            for d in range(out.size):
                out[d] = np.nan if unknown else 0.0 if lost else dX[t, d]
            for j in range(integers.size):
                out[integers[j]] = 0.0
        if wants_condition:
            out = vector(dcondition + 8 * (a + t) * dC.shape[1], dC.shape[1], 0.0)
            for d in range(out.size):
                out[d] = np.nan if unknown else 0.0 if lost else dC[t, d]


@inlined
def evaluate_block(f, zero, memory, a, width, alone, x, condition, condition_rows, grad, dcondition, log_prob):
    """Log-densities, and gradients unless their address is 0, of rows a to a + width; OK or NOWHERE."""
    columns, conditions, draws = f[COLUMNS], f[CONDITIONS], f[N_PLACES]
    lanes = 1 if alone and f[ONE_LANE] else padded(width)
    numbers = vector(memory + LINE, f[SLOT_DOUBLES], 0.0)
    arena = vector(memory + LINE + 8 * f[SLOT_DOUBLES], f[SCRATCH_ROWS] * lanes, zero)
    unknown, log_det, inside = numbers[:width], numbers[width : 2 * width], numbers[2 * width : 3 * width]
    highest, total = numbers[3 * width : 4 * width], numbers[4 * width : 5 * width]
    at, block, per_condition = 5 * width, width * columns, width * conditions
    P, T, dT = carve(numbers, at, width, columns), carve(numbers, at + block, width, columns), carve(
        numbers, at + 2 * block, width, columns)  # fmt: skip
    dP, gX = carve(numbers, at + 3 * block, width, columns), carve(numbers, at + 4 * block, width, columns)
    at += 5 * block
    C, dC = carve(numbers, at, width, conditions), carve(numbers, at + per_condition, width, conditions)
    gC = carve(numbers, at + 2 * per_condition, width, conditions)

    theta = vector(f[THETA], f[THETA_SIZE], zero)
    affine = table(f[AFFINE], f[AFFINE_ROWS], columns)
    condition_affine = table(f[CONDITION_AFFINE], 3, f[CONDITION_COLUMNS])
    support = vector(f[SUPPORT], f[SUPPORT_SIZE], 0)
    X, out = table(x + 8 * a * columns, width, columns), vector(log_prob + 8 * a, width, 0.0)
    nothing, no_rows, no_theta = numbers[:0], table(memory, 0, 0), theta[:0]
    wants_condition = dcondition != 0 and conditions > 0
    wants_gradient = grad != 0 or wants_condition
    if conditions > 0:
        load_conditions(f, condition, condition_rows, a, C, condition_affine, unknown)
    for t in range(width):
        inside[t] = 1.0
        highest[t], total[t] = -np.inf, 0.0
    if draws > 0:
        gX[:, :] = 0.0
        gC[:, :] = 0.0

    for draw in range(max(draws, 1)):
        given, entering, dX = X, X, dT
        if draws > 0:
            place(f, draw, X, P)
            given, entering = P, P
        if f[TO_LINE] != 0:
            call(f[TO_LINE], (support, given, T, log_det, inside))
            entering, dX = T, dP
        if wants_gradient:
            plan = vector(f[GRADIENT_PLAN], f[GRADIENT_PLAN_SIZE], 0)
            if lanes == 1:
                plan = vector(f[ONE_GRADIENT_PLAN], f[ONE_GRADIENT_PLAN_SIZE], 0)
            way = vector(f[GRADIENT_THETA] if lanes == 1 else f[THETA], f[THETA_SIZE], zero)
            pullback_block(plan, theta, way, affine, condition_affine, entering, C, 0, width, lanes, 0, 0, arena, no_rows,
                           inside, out, dT, dC, no_theta)  # fmt: skip
        else:
            plan = vector(f[VALUE_PLAN], f[VALUE_PLAN_SIZE], 0)
            if lanes == 1:
                plan = vector(f[ONE_VALUE_PLAN], f[ONE_VALUE_PLAN_SIZE], 0)
            way = vector(f[FORWARD_THETA] if lanes == 1 else f[THETA], f[THETA_SIZE], zero)
            transport_block(plan, way, affine, condition_affine, entering, C, 0, width, lanes, 0, 0, arena, no_rows,
                            nothing, out)  # fmt: skip
        if f[TO_LINE] != 0:
            for t in range(width):
                out[t] = out[t] + log_det[t] if inside[t] != 0.0 else -np.inf
            if wants_gradient:
                call(f[TO_LINE_VJP], (support, given, dT, inside, dP))
        if draws > 0:
            add_draw(out, wants_gradient, dX, dC, highest, total, gX, gC)

    dX = dT if f[TO_LINE] == 0 else dP
    if draws > 0:
        mean_of_draws(draws, highest, total, gX, gC, out)
        dX, dC = gX, gC
    status = OK
    for t in range(width):
        if conditions > 0 and unknown[t] != 0.0:
            out[t] = np.nan
        if not np.isfinite(out[t]):
            status = NOWHERE
    if wants_gradient:
        store_gradients(f, dX, dC, wants_condition, out, a, grad, dcondition)
    return status


@inlined
def sample_block(f, zero, memory, a, width, alone, z, condition, condition_rows, x):
    """The samples that rows a to a + width of z become."""
    columns, conditions = f[COLUMNS], f[CONDITIONS]
    lanes = 1 if alone and f[ONE_LANE] else padded(width)
    numbers = vector(memory + LINE, f[SLOT_DOUBLES], 0.0)
    arena = vector(memory + LINE + 8 * f[SLOT_DOUBLES], f[SCRATCH_ROWS] * lanes, zero)
    unknown, log_det = numbers[:width], numbers[width : 2 * width]
    T = carve(numbers, 5 * width, width, columns)
    C = carve(numbers, 5 * width + width * columns, width, conditions)
    condition_affine = table(f[CONDITION_AFFINE], 3, f[CONDITION_COLUMNS])
    if conditions > 0:
        load_conditions(f, condition, condition_rows, a, C, condition_affine, unknown)
    Z, X = table(z + 8 * a * columns, width, columns), table(x + 8 * a * columns, width, columns)
    plan = vector(f[SAMPLE_PLAN], f[SAMPLE_PLAN_SIZE], 0)
    if lanes == 1:
        plan = vector(f[ONE_SAMPLE_PLAN], f[ONE_SAMPLE_PLAN_SIZE], 0)
    theta = vector(f[INVERSE_THETA] if lanes == 1 else f[THETA], f[THETA_SIZE], zero)
    affine = table(f[AFFINE], f[AFFINE_ROWS], columns)
    Y = T if f[FROM_LINE] != 0 else X
    transport_block(plan, theta, affine, condition_affine, Z, C, 0, width, lanes, 0, 0, arena, Y, numbers[:0], numbers[:0])
    if f[FROM_LINE] != 0:
        call(f[FROM_LINE], (vector(f[SUPPORT], f[SUPPORT_SIZE], 0), T, X, log_det))
    integers = vector(f[INTEGERS], f[N_INTEGERS], 0)
    for t in range(width):
        for j in range(integers.size):
            value = X[t, integers[j]]
            X[t, integers[j]] = level_of(value, np.float64(f[LEVELS])) if f[LEVELS] > 0 else np.floor(value)
        if conditions > 0 and unknown[t] != 0.0:
            for d in range(columns):
                X[t, d] = np.nan


@inlined
def evaluate(zero, x, n, dim, condition, condition_rows, condition_dim, grad, dcondition, log_prob, f):
    """Rows (n, dim) one block after the other; see `frame` for what it returns."""
    status = as_checked(f, n, dim, condition_rows, condition_dim)
    if status != OK:
        return status
    slot = claim(f)
    memory = slot if slot != 0 else allocate(f[SLOT_BYTES])  # more threads than slots
    width, alone = f[WIDTH], n == 1
    for a in range(0, n, width):
        status |= evaluate_block(f, zero, memory, a, min(width, n - a), alone, x, condition, condition_rows, grad,
                                 dcondition if condition_dim > 0 else 0, log_prob)  # fmt: skip
    if slot != 0:
        release(slot)
    else:
        free(memory)
    return status


@inlined
def sample(zero, z, n, dim, condition, condition_rows, condition_dim, x, f):
    """Rows (n, dim) of x from those of z, one block after the other."""
    status = as_checked(f, n, dim, condition_rows, condition_dim)
    if status != OK:
        return status
    slot = claim(f)
    memory = slot if slot != 0 else allocate(f[SLOT_BYTES])
    width, alone = f[WIDTH], n == 1
    for a in range(0, n, width):
        sample_block(f, zero, memory, a, min(width, n - a), alone, z, condition, condition_rows, x)
    if slot != 0:
        release(slot)
    else:
        free(memory)
    return status
