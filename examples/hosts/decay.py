"""What the examples of this folder share: a first experiment's posterior as a flow, and a second experiment's likelihood.

A source decays as a exp(-k t).  The first experiment left samples of a and k, both positive and correlated; a flow fitted
to them is the prior of the second, which counted 200 events where a exp(-k / 2) of them were expected.
"""

import math

import numpy as np

import npflows
from npflows.support import positive

NAMES = ["a", "k"]


def prior() -> npflows.NormalizingFlow:
    """The first experiment's posterior."""
    rng = np.random.default_rng(5)
    log_k = 0.3 * rng.standard_normal(4000)
    samples = np.exp(np.stack([5.3 + log_k + 0.2 * rng.standard_normal(4000), log_k], axis=1))
    flow = npflows.MAF(2, num_layers=3, hidden_dims=(32,), support=[positive(), positive()], columns=NAMES, rng=0)
    return flow.fit(samples, max_epochs=20, rng=0, progress=False)


def log_likelihood(x: np.ndarray) -> np.ndarray:
    """The second experiment: 200 counts, at x (..., 2)."""
    expected = x[..., 0] * np.exp(-0.5 * x[..., 1])
    return 200 * np.log(expected) - expected - math.lgamma(201)


def log_evidence(flow: npflows.NormalizingFlow, n: int = 400_000) -> tuple[float, float]:
    """log Z as a mean of the likelihood over samples of the prior, and its error: what every sampler is to find."""
    values = np.exp(log_likelihood(flow.sample(n, rng=1)))
    return math.log(values.mean()), float(values.std() / values.mean() / math.sqrt(n))


def compare(host: str, log_z: float, error: float, flow: npflows.NormalizingFlow) -> None:
    """Print a sampler's evidence beside the plain mean's, and stop if they contradict each other."""
    reference, its_error = log_evidence(flow)
    print(f"{host}: log Z = {log_z:.3f} +- {error:.3f}, a plain mean over the prior {reference:.3f} +- {its_error:.3f}")
    if abs(log_z - reference) > 5 * math.hypot(error, its_error):
        raise SystemExit(f"{host}: the evidence is wrong")
