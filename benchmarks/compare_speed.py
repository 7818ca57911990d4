"""Whether this tree is as fast as another commit: every row of speed_table.py, both trees in one interleaved run.

    python benchmarks/compare_speed.py COMMIT [--rounds N] [--only WORD]

checks the commit out into a temporary worktree.  Each tree runs its own speed_table.py in its own process with its own
kernel cache, which is empty at first.  The processes take turns, piece of work by piece of work, in the order A B B A, so
that drift of the machine meets both alike.  Printed is a Markdown table: medians of both trees, and the median and the
quartiles of their ratio round by round; then the rows whose ratio is beyond 3 %.  The exit status is 1 if this tree is the
slower one in any of them.  Rows of fresh processes, the empty cache among them, have a fifth of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 0.03
Found = dict[str, tuple[str, list[float]]]
"""Unit and values of each row."""


class Tree:
    """A process that runs a tree's speed_table.py and waits for its turn before each piece of work."""

    def __init__(self, root: Path, cache: str, rounds: int, word: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [sys.executable, __file__, "--serve", str(root), str(rounds), word]
        self.process = subprocess.Popen(command, env={**environment, "NUMBA_CACHE_DIR": cache}, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        self.work: list[str] = self.read()

    def read(self) -> Any:
        """The next line that the process prints."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise SystemExit(f"{self.process.args} ended with status {self.process.wait()}")

    def ask(self, what: str) -> Any:
        """Give the process its turn, and return its answer."""
        assert self.process.stdin is not None
        print(what, file=self.process.stdin, flush=True)
        return self.read()


def serve(root: str, rounds: str, word: str) -> None:
    """Run the speed_table.py of the tree at `root`, piece of work by piece of work, as the lines of the input say."""
    sys.path[0] = root
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else is printed
    import npflows
    from benchmarks import speed_table

    assert Path(npflows.__file__).is_relative_to(root), npflows.__file__
    npflows.set_num_threads(speed_table.THREADS)
    interleaved = speed_table.interleaved

    def in_turns(work: Mapping[Any, Any], rounds: int, at_least: float) -> dict[Any, np.ndarray]:
        """`interleaved`, where the input says whose turn it is; what is not asked for stays NaN."""
        names, done = {str(name): name for name in work}, dict.fromkeys(work, 0)
        seconds = {name: np.full(rounds, np.nan) for name in work}
        print(json.dumps([name for name in names if word in name]), file=say)
        while (line := sys.stdin.readline().rstrip("\n")) != "rows":
            name = names[line]
            seconds[name][done[name]] = interleaved({name: work[name]}, 1, at_least)[name][0]
            done[name] += 1
            print("null", file=say)
        return seconds

    speed_table.interleaved = in_turns
    speed_table.in_unit = lambda value, unit: ""  # of what was not asked for there is no number to show
    rows, _, _ = speed_table.in_this_process(int(rounds), 0.05)
    measured = {row.work: (row.unit, row.values.tolist()) for row in rows if np.isfinite(row.values).all()}
    print(json.dumps(measured), file=say)
    while sys.stdin.readline():
        fresh = {row.work: (row.unit, row.values.tolist()) for row in speed_table.in_own_processes(1, 1)}
        print(json.dumps(fresh), file=say)


def measure(trees: list[Tree], rounds: int, fresh_rounds: int) -> list[Found]:
    """The rows of each tree, from turns that alternate."""
    names = dict.fromkeys(name for tree in trees for name in tree.work)
    for i in range(rounds):
        for j, name in enumerate(names):
            for tree in trees if (i + j) % 2 == 0 else reversed(trees):
                if name in tree.work:
                    tree.ask(name)
    found = [tree.ask("rows") for tree in trees]
    for tree in trees if fresh_rounds else []:
        tree.ask("fresh")  # files are read from disk, bytecode is written
    for i in range(fresh_rounds):
        for tree, rows in list(zip(trees, found))[:: 1 if i % 2 == 0 else -1]:
            for row, (unit, values) in tree.ask("fresh").items():
                rows.setdefault(row, (unit, []))[1].extend(values)
    return found


def report(this: Found, other: Found, commit: str) -> int:
    """Print the table and what is beyond the limit; the number of rows where this tree is the slower one."""
    from benchmarks.speed_table import in_unit, table

    lines, slower, faster, alone = [], [], [], sorted(this.keys() ^ other.keys())
    for row in (row for row in this if row in other):
        unit, (a, b) = this[row][0], (np.array(found[row][1]) for found in (this, other))
        low, ratio, high = np.percentile(a / b, [25, 50, 75])
        lines.append([row, *(in_unit(float(np.median(values)), unit) for values in (a, b)), f"{ratio:.3f}",
                      f"{low:.3f} to {high:.3f}"])  # fmt: skip
        (slower if ratio > 1 else faster).extend([row] if abs(ratio - 1) > LIMIT else [])
    print(table(["row", "this", commit, "ratio", "quartiles"], lines))
    for what, rows in ((f"over {LIMIT:.0%} more", slower), (f"over {LIMIT:.0%} less", faster), ("in one tree only", alone)):
        print(f"\n{what}: {len(rows)} rows", *rows, sep="\n- ")
    return len(slower)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what to compare with, for example HEAD~1")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", metavar="WORD", default="", help="work whose name has the word, such as 'train step MAF' "
                        "or 'one row'; no rows of fresh processes")  # fmt: skip
    given = parser.parse_args()
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        other = Path(folder).resolve() / "tree"
        subprocess.run([*git, "add", "--detach", "--quiet", str(other), given.commit], check=True)
        stack.callback(subprocess.run, [*git, "remove", "--force", str(other)], check=True)
        trees = []
        for name, root in (("this", ROOT), ("other", other)):
            trees.append(Tree(root, str(Path(folder, name)), given.rounds, given.only))
            stack.callback(trees[-1].process.wait)
            stack.callback(trees[-1].process.stdin.close)
        found = measure(trees, given.rounds, 0 if given.only else max(3, given.rounds // 5))
    sys.path[0] = str(ROOT)
    sys.exit(report(*found, given.commit) > 0)


if __name__ == "__main__":
    serve(*sys.argv[2:]) if sys.argv[1:2] == ["--serve"] else main()
