"""Supports and whole numbers on the GPU, in numba.cuda's simulator: samples that lie there stay there.

NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_supports.py
"""

import numpy as np
import pytest
from registry import condition
from simulated_arrays import ByDlpack, ByInterface

from npflows import MAF, Glow, NeuralSplineFlow
from npflows.backends.cpu.bijection import CompiledBijection
from npflows.core.gpu_arrays import is_on_gpu
from npflows.support import integer, interval, ordered, periodic, positive, simplex
from npflows.training.held import HeldRows

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
N = 6
SUPPORTS = {
    "half-line and interval": lambda: MAF(2, 1, (4,), support={0: positive(), 1: interval(-2, 2)}, dtype="float64", rng=0),
    "circle": lambda: NeuralSplineFlow(2, 1, (4,), 2, support={1: periodic(-4, 4)}, dtype="float64", rng=0),
    "simplex, condition": lambda: MAF(3, 1, (4,), support=[simplex()] * 3, condition_dim=2, dtype="float64", rng=0),
    "ordered": lambda: MAF(3, 1, (4,), support=[ordered()] * 3, dtype="float64", rng=0),
    "whole numbers, condition": lambda: MAF(
        2, 1, (4,), support={0: integer(0, 9), 1: positive()}, condition_dim=1, dtype="float64", rng=0
    ),
    "pixels": lambda: Glow((2, 2, 1), 1, 1, (3,), levels=256, alpha=0.05, dtype="float64", rng=0),
}
WHOLE = ("whole numbers, condition", "pixels")


def spread(name):
    """A flow of which no part does nothing, with samples and conditions, some of them awkward."""
    flow = SUPPORTS[name]()
    free = flow.parameters.free
    flow.parameters.theta[free] += np.random.default_rng(3).normal(scale=0.2, size=free.sum())
    given = condition(flow, N)
    x = flow.sample(N, rng=1, condition=given).astype(float)
    if name != "pixels":  # which may only be whole numbers
        x[0] = -9  # outside
        x[4, 0] = np.inf
        if name in WHOLE:
            x[5, 0] = 1.5
    x[1, 0] = np.nan
    if given is not None:
        given = given.copy()
        given[2, 0] = np.inf
    return flow.to("cuda"), x, given


def on_the_host_alone(monkeypatch, flow):
    """Fail where samples leave the GPU."""
    fetch = type(flow.executable()).fetch

    def vectors(values):
        found = fetch(values)
        return found if found.ndim == 1 else pytest.fail("samples on the host")

    monkeypatch.setattr(type(flow.executable()), "fetch", staticmethod(vectors))


def assert_close(answer, expected):
    for own, wanted in zip(answer, expected, strict=True):
        if is_on_gpu(own):
            assert own.dtype == wanted.dtype
            own = own.get()
        np.testing.assert_allclose(own, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", SUPPORTS)
def test_values_stay_on_the_gpu(name, monkeypatch):
    flow, x, given = spread(name)
    z = np.random.default_rng(2).normal(size=x.shape)
    z[0] *= 20
    sure = condition(flow, N)
    expected = [flow.log_prob(x, given, draws=3), *flow.forward(x, given), *flow.inverse(z, given)]
    if sure is not None:
        expected.append(flow.sample(N, 3, condition=sure))
    on_the_host_alone(monkeypatch, flow)
    answer = [flow.log_prob(ByDlpack(x), given, draws=3), *flow.forward(ByDlpack(x), given)]
    answer += flow.inverse(ByInterface(z), given)
    if sure is not None:
        answer.append(flow.sample(N, 3, condition=ByDlpack(sure)))
    assert_close(answer, expected)


@pytest.mark.parametrize("name", SUPPORTS)
def test_gradients_stay_on_the_gpu(name, monkeypatch):
    flow, x, given = spread(name)
    rng = np.random.default_rng(2)
    z, slopes, dlog = rng.normal(size=x.shape), rng.normal(size=x.shape), rng.normal(size=N)
    wrt, weight = "x" if given is None else "both", np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    free = flow.parameters.free
    expected = [*flow.log_prob_and_grad(x, given, wrt=wrt, draws=3), *flow.nll_and_grad(x, weight, given)]
    both = flow.forward_vjp(x, slopes, dlog, given), flow.inverse_vjp(z, slopes, dlog, given)
    on_the_host_alone(monkeypatch, flow)
    answer = [*flow.log_prob_and_grad(ByDlpack(x), given, wrt=wrt, draws=3)]
    answer += flow.nll_and_grad(ByInterface(x), ByDlpack(weight), given)
    assert_close(answer, expected)
    assert np.isfinite(answer[-1]).all()
    assert free.any()
    found = flow.forward_vjp(ByDlpack(x), ByDlpack(slopes), ByDlpack(dlog), given)
    found += flow.inverse_vjp(ByDlpack(z), slopes, dlog, given)
    assert_close(filter(lambda one: one is not None, found), filter(lambda one: one is not None, (*both[0], *both[1])))


def test_samples_that_are_no_images_are_told_as_on_the_host():
    flow = SUPPORTS["pixels"]().to("cuda")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 1))
    for wrong, told in ((256, "got values from 0 to 256"), (0.5, "got float64 values such as 0.5")):
        x = np.where(np.arange(8).reshape(pixels.shape) == 3, wrong, pixels * (np.arange(8) > 0).reshape(pixels.shape))
        for method in (flow.log_prob, flow.forward, flow.log_prob_and_grad, flow.nll_and_grad):
            with pytest.raises(ValueError, match=rf"^x must be images of whole numbers 0 to 255.*{told}"):
                method(ByDlpack(x))
    z, log_det = flow.inverse(ByDlpack(np.zeros((2, 4))))
    assert (z.dtype, z.shape, log_det.shape) == (np.uint8, (2, 2, 2, 1), (2,))


@pytest.mark.parametrize("name", ["half-line and interval", "whole numbers, condition"])
def test_gradients_of_more_rows_than_are_carried_at_once(name, monkeypatch):
    flow, x, given = spread(name)
    expected = flow.log_prob_and_grad(x, given), flow.nll_and_grad(x[3:4], None, None if given is None else given[3:4])
    monkeypatch.setattr(flow.executable(), "chunk_rows", 4)
    assert_close(flow.log_prob_and_grad(ByDlpack(x), given), expected[0])
    none = x[:0], None if given is None else given[:0]
    for one in (flow.log_prob_and_grad(ByDlpack(none[0]), none[1]), flow.forward(ByDlpack(none[0]), none[1])):
        assert len(one[0]) == 0


def test_a_support_that_numpy_alone_evaluates_goes_by_way_of_the_host(monkeypatch):
    flow, x, _ = spread("half-line and interval")
    given = flow.preprocessing.bijection
    expected = [flow.log_prob(x), *flow.log_prob_and_grad(x), *flow.nll_and_grad(x[2:4]), *flow.forward_vjp(x, x)[:2]]
    monkeypatch.setattr(type(flow.executable()), "bijection", lambda self, _: given)
    answer = [flow.log_prob(ByDlpack(x)), *flow.log_prob_and_grad(ByDlpack(x)), *flow.nll_and_grad(ByDlpack(x[2:4]))]
    answer += flow.forward_vjp(ByDlpack(x), x)[:2]
    assert_close(answer, expected)


@pytest.mark.parametrize("name", ["half-line and interval", "whole numbers, condition", "pixels"])
def test_a_table_is_fitted_where_it_lies(name, monkeypatch):
    options = {"max_epochs": 2, "batch_size": 5, "rng": 3, "progress": False, "learning_rate": 0.02}
    x = spread(name)[0].sample(11, rng=1, condition=condition(SUPPORTS[name](), 11))
    given = condition(SUPPORTS[name](), 11)

    def fit(x):
        return SUPPORTS[name]().to("cuda").fit(x, condition=given, **options)

    mapped, to_unconstrained = [], CompiledBijection.to_unconstrained

    def noting(self, x):
        mapped.append(1)
        return to_unconstrained(self, x)

    monkeypatch.setattr(CompiledBijection, "to_unconstrained", noting)
    fitted, before = fit(ByDlpack(x)), len(mapped)
    monkeypatch.setattr(HeldRows, "of", lambda *_: None)
    expected = fit(x)
    assert len(mapped) == 2 * before + 4  # in the steps alone
    np.testing.assert_allclose(fitted.params, expected.params, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.history["train_loss"], expected.history["train_loss"], rtol=1e-9)
