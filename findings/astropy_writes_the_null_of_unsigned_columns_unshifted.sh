#!/usr/bin/env bash
# A masked unsigned integer that astropy writes to FITS is a number to other readers: TNULL is not the value that is stored.
#
# Behavior (astropy 8.0.2): a masked column of uint16 is written with TZERO1 = 32768 and TNULL1 = 16959.  The masked entry is
# stored as 16959 - 32768 = -15809.  astropy itself masks it when it reads; fitsio 1.4.2, which is cfitsio, gives 16959.
# One would expect TNULL1 = -15809: by the FITS standard 4.0, 7.3.2, TNULL is the integer that is stored, before TZERO.
# It matters because catalogs have identifiers and counts as unsigned integers, and a value that is stored as 16959, which is
# 49727, would be null to every reader that follows the standard.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 astropy==8.0.2 fitsio==1.4.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import astropy
import fitsio
import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table

print("astropy", astropy.__version__, "fitsio", fitsio.__version__, "numpy", np.__version__)
Table({"a": MaskedColumn(np.array([1, 2, 3], np.uint16), mask=[False, True, False])}).write("t.fits")
with fits.open("t.fits") as file:
    header, start = file[1].header, file[1].fileinfo()["datLoc"]
with open("t.fits", "rb") as file:
    stored = np.frombuffer(file.read()[start : start + 6], ">i2")
print("TNULL1", header["TNULL1"], "TZERO1", header["TZERO1"], "stored", stored.tolist())
print("astropy reads", Table.read("t.fits")["a"].tolist(), "fitsio reads", fitsio.read("t.fits")["a"].tolist())
assert header["TZERO1"] == 32768 and stored.tolist() == [-32767, -15809, -32765]
assert header["TNULL1"] == 16959, "TNULL is what is stored now"
assert Table.read("t.fits")["a"].tolist() == [1, None, 3]
assert fitsio.read("t.fits")["a"].tolist() == [1, 16959, 3]
print("the null value is no value that is stored")
PY
