"""Steps of training whose parameters stay on the GPU, in numba.cuda's simulator: nobody sees old numbers.

NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_steps.py
"""

from contextlib import nullcontext

import numpy as np
import pytest

from npflows import MAF
from npflows.backends.cuda.memory import Twin
from npflows.training.likelihood import LikelihoodTrainer
from npflows.training.run import Run

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
X = np.random.default_rng(0).normal(size=(12, 2)) @ [[1.0, 0.5], [0.0, 0.2]]
DLOG = np.full(12, -1 / 12)


def make(**options):
    return MAF(2, 1, (4,), rng=1, dtype="float64", **options).to("cuda")


class Steps:
    """A flow with an optimizer, and how steps are taken."""

    def __init__(self):
        self.flow = make()
        self.theta = self.flow.parameters.theta
        self.executable = self.flow.executable()
        self.optimizer = self.executable.optimizer(self.theta, self.flow.parameters.free, 0.01, 0.5)
        self.buffers = self.executable.gradient_buffers({12}, self.theta)[12]
        self.average = self.theta.copy()

    def step(self):
        self.flow.accumulate(X, None, DLOG, self.buffers, log_prob=np.zeros(12))
        return self.optimizer.step(self.buffers, 0.02, self.average, 0.3)

    def interrupted_step(self):
        with self.optimizer.staying():
            self.step()
            raise KeyboardInterrupt


def assert_same(found, expected):
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(own, wanted)


def test_a_fit_has_the_bits_of_one_that_brings_parameters_back_each_step(monkeypatch):
    options = {"max_epochs": 3, "batch_size": 6, "rng": 3, "progress": False, "ema": 0.5, "dropout": 0.2, "patience": 2}
    came = []
    follow = Twin.follow
    monkeypatch.setattr(Twin, "follow", lambda self: (came.append(1) if self.is_ahead else None, follow(self)))
    seen = []

    def callback(flow, record):
        seen.append((flow.params, flow.log_prob(X)))

    flow = make().fit(X, validation_data=X[:4] + 0.01, callbacks=callback, **options)
    assert len(came) == 2 * 3  # theta and its average, once an epoch
    with monkeypatch.context() as patch:
        patch.setattr(Run, "stepping", lambda self: nullcontext())
        expected = make().fit(X, validation_data=X[:4] + 0.01, callbacks=callback, **options)
    assert len(came) == 2 * 3 + 2 * 6
    assert flow.history["validation_loss"] == expected.history["validation_loss"]
    assert_same([flow.params], [expected.params])
    for own, wanted in zip(seen[:3], seen[3:], strict=True):
        assert_same(own, wanted)


def test_programs_see_the_parameters_of_the_last_step_and_the_host_those_before_the_first():
    one, other = Steps(), Steps()
    before = one.theta.copy()
    with one.optimizer.staying():
        for _ in range(3):
            one.step()
            other.step()
            make().log_prob(X)  # whose parameters are others
            np.testing.assert_array_equal(one.flow.log_prob(X), other.flow.log_prob(X))
        np.testing.assert_array_equal(one.theta, before)
    assert_same((one.theta, one.average, one.optimizer.m, one.optimizer.v),
                (other.theta, other.average, other.optimizer.m, other.optimizer.v))  # fmt: skip
    assert (one.theta != before).any()


def test_what_is_written_after_forget_or_an_error_counts():
    one, other = Steps(), Steps()
    start = one.theta.copy()
    with one.optimizer.staying():
        one.step()
        one.optimizer.forget()
        assert (one.theta != start).any()
        one.theta[:] = start
        np.testing.assert_array_equal(one.flow.log_prob(X), other.flow.log_prob(X))
        one.average[:] = start
        one.step()
    other.step()
    assert_same((one.theta, one.average), (other.theta, other.average))
    with pytest.raises(KeyboardInterrupt):
        one.interrupted_step()
    other.step()
    np.testing.assert_array_equal(one.theta, other.theta)
    one.theta[:] = start
    np.testing.assert_array_equal(one.flow.log_prob(X), make().log_prob(X))


def test_a_step_whose_gradient_is_not_finite_changes_nothing():
    one = Steps()
    for _ in range(3):  # of which the last is recorded
        found = one.step()
    assert found.taken
    before = [one.theta.copy(), one.average.copy(), one.optimizer.m.copy(), one.optimizer.v.copy()]
    for _ in range(3):
        one.flow.accumulate(X, None, DLOG * np.nan, one.buffers, log_prob=np.zeros(12))
        found = one.optimizer.step(one.buffers, 0.02, one.average, 0.3)
        assert not found.taken
        assert np.isnan(found.gradient_norm)
    assert_same((one.theta, one.average, one.optimizer.m, one.optimizer.v), before)
    assert one.optimizer.steps == 3
    assert one.step().taken


def test_a_run_that_goes_back_to_its_best_parameters_is_that_of_the_cpu(monkeypatch):
    options = {"max_epochs": 4, "batch_size": 4, "rng": 3, "progress": False, "ema": 0.5, "learning_rate": 0.02}
    monkeypatch.setattr("npflows.training.run.PATIENCE_FOR_BAD_STEPS", 2)
    accumulate, flows = LikelihoodTrainer.accumulate, []

    def failing(self, x, condition, dlog, log_prob, dropout):
        accumulate(self, x, condition, dlog, log_prob, dropout)
        if self.step in (4, 5, 7):
            log_prob[:] = np.nan

    monkeypatch.setattr(LikelihoodTrainer, "accumulate", failing)
    for device in ("cpu", "cuda"):
        flow = MAF(2, 1, (4,), rng=1, dtype="float64").to(device)
        flows.append(flow.fit(X, validation_data=X[:4] + 0.01, **options))
    assert flows[1].history["skipped_steps"] == flows[0].history["skipped_steps"] == [0, 2, 1, 0]
    np.testing.assert_allclose(flows[1].params, flows[0].params, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(flows[1].history["gradient_norm"], flows[0].history["gradient_norm"], rtol=1e-7)
