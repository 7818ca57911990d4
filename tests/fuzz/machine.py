"""A stateful test with Hypothesis: flows are made, fitted, saved, loaded, pickled, copied, forked and asked, in any order.

    python tests/fuzz/machine.py [RUNS] [SEED]

After every step each flow must have the density that the reference backend computes of the same parameters, and the bits
that the flow which it was copied from had.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import Reference

import npflows

SUPPORTS = [
    None,
    {0: npflows.support.positive()},
    {0: npflows.support.interval(-1.0, 2.0)},
    {1: npflows.support.below(3.0)},
]
TOLERANCE = {"float32": 2e-3, "float64": 1e-9}


@st.composite
def flows(draw):
    """A small flow of any model."""
    options = {
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "condition_dim": draw(st.sampled_from([0, 0, 2])),
        "support": draw(st.sampled_from(SUPPORTS)),
        "activation": draw(st.sampled_from(["relu", "tanh", "silu"])),
        "rng": draw(st.integers(0, 99)),
    }
    kind = draw(st.sampled_from([npflows.MAF, npflows.IAF, npflows.RealNVP, npflows.NeuralSplineFlow]))
    flow = kind(2, draw(st.integers(1, 2)), (4,), **options)
    flow.params = np.random.default_rng(options["rng"]).normal(0, 0.4, flow.num_params)
    return flow


def rows(flow, n, seed):
    """Rows that the flow can have, and conditions."""
    condition = np.random.default_rng(seed).normal(size=(n, flow.condition_dim)) if flow.condition_dim else None
    return flow.sample(n, seed, condition=condition), condition


def in_child(call) -> bool:
    """Whether a call in a forked child is true."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if call() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Flows(RuleBasedStateMachine):
    """Flows and what may be done with them."""

    known = Bundle("known")

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "flow.npz"
        self.last = None

    def teardown(self):
        self.folder.cleanup()

    @rule(target=known, flow=flows())
    def construct(self, flow):
        self.last = flow
        return flow

    @rule(target=known, flow=known, how=st.sampled_from(["file", "pickle", "copy", "configuration"]))
    def twin(self, flow, how):
        if how == "file":
            flow.save(self.path)
            found = npflows.load(self.path)
        elif how == "pickle":
            found = pickle.loads(pickle.dumps(flow))
        elif how == "copy":
            found = copy.deepcopy(flow)
        else:
            found = npflows.create(flow.config.to_dict(), rng=0)
            found.params = flow.params
            found.standardize.set(*(getattr(flow.standardize, name) for name in ("loc", "scale", "factor")))
            if flow.condition_dim:
                found.standardize_condition(flow.condition_loc, flow.condition_scale, flow.conditioning.table[2]
                                            if flow.conditioning.table.shape[1] else np.inf)  # fmt: skip
        x, condition = rows(flow, 7, 1)
        np.testing.assert_array_equal(found.log_prob(x, condition), flow.log_prob(x, condition))
        self.last = found
        return found

    @rule(flow=known, seed=st.integers(0, 9), n=st.sampled_from([2, 30, 80]), threads=st.sampled_from([1, 2, 3]))
    def fit(self, flow, seed, n, threads):
        x, condition = rows(flow, n, seed)
        usable = np.isfinite(x).all(axis=1)
        if flow.support is not None:
            usable &= np.isfinite(flow.log_prob(x, condition))
        if usable.sum() < 2:
            return
        twin = copy.deepcopy(flow)
        x, condition = x[usable], None if condition is None else condition[usable]
        for each, number in ((flow, threads), (twin, 1)):
            npflows.set_num_threads(number)
            each.fit(x, condition=condition, max_epochs=2, batch_size=16, rng=seed, progress=False)
        npflows.set_num_threads(None)
        np.testing.assert_array_equal(flow.params, twin.params)
        self.last = flow

    @rule(flow=known, seed=st.integers(0, 9))
    def fork(self, flow, seed):
        x, condition = rows(flow, 5, seed)
        expected = flow.log_prob(x, condition)
        assert in_child(lambda: np.array_equal(flow.log_prob(x, condition), expected, equal_nan=True))

    @rule(flow=known, seed=st.integers(0, 9))
    def cube(self, flow, seed):
        condition = np.zeros((6, flow.condition_dim)) if flow.condition_dim else None
        x = flow.from_unit_cube(np.random.default_rng(seed).random((6, 2)), condition)
        assert np.isfinite(x).all()
        assert np.isfinite(flow.log_prob(x, condition)).all()

    @rule(flow=known, seed=st.integers(0, 9))
    def draw(self, flow, seed):
        condition = np.zeros((6, flow.condition_dim)) if flow.condition_dim else None
        few, many = (flow.sample(n, seed, condition=None if condition is None else condition[:n]) for n in (3, 6))
        np.testing.assert_array_equal(few, many[:3])

    @rule(flow=consumes(known))
    def reset(self, flow):
        flow.reset(0)
        assert flow.history == {}
        self.last = flow

    @invariant()
    def the_density_is_that_of_the_reference(self):
        if getattr(self, "last", None) is None:
            return
        flow, self.last = self.last, None
        x, condition = rows(flow, 9, 2)
        inside = np.isfinite(x).all(axis=1)
        x, condition = x[inside], None if condition is None else condition[inside]
        found, expected = flow.log_prob(x, condition), Reference(flow).log_prob(x, condition)
        kept = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(found), kept)
        size = np.maximum(1.0, np.abs(expected[kept]))
        tolerance = TOLERANCE[flow.dtype.name]
        assert (np.abs(found[kept] - expected[kept]) <= tolerance * size).all()


def run(runs: int, seed: int = 0) -> None:
    """So many runs of the machine, each of up to 20 steps."""
    warnings.simplefilter("ignore")
    chosen = settings(
        max_examples=runs,
        stateful_step_count=20,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    Flows.TestCase.settings = chosen
    machine = Flows
    machine._hypothesis_internal_use_seed = seed
    run_state_machine_as_test(machine, settings=chosen)
    print(f"{runs} runs of the machine with up to 20 steps (seed {seed}): no failure")


if __name__ == "__main__":
    run(*([int(text) for text in sys.argv[1:]] or [20]))
