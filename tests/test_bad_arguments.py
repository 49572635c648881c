"""What is given wrongly is told at once, by the argument's name and in an error of ours: no constructor hangs on it.

A row is what takes an argument, and what is no value for it. `tests/faces/test_bad_input.py` has MSAL's own arguments.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth import callouts, downstream, events, signin, telemetry, testing, verify

HUGE = 10**400
ISSUER = {"issuer": "https://id.example", "audience": "api://orders"}
URL = "https://api.example"
NEITHER_TEXT_NOR_LIST = (5, True, None, object(), len, Path("x"))
NO_PATHS = (0, True, 1.5, b"keys.json", "", [], object(), len)
NO_CLOCKS = (5, "now", object(), math.nan, len)
NO_BOOLS = (None, 0, 1, "", "false", "no", [], object())
NO_OPTIONS = (5, "fast", {"consecutive_failures": 5}, object(), ra.BreakerOptions)
NO_TENANTS = (None, "", 0, b"contoso", [], {}, " ", "a/b", Path("contoso"), len)


async def awaited(*_: object) -> None:
    """Give nothing to who doesn't await it."""


class Awaited:
    """An object that is called and has to be awaited."""

    async def __call__(self, *_: object) -> None:
        """Give nothing either."""


NO_FUNCTIONS = (awaited, Awaited(), functools.partial(awaited, 1), 5, "function", object())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ra.FileStore]:
    made = ra.FileStore(tmp_path_factory.mktemp("store") / "store.db")
    yield made
    made.close()


def verifier(**options: Any) -> object:
    return ra.ClaimsVerifier(**ISSUER | options)


def callout(**options: Any) -> object:
    usual: dict[str, Any] = {
        "caller": callouts.BasicCaller({"b2c": "a long password"}),
        "default": callouts.Continue(),
    }
    return callouts.Callout(callouts.TokenIssuanceStart, lambda _: callouts.Continue(), **usual | options)


def writes(store: ra.FileStore, **options: Any) -> object:
    return callouts.BackgroundWrites(**{"name": "n", "target": lambda _: None, "store": store} | options)


def revocations(store: ra.FileStore, **options: Any) -> object:
    return verify.Revocations(store, **options)


def signals(store: ra.FileStore, **options: Any) -> object:
    usual: dict[str, Any] = {"store": store, "revocations": verify.Revocations(store)}
    return signin.SignalsReceiver(ra.ClaimsVerifier(**ISSUER), **usual | options)


def certificates(**options: Any) -> object:
    return callouts.CertificateCaller(**{"thumbprints": ["ab" * 32], "trusted_proxies": ["10.0.0.1"]} | options)


def provider(**options: Any) -> object:
    return signin.IdentityProvider.for_b2c(**{"tenant": "contoso", "client_id": "c", "sign_in": "b2c_1_x"} | options)


def remote(**options: Any) -> object:
    return ra.RemoteClaimsVerifier(URL, **{"sends": ("sub",)} | options)


def captured(**given: Any) -> object:
    return testing.CapturedEvents().wait_for(**{"kind": events.BreakerOpened, "timeout": 0.0} | given)


def chaos(**given: Any) -> object:
    return testing.chaos(**{"wrapped": httpx.MockTransport(lambda _: httpx.Response(200))} | given)


def set_rate(rate: Any) -> None:
    chaos().rate = rate  # type: ignore[attr-defined]


def check_callout(**given: Any) -> object:
    usual: dict[str, Any] = {"event": "restProfile", "status": 200, "headers": {}, "body": b""}
    return testing.check_callout(**usual | given)


#: Who is given the store as well.
OVER_A_STORE = (writes, revocations, signals)
#: What takes the argument, its name, and what is wrong for it.
ROWS: list[tuple[Callable[..., object], str, tuple[Any, ...]]] = [
    (verifier, "pinned_keys", NO_PATHS),
    (verifier, "audience", ("api://orders\n", " api://orders", ["api://orders", "x "], (), None, 5, b"x")),
    (verifier, "clients", (["x\n"], "x", None, 5, [5])),
    (verifier, "leeway", (HUGE, math.nan, -1, "60")),
    (functools.partial(ra.aio.ClaimsVerifier, **ISSUER), "pinned_keys", NO_PATHS),
    (verify.DenyList, "file", NO_PATHS),
    (verify.DenyList, "check", NO_FUNCTIONS),
    (verify.DenyList, "look_every", (HUGE, math.inf, None)),
    (verify.Revocations, "store", (None, 5, "redis://", object())),
    (revocations, "clock", NO_CLOCKS),
    (functools.partial(verify.TokenCookie, "token"), "origins", NEITHER_TEXT_NOR_LIST),
    (lambda **given: verify.refused(ra.InvalidToken("expired", "x"), **given), "realm", (5, ["x"], b"x", object())),
    (verify.refused, "error", (None, ValueError("x"), "expired", 401)),
    (functools.partial(verify.claims_challenge, required="c1"), "claims", (None, {}, "claims", 5)),
    (lambda **given: verify.claims_challenge(testing.claims("ada"), "c1", **given), "realm", (5, ["x"], b"x")),
    (verify.bearer_token, "values", ("Bearer abc", b"Bearer abc", None, 5, [None], [b"Bearer abc"], {"a": 1})),
    (functools.partial(verify.read_request, "GET", URL), "headers", (None, 5, object(), [5], ["Authorization"])),
    (lambda **given: downstream.deadline(**given).__enter__(), "seconds", (HUGE, math.nan, 0, "5", None, True)),
    (lambda **given: ra.wait_at_most(**given).__enter__(), "seconds", (HUGE, math.nan, 0, "5", None, True)),
    (ra.TransportOptions, "deadline", (HUGE, math.nan, -1, "5", None)),
    (ra.ResilientTransport, "wrapped", (5, "http", httpx.HTTPTransport, httpx.AsyncHTTPTransport(), httpx.Client())),
    (ra.AsyncResilientTransport, "wrapped", (5, "http", httpx.AsyncHTTPTransport, httpx.HTTPTransport())),
    (ra.ResilientTransport, "key", NO_FUNCTIONS),
    (lambda **given: ra.ResilientTransport(options=ra.TransportOptions(**given)), "clock", NO_CLOCKS),
    (functools.partial(ra.api_client, URL, None), "transport", (5, "http", httpx.HTTPTransport)),
    (functools.partial(ra.api_client, URL, lambda: "token"), "scopes", (5, True, None, object(), len)),
    (functools.partial(ra.aio.api_client, URL, lambda: "token"), "scopes", (5, True, None, object(), len)),
    (remote, "sends", (5, True, object(), len, (), [None], "")),
    (remote, "parse", NO_FUNCTIONS),
    (lambda **given: remote(sends=None, **given), "request", NO_FUNCTIONS),
    (remote, "reduced", (5, "", {}, object(), len)),
    (lambda **given: remote(when_unavailable="reduced", **given), "reduced", (*NO_FUNCTIONS, None)),
    (ra.isolate, "authority", (None, 5, b"https://id.example", ["https://id.example"], object())),
    (ra.reset, "authority", (None, 5, b"https://id.example", ["https://id.example"], object())),
    (functools.partial(telemetry.Webhook, "https://alerts.example"), "secret", NEITHER_TEXT_NOR_LIST),
    (
        lambda **given: telemetry.Webhook("https://alerts.example", secret="whsec_" + "QUJD" * 8, **given),
        "verify",
        (5, b"ca.pem", [], object(), len),
    ),
    (telemetry.watch, "clock", NO_CLOCKS),
    (telemetry.watch, "secret_expires", (awaited, Awaited(), 5, "2027-01-01", date(2027, 1, 1), ["x"])),
    (functools.partial(signin.OneTimeCodes, send=lambda *_: None), "find", NO_FUNCTIONS),
    (functools.partial(signin.OneTimeCodes, find=lambda _: None), "send", NO_FUNCTIONS),
    (signin.SignInOptions, "render", NO_FUNCTIONS),
    (signin.SignOutOptions, "next_path", (5, True, [], object(), b"/", "https://elsewhere.example")),
    (signin.SessionOptions, "idle", (HUGE, math.nan, None)),
    (functools.partial(signin.IdentityProvider.for_entra, client_id="c"), "tenant", NO_TENANTS),
    (functools.partial(signin.IdentityProvider.for_external_id, client_id="c"), "tenant", NO_TENANTS),
    (provider, "tenant", NO_TENANTS),
    (provider, "sign_in", (None, 5, ["b2c_1_x"])),
    (provider, "edit", (5, ["b2c_1_x"], b"b2c_1_x")),
    (functools.partial(signin.IdentityProvider.for_entra, "contoso.com", client_id="c"), "authority", (None, 5, b"x")),
    (
        functools.partial(signin.IdentityProvider.for_openid, client_id="c"),
        "issuer",
        (None, 5, "", "http://id.example/realms/shop", "https://accounts.example", "https://accounts.example/"),
    ),
    (signals, "sign_in", (5, "shop", object())),
    (signals, "revocations", (5, "store", object())),
    (signals, "applications", (5, "app", b"app", object())),
    (signals, "speaks_for", (5, True, None, "https://id.example", [None])),
    (signals, "bearer", (5, True, None, object(), "short", [None])),
    (signals, "typed", (None, 1, "yes")),
    (signals, "actions", (5, "end", ["end"], object())),
    (signals, "verified", NO_FUNCTIONS),
    (signals, "clock", NO_CLOCKS),
    (callout, "store", (5, "redis://", object(), {})),
    (callout, "breaker", NO_OPTIONS),
    (callout, "clock", NO_CLOCKS),
    (callout, "decryption_keys", (5, True, 1.5, len, object(), [])),
    (certificates, "thumbprints", (*NEITHER_TEXT_NOR_LIST, "ab" * 32, [None], [5])),
    (certificates, "trusted_proxies", (*NEITHER_TEXT_NOR_LIST, "10.0.0.1", b"\x0a", [5])),
    (writes, "target", NO_FUNCTIONS),
    (writes, "breaker", NO_OPTIONS),
    (writes, "clock", NO_CLOCKS),
    (ra.Settings.from_env, "environ", (5, ["RESILIENT_AUTH_WAIT=5"], "RESILIENT_AUTH_WAIT=5", object())),
    (ra.Settings.from_env, "prefix", (None, 5, b"X_", ["X_"])),
    (lambda **given: telemetry.service_levels().of(**given), "kind", (None, "tokens", 5, [])),
    (functools.partial(ra.FileStore, "unused.db"), "clock", NO_CLOCKS),
    (functools.partial(ra.FileStore, "unused.db"), "bound_to_path", NO_BOOLS),
    (functools.partial(ra.api_client, URL, None), "allow_http_loopback", NO_BOOLS),
    (functools.partial(ra.BearerAuth, lambda: "token"), "allow_http_loopback", NO_BOOLS),
    (remote, "allow_http_loopback", NO_BOOLS),
    (functools.partial(ra.BearerAuth, lambda: "token"), "cae", NO_BOOLS),
    (functools.partial(ra.api_client, URL, ra.ResilientCredential(len), ["s"]), "tenant_id", ("", 5, b"x", [], len)),
    (testing.ManualClock, "start", ("now", True, math.nan, math.inf, -1, HUGE)),
    (testing.ManualClock, "patience", ("5", True, math.nan, math.inf, 0, -1, None)),
    (lambda **given: testing.ManualClock().advance(**given), "seconds", ("5", True, math.nan, math.inf, None, HUGE)),
    (lambda **given: testing.ManualClock().jump(**given), "seconds", ("5", True, math.nan, -math.inf, None, HUGE)),
    (captured, "kind", ("BreakerOpened", None, ra.TokenDenied, ValueError, object, events.BreakerOpened.__name__)),
    (lambda **given: testing.CapturedEvents().of(**given), "kind", ("BreakerOpened", None, ra.TokenDenied, object)),
    (captured, "count", (0, -1, "1", True, 1.5, None)),
    (captured, "timeout", ("1", math.nan, math.inf, -1, None)),
    (chaos, "wrapped", (None, "http", httpx.HTTPTransport, httpx.Client(), len)),
    (chaos, "rate", (2, "1", math.nan, None, True)),
    (set_rate, "rate", (2, "1", math.nan, None, True)),
    (chaos, "status", ("503", 99, 600, True, 503.0)),
    (chaos, "error", ("x", httpx.ConnectError("x"), httpx.HTTPStatusError, KeyboardInterrupt, len)),
    (chaos, "delay", (-1, "1", math.nan, math.inf, None)),
    (chaos, "seed", ("x", [1], True, 1.5)),
    (check_callout, "event", ("signIn", None, ["restProfile"], 5)),
    (check_callout, "status", ("200", 99, True, None, 200.0)),
    (check_callout, "headers", (None, [("a", "b")], "a: b")),
    (check_callout, "body", (None, {}, 5)),
    (check_callout, "nonce", (5, b"x")),
    (testing.claims, "subject", (None, "", 5, b"ada")),
    (testing.claims, "audience", (None, "", 5, ["api://orders"], [])),
    (testing.claims, "scopes", (None, 5, [""], [5])),
    (testing.claims, "roles", (None, 5, [""], [5])),
    (testing.claims, "app_only", NO_BOOLS),
    (testing.claims, "expires_in", ("5", math.nan, None, HUGE)),
    *((testing.claims, name, ("x", 5, None, ["x"])) for name in ("sub", "aud", "exp", "scp")),
    *((testing.claims, name, (5, ["x"], b"x")) for name in ("iss", "tid", "oid", "azp", "preferred_username")),
    (testing.claims, "iat", ("now", None, math.nan)),
    (functools.partial(testing.claims, app_only=True), "scopes", ("orders.read", ["orders.read"])),
    (testing.token, "emulator", (None, "https://localhost", 5, object(), len)),
]


CASES = [
    pytest.param(make, name, wrong, id=f"{row}-{name}-{number}-{type(wrong).__name__}")
    for row, (make, name, values) in enumerate(ROWS)
    for number, wrong in enumerate(values)
]


@pytest.fixture(autouse=True)
def _no_open_file_is_taken() -> Iterator[None]:
    """A number in place of a path would be that of a file that is open already."""
    before = [os.fstat(number).st_ino for number in (0, 1, 2)]
    yield
    assert [os.fstat(number).st_ino for number in (0, 1, 2)] == before


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("make", "name", "wrong"), CASES)
def test_what_is_wrong_is_told_by_its_name(store: ra.FileStore, make: Any, name: str, wrong: Any) -> None:
    """The message says which argument it is; nothing is left half-made, and no thread."""
    given = (store,) if make in OVER_A_STORE else ()
    before = set(threading.enumerate())
    with pytest.raises(ra.ConfigurationError) as told:
        make(*given, **{name: wrong})
    assert name in str(told.value) or (name == "sign_in" and "policies" in str(told.value))
    assert not {each.name for each in set(threading.enumerate()) - before if not each.daemon}


@pytest.mark.parametrize("listener", [awaited, None, 5])
def test_a_listener_that_nobody_would_await_is_told(listener: Any) -> None:
    """Its events would be lost without a word."""
    with pytest.raises(TypeError, match="listener must be a plain function that takes an event"):
        ra.subscribe(listener)


def test_what_may_be_awaited_still_may() -> None:
    """Where a coroutine function is documented, it is taken."""
    ra.AsyncResilientTransport(fallback=awaited)
    ra.aio.RemoteClaimsVerifier(URL, sends="sub", when_unavailable="reduced", reduced=awaited)
    callouts.Callout(
        callouts.TokenIssuanceStart,
        awaited,  # type: ignore[arg-type]
        caller=callouts.BasicCaller({"b2c": "a long password"}),
        default=callouts.Continue(),
    )
    assert asyncio.iscoroutinefunction(awaited)


@pytest.mark.parametrize("seconds", [None, "5", math.nan, -1, HUGE, True], ids=lambda one: type(one).__name__)
def test_a_flush_takes_seconds(store: ra.FileStore, seconds: Any) -> None:
    """And nothing else."""
    made = callouts.BackgroundWrites("flushed", lambda _: None, store=store)
    with pytest.raises(ra.ConfigurationError, match="seconds must be"):
        made.flush(seconds)
    made.close()


@pytest.mark.parametrize(
    ("whose", "before", "told"),
    [
        ([("sub", "https://id.example", "ada")], None, "before must be a number"),
        ([("sub", "https://id.example", "ada")], "now", "before must be a number"),
        ([("sub", "https://id.example", "ada")], math.nan, "before must be a number"),
        ([("sub", "https://id.example", "ada")], HUGE, "before must be a number"),
        ([("user", "https://id.example", "ada")], 5.0, "sub, sid, oid, mail alone"),
        ([("sub", "https://id.example", None)], 5.0, "whose must be such as"),
        ([("sub", "https://id.example")], 5.0, "whose must be such as"),
        (["sub"], 5.0, "whose must be such as"),
        ("sub", 5.0, "whose must be such as"),
        (None, 5.0, "whose must be such as"),
        ([5], 5.0, "whose must be such as"),
    ],
    ids=range(11),
)
def test_a_revocation_that_can_not_hold_leaves_no_trace(tmp_path: Path, whose: Any, before: Any, told: str) -> None:
    """Written down, it would have each process of the fleet fail at its next look."""
    with ra.FileStore(tmp_path / "store.db") as kept:
        here = verify.Revocations(kept)
        with pytest.raises(ra.ConfigurationError, match=told):
            here.revoke(whose, before)
        here.revoke([("sub", "https://id.example", "ada")], 5.0)
        there = verify.Revocations(kept)
        here.look()
        there.look()
        here.close()
        there.close()
