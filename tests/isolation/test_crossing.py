"""A short search for crossings, of which `crossing.py` says what it looks at."""

from __future__ import annotations

from pathlib import Path

import crossing
import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("medium", ["file", "redis"])
def test_nobody_gets_what_is_somebody_elses(medium: str, tmp_path: Path) -> None:
    """Over many applications, users, stores, caches and wires at once, every token is its caller's own."""
    tmp_path.chmod(0o700)
    found = crossing.search(medium, 7, tmp_path, calls=1000)
    assert not found.crossings, "\n".join(found.crossings[:5])
    assert found.tally["silent"] > 100
    assert found.tally["own"] > 100
