"""The chain of what led to an exception, whichever library links it and how."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["causes_of"]

_LONGEST_CHAIN = 30


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Return an exception and all that led to it, the nearest first, each once."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending and len(seen) < _LONGEST_CHAIN:
        cause = pending.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        # What was raised from it, in it, by urllib3, by azure-core, and by several tasks at once.
        pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
        pending += [getattr(cause, "inner_exception", None), *getattr(cause, "exceptions", ())]
