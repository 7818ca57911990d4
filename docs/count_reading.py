"""Count the files, functions and lines that one reads to answer a question about a library.

``reading_lists.json`` beside this script names the functions on the path, for every question, part and package. They are
found with `ast`; no package is imported. Printed is Markdown: a table over all libraries, then each file with its names.

A name is ``function``, ``Class.method``, ``function.inner``, ``Class`` (all of it), the target of an assignment, or
``_(Class)`` for what a `singledispatch` function does with a class. What several branches of an ``if`` define counts in
each. A whole number stands for that many further lines to be written, such as entries in an ``__init__.py``. Files stand
below the folder of their package: ``"npflows": {"flow.py": ["NormalizingFlow"], "core/registry.py": ["register", 1]}``. A
package may have several groups of files, ``"npflows"`` and ``"npflows framework"``, which columns put together.

A line counts if it carries code: blank lines, comments and docstrings do not. A method brings the lines of its class that
belong to no method (the ``class`` statement and the fields). A line named twice counts once.

Usage: ``python docs/count_reading.py [FOLDER ...]``. The folders hold the packages, as ``pip install -t FOLDER`` does.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import io
import json
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

Lines = set[tuple[str, int, bool]]  # file, number, whether a function begins there

HERE = Path(__file__).resolve().parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def span(node: ast.stmt) -> set[int]:
    """Return the numbers of the lines of a statement, its decorators included."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return set(range(first, node.end_lineno + 1))


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that carry code."""
    owners = [node for node in ast.walk(tree) if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module))]
    docstrings = set().union(*(span(node.body[0]) for node in owners if ast.get_docstring(node) is not None))
    numbers = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE and not (token.type == tokenize.STRING and token.start[0] in docstrings):
            numbers.update(range(token.start[0], token.end[0] + 1))
    return {number for number, text in enumerate(source.split("\n"), start=1) if number in numbers and text.strip()}


def named_nodes(parent: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.stmt, ast.AST]]:
    """Yield each definition and assignment below a node: its qualified name, itself and the node that holds it."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.If):
            yield from named_nodes(node, prefix)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            of = f"({ast.unparse(node.args.args[0].annotation)})" if node.name == "_" else ""
            yield prefix + node.name + of, node, parent
            yield from named_nodes(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                    yield prefix + ast.unparse(part), node, parent


def count_file(package: str, file: str, names: list[str | int]) -> Lines:
    """Return the lines that a list names in one file; a name that the file does not hold ends the script."""
    folder = importlib.util.find_spec(package.split()[0]).submodule_search_locations[0]
    source = (Path(folder) / file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    code, nodes = code_lines(source, tree), list(named_nodes(tree))
    numbers, beginnings = {-line for name in names if isinstance(name, int) for line in range(1, name + 1)}, set[int]()
    for name in (name for name in names if not isinstance(name, int)):
        found = [(node, parent) for known, node, parent in nodes if known == name]
        if not found:
            sys.exit(f"{package}/{file} holds no {name}; correct it in reading_lists.json")
        for node, parent in found:
            numbers |= span(node) & code
            members = node.body if isinstance(node, ast.ClassDef) else [node]
            beginnings |= {member.lineno for member in members if isinstance(member, FUNCTIONS)}
            if isinstance(parent, ast.ClassDef):
                methods = (span(member) for member in parent.body if isinstance(member, FUNCTIONS))
                numbers |= (span(parent) & code).difference(*methods)
    return {(f"{package}/{file}", number, number in beginnings) for number in numbers}


def totals(lines: Lines, start: int = 0) -> str:
    """Return the numbers of files, functions and lines as cells; an empty list has none."""
    numbers = [len({line[0] for line in lines}), sum(line[2] for line in lines), len({line[:2] for line in lines})]
    return " / ".join(map(str, numbers[start:])) if lines else ""


def check_versions(versions: dict[str, str]) -> None:
    """End the script where a package is missing, or there in another version than the lists are for."""
    for package, version in versions.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            wanted = " ".join(f"{name}=={number}" for name, number in versions.items())
            sys.exit(f"{package} {version} is not here. Get the sources, and pass their folder:\n\n"
                     f"    pip install --no-deps -t sources {wanted}\n"
                     "    python docs/count_reading.py sources")  # fmt: skip
        if found != version:
            sys.exit(f"The lists are for {package} {version}, but {found} is here")


def main(folders: list[str]) -> None:
    """Print the table of all libraries, then the lists."""
    sys.path[:0] = [str(HERE.parent), *folders]
    lists = json.loads((HERE / "reading_lists.json").read_text(encoding="utf-8"))
    check_versions(lists["versions"])
    columns, details = lists["columns"], list[str]()
    table = [["files / functions / lines", *columns], ["---"] * (1 + len(columns))]
    for question, parts in lists["questions"].items():
        together = {column: Lines() for column in columns}
        for part, packages in parts.items():
            details.append(f"\n**{question}: {part}**\n\n| file | names | functions / lines |\n|---|---|--:|")
            row = {column: Lines() for column in columns}
            for package, files in packages.items():
                for file, names in files.items():
                    lines = count_file(package, file, names)
                    words = ", ".join(f"{name} more" if isinstance(name, int) else f"`{name}`" for name in names)
                    details.append(f"| {package}/{file} | {words} | {totals(lines, start=1)} |")
                    for column in columns:
                        row[column] |= lines if package in columns[column] else set()
            together = {column: together[column] | row[column] for column in columns}
            table.append([f"{question}: {part}", *map(totals, row.values())])
        table.append([f"{question}: together", *map(totals, together.values())])
    print(*(f"| {' | '.join(cells)} |" for cells in table), *details, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
