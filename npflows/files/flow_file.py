"""Files: one .npz without pickle, written in full or not at all, and read only if everything in it fits."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npflows._version import __version__
from npflows.core.atomic import atomic_write
from npflows.core.checks import as_dtype, warn_user
from npflows.core.parameters import allowance, count
from npflows.core.registry import construct, known_classes
from npflows.distribution.conditioning import is_learned_table
from npflows.distribution.transformed import TransformedDistribution
from npflows.distribution.verification import VerificationReport
from npflows.files.archive import FlowFileError, checksum, read_arrays, read_json, write_arrays
from npflows.layers.standardize import is_learned

FORMAT = 1
"""Version of the file format; older ones stay readable."""


MEMBERS = ("about", "theta", "standardize", "standardize_condition")
"""The arrays that a flow is saved as."""
CHECKSUM = "checksum"
"""The member that holds their checksum; files from before there was one have none."""
ENSEMBLE = "ensemble"
"""The member that files of ensembles have instead."""
DRIFT = 1e-2
"""Relative change of constants that files may have: once the moving average of parameters rounded them too."""
ROUNDING = 1e-6
"""Relative change of constants that is none."""
_SPARE, _TIMES = 1 << 16, 12
"""Numbers that building a flow may make beyond so many times those that the file holds."""


def save(flow: TransformedDistribution, path: str | os.PathLike[str]) -> None:
    """Write a flow to `path`; see `NormalizingFlow.save`."""
    with atomic_write(path) as file:
        write_arrays(file, pack(flow))


def pack(flow: TransformedDistribution, theta: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A flow, with other parameters perhaps, as arrays that need no pickle, and their checksum."""
    about = {
        "format": FORMAT,
        "npflows": __version__,
        "class": type(flow).__name__,
        "config": flow.arguments,
        "parameters": [[name, list(view.shape)] for name, view in flow.named_params().items()],
        "standardized": flow.preprocessing.is_standardized,
        "initialized": [layer.initialized for layer in flow.data_dependent_layers],
        "pixel_dtype": flow.preprocessing.pixel_dtype,
        "columns": flow.columns,
        "condition_columns": flow.condition_columns,
        "units": flow.units,
        "condition_units": flow.condition_units,
        "units_from_fit": [header.learned_units for header in flow.headers],
        "names_from_fit": [header.learned for header in flow.headers],
        "history": flow.history,
        "verification": None if flow.verification is None else flow.verification.to_dict(),
        "effective_rows": flow.effective_rows,
        "robust_columns": flow.robust_columns,
        "checksum": "sha256",
    }
    arrays = {"about": np.array(json.dumps(about)), **flow.learned_arrays()}
    if theta is not None:
        arrays["theta"] = theta
    return {**arrays, CHECKSUM: checksum(arrays)}


def read_flow_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a flow in a file, of a checkpoint too, each checked against its checksum in the archive."""
    return read_arrays(path, (*MEMBERS, CHECKSUM, ENSEMBLE))


class _NoDraws(np.random.Generator):
    """Spares drawing the weights that a file replaces."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self._zeros(size)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self._zeros(size)

    def _zeros(self, size: Any) -> np.ndarray:
        count(math.prod(size) if isinstance(size, tuple) else int(size))
        return np.zeros(size)


def load(
    path: str | os.PathLike[str], *, dtype: DTypeLike | None = None, classes: Iterable[type] = (), device: str = "cpu"
) -> Any:
    """Read a flow that `save` wrote.

    Parameters
    ----------
    path : path-like
    dtype : {"float32", "float64"}, optional
        Compute dtype; that of the saved flow by default.
    classes : iterable of type
        Layers, bases or models of your own that the flow is made of; nothing is imported because a file says so.
    device : {"cpu", "cuda"}
        Where the flow is to run; see `NormalizingFlow.to`.

    Returns
    -------
    NormalizingFlow
        Of the class that was saved.

    Raises
    ------
    FlowFileError
        If the file is damaged, comes from a newer npflows, or does not fit its own configuration.
    OSError
        If it can't be opened.
    CudaError
        If it is to run on a GPU, and there is none that can be used.
    """
    return unpack(read_flow_arrays(path), os.fspath(path), dtype, classes).to(device)


def unpack(arrays: dict[str, np.ndarray], where: str, dtype: DTypeLike | None = None, classes: Iterable[type] = ()) -> Any:
    """The flow that `pack` made arrays of."""
    wanted = None if dtype is None else as_dtype(dtype).name
    try:
        return _unpacked(arrays, where, wanted, tuple(classes))
    except (FlowFileError, MemoryError):
        raise
    except Exception as error:  # whatever an edited file makes of what expects a whole one
        raise FlowFileError(f"{where} is not a flow: {type(error).__name__}: {error}") from error


def _unpacked(arrays: dict[str, np.ndarray], where: str, dtype: str | None, classes: tuple[type, ...]) -> Any:
    if ENSEMBLE in arrays:
        raise FlowFileError(f"{where} holds an ensemble: read it with npflows.Ensemble.load")
    missing = {"about", "theta", "standardize"} - set(arrays)
    if missing:
        raise FlowFileError(f"{where} is not a flow: it has no {', '.join(sorted(missing))}")
    about = read_about(arrays, where)
    check_checksum({name: arrays[name] for name in MEMBERS if name in arrays}, arrays.get(CHECKSUM), about, where)
    name, config = about["class"], dict(about["config"])
    parameters = {str(n): tuple(shape) for n, shape in about["parameters"]}
    if dtype is not None:
        config = _with_dtype(config, dtype)
    known = known_classes(classes)
    if not isinstance(name, str) or name not in known_classes(classes, TransformedDistribution):
        raise FlowFileError(f"{where} holds a {name}, which is no flow known here: pass load(..., classes=[{name}])")
    cls: type[TransformedDistribution] = known[name]
    config = {**getattr(cls, "arguments_of_older_files", {}), **config}
    there = _SPARE + _TIMES * arrays["theta"].size
    try:
        with allowance(there):
            flow = construct(cls, config, _NoDraws(np.random.PCG64(0)), known, there)
    except MemoryError:
        raise
    except Exception as error:  # the constructor of any class, given anything
        raise FlowFileError(f"{where}: {name} can't be made from its configuration: {error}") from None
    wrong = _mismatches(flow, parameters, arrays) + wrong_state(flow, about)
    if wrong:
        raise FlowFileError(f"{where} does not fit its own configuration:\n  " + "\n  ".join(wrong))
    free = flow.parameters.free
    if _relative_drift(flow, arrays["theta"]) > ROUNDING:
        warn_user(
            f"{where}: constants differ in their last digits from those of the configuration, as an earlier npflows left "
            f"them; those of the configuration hold: save the flow again to be rid of this"
        )
    flow.parameters.theta[free] = arrays["theta"][free]
    set_state(flow, about, arrays)
    if about.get("verification") is not None:
        flow.verification = _verification(about["verification"], where)
    flow.history = {str(n): list(values) for n, values in about.get("history", {}).items()}
    return flow


def read_about(arrays: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    """The description of a flow, whose format is known and whose parts are of the right kind."""
    text = arrays["about"]
    try:
        if text.ndim or text.dtype.kind != "U":
            raise ValueError(f"it is {text.dtype} {text.shape}")
        about = read_json(str(text))
        version, _ = about["format"], about["class"]
        dict(about["config"])
        for _, shape in about["parameters"]:
            tuple(shape)
        history = about.get("history", {})
        if not isinstance(history, dict) or not all(_are_numbers(values) for values in history.values()):
            raise ValueError("its history is no table of numbers")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FlowFileError(f"{where} is not a flow: its description can't be read ({error!r})") from None
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise FlowFileError(
            f"{where} has file format {version!r}, written by npflows {about.get('npflows', '?')}; this npflows reads 1 "
            f"to {FORMAT}: upgrade npflows"
        )
    return about


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) or value is None for value in values)


def check_checksum(arrays: dict[str, np.ndarray], found: np.ndarray | None, about: dict[str, Any], where: str) -> None:
    """Refuse arrays that are not those that were written together; files from before there were checksums have none."""
    if found is None and "checksum" not in about:
        return
    if found is None or str(found) != str(checksum(arrays)):
        raise FlowFileError(
            f"{where} is damaged or was edited: its content is not what was written, by its checksum; take another copy of "
            f"the file"
        )


def _verification(values: Any, where: str) -> VerificationReport:
    try:
        return VerificationReport.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise FlowFileError(f"{where}: its verification report can't be read ({error!r})") from None


def wrong_state(flow: TransformedDistribution, about: dict[str, Any]) -> list[str]:
    """What a description says wrongly of what `set_state` sets."""
    wrong = []
    rows, robust = about.get("effective_rows"), about.get("robust_columns") or []
    if rows is not None and (type(rows) not in (int, float) or not 0 <= rows <= sys.float_info.max):
        wrong.append(f"effective_rows is {rows!r}, expected a number")
    if not isinstance(robust, list) or not all(isinstance(name, str) for name in robust):
        wrong.append(f"robust_columns are {robust!r}, expected a list of names")
    for kind, width in zip(
        ("columns", "condition_columns", "units", "condition_units"), 2 * (flow.latent_dim, flow.condition_dim)
    ):
        names = about.get(kind)
        if names is not None and (not isinstance(names, list) or len(names) != width):
            wrong.append(f"{kind} are {names!r}, expected {width} names")
        elif (
            names is not None
            and kind.endswith("units")
            and not all(unit is None or isinstance(unit, str) for unit in names)
        ):
            wrong.append(f"{kind} are {names!r}, expected names of units")
    for kind in ("names_from_fit", "units_from_fit"):
        learned = about.get(kind)
        if learned is not None and (not _are_flags(learned) or len(learned) != len(flow.headers)):
            wrong.append(f"{kind} is {learned!r}, expected two flags")
    if not _are_flags([about.get("standardized", False)]):
        wrong.append(f"standardized is {about['standardized']!r}, expected true or false")
    layers, initialized = flow.data_dependent_layers, about.get("initialized")
    if initialized is not None and (not _are_flags(initialized) or len(initialized) not in (0, len(layers))):
        wrong.append(f"initialized is {initialized!r}, expected a flag for each of {len(layers)} layers")
    pixels = about.get("pixel_dtype")
    if pixels is not None and (not isinstance(pixels, str) or not _is_number_type(pixels)):
        wrong.append(f"pixel_dtype is {pixels!r}, expected a type of numbers")
    return wrong


def _are_flags(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is bool for value in values)


def _is_number_type(name: str) -> bool:
    try:
        return np.dtype(name).kind in "biuf"
    except (TypeError, ValueError, SyntaxError):
        return False


def set_state(flow: TransformedDistribution, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Set what is set from data, so that it never will be again."""
    flow.standardize.set_learned(arrays["standardize"])
    condition = arrays.get("standardize_condition", np.zeros((2, 0)))
    if condition.shape[1]:
        flow.standardize_condition(*condition)
    flow.preprocessing.mark_standardized(about.get("standardized", False))
    flow.effective_rows = about.get("effective_rows")
    flow.robust_columns = about.get("robust_columns") or []
    named, learned = (about.get("columns"), about.get("condition_columns")), about.get("names_from_fit") or (False, False)
    for header, names, from_fit in zip(flow.headers, named, learned):
        if names is not None:
            header.give([str(name) for name in names], from_fit)
    measured, learned = (about.get("units"), about.get("condition_units")), about.get("units_from_fit") or (False, False)
    for header, units, from_fit in zip(flow.headers, measured, learned):
        header.measure(units, from_fit)
    if about.get("pixel_dtype") is not None:
        flow.preprocessing.remember(np.dtype(about["pixel_dtype"]))
    for layer, initialized in zip(flow.data_dependent_layers, about.get("initialized") or ()):
        layer.initialized = initialized


def _mismatches(flow: TransformedDistribution, have: dict[str, tuple], arrays: dict[str, np.ndarray]) -> list[str]:
    want = {name: view.shape for name, view in flow.named_params().items()}
    wrong = [f"parameter {name} {shape} is missing" for name, shape in want.items() if name not in have]
    wrong += [f"parameter {name} {shape} is not expected" for name, shape in have.items() if name not in want]
    wrong += [
        f"parameter {name} has shape {have[name]}, expected {shape}"
        for name, shape in want.items()
        if name in have and have[name] != shape
    ]
    condition = arrays.get("standardize_condition", np.zeros((2, 0)))
    if flow.condition_dim and "standardize_condition" not in arrays:
        wrong.append("standardize_condition is missing")
    if condition.shape not in ((2, 0), (2, flow.condition_dim), (3, flow.condition_dim)) or condition.dtype.kind != "f":
        wrong.append(f"standardize_condition is {condition.dtype} {condition.shape}, expected (2, {flow.condition_dim})")
    elif not is_learned_table(condition, flow.condition_dim):
        wrong.append("standardize_condition holds scales that are not positive, or values that are not finite")
    theta, table, ours = arrays["theta"], arrays["standardize"], flow.parameters.theta
    if theta.shape != ours.shape or theta.dtype.kind != "f":
        wrong.append(f"theta is {theta.dtype} {theta.shape}, expected {ours.shape} of floats")
    else:
        with np.errstate(over="ignore"):
            n_bad = theta.size - int(np.count_nonzero(np.isfinite(theta.astype(ours.dtype, copy=False))))
        if n_bad:
            wrong.append(f"theta has {n_bad} values that are not finite in {ours.dtype}")
        elif _relative_drift(flow, theta) > DRIFT:
            wrong.append("theta is not zero where a mask demands it, or a constant differs")
    if table.shape not in ((2, flow.latent_dim), (2 + flow.latent_dim, flow.latent_dim)) or table.dtype.kind != "f":
        wrong.append(f"standardize is {table.dtype} {table.shape}, expected (2, {flow.latent_dim}) of floats")
    elif not is_learned(table, flow.latent_dim):
        wrong.append("standardize holds scales that are not positive, values that are not finite, or no triangular factor")
    return wrong


def _relative_drift(flow: TransformedDistribution, theta: np.ndarray) -> float:
    """The largest relative difference of a constant in a file from the flow's."""
    ours = flow.parameters.theta
    differs = theta != ours
    differs &= ~flow.parameters.free
    found, expected = theta[differs].astype(np.float64), ours[differs].astype(np.float64)
    with np.errstate(divide="ignore", over="ignore"):
        return float(np.max(np.abs(found - expected) / np.abs(expected), initial=0.0))


def _with_dtype(value: Any, dtype: str) -> Any:
    """A configuration for another compute dtype, nested ones included."""
    if isinstance(value, dict):
        return {name: dtype if name == "dtype" else _with_dtype(v, dtype) for name, v in value.items()}
    return [_with_dtype(v, dtype) for v in value] if isinstance(value, list) else value
