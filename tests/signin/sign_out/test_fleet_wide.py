"""A revoked user is refused by every process, soon; `fleet.py` is the long form."""

from __future__ import annotations

from pathlib import Path

import fleet


def test_a_revoked_user_is_refused_by_every_process(own_environment: None, tmp_path: Path) -> None:
    """Soon, and nobody has to send the event again that came while the store failed."""
    found = fleet.measure(2, 1, "file", tmp_path, every=1)
    assert len(found["session"]) == len(found["token"]) == 2
    # The bound itself is for a machine that does nothing else.
    assert max(found["session"] + found["token"]) < 5 * fleet.BOUND
