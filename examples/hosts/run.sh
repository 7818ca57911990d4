#!/usr/bin/env bash
# Runs the examples of this folder with the pinned hosts in an environment of its own: those without PyTorch, or with it.
#
#     bash examples/hosts/run.sh          # emcee, dynesty, UltraNest, nautilus, SciPy
#     bash examples/hosts/run.sh torch    # pocoMC and nessai; prints what torch_output.txt records
set -euo pipefail
cd "$(dirname "$0")"
case "${1:-}" in
  "") requirements=requirements.txt examples="scipy_distributions emcee_posterior dynesty_evidence ultranest_evidence nautilus_evidence" ;;
  torch) requirements=requirements-torch.txt examples="pocomc_flow nessai_flow" ;;
  *) echo "run.sh takes nothing or torch, got $1" >&2; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check -r "$requirements" ../..
unset PYTHONPATH
"$work/venv/bin/pip" list --disable-pip-version-check | grep -iE '^(npflows|numpy|numba|scipy|emcee|dynesty|ultranest|nautilus-sampler|torch|pocomc|nessai) '
for example in $examples; do
  echo "== $example"
  "$work/venv/bin/python" -W ignore "$example.py" 2> "$work/errors" > "$work/output" || { cat "$work/errors"; exit 1; }
  sed '/^Saving PMC state/d' "$work/output"
done
