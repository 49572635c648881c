"""In short, what `python -m tests.callouts.many_calls` does for long."""

from __future__ import annotations

from pathlib import Path

import pytest
from many_calls import MODES, TIMEOUT, call_for_long, kill_for_long


@pytest.mark.parametrize("mode", MODES)
def test_every_call_is_answered_in_shape_and_in_time_with_one_effect(mode: str, tmp_path: Path) -> None:
    found = call_for_long(mode, 200, tmp_path, seed=7)
    assert found.calls >= 180
    assert (found.outside, found.twice, found.others) == ([], [], [])
    # The long form looks at its share of the time; here, before the provider gives up, on a machine that is busy.
    assert found.at(0.99) < 0.9 * TIMEOUT


def test_no_write_that_was_taken_is_lost_to_a_kill(tmp_path: Path) -> None:
    taken, lost, _ = kill_for_long(3, tmp_path, seed=7)
    assert taken
    assert not lost
