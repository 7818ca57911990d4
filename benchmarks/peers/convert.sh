#!/usr/bin/env bash
# Compare what npflows.convert makes of live flows with their libraries, in float64 and float32, and what it makes there of
# flows of npflows.
#
#     bash benchmarks/peers/convert.sh FOLDER    # an environment is made in FOLDER/convert, if it is not there
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=${1:?give a folder for the environment}/convert
if [ ! -e "$environment/bin/python" ]; then
  python3 -m venv "$environment"
  "$environment/bin/pip" install -q --disable-pip-version-check -r benchmarks/peers/requirements-convert.txt
fi
export PYTHONPATH=$PWD
for script in nflows normflows zuko flowjax pyro pzflow wrapped; do
  echo "$script"
  "$environment/bin/python" -W ignore "tests/fixtures/make_$script.py" --check
done
echo "to zuko and flowjax"
"$environment/bin/python" -m pytest -q -p no:cacheprovider -W ignore tests/convert/test_outgoing.py
