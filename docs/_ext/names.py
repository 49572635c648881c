"""What texts name must be there, and code on pages must fit one; else `make docs` fails.

The texts are the pages, the other Markdown files of the project, and the package's docstrings. In them are looked up:
links to files and headings, and what stands in backticks and looks like a test, a `make` target, a module or another
public name with `resilient_auth.` or `ra.` before it, or a file of the project.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "resilient_auth"
WIDTH = 88

_LITERAL = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_DOTTED = re.compile(r"(?:resilient_auth|ra)((?:\.[A-Za-z_]\w*)+)(?:\(.*\))?")
_FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|md|sh|toml|yaml))")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
#: What only looks like a file of the project: a reader's own, and the beginning of a media type.
_OTHERS = frozenset({"conftest.py", "application/"})


def texts() -> Iterator[tuple[Path, str]]:
    """Give each text with its file: pages as they are, of modules only the docstrings."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]):
        if path.name != "CHANGELOG.md" and "_build" not in path.parts:  # it names what was, too
            yield path, path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, ast.get_docstring(node) or ""


def wrong() -> Iterator[str]:
    """Say what is named and isn't there, and what is too wide."""
    for path, text in texts():
        where = path.relative_to(ROOT).as_posix()
        prose = _FENCE.sub("", text)
        for literal in _LITERAL.findall(prose):
            if not _is_there(literal.strip(), path):
                yield f"{where}: there is no `{literal}`"
        if path.suffix == ".md":
            for target, anchor in _LINK.findall(prose):
                if not _leads_somewhere(path, target, anchor):
                    yield f"{where}: the link to {target}{'#' if anchor else ''}{anchor} leads nowhere"
            if path.parent.name == "docs" or path.parent == ROOT:
                for block in (found.group() for found in _FENCE.finditer(text)):
                    for line in block.splitlines():
                        if len(line) > WIDTH:
                            yield f"{where}: code is wider than {WIDTH} columns: {line.strip()}"


def _is_there(literal: str, path: Path) -> bool:
    if re.fullmatch(r"test_\w+", literal):
        return literal in _tests()
    if target := re.fullmatch(r"make ([a-z][\w-]*)(?: [A-Z_]+=.*)?", literal):
        return target[1] in _targets()
    if dotted := _DOTTED.fullmatch(literal):
        return literal in _told() or _resolves(dotted[1].split(".")[1:])
    if _FILE.fullmatch(literal) and literal not in _OTHERS:
        return _is_file(literal, path)
    return True


def _leads_somewhere(path: Path, target: str, anchor: str) -> bool:
    page = path.parent / target if target else path
    return page.exists() and (not anchor or page.suffix != ".md" or anchor in _anchors(page))


@functools.cache
def _anchors(page: Path) -> frozenset[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower() for heading in _HEADING.findall(text))
    slugs = (re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain)
    return frozenset({*slugs, *_TARGET.findall(text)})


@functools.cache
def _tests() -> frozenset[str]:
    files = list((ROOT / "tests").rglob("test_*.py"))
    defined = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
    return frozenset(name for file in files for name in (file.stem, *defined.findall(file.read_text())))


@functools.cache
def _told() -> frozenset[str]:
    """Return the names of metrics, labels and spans."""
    from resilient_auth.telemetry.metrics import LABELS, METRICS, SPANS

    return frozenset({*METRICS, *LABELS, *SPANS.values()})


@functools.cache
def _targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@functools.cache
def _files() -> tuple[str, ...]:
    folders = ("resilient_auth", "tests", "docs", "examples", "benchmarks", ".github")
    found = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return tuple(f"/{path.relative_to(ROOT).as_posix()}" for path in found if "_build" not in path.parts)


def _is_file(literal: str, path: Path) -> bool:
    """Return whether a file or folder is meant that is there: from the root, the package, or beside the text."""
    if literal.startswith("../"):
        return (path.parent / literal).exists()
    if literal.startswith("."):
        return (ROOT / literal).exists()
    wanted = f"/{literal.rstrip('/')}"
    return any(file.endswith(wanted) for file in _files()) or (path.parent / literal).exists()


@functools.cache
def _resolve_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _resolves(names: list[str]) -> bool:
    """Return whether a name of the package leads to something; a field of a class counts."""
    found: Any = importlib.import_module("resilient_auth")
    path = "resilient_auth"
    for name in names:
        path = f"{path}.{name}"
        if hasattr(found, name):
            found = getattr(found, name)
        elif name in getattr(found, "__annotations__", {}):
            return True
        else:
            found = _resolve_module(path)
            if found is None:
                return False
    return True


def setup(app: Any) -> dict[str, bool]:
    """Look at all texts before the pages are built."""
    from sphinx.util import logging

    def check(_: Any) -> None:
        for fault in wrong():
            logging.getLogger(__name__).warning(fault)

    app.connect("builder-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
