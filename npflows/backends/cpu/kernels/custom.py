"""Layers and base distributions of the user's own: their kernels come with them (`npflows.extend`)."""

from __future__ import annotations

from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch
from npflows.core import operations

KERNELS[operations.Custom] = LayerKernels(
    lambda operation: operation.kernels,
    lambda operation, link: operation.spec(link),
    lambda operation: Scratch(operation.work_rows, operation.temp_rows),
    lambda operation: operation.one_lane,
)
