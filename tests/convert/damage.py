"""State dicts that lack a tensor, or have one of another shape: converters refuse them."""

import re
from collections.abc import Callable, Iterator

import numpy as np
from convert import test_nflows, test_normflows, test_pyro, test_wrapped, test_zuko

from npflows import convert

FREE = [
    r"q_vectors, .* on axis 0",  # any number of reflections
    r"u_unnormed, .* on axis 0",
    r"phi\.0, .* on axis 1",  # any degree of polynomials, here with one bias for each term
    r"_transforms\.[34]\.(_transforms\.1\.)?_permutation, missing",  # the last transform of all, which has no more
    r"transforms\.1\.phi\.0, missing",
    r"unnormalized_pdf, missing",  # splines of kept features, which are optional
    r"spline_autoregressive_context .*context_layer\.weight, .* on axis 1",  # the one thing that sees the condition
]
"""Damage after which a state dict is that of another flow, complete in itself."""


def damages(a: np.ndarray) -> Iterator[tuple[str, np.ndarray | None]]:
    """None for a tensor that is missing, and the tensor in other shapes, with what was done to it."""
    yield "missing", None
    yield "one more axis", a[None]
    for axis in range(a.ndim):
        if a.shape[axis]:
            yield f"shorter on axis {axis}", np.take(a, range(a.shape[axis] - 1), axis)
            yield f"longer on axis {axis}", np.take(a, [*range(a.shape[axis]), -1], axis)
    if a.ndim > 1:
        yield "flat", a.ravel()
    if len(set(a.shape)) > 1:
        yield "transposed", a.T


def cases() -> dict[str, tuple[Callable, dict, np.ndarray, np.ndarray | None]]:
    """The function, the arrays, rows and conditions of each state dict of tests/fixtures."""
    found = {}
    for library in (test_nflows, test_zuko, test_normflows, test_pyro, test_wrapped):
        kind = library.__name__.rpartition("_")[2]
        for name, given in (library.CASES if kind == "wrapped" else library.OPTIONS).items():
            own = name.partition("_")[0] if kind == "wrapped" else kind
            options = {"transforms": given} if kind == "pyro" else given
            printed = [library.PRINTED.get(f"{name}.{key}") for key in ("x", "condition")]
            found[f"{kind} {name}"] = getattr(convert, f"from_{own}"), options, library.FILES / f"{name}.pt", *printed
    return found


def taken_wrongly(case: str, most: int | None = None) -> list[str]:
    """What is taken over from damaged arrays, `most` tensors at random or all, with other numbers than from whole ones."""
    function, options, path, x, condition = cases()[case]
    arrays, found = convert.read_state_dict(path), []
    wanted, width = function(arrays, **options).log_prob(x, condition), 0 if condition is None else condition.shape[1]
    names = list(arrays) if most is None else np.random.default_rng(len(arrays)).choice(list(arrays), most, replace=False)
    for name in names:
        for what, damaged in damages(arrays[name]):
            given = {key: damaged if key == name else a for key, a in arrays.items() if key != name or damaged is not None}
            try:
                flow = function(given, **options)
            except convert.ConversionError:
                continue
            same = (flow.input_dim, flow.condition_dim) == (x.shape[1], width)
            if not same or not np.array_equal(flow.log_prob(x, condition), wanted):
                found.append(f"{case} {name}, {what}")
    return [one for one in found if not any(re.search(free, one) for free in FREE)]
