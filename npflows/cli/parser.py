"""The arguments of the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from npflows import __version__
from npflows.base import BASES
from npflows.cli import describing, using
from npflows.cli.converting import LIBRARIES, convert
from npflows.cli.embedding import declarations
from npflows.cli.exporting import export
from npflows.cli.fitting import fit
from npflows.cli.inputs import condition_values, missing_values, split_names
from npflows.cli.warming import warm_up
from npflows.core.operations import ACTIVATIONS
from npflows.export.tracing import WHAT
from npflows.files.tables import TableError
from npflows.models.table import MODELS, TABLE_MODELS

KINDS = ("corner", "training", "density", "latent", "calibration")


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
    names = split_names(text)
    if not names or "" in names:
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, got {text!r}")
    return names


def _columns_or_values(text: str) -> list[str] | dict[str, float]:
    try:
        return condition_values(text) if "=" in text else _column_list(text)
    except TableError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _missing(text: str) -> list[float | str] | dict[str, list[float | str]]:
    try:
        return missing_values(text)
    except TableError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _takes_condition(command: argparse.ArgumentParser) -> None:
    command.add_argument("--condition", type=_columns_or_values, metavar="A,B,...|NAME=VALUE,...",
                         help="columns of the table that are the condition, by names or numbers, where they can't be found "
                              "by the names that the flow has; or values for all rows")  # fmt: skip


def _takes_rows(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--where", metavar="CONDITION", help="the rows that are wanted, for instance 'z > 0 and abs(b) > 20'"
    )
    command.add_argument("--table", dest="table_name", metavar="NAME",
                         help="which table of a file that holds several: HDU, group, dataset, tree or array")  # fmt: skip


def _may_stream(command: argparse.ArgumentParser) -> None:
    command.add_argument("--stream", action="store_true",
                         help="read a table larger than memory in pieces: Parquet, Arrow, .npy, a folder")  # fmt: skip


def parser() -> argparse.ArgumentParser:
    whole = _Parser(prog="npflows", description="Normalizing flows for tables: exact densities, fast on the CPU.")
    whole.add_argument("--version", action="version", version=f"npflows {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    tables = "text (csv, white space, chains), npy, npz, Parquet, Arrow, FITS, VOTable, ECSV, HDF5, ROOT, FCS, bilby's JSON"
    written = "csv, tsv, npy, npz, parquet, arrow, fits, vot, ecsv, h5, root"

    def command(
        name: str, run: Callable, help: str, *, quiet: bool = True, on_device: bool = False
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run)
        sub.add_argument("--threads", type=_count, metavar="N", help="threads to use (default: all the CPUs it may use)")
        if on_device:
            sub.add_argument("--device", choices=["cpu", "cuda"], default="cpu",
                             help="where the flow runs; cuda needs an NVIDIA GPU (default: %(default)s)")  # fmt: skip
        if quiet:
            sub.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")
        return sub

    fitting = command("fit", fit, "fit a flow to a table", on_device=True)
    fitting.add_argument("table", help=tables)
    fitting.add_argument("-o", "--output", required=True, metavar="FLOW.npz", help="the file to write the flow to")
    fitting.add_argument(
        "--columns", type=_column_list, metavar="A,B,...", help="names or numbers (from 0); else all others"
    )
    fitting.add_argument("--condition", type=_column_list, metavar="A,B,...", help="columns that are the condition")
    weighting = fitting.add_mutually_exclusive_group()
    weighting.add_argument(
        "--weights", metavar="COLUMN", help="column of the rows' weights, not negative (default: those of a chain)"
    )
    weighting.add_argument("--log-weights", metavar="COLUMN", help="column of the logarithms of the rows' weights")
    weighting.add_argument("--no-weights", action="store_true", help="take no weights, where a chain has some")
    fitting.add_argument("--burn-in", type=_positive_or_zero, default=0.0, metavar="N",
                         help="steps of each chain to leave out first; below 1 their share (default: none)")  # fmt: skip
    _takes_rows(fitting)
    _may_stream(fitting)
    fitting.add_argument("--support", metavar="FILE.json",
                         help='where columns live: {"COLUMN": "positive", "COLUMN": {"kind": "periodic", "low": 0, '
                              '"high": 360}}; kinds: real, positive (lower), interval, periodic, integer (low, high)',
                         )  # fmt: skip

    def option(name: str, help: str, default: Any, **more: Any) -> None:
        fitting.add_argument(name, help=f"{help} (default: %(default)s)", default=default, **more)

    option("--model", "kind of flow", "maf", choices=list(TABLE_MODELS))
    fitting.add_argument("--layers", type=_count, metavar="N", help="layers (default: 5; 8 for spline and realnvp)")
    option("--hidden", "units of the hidden layers", "128,128", type=_widths, metavar="N,N,...")
    option("--activation", "of the hidden layers", "relu", choices=list(ACTIVATIONS))
    option("--base", "latent distribution", "normal", choices=list(BASES))
    option("--dtype", "precision to compute in", "float32", choices=["float32", "float64"])
    option("--epochs", "passes through the table at most", 100, type=_count, metavar="N")
    fitting.add_argument(
        "--max-seconds", type=_positive, metavar="S", help="time for the fit, in which the learning rate falls to 0"
    )
    option("--patience", "stop after N epochs without improvement", 15, type=_count, metavar="N")
    fitting.add_argument("--batch-size", type=_count, metavar="N",
                         help="rows of a step (default: a 200th of the rows, from 128 to 512)")  # fmt: skip
    option("--learning-rate", "Adam's, at its highest", 3e-3, type=_positive, metavar="R")
    option("--weight-decay", "decoupled weight decay", 0.0, type=_positive_or_zero, metavar="R")
    option("--validation-fraction", "share of rows held out", 0.1, type=_fraction, metavar="F")
    fitting.add_argument("--drop-invalid", action="store_true", help="leave out rows with empty fields, NaN or infinity")
    fitting.add_argument("--missing", type=_missing, metavar="V,V,...|COLUMN=V,...",
                         help="what stands for a missing entry, in all columns (99,nan) or in some (u=99,u=nan,z=-1), "
                              "those of the condition too; masked is a masked or empty entry, nan any NaN as well; write "
                              "--missing=-99 where it begins with a minus")  # fmt: skip
    fitting.add_argument("--on-missing", choices=["drop", "impute"], default="drop",
                         help="leave out rows with missing entries, or fill them from complete rows that are like them "
                              "(default: %(default)s)")  # fmt: skip
    option("--seed", "same seed, same flow", 0, type=_count_or_zero, metavar="N")
    fitting.add_argument("--ensemble", type=_count, metavar="N",
                         help="fit N flows, whose mixture is the density; score writes its spread too")  # fmt: skip
    fitting.add_argument("--bootstrap", action="store_true", help="fit each flow of an ensemble to rows drawn anew")

    score = command("score", using.score, "log-density of each row of a table under a flow", on_device=True)
    score.add_argument("flow", metavar="FLOW.npz")
    score.add_argument("table", help=tables)
    score.add_argument("-o", "--output", metavar="OUT", help=f"table to write log_prob to ({written})")
    score.add_argument("--columns", type=_column_list, metavar="A,B,...",
                       help="the flow's columns, by their names or numbers (from 0) in the table")  # fmt: skip
    _takes_condition(score)
    _takes_rows(score)
    _may_stream(score)
    score.add_argument("--dask", metavar="ADDRESS",
                       help="scheduler of a Dask cluster whose workers read and score the files: tcp://HOST:8786",
                       )  # fmt: skip

    sample = command("sample", using.sample, "draw samples from a flow", on_device=True)
    sample.add_argument("flow", metavar="FLOW.npz")
    sample.add_argument("-n", type=_count_or_zero, required=True, metavar="N", help="how many")
    sample.add_argument("-o", "--output", required=True, metavar="OUT", help=written)
    sample.add_argument("--seed", type=_count_or_zero, metavar="N", help="same seed, same samples")
    sample.add_argument("--temperature", type=_positive, default=1.0, metavar="T",
                        help="below 1: nearer the center (default: %(default)s)")  # fmt: skip
    sample.add_argument("--condition", metavar="FILE|NAME=VALUE,...",
                        help="a table of one condition, or of one for each sample; or values")  # fmt: skip

    info = command("info", describing.info, "what a file holds", quiet=False)
    info.add_argument("flow", metavar="FLOW.npz")
    info.add_argument("--json", action="store_true", help="everything, for programs")

    verify = command("verify", using.verify, "measure how exact a flow is; the exit status is 1 if a check fails",
                     on_device=True)  # fmt: skip
    verify.add_argument("flow", metavar="FLOW.npz")
    verify.add_argument("table", help=f"rows like those that it was fitted to; {tables}")
    verify.add_argument("--columns", type=_column_list, metavar="A,B,...", help="the flow's columns in the table")
    _takes_condition(verify)
    _takes_rows(verify)
    verify.add_argument("--rows", type=_count, default=2000, metavar="N", help="rows used at most (default: %(default)s)")
    verify.add_argument("--seed", type=_count_or_zero, default=0, metavar="N", help="chooses them (default: %(default)s)")
    verify.add_argument("--json", action="store_true", help="the report for programs")

    plot = command("plot", using.plot, "draw a flow, beside data perhaps")
    plot.add_argument("flow", metavar="FLOW.npz")
    plot.add_argument("table", nargs="?", metavar="TABLE", help=f"data; {tables}")
    plot.add_argument("-o", "--output", required=True, metavar="PICTURE", help="png, pdf or svg")
    plot.add_argument("--kind", choices=KINDS, default="corner",
                      help="all columns and pairs of them; the course of the training; the density of one or two columns; "
                           "latent values; the coverage of regions (default: %(default)s)")  # fmt: skip
    plot.add_argument("--columns", type=_column_list, metavar="A,B,...", help="the flow's columns in the table")
    _takes_condition(plot)
    _takes_rows(plot)
    plot.add_argument("--weights", metavar="COLUMN", help="column of the rows' weights, not negative")
    plot.add_argument("-n", type=_count, metavar="N", help="samples to draw (default: as many as rows, 20,000 at most)")
    plot.add_argument("--seed", type=_count_or_zero, default=0, metavar="N", help="draws them (default: %(default)s)")

    warming = command("warmup", warm_up, "compile the kernels ahead, for containers for instance")
    warming.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)} (default: all)")
    warming.add_argument("--dtype", default="float32", choices=["float32", "float64"], help="precision to compute in")
    warming.add_argument("--target", metavar="LEVEL",
                         help="for all CPUs of x86-64-v4, x86-64-v3 or armv8-a (default: for this one)")  # fmt: skip
    warming.add_argument("--into", metavar="DIRECTORY", help="put kernels there (default: where npflows looks for them)")

    embedding = command("embed", declarations, "declarations of embedded densities for C, C++ and Fortran")
    language = embedding.add_mutually_exclusive_group(required=True)
    language.add_argument(
        "--header", dest="language", action="store_const", const="header", help="the C header, for C++ too"
    )
    language.add_argument("--fortran", dest="language", action="store_const", const="fortran", help="the Fortran module")
    embedding.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: print it)")

    converting = command("convert", convert, "take over a flow that another library trained")
    converting.add_argument("library", choices=list(LIBRARIES), help="the library whose file it is")
    converting.add_argument("file", metavar="FILE", help="a state dict: torch.save(model.state_dict(), FILE)")
    converting.add_argument("--architecture", metavar="FILE.json",
                            help='what the file does not tell: {"activation": "tanh", "tail_bound": 3.0}')  # fmt: skip
    converting.add_argument("-o", "--output", required=True, metavar="FLOW.npz", help="the file to write the flow to")

    exporting = command("export", export, "write a flow as a C99 file, or as an ONNX model")
    exporting.add_argument("flow", metavar="FLOW.npz")
    exporting.add_argument("-o", "--output", required=True, metavar="OUT", help="a name that ends with .c or .onnx")
    exporting.add_argument("--what", choices=WHAT, help="what an ONNX model computes (default: log_prob); C has all")
    exporting.add_argument("--prefix", metavar="NAME", help="what the names of C functions begin with (default: flow)")

    demo = command("demo", using.demo, "fit 20,000 galaxies, compare, and draw a picture of data and samples", quiet=False)
    demo.add_argument("-o", "--output", metavar="PICTURE", help="png, pdf or svg (default: npflows_demo.png)")
    demo.add_argument("--seed", type=_count_or_zero, default=0, metavar="N", help="same seed, same result (default: 0)")
    demo.add_argument("--quick", action="store_true", help="a few seconds of training only")
    return whole
