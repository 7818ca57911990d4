"""Columns of a table by name or number."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import numpy as np

MOST_NAMES = 20
"""Names that a message lists at most."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the most similar known one, or a list of them where none is similar."""
    known = list(known)
    similar = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean {similar[0]!r}?" if similar else f"there are {listed(known)}"


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, not more than a message can hold."""
    return ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")


def column_number(
    key: int | str,
    n: int,
    names: Sequence[str] | None = None,
    *,
    owner: str,
    kind: str = "column",
    from_end: bool = False,
    numerals: bool = False,
    naming: str = "",
    error: type[ValueError] = ValueError,
) -> int:
    """The number of a column that is given by its name or number.

    Parameters
    ----------
    key : int or str
        Number or name; a name comes before a number in text.
    n : int
        Number of columns.
    names : sequence of str, optional
        Names of the columns.
    owner, kind : str
        Subject and object of the message: "{owner} has no {kind} {key}".
    from_end : bool
        Whether negative numbers count from the end.
    numerals : bool
        Whether text may hold a number, as on a command line.
    naming : str
        How to give names to the columns, for the message where they have none.
    error : type
        The exception to raise.

    Raises
    ------
    ValueError
        If there is no such column, with a hint at what may be meant.
    """
    known = names if names is None or type(names) is list else [str(name) for name in names]
    if isinstance(key, str) and known is not None and key in known:
        return known.index(key)
    is_numeral = numerals and isinstance(key, str) and key.isdecimal()
    number = int(key) if is_numeral else key
    if isinstance(number, (int, np.integer)) and not isinstance(number, bool) and (-n if from_end else 0) <= number < n:
        return int(number) % n
    if known is not None and isinstance(key, str) and not is_numeral:
        hint = did_you_mean(key, known)
    elif known is not None:
        hint = f"there are {n}, numbered from 0: {listed(known)}"
    else:
        hint = f"there are {n}, numbered from 0, without names" + (f"; {naming}" if naming else "")
    raise error(f"{owner} has no {kind} {key!r}; {hint}")
