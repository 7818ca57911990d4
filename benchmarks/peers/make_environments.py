"""Make the environments of the peers: virtual environments with pinned versions, in a folder of yours.

    python benchmarks/peers/make_environments.py FOLDER

FOLDER/torch gets PyTorch with nflows, zuko and normflows; FOLDER/jax gets JAX with flowjax.  They take several GB, and need
Python 3.11 or a later one that these versions support.  npflows is not installed there and they are not needed by it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.peers.environments import NAMES, python_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name in NAMES:
        if not (folder / name).exists():
            venv.create(folder / name, with_pip=True)
        requirements = Path(__file__).with_name(f"requirements-{name}.txt")
        subprocess.run([python_of(folder, name), "-m", "pip", "install", "-r", str(requirements)], check=True)


if __name__ == "__main__":
    main()
