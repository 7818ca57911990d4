"""Which format a file has, by what it begins with, and what opens it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from npflows.files.tables.arrays import open_npy, open_npz
from npflows.files.tables.arrow import open_folder, open_ipc, open_parquet
from npflows.files.tables.astronomy import open_ecsv, open_fits, open_votable
from npflows.files.tables.chains import chain_files, open_chain, open_chains, open_json
from npflows.files.tables.cytometry import open_fcs
from npflows.files.tables.hdf5 import open_hdf5
from npflows.files.tables.physics import open_root
from npflows.files.tables.source import Source, TableError
from npflows.files.tables.text import COMPRESSED, opened

Open = Callable[[Path, "str | None", float], Source]
"""From a path, the name of a table in it and the burn-in to its columns."""

FORMATS: dict[str, tuple[tuple[bytes, ...], Open]] = {
    "npy": ((b"\x93NUMPY",), lambda path, table, burn_in: open_npy(path)),
    "npz": ((b"PK\x03\x04", b"PK\x05\x06"), lambda path, table, burn_in: open_npz(path, table)),
    "Parquet": ((b"PAR1",), lambda path, table, burn_in: open_parquet(path)),
    "Arrow": ((b"ARROW1", b"\xff\xff\xff\xff"), lambda path, table, burn_in: open_ipc(path)),
    "FITS": ((b"SIMPLE  =",), lambda path, table, burn_in: open_fits(path, table)),
    "HDF5": ((b"\x89HDF\r\n\x1a\n",), open_hdf5),
    "ROOT": ((b"root",), lambda path, table, burn_in: open_root(path, table)),
    "FCS": ((b"FCS2.", b"FCS3."), lambda path, table, burn_in: open_fcs(path)),
}
"""Formats by the bytes that their files begin with."""
TEXT: dict[str, Callable[[str], bool]] = {
    "ECSV": lambda head: head.startswith("# %ECSV"),
    "VOTable": lambda head: "<VOTABLE" in head,
    "JSON": lambda head: head.lstrip()[:1] in ("{", "["),
    "HTML": lambda head: head.lstrip()[:9].lower() in ("<!doctype", "<html>") or head.lstrip()[:5].lower() == "<html",
}
"""Formats of text, by their first characters."""
OTHERS = {
    b"\x80\x04": "a pickle", b"\x80\x05": "a pickle", b"\x80\x03": "a pickle", b"\xd0\xcf\x11\xe0": "an Excel file",
    b"SQLite": "an SQLite database", b"%PDF": "a PDF", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture",
    b"CDF\x01": "netCDF 3", b"CDF\x02": "netCDF 3", b"MATLAB": "a MATLAB file", b"Obj\x01": "Avro", b"ORC": "ORC",
    b"$FL": "an SPSS file", b"<stata": "a Stata file", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive",
}  # fmt: skip
"""What else files may begin with."""
NAMES = {
    ".npy": "npy", ".npz": "npz", ".parquet": "Parquet", ".pq": "Parquet", ".feather": "Arrow", ".arrow": "Arrow",
    ".fits": "FITS", ".fit": "FITS", ".h5": "HDF5", ".hdf5": "HDF5", ".root": "ROOT", ".fcs": "FCS", ".nc": "HDF5",
}  # fmt: skip
"""What suffixes promise."""


def open_table(path: Path, table: str | None = None, burn_in: float = 0.0) -> Source:
    """The table of a file, a folder of Parquet or Arrow files, or the root name of chains."""
    if path.is_dir():
        return open_folder(path)
    if path.suffix == ".paramnames" or not path.exists():
        if chain_files(path):
            return open_chains(path, burn_in)
        if not path.exists():
            raise FileNotFoundError(2, os.strerror(2), str(path))
    with open(path, "rb") as file:
        first = file.read(4096)
    if not first:
        raise TableError(f"{path} is empty; it should start with a line of column names")
    for marks, opener in FORMATS.values():
        if first.startswith(marks):
            return _checked(opener(path, table, burn_in), path, burn_in, opener is open_hdf5)
    for mark, what in OTHERS.items():
        if first.startswith(mark):
            raise TableError(f"{path} looks like {what}, which is no format of tables here: write it as csv or Parquet")
    promised = NAMES.get(path.suffix.lower())
    head = _head(path, first)
    if head is None or (promised is not None and not head.isprintable() and "\x00" in head):
        kind = f"it is no {promised} file, which its name says" if promised else "it begins like no format of tables"
        raise TableError(f"{path} can't be read: {kind}; is it damaged, or encrypted?")
    kind = next((name for name, test in TEXT.items() if test(head)), "text")
    if promised is not None:
        raise TableError(f"{path} is {kind}, and no {promised} file, which its name says; is it damaged, or an error page?")
    if kind == "HTML":
        raise TableError(f"{path} is a web page, not a table: was a login or an error page saved?")
    openers: dict[str, Open] = {
        "ECSV": lambda path, table, burn_in: open_ecsv(path),
        "VOTable": lambda path, table, burn_in: open_votable(path, table),
        "JSON": lambda path, table, burn_in: open_json(path),
        "text": lambda path, table, burn_in: open_chain(path, burn_in),
    }
    return _checked(openers[kind](path, table, burn_in), path, burn_in, kind == "text")


def _checked(source: Source, path: Path, burn_in: float, has_steps: bool) -> Source:
    if burn_in and not has_steps:
        raise TableError(f"burn_in is for chains of samplers, and {path} holds none: leave the first rows out by where=")
    return source


def _head(path: Path, first: bytes) -> str | None:
    """The first characters of a text, compressed or not; None for what is no text."""
    compressed = any(first.startswith(mark) for mark in COMPRESSED)
    if not compressed and first[:2] not in (b"\xff\xfe", b"\xfe\xff") and b"\x00" in first:
        return None
    try:
        with opened(path) as file:
            return file.read(4096)
    except (UnicodeDecodeError, EOFError, OSError):
        return None
