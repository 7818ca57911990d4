"""Write what the races found into the tables of RESULTS.md, and draw it.

    python benchmarks/peers/report.py RESULTS.json [--held HELD.json] [--results benchmarks/RESULTS.md]
                                      [--plot docs/images/speed.png]

Each section of RESULTS.md that this file knows is replaced as a whole.  HELD.json is of a race with --held: its ratios
stand beside the others'.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from benchmarks.peers import store, tasks
from benchmarks.peers.contenders import OWN, PEERS

RACES, GLOW = "Beside nflows, zuko, normflows and flowjax", "Glow beside normflows"
HELD = "Beside the same, held to vectors of 256 bits"
Found = dict[str, Any]


def ratios(task: Found) -> np.ndarray:
    """How many times faster than the fastest peer npflows was, in each round.

    The fastest is that of the lowest median.  A peer that was called once counts with that in every round.
    """
    seconds = {name: np.array(values) for name, values in task["seconds"].items()}
    fastest = min((name for name in seconds if name != OWN), key=lambda name: np.median(seconds[name]))
    return np.broadcast_to(seconds[fastest], seconds[OWN].shape) / seconds[OWN]


def races_to(curves: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """For each peer, its seconds to its last log-likelihood over npflows' to the same, one ratio for each round; NaN where
    npflows did not get there."""
    found: dict[str, list[float]] = {}
    for curve in curves:
        reached, seconds = np.array(curve[OWN]["reached"]), np.array(curve[OWN]["seconds"])
        for name in PEERS:
            there = np.flatnonzero(reached >= curve[name]["reached"][-1])
            own = seconds[there[0]] if len(there) else np.nan
            found.setdefault(name, []).append(curve[name]["seconds"][-1] / own)
    return {name: np.array(values) for name, values in found.items()}


def in_unit(seconds: float) -> str:
    """Seconds for people."""
    factor, unit = next(((f, u) for f, u in ((1, "s"), (1e3, "ms")) if seconds * f >= 1), (1e6, "us"))
    value = seconds * factor
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(max(value, 1e-3)))))}f} {unit}"


def times(values: np.ndarray, spread: bool = True) -> str:
    """A ratio, with its quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    text = f"{middle:.{1 if middle < 100 else 0}f}"
    return f"{text} ({low:.3g} to {high:.3g})" if spread and len(values) > 1 else text


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def task_of(found: Found) -> tasks.Task:
    return tasks.Task(*(found[name] for name in tasks.Task._fields))


def in_order(done: dict[str, Found]) -> list[Found]:
    """All findings in the order of tasks.py, in whatever order they were made."""
    order = {task: i for i, task in enumerate(tasks.TASKS)}
    return sorted(done.values(), key=lambda found: order.get(task_of(found), len(order)))


def speeds(done: dict[str, Found]) -> str:
    """The table of times."""
    rows = []
    for found in in_order(done):
        task, ratio = task_of(found), ratios(found)
        aim = tasks.aim(task)
        verdict = "" if aim is None else f"{aim:g}" if np.median(ratio) >= aim else f"**{aim:g}, missed**"
        middle = [
            in_unit(float(np.median(found["seconds"][name]))) if name in found["seconds"] else "fails"
            for name in (OWN, *PEERS)
        ]
        rows.append([str(task), *middle, times(ratio), verdict])
    return table(["work", OWN, *PEERS, "fastest peer / npflows", "aim"], rows)


def held_section(found: Found, held: Found) -> str:
    """The races with vectors of 256 bits, and their ratios beside those of the whole CPU."""
    rows = []
    for one in in_order(held["tasks"]):
        task, whole = task_of(one), found.get("tasks", {}).get(str(task_of(one)))
        middle = [
            in_unit(float(np.median(one["seconds"][name]))) if name in one["seconds"] else "fails" for name in (OWN, *PEERS)
        ]
        rows.append([str(task), *middle, times(ratios(one)), "" if whole is None else times(ratios(whole))])
    conditions = held["conditions"]
    rates = [[name, *(f"{rate:.0f}" for rate in held["rates"][name])] for name in (OWN, *PEERS)]
    return "\n\n".join(
        [
            f"""`python benchmarks/peers/race.py ENVIRONMENTS HELD.json --held`, then
`python benchmarks/peers/report.py RESULTS.json --held HELD.json`. Medians of {conditions["rounds"]} rounds, as above; the
last column has the ratios of the same work on the same CPU with vectors of all its bits.

{conditions["date"]}. {conditions["machine"]}""",
            table(["work", OWN, *PEERS, "fastest peer / npflows, 256 bits", "with vectors of all bits"], rows),
            """GFLOP/s of a product of 512x512 matrices, on one thread in npflows and on all in the others: whether each
obeys:""",
            table(["", "held to 256 bits", "as it is"], rates),
        ]
    )


def counts(done: dict[str, Found]) -> str:
    """The table of parameters; all peers that say the same stand in one column."""
    rows, seen = [], set()
    for found in in_order(done):
        key = found["model"], found["size"]
        if key not in seen:
            seen.add(key)
            cells = [f"{found['built'][name]['used']:,} of {found['built'][name]['stored']:,}" for name in (OWN, *PEERS)]
            rows.append([", ".join(key), *cells])
    return table(["parameters used, of those stored", OWN, *PEERS], rows)


def agreement(done: dict[str, Found]) -> str:
    """The table of carry.py."""
    rows = []
    for key, found in done.items():
        if key.endswith("float32") and (exact := done.get(key.replace("float32", "float64"))):
            cells = [
                f"{differences[name]:.0e}"
                for name in ("log_prob", "inverse")
                for differences in (exact["between"], found["between"], found["npflows"], found["peer"])
            ]
            rows.append([key.removesuffix(", float32"), *cells])
    columns = ["float64", "float32", "npflows, float32", "peer, float32"]
    return table(["", *(f"{name}: {column}" for name in ("log_prob", "inverse") for column in columns)], rows)


def galaxies(done: dict[str, Found]) -> str:
    """The table of the races to a log-likelihood."""
    rows = []
    for model, found in done.items():
        ratio = races_to(found["curves"])
        for name in PEERS:
            ends = np.array([[c[name]["seconds"][-1], c[name]["reached"][-1] + found["units"]] for c in found["curves"]])
            seconds, reached = np.median(ends, axis=0)
            rows.append([f"{model}, {name}", f"{reached:.3f}", in_unit(seconds), in_unit(seconds / np.median(ratio[name])),
                         times(ratio[name])])  # fmt: skip
    head = ["model, peer", "its held-out log-likelihood", "its training", "npflows' to the same", "ratio"]
    return table(head, rows)


def races_section(found: Found) -> str:
    conditions, done = found["conditions"], found["tasks"]
    versions: dict[str, str] = {}
    for one in next(iter(done.values()))["built"].values():
        versions |= one["versions"]
    said = ", ".join(f"{name} {number}" for name, number in versions.items() if name != OWN)
    threads = conditions["threads"]
    parts = [
        f"""`python benchmarks/peers/race.py ENVIRONMENTS RESULTS.json`, then
`python benchmarks/peers/report.py RESULTS.json`; `python benchmarks/peers/make_environments.py ENVIRONMENTS` before, once.
Medians of {conditions["rounds"]} rounds, in which every contender takes its turn in a process of its own; the ratio is that
of each round to the peer with the lowest median, with its quartiles; above 1 npflows is faster. float32.

{conditions["date"]}. {conditions["machine"]}; {said}

All may use {threads} CPUs: `torch.set_num_threads({threads})`, `npflows.set_num_threads({threads})`, and JAX makes as many
threads as the process may use CPUs; no XLA flags are set. PyTorch has its fused Adam, gradients set to None and no gradient
outside training; torch.compile is used where it says so (compiling takes most of a minute). Everything of JAX is compiled
before, and waited for with block_until_ready. A train step is the gather of a batch's rows, the mean negative
log-likelihood, its gradient and Adam, without clipping. Peers get their own arrays; npflows gets NumPy's.""",
        speeds(done),
        """MAF has 5 layers, RealNVP 8 with alternating halves, the splines 8 bins and 8 layers (coupling) or 5. The linear
layers between splines that npflows' `NeuralSplineFlow` has are left out, as not all have them. All networks have ReLU and
plain layers. flowjax has random permutations between layers, and the slopes at the ends of its splines are fixed at 1 here,
as the others' are. Scales of affine layers are each library's own: npflows' is the exponential of a tanh with a learned
gain, one parameter more for a value, where nflows has a softplus (MAF) or a sigmoid (RealNVP), flowjax a softplus, zuko the
exponential of a soft clip, and normflows a sigmoid (MAF) or an exponential (RealNVP).""",
        counts(done),
    ]
    if found.get("memory"):
        best = min(found["memory"][name] for name in PEERS)
        parts += [
            f"""Memory of a train step of {tasks.MEMORY_BATCH:,} rows, MAF, {tasks.LARGE}, in fresh processes: the peak of
the second step above what there was before the first. The least of a peer's is {best / found["memory"][OWN]:.1f} times
npflows' (aim: 10).""",
            table([OWN, *PEERS], [[f"{found['memory'][name]:,.0f} MB" for name in (OWN, *PEERS)]]),
        ]
    if found.get("galaxies"):
        options = next(iter(found["galaxies"].values()))
        parts += [
            f"""The time to a log-likelihood on the galaxies that come with npflows: each peer trains for
{options["epochs"]} epochs of 18,000 rows in batches of {options["batch"]} (networks of 64x64, Adam at 1e-3), and then
npflows with the same recipe until its log-likelihood of the 2,000 held-out rows is the peer's. It is looked at four times
an epoch; looking is not counted, nor is compiling.""",
            galaxies(found["galaxies"]),
        ]
    if found.get("agreement"):
        parts += [
            """Before any timing: the same weights give the same numbers. A peer's weights are put into npflows' layers,
with the peer's own scale in affine ones, and log_prob and the inverse are compared on 512 rows. Largest differences,
relative to the larger of 1 and the value: between the two in float64 (wanted: 1e-10) and in float32 (1e-5), and of each in
float32 from npflows in float64.""",
            agreement(found["agreement"]),
        ]
    return "\n\n".join(parts)


def glow_section(found: Found) -> str:
    glow = found["glow"]
    contenders = glow["contenders"]
    rows = []
    for name, one in contenders.items():
        low, middle, high = one["step"]
        rows.append([name, f"{one['parameters']:,}", f"{in_unit(middle)} ({in_unit(low)} to {in_unit(high)})",
                     f"{one['bits_per_dim']:.3f}", f"{one['memory']:.0f} MB"])  # fmt: skip
    found_versions = {name: number for one in contenders.values() for name, number in one["versions"].items()}
    versions = ", ".join(f"{name} {number}" for name, number in found_versions.items() if name != "npflows")
    return "\n\n".join(
        [
            f"""`python benchmarks/peers/glow_race.py ENVIRONMENTS RESULTS.json --images FOLDER`, then
`python benchmarks/peers/report.py RESULTS.json`. {glow["scales"]} scales of {glow["blocks"]} blocks, width {glow["width"]},
{glow["size"]} x {glow["size"]} x 1, {glow["steps"]:,} steps of Adam in batches of {glow["batch"]}; its rate falls
from 1e-3 to 0 along half a cosine; trained in turns of 20 steps; data: {glow["data"]}. bits/dim of {glow["held_out"]:,}
held-out images, padding included; memory is the peak above imports and images.

{glow["date"]}. {glow["machine"]}; {versions}""",
            table(["", "parameters", "a step (quartiles)", "held-out bits/dim", "memory"], rows),
        ]
    )


def replace_section(text: str, title: str, body: str, before: str) -> str:
    """The text with the section of that title as given; a new one comes before the section `before`, or last."""
    whole = f"## {title}\n\n{body.strip()}\n\n"
    start = text.find(f"## {title}\n")
    if start < 0:
        start = end = text.find(f"## {before}\n") if f"## {before}\n" in text else len(text)
    else:
        following = text.find("\n## ", start)
        end = len(text) if following < 0 else following + 1
    return (text[:start].rstrip("\n") + "\n\n" + whole + text[end:]).rstrip("\n") + "\n"


SHADES = {1: "#f2a65a", 256: "#d9480f", 4096: "#7c2d12"}
GRAY = "#8a94a3"


def draw(found: Found, held: Found, path: Path) -> None:
    """Ratios to the fastest peer, a row for each work, model and size, a dot for each batch, a ring with 256 bits."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    lines: dict[str, list[tuple[int, np.ndarray, bool]]] = {}
    starts = []
    for work, group in (
        (tasks.LOG_PROB, "log_prob"),
        (tasks.TRAIN, "train step"),
        (tasks.COMPILED, "torch.compile"),
        (tasks.SAMPLE, "sampling"),
    ):
        starts.append(len(lines))
        for of, is_held in ((found, False), (held, True)):
            for one in in_order(of.get("tasks", {})):
                if one["work"] == work:
                    label = f"{group}: {one['model']}, {one['size']}"
                    lines.setdefault(label, []).append((one["batch"], ratios(one), is_held))
    figure = Figure(
        figsize=(8.6, 1.3 + (0.36 if held else 0.27) * (len(lines) + len(found.get("galaxies", {})))),
        dpi=150,
        layout="constrained",
    )
    ax = figure.subplots()
    for row, values in enumerate(lines.values()):
        for batch, ratio, is_held in values:
            low, middle, high = np.percentile(ratio, [25, 50, 75])
            y = row + (0.0 if not held else 0.17 if is_held else -0.17)
            face = "white" if is_held else SHADES[batch]
            ax.plot([low, high], [y, y], color=SHADES[batch], linewidth=1.4, solid_capstyle="round", zorder=2)
            ax.plot(middle, y, "o", color=SHADES[batch], markerfacecolor=face, markersize=6, zorder=3)
    labels = list(lines)
    starts.append(len(labels))
    for model, one in found.get("galaxies", {}).items():
        ratio = min(races_to(one["curves"]).values(), key=np.median)
        ax.plot(np.median(ratio), len(labels), "D", color="#3c4654", markersize=6, zorder=3)
        labels.append(f"time to the same fit: {model}, galaxies")
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="#dfe3e8", linewidth=0.8)
    for batch, color in SHADES.items():
        ax.plot([], [], "o", color=color, markersize=6.5, label=f"{batch} row{'s' if batch > 1 else ''}")
    if held:
        ax.plot([], [], "o", color=GRAY, markerfacecolor="white", markersize=6, label="vectors of 256 bits")
    ax.axvline(1, color=GRAY, linewidth=1.2)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.8), max(high, 12))
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks)
    ax.minorticks_off()
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    ax.set_yticks(range(len(labels)), labels, fontsize=9.5)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#eceff3", zorder=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(SHADES) + bool(held), fontsize=9.5, frameon=False)
    threads = found["conditions"]["threads"]
    figure.suptitle(
        f"How many times faster npflows is than the fastest of {', '.join(PEERS[:-1])} and {PEERS[-1]}\n"
        f"{threads} CPU{'s' if threads > 1 else ''}, float32; medians of rounds, lines between their quartiles",
        fontsize=10.5, x=0.01, ha="left",
    )  # fmt: skip
    figure.savefig(path)


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("found", type=Path, help="the JSON file that the races added to")
    parser.add_argument("--held", type=Path, help="the JSON file of a race with --held")
    parser.add_argument("--results", type=Path, default=root / "benchmarks" / "RESULTS.md")
    parser.add_argument("--plot", type=Path, default=root / "docs" / "images" / "speed.png")
    given = parser.parse_args()
    held = store.read(given.held) if given.held is not None else {}
    write(store.read(given.found), held, given.results, given.plot)


def write(found: Found, held: Found, results: Path, plot: Path) -> None:
    """Replace the sections that there is something for, and draw the picture."""
    text = results.read_text()
    if found.get("tasks"):
        text = replace_section(text, RACES, races_section(found), "Galaxies")
        draw(found, held, plot)
    if held.get("tasks"):
        text = replace_section(text, HELD, held_section(found, held), "Galaxies")
    if found.get("glow"):
        text = replace_section(text, GLOW, glow_section(found), "Galaxies")
    results.write_text(text)


if __name__ == "__main__":
    main()
