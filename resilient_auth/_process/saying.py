"""Records of our log. Its handlers are an owner's code: what one of them raises ends nothing of ours, and is told."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping
from typing import Final

__all__ = ["LOG", "say"]

LOG: Final = logging.getLogger("resilient_auth")


def say(level: int, text: str, *args: object, extra: Mapping[str, object] | None = None, traced: bool = False) -> None:
    """Write a record.

    Args:
        level: The record's.
        text: What it says, with places for the rest.
        args: What goes there.
        extra: Further fields.
        traced: Whether it has the error that is being handled.
    """
    try:
        LOG.log(level, text, *args, extra=extra, exc_info=traced, stacklevel=2)
    except Exception as error:  # noqa: BLE001 - a handler, a filter or a formatter, which may raise anything
        # As logging itself does where a handler fails; no more than the kind, since its text may quote the record.
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(Exception):
                sys.stderr.write(f"resilient-auth: a handler of its log failed: {type(error).__name__}\n")
