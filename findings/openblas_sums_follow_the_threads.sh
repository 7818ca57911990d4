#!/usr/bin/env bash
# A weighted mean by NumPy's @ has other last bits with one thread of OpenBLAS than with two, for a table of one column.
#
# Behavior (numpy 2.4.6 from PyPI, OpenBLAS): shares (65536,) @ x (65536, 1) gives one number with OPENBLAS_NUM_THREADS=1
# and another with 2; of eight columns it gives the same bits.  numpy.einsum gives the same bits always.
# One would expect: the bits of a sum to follow from the data, or at least to differ for all shapes alike.
# It matters where a program promises that a seed gives the same bits on every machine: the number of CPUs enters its means.
set -euo pipefail
[ "$(nproc)" -ge 2 ] || { echo "needs two CPUs"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6
cat > "$work/sums.py" <<'PY'
import numpy as np

shares = np.full(65536, 1 / 65536)
for d in (1, 8):
    x = np.random.default_rng(0).standard_normal((65536, d))
    print(d, (shares @ x).tobytes().hex()[:16], np.einsum("n,nd->d", shares, x).tobytes().hex()[:16])
PY
one=$(OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" "$work/sums.py")
two=$(OPENBLAS_NUM_THREADS=2 "$work/venv/bin/python" "$work/sums.py")
printf 'columns, @, einsum\none thread\n%s\ntwo threads\n%s\n' "$one" "$two"
[ "$(sed -n 1p <<<"$one" | cut -d' ' -f2)" != "$(sed -n 1p <<<"$two" | cut -d' ' -f2)" ]  # @ of one column differs
[ "$(sed -n 2p <<<"$one")" = "$(sed -n 2p <<<"$two")" ]                                   # of eight it does not
[ "$(cut -d' ' -f3 <<<"$one")" = "$(cut -d' ' -f3 <<<"$two")" ]                           # einsum never does
echo "as described"
