"""Documents that nobody wrote so: what may be read of a record that another release, or a fault, has left."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

ODD: list[Any] = [
    None, True, -1, 0.5, 10**400, 1e308, math.inf, -math.inf, math.nan, "x", "1", [], {}, [1], [1, 2, 3], {"a": 1},
]  # fmt: skip
ODD_NAMES = ["x", "-1", "1e5", "9" * 30, "9" * 5000, ""]
Place = tuple[Any, ...]


def places(within: Any, path: Place = ()) -> Iterator[Place]:
    """Every place in a document."""
    if path:
        yield path
    inner = within.items() if isinstance(within, dict) else enumerate(within) if isinstance(within, list) else ()
    for name, each in inner:
        yield from places(each, (*path, name))


def altered(document: Any) -> Iterator[tuple[Place, Any]]:
    """Every document with something odd in one place, with that missing, or under an odd name."""
    written = json.dumps(document)

    def with_it(path: Place, change: Callable[[Any, Any], None]) -> tuple[Place, Any]:
        made = at = json.loads(written)
        for step in path[:-1]:
            at = at[step]
        change(at, path[-1])
        return path, made

    for path in list(places(document)):
        for value in ODD:
            yield with_it(path, lambda at, key, value=value: at.__setitem__(key, value))  # type: ignore[misc]
        yield with_it(path, lambda at, key: at.pop(key))
        for name in ODD_NAMES if isinstance(path[-1], str) else ():
            yield with_it(path, lambda at, key, name=name: at.__setitem__(name, at.pop(key)))  # type: ignore[misc]
