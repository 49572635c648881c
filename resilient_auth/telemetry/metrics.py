"""The metrics: their names, units and labels, in one list, from which the page's table and both exporters are made.

Where OpenTelemetry's semantic conventions have a name, it is theirs. No label is a token, or a user's name or id; how
many values each can have is bounded, and said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["LABELS", "METRICS", "MOST_ADDRESSES", "MOST_SERIES", "OTHER", "SPANS", "Metric", "folded"]

#: Hosts, at most, that labels tell apart; and label sets of one metric, above which a label of many values is `_OTHER`.
MOST_ADDRESSES, MOST_SERIES = 100, 1_000
OTHER = "_OTHER"

#: The spans' names, by what they are of; one of an attempt is named by its method, as in the semantic conventions.
SPANS: Mapping[str, str] = MappingProxyType(
    {"exchange": "resilient_auth.exchange", "call": "resilient_auth.call", "verification": "resilient_auth.verify"}
)

#: Each label: what it says, and how many values it can have.
LABELS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "error.type": (
            "why it failed: a code of errors or events, a status, or an `error` of OAuth's from the provider; absent "
            "where it succeeded",
            "the codes",
        ),
        "event": ("the event's name", "the events"),
        "http.request.method": ("`GET`, `POST` and so on", "10"),
        "http.response.status_code": ("the status", "500"),
        "resilient_auth.blame": (
            "`provider`, `network`, `tls`, `proxy`, `clock`, `credential`, `throttled`, `process` or `unknown`",
            "9",
        ),
        "resilient_auth.client_id": ("the application's id", "the applications"),
        "resilient_auth.flow": ("such as `client_credentials` or `silent`", "10"),
        "resilient_auth.operation": ("`read` or `write`", "2"),
        "resilient_auth.outcome": (
            "`success`, `denied`, `failed`, `cancelled` where whoever asked gave up, or `nothing` where there was "
            "nothing to ask with",
            "5",
        ),
        "resilient_auth.purpose": ("what is asked: `token`, `discovery`, `keys`, `api`, `reads` and so on", "12"),
        "resilient_auth.remembered": ("`true` where the token had been verified before", "2"),
        "resilient_auth.scope": ("the scopes of a pinned token, as the owner gave them", "the pinned tokens"),
        "resilient_auth.source": (
            "`memory`, `store`, `provider`, `fallback` (a valid token, since the provider failed or denied), `grace`, "
            "or `none`",
            "6",
        ),
        "resilient_auth.state": ("how it stands", "6"),
        "resilient_auth.store": ("the store's kind, such as `file` or `redis`", "100"),
        "resilient_auth.unasked": ("`true` where nobody waited for it: a background refresh", "2"),
        "resilient_auth.verdict": (
            "`accepted`, `refused`, `unavailable`, or `cancelled` where whoever asked gave up",
            "4",
        ),
        "server.address": ("the host of a provider or an API", "100"),
        "server.port": ("its port", "100"),
    }
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    #: In UCUM's notation.
    unit: str
    labels: tuple[str, ...]
    text: str


_HOST = "server.address"
_CODE = "error.type"


def _ours(*names: str) -> tuple[str, ...]:
    return tuple(name if name in LABELS else f"resilient_auth.{name}" for name in names)


_LISTED = (
    Metric(
        "counter",
        "resilient_auth.acquisitions",
        "{acquisition}",
        _ours(_HOST, "flow", "source", "outcome"),
        "Tokens asked for, those that memory served included",
    ),
    Metric(
        "histogram",
        "resilient_auth.acquisition.duration",
        "s",
        _ours(_HOST, "flow", "source", "outcome", _CODE),
        "How long callers waited for a token that memory didn't serve at once",
    ),
    Metric(
        "histogram",
        "resilient_auth.token.remaining",
        "s",
        _ours(_HOST, "source"),
        "How long the tokens that those callers got were still valid",
    ),
    Metric(
        "gauge",
        "resilient_auth.waiters",
        "{caller}",
        _ours(_HOST),
        "Callers that wait for an exchange under way, their own or another's",
    ),
    Metric(
        "histogram",
        "resilient_auth.exchange.duration",
        "s",
        _ours(_HOST, "flow", "source", "outcome", _CODE, "unasked"),
        "How long an exchange took from being wanted to being over, its attempts, back-offs and queues included",
    ),
    Metric(
        "histogram",
        "resilient_auth.exchange.queue.duration",
        "s",
        _ours(_HOST),
        "How long it waited for a worker",
    ),
    Metric(
        "histogram",
        "http.client.request.duration",
        "s",
        _ours("http.request.method", _HOST, "server.port", "http.response.status_code", _CODE, "purpose"),
        "How long one attempt at a provider or an API took",
    ),
    Metric(
        "counter",
        "resilient_auth.retries",
        "{retry}",
        _ours(_HOST, "purpose", _CODE),
        "Attempts that were made again",
    ),
    Metric(
        "histogram",
        "resilient_auth.cooldown.duration",
        "s",
        _ours(_HOST, "purpose"),
        "For how long a provider that throttled is left alone",
    ),
    Metric(
        "gauge",
        "resilient_auth.breakers",
        "{breaker}",
        _ours(_HOST, "purpose", "state"),
        "Circuit breakers in each state",
    ),
    Metric(
        "counter",
        "resilient_auth.breaker.transitions",
        "{transition}",
        _ours(_HOST, "purpose", "state", _CODE),
        "Circuit breakers that changed, by the state that they changed to",
    ),
    Metric(
        "counter",
        "resilient_auth.breaker.refused",
        "{call}",
        _ours(_HOST, "purpose"),
        "Acquisitions and calls that an open circuit ended at once",
    ),
    Metric("gauge", "resilient_auth.tokens", "{token}", _ours(_HOST, "state"), "Tokens held in memory, by state"),
    Metric(
        "gauge",
        "resilient_auth.token.time_to_dark",
        "s",
        _ours(_HOST, "client_id", "scope"),
        "Until there is nothing valid left, for each token that is kept fresh; for users', the soonest",
    ),
    Metric(
        "gauge",
        "resilient_auth.token.age",
        "s",
        _ours(_HOST, "client_id", "scope"),
        "Since the last refresh of each token that is kept fresh; for users', the longest",
    ),
    Metric(
        "gauge",
        "resilient_auth.time_to_dark",
        "s",
        (),
        "Until the first token in use is over; absent where none is held",
    ),
    Metric(
        "gauge",
        "resilient_auth.credential.remaining",
        "s",
        _ours(_HOST, "client_id"),
        "Until a certificate of an application ends, 86,400 s a day, or a secret of which a watch was told that",
    ),
    # Not the unit "1": what writes OpenTelemetry's gauges for Prometheus would call one of that a ratio.
    Metric(
        "gauge", "resilient_auth.verdict", "{process}", _ours("state"), "1 for how the process stands, 0 for the others"
    ),
    Metric(
        "gauge",
        "resilient_auth.blame",
        "{fault}",
        _ours(_HOST, "blame"),
        "What fails at identity providers now, by whose fault it is; absent where nothing does",
    ),
    Metric(
        "gauge", "resilient_auth.keys.age", "s", _ours(_HOST), "Since the signing keys were fetched; the oldest set"
    ),
    Metric(
        "gauge",
        "resilient_auth.keys.time_to_dark",
        "s",
        _ours(_HOST),
        "Until there are no signing keys left; the soonest",
    ),
    Metric(
        "counter",
        "resilient_auth.verifications",
        "{verification}",
        _ours(_HOST, "verdict", _CODE, "remembered"),
        "Tokens that arrived, by what came of them",
    ),
    Metric(
        "histogram",
        "resilient_auth.verification.duration",
        "s",
        _ours(_HOST, "verdict"),
        "How long it took to verify those that weren't remembered",
    ),
    Metric(
        "histogram",
        "resilient_auth.call.duration",
        "s",
        _ours(_HOST, "outcome", _CODE),
        "How long a call to an API took, its attempts and queue included",
    ),
    Metric(
        "histogram",
        "resilient_auth.store.operation.duration",
        "s",
        _ours("store", "operation", _CODE),
        "How long a store took",
    ),
    Metric("gauge", "resilient_auth.stores", "{store}", _ours("store", "state"), "Stores in each state"),
    Metric(
        "gauge",
        "resilient_auth.queue.depth",
        "{exchange}",
        _ours(_HOST, "state"),
        "Exchanges that are `active`, `waiting` or `overdue`; those of stores have no address",
    ),
    Metric(
        "gauge",
        "resilient_auth.bulkhead.depth",
        "{call}",
        _ours(_HOST, "state"),
        "Calls that are `active` or `waiting`",
    ),
    Metric(
        "gauge",
        "resilient_auth.retry.budget",
        "{retry}",
        _ours(_HOST, "purpose"),
        "Retries that may still be made; the smallest budget",
    ),
    Metric(
        "gauge",
        "resilient_auth.removals.pending",
        "{removal}",
        (),
        "Sign-outs that a store couldn't be told of yet",
    ),
    Metric(
        "gauge",
        "resilient_auth.writes",
        "{write}",
        _ours("state"),
        "Writes in the background that are `waiting`, or `dead`: given up, until somebody looks at them; all of the "
        "store's, which other processes tell of, too",
    ),
    Metric("counter", "resilient_auth.events", "{event}", _ours("event"), "Events"),
    Metric(
        "counter",
        "resilient_auth.telemetry.dropped",
        "{item}",
        (),
        "Durations and spans that weren't handed on, since whoever takes them is too slow",
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _LISTED})

#: Labels whose values are as many as there are hosts, applications, codes. The others have a few, and are what sums go
#: by: they stay, so that what failed is still told as that.
_OF_MANY = frozenset(
    {
        "error.type",
        "event",
        "http.response.status_code",
        "resilient_auth.client_id",
        "resilient_auth.scope",
        "resilient_auth.store",
        "server.address",
        "server.port",
    }
)


def folded(name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return labels that are told together with others, since a metric has too many of them."""
    named = zip(METRICS[name].labels, labels, strict=True)
    return tuple(OTHER if label and known in _OF_MANY else label for known, label in named)
