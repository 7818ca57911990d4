#!/usr/bin/env bash
# Numba 0.68.1: NUMBA_CPU_NAME=nocona alone, a CPU of 2004 without AVX, still gives code with AVX instructions wherever the
# machine has them, because the features of the host are added to those of the named CPU.
# One would expect code that the named CPU can run, as `clang -march=nocona` makes it, so that the variable is enough to
# compile for an older machine, or to measure what narrower vectors cost.  NUMBA_CPU_FEATURES must be set too, to the empty
# string; the documentation says of either variable that it is for cross-compiling, not that the first needs the second.
# Ends with 1 if that changes, and with 0 on a machine without AVX, where there is nothing to see.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numba==0.68.1 numpy==2.4.6 llvmlite==0.50.0
cat > "$folder/ask.py" <<'END'
import os

import llvmlite
import numba
import numpy as np


@numba.njit(fastmath=True)
def axpy(a, x, y):
    for i in range(x.size):
        y[i] += a * x[i]


axpy(np.float32(2), np.ones(64, np.float32), np.ones(64, np.float32))
code = next(iter(axpy.inspect_asm().values()))
wide = "ymm" in code or "zmm" in code
print(f"numba {numba.__version__}, llvmlite {llvmlite.__version__}, NUMBA_CPU_NAME={os.environ.get('NUMBA_CPU_NAME')}, "
      f"NUMBA_CPU_FEATURES={os.environ.get('NUMBA_CPU_FEATURES')!r}: AVX registers {'used' if wide else 'not used'}")
raise SystemExit(10 if wide else 11)
END
ask() { local rc=0; env "$@" "$folder/venv/bin/python" "$folder/ask.py" || rc=$?; echo "$rc" > "$folder/rc"; }
ask NUMBA_DEBUG=0
host=$(cat "$folder/rc")
[ "$host" = 10 ] || { echo "this machine has no AVX"; exit 0; }
ask NUMBA_CPU_NAME=nocona
named=$(cat "$folder/rc")
ask NUMBA_CPU_NAME=nocona NUMBA_CPU_FEATURES=
both=$(cat "$folder/rc")
if [ "$named" = 10 ] && [ "$both" = 11 ]; then
  echo "as described: the name alone leaves the host's features on"
else
  echo "this has changed"
  exit 1
fi
