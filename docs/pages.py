"""The code of these pages: run a page from top to bottom, and write the outputs that it shows anew.

    python docs/pages.py docs/tutorial.md [--folder FOLDER]

In a page, every block of Python runs, all in one namespace; a block of text right below one is its output.  Lines in blocks
of shell commands that begin with `npflows` run too.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from npflows.cli import main

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


class Step(NamedTuple):
    """A block of code, the output that the page shows (None where it shows none), and where that begins and ends."""

    language: str
    code: str
    output: str | None
    span: tuple[int, int]


def steps(text: str) -> Iterator[Step]:
    """The blocks of a page."""
    for found in BLOCK.finditer(text):
        yield Step(found[1], found[2], found[3], found.span(3))


def commands(code: str) -> Iterator[list[str]]:
    """The arguments of each npflows command among lines of shell."""
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["npflows"]:
            yield words[1:]


def run(
    step: Step, place: dict, adapt: Callable[[str], str] = str, options: Callable[[list[str]], list[str]] = list
) -> str:
    """Run a block in a namespace and give back what it printed; code and commands are adapted first."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if step.language == "python":
            exec(compile(adapt(step.code), "<page>", "exec"), place)
        else:
            for arguments in commands(step.code):
                if main(options(arguments)) != 0:
                    raise RuntimeError(f"npflows {shlex.join(arguments)} failed")
    return printed.getvalue()


def rewrite(page: Path) -> None:
    """Run a page at full size, and put what it prints where it shows its outputs."""
    text, parts, end, place = page.read_text(encoding="utf-8"), [], 0, {"__name__": "__main__"}
    for step in steps(text):
        printed = run(step, place)
        if step.output is not None:
            parts += [text[end : step.span[0]], printed]
            end = step.span[1]
    page.write_text("".join([*parts, text[end:]]), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, help="where the pages may write files (default: a temporary one)")
    arguments = parser.parse_args()
    pages = [page.resolve() for page in arguments.pages]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        for page in pages:
            os.chdir(folder)
            rewrite(page)
        os.chdir(folder.anchor)
