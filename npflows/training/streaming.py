"""Fits to tables larger than memory: two kinds of passes through their pieces.

The first pass checks every row, holds out validation rows by a hash of their values, so that equal rows are on one side,
and draws the rows from which everything is set that is set from data.  Each epoch then goes through the pieces in a random
order; a buffer of several pieces is shuffled before batches are cut from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_positive, as_vector, warn_user
from npflows.core.table import Table
from npflows.core.tables import Headers
from npflows.distribution.transformed import TransformedDistribution
from npflows.files.tables import TableStream
from npflows.training.data import as_training_rows
from npflows.training.likelihood import LikelihoodTrainer
from npflows.training.missing import Missing
from npflows.training.repeats import row_keys, without_copies
from npflows.training.rows import NoRowsError, Rows

IN_MEMORY = 1 << 22
"""Tables of no more rows are read whole."""
BUFFER = 1 << 20
"""Rows that are shuffled together, about."""
SAMPLE = 1 << 18
"""Rows that everything is set from that is set from data, and rows to validate with, at most."""
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100
FRACTION_BITS = 32
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""An odd number near 2**64 over the golden ratio, which spreads what it multiplies over the highest bits (Knuth, The Art of
Computer Programming 3, 6.4)."""


@dataclass
class StreamedRows:
    """The rows of a stream that a fit trains on.

    Attributes
    ----------
    flow : TransformedDistribution
    stream : TableStream
    headers : Headers
    on_invalid : str
    missing : Missing or None
    held_out : float
        Share of the distinct rows that are held out.
    """

    flow: TransformedDistribution
    stream: TableStream
    headers: Headers
    on_invalid: str
    missing: Missing | None
    held_out: float
    n: int = 0
    mean_weight: float = 1.0

    def piece(self, i: int) -> tuple[Rows, NDArray[np.bool_]]:
        """The rows of a piece that can be used, and which of them are held out."""
        table = self.stream.read(i)
        nothing = Rows(np.empty((0, self.flow.latent_dim)), np.arange(0)), np.zeros(0, bool)
        if not len(table):
            return nothing
        first = sum(self.stream.sizes[:i])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of every piece; the pass tells of all together
            try:
                weight = _weights(table)
                rows = as_training_rows(self.flow, table, None, table.condition_table(), self.on_invalid, "x", self.missing,
                                        None, self.headers)  # fmt: skip
            except NoRowsError:
                return nothing
            except ValueError as error:
                raise ValueError(f"{self.stream.owner}, rows numbered from its row {first:,}: {error}") from None
        if weight is not None:
            rows = replace(rows, weight=weight, index=rows.index[weight[rows.index] > 0])
            if not len(rows):
                return nothing
        with np.errstate(over="ignore"):
            place = (row_keys(rows) * SPREAD) >> np.uint64(64 - FRACTION_BITS)
        return rows, place < np.uint64(self.held_out * 2**FRACTION_BITS)

    def look_through(self) -> tuple[Rows, Rows | None]:
        """The first pass: a sample of the rows to train on, and those that are held out."""
        sample, held, n_all, total = [], [], 0, 0.0
        for i in range(len(self.stream.sizes)):
            rows, out = self.piece(i)
            n_all += len(rows)
            train = rows.part(np.flatnonzero(~out))
            self.n += len(train)
            total += len(train) if train.weight is None else float(train.weight[train.index].sum())
            share = min(1.0, SAMPLE / len(self.stream))
            drawn = np.random.default_rng([0, i]).random(len(train)) < share
            sample.append(_apart(train.part(np.flatnonzero(drawn))))
            held.append(_apart(rows.part(np.flatnonzero(out))))
        if not self.n:
            raise ValueError(f"{self.stream.owner} has no row to train on")
        lost = len(self.stream) - n_all
        if lost:
            warn_user(
                f"{self.stream.owner}: {lost:,} of {len(self.stream):,} rows are left out: not chosen, of weight 0, or "
                f"with missing or invalid entries"
            )
        self.mean_weight = total / self.n
        validation = _joined(held)
        if len(validation):
            validation = without_copies(self.flow, validation, row_keys(validation), self.stream.owner)
        return _joined(sample), validation if len(validation) else None

    def buffers(self, rng: np.random.Generator) -> Iterator[Rows]:
        """All rows to train on, in buffers of pieces in a random order, each buffer with its rows shuffled."""
        waiting: list[Rows] = []
        for i in rng.permutation(len(self.stream.sizes)):
            rows, out = self.piece(int(i))
            waiting.append(_apart(rows.part(np.flatnonzero(~out))))
            if sum(map(len, waiting)) >= BUFFER:
                yield self._shuffled(waiting, rng)
                waiting = []
        if waiting:
            yield self._shuffled(waiting, rng)

    def _shuffled(self, parts: list[Rows], rng: np.random.Generator) -> Rows:
        rows = _joined(parts)
        if rows.weight is not None:
            rows.weight = rows.weight / self.mean_weight
        return rows.part(rng.permutation(len(rows)))


def _weights(table: Table) -> NDArray[np.float64] | None:
    """The weights of a piece, after every check; all pieces have one scale."""
    if table.sample_weight is None:
        return None
    weight = as_vector(table.sample_weight, len(table), "sample_weight")
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative; entry {int(np.argmax(weight < 0))} is {weight.min():g}")
    used = weight[weight > 0]
    if len(used) and (used.min() < SMALLEST_WEIGHT or used.max() > LARGEST_WEIGHT):
        raise ValueError(
            f"the weights of a stream must be 0 or lie between {SMALLEST_WEIGHT:g} and {LARGEST_WEIGHT:g}, got "
            f"{used.min():g} to {used.max():g}: multiply all by one number"
        )
    return weight


def _apart(rows: Rows) -> Rows:
    """Some rows as a table of their own, so that the one they are from need not be kept."""
    x, weight, condition = rows.take(np.arange(len(rows)))
    return Rows(x, np.arange(len(x)), weight, condition)


def _joined(parts: list[Rows]) -> Rows:
    """Tables one after the other."""
    some = [part for part in parts if len(part)] or parts[:1]
    x = np.concatenate([part.x for part in some])
    weight, condition = (
        None if getattr(some[0], name) is None else np.concatenate([getattr(part, name) for part in some])
        for name in ("weight", "condition")
    )
    return Rows(x, np.arange(len(x)), weight, condition)


def refuse_beside_stream(**given: Any) -> None:
    """Refuse arguments that a stream has itself, or can't take."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(
            f"a stream brings its weights and condition with it, and is fitted without checkpoints and validation_data: "
            f"leave out {', '.join(names)}"
        )


def streamed(
    flow: TransformedDistribution,
    stream: TableStream,
    headers: Headers,
    on_invalid: str,
    missing: Missing | None,
    fraction: float,
) -> StreamedRows:
    """The rows of a stream for a fit, after the checks of what streams can't do."""
    if missing is not None and missing.impute:
        raise ValueError('on_missing="impute" needs the whole table in memory: pass on_missing="drop"')
    if flow.base.support is not None:
        raise ValueError("a base with bounds needs the ends of all columns, which are not known of a stream: read it whole")
    fraction = as_positive(fraction, "validation_fraction", zero=True)
    if fraction >= 1:
        raise ValueError(f"validation_fraction must be below 1, got {fraction}")
    return StreamedRows(flow, stream, headers, on_invalid, missing, min(fraction, SAMPLE / len(stream)))


class StreamTrainer(LikelihoodTrainer):
    """An epoch is a pass through the pieces of a stream.

    Parameters
    ----------
    rows : StreamedRows
    sample, validation : Rows
        What its first pass gave.
    """

    def __init__(self, flow: TransformedDistribution, rows: StreamedRows, sample: Rows, validation: Rows | None,
                 **options: Any) -> None:  # fmt: skip
        self.rows = rows
        super().__init__(flow, sample, validation, **options)

    @property
    def n_rows(self) -> int:
        return self.rows.n

    def batch_sizes(self) -> set[int]:
        return {self.batch_size}

    def batches(self) -> Iterator[np.ndarray]:
        """Batches of one size; what is left of a buffer comes with the next, what is left of the last not at all."""
        rest: Rows | None = None
        for buffer in self.rows.buffers(self.rng):
            self.train = buffer if rest is None else _joined([rest, _apart(buffer)])
            n = len(self.train) // self.batch_size * self.batch_size
            for start in range(0, n, self.batch_size):
                yield np.arange(start, start + self.batch_size)
            rest = _apart(self.train.part(np.arange(n, len(self.train))))

    def messages(self) -> list[str]:
        far = self._now.train_far.losses
        if not far:
            return []
        return [f"{len(far)} rows are far from all others; in a gradient each of them weighs no more than a row at "
                f"{self.train_bound.most:.3g}"]  # fmt: skip
