"""Sphinx's configuration: ``sphinx-build -W -n docs docs/_build``, without a network."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import signatures  # noqa: E402 # beside this file
from figures import policies  # noqa: E402

project = "anythrottle"
author = "the anythrottle authors"
project_copyright = "2026, the anythrottle authors"
release = installed_version("anythrottle")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "notfound.extension",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_figures"]
html_theme = "furo"
html_title = f"anythrottle {release}"

# What is copied can be run: without prompts and what they print.
copybutton_prompt_text = ">>> "
copybutton_only_copy_prompt_lines = True
# The page for what is not there finds its styles wherever the site stands.
notfound_urls_prefix = "/"
notfound_context = {
    "title": "Page not found",
    "body": "<h1>Page not found</h1><p>There is no page here, or it has moved. Begin at "
    '<a href="/index.html">the first page</a>, or <a href="/search.html">search</a>.</p>',
}
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
python_use_unqualified_type_names = True

# Kept here, so that building needs no network: one line for each name that we refer to.
intersphinx_mapping = {
    "aiohttp": ("https://docs.aiohttp.org/en/stable", "_inventories/aiohttp.txt"),
    "python": ("https://docs.python.org/3", "_inventories/python.txt"),
    "anyio": ("https://anyio.readthedocs.io/en/stable", "_inventories/anyio.txt"),
    "coredis": ("https://coredis.readthedocs.io/en/stable", "_inventories/coredis.txt"),
    "rich": ("https://rich.readthedocs.io/en/stable", "_inventories/rich.txt"),
    "trio": ("https://trio.readthedocs.io/en/stable", "_inventories/trio.txt"),
}

# type variables have no page
TYPE_VARIABLE = r"(.*\.)?_?~?([A-Z]s?(_\w+)?|PosArgsT|Re[qs])(\.args|\.kwargs)?"
nitpick_ignore_regex = [("py:.*", TYPE_VARIABLE)]


def setup(app: Sphinx) -> None:
    """Draw the figures before pages are read, so that they show what the code does."""
    app.connect("builder-inited", lambda _: policies.main(DOCS / "_figures"))
    signatures.setup(app)
