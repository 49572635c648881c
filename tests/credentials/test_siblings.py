"""A plain MSAL application gives tokens of other tenants and under CAE too, and is left as it was."""

from __future__ import annotations

import gc
import threading

import msal
import pytest
import requests

import resilient_auth as ra
from resilient_auth._credentials.tenants import MOST_SIBLINGS
from resilient_auth.emulator import Fault

FAR = "https://fabrikam.example/.default"


@pytest.fixture
def plain(idp):
    """Build MSAL's own confidential application."""

    def build(**options):
        about = {"authority": idp.authority("contoso"), "instance_discovery": False, "verify": idp.ca_file}
        return msal.ConfidentialClientApplication("daemon", "s3cret", **about | options)

    return build


def test_a_plain_daemon_has_tokens_under_cae_and_of_other_tenants(idp, plain, scope, settings):
    """Each is kept apart, asked for once, and what the owner holds is the application's own token alone."""
    app = plain(app_name="sample", app_version="1.2")
    credential = ra.ResilientCredential(app, settings=settings(), additionally_allowed_tenants=["*"])
    own, cae = credential.get_token(scope).token, credential.get_token(scope, enable_cae=True).token
    far = credential.get_token(scope, tenant_id="fabrikam").token
    assert len({own, cae, far}) == 3
    assert idp.ledger.lookup(cae).cae
    assert not idp.ledger.lookup(own).cae
    assert not idp.ledger.lookup(far).cae
    for _ in range(3):
        assert credential.get_token(scope, enable_cae=True).token == cae
        assert credential.get_token_info(scope, options={"tenant_id": "fabrikam"}).token == far
    assert len(idp.ledger.token_calls()) == 3
    assert [entry["secret"] for entry in app.token_cache.search("AccessToken")] == [own]
    credential.close()
    assert app.acquire_token_for_client([scope])["access_token"] == own


def test_what_a_sibling_holds_is_served_through_an_outage(idp, plain, scope, settings, clock):
    """It is as resilient as the application around the plain one."""
    credential = ra.ResilientCredential(plain(), settings=settings())
    cae = credential.get_token(scope, enable_cae=True).token
    idp.fail(Fault.http_503())
    clock.skip(3500)
    assert credential.get_token(scope, enable_cae=True).token == cae
    with pytest.raises(ra.ProviderUnavailable):
        credential.get_token(FAR, enable_cae=True)


def test_a_plain_daemon_that_declares_cp1_itself_needs_no_sibling(idp, plain, scope, settings):
    """One token for both."""
    credential = ra.ResilientCredential(plain(client_capabilities=["cp1"]), settings=settings())
    own = credential.get_token(scope).token
    assert idp.ledger.lookup(own).cae
    assert credential.get_token(scope, enable_cae=True).token == own
    assert len(idp.ledger.token_calls()) == 1


def test_a_siblings_wire_is_the_owners(idp, plain, scope, settings):
    """Its session is asked, with its certificates and headers."""
    session = requests.Session()
    session.verify = idp.ca_file
    seen = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.url))
    app = plain(http_client=session, verify=True)
    credential = ra.ResilientCredential(app, settings=settings(), additionally_allowed_tenants=["fabrikam"])
    seen.clear()
    assert credential.get_token(scope, tenant_id="fabrikam").token
    assert any("/fabrikam/" in url for url in seen)
    session.close()


def test_a_plain_desktops_user_has_tokens_under_cae(idp, scope, settings):
    """By the refresh token in the shared cache, whose user's removal takes them along."""
    app = msal.PublicClientApplication(
        "desktop", authority=idp.authority("contoso"), instance_discovery=False, verify=idp.ca_file
    )
    flow = app.initiate_auth_code_flow(
        ["api://x/read"], redirect_uri="http://localhost/back", response_mode="form_post"
    )
    own = app.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], "ann@contoso.com"))["access_token"]
    (account,) = app.get_accounts()
    credential = ra.ResilientCredential(app, account=account, settings=settings())
    assert credential.get_token("api://x/read").token == own
    cae = credential.get_token("api://x/read", enable_cae=True).token
    assert idp.ledger.lookup(cae).cae
    assert credential.get_token("api://x/read", enable_cae=True).token == cae
    app.token_cache = msal.TokenCache()
    for options in ({}, {"enable_cae": True}):
        with pytest.raises(ra.TokenDenied) as caught:
            credential.get_token("api://x/read", **options)
        assert caught.value.error == "interaction_required"


def test_claims_and_invalidation_reach_the_sibling_that_holds_the_token(idp, plain, scope, settings):
    """And no other's token."""
    credential = ra.ResilientCredential(plain(), settings=settings())
    own, cae = credential.get_token(scope).token, credential.get_token(scope, enable_cae=True).token
    challenged = credential.get_token(scope, enable_cae=True, claims='{"access_token":{"nbf":{"value":"1"}}}').token
    assert challenged not in (own, cae)
    assert credential.get_token(scope, enable_cae=True).token == challenged
    credential.invalidate(challenged)
    assert credential.get_token(scope, enable_cae=True).token not in (own, cae, challenged)
    assert credential.get_token(scope).token == own


def test_sixty_four_threads_make_one_sibling_and_one_exchange(idp, plain, scope, settings, together):
    """Where there was none before."""
    credential = ra.ResilientCredential(plain(), settings=settings())
    got = together(64, lambda: credential.get_token(scope, enable_cae=True).token)
    assert len(set(got)) == 1
    assert len(idp.ledger.token_calls()) == 1


def test_a_store_keeps_tokens_under_cae_apart(idp, app_at, scope, settings, tmp_path):
    """What another process stored for callers without CAE isn't served to those with it."""

    def stored():
        return app_at(
            idp,
            resilience=settings(
                store=ra.FileStore(
                    tmp_path / "store", key="Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2Q"
                )
            ),
        )

    own = ra.ResilientCredential(stored()).get_token(scope).token
    cae = ra.ResilientCredential(stored()).get_token(scope, enable_cae=True).token
    assert cae != own
    assert idp.ledger.lookup(cae).cae


def living_siblings(credential):
    gc.collect()
    return len(list(credential._core._sources[0]._siblings))


def test_any_number_of_tenants_leaves_a_bounded_number_of_applications(idp, app_at, scope):
    """A challenge may name any tenant: the one asked for longest ago is let go, and had again when it is wanted."""
    credential = ra.ResilientCredential(app_at(idp), additionally_allowed_tenants=["*"])
    first = credential.get_token(scope, tenant_id="tenant-0.example").token
    siblings = credential._core._sources[0]._siblings
    for n in range(1, MOST_SIBLINGS):
        siblings.missing(f"tenant-{n}.example", cae=False)()
    for n in range(MOST_SIBLINGS, MOST_SIBLINGS + 40):
        credential.get_token(scope, tenant_id=f"tenant-{n}.example")
    credential._ready.clear()
    assert living_siblings(credential) == MOST_SIBLINGS
    before = len(idp.ledger.token_calls())
    last = credential.get_token(scope, tenant_id=f"tenant-{MOST_SIBLINGS + 39}.example")
    assert len(idp.ledger.token_calls()) == before
    again = credential.get_token(scope, tenant_id="tenant-0.example").token
    assert len({first, last.token, again}) == 3
    assert len(idp.ledger.token_calls()) == before + 1
    credential.close()


def test_a_sibling_that_is_let_go_while_it_is_asked_goes_on(idp, app_at, scope, eventually, settings):
    """Its caller is served, what is held is served on, and a refused token is forgotten there too."""
    patient = settings(wait=25.0, exchange_deadline=20.0, attempt_timeout=20.0)  # so many others take their time
    credential = ra.ResilientCredential(app_at(idp, resilience=patient), additionally_allowed_tenants=["*"])
    siblings = credential._core._sources[0]._siblings
    idp.fail(Fault.slow(1.0), "token", count=1)
    got = []
    waiting = threading.Thread(target=lambda: got.append(credential.get_token(scope, tenant_id="slow.example").token))
    waiting.start()
    eventually(lambda: any(call.endpoint == "token" for call in idp.ledger.calls))
    for n in range(MOST_SIBLINGS):
        siblings.missing(f"tenant-{n}.example", cae=False)()
    assert ("slow.example", False) not in siblings._made
    waiting.join()
    assert credential.get_token(scope, tenant_id="slow.example").token == got[0]
    gc.collect()
    credential.invalidate(got[0])
    assert credential.get_token(scope, tenant_id="slow.example").token != got[0]
    credential.close()
    with pytest.raises(ra.Closed):
        credential.get_token(scope, tenant_id="slow.example")
