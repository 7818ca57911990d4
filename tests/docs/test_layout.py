"""The layout that CONTRIBUTING describes is that of the contract of imports, and every file that it names is there."""

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def rows(title):
    """The cells of the table below a heading, row by row."""
    part = CONTRIBUTING.split(f"\n## {title}\n")[1].split("\n## ")[0]
    table = [line for line in part.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_the_table_of_the_layout_is_the_contract_of_imports():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers"]
    order = [name.strip() for floor in contract["layers"] for name in floor.split("|") if name != "__main__"]
    described = [name for parts, _ in rows("How the code is laid out") for name in re.findall(r"`(\w+)`", parts)]
    assert described == order
    assert {path.stem for path in (ROOT / "npflows").glob("[!_]*") if path.suffix in ("", ".py")} <= {*order, "__pycache__"}


def test_the_files_to_touch_for_a_new_one_exist():
    named = [name for _, files in rows("Where a new one goes") for name in re.findall(r"`([\w/]+\.py)`", files)]
    assert len(named) > 20
    missing = [n for n in named if "NAME" not in n and not any((ROOT / at / n).exists() for at in ("", "npflows"))]
    folders = [n for n in named if "NAME" in n and not any((ROOT / at / n).parent.is_dir() for at in ("", "npflows"))]
    assert not [*missing, *folders]


def test_every_path_that_contributing_names_is_there():
    named = set(re.findall(r"(?<![\w/.~-])[\w.][\w.-]*(?:/[\w.-]+)+", CONTRIBUTING))
    made = ("docs/_build", "docs/gallery", "docs/api/generated", "venv")
    assert {"tests/docs/test_documentation.py", "core/operations", "layers/NAME.py", *made[:-1]} <= named
    kept = [Path(name) for name in named if not any(Path(name).is_relative_to(folder) for folder in made)]
    paths = {path.parent if "NAME" in path.name else path for path in kept}
    assert not [path for path in paths if not any((at / path).exists() for at in (ROOT, ROOT / "npflows"))]
