"""Files: one .npz without pickle, written in full or not at all, and read only if everything in it fits."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npflows._version import __version__
from npflows.core.atomic import atomic_write
from npflows.core.checks import as_dtype
from npflows.core.registry import construct, known_classes
from npflows.distribution.conditioning import is_learned_table
from npflows.distribution.transformed import TransformedDistribution
from npflows.distribution.verification import VerificationReport
from npflows.layers.standardize import is_learned

FORMAT = 1
"""Version of the file format; older ones stay readable."""


class FlowFileError(ValueError):
    """A file that is no flow, is damaged, or does not fit; the message lists everything that is wrong."""


def save(flow: TransformedDistribution, path: str | os.PathLike[str]) -> None:
    """Write a flow to `path`; see `NormalizingFlow.save`."""
    arrays: dict[str, Any] = pack(flow)
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def pack(flow: TransformedDistribution) -> dict[str, np.ndarray]:
    """A flow as arrays that need no pickle."""
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
    }
    return {"about": np.array(json.dumps(about)), **flow.learned_arrays()}


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, each checked against its checksum."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise FlowFileError(f"{os.fspath(path)} is not a complete .npz file (no zip directory at its end)")
        file.seek(0)
        try:
            content = np.load(file, allow_pickle=False)
            return {name: content[name] for name in content.files}
        except Exception as error:  # whatever damage makes of a zip file
            raise FlowFileError(f"{os.fspath(path)} is not a complete .npz file ({error})") from None


class _NoDraws(np.random.Generator):
    """Spares drawing the weights that a file replaces."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.zeros(size)


def load(path: str | os.PathLike[str], *, dtype: DTypeLike | None = None, classes: Iterable[type] = ()) -> Any:
    """Read a flow that `save` wrote.

    Parameters
    ----------
    path : path-like
    dtype : {"float32", "float64"}, optional
        Compute dtype; that of the saved flow by default.
    classes : iterable of type
        Layers, bases or models of your own that the flow is made of; nothing is imported because a file says so.

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
    """
    return unpack(read_arrays(path), os.fspath(path), dtype, classes)


def unpack(arrays: dict[str, np.ndarray], where: str, dtype: DTypeLike | None = None, classes: Iterable[type] = ()) -> Any:
    """The flow that `pack` made arrays of."""
    missing = {"about", "theta", "standardize"} - set(arrays)
    if missing:
        raise FlowFileError(f"{where} is not a flow: it has no {', '.join(sorted(missing))}")
    try:
        about = json.loads(str(arrays["about"]))
        version, name, config = about["format"], about["class"], dict(about["config"])
        parameters = {str(n): tuple(shape) for n, shape in about["parameters"]}
        history = {str(n): list(values) for n, values in about.get("history", {}).items()}
        named = {name: about.get(name) for name in ("columns", "condition_columns", "units", "condition_units")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FlowFileError(f"{where} is not a flow: its description can't be read ({error!r})") from None
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise FlowFileError(
            f"{where} has file format {version!r}, written by npflows {about.get('npflows', '?')}; this npflows reads 1 "
            f"to {FORMAT}: upgrade npflows"
        )
    if dtype is not None:
        config = _with_dtype(config, as_dtype(dtype).name)
    known = known_classes(classes)
    if not isinstance(name, str) or name not in known_classes(classes, TransformedDistribution):
        raise FlowFileError(f"{where} holds a {name}, which is no flow known here: pass load(..., classes=[{name}])")
    cls: type[TransformedDistribution] = known[name]
    config = {**getattr(cls, "arguments_of_older_files", {}), **config}
    try:
        flow = construct(cls, config, _NoDraws(np.random.PCG64(0)), known)
    except Exception as error:  # the constructor of any class, given anything
        raise FlowFileError(f"{where}: {name} can't be made from its configuration: {error}") from None
    wrong = _mismatches(flow, parameters, arrays)
    if not isinstance(about.get("effective_rows"), (int, float, type(None))):
        wrong.append(f"effective_rows is {about['effective_rows']!r}, expected a number")
    for (kind, names), width in zip(named.items(), 2 * (flow.latent_dim, flow.condition_dim)):
        if names is not None and (not isinstance(names, list) or len(names) != width):
            wrong.append(f"{kind} are {names!r}, expected {width} names")
    if wrong:
        raise FlowFileError(f"{where} does not fit its own configuration:\n  " + "\n  ".join(wrong))
    free = flow.parameters.free
    flow.parameters.theta[free] = arrays["theta"][free]
    set_state(flow, about, arrays)
    if about.get("verification") is not None:
        flow.verification = _verification(about["verification"], where)
    flow.history = history
    return flow


def _verification(values: Any, where: str) -> VerificationReport:
    try:
        return VerificationReport.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise FlowFileError(f"{where}: its verification report can't be read ({error!r})") from None


def set_state(flow: TransformedDistribution, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Set what is set from data, so that it never will be again."""
    flow.standardize.set_learned(arrays["standardize"])
    condition = arrays.get("standardize_condition", np.zeros((2, 0)))
    if condition.shape[1]:
        flow.standardize_condition(*condition)
    flow.preprocessing.mark_standardized(bool(about.get("standardized", False)))
    flow.effective_rows = about.get("effective_rows")
    flow.robust_columns = [str(name) for name in about.get("robust_columns") or ()]
    named, learned = (about.get("columns"), about.get("condition_columns")), about.get("names_from_fit") or (False, False)
    for header, names, from_fit in zip(flow.headers, named, learned):
        if names is not None:
            header.give([str(name) for name in names], bool(from_fit))
    measured, learned = (about.get("units"), about.get("condition_units")), about.get("units_from_fit") or (False, False)
    for header, units, from_fit in zip(flow.headers, measured, learned):
        header.measure(units, bool(from_fit))
    if about.get("pixel_dtype") is not None:
        flow.preprocessing.remember(np.dtype(about["pixel_dtype"]))
    for layer, initialized in zip(flow.data_dependent_layers, about.get("initialized", ())):
        layer.initialized = bool(initialized)


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
    if condition.shape not in ((2, 0), (2, flow.condition_dim), (3, flow.condition_dim)) or condition.dtype.kind != "f":
        wrong.append(f"standardize_condition is {condition.dtype} {condition.shape}, expected (2, {flow.condition_dim})")
    elif not is_learned_table(condition, flow.condition_dim):
        wrong.append("standardize_condition holds scales that are not positive, or values that are not finite")
    theta, table, ours, free = arrays["theta"], arrays["standardize"], flow.parameters.theta, flow.parameters.free
    if theta.shape != ours.shape or theta.dtype.kind != "f":
        wrong.append(f"theta is {theta.dtype} {theta.shape}, expected {ours.shape} of floats")
    else:
        with np.errstate(over="ignore"):
            n_bad = int((~np.isfinite(theta.astype(ours.dtype))).sum())
        if n_bad:
            wrong.append(f"theta has {n_bad} values that are not finite in {ours.dtype}")
        elif (theta[~free] != ours[~free]).any() and not np.allclose(theta[~free], ours[~free], rtol=1e-6, atol=0):
            wrong.append("theta is not zero where a mask demands it, or a constant differs")
    if table.shape not in ((2, flow.latent_dim), (2 + flow.latent_dim, flow.latent_dim)) or table.dtype.kind != "f":
        wrong.append(f"standardize is {table.dtype} {table.shape}, expected (2, {flow.latent_dim}) of floats")
    elif not is_learned(table, flow.latent_dim):
        wrong.append("standardize holds scales that are not positive, values that are not finite, or no triangular factor")
    return wrong


def _with_dtype(value: Any, dtype: str) -> Any:
    """A configuration for another compute dtype, nested ones included."""
    if isinstance(value, dict):
        return {name: dtype if name == "dtype" else _with_dtype(v, dtype) for name, v in value.items()}
    return [_with_dtype(v, dtype) for v in value] if isinstance(value, list) else value
