"""Files: one .npz without pickle, written in full or not at all, and read only if everything in it fits."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from npflows.validation import as_dtype, as_rng

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow

FORMAT = 1
"""Version of the file format; older ones stay readable."""


class FlowFileError(ValueError):
    """A file that is no flow, is damaged, or does not fit; the message lists everything that is wrong."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes its name only once it is complete; a crash leaves what was there before."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save(flow: NormalizingFlow, path: str | os.PathLike[str]) -> None:
    """Write a flow to `path`; see `NormalizingFlow.save`."""
    with atomic_write(path) as file:
        np.savez(file, **pack(flow))


def pack(flow: NormalizingFlow) -> dict[str, np.ndarray]:
    """A flow as arrays that need no pickle."""
    from npflows import __version__

    about = {
        "format": FORMAT,
        "npflows": __version__,
        "class": type(flow).__name__,
        "config": flow.config,
        "parameters": [[name, list(view.shape)] for name, view in flow.named_params().items()],
        "standardized": flow._is_standardized,
        "columns": flow.columns,
        "history": flow.history,
    }
    return {
        "about": np.array(json.dumps(about)),
        "theta": flow._buffer.theta,
        "standardize": np.stack([flow.standardize.loc, flow.standardize.scale]),
    }


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, each checked against its checksum."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise FlowFileError(f"{os.fspath(path)} is not a flow: it holds a single array")
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, zipfile.LargeZipFile, NotImplementedError) as error:
        if isinstance(error, FlowFileError):
            raise
        raise FlowFileError(f"{os.fspath(path)} is not a complete .npz file ({error})") from None


def load(
    path: str | os.PathLike[str], *, dtype: object = None, classes: Iterable[type] = ()
) -> NormalizingFlow:  # fmt: skip
    """Read a flow that `save` wrote.

    Parameters
    ----------
    path : path-like
    dtype : {"float32", "float64"}, optional
        Compute dtype; that of the saved flow by default.
    classes : iterable of type
        Layers, bases or models of your own that the flow is made of; nothing is imported because a file says so.

    Raises
    ------
    FlowFileError
        If the file is damaged, comes from a newer npflows, or does not fit its own configuration.
    OSError
        If it can't be opened.
    """
    return unpack(read_arrays(path), os.fspath(path), dtype, classes)


def unpack(
    arrays: dict[str, np.ndarray], where: str, dtype: object = None, classes: Iterable[type] = ()
) -> NormalizingFlow:  # fmt: skip
    """The flow that `pack` made arrays of."""
    missing = {"about", "theta", "standardize"} - set(arrays)
    if missing:
        raise FlowFileError(f"{where} is not a flow: it has no {', '.join(sorted(missing))}")
    try:
        about = json.loads(str(arrays["about"]))
        version, name, config = about["format"], about["class"], about["config"]
        parameters = [(str(n), tuple(shape)) for n, shape in about["parameters"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FlowFileError(f"{where} is not a flow: its description can't be read ({error!r})") from None
    if not isinstance(version, int) or version > FORMAT:
        raise FlowFileError(
            f"{where} has file format {version}, written by npflows {about.get('npflows', '?')}; this npflows reads up to "
            f"{FORMAT}: upgrade npflows"
        )
    if dtype is not None:
        config = _with_dtype(config, as_dtype(dtype).name)
    known = _known(classes)
    if name not in known:
        raise FlowFileError(f"{where} holds a {name}, which is unknown here: pass load(..., classes=[{name}])")
    try:
        flow = construct(known[name], config, as_rng(0), known)
    except (ValueError, TypeError, KeyError) as error:
        raise FlowFileError(f"{where}: {name} can't be made from its configuration: {error}") from None
    wrong = _mismatches(flow, parameters, arrays)
    if wrong:
        raise FlowFileError(f"{where} does not fit its own configuration:\n  " + "\n  ".join(wrong))
    flow._buffer.theta[:] = arrays["theta"]
    flow.standardize.set(*arrays["standardize"])
    flow._is_standardized = bool(about.get("standardized", False))
    flow.history = about.get("history", {})
    flow.columns = about.get("columns")
    return flow


def _mismatches(flow: NormalizingFlow, parameters: list, arrays: dict[str, np.ndarray]) -> list[str]:
    wrong = []
    have, want = dict(parameters), {name: view.shape for name, view in flow.named_params().items()}
    wrong += [f"parameter {name} {shape} is missing" for name, shape in want.items() if name not in have]
    wrong += [f"parameter {name} {shape} is not expected" for name, shape in have.items() if name not in want]
    wrong += [
        f"parameter {name} has shape {have[name]}, expected {shape}"
        for name, shape in want.items()
        if name in have and have[name] != shape
    ]
    theta, table = arrays["theta"], arrays["standardize"]
    size = flow._buffer.theta.size
    if theta.shape != (size,) or theta.dtype.kind != "f":
        wrong.append(f"theta is {theta.dtype} {theta.shape}, expected ({size},) of floats")
    elif not np.isfinite(theta).all():
        wrong.append(f"theta has {int((~np.isfinite(theta)).sum())} values that are not finite")
    elif not np.allclose(theta[~flow._buffer.free], flow._buffer.theta[~flow._buffer.free]):
        wrong.append("theta is not zero where a mask demands it, or a constant differs")
    if table.shape != (2, flow.latent_dim) or table.dtype.kind != "f":
        wrong.append(f"standardize is {table.dtype} {table.shape}, expected (2, {flow.latent_dim}) of floats")
    elif not np.isfinite(table).all() or (table[1] <= 0).any():
        wrong.append("standardize holds scales that are not positive, or values that are not finite")
    return wrong


def _known(classes: Iterable[type]) -> dict[str, type]:
    """Every class that a file may name."""
    from npflows import base, flow, layers, models

    own = [getattr(module, name) for module in (layers, base, models) for name in module.__all__]
    return {c.__name__: c for c in [*own, flow.NormalizingFlow, *classes] if isinstance(c, type)}


def construct(
    cls: type, config: dict[str, Any], rng: np.random.Generator, known: dict[str, type] | None = None
) -> Any:  # fmt: skip
    """An object from its `config`; what is configured inside is made first."""
    known = _known(()) if known is None else known
    accepted = inspect.signature(cls.__init__).parameters
    unknown = sorted(set(config) - set(accepted))
    if unknown:
        raise ValueError(f"{cls.__name__} has no parameter {', '.join(unknown)}")
    arguments = {name: _revived(value, rng, known) for name, value in config.items()}
    return cls(**arguments, **({"rng": rng} if "rng" in accepted else {}))


def _revived(value: Any, rng: np.random.Generator, known: dict[str, type]) -> Any:
    if isinstance(value, dict) and set(value) == {"class", "config"}:
        if value["class"] not in known:
            raise ValueError(f"{value['class']} is unknown here: pass it in classes=")
        return construct(known[value["class"]], value["config"], rng, known)
    return [_revived(v, rng, known) for v in value] if isinstance(value, list) else value


def _with_dtype(value: Any, dtype: str) -> Any:
    """A configuration for another compute dtype, nested ones included."""
    if isinstance(value, dict):
        return {name: dtype if name == "dtype" else _with_dtype(v, dtype) for name, v in value.items()}
    return [_with_dtype(v, dtype) for v in value] if isinstance(value, list) else value
