"""Which format a file has, by what it begins with, and what opens it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from npflows.files.tables.loading import module
from npflows.files.tables.source import Source, TableError

BURN_IN = ("HDF5", "text")
"""Formats that may hold steps of chains."""
READERS = {
    "npy": ("arrays", "open_npy", ()), "npz": ("arrays", "open_npz", ("table",)), "Parquet": ("arrow", "open_parquet", ()),
    "Arrow": ("arrow", "open_ipc", ()), "FITS": ("astronomy", "open_fits", ("table",)),
    "HDF5": ("hdf5", "open_hdf5", ("table", "burn_in")), "ROOT": ("physics", "open_root", ("table",)),
    "FCS": ("cytometry", "open_fcs", ()), "ECSV": ("astronomy", "open_ecsv", ()),
    "VOTable": ("astronomy", "open_votable", ("table",)), "JSON": ("chains", "open_json", ()),
    "text": ("chains", "open_chain", ("burn_in",)),
}  # fmt: skip
"""For each format the module that reads it, which is loaded when it is first wanted, its function, and what that takes."""
FORMATS: dict[str, tuple[bytes, ...]] = {
    "npy": (b"\x93NUMPY",), "npz": (b"PK\x03\x04", b"PK\x05\x06"), "Parquet": (b"PAR1",),
    "Arrow": (b"ARROW1", b"\xff\xff\xff\xff"), "FITS": (b"SIMPLE  =",), "HDF5": (b"\x89HDF\r\n\x1a\n",),
    "ROOT": (b"root",), "FCS": (b"FCS2.", b"FCS3."),
}  # fmt: skip
"""Formats by the bytes that their files begin with."""
UNPACKED = ("FITS",)
"""Those that are read from compressed files too, as text is."""
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
CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1a")
"""Bytes that no text has."""
NAMES = {
    ".npy": "npy", ".npz": "npz", ".parquet": "Parquet", ".pq": "Parquet", ".feather": "Arrow", ".arrow": "Arrow",
    ".fits": "FITS", ".fit": "FITS", ".h5": "HDF5", ".hdf5": "HDF5", ".root": "ROOT", ".fcs": "FCS", ".nc": "HDF5",
}  # fmt: skip
"""What suffixes promise."""


def open_table(path: Path, table: str | int | None = None, burn_in: float = 0.0) -> Source:
    """The table of a file, a folder of Parquet or Arrow files, or the root name of chains."""
    table = None if table is None else str(table)
    if (path / "chains" / "weighted_post.txt").is_file():  # the folder of a run of UltraNest
        path = path / "chains" / "weighted_post.txt"
    if path.is_dir():
        _refuse("a folder of files", path, table, burn_in)
        return module("arrow").open_folder(path)
    if path.suffix == ".paramnames" or not path.exists():
        chains = module("chains")
        if chains.chain_files(path):
            _refuse("the root of chains", path, table)
            return chains.open_chains(path, burn_in)
        if not path.exists():
            raise FileNotFoundError(2, os.strerror(2), str(path))
    return _opened(kind_of(path), path, table, burn_in)


def kind_of(path: Path) -> str:
    """Which of the formats a file has.

    Raises
    ------
    TableError
        If it has none of them, with what it looks like.
    """
    with open(path, "rb") as file:
        first = file.read(4096)
    if not first:
        raise TableError(f"{path} is empty; it should start with a line of column names")
    for kind, marks in FORMATS.items():
        if first.startswith(marks):
            return kind
    inside = module("packed").first_unpacked(path, 16)
    for kind, marks in FORMATS.items():
        if inside.startswith(marks):
            if kind not in UNPACKED:
                raise TableError(f"{path} is a compressed {kind} file, which can't be read as it is: unpack it first")
            return kind
    for mark, what in OTHERS.items():
        if first.startswith(mark):
            how = ", or pass what Python loads from it" if what == "a pickle" else ""
            raise TableError(
                f"{path} looks like {what}, which is no format of tables here: write it as csv or Parquet{how}"
            )
    promised = NAMES.get(path.suffix.lower())
    head = _head(path, first, promised)
    if head is None or (promised is not None and not head.isprintable() and "\x00" in head):
        kind = f"it is no {promised} file, which its name says" if promised else "it begins like no format of tables"
        raise TableError(f"{path} can't be read: {kind}; is it damaged, or encrypted?")
    kind = next((name for name, test in TEXT.items() if test(head)), "text")
    if promised is not None:
        raise TableError(f"{path} is {kind}, and no {promised} file, which its name says; is it damaged, or an error page?")
    if kind == "HTML":
        raise TableError(f"{path} is a web page, not a table: was a login or an error page saved?")
    return kind


def _opened(kind: str, path: Path, table: str | None, burn_in: float) -> Source:
    """A table of a format; a burn-in is refused where the format has no steps, and a name where it has one table."""
    name, function, takes = READERS[kind]
    given = {"table": table, "burn_in": burn_in}
    _refuse(kind, path, None if "table" in takes else table)
    source = getattr(module(name), function)(path, **{key: given[key] for key in takes})
    _refuse(kind, path, burn_in=0.0 if kind in BURN_IN else burn_in)
    return source


def _refuse(kind: str, path: Path, table: str | None = None, burn_in: float = 0.0) -> None:
    """Refuse what would be left unheeded."""
    if table is not None:
        raise TableError(f"{path} is {kind} and holds one table: leave out table= (--table)")
    if burn_in:
        raise TableError(f"burn_in is for chains of samplers, and {path} holds none: leave the first rows out by where=")


def _head(path: Path, first: bytes, promised: str | None) -> str | None:
    """The first characters of a text, compressed or not; None for what is no text.

    Raises
    ------
    TableError
        If it is a text in another encoding than UTF-8, and no other format is promised.
    """
    text = module("text")
    compressed = any(first.startswith(mark) for mark in module("packed").COMPRESSED)
    if not compressed and first[:2] not in (b"\xff\xfe", b"\xfe\xff") and b"\x00" in first:
        return None
    try:
        with text.opened(path) as file:
            return file.read(4096)
    except UnicodeDecodeError as error:
        if promised is None and not compressed and not CONTROLS.intersection(first):
            raise text.refusal(path, error) from None
        return None
    except (EOFError, OSError):
        return None
