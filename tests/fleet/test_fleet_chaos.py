"""A short storm of all that may befall a fleet, of which `chaos.py` says what it may do and what it may not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import chaos
import pytest


@pytest.fixture
def root() -> Iterator[Path]:
    # Not pytest's own: a disk is mounted there, and what is left of a run must not be kept for three more.
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("medium", sorted(chaos.MEDIA))
def test_what_was_acknowledged_is_kept(medium: str, root: Path) -> None:
    """Nothing is lost that must not be, nobody gets another one's token, nothing crashes, nothing lies open."""
    with chaos.Chaos(medium, 7, root) as storm:
        report = storm.run(30)
    assert report.checks
    assert report.events.keys() >= {storm.medium.change_name, "rotate", "step_clock", "fork", "damage", "kill_one"}
    assert report.answers["token"]
