"""When an API is asked again, and how soon (G8, G19).

Delays and budget are the policy's that holds at the provider. The loop isn't tenacity's, which has one for threads and
one for tasks: here one generator decides for both.
"""

from __future__ import annotations

from ..._policy import retry
from ...clock import Jitter
from ..options import TransportOptions

__all__ = ["FAILING", "SAFE", "delay_before", "may_repeat"]

#: Methods that change nothing, so that two requests may be out at the same time (RFC 9110, section 9.2.1).
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
#: Methods whose repetition changes nothing more (RFC 9110, section 9.2.2).
_IDEMPOTENT = SAFE | {"PUT", "DELETE"}
#: Statuses that say that the API failed, and not the request.
FAILING = frozenset({408, 500, 502, 503, 504, 507, 508, *range(520, 531), 598, 599})
_NOT_TAKEN_IN = frozenset({429, 503})


def may_repeat(
    method: str, *, keyed: bool, replayable: bool, sent: bool, status: int | None, retry_after: float | None
) -> bool:
    """Return whether an attempt that failed may be made again.

    Args:
        method: The request's.
        keyed: Whether it carries an `Idempotency-Key`, by which the API tells a repetition.
        replayable: Whether its body is there to be sent again.
        sent: Whether the API may have seen it.
        status: The answer's; None where there was none.
        retry_after: Seconds that the API asked for.
    """
    if not sent:
        return True
    if not replayable:
        return False
    if status in _NOT_TAKEN_IN and retry_after is not None:
        return True
    return (keyed or method in _IDEMPOTENT) and (status is None or status == 429 or status in FAILING)


def delay_before(number: int, retry_after: float | None, options: TransportOptions, jitter: Jitter) -> float:
    """Return the seconds to wait before retry `number`: as the API asked, else exponentially longer with jitter."""
    first, longest = options.first_delay, options.longest_delay
    # "At once", or a date that is over, is no answer to when: all attempts would be gone in that moment.
    if retry_after is not None and retry_after < first:
        retry_after = None
    return retry.delay_before(number, retry_after, first=first, longest=longest, jitter=jitter, spread=0.1)
