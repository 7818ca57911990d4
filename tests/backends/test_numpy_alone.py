"""Where Numba can't be imported, or the environment says so, NumPy alone runs flows, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import make_golden
import numpy as np
import pytest

import npflows
from npflows.core import backend as backends

TESTS = Path(make_golden.__file__).parent
HIDE = "import sys; sys.modules.update(dict.fromkeys(['numba', 'llvmlite', 'scipy'])); sys.path.insert(0, sys.argv[1]); "
CHOSEN = {"NPFLOWS_BACKEND": "reference"}
REFUSED = "flows can't be fitted where NumPy alone runs them: pip install numba scipy, and leave NPFLOWS_BACKEND unset"


def run(*arguments, **environment):
    """A Python process with these arguments."""
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, **environment})  # fmt: skip


@pytest.fixture(scope="module")
def alone():
    """The output of numpy_only.py without Numba and SciPy."""
    return run("-c", f"{HIDE}import numpy_only; sys.exit(numpy_only.main())", TESTS)


def test_every_golden_flow_works_without_numba_and_scipy(alone):
    assert alone.returncode == 0, alone.stdout + alone.stderr
    for name in make_golden.FLOWS:
        assert f"{name}: 0." in alone.stdout
    assert alone.stdout.count("samples 0.0e+00") == len(make_golden.FLOWS)


def test_one_note_says_so(alone):
    assert alone.stderr.startswith("npflows: Numba can't be imported (")
    assert "pip install numba scipy" in alone.stderr
    assert alone.stderr.count("\n") == 1


def test_what_does_not_work_is_refused_in_a_sentence(alone):
    for sentence in (f"fit: {REFUSED}\n", f"fit_variational: {REFUSED}\n", "npflows.extend: npflows.extend needs Numba",
                     "npflows.sklearn: npflows.sklearn needs scikit-learn"):  # fmt: skip
        assert sentence in alone.stdout


@pytest.mark.parametrize(("what", "purpose"), {
    "to_unit_cube": "the cumulative distribution of Normal", "from_unit_cube": "the quantile function of Normal",
    "mode": "flow.mode", "marginal": "a marginal or conditional density",
    "conditional": "a marginal or conditional density", "pit": "the cumulative distribution of Normal",
    "coverage": "diagnostics.coverage", "sbc_ranks": "diagnostics.sbc_ranks",
    "tarp_coverage": "diagnostics.tarp_coverage", "memorization": "diagnostics.memorization",
}.items())  # fmt: skip
def test_what_needs_scipy_says_so(alone, what, purpose):
    assert f"\n{what}: {purpose} needs SciPy: pip install scipy\n" in alone.stdout


@pytest.mark.parametrize("what", ["verify", "marginal of every column", "from_unit_cube of a uniform base"])
def test_what_works_without_scipy(alone, what):
    assert f"\n{what}: works\n" in alone.stdout


def test_a_difference_is_found_and_told_by_the_status():
    code = "import make_golden, numpy_only; make_golden.TOLERANCE.update(float32=1e-9); sys.exit(numpy_only.main())"
    found = run("-c", HIDE + code, TESTS)
    assert found.returncode == 1
    assert "WRONG: maf is off" in found.stderr
    assert "maf_float64 is off" not in found.stderr


def test_the_environment_chooses_numpy_although_numba_is_there():
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import make_golden, numpy as np, npflows
for name in make_golden.FLOWS:
    flow = npflows.load(make_golden.FOLDER / f"{name}.npz")
    c = make_golden.recorded(name)[0].get("condition", [None])[0]
    u = np.random.default_rng(0).uniform(0.1, 0.9, (5, *flow.input_shape))
    x = flow.from_unit_cube(u, c)
    if not flow.preprocessing.has_integers:
        np.testing.assert_allclose(flow.to_unit_cube(x, c), u, rtol=1e-9, err_msg=name)
    assert np.isfinite(flow.sample(5, 1, condition=c)).all(), name
    assert np.isfinite(flow.log_prob_and_grad(x, c)[1]).all(), name
print(npflows.backend(), "numba" in sys.modules)
"""
    done = run("-c", code, TESTS, **CHOSEN)
    assert (done.returncode, done.stdout) == (0, "reference False\n"), done.stderr
    assert done.stderr.startswith("npflows: NPFLOWS_BACKEND=reference: flows are evaluated by NumPy alone")


def test_another_backend_is_refused():
    done = run("-c", "import npflows", NPFLOWS_BACKEND="gpu")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: NPFLOWS_BACKEND must be 'cpu' or 'reference', got 'gpu'"


def test_the_command_scores_and_says_why_it_does_not_fit(tmp_path):
    table, out = tmp_path / "table.npy", tmp_path / "scores.npy"
    np.save(table, make_golden.X)
    done = run("-m", "npflows", "score", make_golden.FOLDER / "maf.npz", table, "-o", out, **CHOSEN)
    assert done.returncode == 0, done.stderr
    expected = make_golden.recorded("maf")[1]["log_prob"]
    np.testing.assert_allclose(np.load(out).reshape(len(expected), -1)[:, -1], expected, rtol=1e-5)
    for command in (["fit", table, "-o", tmp_path / "flow.npz"], ["warmup"]):
        done = run("-m", "npflows", *command, **CHOSEN)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == f"npflows: {REFUSED}"
    assert not (tmp_path / "flow.npz").exists()


def test_fit_is_refused_before_anything_is_changed(monkeypatch):
    flow = npflows.MAF(2, 1, (4,), rng=0)
    before = flow.params
    monkeypatch.setattr(backends.select(), "can_train", False, raising=True)
    for fit in (flow.fit, lambda x: flow.fit_variational(lambda x: (x.sum(1), x))):
        with pytest.raises(NotImplementedError) as refused:
            fit(np.random.default_rng(0).normal(size=(100, 2)))
        assert str(refused.value) == REFUSED
    np.testing.assert_array_equal(flow.params, before)
    assert not flow.preprocessing.is_standardized


def test_the_name_of_the_backend():
    assert npflows.backend() == backends.select().name
    assert "backend" in npflows.__all__
    with pytest.raises(ValueError, match="there is no backend 'gpu' here: expected '"):
        backends.select("gpu")
