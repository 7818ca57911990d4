"""`npflows export`: a flow as a C99 file or an ONNX model."""

from __future__ import annotations

import argparse
from pathlib import Path

from npflows.cli.ensembles import load_flow
from npflows.cli.inputs import keep_inputs


def export(a: argparse.Namespace) -> int:
    """Write the file that the ending of its name asks for."""
    kind = Path(a.output).suffix.lower()
    if kind not in (".c", ".onnx"):
        raise ValueError(f"export writes files that end with .c or .onnx, got {a.output}")
    if kind == ".c" and a.what is not None:
        raise ValueError("--what is for ONNX models: a C file has all functions")
    if kind == ".onnx" and a.prefix is not None:
        raise ValueError("--prefix is for C files")
    keep_inputs(a.output, a.flow)
    flow = load_flow(a.flow, "cpu", "export writes one flow")
    if kind == ".c":
        flow.to_c(a.output, **({} if a.prefix is None else {"prefix": a.prefix}))
    else:
        flow.to_onnx(a.output, **({} if a.what is None else {"what": a.what}))
    if not a.quiet:
        print(f"wrote {a.output}")
    return 0
