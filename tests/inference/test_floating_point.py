"""With `np.seterr(all="raise")` nothing that npflows computes on valid input reaches the user as a FloatingPointError."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest

from npflows import MAF, Glow, NeuralSplineFlow, RealNVP, base, diagnostics
from npflows import support as s

RNG = np.random.default_rng(0)
N = 200
X = np.column_stack([RNG.standard_normal(N), np.exp(RNG.standard_normal(N))])
WIDE = np.column_stack(
    [X, RNG.uniform(0.001, 0.999, N), RNG.uniform(-3, 3, N), RNG.poisson(3, N), -np.exp(RNG.standard_normal(N))]
)
SUPPORT = [s.real(), s.positive(), s.interval(0, 1), s.periodic(-np.pi, np.pi), s.integer(0, 30), s.real()]
FAR = np.array([[1e300, 1.0], [0.0, 1e-300], [-np.inf, 1.0], [np.nan, 1.0], [30.0, -1e300], [1e-320, 1e-320]])
WEIGHTS = np.exp(-RNG.exponential(60, N))
FIT = {"max_epochs": 2, "batch_size": 64, "rng": 0, "progress": False}
FLOWS = {
    "MAF": lambda: MAF(2, 2, (8,), rng=0),
    "spline flow": lambda: NeuralSplineFlow(2, 2, (8,), tail_bound=20, rng=0),
    "RealNVP in float64": lambda: RealNVP(2, 2, (8,), dtype="float64", rng=0),
    "heavy base, actnorm": lambda: MAF(2, 2, (8,), base_distribution="student_t", actnorm=True, rng=0),
    "positive column": lambda: MAF(2, 2, (8,), support=[s.real(), s.positive()], rng=0),
    "uniform base": lambda: NeuralSplineFlow(
        2, 2, (8,), linear="permutation", base_distribution=base.Uniform(2, -3, 3), rng=0),
}  # fmt: skip
METHODS = {
    "log_prob": lambda f: (f.log_prob(X), f.log_prob(FAR), f.log_prob(X * 1e-200)),
    "log_prob_and_grad": lambda f: (f.log_prob_and_grad(X), f.log_prob_and_grad(FAR)),
    "nll_and_grad": lambda f: f.nll_and_grad(X, WEIGHTS),
    "forward": lambda f: (f.forward(X), f.forward(FAR), f(X)),
    "inverse": lambda f: f.inverse(np.array([[1e-320, 40.0], [-40.0, 1e30]])),
    "sample": lambda f: (f.sample(500, 0), f.sample(500, 0, 1e-310), f.sample_and_log_prob(500, 0, 1e-3)),
    "unit cube": lambda f: (
        f.from_unit_cube(np.array([[0.0, 1.0], [1e-320, 0.5], [0.3, 1 - 1e-16]])), f.to_unit_cube(FAR[:3])),
    "entropy": lambda f: (f.entropy(500, 0), f.kl_divergence(f, 500, 0)),
    "mode": lambda f: f.mode(rng=0, starts=2),
    "marginal": lambda f: (f.marginal(0, rng=0), f.marginal(1, np.linspace(1, 1e4, 9), method="importance", rng=0)),
    "conditional": lambda f: f.conditional(0, {1: 1.0}, np.linspace(-30, 30, 9)),
    "verify": lambda f: f.verify(X[:100], rng=0),
    "fit": lambda f: (f.reset(0).fit(X, sample_weight=WEIGHTS, **FIT), f.fit(X, missing="nan", on_missing="impute", **FIT)),
    "fit in tiny units": lambda f: f.reset(0).fit(X * 1e-200, **FIT),
    "diagnostics": lambda f: (
        diagnostics.pit(f, X, sample_weight=WEIGHTS), diagnostics.coverage(f, X), diagnostics.sbc_ranks(f, X, None, 15, 0),
        diagnostics.tarp_coverage(f, X, None, 15, 0), diagnostics.memorization(f, X[:100], X[100:], n_samples=50, rng=0)),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.filterwarnings("ignore:few samples", "ignore:x has standardized values", "ignore:the weights are worth")
def test_no_floating_point_error_reaches_the_user(kind, method):
    flow = FLOWS[kind]().fit(np.abs(X), **FIT)
    # a density of 0 where one is asked for, or a far row for a diagnostic, may be refused
    with np.errstate(all="raise"), contextlib.suppress(ValueError):
        METHODS[method](flow)


@pytest.mark.filterwarnings("ignore:x has standardized values")
def test_nor_with_every_support():
    flow = NeuralSplineFlow(6, 2, (8,), linear="permutation", support=SUPPORT, rng=0)
    far = np.array(
        [[1e300, 1, 0.5, 0, 3, 0], [0, 1e-320, 1e-320, 0, 3, 0], [0, 1e300, 1, 9, 30, 0], [0, -1, 0.5, 1e300, 3.5, -np.inf]]
    )
    with np.errstate(all="raise"):
        flow.fit(WIDE, **FIT)
        for x in (WIDE, far):
            flow.log_prob(x), flow.log_prob_and_grad(x), flow.forward(x)
        flow.to_unit_cube(WIDE)
        flow.sample_and_log_prob(500, 0)
        flow.sample(500, 0, 5.0)
        flow.from_unit_cube(RNG.random((100, 6)) ** 20)
        flow.marginal([1, 2], n_samples=2000, rng=0)


def test_nor_with_images():
    images = RNG.integers(0, 4, (30, 4, 4, 1))
    with np.errstate(all="raise"):
        flow = Glow((4, 4, 1), 1, 1, (8,), levels=4, alpha=0.01, rng=0).fit(images, **FIT)
        flow.log_prob(images), flow.log_prob_and_grad(images[0]), flow.sample(20, 0, 100.0)
        flow.interpolate(images[0], images[1], 3)


def test_nor_from_weights_and_evidence():
    flow = MAF(2, 1, (8,), rng=0)
    with np.errstate(all="raise"):
        found = flow.importance_weights(500, lambda x: -1e4 * np.minimum(x**2, 1e10).sum(axis=1), rng=0)
        assert found.weights.sum() == pytest.approx(1)
        assert np.isfinite([found.ess, found.log_evidence, found.log_evidence_error, found.elbo]).all()
        repr(found)


def test_nor_from_a_fit_to_a_density_whose_own_errors_are_the_users():
    def target(x):
        return -0.5 * (x**2).sum(axis=1), -x

    def careless(x):
        np.exp(np.full(3, -1e4))
        return target(x)

    options = {"max_steps": 20, "tempering": 0.5, "rng": 0, "progress": False}
    with np.errstate(all="raise"):
        MAF(2, 1, (8,), rng=0).fit_variational(target, **options)
        with pytest.raises(FloatingPointError, match="underflow encountered in exp"):
            MAF(2, 1, (8,), rng=0).fit_variational(careless, **options)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nor_from_a_fit_with_a_condition_near_the_largest_float():
    x = np.random.default_rng(0).normal(size=(500, 2))
    with np.errstate(all="raise"):
        MAF(2, 1, (8,), condition_dim=1, rng=0).fit(
            x, condition=np.append(x[1:, :1], [[1e300]], 0), max_epochs=1, progress=False
        )


def test_modules_that_are_imported_late_compute_nothing_that_raises():
    """Kernels are imported with the first flow, when the user's program has long called seterr."""
    code = """
import importlib, pkgutil
import numpy as np, numba, scipy.special, scipy.stats, scipy.optimize, scipy.integrate, sklearn.base, matplotlib.figure
np.seterr(all="raise")
import npflows
others = ("npflows.hosts.", "npflows.__main__", "npflows.backends.cuda", "npflows.convert.in_")
names = [m.name for m in pkgutil.walk_packages(npflows.__path__, "npflows.") if not m.name.startswith(others)]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 200
