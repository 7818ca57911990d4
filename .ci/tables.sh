#!/usr/bin/env bash
# Tables of every format, made by the real packages in an environment of its own: each right, or refused with a sentence.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check '.[test,tables]' pandas polars tables awkward anndata pint emcee
NPFLOWS_TEST_PACKAGES=all "$work/venv/bin/python" -m pytest -q -p no:cacheprovider tests/files/test_matrix.py \
  tests/files/test_formats.py tests/core/test_units.py
