"""The outage drill: plain MSAL and this SDK against the same failing provider, each in a process of its own.

    command ──▶ plan ──▶ run ──▶ scene (one fault) ──▶ 2 x emulator, process ──▶ client
                                                │
                          terminal, report ◀── judge

Nothing is imported until `main` is called: the process in which plain MSAL runs must hold nothing of the SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = frozenset({"h11", "rich", "trustme"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the drill.

    Args:
        argv: The options, without the program's name; None takes those of the process.

    Returns:
        The exit status: 0; 1 when the SDK failed a request while it held a valid token, or the drill itself broke; 2
        for bad usage.
    """
    try:
        from .command import main as run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        print(f"the drill needs {error.name}: pip install 'resilient-auth[drill]'", file=sys.stderr)
        return 2
    return run(argv)
