"""How the documentation is built; `make docs` does it."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "_ext")]

import resilient_auth  # noqa: E402 - found by the line above

project = "resilient-auth"
author = "The resilient-auth authors"
copyright = "The resilient-auth authors, MIT licence"
version = release = resilient_auth.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "tables", "names"]
exclude_patterns = ["_build", "_ext"]
myst_heading_anchors = 3

# In our docstrings, single backticks mark code.
default_role = "code"
add_module_names = False
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"resilient-auth {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def _let_plurals_follow_code(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Write `kid`s in a way that reStructuredText reads as code and an s."""
    lines[:] = [re.sub(r"(`[^`]+`)(?=[a-z])", r"\1\\ ", line) for line in lines]


def setup(app: Any) -> None:
    """Have docstrings read as they are written."""
    app.connect("autodoc-process-docstring", _let_plurals_follow_code)
