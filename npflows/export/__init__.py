"""Flows as files for other programs: C99 and ONNX.

A flow is traced, operation by operation, to a graph of primitives on one sample (`tracing`, with a file for each kind of
operation); gradients are graphs too (`gradient`).  Printers write graphs: `c_file`, `onnx_file`.
"""
