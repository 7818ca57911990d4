"""Files of ensembles: the members' files in one, each under its number, with a checksum of the whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npflows._version import __version__
from npflows.core.atomic import atomic_write
from npflows.distribution.transformed import TransformedDistribution
from npflows.files.archive import FlowFileError, checksum, read_arrays, read_json, write_arrays
from npflows.files.flow_file import CHECKSUM, ENSEMBLE, MEMBERS, check_checksum, pack, unpack

FORMAT = 1
"""Version of the format of files; the members within have that of flows."""
MOST_MEMBERS = 10_000
"""Members that a file may have."""
_OF_MEMBER = re.compile(rf"(0|[1-9][0-9]{{0,4}})/({'|'.join((*MEMBERS, CHECKSUM))})", re.ASCII)
"""The names of arrays: the number of the member, and what the file of a flow calls it."""


def save_ensemble(members: Sequence[TransformedDistribution], path: str | os.PathLike[str]) -> None:
    """Write flows to one file; see `Ensemble.save`."""
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"a file holds {MOST_MEMBERS} members at most, got {len(members)}: write several files")
    with atomic_write(path) as file:
        write_arrays(file, pack_ensemble(members))


def pack_ensemble(members: Sequence[TransformedDistribution]) -> dict[str, np.ndarray]:
    """Flows as arrays that need no pickle, and their checksum."""
    about = {
        "format": FORMAT,
        "npflows": __version__,
        "class": "Ensemble",
        "members": len(members),
        "checksum": "sha256",
    }
    arrays = {ENSEMBLE: np.array(json.dumps(about))}
    for i, member in enumerate(members):
        arrays.update({f"{i}/{name}": array for name, array in pack(member).items()})
    return {**arrays, CHECKSUM: checksum(_whole(arrays))}


def _whole(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the checksum of the whole is of: the description, and the checksums of all members."""
    return {name: array for name, array in arrays.items() if name == ENSEMBLE or name.endswith(f"/{CHECKSUM}")}


def read_ensemble_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an ensemble in a file, each checked against its checksum in the archive."""
    return read_arrays(path, lambda name: name in (ENSEMBLE, CHECKSUM) or _OF_MEMBER.fullmatch(name) is not None)


def load_ensemble(path: str | os.PathLike[str], dtype: DTypeLike | None = None, classes: Iterable[type] = ()) -> list[Any]:
    """The flows in a file; see `Ensemble.load`."""
    return unpack_ensemble(read_ensemble_arrays(path), os.fspath(path), dtype, classes)


def unpack_ensemble(
    arrays: Mapping[str, np.ndarray], where: str, dtype: DTypeLike | None = None, classes: Iterable[type] = ()
) -> list[Any]:
    """The flows that `pack_ensemble` made arrays of."""
    about, of_mine = about_ensemble(arrays, where), list(classes)
    parts: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        number, _, own = name.rpartition("/")
        if number:
            parts.setdefault(int(number), {})[own] = array
    n = about["members"]
    if sorted(parts) != list(range(n)):
        raise FlowFileError(f"{where} is damaged or was edited: it says that it has {n} members, and holds {len(parts)}")
    check_checksum(_whole(arrays), arrays.get(CHECKSUM), about, where)
    return [unpack(parts[i], f"member {i} of {where}", dtype, of_mine) for i in range(n)]


def about_ensemble(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    """The description of an ensemble, whose format is known and which says how many members there are."""
    if ENSEMBLE not in arrays:
        raise FlowFileError(f"{where} holds no ensemble: if it is one flow, read it with npflows.load")
    try:
        about = read_json(str(arrays[ENSEMBLE]))
        version, n = about["format"], about["members"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FlowFileError(f"{where} is no ensemble: its description can't be read ({error!r})") from None
    if version != FORMAT or type(n) is not int or not 1 <= n <= MOST_MEMBERS:
        raise FlowFileError(
            f"{where} is an ensemble of format {version!r} with {n!r} members, which this npflows can't read"
        )
    return about
