"""The fleet's lease, through all interleavings of two or three processes: short here, whole by `make search`."""

from __future__ import annotations

import pytest
from lease_search import SHORT, Bounds, search


@pytest.mark.parametrize("bounds", SHORT, ids=str)
def test_no_two_processes_ask_for_one_token_at_once(bounds: Bounds) -> None:
    """Whoever stalls, dies or loses its lease; no late write replaces a later one, and nobody waits for ever."""
    assert search(bounds) > 10
