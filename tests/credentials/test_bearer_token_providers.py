"""A function that gives a token to clients that take one: the credential is asked each time."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.credentials import AccessToken, AccessTokenInfo

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator

Build = Callable[..., Any]


def test_it_gives_the_credentials_token_and_holds_none_itself(idp: Emulator, app_at: Build, scope: str) -> None:
    credential = ra.ResilientCredential(app_at(idp))
    provider = ra.get_bearer_token_provider(credential, scope)
    first = provider()
    assert first == credential.get_token(scope).token == provider()
    credential.invalidate(first)
    second = provider()
    assert second != first
    assert idp.ledger.is_valid(second)


def test_it_is_one_call_more_than_the_credential_itself(idp: Emulator, app_at: Build, scope: str) -> None:
    """A held token costs what it costs there, and the function's own frame."""
    credential = ra.ResilientCredential(app_at(idp))
    provider = ra.get_bearer_token_provider(credential, scope)
    provider()

    def frames(call: Callable[[], object]) -> int:
        made = []
        sys.setprofile(lambda frame, event, _: made.append(frame.f_code) if event == "call" else None)
        try:
            call()
        finally:
            sys.setprofile(None)
        return len([code for code in made if "resilient_auth" in code.co_filename and "tests" not in code.co_filename])

    frames(provider)
    assert frames(provider) == frames(lambda: credential.get_token(scope)) + 1


def test_two_scopes_and_two_credentials_are_told_apart(
    idp: Emulator, second_idp: Emulator, app_at: Build, scope: str
) -> None:
    first, second = (ra.ResilientCredential(app_at(each)) for each in (idp, second_idp))
    providers = [
        ra.get_bearer_token_provider(credential, name)
        for credential in (first, second)
        for name in (scope, "https://vault.azure.net/.default")
    ]
    assert len({provider() for provider in providers}) == 4


@pytest.mark.parametrize("face", ["coroutine", "blocking"])
def test_its_twin_for_tasks_takes_both_kinds_of_credential_in_any_loop(
    idp: Emulator, app_at: Build, scope: str, face: str
) -> None:
    kind = ra.aio.ResilientCredential if face == "coroutine" else ra.ResilientCredential
    credential = kind(app_at(idp))
    provider = ra.aio.get_bearer_token_provider(credential, scope)

    async def run() -> tuple[str, str]:
        first = await provider()
        assert await provider() == first
        done = credential.invalidate(first)
        if done is not None:
            await done
        return first, await provider()

    first, second = asyncio.run(run())
    assert first != second
    assert asyncio.run(provider()) == second  # another loop


def test_a_blocking_credential_is_asked_on_a_thread_until_its_token_is_held(scope: str) -> None:
    threads = []

    class Slow:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            threads.append(threading.current_thread())
            time.sleep(0.1)
            return AccessToken("a-token", int(time.time()) + 3600)

    provider = ra.aio.get_bearer_token_provider(Slow(), scope)

    async def run() -> float:
        begun = time.monotonic()
        await asyncio.gather(*(provider() for _ in range(5)))
        return time.monotonic() - begun

    assert asyncio.run(run()) < 0.45
    assert threading.main_thread() not in threads


def test_a_credential_with_get_token_info_alone_will_do(scope: str) -> None:
    class Newer:
        def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
            return AccessTokenInfo(f"for {scopes[0]}", 9999999999)

    assert ra.get_bearer_token_provider(Newer(), scope)() == f"for {scope}"


def test_an_error_is_the_credentials_own(idp: Emulator, app_at: Build, scope: str) -> None:
    idp.deny("client_credentials", "invalid_client")
    with pytest.raises(ra.TokenDenied):
        ra.get_bearer_token_provider(ra.ResilientCredential(app_at(idp)), scope)()


@pytest.mark.parametrize("make", [ra.get_bearer_token_provider, ra.aio.get_bearer_token_provider])
def test_bad_input_is_named(idp: Emulator, app_at: Build, scope: str, make: Any) -> None:
    app = app_at(idp)
    credential = ra.ResilientCredential(app)
    for wrong, said in (
        (None, "credential must have get_token"),
        ("token", "credential must have get_token"),
        (app, r"ResilientCredential\(\.\.\.\)"),
        (msal.PublicClientApplication, "is the class"),
        (ra.ResilientCredential, "is the class"),
    ):
        with pytest.raises(ra.ConfigurationError, match=said):
            make(wrong, scope)
    for scopes in ((), ([scope],), (3,), ("",), ("openid",)):
        with pytest.raises(ra.ConfigurationError, match="scopes must"):
            make(credential, *scopes)
    assert not idp.ledger.calls or all(call.endpoint != "token" for call in idp.ledger.calls)


def test_a_credential_of_asyncios_is_refused_where_nobody_awaits(idp: Emulator, app_at: Build, scope: str) -> None:
    with pytest.raises(ra.ConfigurationError, match=r"resilient_auth\.aio\.get_bearer_token_provider"):
        ra.get_bearer_token_provider(ra.aio.ResilientCredential(app_at(idp)), scope)


def test_a_subjects_token_is_the_callers(scope: str) -> None:
    from contextvars import ContextVar

    user: ContextVar[str] = ContextVar("user")

    def token_of_the_user(scopes: tuple[str, ...]) -> AccessToken:
        return AccessToken(f"token of {user.get()}", int(time.time()) + 3600)

    provider = ra.get_bearer_token_provider(ra.ResilientCredential(token_of_the_user, subject=user.get), scope)
    for name in ("ann", "bob", "ann"):
        user.set(name)
        assert provider() == f"token of {name}"
