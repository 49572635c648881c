"""A credential gives valid tokens in azure-core's shape, once for all who ask, whatever happens to the provider."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time

import msal as plain_msal
import pytest
from azure.core.credentials import AccessToken, AccessTokenInfo, SupportsTokenInfo, TokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ChainedTokenCredential, ClientSecretCredential, CredentialUnavailableError
from azure.identity.aio import ClientSecretCredential as AwaitedSecretCredential

import resilient_auth as ra
from resilient_auth import events
from resilient_auth.emulator import Fault
from resilient_auth.testing import capture_events

FAILURES = ["refuse", "reset", "black_hole", "http_503", "http_503_html", "http_429", "html_200", "truncated_json",
            "tls_failed"]  # fmt: skip


def token_calls(idp):
    return [call for call in idp.ledger.calls if call.endpoint == "token"]


def test_it_has_the_shape_that_azure_core_wants(idp, app_at, scope):
    """Both protocols hold, and the tokens are azure-core's own classes."""
    credential = ra.ResilientCredential(app_at(idp))
    assert isinstance(credential, TokenCredential)
    assert isinstance(credential, SupportsTokenInfo)
    token, info = credential.get_token(scope), credential.get_token_info(scope)
    assert type(token) is AccessToken
    assert type(info) is AccessTokenInfo
    assert token.token == info.token
    assert token.expires_on == info.expires_on == pytest.approx(time.time() + 3600, abs=5)
    assert len(token_calls(idp)) == 1


def test_refresh_on_is_when_a_refresh_is_due_here(idp, app_at, scope, clock, eventually):
    """An Azure SDK client that asks again from then on has the token refreshed, and gets the new one."""
    idp.refresh_in = 600.0
    credential = ra.ResilientCredential(app_at(idp))
    info = credential.get_token_info(scope)
    assert info.refresh_on == pytest.approx(time.time() + 600, abs=3)
    clock.skip(info.refresh_on - time.time())
    assert credential.get_token_info(scope).token == info.token
    eventually(lambda: credential.get_token_info(scope).token != info.token)


@pytest.mark.parametrize("fault", FAILURES)
def test_a_valid_token_is_served_through_every_failure(idp, app_at, scope, clock, fault):
    """Due for a refresh, with the provider gone: nobody waits, and nobody fails."""
    credential = ra.ResilientCredential(app_at(idp))
    held = credential.get_token(scope).token
    idp.fail(Fault.all()[fault])
    clock.skip(3000)
    begun = time.monotonic()
    for _ in range(20):
        assert credential.get_token(scope).token == held
        assert credential.get_token_info(scope).token == held
        time.sleep(0.01)
    assert time.monotonic() - begun < 2


def test_sixty_four_threads_share_one_exchange(idp, app_at, scope, together):
    """One POST for all."""
    credential = ra.ResilientCredential(app_at(idp))
    idp.fail(Fault.slow(0.3), "token")
    got = together(64, lambda: credential.get_token(scope).token)
    assert len(set(got)) == 1
    assert len(token_calls(idp)) == 1


async def test_four_hundred_tasks_share_one_exchange_and_cancellation_harms_nobody(idp, app_at, scope):
    """Half of them give up; the others get the token of the one exchange."""
    async with ra.aio.ResilientCredential(app_at(idp)) as credential:
        idp.fail(Fault.slow(0.5), "token")
        tasks = [asyncio.create_task(credential.get_token(scope)) for _ in range(400)]
        await asyncio.sleep(0.1)
        for task in tasks[::2]:
            task.cancel()
        got = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in got[::2])
    assert len({one.token for one in got[1::2]}) == 1
    assert len(token_calls(idp)) == 1


def test_a_plain_application_and_a_managed_identity_are_wrapped(idp, scope, settings, monkeypatch):
    """Who has MSAL's own objects gets the same."""
    plain = plain_msal.ConfidentialClientApplication("daemon", "secret", authority=idp.authority("contoso"),
                                                     instance_discovery=False, verify=idp.ca_file)  # fmt: skip
    assert ra.ResilientCredential(plain, settings=settings()).get_token(scope).token
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", idp.metadata_url)
    import requests

    mine = plain_msal.ManagedIdentityClient(plain_msal.SystemAssignedManagedIdentity(), http_client=requests.Session())
    credential = ra.ResilientCredential(mine, settings=settings())
    first = credential.get_token(scope).token
    assert idp.ledger.lookup(first) is not None
    assert credential.get_token(scope).token == first


def test_any_credential_gets_memory_and_fallback(idp, scope, settings, clock):
    """azure-identity's raises while its token is valid; around it, nobody notices."""
    theirs = ClientSecretCredential("contoso", "daemon", "secret", authority=idp.url, disable_instance_discovery=True,
                                    connection_verify=idp.ca_file, retry_total=0)  # fmt: skip
    with ra.ResilientCredential(theirs, settings=settings()) as credential:
        held = credential.get_token_info(scope)
        idp.fail(Fault.http_503())
        clock.skip(3599)
        assert credential.get_token_info(scope).token == held.token


async def test_an_awaited_credential_asks_once_for_all_tasks(idp, scope, settings):
    """And is closed with the one around it."""
    theirs = AwaitedSecretCredential("contoso", "daemon", "secret", authority=idp.url, disable_instance_discovery=True,
                                     connection_verify=idp.ca_file)  # fmt: skip
    async with ra.aio.ResilientCredential(theirs, settings=settings()) as credential:
        got = await asyncio.gather(*(credential.get_token(scope) for _ in range(50)))
    assert len({one.token for one in got}) == 1
    assert len(token_calls(idp)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ("t0ken", int(time.time()) + 3600),
        AccessToken("t0ken", int(time.time()) + 3600),
        AccessTokenInfo("t0ken", int(time.time()) + 3600),
        {"access_token": "t0ken", "expires_in": 3600},
        {"access_token": "t0ken", "expires_on": str(int(time.time()) + 3600)},
    ],
)
async def test_a_function_may_give_anything_like_a_token(settings, answer):
    """Blocking or awaited, asked once."""
    asked = []

    def blocking(scopes):
        asked.append(scopes)
        return answer

    async def awaited(scopes):
        return blocking(scopes)

    credential = ra.ResilientCredential(blocking, settings=settings())
    assert {credential.get_token("a", "b").token for _ in range(5)} == {"t0ken"}
    assert asked == [("a", "b")]
    both = ra.aio.ResilientCredential(awaited, settings=settings())
    assert (await both.get_token_info("a")).token == "t0ken"
    assert (await ra.aio.ResilientCredential(blocking, settings=settings()).get_token("a")).token == "t0ken"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("just text", ra.ConfigurationError),
        (None, ra.ConfigurationError),
        (("t", time.time() - 5), ra.MalformedAnswer),
        (("t", (time.time() + 60) * 1000), ra.MalformedAnswer),
        (("t", float("nan")), ra.MalformedAnswer),
        ((b"t", time.time() + 60), ra.MalformedAnswer),
    ],
)
def test_what_is_no_valid_token_is_told_and_takes_no_valid_ones_place(settings, clock, answer, kind):
    """A function that goes wrong later doesn't spoil what is held."""
    answers = [("good", time.time() + 3600)]
    credential = ra.ResilientCredential(lambda _: answers[-1], settings=settings())
    assert credential.get_token("a").token == "good"
    answers.append(answer)
    clock.skip(3000)
    time.sleep(0.05)
    assert credential.get_token("a").token == "good"
    with pytest.raises(kind):
        credential.get_token("b")


def test_a_denial_is_both_ours_and_azure_cores(idp, app_at, scope):
    """The pipeline stops retrying on it, a chain ends at it."""
    idp.deny("client_credentials", "invalid_client")
    credential = ra.ResilientCredential(app_at(idp))
    with pytest.raises(ClientAuthenticationError) as caught:
        credential.get_token(scope)
    assert isinstance(caught.value, ra.TokenDenied)
    assert not isinstance(caught.value, CredentialUnavailableError)
    assert caught.value.error == "invalid_client"
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is ra.TokenDenied
    assert str(copy) == str(caught.value)


def test_a_chain_goes_on_when_the_provider_is_unavailable(idp, app_at, scope):
    """azure-identity's chains ask the next one, and `except` clauses of ours and of requests' still catch it."""
    idp.fail(Fault.refuse())
    credential = ra.ResilientCredential(app_at(idp))

    class Other:
        def get_token(self, *_, **__):
            return AccessToken("other", int(time.time()) + 3600)

    with ra.wait_at_most(0.5):
        with pytest.raises(CredentialUnavailableError) as caught:
            credential.get_token(scope)
        assert isinstance(caught.value, ra.ProviderUnavailable)
        assert caught.value.message
        assert ChainedTokenCredential(credential, Other()).get_token(scope).token == "other"
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), ra.ProviderUnavailable)


def test_claims_drop_what_is_held_and_go_along(idp, app_at, scope):
    """After the challenge nobody is served the refused token (G17)."""
    credential = ra.ResilientCredential(app_at(idp, client_capabilities=["cp1"]))
    refused = credential.get_token(scope).token
    claims = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'
    fresh = credential.get_token(scope, claims=claims).token
    assert fresh != refused
    assert credential.get_token(scope).token == fresh
    assert credential.get_token_info(scope).token == fresh
    assert len(token_calls(idp)) == 2


def test_cae_and_tenants_have_tokens_of_their_own(idp, app_at, scope):
    """They are part of the key, and reach the provider."""
    credential = ra.ResilientCredential(app_at(idp), additionally_allowed_tenants=["fabrikam"])
    plain = credential.get_token(scope).token
    cae = credential.get_token(scope, enable_cae=True).token
    there = credential.get_token(scope, tenant_id="fabrikam").token
    assert len({plain, cae, there}) == 3
    assert idp.ledger.lookup(cae).cae
    assert not idp.ledger.lookup(plain).cae
    assert credential.get_token_info(scope, options={"enable_cae": True}).token == cae
    assert credential.get_token(scope, tenant_id="contoso").token == plain
    assert credential.get_token(scope).token == plain
    with pytest.raises(ra.ConfigurationError, match="additionally_allowed_tenants"):
        credential.get_token(scope, tenant_id="elsewhere")


def test_a_users_token_is_had_by_account(idp, settings):
    """The silent flow, and a clear denial when it has nothing to offer."""
    app = ra.msal.PublicClientApplication("desktop", authority=idp.authority("contoso"), instance_discovery=False,
                                          verify=idp.ca_file, resilience=settings())  # fmt: skip
    flow = app.initiate_auth_code_flow(["api://x/read"], redirect_uri="http://localhost/back",
                                       response_mode="form_post")  # fmt: skip
    app.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], "ann@contoso.com"))
    (account,) = app.get_accounts()
    credential = ra.ResilientCredential(app, account=account)
    token = credential.get_token("api://x/read").token
    assert idp.ledger.lookup(token) is not None
    assert credential.get_token("api://x/read", enable_cae=True).token != token
    app.remove_account(account)
    with pytest.raises(CredentialUnavailableError) as caught:
        credential.get_token("api://x/read")
    assert caught.value.error == "interaction_required"
    with pytest.raises(ra.ConfigurationError, match="account"):
        ra.ResilientCredential(app)


def test_a_removed_token_is_not_served_from_what_is_ready(idp, app_at, scope):
    """What the application forgets, the credential forgets."""
    app = app_at(idp)
    credential = ra.ResilientCredential(app)
    first = credential.get_token(scope).token
    app.remove_tokens_for_client()
    second = credential.get_token(scope).token
    assert second != first
    app.token_cache = plain_msal.TokenCache()
    assert credential.get_token(scope).token not in (first, second)


def test_invalidate_forgets_this_token_and_no_other(idp, app_at, scope):
    """Compare and swap: a late 401 leaves the successor alone."""
    credential = ra.ResilientCredential(app_at(idp))
    first = credential.get_token(scope).token
    credential.invalidate(first)
    second = credential.get_token(scope).token
    assert second != first
    credential.invalidate(first)
    assert credential.get_token(scope).token == second
    assert len(token_calls(idp)) == 2


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda c: c.get_token(), "scopes"),
        (lambda c: c.get_token(7), "scopes"),
        (lambda c: c.get_token(["a"]), r"\*scopes"),
        (lambda c: c.get_token(""), "scopes"),
        (lambda c: c.get_token("a", tenant_id=7), "tenant_id"),
        (lambda c: c.get_token("a", tenant_id="a/b"), "tenant_id"),
        (lambda c: c.get_token("a", claims={"a": 1}), "claims"),
        (lambda c: c.get_token("a", claims="not json"), "claims"),
        (lambda c: c.get_token("a", enable_cae="yes"), "enable_cae"),
        (lambda c: c.get_token_info("a", options=[1]), "options"),
        (lambda c: c.get_token_info("a", options={"tenant_id": 7}), "tenant_id"),
        (lambda c: c.invalidate(None), "token"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(settings, call, named):
    """Nobody is asked."""
    asked = []
    credential = ra.ResilientCredential(lambda scopes: asked.append(scopes), settings=settings())
    with pytest.raises(ra.ConfigurationError, match=named):
        call(credential)
    assert asked == []


@pytest.mark.parametrize("make", [ra.ResilientCredential, ra.aio.ResilientCredential])
@pytest.mark.parametrize(
    ("sources", "options", "named"),
    [
        ((), {}, "sources"),
        ((7,), {}, r"sources\[0\]"),
        ((lambda s: s, "x"), {}, r"sources\[1\]"),
        ((ClientSecretCredential,), {}, "class"),
        ((lambda s: s,), {"settings": {}}, "settings"),
        ((lambda s: s,), {"account": "ann"}, "account"),
        ((lambda s: s, lambda s: s), {"failover_after": 0}, "failover_after"),
        ((lambda s: s, lambda s: s), {"failover_after": "1"}, "failover_after"),
        ((lambda s: s,), {"failover_after": 1.0}, "failover_after has no effect"),
        ((lambda s: s,), {"account": {"home_account_id": "a.b"}}, "account has no effect"),
        ((lambda s: s,), {"additionally_allowed_tenants": ["*"]}, "additionally_allowed_tenants has no effect"),
        ((lambda s: s,), {"resilience": ra.Settings()}, "resilience is called settings here"),
        ((lambda s: s,), {"additionally_allowed_tenants": "contoso"}, "additionally_allowed_tenants"),
        ((lambda s: s,), {"additionally_allowed_tenants": [7]}, "additionally_allowed_tenants"),
        ((lambda s: s,), {"additionally_allowed_tenants": None}, "additionally_allowed_tenants"),
    ],
)
def test_a_wrong_construction_is_named(make, sources, options, named):
    """With the argument and the fix."""
    with pytest.raises(ra.ConfigurationError, match=named):
        make(*sources, **options)


def test_an_option_that_an_application_has_no_use_for_is_refused(idp, app_at, settings):
    """Its settings are its own, and B2C knows no other tenants."""
    with pytest.raises(ra.ConfigurationError, match="settings has no effect: every source is resilient already"):
        ra.ResilientCredential(app_at(idp), settings=settings())
    b2c = app_at(idp, authority=f"{idp.authority('contoso.onmicrosoft.com')}/b2c_1_signin")
    with pytest.raises(ra.ConfigurationError, match="additionally_allowed_tenants has no effect"):
        ra.ResilientCredential(b2c, additionally_allowed_tenants=["*"])


def test_what_is_awaited_has_no_place_in_the_blocking_one(idp):
    """It says where it has."""

    async def awaited(scopes):
        return None

    with pytest.raises(ra.ConfigurationError, match=r"aio\.ResilientCredential"):
        ra.ResilientCredential(awaited)


def test_no_secret_is_told_and_no_pickle_made(idp, app_at, scope, caplog):
    """Neither by repr, nor in logs, events or errors."""
    caplog.set_level(logging.DEBUG, logger="resilient_auth")
    caplog.set_level(logging.DEBUG, logger="msal")
    with capture_events() as told:
        credential = ra.ResilientCredential(app_at(idp))
        token = credential.get_token(scope).token
    shown = f"{credential!r} {credential._core!r} {caplog.text} {told}"
    assert token not in shown
    assert "s3cret-of-the-daemon" not in shown
    for each in (credential, ra.aio.ResilientCredential(lambda s: s)):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(each)


def test_a_function_of_the_owners_that_is_wrong_is_shown_as_it_is(settings):
    """A bug isn't an outage: it isn't hidden, and opens no breaker."""

    def buggy(scopes):
        raise KeyError("oops")

    credential = ra.ResilientCredential(buggy, settings=settings())
    for _ in range(20):
        with pytest.raises(KeyError):
            credential.get_token("a")


def test_a_function_that_fails_on_the_network_opens_its_breaker(settings, clock):
    """Refused at once then, and asked again when the break is over."""
    asked = []

    def dead(scopes):
        asked.append(scopes)
        raise ConnectionResetError

    credential = ra.ResilientCredential(dead, settings=settings())
    with capture_events() as told:
        for _ in range(40):
            clock.skip(6)
            with pytest.raises(ra.ProviderUnavailable):
                credential.get_token("a")
    assert told.of(events.BreakerOpened)
    assert len(asked) < 40


def test_a_closed_credential_says_so(idp, app_at, scope):
    """And the application stays open for its owner."""
    app = app_at(idp)
    with ra.ResilientCredential(app) as credential:
        credential.get_token(scope)
    with pytest.raises(ra.Closed):
        credential.get_token(scope)
    assert "access_token" in app.acquire_token_for_client([scope])
