"""Flows as C, compiled by the system's compiler: the same numbers, NaN and infinity."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from export_cases import WHATS, assert_close, awkward, cases, evaluate, expected, far
from registry import build

from npflows import MAF
from npflows.cli import main
from npflows.export.layers import NotExportableError
from npflows.export.tracing import trace

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
FLAGS = ["-std=c99", "-pedantic", "-O2", "-Wall", "-Wextra", "-Werror"]


def compiled(flow, folder, prefix="flow", flags=FLAGS):
    """The library of a flow."""
    source, library = folder / f"{prefix}.c", folder / f"{prefix}.so"
    flow.to_c(source, prefix)
    subprocess.run([COMPILER, *flags, "-fPIC", "-shared", "-o", library, source, "-lm"], check=True)
    return ctypes.CDLL(str(library))


def pointer(values):
    return None if values is None else values.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def called(library, what, given, flow, prefix="flow"):
    """What the library's function gives for rows."""
    function = getattr(library, f"{prefix}_{what}")
    function.restype = None if what == "sample" else ctypes.c_double
    given = dict(given)
    c = given.pop("condition", None)
    (rows,) = given.values()
    d, n = flow.latent_dim, len(rows)
    first, second = np.full((n, d), 7.0), np.full((n, flow.condition_dim), 7.0)
    returned = np.zeros(n)
    for i, row in enumerate(np.ascontiguousarray(rows, float)):
        condition = None if c is None else np.ascontiguousarray(c[i])
        out = {"log_prob": [], "log_prob_and_grad": [first[i], second[i]]}.get(what, [first[i]])
        returned[i] = function(pointer(row), pointer(condition), *map(pointer, out)) or 0.0
    if what == "log_prob":
        return {"log_prob": returned}
    if what == "log_prob_and_grad":
        return {"log_prob": returned, "dx": first} | ({} if c is None else {"dcondition": second})
    if what == "sample":
        return {"x": first}
    return {"z" if what == "forward" else "x": first, "log_det": returned}


@needs_compiler
@pytest.mark.parametrize(("name", "dtype"), [("RealNVP, uniform", "float64"), ("IAF, one feature, uniform", "float32")])
def test_numbers(name, dtype, tmp_path):
    flow = build(name, dtype)
    library = compiled(flow, tmp_path)
    x, c = cases(flow)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for what in WHATS[:4]:
        given, wanted = expected(flow, what, x, c)
        assert_close(called(library, what, given, flow), wanted, tolerance)
    given, _ = expected(flow, "sample", x, c)
    assert_close(called(library, "sample", given, flow), evaluate(trace(flow, "sample"), given), tolerance)


@needs_compiler
def test_rows_beyond_the_range_and_two_flows_in_a_program(tmp_path):
    flow, x = far()
    first, second = compiled(flow, tmp_path, "one"), compiled(flow, tmp_path, "other")
    given, wanted = expected(flow, "log_prob_and_grad", x, None)
    for library, prefix in ((first, "one"), (second, "other")):
        assert_close(called(library, "log_prob_and_grad", given, flow, prefix), wanted, 1e-11)
    objects = [tmp_path / name for name in ("one.o", "other.o")]
    for made in objects:
        subprocess.run([COMPILER, *FLAGS, "-c", "-o", made, made.with_suffix(".c")], check=True)
    subprocess.run([COMPILER, "-shared", "-o", tmp_path / "both.so", *objects, "-lm"], check=True)


def test_what_the_file_says(tmp_path):
    flow, _, _ = awkward()
    flow.condition_columns = ["z", "a comment */ in a name"]
    flow.units = [None, "km / s", *[None] * 8]
    flow.to_c(tmp_path / "f.c", "galaxies")
    text = (tmp_path / "f.c").read_text()
    assert "x: a, b [km / s], c, d, e, f, g, h, i, j" in text
    assert "a comment * / in a name" in text
    assert "double galaxies_log_prob(const double *x, const double *condition);" in text
    assert "malloc" not in text
    build("MAF, random orders").to_c(tmp_path / "t.c")
    text = (tmp_path / "t.c").read_text()
    assert "flow_sample is not here: samples of StudentT are no formula" in text
    assert "void flow_sample(" not in text


def test_units_without_names(tmp_path):
    flow = MAF(2, 1, (4,), rng=0)
    flow.units = ["GeV", None]
    flow.to_c(tmp_path / "f.c")
    assert "x: column 0 [GeV], column 1" in (tmp_path / "f.c").read_text()


CMAKE = """cmake_minimum_required(VERSION 3.10)
project(simulation C)
add_executable(simulation main.c)
{snippet}
"""
MAIN = """#include <stdio.h>
double galaxies_log_prob(const double *x, const double *condition);
int main(void) {{ double x[3] = {{{values}}}; printf("%.17g", galaxies_log_prob(x, NULL)); return 0; }}
"""
FORTRAN = """program simulation
use, intrinsic :: iso_c_binding
implicit none
{snippet}
real(c_double) :: x(3) = [{values}], value
{call}
write (*, '(es25.17e3)') value
end program
"""
X = [0.5, -1.25, 3.0]


def snippet(language):
    """A block of docs/exporting.md."""
    text = (Path(__file__).parents[2] / "docs" / "exporting.md").read_text()
    return text.split(f"```{language}\n")[1].split("```")[0]


def galaxies(folder):
    """The flow of the page's C file, whose names the blocks have."""
    flow = MAF(3, 2, (16,), dtype="float64", rng=0)
    flow.to_c(folder / "flow.c", "galaxies")
    return float(flow.log_prob(X))


@needs_compiler
@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no CMake")
def test_with_cmake(tmp_path):
    wanted = galaxies(tmp_path)
    (tmp_path / "main.c").write_text(MAIN.format(values=", ".join(map(str, X))))
    (tmp_path / "CMakeLists.txt").write_text(CMAKE.format(snippet=snippet("cmake")))
    for arguments in (["-S", ".", "-B", "build"], ["--build", "build"]):
        subprocess.run(["cmake", *arguments], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert float(subprocess.check_output([tmp_path / "build" / "simulation"])) == pytest.approx(wanted, rel=1e-12)


@needs_compiler
@pytest.mark.skipif(shutil.which("gfortran") is None, reason="there is no Fortran compiler")
def test_from_fortran(tmp_path):
    wanted = galaxies(tmp_path)
    interface, call = snippet("fortran").split("! ")
    values = ", ".join(f"{value}_c_double" for value in X)
    (tmp_path / "main.f90").write_text(FORTRAN.format(snippet=interface, values=values, call=call.strip()))
    subprocess.run([COMPILER, "-O1", "-c", "flow.c"], check=True, cwd=tmp_path)
    subprocess.run(["gfortran", "-o", "simulation", "main.f90", "flow.o", "-lm"], check=True, cwd=tmp_path)
    assert float(subprocess.check_output([tmp_path / "simulation"])) == pytest.approx(wanted, rel=1e-12)


def test_nothing_is_left_of_a_file_that_can_not_be_written(tmp_path):
    flow = MAF(2, 1, (4,), rng=0)
    flow.to_c(tmp_path / "flow.c")
    before = (tmp_path / "flow.c").read_text()
    with pytest.raises(NotExportableError):
        MAF(64, 4, (640, 640), rng=0).to_c(tmp_path / "flow.c")
    assert (tmp_path / "flow.c").read_text() == before


def test_command(tmp_path, capsys):
    MAF(2, 1, (4,), rng=0).save(tmp_path / "flow.npz")
    source, target = str(tmp_path / "flow.npz"), str(tmp_path / "flow.c")
    assert main(["export", source, "-o", target, "--prefix", "p"]) == 0
    assert capsys.readouterr().out == f"wrote {target}\n"
    assert "double p_log_prob(" in (tmp_path / "flow.c").read_text()
    for arguments, said in (
        (["-o", str(tmp_path / "flow.txt")], "files that end with .c or .onnx"),
        (["-o", target, "--what", "sample"], "--what is for ONNX"),
        (["-o", str(tmp_path / "flow.onnx"), "--prefix", "p"], "--prefix is for C"),
    ):
        assert main(["export", source, *arguments]) == 2
        assert said in capsys.readouterr().err
