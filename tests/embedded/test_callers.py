"""Densities called from C, Fortran and OpenMP, as the declarations of `npflows embed` describe them."""

import ctypes
import platform
import shutil
import subprocess

import embedded_cases as cases
import numpy as np
import pytest

import npflows
from npflows.cli import main

COMPILER, FORTRAN = shutil.which("cc") or shutil.which("gcc"), shutil.which("gfortran")
needs_c = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
needs_fortran = pytest.mark.skipif(FORTRAN is None, reason="no gfortran here")

C = """
#include "npflows.h"

double value(int64_t handle, const double *x) {
    return npflows_log_prob(npflows_from_handle(handle), x, NULL);
}
double value_under(int64_t handle, const double *x, const double *condition) {
    return npflows_log_prob(npflows_from_handle(handle), x, condition);
}
int64_t table_under(int64_t handle, int64_t n, const double *x, const double *condition, double *out) {
    return npflows_log_prob_rows(npflows_from_handle(handle), n, x, 1, condition, out);
}
int64_t draw_under(int64_t handle, const double *z, const double *condition, double *x) {
    return npflows_sample(npflows_from_handle(handle), z, condition, x);
}
double slope(int64_t handle, const double *x, const double *condition, double *grad, double *dcondition) {
    return npflows_log_prob_and_grad(npflows_from_handle(handle), x, condition, grad, dcondition);
}
int64_t table(int64_t handle, int64_t n, const double *x, double *out) {
    const npflows_density *density = npflows_from_handle(handle);
    return density == NULL ? -9 : npflows_log_prob_rows(density, n, x, 0, NULL, out);
}
int64_t draw(int64_t handle, const double *z, double *x) {
    return npflows_sample(npflows_from_handle(handle), z, NULL, x);
}
double metropolis(int64_t handle, double *x, int64_t steps) {  /* a chain, without Python */
    const npflows_density *density = npflows_from_handle(handle);
    unsigned state = 1;
    double before = npflows_log_prob(density, x, NULL), sum = 0.0, y[3];
    for (int64_t step = 0; step < steps; step++) {
        for (int d = 0; d < 3; d++) {
            state = 1664525u * state + 1013904223u;
            y[d] = x[d] + 0.5 * (state / 4294967296.0 - 0.5);
        }
        double after = npflows_log_prob(density, y, NULL);
        state = 1664525u * state + 1013904223u;
        if (log(state / 4294967296.0 + 1e-12) < after - before) {
            before = after;
            for (int d = 0; d < 3; d++) x[d] = y[d];
        }
        sum += before;
    }
    return sum;
}
"""

OPENMP = """
#include "npflows.h"
void shared_out(int64_t handle, int64_t n, const double *x, double *out, double *grad) {
    const npflows_density *density = npflows_from_handle(handle);
    #pragma omp parallel for num_threads(8) schedule(dynamic, 3)
    for (int64_t i = 0; i < n; i++)
        out[i] = npflows_log_prob_and_grad(density, x + 3 * i, NULL, grad + 3 * i, NULL);
}
"""

FORTRAN_PROGRAM = """
subroutine evaluated(handle, n, x, out, again, grad, rows, sample) bind(c)
  use npflows
  use, intrinsic :: iso_c_binding
  integer(c_int64_t), value :: handle, n
  real(c_double), intent(in) :: x(3, n)
  real(c_double), intent(out) :: out(n), again(n), grad(3, n), rows(n), sample(3)
  type(npflows_density), pointer :: density
  integer(c_int64_t) :: i, status
  density => npflows_from_handle(handle)
  do i = 1, n
    out(i) = npflows_log_prob_and_grad(density, x(:, i), grad(:, i))
    again(i) = npflows_log_prob(density, x(:, i))
  end do
  status = npflows_log_prob_rows(density, x, rows)
  status = npflows_sample(density, x(:, 1), sample)
end subroutine

subroutine too_short(handle, n, x, out, statuses) bind(c)
  use npflows
  use, intrinsic :: iso_c_binding
  integer(c_int64_t), value :: handle, n
  real(c_double), intent(in) :: x(3, n)
  real(c_double), intent(out) :: out(n)
  integer(c_int64_t), intent(out) :: statuses(2)
  type(npflows_density), pointer :: density
  density => npflows_from_handle(handle)
  statuses(1) = npflows_log_prob_rows(density, x, out(1:2))
  statuses(2) = npflows_sample(density, x(:, 1), out(1:2))
  out(n) = npflows_log_prob_and_grad(density, x(:, 1), out(1:2))
end subroutine
"""


def built(folder, name, source, *options, compiler=COMPILER, ending="c"):
    """A library of a source and the declarations, compiled with all warnings as errors."""
    assert main(["embed", "--header", "-o", str(folder / "npflows.h"), "--quiet"]) == 0
    file, library = folder / f"{name}.{ending}", folder / f"{name}.so"
    file.write_text(source)
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", *options, str(file), "-o", str(library)]
    done = subprocess.run([*command, "-lm"], cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    for function in ("value", "value_under", "slope", "metropolis"):
        if hasattr(loaded, function):
            getattr(loaded, function).restype = ctypes.c_double
    for function in ("table", "draw", "table_under", "draw_under"):
        if hasattr(loaded, function):
            getattr(loaded, function).restype = ctypes.c_int64
    return loaded


def at(array):
    return ctypes.c_void_p(array.ctypes.data)


def word(number):
    return ctypes.c_int64(number)


@pytest.fixture(scope="module")
def flow():
    return cases.small()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(200, 3))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return built(tmp_path_factory.mktemp("c"), "caller", C)


@needs_c
def test_values_gradients_and_samples_from_c(flow, x, library):
    density = npflows.embed(flow)
    handle, grad, out = word(density.handle), np.empty(3), np.empty(len(x))
    values, slopes = flow.log_prob_and_grad(x)
    assert library.value(handle, at(x)) == values[0]
    assert library.slope(handle, at(x[1]), None, at(grad), None) == values[1]
    np.testing.assert_array_equal(grad, slopes[1])
    assert library.table(handle, word(len(x)), at(x), at(out)) == 0
    np.testing.assert_array_equal(out, values)
    assert library.draw(handle, at(x), at(grad)) == 0
    np.testing.assert_array_equal(grad, flow.inverse(x[0])[0])


@needs_c
def test_conditions_and_errors_from_c(x, library):
    flow = cases.small(condition_dim=2)
    density, condition = npflows.embed(flow), np.array([0.3, -0.1])
    handle, grad, dcondition = word(density.handle), np.empty(3), np.empty(2)
    value = library.slope(handle, at(x), at(condition), at(grad), at(dcondition))
    for mine, expected in zip((value, grad, dcondition), flow.log_prob_and_grad(x[0], condition, wrt="both")):
        np.testing.assert_array_equal(mine, expected)
    assert np.isnan(library.value(handle, at(x)))
    assert library.table(handle, word(len(x)), at(x), at(np.empty(len(x)))) == -2
    fixed = npflows.embed(flow, condition)
    assert library.value(word(fixed.handle), at(x)) == value


@needs_c
@pytest.mark.parametrize("fixed", [None, [0.0, 1.0]], ids=["without a condition", "with a fixed one"])
def test_conditions_that_are_not_wanted_from_c(x, library, fixed):
    """A density that takes no condition says so, instead of ignoring the one that it is given."""
    density = npflows.embed(cases.small(condition_dim=0 if fixed is None else 2), fixed)
    handle, seven, out, grad = word(density.handle), np.array([7.0, 7.0]), np.full(len(x), 5.0), np.full(3, 5.0)
    assert np.isfinite(library.value_under(handle, at(x), None))
    assert np.isnan(library.value_under(handle, at(x), at(seven)))
    assert np.isnan(library.slope(handle, at(x), at(seven), at(grad), None))
    assert library.table_under(handle, word(len(x)), at(x), at(seven), at(out)) == -2
    assert library.draw_under(handle, at(x), at(seven), at(grad)) == -2
    assert (out == 5).all()
    assert (grad == 5).all()


@needs_c
def test_statuses_and_other_versions(flow, x, library):
    density = npflows.embed(flow)
    outside = np.array([[np.nan, 0, 0], [0, 0, 0.0]])
    assert library.table(word(density.handle), word(2), at(outside), at(np.empty(2))) == 1
    other = np.frombuffer((ctypes.c_int64 * 5).from_address(density.handle), np.int64).copy()
    other[4] += 1
    assert library.table(word(other.ctypes.data), word(2), at(x), at(np.empty(2))) == -9


@needs_c
def test_chain_in_c_moves_like_one_in_python(flow, library):
    density = npflows.embed(flow)
    x, y = np.zeros(3), np.zeros(3)
    total = library.metropolis(word(density.handle), at(x), word(500))
    assert library.metropolis(word(density.handle), at(y), word(500)) == total
    np.testing.assert_array_equal(x, y)
    assert np.isfinite(total)


@needs_c
@pytest.mark.skipif(platform.system() == "Darwin", reason="the system's C compiler has no OpenMP")
def test_openmp_threads_get_the_same_bits(flow, x, tmp_path):
    library = built(tmp_path, "openmp", OPENMP, "-fopenmp")
    density = npflows.embed(flow)
    out, grad = np.empty(len(x)), np.empty(x.shape)
    for _ in range(5):
        library.shared_out(word(density.handle), word(len(x)), at(x), at(out), at(grad))
        for mine, expected in zip((out, grad), flow.log_prob_and_grad(x)):
            np.testing.assert_array_equal(mine, expected)


@needs_fortran
def test_fortran(flow, x, tmp_path):
    assert main(["embed", "--fortran", "-o", str(tmp_path / "npflows.f90"), "--quiet"]) == 0
    options = ("-std=f2008", "npflows.f90")
    library = built(tmp_path, "evaluated", FORTRAN_PROGRAM, *options, compiler=FORTRAN, ending="f90")
    density = npflows.embed(flow)
    (out, again, rows), grad, sample = np.empty((3, len(x))), np.empty(x.shape), np.empty(3)
    library.evaluated(word(density.handle), word(len(x)), *map(at, (x, out, again, grad, rows, sample)))
    for mine, expected in zip((out, grad), flow.log_prob_and_grad(x)):
        np.testing.assert_array_equal(mine, expected)
    np.testing.assert_array_equal(again, out)
    np.testing.assert_array_equal(rows, out)
    np.testing.assert_array_equal(sample, flow.inverse(x[0])[0])
    statuses, kept = np.zeros(2, np.int64), np.full(len(x), 5.0)
    library.too_short(word(density.handle), word(len(x)), *map(at, (x, kept, statuses)))
    np.testing.assert_array_equal(statuses, [-1, -1])
    assert np.isnan(kept[-1])
    assert (kept[2:-1] == 5).all()


def test_functions_without_a_handle(flow, x):
    density = npflows.embed(flow)
    values, slopes = flow.log_prob_and_grad(x)
    number, pointer, real = ctypes.c_int, ctypes.c_void_p, ctypes.c_double
    counted = ctypes.CFUNCTYPE(real, number, pointer)(density.function())
    assert counted(3, x.ctypes.data) == values[0]
    assert np.isnan(counted(4, x.ctypes.data))
    assert ctypes.CFUNCTYPE(real, pointer)(density.function("double (double *)"))(x.ctypes.data) == values[0]
    grad = np.empty(3)
    sloped = ctypes.CFUNCTYPE(real, pointer, pointer)(density.function("double (double *, double *)"))
    assert sloped(x[2].ctypes.data, grad.ctypes.data) == values[2]
    np.testing.assert_array_equal(grad, slopes[2])
    with_data = ctypes.CFUNCTYPE(real, number, pointer, pointer)
    address = density.function("double (int, double *, void *)", exp=True)
    np.testing.assert_allclose(with_data(address)(3, x.ctypes.data, None), np.exp(values[0]), rtol=1e-15)
    assert density.function("double (int, double *, void *)", exp=True) == address


def test_declarations_are_printed(capsys):
    assert main(["embed", "--header"]) == 0
    assert "npflows_log_prob_and_grad" in capsys.readouterr().out
    assert main(["embed", "--fortran"]) == 0
    assert "module npflows" in capsys.readouterr().out


def test_pointers_are_those_of_the_frame(flow):
    density = npflows.embed(flow)
    words = (ctypes.c_int64 * 5).from_address(density.handle)
    assert [density.pointer("evaluate"), density.pointer("sample"), 3, 0, 1] == list(words)
