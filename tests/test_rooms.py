"""The rooms that the documentation names are the package's folders, and none of them outgrows its bounds."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "resilient_auth"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})
FILES_AT_MOST = 14
LINES_AT_MOST = 400
REASON = f"more than {LINES_AT_MOST} lines because"


def drawn() -> tuple[set[str], set[str]]:
    """The rooms and the files in the tree on the page, by their place in the package."""
    tree = PAGE.split("```text\n", 1)[1].split("```", 1)[0]
    rooms: set[str] = set()
    files: set[str] = set()
    above = ""
    for line in tree.splitlines()[1:]:
        if found := re.match(r"  (\w+)/ ", line):
            above = found[1]
            rooms.add(above)
        elif found := re.match(r"    (\w+)/ ", line):
            rooms.add(f"{above}/{found[1]}")
        else:
            files |= set(re.findall(r"\b\w+\.py\b", line))
    return rooms, files


def test_the_tree_has_the_rooms_that_there_are() -> None:
    rooms, files = drawn()
    assert rooms == {room.relative_to(PACKAGE).as_posix() for room in ROOMS}
    assert files <= {path.name for path in PACKAGE.glob("*.py")}


def test_the_layers_on_the_page_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (checked,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    shown = PAGE.split("## Who may import whom", 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
    layers = [re.split(r" {2,}", line)[0] for line in shown.splitlines()]
    assert layers == [layer for layer in checked if layer != "__main__"]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.relative_to(PACKAGE).as_posix())
def test_a_room_is_one_room(room: Path) -> None:
    """One that has outgrown the bound is two rooms."""
    assert len(list(room.glob("*.py"))) <= FILES_AT_MOST


def test_a_long_file_says_why() -> None:
    """In its docstring; one that doesn't is split."""
    silent = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        documented = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        if len(text.splitlines()) > LINES_AT_MOST and REASON not in documented:
            silent.add(path.relative_to(PACKAGE).as_posix())
    assert not silent
