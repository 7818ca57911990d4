"""Copies of a flow in another dtype, or without columns of whole numbers."""

from __future__ import annotations

import json

import numpy as np

from npflows.distribution.transformed import TransformedDistribution
from npflows.files.archive import read_json
from npflows.files.flow_file import pack, unpack


def float64_copy(flow: TransformedDistribution) -> tuple[TransformedDistribution | None, str]:
    """The flow itself where it computes in float64, else a copy that does, or None and the reason."""
    if flow.dtype == np.float64:
        return flow, ""
    try:
        return copy_of(flow, "float64"), ""
    except Exception as error:  # from the constructor of a class of the user's own
        return None, f"no float64 copy ({error})"


def copy_of(flow: TransformedDistribution, dtype: str, *, without_whole_numbers: bool = False) -> TransformedDistribution:
    """A copy that computes in another dtype, its columns of whole numbers the intervals of their cells perhaps."""
    arrays = pack(flow)
    if without_whole_numbers:
        about = read_json(str(arrays["about"]))
        if flow.preprocessing.is_image:
            about["config"].update({"levels": None, "alpha": None})
            about["pixel_dtype"] = None
        for column in about["config"].get("support") or ():
            if column["class"] == "Integer":
                low, high = column["config"]["low"], column["config"]["high"]
                column.update({"class": "Interval", "config": {"low": low, "high": high + 1}})
        del about["checksum"], arrays["checksum"]
        arrays["about"] = np.array(json.dumps(about))
    classes = [type(part) for part in (flow, flow.base, *flow.flow_layers, *(leaf for leaf, _ in flow.leaves))]
    return unpack(arrays, "the flow", dtype, classes).to(flow.device)
