#!/usr/bin/env bash
# XLA's flag for the highest instruction set on a CPU does not reach matrix products.
#
# Behavior (jax and jaxlib 0.10.2): with XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 a jitted product of 512 x 512 matrices in float32
# runs as fast as without, at a rate that vectors of 128 bits cannot reach.  YNNPACK makes it, and looks at the CPU by itself.
# With --xla_cpu_experimental_ynn_fusion_type= (empty) oneDNN makes it, which goes by ONEDNN_MAX_CPU_ISA and not by XLA's flag.
# One would expect: a program whose instruction set is limited is limited in its products, which are most of its work.
# It matters where libraries are compared as on another CPU, and where one wants the same bits on unlike CPUs.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "needs an x86-64 CPU"; exit 0; }
grep -q avx2 /proc/cpuinfo || { echo "needs a CPU with AVX2"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$work/rate.py" <<'PY'
import time

import jax
import jax.numpy as jnp

a, b = jax.random.normal(jax.random.key(0), (2, 512, 512), "float32")
product = jax.jit(jnp.matmul)
product(a, b).block_until_ready()
seconds = []
for _ in range(300):
    started = time.perf_counter()
    product(a, b).block_until_ready()
    seconds.append(time.perf_counter() - started)
print(2e-9 * 512**3 / min(seconds))
PY
cpu=$(python3 -c "import os; print(min(os.sched_getaffinity(0)))")
rate() { JAX_PLATFORMS=cpu taskset -c "$cpu" "$work/venv/bin/python" "$work/rate.py"; }

"$work/venv/bin/python" -c 'import jax, jaxlib; print("jax", jax.__version__, "jaxlib", jaxlib.__version__)'
free=$(rate)
flag=$(XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 rate)
without="--xla_cpu_max_isa=SSE4_2 --xla_cpu_experimental_ynn_fusion_type="
onednn=$(XLA_FLAGS="$without" rate)
held=$(XLA_FLAGS="$without" ONEDNN_MAX_CPU_ISA=SSE41 rate)
echo "GFLOP/s of one thread: free $free, XLA's flag $flag, and without YNNPACK $onednn, and with oneDNN's variable $held"
python3 - "$free" "$flag" "$onednn" "$held" <<'PY'
import sys

free, flag, onednn, held = map(float, sys.argv[1:])
assert flag > 0.6 * free, "XLA's flag reaches products now"
assert onednn > 0.6 * free, "XLA's flag reaches oneDNN's products now"
assert held < 0.4 * free, "oneDNN's variable does not hold its products"
PY
