"""The moving average of the parameters: no worse than the last ones in short runs, with any decay."""

import numpy as np
import pytest
from helpers import fitted

import npflows
from npflows.training.run import Run
from npflows.training.settings import TrainingSettings


def table(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 2))
    x[:, 1] = 0.2 * x[:, 1] + x[:, 0] ** 2
    return x


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999, 0.99999])
def test_a_short_run_loses_nothing_by_it(decay):
    scores = []
    for ema in (None, decay):
        flow = npflows.MAF(2, 3, (16,), rng=0)
        fitted(flow, table(500, 0), ema=ema, max_epochs=25, batch_size=128, learning_rate=3e-3)
        scores.append(flow.log_prob(table(2000, 1)).mean())
    assert scores[1] > scores[0] - 0.1


@pytest.mark.parametrize("decay", [0.99, 0.999])
def test_a_short_variational_run_loses_nothing_by_it(decay):
    def target(x):
        return -2 * ((x - 2) ** 2).sum(axis=1), -4 * (x - 2)

    flow = npflows.RealNVP(2, 2, (8,), rng=0)
    flow.fit_variational(target, max_steps=400, learning_rate=1e-2, ema=decay, batch_size=64, rng=0, progress=False)
    assert flow.importance_weights(2000, rng=1).ess > 1600


def test_what_is_not_free_keeps_its_bits():
    base = npflows.Normal(2, [0.1, -0.7], [1 / 3, 0.3])
    flow = npflows.MAF(2, 2, (8,), base_distribution=base, rng=0)
    flow.parameters.theta[np.flatnonzero(~flow.parameters.free)[0]] = -0.0
    fixed = ~flow.parameters.free
    before = flow.parameters.theta[fixed].tobytes()
    fitted(flow, table(500, 0), ema=0.9, max_epochs=20)
    assert flow.parameters.theta[fixed].tobytes() == before
    assert flow.history["epoch"][-1] == 20


def test_the_average_starts_afresh_after_a_recovery():
    flow = npflows.MAF(2, 1, (8,), rng=0)
    settings = TrainingSettings(None, 1e-2, "constant", 0, 0.0, None, None, 0.999, None, False, 0, False, ())
    run = Run(flow, {10}, **settings.for_run(flow, 100))
    run.averaged, run.bad_in_row = 50, 4
    run.take_step(10, np.nan, 1e-2)
    assert (run.averaged, run.recoveries) == (0, 1)
