#!/usr/bin/env bash
# astropy reads a null integer of a FITS table as a number where the column has a scale: it compares TNULL with scaled values.
#
# Behavior (astropy 8.0.2): of stored 16-bit integers 1, 2 and -99 with TNULL1 = -99, TSCAL1 = 0.5 and TZERO1 = 10,
# Table.read gives 10.5, 11 and -39.5, none of them masked.  Without TSCAL1 and TZERO1 the -99 is masked.
# One would expect the third to be masked in both: by the FITS standard 4.0, 7.3.2, TNULL is the value that is stored.
# It matters because catalogs pack columns into scaled integers, and -39.5 passes every check for finite values.
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
column = fits.Column("s", "I", null=-99, array=np.array([1, 2, -99], np.int16))
fits.BinTableHDU.from_columns([column]).writeto("plain.fits")
raw = open("plain.fits", "rb").read()
end = raw.index(b"END" + b" " * 77, 2880)
cards = b"TSCAL1  =                  0.5".ljust(80) + b"TZERO1  =                 10.0".ljust(80) + b"END".ljust(80)
open("scaled.fits", "wb").write(raw[:end] + cards + raw[end + len(cards) :])
plain, scaled = Table.read("plain.fits")["s"], Table.read("scaled.fits")["s"]
print("without a scale:", plain.tolist(), "with one:", scaled.tolist())
assert plain.tolist() == [1, 2, None]
assert scaled.tolist() == [10.5, 11.0, -39.5], "the null value is masked now"
print("a null value that has a scale is read as a number")
PY
