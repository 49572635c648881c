"""The check that `make docs` makes of all texts finds what isn't there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "index.md"


@pytest.fixture(scope="module")
def names() -> ModuleType:
    spec = importlib.util.spec_from_file_location("names", ROOT / "docs" / "_ext" / "names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("literal", "there"),
    [
        ("test_the_drill_names_the_extra", True),
        ("test_nobody_has_written", False),
        ("make drill", True),
        ("make chaos CHAOS=...", True),
        ("make coffee", False),
        ("resilient_auth.verify.verify_signature", True),
        ("ra.wrap(app)", True),
        ("resilient_auth.verify.nobody", False),
        ("ra.halth()", False),
        ("_policy/freshness.py", True),
        ("_provider/", False),
        ("tests/verify", True),
        ("docs/settings.md", True),
        ("docs/nothing.md", False),
        ("anything else", True),
    ],
)
def test_a_name_is_looked_up(names: ModuleType, literal: str, there: bool) -> None:
    assert names._is_there(literal, PAGE) is there


@pytest.mark.parametrize(
    ("target", "anchor", "there"),
    [
        ("settings.md", "", True),
        ("settings.md", "retryoptions-how-often-and-how-soon", True),
        ("settings.md", "no-such-heading", False),
        ("verifying-tokens.md", "grace", True),
        ("nothing.md", "", False),
    ],
)
def test_a_link_is_followed(names: ModuleType, target: str, anchor: str, there: bool) -> None:
    assert names._leads_somewhere(PAGE, target, anchor) is there
