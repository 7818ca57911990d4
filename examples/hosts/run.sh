#!/usr/bin/env bash
# Runs the examples of this folder with the pinned hosts in an environment of its own: those without PyTorch, or with it.
#
#     bash examples/hosts/run.sh          # emcee, dynesty, UltraNest, nautilus, SciPy, NumPyro, BlackJAX, PyMC
#     bash examples/hosts/run.sh torch    # pocoMC and nessai; prints what torch_output.txt records
#     bash examples/hosts/run.sh tests    # the first, and the tests of hosts
#
# A second argument is the wheel of npflows to install instead of this checkout.
set -euo pipefail
package=$(realpath "${2:-$(dirname "$0")/../..}")
cd "$(dirname "$0")"
case "${1:-}" in
  "" | tests)
    requirements=requirements.txt
    examples="scipy_distributions emcee_posterior dynesty_evidence ultranest_evidence nautilus_evidence"
    examples="$examples numpyro_posterior blackjax_posterior pymc_posterior"
    ;;
  torch) requirements=requirements-torch.txt examples="pocomc_flow nessai_flow" ;;
  *) echo "run.sh takes nothing, torch or tests, got $1" >&2; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
extra=$([ "${1:-}" = tests ] && echo "[test]" || true)
"$work/venv/bin/pip" install -q --disable-pip-version-check -r "$requirements" "$package$extra"
unset PYTHONPATH
"$work/venv/bin/pip" list --disable-pip-version-check |
  grep -iE '^(npflows|numpy|numba|scipy|emcee|dynesty|ultranest|nautilus-sampler|jax|numpyro|blackjax|pymc|pytensor|nutpie|torch|pocomc|nessai) '
for example in $examples; do
  echo "== $example"
  "$work/venv/bin/python" -W ignore "$example.py" 2> "$work/errors" > "$work/output" || { cat "$work/errors"; exit 1; }
  sed '/^Saving PMC state/d' "$work/output"
done
if [ "${1:-}" = tests ]; then
  cd ../..
  "$work/venv/bin/python" -m pytest -q -p no:cacheprovider tests/hosts
fi
