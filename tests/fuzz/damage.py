"""Damaged files: `python tests/fuzz/damage.py [N] [SEED]` makes some N of them and says what became of them.

Every golden file and a newly saved flow and checkpoint are damaged byte by byte, flipped and cut, as far as N goes; their
content is edited too, with the checksum left as it was.  A file must be refused with `FlowFileError`, or be the flow that
was saved.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import npflows
from npflows import FlowFileError

GOLDEN = Path(__file__).parents[1] / "golden"
X = np.random.default_rng(0).normal(size=(60, 2))
SHORT = {"rng": 0, "progress": False, "batch_size": 20, "learning_rate": 1e-3}


class _Killed(Exception):
    pass


def _kill(flow, record):
    raise _Killed


def checkpoint(path: Path) -> None:
    """Write a checkpoint of a run that ended after its first epoch."""
    try:
        flow().fit(X, max_epochs=2, checkpoint=path, callbacks=_kill, **SHORT)
    except _Killed:
        return


def flow() -> npflows.MAF:
    """A small flow."""
    return npflows.MAF(2, 1, (4,), rng=0)


def same(a: npflows.NormalizingFlow, b: npflows.NormalizingFlow) -> bool:
    """Whether two flows are one: class, arguments, names and all that they have learned."""
    arrays = zip(a.learned_arrays().values(), b.learned_arrays().values())
    facts = [
        (type(f), f.arguments, f.columns, f.condition_columns, f.preprocessing.is_standardized, f.preprocessing.pixel_dtype,
         f.robust_columns, f.effective_rows, f.history, [layer.initialized for layer in f.data_dependent_layers])
        for f in (a, b)
    ]  # fmt: skip
    return facts[0] == facts[1] and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)


def damaged(content: bytes, step: int, draw: random.Random) -> Iterator[bytes]:
    """The content with one byte flipped, and cut, at every `step`-th place."""
    for place in range(draw.randrange(step), len(content), step):
        yield content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        yield content[:place]


VALUES = [None, True, 0, -1, 1, 2, 1 << 40, 10**400, 0.5, float("nan"), float("inf"), "", "x", [], [1], [[]], {}, {"a": 1},
          {"class": "MAF", "config": {}}]  # fmt: skip


def edited(value: object, draw: random.Random) -> object:
    """A JSON value with one of the values inside it replaced, left out or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        result, key = dict(value), draw.choice(list(value))
        if draw.random() < 0.1:
            del result[key]
        else:
            result[key] = edited(value[key], draw)
        return result
    if isinstance(value, list) and value and draw.random() < 0.9:
        items, i = list(value), draw.randrange(len(value))
        if draw.random() < 0.1:
            items.append(copy.deepcopy(items[i]))
        else:
            items[i] = edited(items[i], draw)
        return items
    return draw.choice(VALUES)


def rearranged(array: np.ndarray, draw: random.Random) -> np.ndarray:
    """An array with another value, shape or type."""
    flat = np.array(array)
    kind = draw.randrange(5)
    if kind == 0 and flat.size:
        place = draw.randrange(flat.size)
        flat.reshape(-1)[place] = draw.choice([0, 1, -1, 5]) if flat.dtype.kind in "iu" else draw.choice([0.0, np.nan, 7.0])
        return flat
    if kind == 1:
        return flat.reshape(-1)[: max(0, flat.size - 1)]
    if kind == 2:
        return flat.astype("U4") if draw.random() < 0.5 or flat.dtype.kind == "U" else flat.astype("f2")
    if kind == 3:
        return flat[None]
    return np.zeros(draw.choice([(), (0,), (2, 2)]), draw.choice(["f4", "f8", "i8", "?", "U1"]))


def with_edit(arrays: dict[str, np.ndarray], draw: random.Random) -> dict[str, np.ndarray]:
    """The arrays of a file with one of them edited; checksums stay what they were."""
    result = dict(arrays)
    name = draw.choice([name for name in arrays if not name.endswith("checksum")])
    if name in ("about", "run_numbers") and draw.random() < 0.9:
        value = edited(json.loads(str(arrays[name])), draw)
        result[name] = np.array(json.dumps(value))
    else:
        result[name] = rearranged(arrays[name], draw)
    return result


def without_checksum(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays as an earlier version wrote them."""
    about = json.loads(str(arrays["about"]))
    about.pop("checksum", None)
    kept = {name: array for name, array in arrays.items() if not name.endswith("checksum")}
    return {**kept, "about": np.array(json.dumps(about))}


class Campaign:
    """What became of all files; the first failures in words."""

    def __init__(self, folder: Path) -> None:
        self.path, self.counts, self.failures = folder / "damaged.npz", Counter(), []

    def load(self, content: bytes | None, expected: npflows.NormalizingFlow | None, what: str) -> None:
        """Load a damaged file, which must be refused or, where one is expected, be that flow."""
        if content is not None:
            self.path.write_bytes(content)
        try:
            found = npflows.load(self.path)
        except FlowFileError:
            self.counts[f"{what}: refused"] += 1
        except Exception as error:
            self._fail(what, f"{type(error).__name__}: {error}")
        else:
            if expected is not None and not same(found, expected):
                self._fail(what, "loads as another flow")
            self.counts[f"{what}: loads{'' if expected is None else ' as it was'}"] += 1

    def resume(self, expected: npflows.NormalizingFlow | None, what: str) -> None:
        """Go on with an edited checkpoint, which must be refused with the flow unchanged or, where one is expected, end as
        that flow."""
        mine = flow()
        before = mine.learned_arrays()["theta"].copy()
        try:
            mine.fit(X, max_epochs=2, checkpoint=self.path, resume=True, **SHORT)
        except FlowFileError:
            self.counts[f"{what}: refused"] += 1
            if not np.array_equal(before, mine.parameters.theta) or mine.history or mine.preprocessing.is_standardized:
                self._fail(what, "refused, and the flow is another")
        except Exception as error:
            self._fail(what, f"{type(error).__name__}: {error}")
        else:
            if expected is not None and not np.array_equal(mine.params, expected.params):
                self._fail(what, "resumes to another result")
            self.counts[f"{what}: resumes{'' if expected is None else ' to the same bits'}"] += 1

    def _fail(self, what: str, how: str) -> None:
        self.counts["FAILURES"] += 1
        self.failures.append(f"{what}: {how}")


def campaign(n: int, seed: int = 0) -> int:
    """Some n damaged files; the number of failures."""
    warnings.simplefilter("ignore")
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        run, whole = Campaign(Path(folder)), Path(folder) / "whole.npz"
        flow().fit(X, max_epochs=1, **SHORT).save(whole)
        files = [*sorted(GOLDEN.glob("*.npz")), whole]
        contents = [file.read_bytes() for file in files]
        step = max(1, 2 * sum(map(len, contents)) // max(1, n * 3 // 4))
        for file, content in zip(files, contents):
            expected = npflows.load(file)
            for part in damaged(content, step, draw):
                run.load(part, expected, "flipped or cut")
        with np.load(whole) as file:
            arrays = dict(file)
        expected = npflows.load(whole)
        for i in range(n // 12):
            part = with_edit(arrays, draw)
            old = i % 2
            np.savez(run.path, **(without_checksum(part) if old and _has_about(part) else part))
            run.load(None, None if old else expected, f"edited, {'without' if old else 'with'} a checksum")
        checkpoint(whole)
        finished = flow().fit(X, max_epochs=2, **SHORT)
        with np.load(whole) as file:
            arrays = dict(file)
        for i in range(n // 6):
            part = with_edit(arrays, draw)
            old = i % 2
            np.savez(run.path, **(without_checksum(part) if old and _has_about(part) else part))
            run.resume(None if old else finished, f"edited checkpoint, {'without' if old else 'with'} a checksum")
    total = sum(count for name, count in run.counts.items() if name != "FAILURES")
    print(f"{total:,} damaged files (seed {seed})")
    for name, count in sorted(run.counts.items()):
        print(f"  {count:8,} {name}")
    for failure in run.failures[:20]:
        print("  FAILED", failure)
    return len(run.failures)


def _has_about(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the description can still be read."""
    try:
        return isinstance(json.loads(str(arrays["about"])), dict)
    except (ValueError, KeyError):
        return False


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    failures = campaign(*(given or [3000]))
    print("failures:", failures)
    sys.exit(failures > 0)
