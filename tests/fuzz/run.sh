#!/usr/bin/env bash
# Random and hostile use, in an environment of its own with Hypothesis: about a minute, or the ten minutes of "full".
#
#     bash tests/fuzz/run.sh [full] [SEED]
#     PYTHON=python bash tests/fuzz/run.sh     # in an environment that has npflows[fuzz], whose kernels are compiled already
set -euo pipefail
cd "$(dirname "$0")/../.."
size=quick seed=0
for given in "$@"; do
  case "$given" in
    full) size=full ;;
    *[!0-9]* | "") echo "run.sh takes full and a seed, got $given" >&2; exit 2 ;;
    *) seed=$given ;;
  esac
done
python=${PYTHON:-}
if [ -z "$python" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q --disable-pip-version-check '.[fuzz]'
  unset PYTHONPATH
  python=$work/venv/bin/python
fi
run() { printf '\n== %s\n' "$*"; "$python" "tests/fuzz/$1.py" "${@:2}"; }
if [ "$size" = full ]; then
  run machine 150 "$seed"; run calls 60000 "$seed"; run damage 60000 "$seed"
  run kills 1000 "$seed"; run interrupts 5000 "$seed"; run forks 500 "$seed"
else
  run machine 3 "$seed"; run calls 1500 "$seed"; run damage 1500 "$seed"
  run kills 20 "$seed"; run interrupts 100 "$seed"; run forks 5 "$seed"
fi
