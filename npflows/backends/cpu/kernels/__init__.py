"""The kernels of each operation, one file each; importing this enters all of them in the table of kernels."""

from npflows.backends.cpu.kernels import (  # noqa: F401
    actnorm,
    additive,
    affine,
    autoregressive,
    conv1x1,
    convnet,
    coupling,
    custom,
    cylinder,
    elementwise,
    lu_linear,
    made,
    made_outputs,
    mlp,
    normal,
    permutation,
    rotation,
    spline,
    student_t,
    uniform,
)
