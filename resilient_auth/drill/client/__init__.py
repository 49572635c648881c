"""A client in a process of its own: what it does, what it tells, and the drill's hold on it.

Nothing of the SDK is imported: in the process of plain MSAL there is none of it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PEER", "SDK", "Refused"]

PEER: Final = "msal"
SDK: Final = "resilient-auth"


class Refused(Exception):
    """Say, without quoting anything of the application's, why it can't be drilled."""
