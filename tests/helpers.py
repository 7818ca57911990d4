"""Helpers of many folders: a short fit, runs that end early, equality to the bit, calls that are refused; and standards to
compare results with: the reference backend, SciPy's distributions, differences."""

import copy
import pickle

import numpy as np
import pytest
import scipy.stats

import npflows
from npflows import Cauchy, Laplace, Logistic, Normal, NormalizingFlow, StudentT, Uniform
from npflows.backends.reference import BACKEND as REFERENCE
from npflows.core import evaluation

COPIES_TOLD = pytest.mark.filterwarnings("ignore:.*rows equal rows before them:UserWarning")
SHARED_TOLD = pytest.mark.filterwarnings("ignore:.*are also rows of x:UserWarning")
NO_DENSITY_TOLD = pytest.mark.filterwarnings("ignore:x has no density:UserWarning")
"""Marks of tests that repeat rows, validate with rows that they train on, or fit whole numbers, and mean to."""
SHORT = {"max_epochs": 4, "batch_size": 64, "rng": 2, "progress": False}
COPIES = {
    "save and load": lambda flow, path: (flow.save(path), npflows.load(path))[1],
    "pickle": lambda flow, path: pickle.loads(pickle.dumps(flow)),
    "deepcopy": lambda flow, path: copy.deepcopy(flow),
}
"""Ways to have a flow a second time, each a function of the flow and a path to write to."""


def fitted(flow, x, **options):
    """The flow after a short fit, silent and with a seed."""
    return flow.fit(x, **{**SHORT, **options})


def same_bits(a, b, *, history=True):
    """Parameters, units and, unless it is to be left out, history of two flows are the same, but for the time it took."""
    np.testing.assert_array_equal(a.params, b.params)
    np.testing.assert_array_equal(a.standardize.table, b.standardize.table)
    if history:
        assert list(a.history) == list(b.history)
        for name in set(a.history) - {"seconds"}:
            np.testing.assert_array_equal(a.history[name], b.history[name], err_msg=name)


def moments(y, weight=None):
    """Mean and variance of each channel of all rows, or of all pixels, over all of which a row's weight holds."""
    y = y.reshape(len(y), -1, y.shape[-1])
    mean = np.average(y.mean(axis=1), axis=0, weights=weight)
    return mean, np.average(((y - mean) ** 2).mean(axis=1), axis=0, weights=weight)


def state(flow):
    """The state of a flow that a call that fails must not change."""
    return flow.params, flow.standardize.table.copy(), dict(flow.history), flow.preprocessing.is_standardized, flow.target


def refused(error, message, call, flow):
    """The call raises, and leaves the flow as it was."""
    before = state(flow)
    with pytest.raises(error, match=message):
        call(flow)
    for a, b in zip(before, state(flow)):
        np.testing.assert_array_equal(a, b)


class Killed(Exception):
    """The end of a run in the middle."""


def kill_after(n):
    """A callback that ends a run after n epochs, or n rounds."""

    def callback(flow, record):
        if record.get("epoch", record.get("round")) == n:
            raise Killed

    return callback


class UntilWorse:
    """A callback that ends a run with the first epoch or round that is clearly worse than the best one so far.

    Whatever trajectory a CPU's last bits give, such a run ends after its best round, and the best round is not its last.

    Parameters
    ----------
    judge : str
        The entry of the history that judges: a loss, which should fall, or an ELBO, which should rise.
    """

    def __init__(self, judge):
        self.judge, self.passed, self.over = judge, [], False

    def __call__(self, flow, record):
        self.passed.append(flow.params)
        losses = self.losses(flow)
        self.over = len(losses) >= 4 and losses[-1] > losses.min() + 0.01
        return self.over

    def losses(self, flow):
        return np.array(flow.history[self.judge]) * (1 if "loss" in self.judge else -1)

    def best(self, flow):
        """The parameters of the best epoch or round."""
        assert self.over, "the run ended before a round was worse than the best"
        return self.passed[np.argmin(self.losses(flow))]


class Reference:
    """A layer or flow as the reference backend computes it; samples are rows (n, input_dim)."""

    def __init__(self, obj):
        self.obj, self.bijection = obj, None
        if isinstance(obj, NormalizingFlow):
            self.bijection = obj.preprocessing.bijection

    def _run(self, program, x, condition, **wanted):
        executable = REFERENCE.compile(program, self.obj.dtype)
        return evaluation.transport(executable, self.obj.state(), x, condition, bijection=self.bijection, **wanted)

    def _map(self, x, condition, inverse):
        is_flow = isinstance(self.obj, NormalizingFlow)
        program = self.obj.program(with_base=False) if is_flow else self.obj.program()
        return self._run(program, x, condition, inverse=inverse)[:2]

    def forward(self, x, condition=None):
        """y (n, d) and log_det (n,), data to latent."""
        return self._map(x, condition, False)

    def inverse(self, y, condition=None):
        """x (n, d) and log_det (n,), latent to data."""
        return self._map(y, condition, True)

    def log_prob(self, x, condition=None):
        """The log-density (n,) under a flow."""
        return self._run(self.obj.program(), x, condition, log_prob=True).log_prob


def scipy_distribution(base):
    """SciPy's distribution of the columns of a base."""
    if isinstance(base, Normal):
        params = base.named_params()
        return scipy.stats.norm(params["loc"], np.exp(params["log_scale"]) if base.learnable else params["scale"])
    if isinstance(base, Uniform):
        return scipy.stats.uniform(base.low, base.high - base.low)
    for cls, twin in ((Laplace, scipy.stats.laplace), (Cauchy, scipy.stats.cauchy), (Logistic, scipy.stats.logistic)):
        if isinstance(base, cls):
            loc, log_scale = (values.astype(float) for values in base.named_params().values())
            return twin(loc, np.exp(log_scale))
    assert isinstance(base, StudentT)
    return scipy.stats.t(base.degrees_of_freedom)


def jacobian(function, x, step=1e-5):
    """d result[i] / d x[j] (n, i, j) of a function of rows at x (n, d) by central differences, in one call."""
    n, d = x.shape
    moves = step * np.eye(d)
    ends = np.concatenate([x[:, None] + moves, x[:, None] - moves], axis=1).reshape(-1, d)
    results = np.reshape(function(ends), (n, 2, d, -1))
    return np.moveaxis(results[:, 0] - results[:, 1], 1, 2) / (2 * step)


class NumpyWithNan:
    """NumPy whose `empty` gives doubles that are signaling NaN: arithmetic with one of them is a floating-point error."""

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, *args, **kwargs):
        array = np.empty(*args, **kwargs)
        if array.dtype == np.float64:
            array.view(np.uint64)[...] = 0x7FF4_0000_0000_0001
        return array
