"""What a file looks like that is none of npflows', by its first bytes."""

from __future__ import annotations

import re

LOOKED_AT = 256
"""Bytes at the beginning of a file that tell what it is."""
_OLD_TORCH = re.escape(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
_PICKLE = rb"\x80[\x02-\x05]|\([dlt]p?\d*\n|\(i[\w.]+\n|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|[\]})(]q."
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (_OLD_TORCH, "a file of PyTorch in the format before 1.6",
     "load its state dict and save it with a later PyTorch, torch.save(state_dict, path), for npflows.convert"),
    (_PICKLE, "a pickle, as pzflow and others write them",
     "a pickle can execute code, and is not read; npflows.convert.from_pzflow takes flows of pzflow over without executing "
     "anything"),
    (rb"\x93NUMPY", "an array, or several as equinox writes the leaves of flows",
     "npflows.convert.from_flowjax takes those of flowjax over"),
    (rb"/\*.* of npflows ", "a C file that to_c wrote", "it can't be read back: load the file that flow.save wrote"),
    (rb"\x08.\x12\x07npflows", "an ONNX model that to_onnx wrote",
     "it can't be read back: load the file that flow.save wrote"),
    (rb"\x08[\x03-\x7f]\x12[\x00-\x7f]", "an ONNX model", "npflows writes such models, and reads none"),
    (rb'.{5}\x00{3}\{\s*["}]', "a file of safetensors",
     "npflows.convert takes the mapping that safetensors.numpy.load_file(path) gives"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
    (rb"SIMPLE  =", "a FITS file", ""),
    (rb"PAR1", "a Parquet file", ""),
    (rb"ARROW1|FEA1", "an Arrow file", ""),
    (rb"root\x00", "a ROOT file", ""),
    (rb"\x1f\x8b", "a file that gzip packed", "unpack it first"),
    (rb"\s*[\[{]", "a text of JSON", ""),
)  # fmt: skip
"""How files begin, what they are called, and what to do with them if anything."""


def foreign_kind(start: bytes) -> tuple[str, str] | None:
    """What a file looks like that begins with some bytes, and what to do with it, or nothing where that is not known.

    A zip file, as flows of npflows are, is not looked into: None.
    """
    if not start:
        return "an empty file", ""
    if start.startswith(b"PK"):
        return None
    for pattern, what, hint in KINDS:
        if re.match(pattern, start, re.DOTALL):
            return what, hint
    return ("a text", "") if _is_text(start) else None


def _is_text(start: bytes) -> bool:
    """Whether bytes are printed characters alone."""
    try:
        text = start.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # a character may be cut off at the end
            return False
        text = start[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\n\r" for c in text)
