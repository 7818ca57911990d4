"""Random numbers that follow from a key and their own number alone, so that any thread or machine can draw any of them.

They are those of Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
doi:10.1145/2063384.2063405), which makes four words of 32 bits from a counter of four and a key of two.  Here the key has
four words: the last two are those of the counter that do not count.  Block i, whose counter begins with the two words of
i, gives two numbers of 52 bits, u from 0, excluded, to 1 and a from -1 to 1, excluded.  Made of them are

    uniform:      1 - u and (a + 1) / 2, values 2 i and 2 i + 1 of a table, read row by row
    normal:       r cos(pi a) and r sin(pi a) with r^2 = -2 log(u), values 2 i and 2 i + 1; none is beyond 8.5 (Box and
                  Muller 1958, doi:10.1214/aoms/1177706645)
    Student's t:  r cos(pi a) with r^2 = v (u^(-2 / v) - 1) for v degrees of freedom, value i (Bailey 1994, Mathematics of
                  Computation 62, 779)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
"""What the first and third word of the counter are multiplied by in each round."""
INCREMENTS = 0x9E3779B9, 0xBB67AE85
"""What the two words of the key grow by after each round."""
FARTHEST = 1e150
"""The largest value of Student's t: the square of a larger one is out of range."""
LEAST = 2.0**-54
"""The least probability whose quantile is drawn."""
Place = tuple[NDArray[np.int64], int]
"""A key (4,), and the number of the first value that is wanted."""


class Law(NamedTuple):
    """The law of some columns of samples (n, dim), as plain data, for what draws them where they are wanted.

    Attributes
    ----------
    name : {"normal", "uniform", "student_t", "quantile", "beta", "mixture"}
        By "quantile" a law is symmetric around 0; "mixture" is one of what was drawn in its columns before.
    place : Place
        Where the values begin, row after row of these columns; of a mixture, row after row.
    columns : ndarray of int (k,)
    scale, shift : ndarray (k,)
        A value is what is drawn times its column's scale, and shifted; of Student's t, `scale` are the degrees of freedom,
        and nothing is scaled or shifted; of a mixture they are those of its components (n, k).
    numbers : ndarray
        Of "beta" its shape alone; of a mixture the sums of its first weights, (n - 1,).
    quantile : callable, optional
        The q <= 0 of which p, from 0 to 1/2, is the cumulative distribution, by functions of NumPy; p is `LEAST` at least.
    """

    name: str
    place: Place
    columns: NDArray[np.int64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    numbers: NDArray[np.float64] = np.zeros(1)
    quantile: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None


def new_key(rng: np.random.Generator) -> NDArray[np.int64]:
    """A key: four words of 32 bits, each from one number of `rng.random(4)`, the quickest way to them."""
    return (rng.random(4) * 2.0**32).astype(np.int64)


class Pieces(np.random.Generator):
    """The generator of several calls that draw samples of one flow piece by piece: together they draw those of one call.

    It shares the state of the generator that it is made from.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng.bit_generator)
        self._places: dict[str, Place] = {}

    def spawn(self, n_children: int) -> list[np.random.Generator]:
        """Generators of their own, as of the one that this was made from."""
        return np.random.Generator(self.bit_generator).spawn(n_children)

    def place(self, law: str, n: int) -> Place:
        """Where the next n values of a law begin."""
        key, first = self._places.get(law) or (new_key(self), 0)
        self._places[law] = key, first + n
        return key, first


class Part(Pieces):
    """The generator of a call that draws n samples, from `start` on, of those that one call would draw."""

    def __init__(self, rng: np.random.Generator, start: int, n: int) -> None:
        super().__init__(rng)
        self._start, self._n = start, n

    def place(self, law: str, n: int) -> Place:
        """Where n values of a law begin, which are those of as many samples."""
        return new_key(self), self._start * (n // max(self._n, 1))


def in_pieces(rng: np.random.Generator) -> Pieces:
    """The generator, or one that shares its state, for calls that together are as one."""
    return rng if isinstance(rng, Pieces) else Pieces(rng)


def place(rng: np.random.Generator, law: str, n: int) -> Place:
    """The place of n values of a law: the beginning of those of a new key, or in pieces where the last ones ended."""
    return rng.place(law, n) if isinstance(rng, Pieces) else (new_key(rng), 0)
