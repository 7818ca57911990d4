#!/usr/bin/env bash
# pocoMC's evidence is too large by the share of the prior in which the likelihood is not 0, where -inf says that it is 0.
#
# Behavior (pocomc 1.2.6): with precondition=False, or n_evidence=0, the evidence is that of the sequential sampler.  Particles
# drawn from the prior whose log-likelihood is -inf are replaced by copies of others (Sampler.run), and no weight remembers
# how many there were: the evidence is divided by the share of the prior that was left.  With -1e100 instead it is right.
# One would expect: log-likelihoods of -inf and of -1e100 give the same evidence, as both likelihoods are 0.
# It matters where models are compared and a likelihood is 0 in a part of the prior.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install -q --disable-pip-version-check pocomc==1.2.6 scipy
"$work/venv/bin/python" - <<'PY'
import importlib.metadata
import math

import numpy as np
import pocomc
from scipy import stats

print("pocomc", importlib.metadata.version("pocomc"))


def error(zero):
    """How far log Z is off for a likelihood that is 1 in a quarter of the prior and 0 in the rest."""

    def log_likelihood(x):
        return np.where(x[:, 0] < 0.25, -0.5 * ((x[:, 1] - 0.5) / 0.1) ** 2, zero)

    prior = pocomc.Prior([stats.uniform(0, 1)] * 2)
    sampler = pocomc.Sampler(prior, log_likelihood, n_dim=2, vectorize=True, precondition=False, random_state=0)
    sampler.run(n_total=2048, progress=False)
    return sampler.evidence()[0] - math.log(0.25 * 0.1 * math.sqrt(2 * math.pi) * (2 * stats.norm.cdf(5) - 1))


wrong, right = error(-np.inf), error(-1e100)
print(f"log Z is off by {wrong:.3f} with -inf, by {right:.3f} with -1e100; log 4 = {math.log(4):.3f}")
assert abs(wrong - math.log(4)) < 0.4, "the evidence is no longer too large by log 4"
assert abs(right) < 0.4
print("the share of the prior with likelihood 0 is lost from the evidence")
PY
