"""pocoMC and nessai on every problem, with their own flow and with npflows, one run after the other, each in its process.

Runs that the file has already are not made again, so that an interrupted race goes on.  The environment needs pocomc,
nessai and npflows.

    python benchmarks/hosts/race.py hosts.jsonl [--host pocomc] [--problem shell4] [--seeds 0 1 2]
    python benchmarks/hosts/report.py hosts.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path

from one_run import FLOWS, HOSTS
from problems import PROBLEMS

ONE_RUN = Path(__file__).with_name("one_run.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--host", nargs="+", default=list(HOSTS), choices=HOSTS)
    parser.add_argument("--flow", nargs="+", default=list(FLOWS), choices=FLOWS)
    parser.add_argument("--problem", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    given = parser.parse_args()
    lines = given.file.read_text(encoding="utf-8").splitlines() if given.file.exists() else []
    done = {tuple(json.loads(line)[key] for key in ("host", "flow", "problem", "seed")) for line in lines}
    for seed, problem, host, flow in itertools.product(given.seeds, given.problem, given.host, given.flow):
        if (host, flow, problem, seed) in done:
            continue
        command = [sys.executable, str(ONE_RUN), host, flow, problem, "--seed", str(seed)]
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if found.returncode:
            print(f"{host} with {flow} on {problem}, seed {seed}: failed", file=sys.stderr)
            continue
        with given.file.open("a", encoding="utf-8") as file:
            file.write(found.stdout.splitlines()[-1] + "\n")


if __name__ == "__main__":
    main()
