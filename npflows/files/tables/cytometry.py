"""Events of flow cytometry in FCS files, by FlowIO."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from npflows.files.tables.source import Source, TableError, from_matrix, package


def open_fcs(path: Path) -> Source:
    """The events of an FCS file, with the names of its channels, in their linear scale."""
    flowio = package("flowio", "FCS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = flowio.FlowData(str(path))
            events = np.reshape(data.as_array(preprocess=True), (-1, data.channel_count))
        names = list(data.pnn_labels)
    except Exception as error:  # whatever damage makes of a file
        if isinstance(error, FileNotFoundError):
            raise
        raise TableError(f"{path} looks like FCS, and can't be read as FCS ({error})") from None
    return from_matrix(str(path), events, names)
