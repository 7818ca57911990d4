"""The tables of a race: what each sampler took and found with its own flow and with npflows.

python benchmarks/hosts/report.py hosts.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

COSTLY = 1e-3
"""Seconds that a likelihood takes in the second table."""


def mean(runs: list[dict], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


HEADINGS = ("host, problem", "flow", "seeds", "s of CPU", "of these the flow", "ratio", "iterations", "likelihoods",
            "log Z off: mean", "its scatter", "error that the host states")  # fmt: skip


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    runs = defaultdict(list)
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        run["flow_seconds"] = sum(run["flow_cpu"].values())
        runs[run["host"], run["problem"], run["flow"]].append(run)
    print(row(*HEADINGS), row(*["---"] * len(HEADINGS)), sep="\n")
    for host, problem, flow in sorted(runs, key=lambda key: (*key[:2], key[2] != "own")):
        found, own = runs[host, problem, flow], runs.get((host, problem, "own"))
        seconds, off = mean(found, "cpu"), [run["off"] for run in found]
        print(row(
            f"{host}, {problem}",
            flow,
            str(len(found)),
            f"{seconds:.1f}",
            f"{mean(found, 'flow_seconds') / seconds:.0%}",
            f"{mean(own, 'cpu') / seconds:.1f}" if own and flow != "own" else "",
            f"{mean(found, 'iterations'):,.0f}",
            f"{mean(found, 'likelihoods'):,.0f}",
            f"{np.mean(off):+.3f}",
            f"{np.std(off, ddof=1):.3f}" if len(off) > 1 else "one run",
            f"{mean(found, 'error'):.3f}",
        ))  # fmt: skip
    print("\n| host, problem | own flow, s | npflows, s | ratio | likelihood's share with npflows |")
    print("| --- | --- | --- | --- | --- |")
    for host, problem in sorted({key[:2] for key in runs}):
        own, ours = runs.get((host, problem, "own")), runs.get((host, problem, "npflows"))
        if own and ours:
            spent = [COSTLY * mean(found, "likelihoods") for found in (own, ours)]
            total = [mean(found, "cpu") + s for found, s in zip((own, ours), spent)]
            print(f"| {host}, {problem} | {total[0]:.0f} | {total[1]:.0f} | {total[0] / total[1]:.1f} | "
                  f"{spent[1] / total[1]:.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
