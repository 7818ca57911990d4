"""Writes the bits that every entry of the test registry, and every golden flow, computes to one file.

    python tests/pins.py FILE.npz [--tree FOLDER] [--only WORD]

What is written depends on the tree's own registry, its golden files and the public interface of its npflows alone, so that
this script also works on other commits, whatever their files are called.  Everything is computed with one thread and with
two, which must give the same bits.  `compare_bits.py` compares two trees.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 150
"""More than a block of samples, so that two threads share the work."""
STEP = 50
"""Rows of a train step: the epoch has three steps."""
DTYPES = ("float32", "float64")

Values = dict[str, np.ndarray]


def load_registry(tree: Path) -> Any:
    """The module under `tests` that defines LAYERS and MODELS, with that tree's npflows."""
    tests = tree / "tests"
    for file in sorted(tests.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if all(re.search(rf"^{table}\b[^=\n]*= ", text, re.MULTILINE) for table in ("LAYERS", "MODELS")):
            break
    else:
        raise SystemExit(f"no file under {tests} defines LAYERS and MODELS")
    sys.path[0] = str(tree)  # in place of the folder of this script
    sys.path[1:1] = list(dict.fromkeys([str(file.parent), str(tests)]))
    if (file.parent / "__init__.py").exists():
        return importlib.import_module(".".join(file.relative_to(tree).with_suffix("").parts))
    return importlib.import_module(file.stem)


def randomize(obj: Any) -> Any:
    """Give parameters, and the location and scale of a condition, values that are nowhere the default."""
    rng = np.random.default_rng(2)
    obj.params = np.clip(obj.params, -1.6, 1.6) + 0.2 * rng.normal(size=obj.num_params)
    if obj.condition_dim and hasattr(obj, "standardize_condition"):
        loc, spread = 0.3 * rng.normal(size=(2, obj.condition_dim))
        obj.standardize_condition(loc, np.exp(spread))
    return obj


def cotangents(result: Any) -> Values:
    """The gradients that a vjp gives; without a condition there is none of it."""
    return {name: value for name, value in zip(("dx", "dparams", "dcondition"), result) if value is not None}


def named(prefix: str, values: Any, names: tuple[str, ...] = ()) -> Values:
    """Values with the name of what gave them."""
    pairs = values.items() if isinstance(values, dict) else zip(names, values)
    return {f"{prefix}: {name}": np.asarray(value) for name, value in pairs}


def both_directions(obj: Any, x: np.ndarray, z: np.ndarray, condition: np.ndarray | None) -> Values:
    """forward, inverse and their vjps, of all rows and of one."""
    rng = np.random.default_rng(6)
    dy, dlog = rng.normal(size=(ROWS, obj.input_dim)), rng.normal(size=ROWS)
    values = {}
    for direction, start in (("forward", x), ("inverse", z)):
        run, vjp = getattr(obj, direction), getattr(obj, f"{direction}_vjp")
        values |= named(direction, run(start, condition), ("result", "log_det"))
        values |= named(f"{direction}_vjp", cotangents(vjp(start, dy, dlog, condition)))
        one = None if condition is None else condition[:1]
        values |= named(f"{direction}, one row", run(start[:1], one), ("result", "log_det"))
        values |= named(f"{direction}_vjp, one row", cotangents(vjp(start[:1], dy[:1], dlog[:1], one)))
    return values


def of_layer(make: Callable[[], Any]) -> Values:
    """All values that a layer computes."""
    layer = make()
    rng = np.random.default_rng(5)
    x, z = rng.normal(size=(2, ROWS, layer.input_dim))
    condition = rng.normal(size=(ROWS, layer.condition_dim)) if layer.condition_dim else None
    values = {"first parameters": layer.params}
    if layer.initialized is not None:
        layer.initialize(x, condition=condition)
        values["parameters after initialize"] = layer.params
    return values | both_directions(randomize(layer), x, z, condition)


def target(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A normal density to fit to, and its gradient."""
    away = x - 0.5
    return -0.5 * (away**2).reshape(len(x), -1).sum(axis=1), -away


def densities(flow: Any, x: np.ndarray, condition: np.ndarray | None) -> Values:
    """The density and its gradients, of all rows and of one."""
    one = None if condition is None else condition[:1]
    values = {"log_prob": flow.log_prob(x, condition), "log_prob, one row": flow.log_prob(x[:1], one)}
    values |= named("log_prob_and_grad", flow.log_prob_and_grad(x, condition), ("log_prob", "dx"))
    values |= named("log_prob_and_grad, one row", flow.log_prob_and_grad(x[:1], one), ("log_prob", "dx"))
    weights = np.linspace(0.0, 2.0, ROWS)
    return values | named("nll_and_grad", flow.nll_and_grad(x, weights, condition), ("nll", "gradient"))


def of_model(make: Callable[[], Any]) -> Values:
    """All values that a flow computes, before training and after."""
    flow = make()
    values = {"first parameters": flow.params}
    randomize(flow)
    rng = np.random.default_rng(5)
    condition = rng.normal(size=(ROWS, flow.condition_dim)) if flow.condition_dim else None
    z = 0.7 * rng.normal(size=(ROWS, flow.latent_dim))
    values["sample"] = x = flow.sample(ROWS, 4, condition=condition)
    drawn = flow.sample_and_log_prob(ROWS, 7, condition=condition)
    values |= named("sample_and_log_prob", drawn, ("x", "log_prob"))
    values |= densities(flow, x, condition) | both_directions(flow, x, z, condition)

    schedule = {"batch_size": STEP, "schedule": "constant", "learning_rate": 1e-2, "ema": None, "rng": 8, "progress": False}
    flow.fit(x, condition=condition, validation_fraction=0, max_epochs=1, **schedule)
    values["parameters after fit"] = flow.params
    values["standardization after fit"] = np.array([flow.standardize.loc, flow.standardize.scale])
    values |= {f"{name}, after fit": value for name, value in densities(flow, x, condition).items()}

    if condition is None:
        flow = randomize(make())
        try:
            flow.fit_variational(target, max_steps=3, steps_per_round=3, validation_size=0, **schedule)
        except ValueError:  # whole numbers have no gradient
            values["fit_variational is refused"] = np.array(True)
        else:
            values["parameters after fit_variational"] = flow.params
    return values


def same_array(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same in type, shape and every bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def golden_flows(tree: Path, load: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The flows of the tree's golden files, some of which are of a kind that the registry does not have."""

    def constructor(file: Path) -> Callable[..., Any]:
        return lambda dtype, rng: load(file, dtype=dtype)

    files = sorted((tree / "tests").rglob("golden/*.npz"))
    return {f"golden {file.stem}": constructor(file) for file in files}


def dump(tree: Path, only: str = "") -> Values:
    """Everything by "entry | dtype | quantity"."""
    registry = load_registry(tree)
    import npflows

    if Path(npflows.__file__).resolve().parents[1] != tree:
        raise SystemExit(f"npflows was imported from {npflows.__file__}, which is not in {tree}")
    models = registry.MODELS | golden_flows(tree, npflows.load)
    tables = ((of_layer, registry.LAYERS), (of_model, models))
    entries = [(kind, name, table[name], dtype)
               for dtype in DTYPES for kind, table in tables for name in table if only in name]  # fmt: skip
    results: Values = {}
    started = time.monotonic()
    for i, (kind, name, constructor, dtype) in enumerate(entries):

        def make(constructor: Callable = constructor, dtype: str = dtype) -> Any:
            return constructor(dtype=dtype, rng=np.random.default_rng(1))

        npflows.set_num_threads(1)
        values = kind(make)
        npflows.set_num_threads(2)
        for quantity, again in kind(make).items():
            if not same_array(np.asarray(values[quantity]), np.asarray(again)):
                raise SystemExit(f"{name}, {dtype}: {quantity} depends on the number of threads")
        results |= {f"{name} | {dtype} | {quantity}": np.asarray(value) for quantity, value in values.items()}
        print(f"{time.monotonic() - started:5.0f} s  {i + 1}/{len(entries)}  {name}, {dtype}", file=sys.stderr, flush=True)
    return results


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description="Write the bits that every entry of the test registry computes.")
    parser.add_argument("file", type=Path, help="the .npz file to write")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="the checkout to run")
    parser.add_argument("--only", default="", metavar="WORD", help="only entries whose name contains this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the tables here are too small for a good fit
    values = dump(options.tree.resolve(), options.only)
    with options.file.open("wb") as file:
        np.savez_compressed(file, **values)


if __name__ == "__main__":
    main()
