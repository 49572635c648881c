"""Made-up states of a process, as the status page is to show them: an outage with all there can be, and a calm day."""

from __future__ import annotations

import math
from typing import Any

from resilient_auth._engine.lanes import LaneStatus
from resilient_auth._policy.circuit.status import BreakerStatus
from resilient_auth._policy.fallback import FallbackOptions
from resilient_auth._policy.key_reports import KeysHealth
from resilient_auth._process.credential_ends import CredentialEnd
from resilient_auth._store.gate import StoreStatus
from resilient_auth.health import Blame, Health, TokenHealth
from resilient_auth.health.foreseen import Holding, foresee
from resilient_auth.telemetry.levels.values import (
    FINE,
    HOUR,
    KINDS,
    Alert,
    Bucket,
    Comparison,
    Kind,
    ServiceLevel,
    ServiceLevels,
    Totals,
)
from resilient_auth.telemetry.page.history import Change, Lane, Outage

#: 02:30 UTC.
NOW = 1_800_066_600.0
HERE = "https://login.microsoftonline.com"
GRAPH = ("https://graph.microsoft.com/.default",)
#: What a name from outside may look like.
HOSTILE = "\"><script>document.title='owned'</script><img src=x onerror=alert(1)>'&\u202e{{7*7}}</style></div>"


def token(**changes: Any) -> TokenHealth:
    known: dict[str, Any] = {
        "authority": HERE, "tenant": "contoso.example", "client_id": "app", "flow": "client_credentials",
        "scopes": GRAPH, "subject": None, "state": "due", "time_to_dark": 4260.0, "pinned": True, "in_use": True,
        "failures": 0, "last_code": None,
    }  # fmt: skip
    return TokenHealth(**known | changes)


def holding(**changes: Any) -> Holding:
    known: dict[str, Any] = {
        "authority": HERE, "tenant": "contoso.example", "client_id": "app", "flow": "client_credentials",
        "scopes": GRAPH, "users": False, "pinned": True, "left": 4260.0, "age": 100.0, "due_after": 1800.0,
        "asked_in": 1700.0, "site": "here", "grace": FallbackOptions(), "renewable": True, "kept": True,
        "stored": 4260.0,
    }  # fmt: skip
    return Holding(**known | changes)


def keys(**changes: Any) -> KeysHealth:
    known: dict[str, Any] = {
        "authority": HERE, "issuer": f"{HERE}/contoso.example/v2.0", "state": "fresh", "age": 610.0, "keys": 3,
        "time_to_dark": 89_000.0, "failures": 0, "last_code": None,
    }  # fmt: skip
    return KeysHealth(**known | changes)


def calm() -> Health:
    """Nothing fails."""
    holdings = [holding(left=6600.0), holding(scopes=("api://billing/.default",), left=5600.0)]
    return Health(
        verdict="ok",
        time_to_dark=5600.0,
        tokens=(token(state="fresh"),),
        breakers=(),
        keys=(keys(),),
        stores=(StoreStatus(target="redis", state="ok", last_code=None, rejected=0),),
        forecast=foresee(holdings, [keys()], at=NOW, stores_age=3.0),
    )


def outage(name: str = "api://billing/.default") -> Health:
    """The provider is gone, a scope soon, and a store can't be written to; `name` is from outside."""
    holdings = [
        holding(),
        holding(scopes=(name,), pinned=False, left=640.0, age=2900.0, asked_in=None),
        *(holding(flow="silent", scopes=("User.Read",), users=True, pinned=False, left=900.0 + 40 * n)
          for n in range(40)),
        holding(scopes=(name,), in_fleet=True, left=2400.0),
        holding(flow="silent", scopes=("User.Read",), users=True, in_fleet=True, left=1500.0),
    ]  # fmt: skip
    known = [keys(state="stale", age=9000.0, failures=3, last_code="connection_failed")]
    failed: dict[str, Any] = {"failures": 4, "last_code": "connection_failed"}
    return Health(
        verdict="at risk",
        time_to_dark=640.0,
        tokens=(
            token(**failed),
            token(scopes=(name,), pinned=False, time_to_dark=640.0, **failed),
            *(
                token(flow="silent", scopes=("User.Read",), subject="0123456789abcdef", state="fresh")
                for _ in range(40)
            ),
        ),
        breakers=(
            BreakerStatus(
                authority=HERE,
                purpose="token",
                state="open",
                since=NOW - 900.0,
                retry_after=12.0,
                failing_since=NOW - 1020.0,
                last_code="connection_failed",
                era=7,
            ),
        ),
        keys=tuple(known),
        stores=(StoreStatus(target=name, state="read_only", last_code="full", rejected=0, unreadable=4),),
        blame=(
            Blame(
                what="network",
                authority=HERE,
                client_id=name,
                since=NOW - 1020.0,
                evidence=("three connections in a row found no route to 20.190.160.1", f"so says {name}"),
            ),
        ),
        lanes=(LaneStatus(name=f"{name} for application 1", active=2, waiting=3, overdue=1),),
        removals_pending=2,
        credentials=(
            CredentialEnd(
                credential="secret",
                client_id=name,
                authority=HERE,
                target="given",
                at=NOW + 6.5 * 86_400,
                remaining=6.5 * 86_400,
            ),
        ),
        reasons=(
            f"{HERE} has failed since 02:13 UTC (connections to it fail); tokens last until 02:40 UTC; next probe in "
            "12 s; nothing to do on your side, if the network is up",
            f"the {name} store is read-only (full); tokens come from memory",
        ),
        forecast=foresee(holdings, known, at=NOW, stores_age=3.0),
    )


def lanes(name: str = "token") -> tuple[list[Lane], list[Outage]]:
    """A short break, and the one that goes on."""
    changes = [
        Change(NOW - 20_000, f"{HERE} {name}", "open", "throttled", provider=True),
        Change(NOW - 18_900, f"{HERE} {name}", "half-open", provider=True),
        Change(NOW - 18_800, f"{HERE} {name}", "closed", provider=True),
        Change(NOW - 1020, f"{HERE} {name}", "open", "connection_failed", provider=True),
    ]
    api = [
        Change(NOW - 9_000, f"https://{name}.example api", "open", "server_failed"),
        Change(NOW - 7_000, f"https://{name}.example api", "closed"),
    ]
    found = [Lane(changes[0].name, tuple(changes)), Lane(api[0].name, tuple(api))]
    outages = [
        Outage(changes[3].name, NOW - 1020, None, "connection_failed", provider=True),
        Outage(api[0].name, NOW - 9_000, NOW - 7_000, "server_failed", provider=False),
        Outage(changes[0].name, NOW - 20_000, NOW - 18_800, "throttled", provider=True),
    ]
    return found, outages


def levels(
    detail: str = "41 % fewer requests than a day before", *, watched: bool = True, kinds: tuple[Kind, ...] = KINDS
) -> ServiceLevels:
    """Two weeks of days and nights, with a fall and failures in the last hours; of `kinds` alone."""

    def bucket(start: float, size: float, kind: Kind) -> Bucket:
        scale = {"acquisitions": 9_000, "verifications": 30_000, "downstream": 4_000}[kind] * size / 3600
        scale *= kind in kinds
        total = int(scale * (1.2 + math.sin(start / 86_400 * 2 * math.pi)))
        recent = start > NOW - 2 * 3600
        return Bucket(total=int(total * 0.6) if recent else total, failed=total // 30 if recent else total // 2000,
                      start=start)  # fmt: skip

    def summed(buckets: tuple[Bucket, ...]) -> Totals:
        return Totals(total=sum(b.total for b in buckets), failed=sum(b.failed for b in buckets))

    found = []
    for kind in KINDS:
        now = NOW // HOUR * HOUR
        hours = tuple(bucket(now - n * HOUR, HOUR, kind) for n in reversed(range(24 * 14)))
        minutes = tuple(bucket(NOW // FINE * FINE - n * FINE, FINE, kind) for n in reversed(range(288)))
        day = Comparison(now=summed(hours[-24:]), before=summed(hours[-48:-24]))
        week = Comparison(now=summed(hours[-168:]), before=summed(hours[:168]))
        found.append(ServiceLevel(kind=kind, minutes=minutes, hours=hours, day=day, week=week))
    alerts = (Alert(kind="acquisitions", code="requests_fell", since=NOW - 600, detail=detail),)
    return ServiceLevels(at=NOW, watched=watched, levels=tuple(found), alerts=alerts, since=NOW - 14 * 86_400)
