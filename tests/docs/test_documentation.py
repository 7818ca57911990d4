"""All that README.md and the pages of docs name is there: every block of code, every command, every name, every file."""

import importlib
import importlib.util
import inspect
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import npflows
from npflows.models.table import MODELS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how_to").glob("*.md"))]
INCLUDED = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "RESULTS.md"]
TESTS = "\n".join(
    path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("*.py") if path != Path(__file__)
)
NUMBER = re.compile(r"[-+]?\d[\d,_]*(\.\d*)?(e[-+]?\d+)?")
SAID = "missing entries|entries are missing"
"""The warnings of `fit` about missing entries, with which a page means to deal."""


def module_from(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = module_from(ROOT / "docs" / "pages.py")
WITH_CODE = [page for page in PAGES if any(pages.steps(page.read_text(encoding="utf-8")))]


def smaller(code):
    """The same code with fewer epochs, steps and samples, and smaller flows of images."""
    code = re.sub(r"max_(epochs|steps)=\d+", r"max_\1=2", code)
    return code.replace("100_000", "1000").replace("blocks_per_scale=8", "blocks_per_scale=1")


def quicker(arguments):
    """The same command with a small flow; `warmup` for one model."""
    if arguments[0] == "warmup":
        return ["warmup", "maf", *(word for word in arguments[1:] if word not in MODELS)]
    more = {"fit": ["--epochs", "2", "--hidden", "8", "--layers", "2"], "demo": ["--quick"]}
    return [*arguments, *more.get(arguments[0], [])]


def shape(printed):
    """A printed text without its numbers: lines, words, and where numbers are."""
    return [NUMBER.sub("#", line).replace(" ", "") for line in printed.splitlines()]


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
@pytest.mark.filterwarnings(f"ignore:.*({SAID})")
def test_the_code_of_a_page_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    for name, model in MODELS.items():
        monkeypatch.setitem(MODELS, name, replace(model, variants=()))  # of which `warmup` compiles every one
    place = {"__name__": "__main__"}
    for step in pages.steps(page.read_text(encoding="utf-8")):
        printed = pages.run(step, place, smaller, quicker)
        if step.output is not None:
            assert shape(printed) == shape(step.output), step.code


def test_the_pages_have_code():
    assert len(WITH_CODE) > 12
    assert all(name in {page.stem for page in WITH_CODE} for name in ("README", "tutorial", "conditions", "command_line"))


def test_every_block_of_python_is_run():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        runs = [step for step in pages.steps(text) if step.language == "python"]
        assert text.count("```python") == len(runs), page


def test_outputs_are_compared_without_their_numbers():
    assert shape("loss -1.25, 3 rows\n") == shape("loss 1,000.5, 12 rows\n")
    assert shape("loss nan") != shape("loss 1.0")
    assert shape("True") != shape("False")
    assert shape("[[1.5 2]]") != shape("[[1.5 2 3]]")


@pytest.mark.parametrize("page", [*PAGES, *INCLUDED], ids=name_of)
def test_every_file_that_is_pointed_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in target]
    targets += re.findall(r"^```\{include\} (\S+)", text, re.MULTILINE)
    missing = [target for target in targets if not exists_for(page.parent, target)]
    assert not missing


def exists_for(folder, target):
    """Whether a link leads somewhere: to a file, to a page of the gallery, or to a picture that the build draws."""
    path = Path(os.path.normpath(folder / target))
    if path.parent == ROOT / "docs" / "gallery":
        return path.name == "index" or (ROOT / "examples" / f"{path.name}.py").exists()
    return path.exists() or path.parent == ROOT / "docs" / "images" / "generated"


def test_readme_points_to_the_pages_and_shows_two_commands():
    commands = re.findall(r"^pip install '\.\[(plot|test)\]' && ", README, re.MULTILINE)
    assert commands == ["plot", "test"]
    assert README.count("](docs/") >= 8


OVERVIEW = (ROOT / "docs" / "what_there_is.md").read_text(encoding="utf-8")
ROWS = [line for line in OVERVIEW.splitlines() if line.startswith("| ") and "`" in line]
NAMES = sorted({re.sub(r"=|\(.*\)", "", name) for row in ROWS for name in re.findall(r"`([^`]+)`", row)})


def exists(name):
    """Whether a name is an environment variable, a module, in one, a method of a flow, or a parameter of one or of its
    methods."""
    if name.startswith("NPFLOWS_"):
        return any(name in path.read_text(encoding="utf-8") for path in (ROOT / "npflows").rglob("*.py"))
    if name.startswith("npflows."):
        name = name.removeprefix("npflows.")
        if hasattr(npflows, name):
            return True
        return importlib.import_module(f"npflows.{name}") is not None
    parameters = set(inspect.signature(npflows.NeuralSplineFlow).parameters)
    parameters |= set(inspect.signature(npflows.NormalizingFlow.log_prob).parameters)
    return hasattr(npflows, name) or hasattr(npflows.MAF(1), name) or name in parameters


def test_the_table_has_its_rows():
    assert len(ROWS) > 10
    assert {"NeuralSplineFlow", "sample_each", "support", "verify", "npflows.functional"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_table_exists_and_has_a_test(name):
    if name.startswith("Flow"):
        pytest.importorskip("sklearn")
        assert hasattr(importlib.import_module("npflows.sklearn"), name)
    elif name == "npflows.sklearn":
        pytest.importorskip("sklearn")
    else:
        assert exists(name)
    assert re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", TESTS)


MODULES = ("npflows", "support", "functional", "extend", "convert", "hosts", "sklearn", "data", "plotting", "diagnostics",
           "verify", "warmup")  # fmt: skip
API = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.rst")))


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_its_place_in_the_api(name):
    if name == "sklearn":
        pytest.importorskip("sklearn")
    module = importlib.import_module("npflows" if name == "npflows" else f"npflows.{name}")
    public = getattr(module, "__all__", None)
    if public is None:
        own = (o for o in vars(module).items() if getattr(o[1], "__module__", "").startswith(module.__name__))
        public = [key for key, value in own if not key.startswith("_") and callable(value)]
    elsewhere = {"functional", "hosts", "networks", "support", "transformers", "vecmath"}  # modules
    assert public
    for key in set(public) - elsewhere:
        assert re.search(rf"^   {key}$", API, re.MULTILINE) or f"`npflows.{key}`" in API, key


def test_the_examples_are_in_order_in_the_gallery():
    text = (ROOT / "docs" / "gallery_pictures.py").read_text(encoding="utf-8")
    order = re.findall(r'^    "(\w+)",$', text, re.MULTILINE)
    assert sorted(order) == sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def test_the_picture_of_the_imports_has_every_name_of_the_contract():
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    draw = module_from(ROOT / "docs" / "dependency_picture.py")
    floors = draw.floors(ROOT / "pyproject.toml")
    names = [name for floor in floors for name in floor]
    assert {"cli", "flow", "layers", "core"} <= set(names)
    svg = draw.picture(floors)
    assert [f">{name}<" in svg for name in names] == [True] * len(names)
    assert svg.count("<rect") == 1 + len(names)
