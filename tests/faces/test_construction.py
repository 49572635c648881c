"""Applications that are made while the provider is down, or at a provider of another kind."""

from __future__ import annotations

import time
from typing import Any

import msal as plain_msal
import pytest
import requests
from msal.authority import AZURE_PUBLIC, AuthorityBuilder

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]
DOWN = {
    "refused": Fault.refuse(),
    "reset": Fault.reset(),
    "black hole": Fault.black_hole(),
    "trickle": Fault.trickle(),
    "503": Fault.http_503(),
    "503 page": Fault.http_503_html(),
    "429": Fault.http_429(),
    "portal": Fault.html_200(),
    "array": Fault.json_array(),
    "object": Fault.json_object(),
    "cut off": Fault.truncated_json(),
    "wrong length": Fault.wrong_content_length(),
    "no TLS": Fault.tls_failed(),
    "numbers": Fault.status(200, '{"authorization_endpoint": 1, "token_endpoint": 2}'),
    "plain http": Fault.status(
        200, '{"authorization_endpoint": "http://evil/a", "token_endpoint": "http://evil/t", "issuer": "x"}'
    ),
}
down = pytest.mark.parametrize("fault", DOWN.values(), ids=DOWN.keys())


@down
def test_an_application_is_made_while_the_provider_is_down(idp: Emulator, daemon, settings, clock, eventually, fault):
    """The constructor returns in time, and a token comes as soon as the provider is up."""
    idp.fail(fault)
    begun = time.monotonic()
    app = daemon(tenant="down-at-first", resilience=settings(discovery_wait=0.3, wait=1.0))
    assert time.monotonic() - begun < 0.3 + 0.25
    assert isinstance(app, plain_msal.ConfidentialClientApplication)
    idp.heal()
    clock.skip(130)

    def works() -> bool:
        clock.skip(15)
        try:
            return idp.ledger.is_valid(app.acquire_token_for_client(SCOPE)["access_token"])
        except ra.ProviderUnavailable:
            return False

    eventually(works)
    assert app.authority.token_endpoint.startswith(idp.url)


def test_what_the_provider_must_tell_is_a_typed_error_while_it_is_down(idp: Emulator, desktop, settings, clock):
    """Attributes and methods that need the discovery document say what is wrong, and work later."""
    idp.fail(Fault.http_503())
    app = desktop(tenant="typed-error", resilience=settings(discovery_wait=0.3))
    for needs_document in (
        lambda: app.authority,
        lambda: app.client,
        lambda: app.initiate_auth_code_flow(SCOPE, redirect_uri="http://localhost/"),
        lambda: app.get_authorization_request_url(SCOPE),
        lambda: app.initiate_device_flow(SCOPE),
    ):
        with pytest.raises(ra.ProviderUnavailable) as caught:
            needs_document()
        assert isinstance(caught.value, requests.RequestException)
    assert app.client_id == "desktop"
    assert app.token_cache is not None
    assert app.get_accounts() == []
    idp.heal()
    clock.skip(60)
    assert app.authority.tenant
    assert app.get_accounts() == []
    with pytest.raises(AttributeError):
        app.no_such_attribute  # noqa: B018


def test_a_tenant_that_does_not_exist_stays_a_value_error(daemon, plain_daemon):
    """A wrong tenant is the owner's mistake and not an outage: MSAL's error, with MSAL's words."""
    with pytest.raises(ValueError, match="Unable to get authority configuration") as plain:
        plain_daemon(tenant="nonexistent")
    with pytest.raises(ValueError, match="Unable to get authority configuration") as ours:
        daemon(tenant="nonexistent")
    assert not isinstance(ours.value, ra.ResilientAuthError)
    assert str(ours.value) == str(plain.value)


def test_a_second_application_is_made_from_the_last_known_good_document(idp: Emulator, daemon, clock):
    """What one application has learned serves the next one while the provider is down (G14, G15)."""
    daemon(tenant="known-before").authority  # noqa: B018
    idp.fail(Fault.black_hole(), "discovery")
    clock.skip(13 * 3600)
    begun = time.monotonic()
    app = daemon("another", tenant="known-before")
    assert app.acquire_token_for_client(SCOPE)["access_token"]
    assert time.monotonic() - begun < 0.3
    idp.heal()


def test_an_old_document_is_renewed_behind(idp: Emulator, daemon, clock, eventually):
    """A document older than `discovery_refresh` is fetched anew, and nobody waits for it."""
    daemon(tenant="grows-old").authority  # noqa: B018
    idp.ledger.clear()
    daemon("b", tenant="grows-old").authority  # noqa: B018
    assert not idp.ledger.calls
    clock.skip(13 * 3600)
    daemon("c", tenant="grows-old").authority  # noqa: B018
    eventually(lambda: [call for call in idp.ledger.calls if call.endpoint == "discovery"])


def test_a_bad_document_does_not_replace_a_good_one(idp: Emulator, daemon, clock, eventually):
    """A captive portal's page in place of the document changes nothing."""
    daemon(tenant="stays-good").authority  # noqa: B018
    clock.skip(13 * 3600)
    idp.fail(Fault.html_200())
    daemon("b", tenant="stays-good").authority  # noqa: B018
    eventually(lambda: any(call.fault for call in idp.ledger.calls))
    idp.heal()
    assert daemon("c", tenant="stays-good").acquire_token_for_client(SCOPE)["access_token"]


AUTHORITIES = {
    "v2": {"authority": "https://login.microsoftonline.com/contoso"},
    "builder": {"authority": AuthorityBuilder(AZURE_PUBLIC, "contoso")},
    "china": {"authority": "https://login.partner.microsoftonline.cn/contoso"},
    "b2c": {"authority": "https://contoso.b2clogin.com/contoso.onmicrosoft.com/B2C_1_signin"},
    "b2c tfp": {"authority": "https://contoso.b2clogin.com/tfp/contoso.onmicrosoft.com/B2C_1_signin"},
    "ciam": {"authority": "https://contoso.ciamlogin.com/contoso.onmicrosoft.com"},
    "ciam without a path": {"authority": "https://contoso.ciamlogin.com"},
    "oidc": {"oidc_authority": "https://contoso.ciamlogin.com/contoso/v2.0", "authority": None},
    "any oidc": {"oidc_authority": "https://id.example.com/realms/x", "authority": None},
    "adfs": {"authority": "https://adfs.contoso.com/adfs"},
    "unknown to Microsoft": {"authority": "https://sts.windows.net/contoso"},
}


@pytest.mark.parametrize("name", AUTHORITIES)
def test_every_kind_of_authority_works_as_in_msal(idp: Emulator, proxied, settings, name):
    """Whatever authority MSAL takes is taken, and gives what MSAL gives."""
    arguments = {k: v for k, v in (proxied | AUTHORITIES[name]).items() if v is not None}
    arguments["client_credential"] = "secret"
    plain = plain_msal.ConfidentialClientApplication("daemon", **arguments)
    theirs = plain.acquire_token_for_client(SCOPE)
    with msal.ConfidentialClientApplication("daemon", **arguments, resilience=settings()) as app:
        ours = app.acquire_token_for_client(SCOPE)
        again = app.acquire_token_for_client(SCOPE)
        assert vars_of(app.authority) == vars_of(plain.authority)
    assert shape(ours) == shape(theirs)
    assert again["access_token"] == ours["access_token"]
    assert again["token_source"] == "cache"


def vars_of(authority: Any) -> dict[str, Any]:
    """Return what an authority knows, its wire excepted."""
    return {k: v for k, v in vars(authority).items() if k != "_http_client"}


def shape(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result's keys and the types of their values."""
    return {k: type(v) for k, v in result.items()}


def test_an_authority_unknown_to_microsoft_is_refused_as_in_msal(proxied, settings):
    """Instance discovery still protects from a made-up authority."""
    arguments = proxied | {"authority": "https://login.evil.example/contoso", "client_credential": "s"}
    with pytest.raises(ValueError, match="invalid_instance"):
        plain_msal.ConfidentialClientApplication("daemon", **arguments)
    with pytest.raises(ValueError, match="invalid_instance"):
        msal.ConfidentialClientApplication("daemon", **arguments, resilience=settings())


def test_a_ca_file_that_is_not_there_is_told_at_construction(idp: Emulator, daemon):
    """A wrong path in `verify` is the owner's mistake, and no outage of the provider."""
    with pytest.raises((ra.ConfigurationError, OSError)) as caught:
        daemon(tenant="no-ca", verify="/nowhere/ca.pem")
    assert "/nowhere/ca.pem" in str(caught.value)
    assert not idp.ledger.calls


def test_positional_arguments_are_taken_as_in_msal(idp: Emulator, plain_daemon):
    """The first arguments may come by position, as MSAL's signature has them."""
    with msal.ConfidentialClientApplication(
        "daemon", "secret", idp.authority("contoso"), instance_discovery=False, verify=idp.ca_file
    ) as app:
        assert app.acquire_token_for_client(SCOPE)["access_token"]
    with pytest.raises(TypeError, match="twice"):
        msal.ConfidentialClientApplication("daemon", "secret", client_credential="x")
    with pytest.raises(TypeError):
        msal.ConfidentialClientApplication("daemon", no_such_argument=1, authority=idp.authority("contoso"))


def test_a_subclass_of_ours_is_initialised_once(idp: Emulator, settings, clock):
    """A subclass with an initialiser and methods of its own works, made in an outage too."""
    made = []

    class Own(msal.ConfidentialClientApplication):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            super().__init__(*args, **kwargs)
            self.mine = "kept"

    idp.fail(Fault.http_503())
    app = Own(
        "daemon",
        "secret",
        idp.authority("own-subclass"),
        instance_discovery=False,
        verify=idp.ca_file,
        resilience=settings(discovery_wait=0.3),
    )
    idp.heal()
    clock.skip(60)
    assert app.acquire_token_for_client(SCOPE)["access_token"]
    assert app.mine == "kept"
    assert made == [app]
    app.close()
