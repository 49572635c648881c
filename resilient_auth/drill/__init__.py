"""The outage drill: plain MSAL and this SDK against the same failing provider, each in a process of its own.

    command ──▶ plan ──▶ run ──▶ scene (one fault) ──▶ 2 x emulator, process ──▶ client
                                                │
                          terminal, report ◀── judge

Nothing is imported until it is needed: the process in which plain MSAL runs must hold nothing of the SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.rehearsed import Provider
    from .rehearsal import rehearse

__all__ = ["Provider", "load", "main", "rehearse"]

_LAZY = {"Provider": "client.rehearsed", "rehearse": "rehearsal"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__} has no {name}")
    from .._process.extras import raise_missing

    try:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    except ImportError as error:
        raise_missing(f"resilient_auth.drill.{name}", "emulator", error)


def load() -> Callable[[Sequence[str] | None], int]:
    """Return the drill's command line.

    Raises:
        MissingExtra: The extra `emulator` isn't installed.
    """
    try:
        from .command import main as run
    except ImportError as error:
        from .._process.extras import raise_missing

        raise_missing("the drill", "emulator", error)
    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the drill.

    Args:
        argv: The options, without the program's name; None takes those of the process.

    Returns:
        The exit status: 0; 1 when the SDK failed a request while it held a valid token, or the drill itself broke; 2
        for bad usage, or where the extra `emulator` isn't installed.
    """
    from .._process.extras import MissingExtra

    try:
        run = load()
    except MissingExtra as missing:
        print(missing, file=sys.stderr)
        return 2
    return run(argv)
