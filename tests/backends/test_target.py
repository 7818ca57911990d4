"""Kernels are kept by the target that they were compiled for; code that a CPU can't run is never chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import npflows

target = pytest.importorskip("npflows.backends.cpu.compiler.target")

V3 = target.LEVELS["x86-64-v3"][-1]
V4 = target.LEVELS["x86-64-v4"][-1]
LINUX = "x86_64-unknown-linux-gnu"


@pytest.fixture
def cpu(monkeypatch):
    """Pretend to have a CPU with some features."""

    def have(features, triple=LINUX):
        listing = type("Features", (dict,), {"flatten": lambda self: ",".join(f"+{name}" for name in self)})
        monkeypatch.delenv("NPFLOWS_PORTABLE", raising=False)
        monkeypatch.setattr(target.numba.config, "CPU_NAME", None)
        monkeypatch.setattr(target.numba.config, "CPU_FEATURES", None)
        monkeypatch.setattr(target.binding, "get_host_cpu_features", lambda: listing(dict.fromkeys(sorted(features), True)))
        monkeypatch.setattr(target.binding, "get_process_triple", lambda: triple)
        monkeypatch.setattr(target.binding, "get_host_cpu_name", lambda: "one-cpu")  # old LLVM calls new ones "generic"
        forget()

    def forget():
        target.features.cache_clear()
        target.runnable.cache_clear()

    yield have
    monkeypatch.undo()
    forget()


def targets():
    own = target.own_target()
    return [name.cpu for name in target.runnable(own) if name != own]


def test_the_best_level_that_the_cpu_has_comes_first(cpu):
    cpu(V4)
    assert targets() == ["x86-64-v4", "x86-64-v3"]
    assert target.vector_bytes() == 64
    cpu(V3)
    assert targets() == ["x86-64-v3"]
    assert target.vector_bytes() == 32
    cpu({"sse4.2"})
    assert targets() == []
    assert target.vector_bytes() == 16


@pytest.mark.parametrize("missing", sorted(V3))
def test_a_cpu_that_lacks_one_feature_never_gets_code_that_may_use_it(cpu, missing):
    cpu(V4 - {missing})
    assert targets() == []


@pytest.mark.parametrize("missing", sorted(V4 - V3))
def test_a_cpu_with_a_part_of_avx512_gets_the_level_below(cpu, missing):
    cpu(V4 - {missing})
    assert targets() == ["x86-64-v3"]


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin23.1.0"])
def test_every_arm_of_64_bits_runs_the_baseline(cpu, triple):
    cpu({"neon"}, triple)
    assert targets() == ["generic"]


def test_kernels_outlive_an_update_of_the_system():
    before, after = (target.Target(f"arm64-apple-darwin{version}", "generic", "+neon") for version in ("23.1.0", "24.0.0"))
    assert before.key == after.key == ("arm64-apple-darwin", "generic", "+neon")
    assert target.Target(LINUX, "x86-64-v3", "").key == (LINUX, "x86-64-v3", "")


def test_where_llvm_can_not_tell_nothing_portable_is_run(cpu, monkeypatch):
    cpu(V4)

    def unknown():
        raise RuntimeError("unknown CPU")

    monkeypatch.setattr(target.binding, "get_host_cpu_features", unknown)
    target.features.cache_clear()
    assert targets() == []


def test_nothing_portable_is_looked_for_where_that_is_asked_for(cpu, monkeypatch):
    cpu(V4)
    monkeypatch.setenv("NPFLOWS_PORTABLE", "0")
    assert targets() == []


def run(code, **variables):
    environment = {**os.environ, **variables}
    root = str(Path(npflows.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = """
from numba.core.registry import cpu_target
from npflows.backends.cpu.compiler import target
assert target.own_target() == cpu_target.target_context.codegen().magic_tuple()
print(target.vector_bytes(), *target.portable())
"""
on_x86 = pytest.mark.skipif(not target.binding.get_process_triple().startswith("x86_64"), reason="names of x86 CPUs")


@on_x86
@pytest.mark.parametrize(
    ("name", "features", "width"),
    [
        ("haswell", "", 32),
        ("x86-64-v3", "", 32),
        ("skylake-avx512", "", 64),
        ("x86-64-v2", "", 16),
        ("x86-64-v2", "+avx", 32),
    ],
)
def test_the_target_is_the_one_that_numba_is_told(name, features, width):
    found, *levels = run(SHOW, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features).split()
    assert int(found) == width
    assert "x86-64-v4" not in levels or width == 64
    assert "x86-64-v3" not in levels or width >= 32


def test_the_target_is_this_cpu_where_numba_is_told_nothing():
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    assert run(SHOW, **variables).split()[0] == str(target.vector_bytes())
