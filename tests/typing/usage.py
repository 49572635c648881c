"""Typical uses, right and wrong, as type checkers see them. `make lint` checks this file; nothing runs it.

A wrong use says so to mypy and to pyright, and an ignored error that isn't there is an error itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, assert_type

import httpx
import msal as plain  # pyright: ignore[reportMissingTypeStubs]
from flask import Flask

import resilient_auth as ra
from resilient_auth import aio, callouts, events, msal, testing, verify
from resilient_auth.integrations import fastapi as in_fastapi
from resilient_auth.integrations import flask as in_flask
from resilient_auth.store import Backend

Answer = dict[str, Any]
SCOPES = ["https://graph.microsoft.com/.default"]


def the_drop_in(settings: ra.Settings, certificate: Mapping[str, str]) -> None:
    app = msal.ConfidentialClientApplication("id", client_credential="secret", resilience=settings)
    msal.ConfidentialClientApplication("id", "secret", "https://a", token_cache=msal.SerializableTokenCache())
    msal.ConfidentialClientApplication("id", client_credential=certificate, client_capabilities=["cp1"])
    msal.PublicClientApplication("id", enable_broker_on_windows=True)
    assert_type(app.acquire_token_for_client(SCOPES), Answer)
    assert_type(app.acquire_token_for_client(SCOPES, claims_challenge="{}"), Answer)
    assert_type(app.acquire_token_on_behalf_of("assertion", SCOPES), Answer)
    assert_type(app.acquire_token_silent(SCOPES, None), Answer | None)
    assert_type(app.get_accounts("ann@contoso.com"), list[Answer])
    app.remove_account(app.get_accounts()[0])
    app.keep_fresh(SCOPES)
    with app:
        pass

    msal.ConfidentialClientApplication("id", resilience="quick")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    msal.ConfidentialClientApplication("id", authorty="https://a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    msal.ConfidentialClientApplication("id", client_capabilities="cp1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    msal.ConfidentialClientApplication()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    msal.PublicClientApplication("id", enable_broker_on_windows="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.acquire_token_for_client("https://graph.microsoft.com/.default")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.acquire_token_for_client()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    app.acquire_token_for_clients(SCOPES)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    app.acquire_token_interactive(SCOPES)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    app.acquire_token_silent(SCOPES)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    app.acquire_token_silent(SCOPES, None)["access_token"]  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]


def an_application_that_was_built_elsewhere(settings: ra.Settings) -> None:
    confidential = ra.wrap(plain.ConfidentialClientApplication("id", "secret"), resilience=settings)
    assert_type(confidential.acquire_token_for_client(SCOPES), Answer)
    assert_type(confidential.acquire_token_silent(SCOPES, None), Answer | None)
    confidential.keep_fresh(SCOPES)
    confidential.close()
    named: msal.ConfidentialClientApplication = confidential
    takes_msals(named)
    public = ra.wrap(plain.PublicClientApplication("id"))
    assert_type(public.acquire_token_interactive(SCOPES, prompt="login"), Answer)
    assert_type(public.initiate_device_flow(SCOPES), Answer)
    machine = ra.wrap(plain.ManagedIdentityClient(plain.SystemAssignedManagedIdentity(), http_client=httpx.Client()))
    assert_type(machine.acquire_token_for_client(resource="https://vault.azure.net"), Answer)

    ra.wrap(confidential, settings=settings)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ra.wrap(confidential, resilience=1.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    confidential.acquire_token_for_client("scope")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    confidential.get_account()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    # To mypy, an application of MSAL's is no kind in particular.
    assert_type(public.initiate_auth_code_flow(SCOPES), Answer)
    ra.wrap("id")  # pyright: ignore[reportArgumentType, reportCallIssue]
    public.acquire_token_on_behalf_of("assertion", SCOPES)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    machine.acquire_token_for_client(SCOPES)  # pyright: ignore[reportCallIssue]


def takes_msals(app: plain.ClientApplication) -> None:
    """A function of somebody's that knows MSAL alone."""


async def asyncio_callers(settings: ra.Settings) -> None:
    app = aio.wrap(plain.ConfidentialClientApplication("id", "secret"), resilience=settings)
    assert_type(await app.acquire_token_for_client(SCOPES), Answer)
    assert_type(await app.acquire_token_silent(SCOPES, None, force_refresh=True), Answer | None)
    assert_type(await app.get_accounts(), list[Answer])
    assert_type(await app.get_authorization_request_url(SCOPES), str)
    app.keep_fresh(SCOPES)
    async with aio.wrap(msal.PublicClientApplication("id")) as public:
        await public.initiate_device_flow(SCOPES)
    machine = aio.wrap(msal.ManagedIdentityClient(plain.UserAssignedManagedIdentity(client_id="id")))
    assert_type(await machine.acquire_token_for_client(resource="https://vault.azure.net"), Answer)

    app.acquire_token_for_client(SCOPES)["access_token"]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    await app.acquire_token_silent("scope", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await app.get_account()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await machine.acquire_token_for_client(SCOPES)  # pyright: ignore[reportCallIssue]


def credentials_and_apis(app: msal.ConfidentialClientApplication) -> None:
    with ra.ResilientCredential(app) as credential:
        token = credential.get_token("https://graph.microsoft.com/.default")
        assert_type(token.token, str)
        assert_type(token.expires_on, int)
        client = ra.api_client("https://api.example", credential, "api://orders/.default")
        assert_type(client, httpx.Client)
        httpx.Client(auth=ra.BearerAuth(credential, "api://orders/.default"), transport=ra.ResilientTransport())

        credential.get_token(SCOPES)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ra.BearerAuth(credential, origin="https://api.example")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def tokens_that_arrive(token: str) -> None:
    verifier = ra.ClaimsVerifier.for_entra("contoso", audience="api://orders")
    try:
        claims = verifier.verify(token)
        assert_type(claims, ra.Claims)
    except ra.InvalidToken as error:
        assert_type(error.status, int)
    assert_type(await aio.ClaimsVerifier(issuer="https://i", audience="a").verify(token), ra.Claims)
    assert_type(ra.AnyOf(verifier).verify(token, any_scopes=["a"], any_roles="b"), ra.Claims)
    assert_type(await aio.AnyOf(aio.ClaimsVerifier(issuer="https://i", audience="a")).verify(token), ra.Claims)

    verifier.verify(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ra.AnyOf([verifier])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ra.ClaimsVerifier(issuer="https://i")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def settings_stores_and_events(backend: Backend) -> None:
    ra.Settings(wait=5.0, store=ra.FileStore("/var/lib/app"), fallback=ra.FallbackOptions(grace=60.0))
    ra.Settings.from_env().but(wait=1.0)
    ra.SealedStore(backend, key=ra.EnvironmentKey("TOKEN_KEY"))

    def on_event(event: events.Event) -> None:
        assert_type(event.at, float)

    unsubscribe = ra.subscribe(on_event)
    unsubscribe()
    verdict: str = ra.health().verdict
    assert_type(ra.health().time_to_dark, float | None)
    del verdict
    with ra.wait_at_most(1.0):
        pass

    ra.Settings(wait="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ra.Settings(patience=5.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ra.subscribe(lambda: None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ra.halth()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def service_levels(graph: httpx.Client) -> None:
    webhook = ra.telemetry.Webhook("https://alerts.example", secret=["whsec_a", "whsec_b"], deadline=5.0)
    with ra.telemetry.watch(webhook=webhook, secret_expires={"app": [date(2027, 1, 1)]}, objective=None) as watch:
        assert_type(watch, ra.telemetry.Watch)
    ra.telemetry.watch(secret_expires=ra.telemetry.graph_secret_ends(graph, "app")).close()
    level = ra.telemetry.service_levels().of("downstream")
    assert_type(level.day.now.success_rate, float | None)
    assert_type(level.hours[0].start, float)

    ra.telemetry.watch(fall="25 %")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ra.telemetry.service_levels().of("sign-ins")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def web_frameworks(verifier: ra.ClaimsVerifier, claims: ra.Claims, decision: ra.Decision, app: Flask) -> None:
    assert_type(claims.to_dict(), dict[str, Any])
    assert_type(decision.to_dict(), dict[str, Any])
    decision.raise_for_denial()
    claims.raw["sub"] = "eve"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    in_flask.install(app, realm="orders")
    in_flask.authenticated(verifier, scopes="a", token_in=[verify.TokenHeader(), verify.TokenCookie("token")])
    assert_type(verify.refused(ra.CircuitOpen("x")), verify.Refusal)
    assert_type(verify.bearer_token(["Bearer a.b.c"]), str)
    assert_type(testing.claims("ada", scopes=["a"], tid="t"), ra.Claims)
    ra.api_client("https://api.example", plain.ConfidentialClientApplication("id", "s"), "a/.default", verify="ca.pem")

    in_flask.authenticated(verifier, token_in="cookie")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ra.api_client("https://api.example", None, verify=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def views(verifier: ra.ClaimsVerifier, auth: in_flask.SignIn, loop_auth: in_fastapi.SignIn, app: Flask) -> None:
    @app.get("/orders")
    @in_flask.authenticated(verifier, scopes="orders.read")
    def orders(number: int) -> str:
        return str(number)

    @app.get("/profile")
    @auth.login_required
    def profile() -> str:
        return "" if auth.user is None else auth.user.name

    @app.get("/account")
    @auth.login_required(acrs="c1")
    def account() -> str:
        return profile()

    @loop_auth.login_required
    async def home() -> str:
        return "" if loop_auth.user is None else loop_auth.user.name

    assert_type(orders(1), str)
    assert_type(account(), str)
    in_flask.mount_status_page(app, guard=in_flask.authenticated(verifier, roles="Ops"))
    in_flask.mount_status_page(app, guard=auth.login_required)
    home()

    orders("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    auth.login_required(scope=["a"])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def callouts_of_providers(app: Flask, store: ra.FileStore) -> None:
    def tier(request: callouts.TokenIssuanceStart) -> callouts.Continue:
        assert_type(request.user_id, str)
        return callouts.Continue({"tier": "gold"})

    async def check(request: callouts.PasswordSubmit) -> callouts.Answer:
        return callouts.MigratePassword() if request.password else callouts.RetryPassword()

    caller = callouts.BasicCaller({"b2c": "a long password"})
    enrich = callouts.Callout(
        callouts.TokenIssuanceStart,
        tier,
        caller=caller,
        default=callouts.LastKnown(otherwise=callouts.Continue()),
        store=store,
    )
    assert_type(enrich, callouts.Callout[callouts.TokenIssuanceStart])
    callouts.Callout(callouts.PasswordSubmit, check, caller=caller, default=callouts.RetryPassword())
    in_flask.mount_callout(app, "/callouts/token", enrich)

    def write(one: callouts.Write) -> None:
        assert_type(one.key, str)

    writes = callouts.BackgroundWrites("sign-ins", write, store=store)
    assert_type(writes.put({"user": "ada"}, key="1"), bool)
    assert_type(testing.check_callout("restProfile", 200, {}, b"{}"), str)
