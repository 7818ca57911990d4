"""Fits to tables larger than memory: two kinds of passes through their pieces.

The first pass checks every row, holds out validation rows by a hash of their values, so that equal rows are on one side,
and draws the rows from which everything is set that is set from data.  Each epoch then goes through the pieces in a random
order; a buffer of several pieces is shuffled before batches are cut from it.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_numeric, as_positive, as_vector, warn_user
from npflows.core.table import Table
from npflows.core.tables import Headers, as_array
from npflows.distribution.transformed import TransformedDistribution
from npflows.files.tables import TableStream, is_of_dask, stream_table
from npflows.training.data import as_training_rows
from npflows.training.imputation import DonorRows
from npflows.training.likelihood import LikelihoodTrainer
from npflows.training.missing import Missing
from npflows.training.repeats import row_keys, without_copies
from npflows.training.rows import MissingEntries, NoRowsError, Rows

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
    n : int
        Rows to train on, which the first pass counts.
    """

    flow: TransformedDistribution
    stream: TableStream
    headers: Headers
    on_invalid: str
    missing: Missing | None
    held_out: float
    n: int = 0
    _used: list[NDArray[np.uint8]] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)
    _scale: float = 0.0
    _donors: DonorRows | None = None

    def piece(self, i: int) -> tuple[Rows, NDArray[np.bool_], int]:
        """The rows of a piece that can be used, which of them are held out, and how many rows it has; weights unscaled."""
        table = self.stream.read(i)
        nothing = Rows(np.empty((0, self.flow.latent_dim)), np.arange(0)), np.zeros(0, bool), len(table)
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
            least = -math.inf if table.log_weight is not None else 0.0
            rows = replace(rows, weight=weight, index=rows.index[weight[rows.index] > least])
            if not len(rows):
                return nothing
        with np.errstate(over="ignore"):
            place = (row_keys(rows) * SPREAD) >> np.uint64(64 - FRACTION_BITS)
        return rows, place < np.uint64(self.held_out * 2**FRACTION_BITS), len(table)

    def look_through(self) -> tuple[Rows, Rows | None]:
        """The first pass: a sample of the rows to train on, the ends of all columns among them, and the rows held out."""
        sample, held, n_all, totals = [], [], 0, [-math.inf]
        ends = _Ends()
        for i in range(len(self.stream.sizes)):
            rows, out, size = self.piece(i)
            n_all += len(rows)
            train = rows.part(np.flatnonzero(~out))
            self._note(train, size)
            if len(train):
                totals.append(self._log_total(train))
            share = min(1.0, SAMPLE / len(self.stream))
            drawn = np.random.default_rng([0, i]).random(len(train)) < share
            sample.append(_apart(train.part(np.flatnonzero(drawn))))
            ends.look(train, drawn)
            held.append(_apart(rows.part(np.flatnonzero(out))))
        self.n = sum(self._counts)
        if not self.n:
            raise ValueError(f"{self.stream.owner} has no row to train on")
        lost = len(self.stream) - n_all
        if lost:
            warn_user(
                f"{self.stream.owner}: {lost:,} of {len(self.stream):,} rows are left out: not chosen, of weight 0, or "
                f"with missing or invalid entries"
            )
        self._scale = float(np.logaddexp.reduce(totals)) - math.log(self.n)
        train, validation = self._scaled(_joined([*sample, *ends.rows()])), self._scaled(_joined(held))
        if len(validation):
            validation = without_copies(self.flow, validation, row_keys(validation), self.stream.owner)
        if self.missing is not None and self.missing.impute:
            self._donors = DonorRows(self.flow, train)
        return train, validation if len(validation) else None

    def _note(self, train: Rows, size: int) -> None:
        """Remember which rows of a piece are trained on, a bit for each."""
        used = np.zeros(size, bool)
        used[train.index] = True
        self._used.append(np.packbits(used))
        self._counts.append(len(train))

    @property
    def _has_logarithms(self) -> bool:
        """Whether the weights of the stream are given as logarithms."""
        return self.stream.has_log_weight

    def _log_total(self, train: Rows) -> float:
        """The logarithm of the sum of the weights of some rows."""
        if train.weight is None:
            return math.log(len(train))
        weight = train.weight[train.index]
        return float(np.logaddexp.reduce(weight)) if self._has_logarithms else math.log(weight.sum())

    def _scaled(self, rows: Rows) -> Rows:
        """The rows with weights of mean 1 over all rows to train on."""
        if rows.weight is None:
            return rows
        with np.errstate(under="ignore"):
            weight = np.exp(rows.weight - self._scale) if self._has_logarithms else rows.weight / math.exp(self._scale)
        return replace(rows, weight=weight)

    def buffers(self, rng: np.random.Generator) -> Iterator[Rows]:
        """All rows to train on, in buffers of pieces in a random order, each buffer with its rows shuffled.

        While one is trained on, a thread reads the next.
        """
        groups: list[list[int]] = [[]]
        for i in rng.permutation(len(self.stream.sizes)).tolist():
            if sum(self._counts[k] for k in groups[-1]) >= BUFFER:
                groups.append([])
            if self._counts[i]:
                groups[-1].append(i)
        groups = [group for group in groups if group]
        from concurrent.futures import ThreadPoolExecutor  # which takes longer to load than all of this

        with ThreadPoolExecutor(1) as ahead:
            following = [ahead.submit(self._gathered, groups[0])]
            for group in [*groups[1:], []]:
                rows = following.pop().result()
                if group:
                    following.append(ahead.submit(self._gathered, group))
                yield rows.part(rng.permutation(len(rows)))
                del rows

    def _gathered(self, pieces: Sequence[int]) -> Rows:
        """The rows to train on of some pieces, one after the other."""
        n, start = sum(self._counts[i] for i in pieces), 0
        whole: list[NDArray | None] = []
        for i in pieces:
            table = self.stream.read(i)
            used = np.flatnonzero(np.unpackbits(self._used[i], count=len(table)))
            parts = self._arrays(table)
            if not whole:
                whole = [None if part is None else np.empty((n, *part.shape[1:]), part.dtype) for part in parts]
            for k, (array, part) in enumerate(zip(whole, parts)):
                if array is not None and part is not None:
                    if part.dtype != array.dtype:  # whole numbers, and with null entries in a later piece
                        whole[k] = array = array.astype(np.result_type(array, part))
                    array[start : start + len(used)] = part.take(used, axis=0) if len(used) < len(part) else part
            start += len(used)
        x, weight, condition = whole
        assert x is not None
        rows = self._scaled(Rows(x, np.arange(n), weight, condition))
        return rows if self._donors is None else self._completed(rows)

    def _arrays(self, table: Table) -> tuple[NDArray, NDArray | None, NDArray | None]:
        """Values, weights and conditions of a piece, which the first pass has checked."""
        context, weight = table.condition_table(), table.log_weight if self._has_logarithms else table.sample_weight
        return (
            as_array(table, "x", self.headers.x)[0],
            None if weight is None else as_array(weight, "weights")[0].astype(np.float64),
            None if context is None else as_array(context, "condition", self.headers.condition)[0],
        )

    def _completed(self, rows: Rows) -> Rows:
        """Rows with complete ones of the sample that stand in for those with missing entries."""
        assert self.missing is not None
        assert self._donors is not None
        assert isinstance(rows.x, np.ndarray)
        return self._donors.stand_in(_with_missing(rows, self.missing.entries(rows.x)))


class _Ends:
    """The rows that hold the smallest and the largest value of each column, of those that are not drawn anyway."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], tuple[float, Rows | None]] = {}

    def look(self, rows: Rows, drawn: NDArray[np.bool_]) -> None:
        """Look through some more rows."""
        if not len(rows):
            return
        x = rows.take(np.arange(len(rows)))[0]
        for d in range(x.shape[1]):
            for sign in (1, -1):
                values = sign * x[:, d].astype(np.float64)
                if np.isnan(values).all():
                    continue
                place = int(np.nanargmax(values))
                if (d, sign) not in self._found or values[place] > self._found[d, sign][0]:
                    kept = None if drawn[place] else _apart(rows.part(np.array([place])))
                    self._found[d, sign] = float(values[place]), kept

    def rows(self) -> list[Rows]:
        """Those rows, each once."""
        found = {np.asarray(row.x).tobytes(): row for _, row in self._found.values() if row is not None}
        return list(found.values())


def _weights(table: Table) -> NDArray[np.float64] | None:
    """The weights of a piece, or their logarithms, after every check; all pieces have one scale."""
    if table.log_weight is not None:
        logs = as_numeric(table.log_weight, "log_weight").astype(np.float64)
        wrong = np.isnan(logs) | (logs == math.inf)
        if logs.shape != (len(table),) or wrong.any():
            first = int(np.argmax(wrong))
            raise ValueError(f"log_weight must be finite, or -inf for a weight of 0; entry {first} is {logs[first]}")
        return logs
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
    apart = Rows(x, np.arange(len(x)), weight, condition)
    return apart if rows.missing is None else _with_missing(apart, np.isnan(x))


def _with_missing(rows: Rows, missing: NDArray[np.bool_]) -> Rows:
    """Rows, of which some entries (n, d) are missing."""
    numbers = np.flatnonzero(missing.any(axis=1))
    return rows if not len(numbers) else replace(rows, missing=MissingEntries(numbers, missing[numbers]))


def _joined(parts: list[Rows]) -> Rows:
    """Tables one after the other."""
    some = [part for part in parts if len(part)] or parts[:1]
    x = np.concatenate([part.x for part in some])
    weight, condition = (
        None if getattr(some[0], name) is None else np.concatenate([getattr(part, name) for part in some])
        for name in ("weight", "condition")
    )
    whole = Rows(x, np.arange(len(x)), weight, condition)
    return whole if all(part.missing is None for part in some) else _with_missing(whole, np.isnan(x))


def refuse_beside_stream(**given: Any) -> None:
    """Refuse arguments that a stream has itself, or can't take."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(
            f"a stream brings its weights and condition with it: leave out {', '.join(names)}, and name their columns in "
            f"stream_table"
        )


def streamed_if_large(x: Any, **beside: Any) -> Any:
    """A table that fits into memory, or a stream: of streams, and Dask's arrays and data frames, those of few rows are read
    whole.  Other arguments of the fit are not taken beside a stream."""
    if is_of_dask(x) and all(given is None for name, given in beside.items() if name != "comm"):
        x = stream_table(x)
    if not isinstance(x, TableStream):
        return x
    refuse_beside_stream(**beside)
    return x.table() if len(x) <= IN_MEMORY else x


def streamed(
    flow: TransformedDistribution,
    stream: TableStream,
    headers: Headers,
    on_invalid: str,
    missing: Missing | None,
    fraction: float,
) -> StreamedRows:
    """The rows of a stream for a fit, after the checks of what streams can't do."""
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

    def __init__(self, flow: TransformedDistribution, rows: StreamedRows, sample: Rows, validation: Rows | None, *,
                 batch_size: int, **options: Any) -> None:  # fmt: skip
        self.rows, self.sample = rows, sample
        super().__init__(flow, sample, validation, batch_size=batch_size, **options)
        self.sample, self.n_batches = self.train, batches_of_stream(rows.n, batch_size)

    def held(self, flow: TransformedDistribution) -> None:
        """Nothing stays, as the rows change all the time."""

    @property
    def n_rows(self) -> int:
        return self.rows.n

    def batch_sizes(self) -> set[int]:
        return {self.batch_size}

    def batches(self) -> Iterator[np.ndarray]:
        """Batches of one size; what is left of a buffer comes with the next, what is left of the last not at all."""
        rest: Rows | None = None
        for buffer in self.rows.buffers(self.rng):
            taken = 0
            if rest is not None:  # one batch of the rows that were left, and of the first ones here
                taken = min(self.batch_size - len(rest), len(buffer))
                rest = _completed(rest, buffer.part(np.arange(taken)))
                if len(rest) < self.batch_size:
                    continue
                self.train = rest
                yield np.arange(self.batch_size)
            self.train = buffer
            n = (len(buffer) - taken) // self.batch_size
            for start in range(taken, taken + n * self.batch_size, self.batch_size):
                yield np.arange(start, start + self.batch_size)
            left = np.arange(taken + n * self.batch_size, len(buffer))
            rest = _completed(buffer.part(left)) if len(left) else None
        self.train = self.sample

    def messages(self) -> list[str]:
        far = self._now.train_far.losses
        if not far or self._must_stay_inside:
            return []
        return [f"{len(far)} rows are far from all others; in a gradient each of them weighs no more than a row at "
                f"{self.train_bound.most:.3g}"]  # fmt: skip

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        self.train = self.sample
        return {
            **super().options,
            "training data": f"{self.rows.n} rows of a stream, checksum {self.sample.checksum():08x}",
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, numbers = super().state()
        return {**arrays, "train": self.sample.index}, numbers


def batches_of_stream(n: int, batch_size: int) -> int:
    """Steps of an epoch over n rows of a stream."""
    return max(1, n // batch_size)


def _completed(*parts: Rows) -> Rows:
    """Rows one after the other, apart from where they are from, with values in place of missing ones."""
    return _joined([_filled(part) for part in parts])


def _filled(rows: Rows) -> Rows:
    """Rows with values in place of missing ones, the same each time."""
    x, weight, condition = rows.take(np.arange(len(rows)))
    return Rows(x, np.arange(len(x)), weight, condition)
