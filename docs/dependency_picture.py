"""The picture of which part of npflows may import which, drawn from the contract in pyproject.toml.

python docs/dependency_picture.py OUTPUT.svg
"""

import argparse
import sys
from html import escape
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WIDTH, HEIGHT, GAP, MARGIN = 860, 44, 16, 16
"""Of the picture and of a box, between boxes and around all, in pixels."""


def floors(pyproject: Path) -> list[list[str]]:
    """The names on each floor, from the top down, of the contract of type "layers"."""
    contracts = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers"]
    separator = {floor: ":" if ":" in floor else "|" for floor in contract["layers"]}
    return [[name.strip(" ()") for name in floor.split(separator[floor])] for floor in contract["layers"]]


def picture(names: list[list[str]]) -> str:
    """An SVG with one row of boxes for each floor."""
    height = 2 * MARGIN + len(names) * HEIGHT + (len(names) - 1) * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="monospace" font-size="15" text-anchor="middle">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff" rx="8"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#3c4654"/></marker></defs>',
    ]
    arrow = 40
    left = MARGIN + arrow
    parts.append(
        f'<line x1="{MARGIN + 12}" y1="{MARGIN + 4}" x2="{MARGIN + 12}" y2="{height - MARGIN - 8}" stroke="#3c4654" '
        f'stroke-width="2" marker-end="url(#tip)"/>'
    )
    for floor, row in enumerate(names):
        y = MARGIN + floor * (HEIGHT + GAP)
        width = (WIDTH - MARGIN - left - (len(row) - 1) * GAP) / len(row)
        for place, name in enumerate(row):
            x = left + place * (width + GAP)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="6" fill="#f1f3f5" stroke="#868e96"/>'
                f'<text x="{x + width / 2:.1f}" y="{y + HEIGHT / 2 + 5}" fill="#212529">{escape(name)}</text>'
            )
    return "\n".join([*parts, "</svg>\n"])


def draw(pyproject: Path, output: Path) -> None:
    """Write the picture, unless it is there already as it should be."""
    text = picture(floors(pyproject))
    if not output.exists() or output.read_text(encoding="utf-8") != text:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    draw(Path(__file__).parents[1] / "pyproject.toml", parser.parse_args().output)
