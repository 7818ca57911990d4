"""How Sphinx builds these pages; `python -m sphinx -W --keep-going -b html docs docs/_build/html` does it."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for gallery_pictures, which sphinx-gallery imports by its name

import dependency_picture  # noqa: E402
import gallery_pictures  # noqa: E402

import npflows  # noqa: E402

project = "npflows"
author = "The npflows developers"
copyright = "The npflows developers, BSD 3-Clause"
release = version = npflows.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**/*.py.md5", "gallery/**/*.codeobj.json", "sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "py:obj"  # docstrings write `name` for a name of the package
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# Nothing is fetched from the network unless it is asked for.
if os.environ.get("NPFLOWS_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
    }

# The API: one page for each name, which shows all its methods (docs/_templates/autosummary).
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections give the types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the templates list the members
numpydoc_class_members_toctree = False

# The gallery: every example at its small size, with the picture that it writes.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "gallery_pictures.Order",
    "reset_argv": "gallery_pictures.small",
    "image_scrapers": ("gallery_pictures.drawn",),
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("npflows",),
    "inspect_global_variables": False,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "write_computation_times": False,
}
os.environ.setdefault("MPLBACKEND", "Agg")

html_theme = "pydata_sphinx_theme"
html_title = "npflows"
html_static_path = ["_static"]
html_css_files = ["npflows.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False
ALONE = ("installation", "tutorial", "what_there_is", "design", "contributing", "changelog")
html_sidebars = {page: [] for page in ALONE}  # pages without others below them


def protect_bars(app, what, name, obj, options, lines):
    """Escape bars outside of code, as in log |det dz/dx|, which reStructuredText would take for a substitution."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            pieces = line.split("`")
            pieces[::2] = [piece.replace("|", r"\|") for piece in pieces[::2]]
            lines[i] = "`".join(pieces)


def only_our_own(app, what, name, obj, skip, options):
    """Leave out what classes inherit from other packages, which describe it themselves."""
    function = getattr(obj, "fget", obj)
    return True if str(getattr(function, "__module__", "npflows")).startswith("sklearn") else None


def public_bases(app, name, obj, options, bases):
    """Name the public class that is above a private one."""
    for i, base in enumerate(bases):
        if isinstance(base, type):
            bases[i] = next(above for above in base.__mro__ if not above.__name__.startswith("_"))


def without_folders(app, docname, source):
    """In the printed lines of examples leave out the folder of the build, where their pictures were written."""
    if docname.startswith("gallery/"):
        source[0] = gallery_pictures.FOLDERS.sub("", source[0])


def setup(app):
    dependency_picture.draw(HERE.parent / "pyproject.toml", HERE / "images" / "generated" / "dependencies.svg")
    app.connect("autodoc-process-docstring", protect_bars)
    app.connect("autodoc-skip-member", only_our_own)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("source-read", without_folders)
