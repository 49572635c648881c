"""What is wrong in a call or a setting is told by name, before anybody is asked."""

from __future__ import annotations

from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator

SCOPE = ["https://graph.microsoft.com/.default"]
SCOPES: list[tuple[Any, str]] = [
    ("https://graph.microsoft.com/.default", r"scopes must be a list.*write \['https"),
    (b"https://graph.microsoft.com/.default", "scopes must be a list"),
    ([], "scopes must not be empty"),
    ((), "scopes must not be empty"),
    (["openid"], "scopes must not hold openid"),
    (["offline_access", "User.Read"], "scopes must not hold offline_access"),
    ([1], "scopes must hold non-empty strings"),
    ([None], "scopes must hold non-empty strings"),
    ([""], "scopes must hold non-empty strings"),
    ([" x "], "scopes must hold non-empty strings"),
    ([["x"]], "scopes must hold non-empty strings"),
    (None, "scopes must be a list"),
    (5, "scopes must be a list"),
    ({"x": 1}, "scopes must be a list"),
]


@pytest.mark.parametrize(("scopes", "told"), SCOPES, ids=[repr(s)[:30] for s, _ in SCOPES])
def test_wrong_scopes_are_told(idp: Emulator, daemon, scopes, told):
    """Every way in which scopes are wrong is named, by every flow that takes them."""
    app = daemon()
    idp.ledger.clear()
    account = {"home_account_id": "a.b"}
    for call in (
        lambda: app.acquire_token_for_client(scopes),
        lambda: app.acquire_token_silent(scopes, account),
        lambda: app.acquire_token_silent_with_error(scopes, account),
        lambda: app.acquire_token_on_behalf_of("assertion", scopes),
        lambda: app.keep_fresh(scopes),
    ):
        with pytest.raises(ra.ConfigurationError, match=told) as caught:
            call()
        assert isinstance(caught.value, ValueError)
    assert not idp.ledger.calls


@pytest.mark.parametrize("scopes", ["User.Read", ["openid"], [1], 5], ids=repr)
def test_wrong_scopes_are_told_by_flows_that_take_an_empty_list(idp: Emulator, desktop, daemon, scopes):
    """Flows for which MSAL takes an empty list refuse the rest."""
    app, confidential = desktop(), daemon()
    idp.ledger.clear()
    for call in (
        lambda: app.acquire_token_by_refresh_token("rt", scopes),
        lambda: app.acquire_token_by_username_password("u@x", "p", scopes),
        lambda: app.acquire_token_by_authorization_code("code", scopes),
        lambda: app.initiate_device_flow(scopes),
        lambda: app.acquire_token_interactive(scopes),
        lambda: confidential.acquire_token_by_user_federated_identity_credential(scopes, "a.b.c", username="u@x"),
    ):
        with pytest.raises(ra.ConfigurationError, match="scopes"):
            call()
    assert not idp.ledger.calls


@pytest.mark.parametrize(
    ("authority", "told"),
    [
        ("http://login.microsoftonline.com/contoso", "authority must start with https://"),
        ("https://login.microsoftonline.com", "authority must name a tenant"),
        ("https://login.microsoftonline.com/", "authority must name a tenant"),
        ("login.microsoftonline.com/contoso", "authority must be a URL"),
        ("contoso", "authority must be a URL"),
        ("https://[nonsense/contoso", "authority must be a URL"),
        ("ftp://x/contoso", "authority must start with https://"),
        (5, "authority must be a URL"),
    ],
)
@pytest.mark.parametrize(
    "kind", [msal.ConfidentialClientApplication, msal.PublicClientApplication], ids=["conf", "pub"]
)
def test_a_wrong_authority_is_told(kind, authority, told):
    """An authority that can't be one is told with an example of a right one."""
    with pytest.raises(ra.ConfigurationError, match=told):
        kind("d", authority=authority)


def test_a_wrong_oidc_authority_is_told_by_its_own_name():
    """The argument that is wrong is the one that is named."""
    with pytest.raises(ra.ConfigurationError, match=r"^oidc_authority must start with https://"):
        msal.PublicClientApplication("d", oidc_authority="http://x/y")


@pytest.mark.parametrize("resilience", [{"wait": 5}, 5, "fast", ra.Settings])
def test_resilience_must_be_settings(idp: Emulator, daemon, resilience):
    """A dict in place of Settings is told."""
    with pytest.raises(ra.ConfigurationError, match=r"resilience must be Settings\(...\)"):
        daemon(resilience=resilience)
    assert not idp.ledger.calls


@pytest.mark.parametrize(
    "make",
    [
        lambda **named: msal.ConfidentialClientApplication("d", client_credential="s", **named),
        lambda **named: msal.PublicClientApplication("d", **named),
        lambda **named: msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), **named),
        lambda **named: ra.wrap(None, **named),
        lambda **named: ra.aio.wrap(None, **named),
    ],
    ids=["confidential", "public", "managed-identity", "wrap", "aio-wrap"],
)
def test_settings_are_called_resilience_where_the_signature_is_msals(make):
    """One keyword for one thing; the other one isn't dropped silently."""
    with pytest.raises(ra.ConfigurationError, match="settings is called resilience here"):
        make(settings=ra.Settings())


@pytest.mark.parametrize(
    "make",
    [
        lambda **named: ra.ClaimsVerifier(issuer="https://idp.example", audience="a", **named),
        lambda **named: ra.ClaimsVerifier.for_entra("organizations", "a", **named),
        lambda **named: ra.aio.ClaimsVerifier(issuer="https://idp.example", audience="a", **named),
        lambda **named: ra.ResilientCredential(lambda scopes: None, **named),
        lambda **named: ra.aio.ResilientCredential(lambda scopes: None, **named),
    ],
    ids=["verifier", "for-entra", "aio-verifier", "credential", "aio-credential"],
)
def test_settings_are_called_settings_in_what_is_ours(make):
    """The other way round alike."""
    with pytest.raises(ra.ConfigurationError, match="resilience is called settings here"):
        make(resilience=ra.Settings())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"wait": 0}, "wait must be from 0.01"),
        ({"wait": -1}, "wait"),
        ({"wait": float("nan")}, "wait must be a number"),
        ({"wait": "5"}, "wait must be a number, not '5'"),
        ({"wait": True}, "wait must be a number"),
        ({"attempt_timeout": 60}, "attempt_timeout of 60 s exceeds exchange_deadline"),
        ({"connect_timeout": 20}, "connect_timeout of 20 s exceeds attempt_timeout of 10 s"),
        ({"workers_per_authority": 0}, "workers_per_authority"),
        ({"workers_per_authority": 1.5}, "workers_per_authority must be a whole number"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"discovery_refresh": 1}, "discovery_refresh"),
        ({"keep_fresh": "x"}, "keep_fresh must be a tuple of tuples"),
        ({"keep_fresh": ("x",)}, "keep_fresh must be a tuple of tuples"),
        ({"keep_fresh": ((),)}, "keep_fresh must be a tuple of tuples"),
        ({"retry": {"attempts": 3}}, r"retry must be RetryOptions\(...\)"),
        ({"breaker": None}, r"breaker must be BreakerOptions\(...\)"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_told(options, told):
    """Each option that can't hold is refused at construction, with its name."""
    with pytest.raises(ra.ConfigurationError, match=told):
        ra.Settings(**options)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (ra.RetryOptions, {"first_delay": 1}, "first_delay must be from 5"),
        (ra.RetryOptions, {"attempts": 0}, "attempts"),
        (
            ra.RetryOptions,
            {"first_delay": 20, "longest_delay": 10},
            "first_delay of 20 s exceeds longest_delay of 10 s",
        ),
        (ra.BreakerOptions, {"failure_rate": 0}, "failure_rate"),
        (ra.BreakerOptions, {"urgent_break": (9, 7)}, "urgent_break"),
        (ra.FreshnessOptions, {"due_fraction": 1}, "due_fraction"),
        (ra.FallbackOptions, {"grace": 7200, "grace_outage": 60}, "grace of 7200 s exceeds grace_outage"),
    ],
    ids=str,
)
def test_an_option_out_of_range_is_told(kind, options, told):
    """So is each option of a group."""
    with pytest.raises(ra.ConfigurationError, match=told):
        kind(**options)


def test_a_closed_application_says_so(idp: Emulator, daemon, desktop):
    """Every flow of a closed application raises `Closed`, and nobody is asked."""
    app, public = daemon(), desktop()
    app.acquire_token_for_client(SCOPE)
    app.close()
    public.close()
    app.close()
    idp.ledger.clear()
    for call in (
        lambda: app.acquire_token_for_client(SCOPE),
        lambda: app.acquire_token_silent(SCOPE, {"home_account_id": "a.b"}),
        lambda: app.acquire_token_on_behalf_of("a", SCOPE),
        lambda: app.acquire_token_by_refresh_token("a", SCOPE),
        lambda: app.keep_fresh(SCOPE),
        lambda: public.initiate_device_flow(SCOPE),
        lambda: public.acquire_token_by_username_password("u@x", "p", SCOPE),
    ):
        with pytest.raises(ra.Closed, match="closed"):
            call()
    assert not idp.ledger.calls


def test_other_arguments_are_told(idp: Emulator, daemon, desktop):
    """What else can be wrong is named too."""
    app, public = daemon(), desktop()
    idp.ledger.clear()
    with pytest.raises(ra.ConfigurationError, match="force_refresh"):
        app.acquire_token_for_client(SCOPE, force_refresh=True)
    with pytest.raises(ra.ConfigurationError, match="user_assertion"):
        app.acquire_token_on_behalf_of("", SCOPE)
    with pytest.raises(ra.ConfigurationError, match="user_assertion"):
        app.acquire_token_on_behalf_of(None, SCOPE)
    with pytest.raises(ra.ConfigurationError, match="fmi_path"):
        app.acquire_token_for_client(SCOPE, fmi_path=5)
    with pytest.raises(ra.ConfigurationError, match="account"):
        public.keep_fresh(SCOPE, None)
    with pytest.raises(ra.ConfigurationError, match="seconds"), ra.wait_at_most(0):
        pass
    with pytest.raises(TypeError, match="listener"):
        ra.subscribe(5)
    assert not idp.ledger.calls


@pytest.mark.parametrize(
    "account", ["ann@contoso.com", ["ann"], 5, object(), True], ids=lambda account: type(account).__name__
)
def test_an_account_that_is_none_is_told_by_its_name(idp: Emulator, desktop, account):
    """By each method that takes one, and nobody is asked; so are a name and claims that aren't texts."""
    app = desktop()
    idp.ledger.clear()
    for call in (
        lambda: app.acquire_token_silent(SCOPE, account),
        lambda: app.acquire_token_silent_with_error(SCOPE, account),
        lambda: app.remove_account(account),
        lambda: app.keep_fresh(SCOPE, account),
    ):
        with pytest.raises(ra.ConfigurationError, match=r"^account must be one that get_accounts returned, not "):
            call()
    with pytest.raises(ra.ConfigurationError, match="username must be a text"):
        app.get_accounts(5)
    with pytest.raises(ra.ConfigurationError, match="claims_challenge must be the JSON text of a challenge, not list"):
        app.acquire_token_silent(SCOPE, {"home_account_id": "a.b"}, claims_challenge=["x"])
    assert not idp.ledger.calls


def test_an_account_that_is_no_dict_is_told_or_raises_what_msal_raises(idp: Emulator, desktop, plain_desktop):
    """A user name in place of an account never gets anybody's token."""
    for app in (plain_desktop(), desktop()):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            app.acquire_token_silent(["https://graph.microsoft.com/User.Read"], "ann@contoso.com")
