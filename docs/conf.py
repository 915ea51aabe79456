"""Sphinx's configuration: ``sphinx-build -W -n docs docs/_build``, without a network."""

from importlib.metadata import version as installed_version

project = "anythrottle"
author = "the anythrottle authors"
project_copyright = "2026, the anythrottle authors"
release = installed_version("anythrottle")
version = ".".join(release.split(".")[:2])

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"anythrottle {release}"
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
python_use_unqualified_type_names = True

# Kept here, so that building needs no network: one line for each name that we refer to.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "_inventories/python.txt"),
    "anyio": ("https://anyio.readthedocs.io/en/stable", "_inventories/anyio.txt"),
    "trio": ("https://trio.readthedocs.io/en/stable", "_inventories/trio.txt"),
}

# type variables have no page
TYPE_VARIABLE = r"(.*\.)?_?([A-Z]s?(_\w+)?|PosArgsT)(\.args|\.kwargs)?"
nitpick_ignore_regex = [("py:.*", TYPE_VARIABLE)]
# type aliases for what the text of their pages says
nitpick_ignore = [("py:class", "Job"), ("py:class", "JobOf")]
