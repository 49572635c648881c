"""The outage drill: plain MSAL and this SDK against the same failing provider, each in a process of its own.

    command ──▶ plan ──▶ run ──▶ scene (one fault) ──▶ 2 x emulator, process ──▶ client
                                                │
                          terminal, report ◀── judge

Nothing is imported until `main` is called: the process in which plain MSAL runs must hold nothing of the SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

__all__ = ["load", "main"]


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
