"""Who kept the application running, by the provider's own ledger. Pure: evidence in, finding out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..emulator import Call, IssuedToken
from .client.records import Request, with_those_behind
from .plan import MSAL_MARGIN

__all__ = ["BUCKET", "PROMPT", "Bucket", "Evidence", "Finding", "judge", "percentile"]

#: Seconds that one column of a timeline stands for.
BUCKET = 0.5
#: Seconds of wait up to which a request counts as served promptly.
PROMPT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of one client's run.

    Attributes:
        client: Its name.
        requests: What it told.
        interval: Seconds between two requests of one of its threads.
        tokens, calls: Its provider's ledger.
        began, dark_from, dark_until, ended: The run's moments, in seconds since the epoch.
        counted: Whether the provider could count the calls in the dark.
        trouble: Why the records aren't whole.
    """

    client: str
    requests: Sequence[Request]
    interval: float
    tokens: Sequence[IssuedToken]
    calls: Sequence[Call]
    began: float
    dark_from: float
    dark_until: float
    ended: float
    counted: bool = True
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One column of a timeline: requests that came due within it."""

    served: int = 0
    late: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one client in one outage. Moments are in seconds from the outage's start.

    Attributes:
        client: Its name.
        requests: Requests that came due in the dark.
        served: Those that got a token which the ledger calls valid at that moment.
        prompt: Those of them that waited for a second at most.
        median, p99, longest: Seconds of wait in the dark; None where nothing was asked.
        calls: Calls that reached the provider in the dark; None where it couldn't count them.
        recovered: Seconds from the outage's end until a request got a token issued after it; None if none did.
        held: Requests of the whole run made while a valid token had been delivered.
        missed: Those of them that weren't served.
        errors: What was got in place of a token, the most frequent first.
        discards: When the newest token came within MSAL's margin; None where that wasn't in the dark.
        began, healed, ended: The run's other moments.
        buckets: The timeline, from `began` on.
        call_times: When the provider was called.
        trouble: Why the records aren't whole.
    """

    client: str
    requests: int
    served: int
    prompt: int
    median: float | None
    p99: float | None
    longest: float | None
    hung: int
    calls: int | None
    recovered: float | None
    held: int
    missed: int
    errors: tuple[tuple[str, int], ...]
    discards: float | None
    began: float
    healed: float
    ended: float
    buckets: tuple[Bucket, ...]
    call_times: tuple[float, ...]
    trouble: str | None = None

    @property
    def flawless(self) -> bool:
        """Whether every request was served while a valid token was in hand; never without evidence from the dark."""
        return self.trouble is None and self.missed == 0 and self.held > 0 and self.served > 0


def judge(evidence: Evidence) -> Finding:
    """Judge one client's run by the ledger."""
    known = {token.sha256: token for token in evidence.tokens if token.kind == "access"}
    delivered = _delivered(evidence)
    requests = list(with_those_behind(evidence.requests, evidence.interval))
    served = [_is_served(request, known) for request in requests]
    dark = [
        (request, good)
        for request, good in zip(requests, served, strict=True)
        if evidence.dark_from <= request.began < evidence.dark_until
    ]
    waits = sorted(request.wait for request, _ in dark)
    held = [good for request, good in zip(requests, served, strict=True) if _has_token(request, delivered)]
    calls = [
        call.at for call in evidence.calls if call.endpoint != "api" and evidence.began <= call.at <= evidence.ended
    ]
    zero = evidence.dark_from
    return Finding(
        client=evidence.client,
        requests=len(dark),
        served=sum(good for _, good in dark),
        prompt=sum(good and request.wait <= PROMPT for request, good in dark),
        median=percentile(waits, 50.0),
        p99=percentile(waits, 99.0),
        longest=waits[-1] if waits else None,
        hung=sum(not request.finished for request in evidence.requests),
        calls=sum(zero <= at < evidence.dark_until for at in calls) if evidence.counted else None,
        recovered=_recovered(evidence, known),
        held=len(held),
        missed=held.count(False),
        errors=tuple(Counter(_why(r) for r, good in dark if not good).most_common()),
        discards=_discards(evidence, known),
        began=evidence.began - zero,
        healed=evidence.dark_until - zero,
        ended=evidence.ended - zero,
        buckets=_buckets(evidence, requests, served),
        call_times=tuple(at - zero for at in calls),
        trouble=evidence.trouble,
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Pick the nearest-rank percentile.

    Args:
        ordered: Values in ascending order.
        share: Above 0, up to 100.

    Returns:
        The smallest value that at least `share` percent don't exceed; None of nothing.
    """
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * share / 100.0) - 1)]


def _is_served(request: Request, known: Mapping[str, IssuedToken]) -> bool:
    token = known.get(request.token) if request.token is not None and request.finished else None
    return token is not None and request.ended < token.expires_at


def _delivered(evidence: Evidence) -> list[IssuedToken]:
    # A token issued under a fault may never have arrived, so it proves nothing against a client.
    safe = {call.token_id for call in evidence.calls if call.fault is None and call.status == 200}
    return [token for token in evidence.tokens if token.kind == "access" and token.jti in safe]


def _has_token(request: Request, delivered: Iterable[IssuedToken]) -> bool:
    return any(token.issued_at <= request.began and request.ended < token.expires_at for token in delivered)


def _why(request: Request) -> str:
    if not request.finished:
        return "no answer"
    return request.error or "a token that isn't valid"


def _recovered(evidence: Evidence, known: Mapping[str, IssuedToken]) -> float | None:
    healed = evidence.dark_until
    moments = [
        request.ended - healed
        for request in evidence.requests
        if request.ended >= healed and _is_served(request, known) and known[request.token or ""].issued_at >= healed
    ]
    return min(moments, default=None)


def _discards(evidence: Evidence, known: Mapping[str, IssuedToken]) -> float | None:
    used = {request.token for request in evidence.requests if request.began < evidence.dark_until}
    tokens = [token for digest, token in known.items() if digest in used and token.issued_at < evidence.dark_until]
    newest = max((token.expires_at for token in tokens), default=None)
    if newest is None or not evidence.dark_from < newest - MSAL_MARGIN < evidence.dark_until:
        return None
    return newest - MSAL_MARGIN - evidence.dark_from


def _buckets(evidence: Evidence, requests: Sequence[Request], served: Sequence[bool]) -> tuple[Bucket, ...]:
    counts = [[0, 0, 0] for _ in range(max(1, math.ceil((evidence.ended - evidence.began) / BUCKET)))]
    for request, good in zip(requests, served, strict=True):
        column = int((request.began - evidence.began) / BUCKET)
        if 0 <= column < len(counts):
            counts[column][2 if not good else 1 if request.wait > PROMPT else 0] += 1
    return tuple(Bucket(served=a, late=b, missed=c) for a, b, c in counts)
