"""The command starts fast, and tells its version and its help."""

import subprocess
import sys

import npflows
from npflows.cli import main


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"npflows {npflows.__version__}\n"
    for command in ([], ["fit"], ["score"], ["sample"], ["info"], ["verify"], ["plot"], ["demo"]):
        assert main([*command, "--help"]) == 0
        assert "None" not in capsys.readouterr().out


def test_the_command_starts_without_what_it_does_not_need():
    names = "matplotlib", "sklearn", "scipy.stats", "scipy.optimize", "pyarrow", "tqdm"
    code = f"import sys, npflows.cli; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    done = subprocess.run([sys.executable, "-m", "npflows", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"npflows {npflows.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "npflows", "info", "nothing"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "npflows: nothing: No such file or directory\n")
