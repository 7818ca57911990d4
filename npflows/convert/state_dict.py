"""PyTorch's state dicts without PyTorch: a zip of raw numbers and a pickle, of which nothing is executed."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from npflows.convert.errors import ConversionError
from npflows.convert.tensors import Tensors
from npflows.files.foreign import LOOKED_AT, foreign_kind

Arrays = dict[str, NDArray[Any]]
DTYPES = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
          "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?"}  # fmt: skip
REMEDY = "save its state dict: torch.save(model.state_dict(), path)"


def read_state_dict(path: str | os.PathLike[str]) -> Arrays:
    """The arrays of a file that `torch.save(model.state_dict(), path)` wrote, by name, without PyTorch.

    Nothing in the file is executed: its pickle may name tensors and dictionaries alone.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    ConversionError
        If the file is something else, a whole pickled module for instance, or is damaged.
    OSError
        If it can't be opened.
    """
    where = os.fspath(path)
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            found = foreign_kind(file.read(LOOKED_AT))
            what, hint = ("", "") if found is None else found
            looks = f"{what}, and " if what else ""
            raise ConversionError(f"{where} is {looks}no zip file, as PyTorch 1.6 and later write them: {hint or REMEDY}")
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                return _read(archive, where)
        except ConversionError:
            raise
        except Exception as error:  # whatever damage makes of a zip file and a pickle
            raise ConversionError(f"{where} is no complete state dict ({error})") from None


def is_live(flow: Any) -> bool:
    """Whether a flow is an object of its library, and not its state dict or the file of that."""
    return not isinstance(flow, (str, os.PathLike, Mapping))


def refuse_others(flow: Any, what: str, *parts: str) -> None:
    """Refuse an object, no state dict and no file, without the parts that all objects of a kind have.

    Raises
    ------
    ConversionError
    """
    if is_live(flow) and not all(hasattr(flow, part) for part in parts):
        raise ConversionError(f"{type(flow).__module__}.{type(flow).__name__} is no {what}")


def refuse_files(flow: Any, function: str, remedy: str) -> None:
    """Refuse files and state dicts where objects alone tell enough.

    Raises
    ------
    ConversionError
    """
    if not is_live(flow):
        what = "a state dict" if isinstance(flow, Mapping) else "the file " + os.fspath(flow)
        raise ConversionError(f"{function} takes objects alone, got {what}: pass the object, {remedy}")


def arrays_of(flow: Any) -> Tensors:
    """The tensors of a flow by name: of an object that has a state dict, of that, or of its file."""
    if isinstance(flow, (str, os.PathLike)):
        return Tensors(read_state_dict(flow))
    state = flow.state_dict() if is_live(flow) else flow
    other = next((name for name in state if not isinstance(name, str)), None)
    if other is not None:
        raise ConversionError(f"a state dict has tensors by name, got {other!r} as a name")
    return Tensors({name: as_array(value) for name, value in state.items()})


def numbers_below(arrays: Iterable[str], prefix: str) -> list[int]:
    """The numbers, sorted, that names go on with after a prefix.

    Raises
    ------
    ConversionError
        If something else than a number follows.
    """
    found = {name.removeprefix(prefix).split(".")[0]: name for name in arrays if name.startswith(prefix)}
    for number, name in found.items():
        if not number.isdecimal():
            raise ConversionError(f"{name} has no number after {prefix.rstrip('.')}: it is no part of such a flow")
    return sorted(map(int, found))


def as_array(value: Any) -> NDArray[Any]:
    """A tensor of PyTorch, or an array, as an array."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _read(archive: zipfile.ZipFile, where: str) -> Arrays:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ConversionError(f"{where} is no file of PyTorch: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    is_big = folder + "byteorder" in archive.namelist() and archive.read(folder + "byteorder") == b"big"
    order: Literal["<", ">"] = ">" if is_big else "<"
    with archive.open(pickles[0]) as stream:
        found = _Unpickler(stream, lambda key: archive.read(f"{folder}data/{key}"), order, where).load()
    if not isinstance(found, Mapping):
        raise ConversionError(f"{where} holds a {type(found).__name__}, no state dict: {REMEDY}")
    result: Arrays = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise ConversionError(f"{where} holds more than arrays by name, {name!r} for instance: {REMEDY}")
        result[name] = value
    return result


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows tensors and dictionaries, and refuses every other name."""

    def __init__(self, stream: Any, data: Callable[[str], bytes], order: Literal["<", ">"], where: str) -> None:
        super().__init__(stream)
        self._data, self._order, self._where = data, order, where
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) not in self._known:
            raise ConversionError(f"{self._where} names {module}.{name}, which a state dict has no need of; nothing was "
                                  f"executed: {REMEDY}")  # fmt: skip
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(key, str) or not isinstance(dtype, str):
            raise ConversionError(f"{self._where} refers to {pid!r}, which is no storage of numbers")
        return np.frombuffer(self._data(key), np.dtype(dtype).newbyteorder(self._order), count)


def _tensor(
    storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *more: Any
) -> NDArray[Any]:
    """The part of a storage that a tensor is; strides are counted in values."""
    reached = offset + sum((n - 1) * step for n, step in zip(shape, strides)) if all(shape) else offset - 1
    if offset < 0 or reached >= len(storage) or min(strides, default=0) < 0:
        raise ConversionError("a tensor of the file reaches beyond its numbers")
    steps = [step * storage.itemsize for step in strides]
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
    return np.array(view, view.dtype.newbyteorder("="))


def _parameter(tensor: NDArray[Any], *more: Any) -> NDArray[Any]:
    return tensor
