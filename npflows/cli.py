"""The command `npflows`: fit, score, sample and info for tables in files, and a demonstration."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from npflows import IAF, MAF, NeuralSplineFlow, NormalizingFlow, RealNVP, TrainingError, __version__, load
from npflows.engine.threads import get_num_threads, set_num_threads
from npflows.io import read_arrays, unpack
from npflows.kernels.activations import ACTIVATIONS
from npflows.tables import Table, TableError, check_writable, read_table, write_table

MODELS: dict[str, Callable[..., NormalizingFlow]] = {
    "maf": MAF,
    "spline": NeuralSplineFlow,
    "realnvp": RealNVP,
    "iaf": IAF,
}
DEPTH = {"maf": "num_layers", "spline": "num_layers", "realnvp": "num_coupling_layers", "iaf": "num_layers"}
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `npflows`.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 2 after an error, which is told in one line on standard error, 130 after Ctrl-C.
    """
    threads = None
    try:
        arguments = _parser().parse_args(argv)
        if arguments.threads is not None:
            threads = get_num_threads()
            set_num_threads(arguments.threads)
        with _plain_warnings():
            status = arguments.run(arguments)
            sys.stdout.flush()
            return status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        return _complain("interrupted; nothing was written", INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has enough of it, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        return _complain(str(error))
    except MemoryError as error:
        return _complain(f"out of memory ({error})")
    finally:
        if threads is not None:
            set_num_threads(threads)


def _complain(message: str, status: int = 2) -> int:
    lines = [line.strip() for line in message.splitlines()]
    print(f"npflows: {' '.join(lines[:1])} {'; '.join(lines[1:])}".rstrip(), file=sys.stderr)
    return status


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings meant for the user in one line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        show = warnings.showwarning

        def show_plainly(message: Any, category: type, *where: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                print(f"npflows: warning: {message}", file=sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_plainly
        yield


def _report(pairs: Sequence[tuple[str, object]]) -> None:
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}")


def _keep_inputs(output: str, *inputs: str) -> None:
    """Refuse an output that is one of the inputs."""
    for name in inputs:
        if os.path.exists(output) and os.path.exists(name) and os.path.samefile(output, name):
            raise TableError(f"{output} would overwrite the input {name}; choose another name for the output")


def _fit(a: argparse.Namespace) -> int:
    check_writable(a.output)
    _keep_inputs(a.output, a.table)
    table = read_table(a.table, a.columns)
    n, d = table.x.shape
    if not n:
        raise TableError(f"{a.table} has no rows")
    if not a.drop_invalid:
        _refuse_invalid(a.table, table)
    flow = MODELS[a.model](d, hidden_dims=a.hidden, activation=a.activation, base_distribution=a.base, dtype=a.dtype,
                           rng=a.seed, **({} if a.layers is None else {DEPTH[a.model]: a.layers}))  # fmt: skip
    flow.columns = table.columns
    started, status = time.perf_counter(), 0
    try:
        flow.fit(table.x, max_epochs=a.epochs, batch_size=a.batch_size, learning_rate=a.learning_rate, patience=a.patience,
                 weight_decay=a.weight_decay, validation_fraction=a.validation_fraction, max_seconds=a.max_seconds,
                 on_invalid="drop" if a.drop_invalid else "raise", rng=a.seed,
                 progress=False if a.quiet else "auto")  # fmt: skip
    except KeyboardInterrupt:
        if not flow.history:
            return _complain("interrupted before the first epoch was through; nothing was written", INTERRUPTED)
        status = INTERRUPTED
    except TrainingError as error:
        flow.save(a.output)
        raise TrainingError(f"{error} (the best so far is in {a.output})") from None
    seconds = time.perf_counter() - started
    flow.save(a.output)
    if status:
        _complain(f"interrupted after epoch {len(flow.history['epoch'])}; the best so far is in {a.output}", status)
    if not a.quiet:
        _report([
            ("rows", f"{n:,}"),
            ("columns", _names(flow)),
            ("model", f"{type(flow).__name__}, {flow.num_params:,} parameters, {flow.dtype.name}"),
            *_training(flow.history),
            ("time", f"{seconds:.1f} s"),
            ("file", a.output),
        ])  # fmt: skip
    return status


def _refuse_invalid(path: str, table: Table) -> None:
    """An error that names rows and columns with missing or infinite values, if there are any."""
    bad = ~np.isfinite(table.x)
    if not bad.any():
        return
    rows, columns = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
    names = [str(i) if table.columns is None else table.columns[i] for i in columns]
    shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    raise TableError(
        f"{path} has missing or infinite values in {len(rows):,} of {len(bad):,} rows (numbered from 0: {shown}), "
        f"columns {', '.join(names)}; clean them or pass --drop-invalid"
    )


def _names(flow: NormalizingFlow) -> str:
    return ", ".join(flow.columns) if flow.columns else f"{flow.input_dim}, without names"


def _training(history: dict[str, list[float]]) -> list[tuple[str, str]]:
    """What a fit reached, for a report."""
    if not history:
        return [("training", "none")]
    validated = math.isfinite(np.nanmin([*history["validation_loss"], math.inf]))
    losses = history["validation_loss" if validated else "train_loss"]
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
    kind = "held-out" if validated else "training"
    return [
        (f"{kind} log-likelihood", f"{-losses[best]:.4f} per row"),
        ("epochs", f"{len(losses)}, the best was {int(history['epoch'][best])}"),
    ]


def _score(a: argparse.Namespace) -> int:
    if a.output is not None:
        check_writable(a.output, table=True)
        _keep_inputs(a.output, a.flow, a.table)
    flow = load(a.flow)
    table = read_table(a.table, a.columns, expected=flow.columns)
    if table.x.shape[1] != flow.input_dim:
        raise TableError(
            f"{a.table} gives {table.x.shape[1]} columns, the flow takes {_names(flow)}; say which with --columns"
        )
    log_prob = flow.log_prob(table.x)
    if a.output is not None:
        write_table(a.output, log_prob, ["log_prob"])
    finite = log_prob[np.isfinite(log_prob)]
    which = "" if finite.size == log_prob.size else " (of the finite ones)"
    if not a.quiet:
        _report([
            ("rows", f"{len(log_prob):,}"),
            ("mean log_prob", f"{finite.mean():.4f}{which}" if finite.size else "-"),
            ("-inf", f"{int(np.isneginf(log_prob).sum()):,}"),
            ("NaN", f"{int(np.isnan(log_prob).sum()):,}"),
            *([] if a.output is None else [("file", a.output)]),
        ])  # fmt: skip
    return 0


def _sample(a: argparse.Namespace) -> int:
    check_writable(a.output, table=True)
    _keep_inputs(a.output, a.flow)
    flow = load(a.flow)
    x = flow.sample(a.n, rng=a.seed, temperature=a.temperature).reshape(a.n, flow.input_dim)
    n_bad = int((~np.isfinite(x)).any(axis=1).sum())
    if n_bad:
        warnings.warn(f"{n_bad:,} of {a.n:,} samples are not finite", UserWarning, stacklevel=1)
    write_table(a.output, x, flow.columns or [f"x{i}" for i in range(flow.input_dim)])
    if not a.quiet:
        _report([("rows", f"{a.n:,}"), ("columns", _names(flow)), ("file", a.output)])
    return 0


def _info(a: argparse.Namespace) -> int:
    arrays = read_arrays(a.flow)
    flow = unpack(arrays, a.flow)
    about = json.loads(str(arrays["about"]))
    loc, scale = flow.standardize.loc.tolist(), flow.standardize.scale.tolist()
    if a.json:
        history = {
            name: [value if math.isfinite(value) else None for value in values] for name, values in flow.history.items()
        }
        facts: dict[str, Any] = {
            "model": type(flow).__name__,
            "config": flow.arguments,
            "input_dim": flow.input_dim,
            "columns": flow.columns,
            "num_params": flow.num_params,
            "dtype": flow.dtype.name,
            "standardize": {"loc": loc, "scale": scale},
            "history": history,
            "format": about["format"],
            "npflows": about.get("npflows"),
        }
        print(json.dumps(facts, indent=2, default=str))
        return 0
    seconds = sum(flow.history.get("seconds", []))
    _report([
        ("model", f"{type(flow).__name__}, {flow.num_params:,} parameters, {flow.dtype.name}"),
        ("layers", f"{len(flow.flow_layers) - 1} of {type(flow.flow_layers[-1]).__name__}"),
        ("base", repr(flow.base)),
        ("columns", _names(flow)),
        *_training(flow.history),
        *([("training time", f"{seconds:.1f} s")] if flow.history else []),
        ("file", f"format {about['format']}, written by npflows {about.get('npflows', '?')}"),
    ])  # fmt: skip
    names = flow.columns or [str(i) for i in range(flow.input_dim)]
    width = max(map(len, [*names, "column"]))
    print(f"\n{'column':{width}}  {'location':>12}  {'scale':>12}")
    for name, *numbers in zip(names, loc, scale):
        print(f"{name:{width}}  " + "  ".join(f"{number:12.6g}" for number in numbers))
    return 0


def _demo(a: argparse.Namespace) -> int:
    from npflows.demo import demo

    demo(a.output, seed=a.seed, quick=a.quick)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _count(text: str) -> int:
    return _checked(text, int, lambda n: n >= 1, "a whole number of at least 1")


def _count_or_zero(text: str) -> int:
    return _checked(text, int, lambda n: n >= 0, "a whole number of at least 0")


def _positive(text: str) -> float:
    return _checked(text, float, lambda v: 0 < v < math.inf, "a number above 0")


def _positive_or_zero(text: str) -> float:
    return _checked(text, float, lambda v: 0 <= v < math.inf, "a number of at least 0")


def _fraction(text: str) -> float:
    return _checked(text, float, lambda v: 0 <= v < 1, "a number from 0 to below 1")


def _checked(text: str, kind: Callable[[str], Any], good: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not good(value):
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return value


def _widths(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _column_list(text: str) -> list[str]:
    """Names between commas; one with a comma stands in quotes."""
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not names or "" in names:
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, got {text!r}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="npflows", description="Normalizing flows for tables: exact densities, fast on the CPU.")
    parser.add_argument("--version", action="version", version=f"npflows {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    tables = "csv, tsv or txt with a header, npy, npz, parquet"

    def command(name: str, run: Callable, help: str, *, quiet: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run)
        sub.add_argument("--threads", type=_count, metavar="N", help="threads to use (default: all the CPUs it may use)")
        if quiet:
            sub.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")
        return sub

    fit = command("fit", _fit, "fit a flow to a table")
    fit.add_argument("table", help=tables)
    fit.add_argument("-o", "--output", required=True, metavar="FLOW.npz", help="the file to write the flow to")
    fit.add_argument("--columns", type=_column_list, metavar="A,B,...", help="names or numbers (from 0); else all")

    def option(name: str, help: str, default: object, **more: Any) -> None:
        fit.add_argument(name, help=f"{help} (default: %(default)s)", default=default, **more)

    option("--model", "kind of flow", "maf", choices=list(MODELS))
    fit.add_argument("--layers", type=_count, metavar="N", help="layers (default: 5; 8 for spline and realnvp)")
    option("--hidden", "units of the hidden layers", "128,128", type=_widths, metavar="N,N,...")
    option("--activation", "of the hidden layers", "relu", choices=list(ACTIVATIONS))
    option("--base", "latent distribution", "normal", choices=["normal", "student_t", "uniform"])
    option("--dtype", "precision to compute in", "float32", choices=["float32", "float64"])
    option("--epochs", "passes through the table at most", 100, type=_count, metavar="N")
    fit.add_argument("--max-seconds", type=_positive, metavar="S", help="stop after the epoch in which this time is up")
    option("--patience", "stop after N epochs without improvement", 20, type=_count, metavar="N")
    option("--batch-size", "rows of a step", 256, type=_count, metavar="N")
    option("--learning-rate", "Adam's, at its highest", 1e-3, type=_positive, metavar="R")
    option("--weight-decay", "decoupled weight decay", 0.0, type=_positive_or_zero, metavar="R")
    option("--validation-fraction", "share of rows held out", 0.1, type=_fraction, metavar="F")
    fit.add_argument("--drop-invalid", action="store_true", help="leave out rows with missing or infinite values")
    option("--seed", "same seed, same flow", 0, type=_count_or_zero, metavar="N")

    score = command("score", _score, "log-density of each row of a table under a flow")
    score.add_argument("flow", metavar="FLOW.npz")
    score.add_argument("table", help=tables)
    score.add_argument("-o", "--output", metavar="OUT", help="table to write log_prob to (csv, tsv, npy, npz, parquet)")
    score.add_argument("--columns", type=_column_list, metavar="A,B,...",
                       help="the flow's columns, by their names or numbers (from 0) in the table")  # fmt: skip

    sample = command("sample", _sample, "draw samples from a flow")
    sample.add_argument("flow", metavar="FLOW.npz")
    sample.add_argument("-n", type=_count_or_zero, required=True, metavar="N", help="how many")
    sample.add_argument("-o", "--output", required=True, metavar="OUT", help="csv, tsv, npy, npz, parquet")
    sample.add_argument("--seed", type=_count_or_zero, metavar="N", help="same seed, same samples")
    sample.add_argument("--temperature", type=_positive, default=1.0, metavar="T",
                        help="below 1: nearer the centre (default: %(default)s)")  # fmt: skip

    info = command("info", _info, "what a file holds", quiet=False)
    info.add_argument("flow", metavar="FLOW.npz")
    info.add_argument("--json", action="store_true", help="everything, for programs")

    demo = command("demo", _demo, "fit 20,000 galaxies, compare, and draw a picture of data and samples", quiet=False)
    demo.add_argument("-o", "--output", metavar="PICTURE", help="png, pdf or svg (default: npflows_demo.png)")
    demo.add_argument("--seed", type=_count_or_zero, default=0, metavar="N", help="same seed, same result (default: 0)")
    demo.add_argument("--quick", action="store_true", help="a few seconds of training only")
    return parser
