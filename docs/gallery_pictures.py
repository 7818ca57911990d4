"""Settings of sphinx-gallery for the examples: how to run them small, and where their pictures are."""

import re
import shutil
import tempfile
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

FOLDER = Path(tempfile.mkdtemp(prefix="npflows-gallery-"))
FOLDERS = re.compile(r"\S*npflows-gallery-[^/\s]+/")
FULL = Path(__file__).parent / "images"
ORDER = (
    "fit_table",
    "two_moons",
    "density_estimation",
    "anomaly_detection",
    "photometric_redshifts",
    "weighted_samples",
    "posterior_as_prior",
    "posterior",
    "temperature",
    "periodic_angles",
    "digits_by_class",
    "glow_digits",
    "glow_fashion",
    "two_dimensional",
    "train_with_scipy",
    "custom_layer",
)
"""From the first steps to a layer of your own; whatever is not named comes last."""


def small(gallery_conf, script_vars):
    """The arguments of an example's small size, with its picture in a folder of this build.

    Examples run under their own names, as scripts do, and find the data beside them.
    """
    script_vars["example_globals"]["__file__"] = script_vars["src_file"]
    return ["--quick", "-o", str(FOLDER / f"{Path(script_vars['src_file']).stem}.png")]


def drawn(block, block_vars, gallery_conf):
    """The picture of the full size, where the repository has one, and the one that the example has just written."""
    name = Path(block_vars["src_file"]).stem
    written, full, text = FOLDER / f"{name}.png", FULL / f"{name}.png", ""
    if not written.exists():
        return text
    if full.exists():
        target = next(block_vars["image_path_iterator"])  # the first one is that of the gallery's front page
        shutil.copy(full, target)
        text = "At full size it draws this:\n\n" + figure_rst([target], gallery_conf["src_dir"], f"{name}.py at full size")
        text += "\nAt the small size of these pages:\n\n"
    target = next(block_vars["image_path_iterator"])
    shutil.move(written, target)
    return text + figure_rst([target], gallery_conf["src_dir"], f"{name}.py at its small size")


class Order:
    """Sorts the examples as `ORDER` has them."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name):
        stem = Path(name).stem
        return (ORDER.index(stem) if stem in ORDER else len(ORDER), name)

    def __repr__(self):
        return "Order()"
