"""What the owner brings along stays the owner's: token caches, HTTP clients, TLS and proxy settings, regions."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msal as plain_msal
import pytest
import requests

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]


def test_a_swapped_token_cache_takes_effect_at_once(idp: Emulator, daemon):
    """Tokens of the cache that was taken away are forgotten; those of a new one are served."""
    app = daemon()
    first_cache = app.token_cache
    first = app.acquire_token_for_client(SCOPE)["access_token"]
    app.token_cache = msal.TokenCache()
    second = app.acquire_token_for_client(SCOPE)
    assert second["token_source"] == "identity_provider"
    app.token_cache = first_cache
    again = app.acquire_token_for_client(SCOPE)
    assert again["access_token"] == first
    assert again["token_source"] == "cache"


def test_two_applications_share_a_cache(idp: Emulator, daemon, plain_daemon):
    """What one of them got serves the other, one of MSAL's too, and what one removes is gone for both."""
    cache = msal.TokenCache()
    one, two, plain = daemon(token_cache=cache), daemon(token_cache=cache), plain_daemon(token_cache=cache)
    token = one.acquire_token_for_client(SCOPE)["access_token"]
    assert two.acquire_token_for_client(SCOPE)["access_token"] == token
    assert plain.acquire_token_for_client(SCOPE)["access_token"] == token
    assert len(idp.ledger.token_calls()) == 1
    plain.remove_tokens_for_client()
    assert one.acquire_token_for_client(SCOPE)["access_token"] != token
    assert two.acquire_token_for_client(SCOPE)["access_token"] != token


def test_a_deserialized_cache_takes_effect_at_once(idp: Emulator, daemon, clock):
    """A web application that loads each session's cache into one object serves each session its own tokens."""
    cache = msal.SerializableTokenCache()
    app = daemon(token_cache=cache)
    empty = cache.serialize()
    token = app.acquire_token_for_client(SCOPE)["access_token"]
    assert cache.has_state_changed
    full = cache.serialize()
    assert token in full
    cache.deserialize(empty)
    other = app.acquire_token_for_client(SCOPE)["access_token"]
    assert other != token
    cache.deserialize(full)
    assert app.acquire_token_for_client(SCOPE)["access_token"] == token


def test_a_token_from_an_earlier_run_is_served_while_the_provider_is_down(idp: Emulator, daemon, clock):
    """A persisted cache carries an application through a restart in an outage (G3)."""
    cache = msal.SerializableTokenCache()
    token = daemon(token_cache=cache).acquire_token_for_client(SCOPE)["access_token"]
    restored = msal.SerializableTokenCache()
    restored.deserialize(cache.serialize())
    app = daemon(token_cache=restored)
    idp.fail(Fault.refuse())
    clock.skip(2400)
    assert app.acquire_token_for_client(SCOPE)["access_token"] == token


class Elsewhere(plain_msal.TokenCache):
    """A cache with a `search` of its own: another process may change what it finds."""

    def __init__(self) -> None:
        super().__init__()
        self.searches = 0
        self.emptied = False

    def search(self, *args: Any, **kwargs: Any) -> Any:
        self.searches += 1
        return iter(()) if self.emptied else list(super().search(*args, **kwargs))


def test_a_cache_with_a_search_of_its_own_is_read_each_time(idp: Emulator, daemon):
    """What another process removed from a shared cache isn't served from our memory."""
    cache = Elsewhere()
    app = daemon(token_cache=cache)
    token = app.acquire_token_for_client(SCOPE)["access_token"]
    before = cache.searches
    assert app.acquire_token_for_client(SCOPE)["access_token"] == token
    assert app.acquire_token_for_client(SCOPE)["access_token"] == token
    assert cache.searches >= before + 2
    cache.emptied = True
    assert app.acquire_token_for_client(SCOPE)["access_token"] != token


class FalsyCache(msal.TokenCache):
    def __len__(self) -> int:
        return 0


class FalsySession(requests.Session):
    calls = 0

    def __len__(self) -> int:
        return 0

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.calls += 1
        return super().request(*args, **kwargs)


@pytest.fixture
def session(idp: Emulator) -> Iterator[FalsySession]:
    with FalsySession() as made:
        made.verify = idp.ca_file
        yield made


def test_falsy_objects_are_honoured(idp: Emulator, daemon, session):
    """A cache and a client with a length of 0 are used, and not silently dropped."""
    cache = FalsyCache()
    app = daemon(token_cache=cache, http_client=session, verify=True)
    app.acquire_token_for_client(SCOPE)
    assert app.token_cache is cache
    assert list(cache.search("AccessToken"))
    assert session.calls >= 1


def test_the_owners_client_stays_the_wire_and_is_protected(idp: Emulator, daemon, session, settings, clock):
    """Every request goes through the owner's client, with our retry and breaker around it."""
    app = daemon(http_client=session, tenant="own-client", verify=True)
    app.acquire_token_for_client(SCOPE)
    assert session.calls == len(idp.ledger.calls) == 2
    idp.fail(Fault.http_503())
    clock.skip(2000)
    assert app.acquire_token_for_client(SCOPE)["token_source"] == "cache"


def test_closing_an_application_closes_the_owners_client(idp: Emulator, daemon):
    """As MSAL would."""

    class Client(requests.Session):
        closed = 0

        def close(self) -> None:
            self.closed += 1
            super().close()

    client = Client()
    client.verify = idp.ca_file
    with daemon(http_client=client) as app:
        app.acquire_token_for_client(SCOPE)
    assert client.closed == 1
    with pytest.raises(ra.Closed):
        app.acquire_token_for_client(SCOPE)


def test_an_application_leaves_others_the_client_that_they_share(idp: Emulator, daemon):
    """One for each tenant, say, over one client: the last to be closed closes it, or nobody where it was dropped."""
    client = httpx.Client(verify=ssl.create_default_context(cafile=idp.ca_file))
    first, second = (daemon(name, http_client=client) for name in ("first", "second"))
    assert first.acquire_token_for_client(SCOPE)["access_token"]
    first.close()
    first.close()
    assert second.acquire_token_for_client(SCOPE)["access_token"]
    second.close()
    assert client.is_closed


@pytest.mark.parametrize("inner", [False, True], ids=["MSAL's", "ours"])
def test_another_applications_http_client_is_its_wire(idp: Emulator, daemon, clock, inner):
    """Retried once, and behind one breaker: within another, the probe of the outer one would be refused for ever."""
    first = daemon("first")
    given = first.http_client.http_client if inner else first.http_client
    second = daemon("second", http_client=given)
    idp.fail(Fault.http_503(), "token")
    clock.hurries = True
    with pytest.raises(ra.ServerFailed):
        second.acquire_token_for_client(SCOPE)
    assert len(idp.ledger.token_calls()) == 3
    idp.heal()
    clock.skip(100)
    assert second.acquire_token_for_client(SCOPE)["access_token"]
    first.close()
    assert second.acquire_token_for_client(["api://other/.default"])["access_token"]


def test_an_owners_client_may_raise_anything(idp: Emulator, daemon, settings):
    """What a client of the owner's own raises becomes a typed error that callers of MSAL catch."""

    class Own:
        def get(self, url: str, **kwargs: Any) -> Any:
            return requests.get(url, verify=idp.ca_file, **kwargs)

        def post(self, url: str, **kwargs: Any) -> Any:
            raise KeyError("some bug")

        def close(self) -> None: ...

    app = daemon(http_client=Own(), resilience=settings(retry=ra.RetryOptions(attempts=1)))
    with pytest.raises(requests.RequestException) as caught:
        app.acquire_token_for_client(SCOPE)
    assert isinstance(caught.value, ra.ProviderUnavailable)


def test_verify_is_honoured(idp: Emulator, daemon, settings):
    """Without the emulator's CA nothing is trusted; with verify=False everything is."""
    hasty = settings(discovery_wait=1, wait=1, exchange_deadline=1, attempt_timeout=1, connect_timeout=1)
    app = daemon(tenant="not-trusted", verify=True, resilience=hasty)
    with pytest.raises(ra.TLSFailed) as caught:
        app.acquire_token_for_client(SCOPE)
    assert "certificate" in str(caught.value)
    assert not idp.ledger.calls
    app = daemon(tenant="trusted-blindly", verify=False)
    assert app.acquire_token_for_client(SCOPE)["access_token"]


def test_the_environments_bundle_is_honoured(idp: Emulator, daemon, monkeypatch):
    """`REQUESTS_CA_BUNDLE` is trusted, as by MSAL's requests."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", idp.ca_file)
    assert daemon(tenant="by-environment", verify=True).acquire_token_for_client(SCOPE)["access_token"]


def test_proxies_are_honoured(idp: Emulator, proxied, settings, monkeypatch):
    """`proxies` and the environment's proxy lead to the real host names."""
    with msal.ConfidentialClientApplication("d", "s", **proxied, resilience=settings()) as app:
        assert app.acquire_token_for_client(SCOPE)["access_token"]
    assert {call.host for call in idp.ledger.calls} == {"login.microsoftonline.com"}
    monkeypatch.setenv("HTTPS_PROXY", idp.proxy_url)
    arguments = {k: v for k, v in proxied.items() if k != "proxies"}
    with msal.ConfidentialClientApplication("d", "s", **arguments, resilience=settings()) as app:
        assert app.acquire_token_for_client(SCOPE)["access_token"]


def test_timeout_is_honoured(idp: Emulator, daemon, settings):
    """MSAL's `timeout` bounds an attempt below the settings' own."""
    app = daemon(timeout=0.2, resilience=settings(retry=ra.RetryOptions(attempts=1)))
    idp.fail(Fault.black_hole(), "token")
    begun = time.monotonic()
    with pytest.raises(ra.AttemptTimeout):
        app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - begun < 1.0


def test_a_regional_endpoint_that_fails_gives_way_to_the_global_one(idp: Emulator, proxied, settings):
    """The region is asked first, and the global endpoint as soon as that has failed (G12)."""
    with msal.ConfidentialClientApplication("d", "s", **proxied, azure_region="westus2", resilience=settings()) as app:
        assert app.acquire_token_for_client(SCOPE)["access_token"]
        regional = [call.host for call in idp.ledger.token_calls()]
        assert regional == ["westus2.login.microsoft.com"]
        idp.fail(Fault.http_503(), "token", match={"host": "westus2.login.microsoft.com"})
        begun = time.monotonic()
        assert app.acquire_token_for_client(["https://vault.azure.net/.default"])["access_token"]
        assert time.monotonic() - begun < 1.0
    hosts = [call.host for call in idp.ledger.token_calls()]
    assert hosts[1:] == ["westus2.login.microsoft.com", "login.microsoftonline.com"]


def test_a_region_is_discovered_from_the_metadata_endpoint(idp: Emulator, proxied, settings):
    """With automatic discovery the region comes from the instance metadata service, and its failure costs nothing."""

    def hosts_with(**more: Any) -> set[str]:
        idp.ledger.clear()
        with msal.ConfidentialClientApplication("d", "s", **proxied, azure_region=True, resilience=settings()) as app:
            assert app.acquire_token_for_client(SCOPE)["access_token"]
        return {call.host for call in idp.ledger.token_calls()}

    assert hosts_with() == {"westus2.login.microsoft.com"}
    idp.fail(Fault.http_503(), "imds_compute")
    assert hosts_with() == {"login.microsoftonline.com"}


def seconds_for_a_user(app: Any, username: str) -> float:
    """Measure the usual pair of calls for a cached user."""
    batches = []
    for _ in range(9):
        begun = time.perf_counter()
        for _ in range(20):
            account = app.get_accounts(username=username)[0]
            assert app.acquire_token_silent(USER_SCOPE, account)
        batches.append((time.perf_counter() - begun) / 20)
    return statistics.median(batches)


def test_a_cached_user_costs_the_same_among_many(idp: Emulator, desktop):
    """`get_accounts(username=...)` and `acquire_token_silent` don't slow down with the number of users."""
    costs = {}
    for users in (100, 5000):
        cache = msal.TokenCache()
        app = desktop(token_cache=cache)
        instance, tenant = app.authority.instance, app.authority.tenant
        for number in range(users):
            one = {
                "home_account_id": f"u{number}.t",
                "environment": instance,
                "realm": tenant,
                "local_account_id": f"u{number}",
            }
            cache.modify("Account", one, {"username": f"User{number}@contoso.com", "authority_type": "MSSTS"})
            token = {"credential_type": "AccessToken", "client_id": "desktop", "target": USER_SCOPE[0], "secret": "x"}
            token |= {"token_type": "Bearer", "expires_on": str(int(time.time()) + 3600), "cached_at": "0"}
            cache.modify("AccessToken", one | token, one | token)
        costs[users] = seconds_for_a_user(app, f"user{users - 1}@contoso.com")
    print(f"a cached user: {costs[100] * 1e6:.0f} us among 100, {costs[5000] * 1e6:.0f} us among 5,000")
    assert costs[5000] < 4 * costs[100] + 20e-6


def test_new_and_removed_users_are_found_by_name(idp: Emulator, desktop, sign_in):
    """The index by user name follows what comes and goes."""
    app = desktop()
    sign_in(app, "ann@contoso.com")
    assert [a["username"] for a in app.get_accounts("Ann@Contoso.com")] == ["ann@contoso.com"]
    sign_in(app, "bob@contoso.com")
    bob = app.get_accounts("bob@contoso.com")
    assert len(bob) == 1
    app.remove_account(bob[0])
    assert app.get_accounts("bob@contoso.com") == []
    assert len(app.get_accounts()) == 1


def test_wrap_leaves_the_application_as_it_is(idp: Emulator, plain_daemon, settings):
    """A wrapper is an instance of the same class, shares cache and client, and changes nothing about the original."""
    plain = plain_daemon()
    before = dict(vars(plain))
    app = ra.wrap(plain, resilience=settings())
    assert isinstance(app, plain_msal.ConfidentialClientApplication)
    token = app.acquire_token_for_client(SCOPE)["access_token"]
    assert vars(plain) == before
    assert plain.acquire_token_for_client(SCOPE)["access_token"] == token
    assert app.token_cache is plain.token_cache
    plain.token_cache = msal.TokenCache()
    assert app.acquire_token_for_client(SCOPE)["access_token"] != token
    assert ra.wrap(app) is app
    with pytest.raises(ra.ConfigurationError, match="resilience"):
        ra.wrap(app, resilience=settings())


def test_a_wrapped_application_survives_an_outage(idp: Emulator, plain_desktop, plain_daemon, settings, sign_in, clock):
    """What the drop-in does, the wrapper does: applications and users are served through an outage."""
    idp.refresh_in = 60
    app, desk = ra.wrap(plain_daemon(), resilience=settings()), ra.wrap(plain_desktop(), resilience=settings())
    token = app.acquire_token_for_client(SCOPE)["access_token"]
    user = sign_in(desk)["access_token"]
    account = desk.get_accounts()[0]
    idp.fail(Fault.http_503())
    clock.skip(3000)
    assert app.acquire_token_for_client(SCOPE)["access_token"] == token
    assert desk.acquire_token_silent(USER_SCOPE, account)["access_token"] == user


def test_wrap_knows_what_it_can_wrap(settings):
    """Anything that isn't an application of MSAL's is refused by name."""
    with pytest.raises(ra.ConfigurationError, match="app must be an application of MSAL's"):
        ra.wrap(object())


def test_a_wrapped_subclass_keeps_its_own_methods(idp: Emulator, settings):
    """What a subclass of MSAL's adds is there on the wrapper."""

    class Own(plain_msal.ConfidentialClientApplication):
        def tenant_name(self) -> str:
            return f"{self.authority.tenant}!"

    plain = Own("d", "s", idp.authority("contoso"), instance_discovery=False, verify=idp.ca_file)
    app = ra.wrap(plain, resilience=settings())
    assert app.tenant_name() == plain.tenant_name()
    assert app.acquire_token_for_client(SCOPE)["access_token"]


def test_keep_fresh_needs_no_traffic(idp: Emulator, daemon, settings, clock, eventually):
    """A pinned token is there before the first call, and is renewed with nobody asking (G5)."""
    idp.refresh_in = 600
    daemon(resilience=settings(keep_fresh=(tuple(SCOPE),)))
    eventually(lambda: len(idp.ledger.token_calls()) == 1)
    time.sleep(0.1)
    clock.skip(2500)
    eventually(lambda: len(idp.ledger.token_calls()) == 2)


def test_closing_ends_what_runs_ahead(idp: Emulator, daemon, clock, eventually):
    """A closed application asks for nothing more."""
    idp.refresh_in = 600
    app = daemon()
    app.keep_fresh(SCOPE)
    eventually(lambda: len(idp.ledger.token_calls()) == 1)
    app.close()
    clock.skip(3000)
    time.sleep(0.2)
    assert len(idp.ledger.token_calls()) == 1


def test_closing_ends_an_exchange_that_waits_to_be_retried(idp: Emulator, daemon, clock):
    """A closed application doesn't come back to the provider when a back-off is over."""
    app = daemon()
    idp.fail(Fault.http_503(), "token")

    def ask() -> None:
        with contextlib.suppress(ra.ResilientAuthError):
            app.acquire_token_for_client(SCOPE)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.2)
    app.close()
    clock.skip(12)
    time.sleep(0.3)
    assert len(idp.ledger.token_calls()) == 1
    clock.skip(60)
    asking.join(5)


def test_a_proxy_that_is_not_there_is_a_connection_error(settings, idp: Emulator):
    """A dead proxy is told as what it is: nothing could be reached."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        app = msal.ConfidentialClientApplication(
            "d",
            "s",
            "https://login.microsoftonline.com/dead-proxy",
            proxies={"https": dead},
            resilience=settings(discovery_wait=1),
        )
        with pytest.raises(ra.ConnectionFailed):
            app.authority  # noqa: B018


def test_a_dropped_application_leaves_no_connection_open(idp: Emulator, settings: Callable[..., ra.Settings]) -> None:
    """Nobody need close what they have forgotten: its connections end with it."""
    app = msal.ConfidentialClientApplication(
        "daemon",
        client_credential="s3cret-of-the-daemon",
        authority=idp.authority("contoso"),
        instance_discovery=False,
        verify=idp.ca_file,
        resilience=settings(),
    )
    assert "access_token" in app.acquire_token_for_client(SCOPE)
    (client,) = app._ra_transport.wire._open.clients.values()
    assert not client.is_closed
    del app
    gc.collect()
    assert client.is_closed
