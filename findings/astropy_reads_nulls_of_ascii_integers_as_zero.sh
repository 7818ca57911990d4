#!/usr/bin/env bash
# A null integer of a FITS ASCII table is 0 to astropy.io.fits, and such a table can't be read as a Table at all.
#
# Behavior (astropy 8.0.2): in an ASCII table with TFORM1 = 'I6' and TNULL1 = '---', fits.getdata gives 0 for a field of dashes,
# where the same field of a column F8.3 is NaN, and Table.read raises a TypeError ("Cannot set fill value of string").
# One would expect a masked entry from Table.read, as of a binary table: by the FITS standard 4.0, 7.2.3, TNULL is the text that
# stands for an undefined value.
# It matters because catalogs of the archives are ASCII tables with dashes, and a 0 is a count, a flag or an identifier.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 astropy==8.0.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import astropy
import numpy as np
from astropy.io import fits
from astropy.table import Table

print("astropy", astropy.__version__, "numpy", np.__version__)
columns = [
    fits.Column("k", "I6", null="---", array=np.array([1, 2, 3])),
    fits.Column("x", "F8.3", null="---", array=np.array([1.0, 2.0, 3.0])),
]
fits.TableHDU.from_columns(columns).writeto("full.fits")
with open("full.fits", "rb") as file:
    raw = file.read()
for field in (b"     2", b"   2.000"):
    at = raw.index(field, 5760)
    raw = raw[:at] + b"---".rjust(len(field)) + raw[at + len(field) :]
with open("null.fits", "wb") as file:
    file.write(raw)
data = fits.getdata("null.fits", 1)
print("integers", data["k"].tolist(), "numbers", data["x"].tolist())
assert data["k"].tolist() == [1, 0, 3], "the null integer is no 0 now"
assert np.isnan(data["x"][1])
try:
    Table.read("null.fits")
except TypeError as error:
    print("Table.read:", error)
else:
    raise AssertionError("Table.read takes it now")
PY
