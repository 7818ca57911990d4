"""What a fit reaches in a given time: held-out nats, how long it really took, and the learning rate at its end.

    NPFLOWS_NUM_THREADS=1 python benchmarks/max_seconds.py 10 30 [--rows 400000]

The table has 40,000 rows, or those of --rows, of 6 columns, from a mixture of twelve bent Gaussians; 20,000 further rows
are held out.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import npflows


def table(n: int, seed: int) -> np.ndarray:
    law, rng = np.random.default_rng(5), np.random.default_rng(seed)
    means, factors = 3 * law.normal(size=(12, 6)), 0.5 * law.normal(size=(12, 6, 6))
    which = rng.integers(12, size=n)
    x = means[which] + np.einsum("nij,nj->ni", factors[which], rng.normal(size=(n, 6)))
    x[:, 1] += 0.3 * x[:, 0] ** 2
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("max_seconds", type=float, nargs="+")
    parser.add_argument("--rows", type=int, default=40_000)
    arguments = parser.parse_args()
    x, held_out = table(arguments.rows, 1), table(20_000, 2)
    npflows.NeuralSplineFlow(6, rng=0).fit(x[:2000], max_epochs=1, progress=False, rng=0).log_prob(held_out)  # compiles
    for max_seconds in arguments.max_seconds:
        for seed in range(2):
            start = time.perf_counter()
            flow = npflows.NeuralSplineFlow(6, rng=seed)
            history = flow.fit(x, max_seconds=max_seconds, progress=False, rng=seed).history
            seconds = time.perf_counter() - start
            print(
                f"max_seconds={max_seconds:g}, seed {seed}: {-flow.log_prob(held_out).mean():.4f} nats held out after "
                f"{seconds:.2f} s and {len(history['epoch'])} epochs, the rate at {history['learning_rate'][-1]:.1e}"
            )


if __name__ == "__main__":
    main()
