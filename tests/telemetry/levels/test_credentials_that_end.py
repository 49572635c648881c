"""Credentials that end: owners are warned 60, 30, 7 and 1 days ahead, once, by all that they look at (G24)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import issued
import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator
from resilient_auth.errors import ConfigurationError
from resilient_auth.events import CredentialExpiring, SecretEndsUnread
from resilient_auth.health.verdict import Seen, judge
from resilient_auth.telemetry.levels.webhooks import Webhook
from resilient_auth.testing import ManualClock, capture_events

DAY = 86_400.0
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def in_days(clock: ManualClock, days: float) -> datetime:
    return datetime.fromtimestamp(clock.wall() + days * DAY, UTC)


def days_go_by(one: Any, *days: float) -> None:
    """Let days pass, and look every day."""
    for span in days:
        one.clock.advance(span * DAY)
        one.watch.look()


class TestWhenItIsTold:
    def test_at_each_mark_once(self, watched: Callable[..., Any], clock: ManualClock) -> None:
        """60, 30, 7 and 1 days ahead, and when it is over; a new one is another one."""
        one = watched(secret_expires={"app": in_days(clock, 64.9)})
        with capture_events() as told:
            days_go_by(one, *[1.0] * 70)
            told.wait_for(CredentialExpiring, count=5)
        found = told.of(CredentialExpiring)
        assert [round(event.remaining / DAY) for event in found] == [60, 30, 7, 1, 0]
        assert {(event.client_id, event.credential, event.target) for event in found} == {
            ("app", "secret", "secret_expires")
        }
        assert str(found[0]).startswith("The secret of application app from secret_expires expires at ")

    def test_one_that_is_seen_late_is_told_once(self, watched: Callable[..., Any], clock: ManualClock) -> None:
        one = watched(secret_expires={"app": [in_days(clock, 5), in_days(clock, 400)]})
        with capture_events() as told:
            days_go_by(one, 0.01, 0.01, 0.01)
            told.wait_for(CredentialExpiring)
        assert len(told.of(CredentialExpiring)) == 1

    def test_a_fleet_is_told_once_whoever_is_restarted(self, watched: Callable[..., Any]) -> None:
        """Where there is a store: by one process of all, and not again by those that come later."""
        clock = ManualClock()
        backend = MemoryBackend(clock=clock)
        options = {"secret_expires": {"app": in_days(clock, 30.9), "other": in_days(clock, 90.9)}}

        def start() -> Any:
            return watched(clock, store=ra.SealedStore(backend, key=bytes(range(32)), clock=clock), **options)

        with capture_events() as told:
            several = [start() for _ in range(3)]
            for _ in range(40):
                for one in several:
                    one.watch.look()
                clock.advance(DAY)
                several = [*several[1:], start()]  # one is torn down each day
            told.wait_for(CredentialExpiring, count=6)
        found = [(event.client_id, round(event.remaining / DAY)) for event in told.of(CredentialExpiring)]
        assert found == [("app", 31), ("app", 30), ("app", 7), ("app", 1), ("app", 0), ("other", 60)]

    def test_a_clock_that_jumps_ends_nothing(self, watched: Callable[..., Any], clock: ManualClock) -> None:
        """For as long as it may jump back."""
        one = watched(secret_expires={"app": in_days(clock, 300)})
        with capture_events() as told:
            one.live(600)
            one.clock.jump(400 * DAY)
            one.live(1200)
            one.clock.jump(-400 * DAY)
            one.live(7200)
        assert told.of(CredentialExpiring) == []

    def test_the_webhook_is_told_too(self, watched: Callable[..., Any], clock: ManualClock) -> None:
        one = watched(
            webhook=Webhook("http://127.0.0.1:9/", secret=SECRET), secret_expires={"app": in_days(clock, 6.5)}
        )
        one.watch.look()
        (item,) = one.watch._alone.outbox
        assert '"type": "credential.expiring"' in item.body
        assert '"client_id": "app"' in item.body
        assert '"target"' not in item.body


class TestCertificates:
    @pytest.mark.parametrize("how", ["pem file", "pfx file", "given"])
    def test_their_ends_are_read(
        self, how: str, idp: Emulator, tmp_path: Path, eventually: Callable[..., None]
    ) -> None:
        """And told once, though an application that reads its file anew tells it by itself without a watch."""
        certificate = issued.issue(0, days=20)
        path = tmp_path / "app.pem"
        path.write_bytes(certificate.pfx() if how == "pfx file" else certificate.pem())
        given: Any = path
        if how == "given":
            key = certificate.pem().replace(certificate.shown, b"").decode()
            given = {"private_key": key, "public_certificate": certificate.shown.decode()}
        idp.register("daemon", certificates=[certificate.shown])
        with capture_events() as told, ra.telemetry.watch(), msal.ConfidentialClientApplication(
            "daemon", authority=idp.authority("contoso"), instance_discovery=False, verify=idp.ca_file,
            client_credential=given,
        ) as app:  # fmt: skip
            assert "access_token" in app.acquire_token_for_client(["api://orders/.default"])
            ra.telemetry._state.watch.look()  # type: ignore[union-attr]
            (end,) = ra.health().credentials
            assert (end.credential, end.client_id, end.authority) == ("certificate", "daemon", idp.url)
            assert end.remaining == pytest.approx(20 * DAY, abs=DAY)
            ra.telemetry._state.watch.look()  # type: ignore[union-attr]
            told.wait_for(CredentialExpiring)
        assert len(told.of(CredentialExpiring)) == 1
        assert ra.health().credentials == ()


class TestWhereItIsSeen:
    @pytest.mark.parametrize(
        ("days", "verdict", "reason"),
        [
            (100.5, "ok", None),
            (45.5, "ok", "the secret of application app ends in 45 days; replace it before"),
            (6.5, "degraded", "the secret of application app ends in 6 days; replace it before"),
            (1.5, "degraded", "the secret of application app ends in 1 day; replace it before"),
            (-0.5, "at risk", "the secret of application app has ended, and no token is had with it; replace it now"),
        ],
    )
    def test_health_says_so(
        self, days: float, verdict: str, reason: str | None, watched: Callable[..., Any], clock: ManualClock
    ) -> None:
        one = watched(secret_expires={"app": in_days(clock, days)})
        one.watch.begin()
        health = ra.health()
        # By this alone: what other tests have left may be in the verdict too.
        judged = judge(Seen(at=clock.wall(), credentials=health.credentials))
        assert judged == (verdict, () if reason is None else (reason,))
        assert reason is None or reason in health.reasons
        assert health.to_dict()["credentials"][0]["remaining"] == pytest.approx(days * DAY, abs=1.0)

    def test_the_first_of_two_secrets_runs_out_in_peace(self, watched: Callable[..., Any], clock: ManualClock) -> None:
        """While the second one is valid nothing is at risk: that is how they are replaced. After it, all is told."""
        first, second = (datetime.fromtimestamp(clock.wall() + days * 86_400.0, UTC) for days in (10, 200))
        one = watched(secret_expires={"shop": [first, second]})
        one.watch.look()
        assert [round(end.remaining / 86_400) for end in one.watch.credential_ends()] == [10, 200]
        clock.advance(11 * 86_400.0)
        assert [round(end.remaining / 86_400) for end in one.watch.credential_ends()] == [189]
        clock.advance(190 * 86_400.0)
        assert [round(end.remaining / 86_400) for end in one.watch.credential_ends()] == [-191, -1]

    def test_a_metric_does(self, clock: ManualClock) -> None:
        """Of secrets, too, where a watch knows their ends."""
        from prometheus_client import CollectorRegistry, generate_latest

        with ra.telemetry.watch(secret_expires={"app": in_days(clock, 10)}, clock=clock):
            registry = CollectorRegistry()
            registry.register(ra.telemetry.prometheus_collector())
            scraped = generate_latest(registry).decode()
        ra.telemetry.uninstrument()
        line = next(
            line for line in scraped.splitlines() if line.startswith("resilient_auth_credential_remaining_seconds{")
        )
        assert 'resilient_auth_client_id="app"' in line
        assert float(line.split()[-1]) == pytest.approx(10 * DAY, abs=1.0)


class TestFunctions:
    def test_graph_is_asked_once_a_day(
        self, watched: Callable[..., Any], clock: ManualClock, eventually: Callable[..., None]
    ) -> None:
        """For what it knows of secrets; those that are over don't count."""
        asked: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            ends = [in_days(clock, days).isoformat().replace("+00:00", "Z") for days in (-10, 20, 700)]
            return httpx.Response(
                200, json={"passwordCredentials": [{"endDateTime": end, "hint": "s3c"} for end in ends]}
            )

        graph = httpx.Client(base_url="https://graph.microsoft.com", transport=httpx.MockTransport(answer))
        one = watched(secret_expires=ra.telemetry.graph_secret_ends(graph, "app-1", "it's"))
        with capture_events() as told:
            for _ in range(3):
                one.watch.look()
                eventually(lambda: len(asked) == 2 and not one.watch._endings._under_way)
                one.clock.advance(60.0)
            one.watch.look()
            told.wait_for(CredentialExpiring, count=2)
            one.clock.advance(DAY)
            one.watch.look()
            eventually(lambda: len(asked) == 4)
        assert [str(request.url) for request in asked[:2]] == [
            "https://graph.microsoft.com/v1.0/applications(appId='app-1')?%24select=passwordCredentials",
            "https://graph.microsoft.com/v1.0/applications(appId='it%27%27s')?%24select=passwordCredentials",
        ]
        assert {(event.client_id, round(event.remaining / DAY)) for event in told.of(CredentialExpiring)} == {
            ("app-1", 20), ("it's", 20),
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("answer", "code", "detail"),
        [
            (lambda: httpx.Response(403, text="s3cret"), "configuration", "grant Application.Read.All"),
            (lambda: httpx.Response(200, json={"error": "s3cret"}), "configuration", "tells no ends"),
            (lambda: 1 / 0, "failed", "ZeroDivisionError"),
        ],
    )
    def test_one_that_fails_is_told_and_asked_again_later(
        self, answer: Callable[[], Any], code: str, detail: str, watched: Callable[..., Any],
        eventually: Callable[..., None],
    ) -> None:  # fmt: skip
        """What it told before holds."""
        asked: list[object] = []

        def respond(request: httpx.Request) -> Any:
            asked.append(request)
            return answer()

        graph = httpx.Client(base_url="https://graph.microsoft.com", transport=httpx.MockTransport(respond))
        one = watched(secret_expires=ra.telemetry.graph_secret_ends(graph, "app-1"))
        one.watch._endings._secrets = {"app-1": (one.clock.wall() + 100 * DAY,)}
        with capture_events() as told:
            one.watch.look()
            (event,) = told.wait_for(SecretEndsUnread)
            eventually(lambda: not one.watch._endings._under_way)
            one.clock.advance(600.0)
            one.watch.look()
            assert len(asked) == 1
            one.clock.advance(3600.0)
            one.watch.look()
            told.wait_for(SecretEndsUnread, count=2)
        assert len(asked) == 2
        assert event.code == code
        assert detail in event.detail
        assert "s3cret" not in str(list(told))
        assert len(one.watch.credential_ends()) == 1

    def test_one_that_hangs_holds_up_nothing(
        self, watched: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        held, entered = threading.Event(), threading.Event()

        def ends() -> dict[str, date]:
            entered.set()
            held.wait(20)
            return {"app": date(2060, 1, 1)}

        one = watched(secret_expires=ends)
        began = time.monotonic()
        one.watch.look()
        assert entered.wait(5.0)
        days_go_by(one, *[1.0] * 5)
        assert time.monotonic() - began < 5.0
        held.set()
        eventually(one.watch.credential_ends)

    @pytest.mark.parametrize(("client", "ids"), [(None, ("app",)), (httpx, ()), (httpx, ("",)), (httpx, (7,))])
    def test_what_asks_graph_is_checked(self, client: Any, ids: Any) -> None:
        with pytest.raises(ConfigurationError, match="client"):
            ra.telemetry.graph_secret_ends(client, *ids)
