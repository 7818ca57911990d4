#!/usr/bin/env bash
# Numba's disk cache keeps running an old helper after the helper's file was edited.
#
# Behavior (numba 0.61.2): a function with cache=True that calls a compiled helper from another file is loaded from the
# disk cache in the next process although the helper has changed in between.  The result is that of the old helper.
# One would expect: the cache notices that code which was compiled into the function has changed, as a build tool does.
# Reason: an entry is judged by the time stamp and size of the one source file in which the cached function stands.
# It matters for every library with kernels in several files: an upgrade or an edit silently runs old numerics.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check numba==0.61.2 numpy==2.2.6
cd "$work"
cat > kernel.py <<'PY'
import numba
from helper import shift


@numba.njit(cache=True)
def f(x):
    return shift(x)
PY
helper() {
  printf 'import numba\n\n\n@numba.njit\ndef shift(x):\n    return x + %s\n' "$1" > helper.py
}
run() {
  PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" -c "from kernel import f; print(f(1.0))"
}
"$work/venv/bin/python" -c "import numba, numpy; print('numba', numba.__version__, 'numpy', numpy.__version__)"
helper 1.0
first=$(run)
helper 2.0
second=$(run)
rm -rf __pycache__
third=$(run)
echo "helper adds 1: $first; helper adds 2: $second; the same without the cache: $third"
[ "$first" = 2.0 ] && [ "$second" = 2.0 ] && [ "$third" = 3.0 ] || { echo "the behavior has changed"; exit 1; }
echo "the cache still runs the old helper"
