"""A cache that a thread was in the middle of changing as the process was forked: its child has no half of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cachetools
import pytest

import resilient_auth
from resilient_auth._process import forks

PACKAGE = Path(resilient_auth.__file__).parent
#: What a class calls that makes it usable in a child.
RENEWING = {"after_fork", "renew", "_renew"}


def attributes_of_self(node: ast.AST) -> Iterator[str]:
    """Name what is assigned to `self`, alone or among several."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        for each in target.elts if isinstance(target, ast.Tuple) else (target,):
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
                yield each.attr


def assigned(within: ast.AST, made_by: str = "") -> set[str]:
    """Return what is assigned to `self` there, and made by what a word is in."""
    return {
        name
        for node in ast.walk(within)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and made_by in ast.unparse(node.value or ast.Constant(None))
        for name in attributes_of_self(node)
    }


def kept_as_they_are(source: str) -> list[str]:
    """Name the caches of cachetools that a class keeps in a child as its parent left them."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            renewed = {name for each in methods if each.name in RENEWING for name in assigned(each)}
            found += [f"{node.name}.{name}" for name in assigned(node, "cachetools.") - renewed]
    return found


def test_each_is_built_anew() -> None:
    """Or is begun anew: `forks.rebuilt` keeps what can be kept. No emulator goes on in a child."""
    files = [path for path in PACKAGE.rglob("*.py") if "emulator" not in path.parts]
    left = {path.relative_to(PACKAGE).as_posix(): kept_as_they_are(path.read_text()) for path in files}
    assert not {path: names for path, names in left.items() if names}


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("def __init__(self): self.x = cachetools.LRUCache(4)", ["A.x"]),
        ("def __init__(self): self.x: cachetools.LRUCache[str, int] = cachetools.LRUCache(4)", ["A.x"]),
        ("def renew(self): self.x = cachetools.LRUCache(4)", []),
        (
            "def __init__(self): self.x = cachetools.LRUCache(4)\n"
            "    def after_fork(self): self.lock, self.x = Lock(), forks.rebuilt(self.x)",
            [],
        ),
    ],
)
def test_one_that_is_not_is_found(body: str, kept: list[str]) -> None:
    assert kept_as_they_are(f"class A:\n    {body}\n") == kept


def test_half_a_change_breaks_one_and_what_is_built_anew_is_whole() -> None:
    """An entry that is there and has no place in the order yet; and the other way round."""
    cache: cachetools.LRUCache[str, int] = cachetools.LRUCache(2)
    cache["whole"] = 1
    cachetools.Cache.__setitem__(cache, "half", 2)
    with pytest.raises(KeyError):
        del cache["half"]
    cache = cachetools.LRUCache(2)
    cache["whole"] = 1
    cachetools.Cache.__setitem__(cache, "half", 2)
    renewed = forks.rebuilt(cache)
    assert dict(renewed) == {"whole": 1, "half": 2}
    for number in range(10):
        renewed[str(number)] = number
    del renewed["9"]
    assert list(renewed) == ["8"]
