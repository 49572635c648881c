"""The table of defaults can't go stale."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

from resilient_auth.downstream import TransportOptions

PAGE = Path(__file__).parents[2] / "docs" / "transport.md"


def test_the_table_of_defaults_is_that_of_the_code() -> None:
    """Every option but the breaker's own and those for tests."""
    told = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+|None|False) \|", PAGE.read_text(), re.MULTILINE))
    held = {
        option.name: option.default
        for option in dataclasses.fields(TransportOptions)
        if option.name not in ("breaker", "clock", "jitter")
    }
    assert {name: ast.literal_eval(text) for name, text in told.items()} == held
