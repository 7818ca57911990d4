"""The words of a frame, and what the entries return."""

from __future__ import annotations

VERSION = 1
"""Of the words that compiled callers read, which are the first ones.  They keep their places: callers lie on disk."""

(EVALUATE, SAMPLE, DIM, CONDITION_DIM, ABI, PUBLIC) = range(6)
# what the entries alone read: plans, parameters and scratch memory by their addresses
(COLUMNS, CONDITIONS, FIXED, ONE_LANE, WIDTH, FAR,
 VALUE_PLAN, VALUE_PLAN_SIZE, GRADIENT_PLAN, GRADIENT_PLAN_SIZE, SAMPLE_PLAN, SAMPLE_PLAN_SIZE,
 ONE_VALUE_PLAN, ONE_VALUE_PLAN_SIZE, ONE_GRADIENT_PLAN, ONE_GRADIENT_PLAN_SIZE, ONE_SAMPLE_PLAN, ONE_SAMPLE_PLAN_SIZE,
 THETA, FORWARD_THETA, GRADIENT_THETA, INVERSE_THETA, THETA_SIZE,
 AFFINE, AFFINE_ROWS, CONDITION_AFFINE, CONDITION_COLUMNS,
 SUPPORT, SUPPORT_SIZE, TO_LINE, TO_LINE_VJP, FROM_LINE,
 INTEGERS, N_INTEGERS, PLACES, N_PLACES, LEVELS, KEYS,
 SLOTS, N_SLOTS, SLOT_BYTES, SLOT_DOUBLES, SCRATCH_ROWS, SIZE) = range(PUBLIC, PUBLIC + 44)  # fmt: skip

OK, NOWHERE = 0, 1
"""What entries return: all is well; or some log-density is -inf or NaN, which is written all the same."""
WRONG_DIM, WRONG_CONDITION = -1, -2
"""Or nothing was done: rows, or conditions, of another width than the density's, or of another number."""
