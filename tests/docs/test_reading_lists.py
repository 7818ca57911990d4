"""The lists of what one reads in npflows name what is there, and docs/side_by_side.md shows them."""

import importlib.util
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
LISTS = json.loads((DOCS / "reading_lists.json").read_text(encoding="utf-8"))
PARTS = [(question, part) for question, parts in LISTS["questions"].items() for part in parts]


def own(package):
    return package.split()[0] == "npflows"


@pytest.fixture(scope="module")
def counting():
    spec = importlib.util.spec_from_file_location("count_reading", DOCS / "count_reading.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("question", "part"), PARTS)
def test_every_name_of_npflows_is_there(counting, question, part):
    packages = {package: files for package, files in LISTS["questions"][question][part].items() if own(package)}
    assert packages["npflows"]
    for package, files in packages.items():
        for file, names in files.items():
            assert counting.count_file(package, file, names), (package, file)


def test_a_name_that_is_gone_ends_the_count(counting):
    with pytest.raises(SystemExit, match=r"npflows/flow\.py holds no Nothing"):
        counting.count_file("npflows", "flow.py", ["Nothing"])


def test_what_counts(counting, tmp_path, monkeypatch):
    folder = tmp_path / "a_small_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "file.py").write_text(
        '"""Docstring."""\n\nONE, TWO = 1, 2\n\n\nclass A:\n    """Docstring."""\n\n    field: int\n\n'
        "    def f(self):\n        # a comment\n        return ONE\n\n\nif ONE:\n\n    def g():\n        return (\n"
        "            1\n        )\n\nelse:\n    g = None\n\n\n@register\ndef _(x: A):\n    return x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def count(*names):
        return counting.totals(counting.count_file("a_small_package", "file.py", list(names)))

    assert count("TWO") == "1 / 0 / 1"
    assert count("A.f") == "1 / 1 / 4"  # with the class statement and the field
    assert count("A", "A.f") == "1 / 1 / 4"
    assert count("g") == "1 / 1 / 5"
    assert count("_(A)", 2) == "1 / 1 / 5"


def test_missing_packages_are_named_with_the_command_that_brings_them(counting):
    with pytest.raises(SystemExit, match="no-such-package 1 is not here") as error:
        counting.check_versions({"no-such-package": "1"})
    assert "pip install --no-deps -t sources no-such-package==1" in str(error.value)


@pytest.mark.parametrize(("question", "part"), PARTS)
def test_the_page_shows_the_lists(question, part):
    page = (DOCS / "side_by_side.md").read_text(encoding="utf-8")
    shown = page.split(f"**{question}: {part}**")[1].split("\n**")[0]
    for package, files in LISTS["questions"][question][part].items():
        for file, names in files.items():
            words = ", ".join(f"{name} more" if isinstance(name, int) else f"`{name}`" for name in names)
            assert f"\n| {package}/{file} | {words} | " in shown
