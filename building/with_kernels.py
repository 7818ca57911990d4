"""Setuptools, with an option for compiled kernels in the wheel: `python -m build -Ckernels=DIRECTORY`.

DIRECTORY is what `npflows warmup --target LEVEL --into DIRECTORY` has made from this very source.
"""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

HERE = Path(__file__).resolve().parents[1]


def build_wheel(
    wheel_directory: str, config_settings: Mapping[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel, with kernels if the settings name a folder of them."""
    settings = dict(config_settings or {})
    kernels = settings.pop("kernels", None)
    if kernels is None:
        return build_meta.build_wheel(wheel_directory, settings, metadata_directory)
    package = HERE / "npflows"
    carried = package / "prebuilt"
    try:
        for folder in sets(package, Path(kernels)):
            shutil.copytree(folder, carried / folder.name)
        return build_meta.build_wheel(wheel_directory, settings, metadata_directory)
    finally:
        for left in (carried, HERE / "build" / "lib" / "npflows" / "prebuilt"):
            shutil.rmtree(left, ignore_errors=True)


def sets(package: Path, directory: Path) -> list[Path]:
    """The sets of kernels in a directory that were compiled from the source of the package."""
    source = runpy.run_path(str(package / "backends/cpu/compiler/source.py"))
    there = sorted(directory.glob("npflows-*")) if directory.is_dir() else []
    fitting = [folder for folder in there if folder.name.startswith(f"npflows-{source['source_digest'](package)[:16]}-")]
    if not fitting:
        found = f"those in {directory} are of another source" if there else f"there are none in {directory.absolute()}"
        make = f"npflows warmup --target LEVEL --into {directory}"
        raise SystemExit(f"no kernels of this source: {found}; make them by: {make}")
    return fitting
