#!/usr/bin/env bash
# A masked column of an astropy table comes back from HDF5 without its mask, and what the mask hid as plain numbers.
#
# Behavior (astropy 8.0.2, h5py 3.16.0): Table.write("t.hdf5", path="t"), with the defaults, writes the values beneath the mask,
# and the mask as a column of truth values, a.mask.  Table.read gives a column a that is not masked, with the -999 in it, and
# one more column called a.mask.  With serialize_meta=True the mask comes back.  The warning on writing names an attribute,
# __serialized_columns__, and no mask.
# One would expect the same masked column, as from FITS, VOTable, ECSV and Parquet, or an error.
# It matters because a mean, or a fit, of the column goes through the fill values.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 astropy==8.0.2 h5py==3.16.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import astropy
import h5py
import numpy as np
from astropy.table import MaskedColumn, Table

print("astropy", astropy.__version__, "h5py", h5py.__version__, "numpy", np.__version__)
table = Table({"a": MaskedColumn([1.0, -999.0, 3.0], mask=[False, True, False]), "b": [1.0, 2.0, 3.0]})
table.write("plain.hdf5", path="t")
table.write("noted.hdf5", path="t", serialize_meta=True)
plain, noted = Table.read("plain.hdf5", path="t"), Table.read("noted.hdf5", path="t")
print("with the defaults:", plain.colnames, plain["a"].tolist(), "mean", plain["a"].mean())
print("with serialize_meta=True:", noted.colnames, noted["a"].tolist(), "mean", noted["a"].mean())
assert noted.colnames == ["a", "b"] and noted["a"].tolist() == [1.0, None, 3.0]
assert plain.colnames == ["a", "a.mask", "b"] and not plain.has_masked_values, "the mask comes back now"
assert plain["a"].tolist() == [1.0, -999.0, 3.0]
print("what was masked is a number")
PY
