"""Answers that aren't what their status says: failures with 400, tokens with odd numbers, short throttling."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import RetryScheduled
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/.default"]
OTHER = ["https://vault.azure.net/.default"]


def told(error: str, code: int | None = None, **more: Any) -> str:
    described = {} if code is None else {"error_codes": [code], "error_description": f"AADSTS{code}: told"}
    return json.dumps({"error": error, **described, **more})


FAILURES = {
    "400 temporarily_unavailable": Fault.status(400, told("temporarily_unavailable", 90033)),
    "400 server_error": Fault.status(400, told("server_error")),
    "401 with a transient code": Fault.status(401, told("invalid_client", 90006)),
    "200 temporarily_unavailable": Fault.status(200, told("temporarily_unavailable")),
}
every_failure = pytest.mark.parametrize("name", FAILURES)


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Call on a thread, whose answer or error is in the list when it has ended."""
    got: list[Any] = []

    def run() -> None:
        try:
            got.append(call())
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, got


def states(idp: Emulator) -> set[str]:
    return {status.state for status in ra.health().breakers if status.name.startswith(idp.url)}


@every_failure
def test_a_failure_told_with_a_status_of_denials_costs_no_valid_token(idp: Emulator, daemon, clock, eventually, name):
    """One with under 300 s left is served, marked as through any outage, and a new one comes soon after it."""
    app = daemon()
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    idp.fail(FAILURES[name], "token")
    clock.skip(3600 - 200)
    app.acquire_token_for_client(SCOPE)
    eventually(lambda: app.acquire_token_for_client(SCOPE)["resilience"]["reason"] == "server_failed")
    assert app.acquire_token_for_client(SCOPE)["access_token"] == held
    idp.heal()
    # MSAL would replay a returned 400 for a minute.
    clock.skip(16)
    eventually(lambda: app.acquire_token_for_client(SCOPE)["access_token"] != held)


@every_failure
def test_it_is_retried_for_who_has_nothing(idp: Emulator, daemon, clock, eventually, name):
    """In the same exchange, with the back-off of a failure (G9)."""
    app = daemon()
    idp.fail(FAILURES[name], "token")
    with capture_events() as events:
        thread, got = in_background(lambda: app.acquire_token_for_client(SCOPE))
        assert events.wait_for(RetryScheduled)[0].code == "server_failed"
    idp.heal()
    eventually(lambda: clock.waiting_workers)
    clock.skip(16)
    thread.join(10)
    assert "access_token" in got[0], got
    assert len(idp.ledger.token_calls()) == 2


@every_failure
def test_it_opens_the_breaker_and_is_told_by_the_error(idp: Emulator, daemon, hasty, clock, name):
    """As a 503 would; the error names the code and quotes nothing else."""
    app = daemon(resilience=hasty)
    idp.fail(FAILURES[name], "token")
    for _ in range(3):
        clock.skip(5.5)
        with pytest.raises(ra.ServerFailed, match=r"temporarily_unavailable|server_error|AADSTS90\d{3}"):
            app.acquire_token_for_client(SCOPE)
    assert "open" in states(idp)


def test_a_federated_credential_on_its_way_stops_nobody_else(idp: Emulator, daemon, hasty, clock):
    """For minutes the directory doesn't know it: a failure for this application, and none of the host's."""
    one, other = daemon("one", resilience=hasty), daemon("other", resilience=hasty)
    idp.fail(Fault.status(401, told("invalid_client", 700213)), "token", match={"client_id": "one"})
    for _ in range(5):
        clock.skip(20)
        with pytest.raises(ra.ServerFailed, match="AADSTS700213"):
            one.acquire_token_for_client(SCOPE)
    assert states(idp) == {"closed"}
    assert other.acquire_token_for_client(SCOPE)["access_token"]
    idp.heal()
    clock.skip(20)
    assert one.acquire_token_for_client(SCOPE)["access_token"]


def test_one_that_stays_unknown_is_denied(idp: Emulator, daemon, hasty, clock):
    """After ten minutes it isn't on its way any more: the owner sees what MSAL would have returned."""
    app = daemon(resilience=hasty)
    idp.fail(Fault.status(401, told("invalid_client", 70021)), "token")
    with pytest.raises(ra.ServerFailed):
        app.acquire_token_for_client(SCOPE)
    clock.skip(601)
    assert app.acquire_token_for_client(SCOPE)["error"] == "invalid_client"


@pytest.mark.parametrize(
    "times",
    [
        {"expires_in": 3599.0},
        {"expires_in": "3599.0"},
        {"expires_in": 3599, "expires_on": None},
        {"expires_in": 3599, "ext_expires_in": -1},
        {"expires_in": 3599, "refresh_in": "soon"},
        {"expires_in": "3599", "expires_on": "11/26/2026 10:00:00 +00:00"},
    ],
    ids=str,
)
def test_a_token_with_odd_numbers_is_served(idp: Emulator, daemon, times):
    """For as long as it was given for, also where MSAL would raise on one of them."""
    body = {"access_token": "odd", "token_type": "Bearer", **times}
    idp.fail(Fault.status(200, json.dumps(body)), "token")
    app = daemon()
    first, again = app.acquire_token_for_client(SCOPE), app.acquire_token_for_client(SCOPE)
    assert first["access_token"] == again["access_token"] == "odd"
    assert 3590 <= again["expires_in"] <= 3599
    assert again["token_source"] == "cache"


def test_one_scopes_malformed_token_opens_no_breaker(idp: Emulator, daemon, hasty, clock):
    """It is the answer to this request that is odd: the other scope is served."""
    app = daemon(resilience=hasty)
    body = {"access_token": "odd", "token_type": "Bearer", "expires_in": "soon"}
    idp.fail(Fault.status(200, json.dumps(body)), "token", match={"scope": SCOPE[0]})
    for _ in range(6):
        clock.skip(10)
        with pytest.raises(ra.MalformedAnswer):
            app.acquire_token_for_client(SCOPE)
    assert states(idp) == {"closed"}
    assert app.acquire_token_for_client(OTHER)["access_token"]


def test_an_outage_is_told_by_its_first_failed_attempt(idp: Emulator, daemon, clock, eventually):
    """The held result, health and a warning name it while the exchange still rests before its next attempt."""
    idp.refresh_in = 60
    app = daemon("told-at-once")
    app.acquire_token_for_client(SCOPE)
    idp.fail(Fault.http_503(), "token")
    clock.skip(61)
    with capture_events() as events:
        app.acquire_token_for_client(SCOPE)
        assert events.wait_for(RetryScheduled)[0].level == 30
    eventually(lambda: app.acquire_token_for_client(SCOPE)["resilience"]["reason"] == "server_failed", 2)
    (token,) = (token for token in ra.health().tokens if token.client_id == "told-at-once")
    assert (token.failures, token.last_code) == (1, "server_failed")
    assert len(idp.ledger.token_calls()) == 2


def test_an_open_breaker_doesnt_hide_what_opened_it(idp: Emulator, daemon, clock, eventually):
    """Through the whole outage the result and health name the provider's failure, with when it is asked again."""
    idp.refresh_in = 60
    app = daemon("told-why")
    app.acquire_token_for_client(SCOPE)
    idp.fail(Fault.http_503(), "token")
    clock.skip(61)
    seen = set()

    def opened() -> bool:
        seen.add(app.acquire_token_for_client(SCOPE)["resilience"]["reason"])
        clock.skip(1)
        time.sleep(0.02)
        return "open" in states(idp)

    eventually(opened)
    for _ in range(40):
        answer = app.acquire_token_for_client(SCOPE)
        seen.add(answer["resilience"]["reason"])
        clock.skip(1)
        time.sleep(0.02)  # an answer takes its time: without it, an exchange would seem to last for half a minute
    assert seen <= {"refreshing", "server_failed"}
    (token,) = (token for token in ra.health().tokens if token.client_id == "told-why")
    assert token.last_code == "server_failed"


def test_two_short_throttlings_in_a_row_end_in_a_token(idp: Emulator, daemon, clock, eventually):
    """Our own longer cool-down moves the retry, and doesn't refuse it."""
    app = daemon()
    idp.fail(Fault.http_429(1), "token")
    with capture_events() as events:
        thread, got = in_background(lambda: app.acquire_token_for_client(SCOPE))
        events.wait_for(RetryScheduled)
        eventually(lambda: clock.waiting_workers)
        clock.skip(2)
        second = events.wait_for(RetryScheduled, count=2)[1]
        assert second.seconds >= 8.5
        idp.heal()
        eventually(lambda: clock.waiting_workers)
        clock.skip(12)
        thread.join(10)
    assert "access_token" in got[0], got
    assert len(idp.ledger.token_calls()) == 3


def test_throttling_for_no_time_at_all_is_a_cool_down_all_the_same(idp: Emulator, daemon, hasty):
    """Whoever asks next isn't sent on at once to a provider that has just said that it is too much."""
    app = daemon(resilience=hasty)
    idp.fail(Fault.http_429(0), "token")
    for _ in range(2):
        with pytest.raises(ra.Throttled) as caught:
            app.acquire_token_for_client(SCOPE)
        assert caught.value.retry_after > 3.0
    assert len(idp.ledger.token_calls()) == 1


def test_a_cool_down_that_another_request_made_longer_costs_no_attempt(idp: Emulator, daemon, settings, clock):
    """The retry waits for that too, as long as its exchange has time."""
    app = daemon(resilience=settings(retry=ra.RetryOptions(attempts=2)))
    idp.fail(Fault.http_429(2), "token", match={"scope": SCOPE[0]})
    with capture_events() as events:
        thread, got = in_background(lambda: app.acquire_token_for_client(SCOPE))
        events.wait_for(RetryScheduled)
        idp.heal()
        session = app._ra_session
        (entry,) = session.memory
        session.engine.cool_down(entry.ways[0], 6.0)
        clock.skip(4)
        thread.join(0.5)
        assert len(idp.ledger.token_calls()) == 1
        clock.skip(4)
        thread.join(10)
    assert "access_token" in got[0], got
    assert len(idp.ledger.token_calls()) == 2


def test_a_date_to_retry_after_is_read_by_the_providers_clock(idp: Emulator, daemon, hasty, clock):
    """A machine whose clock is 40 minutes slow waits for what was meant, and not for 40 minutes more."""
    app = daemon(resilience=hasty)
    idp.fail(Fault.http_429(5, as_date=True), "token")
    clock.set_wall(-2400.0)
    with pytest.raises(ra.Throttled) as caught:
        app.acquire_token_for_client(SCOPE)
    assert caught.value.retry_after <= 7


@pytest.mark.parametrize("credential", ["s3cret", lambda: "s3cret"], ids=["given once", "renewed"])
@pytest.mark.parametrize("error", [{"code": "AudienceNotSupported", "message": "no"}, ["no"], 5], ids=str)
def test_an_error_that_is_no_word_is_a_denial_as_msal_gives_it(idp: Emulator, daemon, plain_daemon, credential, error):
    """Azure's own services and gateways write an object, such as Cloud Shell's endpoint."""
    app, plain = daemon(client_credential=credential), plain_daemon()
    idp.fail(Fault.status(400, json.dumps({"error": error})), "token")
    assert app.acquire_token_for_client(SCOPE) == plain.acquire_token_for_client(SCOPE) == {"error": error}
    assert app._ra_session.engine.sightings.out == {}
