"""`warmup` compiles all that a model needs, so that nothing is left to compile when it is used."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_cases import fails

import npflows.warmup
from npflows import MAF, NeuralSplineFlow
from npflows.backends.cpu.compiler import folders, target
from npflows.cli import main
from npflows.hosts.pocomc_flow import default_flow
from npflows.models.table import MODELS, TABLE_MODELS
from npflows.warmup import warmup

OTHER = "armv8-a" if target.binding.get_process_triple().startswith("x86") else "x86-64-v3"
cached = pytest.mark.skipif(folders.cache_directory() is None, reason="nothing can be written")


@cached
@pytest.mark.parametrize(
    ("name", "flow"),
    [
        ("maf", MAF(5, 3, (24, 16), rng=0)),
        ("spline", NeuralSplineFlow(4, 3, (16,), rng=0)),
        ("maf", MAF(2, 3, (32,), activation="tanh", base_distribution="student_t", rng=0)),
        ("spline", default_flow(2, np.random.default_rng(0))),
    ],
    ids=["maf", "spline", "other choices", "a sampler's"],
)
def test_nothing_is_left_to_compile(name, flow):
    done = warmup(name)
    assert list(done.seconds) == [name]
    assert done.folder == folders.cache_directory()
    before = set(done.folder.iterdir())
    assert before
    x = np.random.default_rng(0).normal(size=(200, flow.input_dim))
    flow.fit(x, max_epochs=1, rng=0, progress=False)
    flow.log_prob_and_grad(x)
    flow.sample_and_log_prob(3, 0)
    flow.inverse_vjp(x, x)
    density = npflows.embed(flow)
    density.sample_row(x[0], density.log_prob(x[0]) * x[1])
    npflows.set_num_threads(2)
    flow.sample(20_000, 0)
    assert set(done.folder.iterdir()) == before


@cached
def test_a_set_for_other_cpus_is_made_as_a_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(MODELS, "realnvp", replace(MODELS["realnvp"], variants=()))
    levels = target.portable()
    if not levels:
        pytest.skip("this CPU is of no portable level")
    into = tmp_path / "a" / "set"
    assert main(["warmup", "realnvp", "--target", levels[-1], "--into", str(into), "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["realnvp", "in", "kept"]
    (made,) = into.iterdir()
    assert made.name == folders.folder_name()
    code = """
import numpy as np, npflows
from numba.core import event
with event.install_recorder("numba:compile") as compiled:
    flow = npflows.RealNVP(2, 2, hidden_dims=(8,), rng=0)
    flow.fit(flow.sample(300, 0), max_epochs=1, rng=0, progress=False)
    flow.log_prob(np.zeros((3, 2)))
print(len(compiled.buffer))
"""
    root = str(Path(npflows.__file__).parents[1])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(into)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, env=environment, text=True, check=True,
                          capture_output=True)  # fmt: skip
    assert int(done.stdout) == 0


@cached
def test_nothing_half_made_is_left_when_a_process_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(npflows.warmup, "_TASK", "npflows.warmup:no_such_function")
    with pytest.raises(RuntimeError, match="the process that was to do it ended"):
        npflows.warmup.warmup("maf", processes=1, into=tmp_path)
    assert list(tmp_path.iterdir()) == []


@cached
def test_a_set_of_nothing_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"there is nothing to put into .*: no model was given"):
        warmup([], into=tmp_path)
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "unknown target": (["--target", "x86"], "target must be one of 'x86-64-v4', 'x86-64-v3', 'armv8-a', got 'x86'"),
    "a target of other CPUs": (["--target", OTHER], f"this CPU can't run code for the target '{OTHER}'"),
    "a file for a folder": (["--into", __file__], "no kernels can be put into "),
}


@cached
@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_made_is_refused_in_a_line(case, capsys):
    arguments, complaint = REFUSED[case]
    assert complaint in fails(capsys, "warmup", "maf", *arguments)


def test_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="models must be one of 'maf', 'spline', 'realnvp', 'iaf', 'glow', got 'nsf'"):
        warmup(["maf", "nsf"])


def test_there_is_one_for_every_kind_of_model():
    assert list(MODELS) == ["maf", "spline", "realnvp", "iaf", "glow"]
    assert list(TABLE_MODELS) == ["maf", "spline", "realnvp", "iaf"]
    for model in MODELS.values():
        assert model.model_class(**model.small, condition_dim=1, rng=0).condition_dim == 1
    for model in TABLE_MODELS.values():
        assert getattr(model.model_class(3, **{model.depth: 1}, rng=0), model.depth) == 1
