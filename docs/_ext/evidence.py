"""Tests that a page names as evidence must be there: one that is renamed or removed fails the build."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

_TESTS = Path(__file__).parents[2] / "tests"
_DEFINED = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
#: Pages that show tests as evidence.
_PAGES = frozenset({"threat-model", "verifying-tokens"})


def check(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of a test that isn't there."""
    page = app.env.docname
    if page not in _PAGES:
        return
    known = {name for file in _TESTS.rglob("test_*.py") for name in _DEFINED.findall(file.read_text())}
    for literal in doctree.findall(nodes.literal):
        name = literal.astext()
        if re.fullmatch(r"test_\w+", name) and name not in known:
            logging.getLogger(__name__).warning("there is no test %s", name, location=literal)


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at each page that was read."""
    app.connect("doctree-read", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
