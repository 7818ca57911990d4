#!/usr/bin/env bash
# pandas keeps times in HDF5 as 64-bit integers, and says so in an attribute alone, in either of two units.
#
# Behavior (pandas 3.1.1, PyTables 3.11.1, h5py 3.16.0): DataFrame.to_hdf of a column of dates, in its fixed format, makes a
# dataset of dtype int64, whose attribute value_type is datetime64[us] or datetime64[ns], as the column was: 2020-01-01 is
# 1577836800000000 in one file and 1577836800000000000 in the other.
# One would expect a dtype that is no integer, or one unit.  It matters because h5py gives a column that can be fitted.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 pandas==3.1.1 tables==3.11.1 h5py==3.16.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import h5py
import numpy as np
import pandas as pd

print("pandas", pd.__version__, "h5py", h5py.__version__)
for unit, expected in (("us", 1577836800000000), ("ns", 1577836800000000000)):
    times = pd.Series(np.array(["2020-01-01"], f"M8[{unit}]"))
    pd.DataFrame({"t": times}).to_hdf("t.h5", key="t", mode="w")
    with h5py.File("t.h5") as file:
        values = file["t/block0_values"]
        print(unit, values.dtype, values[0, 0], values.attrs["value_type"].decode())
        assert values.dtype == np.int64
        assert values[0, 0] == expected
        assert values.attrs["value_type"] == f"datetime64[{unit}]".encode()
PY
