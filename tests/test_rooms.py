"""The rooms that the documentation names are the package's folders, none outgrows its bounds, and none reaches up."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from importlib.util import resolve_name
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


def modules() -> dict[str, Path]:
    """The files of the package by the names under which they can be imported."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
#: What loads a module by its name; the package's own helper is `load`.
LOADERS = frozenset({"__import__", "find_spec", "import_module", "load", "reload", "resolve_name", "run_module"})
#: Only what has one of these is read further: the whole package takes a second.
WORTH_READING = re.compile(rf"""["']resilient_auth\.|\b(?:{"|".join(sorted(LOADERS))})\(""")


def heights() -> dict[str, int]:
    """How far up each part of the package is, by the contract that import-linter checks."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return {part: height for height, layer in enumerate(reversed(layers)) for part in layer.split(" | ")}


HEIGHTS = heights()


def named_above(path: str, text: str) -> set[str]:
    """The modules that a file names as text, and whose part isn't below its own, or its own.

    Wherever the name stands: in a loader's arguments, in a constant that is loaded later, in `sys.modules[...]`. A
    relative name counts where a loader is called. What is put together when it runs counts as the part that is written.
    """
    if not WORTH_READING.search(text):
        return set()
    tree = ast.parse(text)
    parts = Path(path).with_suffix("").parts
    package = ".".join(("resilient_auth", *parts[:-1]))
    spoken = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    written = [
        node.value.rstrip(".")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spoken
    ]
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            function = call.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in LOADERS:
                relative = [c.value for c in ast.walk(call) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
                written += [resolve_name(value, package) for value in relative if value.startswith(".")]
    found = set()
    for target in written:
        if target in MODULES and target != "resilient_auth":
            part = target.split(".")[1]
            if part != parts[0] and HEIGHTS[part] >= HEIGHTS[parts[0]]:
                found.add(target)
    return found


def test_no_file_names_what_is_above_it_to_load_it() -> None:
    """An arrow that runs up is no better where import-linter can't see it. The package's own table names all."""
    found = {
        path: above
        for file in MODULES.values()
        if (path := file.relative_to(PACKAGE).as_posix()) != "__init__.py"
        and (above := named_above(path, file.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "written",
    [
        'import_module("resilient_auth.aio" if awaits else "resilient_auth.credential")',
        'importlib.import_module("..aio", __package__)',
        '__import__("resilient_auth.aio")',
        'load("httpx", "resilient_auth.aio")',
        'HOME = "resilient_auth.aio"',
        'face = sys.modules["resilient_auth.aio"].ResilientCredential',
        'awaits = type(given).__module__ == "resilient_auth.aio"',
        'import_module(f"resilient_auth.integrations.{name}")',
    ],
)
def test_a_name_of_what_is_above_is_found(written: str) -> None:
    """However it is loaded; and names of what is below, or of a file of the same room, are nobody's matter."""
    assert named_above("downstream/given.py", written)
    assert not named_above("downstream/given.py", 'load("resilient_auth._wire.connection", ".client", "..settings")')


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


def test_test_modules_have_names_of_their_own() -> None:
    """Each folder of tests is on the path: of two modules with one name, whoever comes second gets the first one."""
    names = Counter(
        path.name for path in (ROOT / "tests").rglob("*.py") if path.stem not in ("conftest", "__init__", "__main__")
    )
    assert not [name for name, count in names.items() if count > 1]
