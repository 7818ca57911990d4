"""What sphinx-gallery needs to know of the examples: how to run them small, and where their pictures are."""

import shutil
import tempfile
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

FOLDER = Path(tempfile.mkdtemp(prefix="npflows-gallery-"))
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
    """The picture that the example has written; after it the one of the full size, where the repository has one."""
    name = Path(block_vars["src_file"]).stem
    written = FOLDER / f"{name}.png"
    if not written.exists():
        return ""
    target = next(block_vars["image_path_iterator"])
    shutil.move(written, target)
    text = figure_rst([target], gallery_conf["src_dir"], f"What {name}.py draws at its small size")
    if (FULL / f"{name}.png").exists():
        text += f"\nAt full size it draws this:\n\n.. image:: /images/{name}.png\n   :alt: What {name}.py draws\n\n"
    return text


class Order:
    """Sorts the examples as `ORDER` has them."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name):
        stem = Path(name).stem
        return (ORDER.index(stem) if stem in ORDER else len(ORDER), name)

    def __repr__(self):
        return "Order()"
