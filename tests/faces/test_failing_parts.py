"""One failing part takes no healthy one down: each beside plain MSAL, at the same provider, over TLS (G8, G11)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/.default"]
BROKEN = ["https://broken.contoso.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]
pytestmark = pytest.mark.filterwarnings("ignore:Passing a static:DeprecationWarning")


@pytest.fixture
def once(settings: Callable[..., ra.Settings], clock: Any) -> ra.Settings:
    """Settings under which an exchange makes one attempt, and its wait for that takes no real time."""
    clock.hurries = True
    return settings(retry=ra.RetryOptions(attempts=1))


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it never became true"
        time.sleep(0.001)


def pass_time(clock: Any, app: Any, seconds: float) -> None:
    """Let timers run that are due then, and what they begin come to its end before more time passes."""
    engine, ran = app._ra_session.engine, threading.Event()
    clock.skip(seconds)
    # Timers run in the order of their times: when this one has, those that were due have too.
    engine.timers.call_at(clock.monotonic(), ran.set)
    assert ran.wait(5.0)
    until(lambda: not engine.flights._flights, 20.0)


def outcome(call: Callable[[], Any]) -> str:
    """Return whether there was a token, or which error."""
    try:
        result = call()
    except Exception as error:
        return type(error).__name__
    return "token" if "access_token" in result else str(result["error"])


def open_breakers(around: str) -> list[str]:
    """What isn't closed around a provider or source of a test's own: other tests' may be left."""
    statuses = ra.health().breakers
    return [status.name for status in statuses if status.state != "closed" and status.name.startswith(around)]


@pytest.mark.parametrize("how", ["asked for", "pinned"])
def test_a_token_that_always_fails_stops_no_sign_in(idp: Emulator, daemon, plain_daemon, once, clock, sign_in, how):
    """Eighteen people sign in within ninety seconds, while one application token gets 500 for ever."""
    idp.fail(Fault.status(500), "token", match={"scope": BROKEN[0]})
    ours, theirs = daemon(resilience=once), plain_daemon()
    if how == "pinned":
        ours.keep_fresh(BROKEN)
    for _ in range(18):
        if how == "asked for":
            assert outcome(lambda: ours.acquire_token_for_client(BROKEN)) != "token"
        assert outcome(lambda: sign_in(ours)) == "token"
        pass_time(clock, ours, 5.0)
    assert outcome(lambda: sign_in(theirs)) == "token"
    failed = [call for call in idp.ledger.token_calls() if call.status == 500]
    assert 3 <= len(failed) <= 18
    assert all("of " + BROKEN[0] in name for name in open_breakers(idp.url)), open_breakers(idp.url)


def test_a_token_that_always_fails_stops_no_other_token(idp: Emulator, daemon, plain_daemon, once, clock):
    """Each of twenty other ones comes at the first call, as in MSAL."""
    idp.fail(Fault.status(500), "token", match={"scope": BROKEN[0]})
    ours, theirs = daemon(resilience=once), plain_daemon()
    for n in range(20):
        scope = [f"https://api{n}.contoso.com/.default"]
        for app in (ours, theirs):
            assert outcome(lambda app=app: app.acquire_token_for_client(BROKEN)) != "token"
            assert outcome(lambda app=app, scope=scope: app.acquire_token_for_client(scope)) == "token"
        pass_time(clock, ours, 6.0)


def test_a_grant_that_always_fails_stops_no_other_grant(idp: Emulator, daemon, once, clock, sign_in):
    """On-behalf-of exchanges get 500 for every user: application tokens and sign-ins go on."""
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    idp.fail(Fault.status(500), "token", match={"grant_type": grant})
    app = daemon(resilience=once)
    for n in range(8):
        assert outcome(lambda n=n: app.acquire_token_on_behalf_of(f"assertion {n}", USER_SCOPE)) != "token"
        assert outcome(lambda n=n: app.acquire_token_for_client([f"https://api{n}.contoso.com/.default"])) == "token"
        assert outcome(lambda: sign_in(app)) == "token"
        pass_time(clock, app, 6.0)
    assert len([call for call in idp.ledger.token_calls() if call.grant_type == grant]) < 8
    assert any("by on_behalf_of" in name for name in open_breakers(idp.url))


def test_failing_tenants_starve_no_other_one(idp: Emulator, daemon, once, clock):
    """Three get 500 for ever; a fourth waits for one break at most, and never again."""
    bad = [daemon(resilience=once, tenant=f"bad{n}") for n in range(3)]
    broken = {urlsplit(app.authority.token_endpoint).path for app in bad}
    idp.fail(Fault.status(500), "token", match=lambda call: call.path in broken)
    good = daemon(resilience=once, tenant="good")
    waited = 0.0
    got = []
    for n in range(40):
        for app in bad:
            assert outcome(lambda app=app: app.acquire_token_for_client(SCOPE)) != "token"
        got.append(outcome(lambda n=n: good.acquire_token_for_client([f"https://api{n}.contoso.com/.default"])))
        if "token" not in got:
            waited += 5.0
        pass_time(clock, good, 5.0)
    first = got.index("token")
    assert waited <= 15.0
    assert set(got[first:]) == {"token"}


def test_wrong_passwords_that_get_500_stop_nobody(idp: Emulator, desktop, once, clock, proxied):
    """As some servers answer them: a stranger may try a hundred, and people sign in meanwhile."""
    strangers = threading.Event()
    idp.fail(Fault.status(500), "token", match=lambda call: strangers.is_set())
    app = desktop(resilience=once, **proxied)
    for n in range(20):
        strangers.set()
        for m in range(5):
            wrong = f"u{n}{m}@contoso.com"
            assert (
                outcome(lambda wrong=wrong: app.acquire_token_by_username_password(wrong, "no", USER_SCOPE)) != "token"
            )
        strangers.clear()
        right = outcome(lambda: app.acquire_token_by_username_password("ann@contoso.com", "pw", USER_SCOPE))
        assert right == "token", n
        pass_time(clock, app, 1.0)


def test_a_provider_that_is_gone_is_left_alone_as_a_whole(idp: Emulator, daemon, once, clock):
    """A refused connection is everybody's at once, whoever has seen it: three of them, and nobody asks any more."""
    app = daemon(resilience=once)
    assert outcome(lambda: app.acquire_token_for_client(SCOPE)) == "token"
    idp.fail(Fault.refuse())
    for n in range(3):
        pass_time(clock, app, 5.5)
        assert outcome(lambda: app.acquire_token_for_client(BROKEN)) == "ConnectionFailed", n
    refused = outcome(lambda: app.acquire_token_for_client(["https://other.contoso.com/.default"]))
    assert refused == "CircuitOpen"


def test_different_requests_that_fail_are_the_providers(idp: Emulator, daemon, once):
    """Three tokens that get 503: the fourth one isn't asked for."""
    app = daemon(resilience=once)
    assert outcome(lambda: app.acquire_token_for_client(SCOPE)) == "token"
    idp.fail(Fault.http_503(), "token")
    for n in range(3):
        assert outcome(lambda n=n: app.acquire_token_for_client([f"https://api{n}.contoso.com/.default"])) != "token"
    made = len(idp.ledger.token_calls())
    assert outcome(lambda: app.acquire_token_for_client(BROKEN)) == "CircuitOpen"
    assert len(idp.ledger.token_calls()) == made


def test_a_person_signing_in_may_be_the_probe_when_they_were_told(idp: Emulator, daemon, once, clock, sign_in):
    """Told to come back after so many seconds, they do, and are let through, though a pinned token waits too."""
    clock.hurries = False
    app = daemon(resilience=once)
    sign_in(app)
    app.keep_fresh(BROKEN)
    until(lambda: bool(idp.ledger.token_calls()))
    idp.fail(Fault.refuse())
    for n in range(3):
        assert outcome(lambda n=n: app.acquire_token_for_client([f"https://api{n}.contoso.com/.default"])) != "token"
    flow = app.initiate_auth_code_flow(USER_SCOPE, redirect_uri="http://localhost/back", response_mode="form_post")
    with pytest.raises(ra.errors.CircuitOpen) as refused:
        app.acquire_token_by_auth_code_flow(flow, {"state": flow["state"], "code": "a-code"})
    idp.heal()
    assert refused.value.retry_after is not None
    clock.skip(refused.value.retry_after, wakes=False)  # they are there before any timer is
    assert outcome(lambda: sign_in(app)) == "token"


def test_a_throttled_resource_is_its_own_matter(idp: Emulator, daemon, once, clock, sign_in):
    """One scope's 429 stops neither another scope nor a sign-in; inside of its Retry-After it isn't asked for."""
    idp.fail(Fault.http_429(120), "token", match={"scope": BROKEN[0]})
    app = daemon(resilience=once)
    for n in range(8):
        assert outcome(lambda: app.acquire_token_for_client(BROKEN)) == "Throttled"
        assert outcome(lambda n=n: app.acquire_token_for_client([f"https://api{n}.contoso.com/.default"])) == "token"
        assert outcome(lambda: sign_in(app)) == "token"
        pass_time(clock, app, 5.0)
    assert len([call for call in idp.ledger.token_calls() if call.status == 429]) == 1


def test_several_throttled_requests_are_the_applications(idp: Emulator, daemon, once):
    """Three different ones in a row: none of that application's is made until the time has passed (G8)."""
    idp.fail(Fault.http_429(120), "token")
    app = daemon(resilience=once)
    for n in range(3):
        asked = outcome(lambda n=n: app.acquire_token_for_client([f"https://api{n}.contoso.com/.default"]))
        assert asked == "Throttled"
    assert outcome(lambda: app.acquire_token_for_client(SCOPE)) == "Throttled"
    assert len(idp.ledger.token_calls()) == 3


def test_what_closed_applications_have_seen_troubles_no_health(idp: Emulator, daemon, once, clock):
    """Their breakers go with them, unless another application asks the same provider."""
    idp.fail(Fault.refuse())
    app, other = daemon(resilience=once), daemon("other", resilience=once)
    for _ in range(12):  # who asks while a refresh in the background is failing has no failure of their own
        assert outcome(lambda: app.acquire_token_for_client(SCOPE)) != "token"
        pass_time(clock, app, 5.5)
        if open_breakers(idp.url):
            break
    outcome(lambda: other.acquire_token_for_client(SCOPE))
    assert open_breakers(idp.url)
    app.close()
    assert open_breakers(idp.url)
    other.close()
    assert not open_breakers(idp.url)


def test_an_application_that_is_closed_in_an_exchange_warns_of_nothing(idp: Emulator, daemon, settings, clock):
    """Its owner meant it: who waits for a back-off to end is told `Closed`, and there is no failure to see to."""
    idp.fail(Fault.http_503(), "token")
    app, asked = daemon(), []
    with capture_events() as told:
        waiter = threading.Thread(target=lambda: asked.append(outcome(lambda: app.acquire_token_for_client(SCOPE))))
        waiter.start()
        told.wait_for(ra.events.RetryScheduled)
        until(lambda: clock.waiting_workers > 0)
        app.close()
        waiter.join(5.0)
        assert asked == ["Closed"]
        app = daemon("other", resilience=settings(retry=ra.RetryOptions(attempts=1)))
        assert outcome(lambda: app.acquire_token_for_client(SCOPE)) == "MsalServerFailed"
        # Events are told in their order: the closed one's would have come before.
        assert "exchange_error" not in {failed.code for failed in told.wait_for(ra.events.ExchangeFailed)}


def test_a_closed_credentials_breaker_goes_with_it(once, clock):
    """A function that failed leaves nothing open behind."""

    def broken(scopes: tuple[str, ...]) -> Any:
        raise ConnectionError("down")

    credential = ra.ResilientCredential(broken, settings=once)
    for _ in range(5):
        with pytest.raises(ra.ProviderUnavailable):
            credential.get_token("s")
        clock.skip(5.5)
    name = credential._core._sources[0].name
    assert open_breakers(name)
    credential.close()
    assert not open_breakers(name)


def test_a_refresh_at_once_is_floored(settings):
    """A provider that says `refresh_in: 0` isn't asked again and again for a pinned token."""
    with Emulator(token_lifetime=600.0, refresh_in=0.0) as idp:
        app = ra.msal.ConfidentialClientApplication(
            "daemon",
            authority=idp.authority("contoso"),
            client_credential="s3cret-of-the-daemon",
            instance_discovery=False,
            verify=idp.ca_file,
            resilience=settings(),
        )
        with app, capture_events() as events:
            app.keep_fresh(SCOPE)
            events.wait_for(ra.events.TokenAcquired)
            time.sleep(0.5)
            assert len(idp.ledger.token_calls()) == 1
