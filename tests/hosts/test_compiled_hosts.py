"""Densities in JAX and in PyTensor, each in a process of its own: JAX warns of every later fork, PyTensor changes Numba."""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import npflows

HERE = Path(__file__).parent


@pytest.mark.parametrize("host", ["jax", "pytensor"])
def test_host(host):
    if importlib.util.find_spec(host) is None:
        pytest.skip(f"{host} is not installed")
    environment = {**os.environ, "PYTHONPATH": str(Path(npflows.__file__).parents[1])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / f"{host}_cases.py")]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("host", ["jax", "pytensor"])
def test_host_that_is_missing(host, monkeypatch):
    module = importlib.import_module(f"npflows.hosts.{host}")
    for name in [name for name in sys.modules if name.split(".")[0] == host]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, host, None)
    density = npflows.embed(npflows.MAF(2, 1, (4,), rng=0))
    with pytest.raises(ImportError, match=rf"npflows\.hosts\.{host} needs .*: pip install"):
        module.log_prob(density)
