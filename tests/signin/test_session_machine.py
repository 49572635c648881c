"""The short form of session_machine.py."""

from __future__ import annotations

from session_machine import run


def test_nobody_has_anothers_session() -> None:
    """Whatever users, tabs, processes and the clock do."""
    run(examples=25, steps=25)
