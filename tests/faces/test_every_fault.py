"""An outage of every kind, met with a valid token in hand and with nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest
import requests

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import ExchangeFailed
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/.default"]
FAULTS = {
    **Fault.all(),
    "trickled_headers": Fault.trickle(headers=True),
    "http_429_date": Fault.http_429(120, as_date=True),
    "http_503_retry_after": Fault.http_503(retry_after=30),
    "http_500_empty": Fault.status(500, ""),
    "http_200_empty": Fault.status(200, ""),
    "http_200_null": Fault.status(200, "null"),
    "http_200_deep": Fault.status(200, "[" * 100_000),
    "http_200_odd_expiry": Fault.status(200, '{"access_token": "x", "token_type": "Bearer", "expires_in": "soon"}'),
    "http_200_no_text": Fault.status(200, '{"access_token": 5, "expires_in": 3600}'),
}
every_fault = pytest.mark.parametrize("name", FAULTS)
SLOWEST = 0.25


def storm_of_threads(app: Any, threads: int, calls: int) -> list[tuple[Any, float]]:
    """Ask from many threads; give each answer and how long it took beyond what the machine itself takes."""
    start, answers = threading.Barrier(threads), []

    def ask() -> None:
        start.wait()
        for _ in range(calls):
            begun = time.perf_counter()
            try:
                answer = app.acquire_token_for_client(SCOPE)
            except Exception as error:
                answer = error
            answers.append((answer, time.perf_counter() - begun))
            time.sleep(0.005)

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers


def storm_of_tasks(app: Any, tasks: int) -> list[tuple[Any, float]]:
    """Ask from many tasks of one loop."""
    asynchronous = ra.aio.wrap(app)

    async def ask() -> tuple[Any, float]:
        begun = time.perf_counter()
        try:
            answer = await asynchronous.acquire_token_for_client(SCOPE)
        except Exception as error:
            answer = error
        return answer, time.perf_counter() - begun

    async def main() -> list[tuple[Any, float]]:
        return await asyncio.gather(*(ask() for _ in range(tasks)))

    return asyncio.run(main())


@every_fault
def test_a_valid_token_in_hand_is_served_through_every_fault(idp: Emulator, daemon, clock, eventually, name):
    """Every one of 64 threads and 400 tasks gets a valid token at once, and a fresh one comes after the fault."""
    idp.refresh_in = 60
    app = daemon()
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    idp.fail(FAULTS[name])
    clock.skip(61)
    answers = [*storm_of_threads(app, 64, 3), *storm_of_tasks(app, 400)]
    wrong = [answer for answer, _ in answers if not isinstance(answer, dict) or "access_token" not in answer]
    assert not wrong, wrong[:3]
    served = {answer["access_token"] for answer, _ in answers}
    assert all(idp.ledger.is_valid(token) for token in served)
    assert len(answers) == 64 * 3 + 400
    assert sorted(took for _, took in answers)[-1] < SLOWEST
    for answer, _ in answers:
        if answer["access_token"] == held:
            assert answer["token_source"] == "cache"
            assert answer["resilience"].keys() == {"reason", "age", "remaining", "provider"}
            assert answer["resilience"]["remaining"] > 3000
    assert len(idp.ledger.token_calls()) <= 3  # the first, and no more than a probe of the failing provider

    idp.heal()
    clock.skip(200)

    def fresh() -> bool:
        answer = app.acquire_token_for_client(SCOPE)
        assert idp.ledger.is_valid(answer["access_token"])
        clock.skip(1)
        return answer["access_token"] not in served and "resilience" not in answer

    eventually(fresh, 8)


@every_fault
def test_with_nothing_in_hand_every_fault_is_a_typed_error_in_time(
    idp: Emulator, daemon, hasty, clock, eventually, name
):
    """A caller learns in time what is wrong, as MSAL's callers catch it; after the fault a token comes."""
    app = daemon(resilience=hasty)
    idp.fail(FAULTS[name])
    begun = time.monotonic()
    error: Any = None
    try:
        answer = app.acquire_token_for_client(SCOPE)
    except ra.ProviderUnavailable as raised:
        error = raised
    assert time.monotonic() - begun < hasty.wait + SLOWEST
    if error is None:
        assert name == "flapping", answer
    else:
        assert isinstance(error, requests.RequestException)
        assert error.authority == idp.url
        assert error.code
        assert idp.url in str(error)
    idp.heal()

    def works() -> bool:
        clock.skip(70)
        try:
            answer = app.acquire_token_for_client(SCOPE)
        except ra.ProviderUnavailable:
            return False
        return idp.ledger.is_valid(answer["access_token"])

    eventually(works, 8)


@pytest.mark.parametrize(
    ("fault", "kind", "also"),
    [
        (Fault.refuse(), ra.ConnectionFailed, requests.ConnectionError),
        (Fault.reset(), ra.ConnectionFailed, requests.ConnectionError),
        (Fault.black_hole(), ra.AttemptTimeout, requests.Timeout),
        (Fault.slow(5), ra.AttemptTimeout, requests.Timeout),
        (Fault.trickle(), ra.AttemptTimeout, requests.Timeout),
        (Fault.http_503(), ra.ServerFailed, requests.RequestException),
        (Fault.http_503_html(), ra.ServerFailed, requests.RequestException),
        (Fault.http_429(), ra.Throttled, requests.RequestException),
        (Fault.html_200(), ra.MalformedAnswer, requests.RequestException),
        (Fault.json_array(), ra.MalformedAnswer, requests.RequestException),
        (Fault.json_object(), ra.MalformedAnswer, requests.RequestException),
        (Fault.truncated_json(), ra.MalformedAnswer, requests.RequestException),
        (Fault.wrong_content_length(), ra.ConnectionFailed, requests.ConnectionError),
        (Fault.tls_failed(), ra.TLSFailed, requests.exceptions.SSLError),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_each_fault_has_an_error_of_its_own(idp: Emulator, daemon, settings, fault, kind, also):
    """What happened is told by the type, and a caller of requests catches what it caught before."""
    app = daemon(resilience=settings(attempt_timeout=0.3, connect_timeout=0.3, retry=ra.RetryOptions(attempts=1)))
    idp.fail(fault)
    with pytest.raises(kind) as caught:
        app.acquire_token_for_client(SCOPE)
    assert isinstance(caught.value, also)
    assert caught.value.authority == idp.url


def test_retry_after_reaches_the_caller(idp: Emulator, daemon, settings):
    """A throttled caller is told for how long, and the provider isn't asked again meanwhile (G8)."""
    app = daemon(resilience=settings(wait=1, exchange_deadline=1, attempt_timeout=1, connect_timeout=1))
    idp.fail(Fault.http_429(retry_after=30))
    for _ in range(3):
        with pytest.raises(ra.Throttled) as caught:
            app.acquire_token_for_client(SCOPE)
        assert 28 <= caught.value.retry_after <= 30
    assert len(idp.ledger.token_calls()) == 1


def test_400_cold_threads_cause_one_call(idp: Emulator, daemon, together):
    """However many threads want the same token at once, the provider is asked once."""
    idp.fail(Fault.slow(0.4), "token")
    app = daemon()
    answers = together(400, lambda: app.acquire_token_for_client(SCOPE))
    assert len({answer["access_token"] for answer in answers}) == 1
    assert len(idp.ledger.token_calls()) == 1


def test_400_cold_tasks_cause_one_call(idp: Emulator, daemon):
    """However many tasks want the same token at once, the provider is asked once."""
    idp.fail(Fault.slow(0.4), "token")
    answers = [answer for answer, _ in storm_of_tasks(daemon(), 400)]
    assert len({answer["access_token"] for answer in answers}) == 1
    assert len(idp.ledger.token_calls()) == 1


def test_cold_threads_and_tasks_together_cause_one_call(idp: Emulator, daemon):
    """Threads and tasks of two loops share one exchange."""
    idp.fail(Fault.slow(0.6), "token")
    app, answers = daemon(), []
    crowds = [threading.Thread(target=lambda: answers.extend(storm_of_tasks(app, 100))) for _ in range(2)]
    crowds += [
        threading.Thread(target=lambda: answers.append((app.acquire_token_for_client(SCOPE), 0.0))) for _ in range(200)
    ]
    for crowd in crowds:
        crowd.start()
    for crowd in crowds:
        crowd.join()
    assert len(answers) == 400
    assert len({answer["access_token"] for answer, _ in answers}) == 1
    assert len(idp.ledger.token_calls()) == 1


def test_400_due_callers_cause_one_call(idp: Emulator, daemon, clock, together, eventually):
    """A due token is refreshed once behind however many callers there are."""
    idp.refresh_in = 60
    app = daemon()
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    idp.fail(Fault.slow(0.4), "token")
    clock.skip(61)
    answers = together(400, lambda: app.acquire_token_for_client(SCOPE))
    assert {answer["access_token"] for answer in answers} == {held}
    assert {answer["resilience"]["reason"] for answer in answers} == {"refreshing"}
    eventually(lambda: app.acquire_token_for_client(SCOPE)["access_token"] != held)
    assert len(idp.ledger.token_calls()) == 2


@pytest.mark.parametrize("fault", [Fault.black_hole(), Fault.slow(3), Fault.http_503()], ids=lambda f: f.name)
def test_a_second_token_is_not_delayed_by_the_fault_of_the_first(idp: Emulator, daemon, fault):
    """One API's token that can't be had holds up nobody who wants another API's."""
    app = daemon()
    idp.fail(fault, "token", match={"scope": SCOPE[0]})

    def suffer() -> None:
        with contextlib.suppress(ra.ProviderUnavailable, ra.Closed):
            app.acquire_token_for_client(SCOPE)

    threading.Thread(target=suffer, daemon=True).start()
    time.sleep(0.1)
    begun = time.monotonic()
    other = app.acquire_token_for_client(["https://vault.azure.net/.default"])
    assert idp.ledger.is_valid(other["access_token"])
    assert time.monotonic() - begun < SLOWEST
    idp.heal()


def test_a_second_authority_is_not_delayed_by_a_hung_one(idp: Emulator, daemon, settings):
    """Exchanges that hang at one provider take nothing away from another one, even with one worker for each."""
    shared = settings(workers_per_authority=1)
    with Emulator() as other:
        hung = daemon(resilience=shared)
        works = daemon(resilience=shared, authority=other.authority("contoso"), verify=other.ca_file)
        idp.fail(Fault.black_hole(), "token")
        for name in ("a", "b", "c", "d"):
            hung.keep_fresh([f"https://{name}/.default"])
        time.sleep(0.1)
        begun = time.monotonic()
        assert works.acquire_token_for_client(SCOPE)["access_token"]
        assert time.monotonic() - begun < SLOWEST
        idp.heal()


def test_an_open_circuit_answers_at_once_and_says_when(idp: Emulator, daemon, hasty, clock):
    """After a few failures the provider is left alone: the error comes at once, with the time of the next attempt."""
    app = daemon(resilience=hasty)
    idp.fail(Fault.refuse())
    for _ in range(3):
        clock.skip(5.5)
        with pytest.raises(ra.ConnectionFailed):
            app.acquire_token_for_client(SCOPE)
    calls = len(idp.ledger.calls)
    begun = time.monotonic()
    with pytest.raises(ra.CircuitOpen) as caught:
        app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - begun < 0.1
    assert 0 < caught.value.retry_after < 12
    assert "refused" in str(caught.value) or "connection_failed" in str(caught.value)
    assert len(idp.ledger.calls) == calls


@pytest.mark.parametrize("fault", [Fault.http_429(0), Fault.http_503(retry_after=0)], ids=lambda f: f.name)
def test_a_retry_after_of_zero_is_no_fast_retry_loop(idp: Emulator, daemon, clock, settle, fault):
    """A provider that throttles with no time to wait is still not asked again at once, and again (G8, G9)."""
    idp.refresh_in = 60
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    idp.ledger.clear()
    idp.fail(fault)
    clock.skip(61)
    for _ in range(200):
        assert app.acquire_token_for_client(SCOPE)["access_token"]
        settle(app)
        clock.skip(0.01)
    assert len(idp.ledger.token_calls()) <= 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault.http_503(),
        Fault.refuse(),
        Fault.html_200(),
        Fault.http_429(30),
        Fault.http_429(None),
        Fault.http_429(1),
    ],
    ids=["503", "refused", "portal", "429 for 30 s", "429", "429 for 1 s"],
)
def test_nine_minutes_of_an_outage_are_at_most_40_calls(idp: Emulator, daemon, clock, settle, fault):
    """With steady traffic and a due token, a process asks a provider that is down 40 times at most."""
    idp.refresh_in = 60
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    idp.ledger.clear()
    idp.fail(fault)
    clock.skip(61)
    for _ in range(270):
        assert app.acquire_token_for_client(SCOPE)["access_token"]
        settle(app)
        clock.skip(2)
    assert len([call for call in idp.ledger.calls if call.endpoint in ("token", "handshake")]) <= 40


def test_health_tells_of_the_outage(idp: Emulator, daemon, settings, clock, eventually):
    """During an outage the token's time to dark and its last error are told, and the process stays ready."""
    idp.refresh_in = 60
    app = daemon(client_id="told-by-health", resilience=settings(retry=ra.RetryOptions(attempts=1)))
    app.acquire_token_for_client(SCOPE)
    idp.fail(Fault.http_503())
    clock.skip(61)
    with capture_events() as events:
        app.acquire_token_for_client(SCOPE)
        events.wait_for(ExchangeFailed)

    def mine() -> Any:
        return next(token for token in ra.health().tokens if token.client_id == "told-by-health")

    eventually(lambda: mine().last_code)
    found = mine()
    assert found.state == "due"
    assert found.last_code == "server_failed"
    assert 3500 < found.time_to_dark < 3540
    assert found.failures == 1
