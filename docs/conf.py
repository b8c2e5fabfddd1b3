"""How the documentation site is built: ``make docs``. Warnings are errors."""

import re
import shutil
from pathlib import Path

import mrviz

ROOT = Path(__file__).parents[1]

project = "mrviz"
author = "mrviz contributors"
copyright = "mrviz contributors, BSD-3-Clause"
version = release = mrviz.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "mrviz"
html_sidebars = {"index": [], "start": [], "theory": []}
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]  # pictures stand beside interactive figures

napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "groupwise"
autosummary_generate = False
add_module_names = False
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!mrviz\.).*"),  # names of other libraries
    ("py:.*", r"mrviz\._.*"),
    ("py:class", r"mrviz\.(programs\.registry\.(Make|Class)|study\.grid\.Configuration)"),
    ("py:class", r"mrviz\.theory\.products\.Kernel"),
    ("py:class", r"mrviz\.classroom\.exercises\.Made"),
]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def copy_in(folder: Path) -> None:
    """Notebooks and pages that live outside of this folder, where Sphinx finds them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(notebook, folder)


copy_in(Path(__file__).parent / "notebooks")


def once(app, what, name, obj, skip, options):
    """A name that mrviz or mrviz.mappings offers is documented there and nowhere else."""
    page = app.env.docname
    offered = set() if page == "reference/mrviz" else set(mrviz.__all__)
    if page == "reference/programs":
        offered |= set(mrviz.mappings.__all__)
    return True if what == "module" and name in offered else None


MARKUP = (
    (r"(?<![*\w`\\])\*(?=\w)", r"\\*"),  # the star of a shape such as (n, *shape) is no emphasis
    (r"\|(?=[^\s|`][^|`]*\|)", r"\\|"),  # the bars of an absolute value are no substitution
    (r"docs/(\w+)\.md", r":doc:`docs/\1.md </\1>`"),
)


def plain(app, what, name, obj, options, lines):
    """Docstrings are written for readers of the code; what reStructuredText would misread."""
    for pattern, written in MARKUP:
        lines[:] = [re.sub(pattern, written, line) for line in lines]


def public(app, env, node, contnode):
    """A reference to a name by another of its packages leads to where it is documented."""
    if node.get("refdomain") != "py" or not node["reftarget"].startswith("mrviz."):
        return None
    domain, name = env.get_domain("py"), node["reftarget"].rpartition(".")[2]
    found = [known for known in domain.objects if known.endswith(f".{name}")]
    if f"mrviz.{name}" in found:
        found = [f"mrviz.{name}"]
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)


def setup(app):
    app.connect("autodoc-skip-member", once)
    app.connect("autodoc-process-docstring", plain)
    app.connect("missing-reference", public)
