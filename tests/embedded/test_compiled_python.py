"""Densities in functions that Numba compiles: as arguments, as globals, from threads, from the cache."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import embedded_cases as cases
import numba
import numpy as np
import pytest
import scipy.integrate

import npflows

ROOT = str(Path(npflows.__file__).parents[1])
GLOBAL = npflows.embed(cases.small("float64"))
HERE = str(Path(__file__).parent)


@numba.njit(nogil=True)
def total(density, x):
    result, grad = 0.0, np.empty(density.dim)
    for i in range(len(x)):
        result += density.log_prob(x[i]) + density.log_prob_and_grad(x[i], grad) + grad[0]
    return result


@numba.njit
def of_the_global(x):
    return GLOBAL.log_prob(x)


@numba.njit
def everything(density, x, z, condition):
    n, dim = x.shape
    out, grad, dcondition = np.empty(n), np.empty((n, dim)), np.empty((n, density.condition_dim))
    density.log_prob_and_grad_rows(x, grad, out, condition, dcondition)
    values, drawn, drawn_row = np.empty(n), np.empty((n, dim)), np.empty(dim)
    density.log_prob_rows(x, values, condition)
    density.sample_rows(z, drawn, condition)
    density.sample_row(z[0], drawn_row, condition[0])
    slope, cslope = np.empty(dim), np.empty(density.condition_dim)
    value = density.log_prob_and_grad(x[0], slope, condition[0], cslope)
    return out, grad, dcondition, values, drawn, drawn_row, value, slope, cslope


def test_all_methods():
    flow = cases.small(condition_dim=2)
    rng = np.random.default_rng(0)
    x, z, c = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    out, grad, dcondition, values, drawn, drawn_row, value, slope, cslope = everything(npflows.embed(flow), x, z, c)
    for mine, expected in zip((out, grad, dcondition), flow.log_prob_and_grad(x, c, wrt="both")):
        np.testing.assert_array_equal(mine, expected)
    np.testing.assert_array_equal(values, out)
    np.testing.assert_array_equal(drawn, flow.inverse(z, c)[0])
    np.testing.assert_array_equal(drawn_row, drawn[0])
    assert value == out[0]
    np.testing.assert_array_equal(slope, grad[0])
    np.testing.assert_array_equal(cslope, dcondition[0])


def test_global_density():
    x = np.array([0.1, -0.2, 0.3])
    assert of_the_global(x) == GLOBAL.log_prob(x)


def test_densities_of_one_type_serve_one_compiled_function():
    x = np.random.default_rng(0).normal(size=(7, 3))
    for dtype in ("float32", "float64"):
        flow = cases.small(dtype)
        values, slopes = flow.log_prob_and_grad(x)
        np.testing.assert_allclose(total(npflows.embed(flow), x), 2 * values.sum() + slopes[:, 0].sum(), rtol=1e-12)
    assert len(total.signatures) == 1


def test_more_threads_than_slots_get_the_same_numbers():
    density = npflows.embed(cases.small())
    x = np.random.default_rng(0).normal(size=(300, 3))
    expected = total(density, x)
    with ThreadPoolExecutor(40) as pool:
        assert set(pool.map(lambda _: total(density, x), range(120))) == {expected}


def in_child(density):
    x = np.random.default_rng(0).normal(size=(9, 3))
    return total(density, x)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_worker_processes(method):
    density = npflows.embed(cases.small())
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        assert set(pool.map(in_child, [density] * 4)) == {in_child(density)}


def test_pickle_and_changed_flows():
    flow = cases.small(condition_dim=2)
    density = npflows.embed(flow, [0.1, 0.2])
    again = pickle.loads(pickle.dumps(density))
    assert again.log_prob(np.zeros(3)) == density.log_prob(np.zeros(3))
    assert repr(again) == "Density(MAF of 3 values)"
    flow.params = flow.params + 0.1
    with pytest.raises(RuntimeError, match="embed a copy of the flow"):
        pickle.dumps(density)


def test_users_function_is_kept_on_disk(tmp_path):
    script = tmp_path / "user.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {HERE!r})
sys.path.insert(0, {str(Path(HERE).parent)!r})
import numba, numpy as np, npflows, embedded_cases

@numba.njit(cache=True)
def f(density, x):
    return density.log_prob(x)

flow = embedded_cases.small()
assert f(npflows.embed(flow), np.zeros(3)) == flow.log_prob(np.zeros(3))
print(sum(f.stats.cache_hits.values()), sum(f.stats.cache_misses.values()))
"""
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    results = [
        subprocess.run([sys.executable, script], env=environment, text=True, capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert [result.split() for result in results] == [["0", "1"], ["1", "0"]]


def test_without_compilation():
    code = f"""
import sys
sys.path.insert(0, {HERE!r})
sys.path.insert(0, {str(Path(HERE).parent)!r})
import numba, numpy as np, npflows, embedded_cases as cases

@numba.njit
def f(density, x, grad):
    return density.log_prob(x) - density.log_prob_and_grad(x, grad)

for flow in (cases.small(), cases.with_integers()):
    density, grad = npflows.embed(flow), np.empty(flow.latent_dim)
    x = flow.sample(1, 0)[0]
    assert f(density, x, grad) == 0
    assert (grad == flow.log_prob_and_grad(x)[1]).all()
    density.sample_row(np.zeros(flow.latent_dim), x)
    assert (x == flow.inverse(np.zeros(flow.latent_dim))[0]).all()
conditional = cases.small(condition_dim=2)
density = npflows.embed(conditional)
dcondition, grad = np.empty(2), np.empty(3)
density.log_prob_and_grad(np.zeros(3), grad, np.ones(2), dcondition)
assert (dcondition == conditional.log_prob_and_grad(np.zeros(3), np.ones(2), wrt="both")[2]).all()
assert density.log_prob(np.zeros(3), np.ones(2)) == conditional.log_prob(np.zeros(3), np.ones(2))
fixed = npflows.embed(conditional, np.ones(2))
assert fixed.log_prob(np.zeros(3)) == conditional.log_prob(np.zeros(3), np.ones(2))
try:
    density.handle
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": ROOT, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, text=True, capture_output=True)
    assert "a density then has its methods in Python alone" in done.stdout, done.stderr


def test_scipy_integrates_without_python():
    flow = cases.small("float64")
    plane = npflows.NeuralSplineFlow(2, 2, (8,), rng=0, dtype="float64")
    density = npflows.embed(plane)
    options = {"epsabs": 1e-4, "epsrel": 1e-4}
    integral, _ = scipy.integrate.nquad(density.low_level_callable(exp=True), [(-8, 8)] * 2, opts=options)
    np.testing.assert_allclose(integral, 1.0, atol=1e-3)
    line = npflows.embed(flow).low_level_callable()
    assert scipy.integrate.quad(line, 0.1, 0.2, args=(0.3, 0.4))[0] == pytest.approx(
        scipy.integrate.quad(lambda t: flow.log_prob([t, 0.3, 0.4]), 0.1, 0.2)[0], rel=1e-9
    )


def test_calls_take_no_memory():
    code = f"""
import sys
sys.path[:0] = [{HERE!r}, {str(Path(HERE).parent)!r}]
import numba, numpy as np, npflows, embedded_cases as cases
from numba.core.runtime import rtsys

@numba.njit
def work(density, x, grad, rows, out, grads, n):
    for i in range(n):
        density.log_prob(x)
        density.log_prob_and_grad(x, grad)
        density.sample_row(x, grad)
        density.log_prob_and_grad_rows(rows, grads, out)

flows = [cases.small(), cases.small("float64"), cases.with_support(), cases.with_integers(),
         npflows.IAF(3, 2, (8,), rng=0), npflows.NeuralSplineFlow(3, 2, (8,), conditioner="autoregressive", rng=0),
         npflows.Glow((4, 4, 1), num_scales=1, hidden_dims=(8, 8), rng=0)]
for flow in flows:
    d = flow.latent_dim
    arguments = np.full(d, 0.5), np.empty(d), np.full((7, d), 0.5), np.empty(7), np.empty((7, d))
    density = npflows.embed(flow)
    work(density, *arguments, 1)
    before = rtsys.get_allocation_stats()
    work(density, *arguments, 1000)
    print(rtsys.get_allocation_stats().alloc - before.alloc < 10)
"""
    environment = {**os.environ, "PYTHONPATH": ROOT, "NUMBA_NRT_STATS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True)
    assert done.stdout.split() == ["True"] * 7, done.stderr
