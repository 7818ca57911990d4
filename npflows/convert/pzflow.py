"""Flows of pzflow 4.0, from objects and from their pickles, of which nothing is executed."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, Beta, Normal, Uniform
from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.linear import assembled, diagonal, matrix, permutation, standardize
from npflows.convert.networks import Dense, autoregressive, chain, coupling, split_condition
from npflows.convert.tensors import Tensors
from npflows.flow import NormalizingFlow
from npflows.layers.layer import Layer

BIJECTORS = "Chain, ColorTransform, NeuralSplineCoupling, Reverse, Roll, Scale, ShiftBounds, Shuffle and StandardScaler"
KEYS = ("data_columns", "latent_info", "params")


def from_pzflow(flow: Any, *, dtype: str | None = None) -> NormalizingFlow:
    """A flow of pzflow as a flow of npflows that gives its numbers, with its names of columns.

    Chains of shifts of bounds, standard scalers, spline couplings, rolls and other permutations, scales and color
    transforms come in, with conditions, on CentBeta13, Uniform and Normal.  Dequantizers, InvSoftplus, periodic splines,
    other latent distributions, ensembles, and shuffles from a file are refused by name.

    Parameters
    ----------
    flow : pzflow.Flow or path-like
        The object, or a file that `flow.save` wrote, which is read without pzflow and without JAX.
    dtype : {"float32", "float64"}, optional
        The source's by default, which is float32 unless JAX was told otherwise.

    Returns
    -------
    NormalizingFlow

    Raises
    ------
    ConversionError
        If the flow can't be represented, or the file is something else.

    Notes
    -----
    pzflow computes the determinants of ShiftBounds and StandardScaler in the dtype of their numbers, usually float32: an
    error of some 1e-7 in its log-densities that npflows does not have.
    """
    dtype = checked(dtype=dtype)["dtype"]
    is_file = isinstance(flow, (str, os.PathLike))
    state = read_pickle(flow) if is_file else getattr(flow, "__getstate__", dict)()
    if not isinstance(state, dict) or "class" not in state:
        raise ConversionError(f"{type(flow).__module__}.{type(flow).__name__} is no flow of pzflow")
    if state.get("class") != "Flow" or not isinstance(state.get("bijector_info"), tuple):
        raise ConversionError(
            f"a {state.get('class')} of pzflow without a bijector, or of several flows, is not taken over"
        )
    missing = [name for name in KEYS if not state.get(name)]
    if missing or not isinstance(state["params"], tuple) or len(state["params"]) != 2:
        raise ConversionError(f"the flow of pzflow has no {', '.join(missing or ['pair of params'])}: it is damaged")
    _, params = state["params"]
    n = len(state["data_columns"])
    own = (_dtype(params) or "float32") if dtype is None else dtype
    layers = _layers(state["bijector_info"], params, getattr(flow, "_forward", None), n, own)
    base = _base(state["latent_info"], n, own)
    taken = assembled(_with_standardize_first(layers, n, own), base, own)
    taken.columns = list(state["data_columns"])
    if taken.condition_dim:
        names = list(state.get("conditional_columns") or ())
        if len(names) != taken.condition_dim:
            raise ConversionError(f"the couplings see {taken.condition_dim} conditions, and the flow names {len(names)}")
        keys = ("condition_means", "condition_stds")
        taken.standardize_condition(*(_each(state.get(key), len(names), key) for key in keys))
        taken.condition_columns = names
    return taken


def _each(values: Any, n: int, what: str) -> NDArray[np.float64]:
    """n numbers, from as many or from one for all.

    Raises
    ------
    ConversionError
        If they are others.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.shape not in ((), (n,)) or not np.isfinite(array).all():
        raise ConversionError(f"{what} must be {n} finite numbers, got {values!r}")
    return np.broadcast_to(array.astype(float), (n,))


def _dtype(params: Any) -> str:
    """The dtype of the first array of nested parameters, or none."""
    if isinstance(params, (tuple, list)):
        return next((found for inner in params if (found := _dtype(inner))), "")
    return str(params.dtype) if getattr(params, "ndim", 0) else ""


def _base(info: Any, n: int, dtype: str) -> Base:
    if not isinstance(info, tuple) or len(info) != 2 or not isinstance(info[1], tuple) or info[1][:1] != (n,):
        raise ConversionError(
            f"latent_info must be the name of a distribution of {n} columns and its arguments, got {info!r}"
        )
    kind, (_, *rest) = info
    bound = checked(f"latent distribution {kind}", bound=rest[0])["bound"] if rest and kind != "Normal" else 5.0
    if kind == "CentBeta13":
        return Beta(n, 13.0, bound, dtype=dtype)
    if kind == "Uniform":
        return Uniform(n, -bound, bound, dtype=dtype)
    if kind == "Normal":
        return Normal(n, dtype=dtype)
    raise ConversionError(f"the latent distribution {kind} is not taken over; CentBeta13, Uniform and Normal can be")


def _with_standardize_first(layers: list[Layer | tuple[NDArray, NDArray]], n: int, dtype: str) -> list[Layer]:
    """Location and scale as layers: in float64 where they come first."""
    result: list[Layer] = []
    for step in layers:
        if isinstance(step, Layer):
            result.append(step)
        elif not result:
            result.append(standardize(*step, n, dtype))
        else:
            loc, scale = step
            result += diagonal(1 / scale, -loc / scale, n, dtype)
    return result


def _layers(info: tuple, params: Any, function: Any, n: int, dtype: str) -> list[Layer | tuple[NDArray, NDArray]]:
    """The layers of a bijector, those of which location and scale are all as these."""
    if len(info) != 2 or not isinstance(info[0], str):
        raise ConversionError(f"a bijector must be its name and its arguments, got {info!r}")
    kind, arguments = info
    try:
        return _layers_of(kind, arguments, params, function, n, dtype)
    except ConversionError:
        raise
    except (TypeError, ValueError, IndexError, AttributeError) as error:  # whatever a damaged pickle holds
        raise ConversionError(f"the bijector {kind!r} has other arguments or numbers than pzflow's ({error})") from None


def _layers_of(
    kind: str, arguments: tuple, params: Any, function: Any, n: int, dtype: str
) -> list[Layer | tuple[NDArray, NDArray]]:  # fmt: skip
    if kind == "Chain":
        if len(arguments) != len(params):
            raise ConversionError(f"a Chain of {len(arguments)} bijectors has numbers of {len(params)}")
        functions = _closure(function).get("forward_funs", [None] * len(arguments))
        return [layer for inner, one, f in zip(arguments, params, functions) for layer in _layers(inner, one, f, n, dtype)]
    if kind == "Reverse":
        return [permutation(np.arange(n)[::-1], dtype)]
    if kind == "Roll":
        return [permutation((np.arange(n) - arguments[0]) % n, dtype)]
    if kind == "Shuffle":
        order = _closure(function).get("perm")
        if order is None:
            raise ConversionError("a file does not tell the permutation of Shuffle, which JAX draws: give the object")
        return [permutation(np.asarray(order), dtype)]
    if kind == "Scale":
        return [(np.zeros(n), 1 / _each(arguments[0], n, "the scale of Scale"))]
    if kind == "StandardScaler":
        means, scales = arguments
        return [(_each(means, n, "the means of StandardScaler"), _each(scales, n, "the stds of StandardScaler"))]
    if kind == "ShiftBounds":
        return [_bounds(arguments, n)]
    if kind == "ColorTransform":
        return [*matrix(_colors(arguments, n), 0.0, n, dtype)]
    if kind == "NeuralSplineCoupling":
        return [_coupling(arguments, params, n, dtype)]
    raise ConversionError(f"the bijector {kind} is not taken over; {BIJECTORS} can be")


def _closure(function: Any) -> dict[str, Any]:
    """What a function of pzflow keeps beside its arguments, by name; nothing for one that is not at hand."""
    inner = getattr(function, "_func", None)
    if inner is None:
        return {}
    return dict(zip(inner.__code__.co_freevars, (cell.cell_contents for cell in inner.__closure__ or ())))


def _bounds(arguments: tuple, n: int) -> tuple[NDArray, NDArray]:
    """Location and scale that take the bounds to [-bound, bound], in the dtype of the bounds, as pzflow does."""
    low, high, bound = arguments
    for name, a in (("low", low), ("high", high), ("bound", bound)):
        _each(a, n, f"{name} of ShiftBounds")
    low, high = (np.broadcast_to(np.asarray(a), (n,)) for a in (low, high))
    middle, half = (high + low) / 2, (high - low) / 2
    return middle.astype(float), half.astype(float) / float(bound)


def _colors(arguments: tuple, n: int) -> NDArray:
    """The matrix that leaves other columns first, then the reference magnitude, then the differences of neighbors."""
    reference, magnitudes = arguments
    chosen = [int(i) for i in np.asarray(magnitudes)]
    rows = [*(i for i in range(n) if i not in chosen), int(reference)]
    eye = np.eye(n)
    return np.concatenate([eye[rows], eye[chosen[:-1]] - eye[chosen[1:]]])


def _coupling(arguments: tuple, params: Any, n: int, dtype: str) -> Layer:
    """A spline coupling: the last columns are moved, and the network sees the first ones and the condition."""
    bins, bound, n_hidden, hidden, moved, n_conditions, periodic = arguments
    if periodic:
        raise ConversionError("NeuralSplineCoupling with periodic=True is not taken over")
    n_kept = n // 2 if moved is None else n - int(moved)
    outputs, count = 3 * bins - 1, n - n_kept
    pairs = [pair for pair in params if len(pair)]
    arrays = {f"{k}.weight": np.asarray(weight).T for k, (weight, _) in enumerate(pairs)}
    arrays |= {f"{k}.bias": np.asarray(bias) for k, (_, bias) in enumerate(pairs)}
    names, tensors = [str(k) for k in range(len(pairs))], Tensors(arrays, "params of NeuralSplineCoupling, layer ")
    weights = chain(tensors, names, n_kept, outputs * count, int(n_conditions))
    wanted = [hidden] * n_hidden + [outputs * count]
    if (sizes := [len(bias) for _, bias in weights]) != wanted:
        raise ConversionError(f"the layers of a NeuralSplineCoupling must have {wanted} outputs, got {sizes}")
    inputs, conditions = split_condition(weights, n_kept)
    least = {"min_bin_width": 0.0, "min_bin_height": 0.0, "min_derivative": 0.0}
    scalar_map = {"num_bins": bins, "tail_bound": float(bound), **least}
    added = np.tile(np.r_[np.zeros(2 * bins), np.full(bins - 1, math.log(math.expm1(1.0)))], count)
    network = Dense(inputs, "leaky_relu", None, conditions).with_outputs(np.arange(outputs * count), 1.0, -added)
    if n_kept:
        return coupling(network, (np.arange(n) < n_kept).astype(int), scalar_map, dtype)
    first = np.zeros((len(inputs[0][1]), n)), inputs[0][1]
    degrees = [np.zeros(width, np.int64) for width in network.hidden]
    network = Dense([first, *network.layers[1:]], "leaky_relu", None, conditions, degrees=degrees)
    return autoregressive(network, np.arange(n), scalar_map, dtype)


def read_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What pzflow's `flow.save` wrote, without pzflow and without JAX.

    Nothing in the file is executed: arrays of numbers are read, all else that it names stays a name.

    Raises
    ------
    ConversionError
        If the file is something else, or is damaged.
    """
    where = os.fspath(path)
    with open(path, "rb") as file:
        try:
            found = _Unpickler(file).load()
        except Exception as error:  # whatever damage makes of a pickle
            raise ConversionError(f"{where} is no pickle of pzflow ({error})") from None
    state = found.state if isinstance(found, _Named) else found
    if not isinstance(state, Mapping) or not {"class", "params", "bijector_info"} <= set(state):
        raise ConversionError(f"{where} is a pickle, but of no flow of pzflow")
    return dict(state)


class _Named:
    """An object of the file that is not made: nothing is done with it but to keep its state."""

    state: Any = None

    def __new__(cls, *arguments: Any, **options: Any) -> _Named:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *arguments: Any, **options: Any) -> _Named:
        return _Named()

    def append(self, value: Any) -> None:
        """Nothing is kept."""

    def extend(self, values: Any) -> None:
        """Nothing is kept."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


class _Dtype:
    """The dtype of an array of numbers."""

    def __init__(self, code: str, *more: Any) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple) -> None:
        self.order = str(state[1])

    def numpy(self) -> np.dtype:
        """As NumPy's; one of objects is refused."""
        dtype = np.dtype(self.code)
        if dtype.kind not in "fiub":
            raise ConversionError(f"arrays of {self.code} are no numbers")
        return dtype.newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class _Array:
    """An array of numbers, once its state is read."""

    def __init__(self, *arguments: Any) -> None:
        self.values: NDArray = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_column, data = state
        values = np.frombuffer(bytes(data), dtype.numpy()).reshape(shape, order="F" if by_column else "C")
        self.values = values.astype(values.dtype.newbyteorder("="))

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray:
        return self.values if dtype is None else self.values.astype(dtype)

    @property
    def dtype(self) -> np.dtype:
        """That of the numbers."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.values.ndim


def _of_jax(function: Any, arguments: tuple, state: tuple, *more: Any) -> _Array:
    """An array of JAX, which is pickled as one of NumPy."""
    array = _Array()
    array.__setstate__(state)
    return array


def _scalar(dtype: _Dtype, data: bytes) -> NDArray:
    """A number of NumPy."""
    return np.frombuffer(bytes(data), dtype.numpy())[0]


KNOWN = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    ("numpy", "dtype"): _Dtype,
    ("jax._src.array", "_reconstruct_array"): _of_jax,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that makes arrays of numbers, and nothing of all other names."""

    def find_class(self, module: str, name: str) -> Any:
        return KNOWN.get((module, name), _Named)

    def persistent_load(self, pid: Any) -> Any:
        return _Named()
