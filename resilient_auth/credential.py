"""Credentials in azure-core's shape that keep giving tokens through an outage of their provider."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any

from ._credentials.azure_shapes import AccessToken, AccessTokenInfo
from ._credentials.credential import Credential
from ._credentials.request import way_to_ask
from ._credentials.third_party import where_it_belongs
from ._engine.steps import run, run_async
from ._engine.threads import on_a_thread
from .errors import ConfigurationError

__all__ = [
    "AccessToken",
    "AccessTokenInfo",
    "AsyncResilientCredential",
    "ResilientCredential",
    "get_bearer_token_provider",
]


class ResilientCredential(Credential):
    """Give tokens to Azure SDK clients, and to whoever asks in their way, while the provider fails.

    A token that is valid is served whatever happens to the provider; it is refreshed in the background.

    Args:
        sources: Where tokens come from, in order of preference (G12): an application of ours or of MSAL's, a managed
            identity client, any object with `get_token` or `get_token_info`, or a function that takes a tuple of
            scopes (and `claims`, `tenant_id` or `enable_cae` if it knows these) and gives an `AccessToken` or the like.
            The next one is asked when one fails, or is known to; not when it denies.
            What they give is held once for all callers: without `subject`, a function or a credential must answer for
            the same identity always, and never for "the current user".
        account: Whose tokens MSAL applications are to give, as from `get_accounts()`; None for the application's own.
        settings: For those sources that aren't resilient already.
        additionally_allowed_tenants: Tenants besides an application's own for which a caller may ask; `*` for any.
        failover_after: Seconds that a source may take before the next one is asked, at most; 2 when not given.
        subject: For sources that answer for the current user: a function of no argument that returns the user's id, a
            string; None for the application itself. It is called at each `get_token`, on the caller's thread or in
            their task, and again in a copy of the caller's context where a source is asked. Everything is kept by what
            it returns. All sources must be functions or credentials then.

    Raises:
        ConfigurationError: An argument is wrong; raised before any network call.
    """

    _asynchronous = False

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **_: Any,
    ) -> AccessToken:
        """Get an access token for scopes.

        Args:
            scopes: What the token is for, one by one.
            claims: The claims of a challenge, as JSON text: what is held is dropped, and another token asked for (G17).
            tenant_id: Another tenant than the source's own, where that is allowed.
            enable_cae: Ask for a token that can be revoked early, since the caller can handle a claims challenge.

        Returns:
            azure-core's `AccessToken`, or one like it where azure-core isn't installed.

        Raises:
            ProviderUnavailable: Nothing valid is held, and no source gives an answer.
            TokenDenied: A source works and said no.
            ConfigurationError: An argument is wrong.
            Closed: The credential was closed.
        """
        if not (claims or tenant_id or enable_cae):
            answer = self._core.find(scopes)
            if answer is not None:
                return answer.access
        return run(self._core.steps(scopes, claims, tenant_id, enable_cae)).access

    def get_token_info(self, *scopes: str, options: Mapping[str, Any] | None = None) -> AccessTokenInfo:
        """Get an access token for scopes, and the time from which to ask again.

        Args:
            scopes: What the token is for, one by one.
            options: `claims`, `tenant_id` and `enable_cae`, as for `get_token`; others are ignored.

        Returns:
            azure-core's `AccessTokenInfo`, or one like it where azure-core isn't installed. It may be shared: don't
            change it. Its `refresh_on` is when a refresh is due here (G5).

        Raises:
            ProviderUnavailable: Nothing valid is held, and no source gives an answer.
            TokenDenied: A source works and said no.
            ConfigurationError: An argument is wrong.
            Closed: The credential was closed.
        """
        if not options:
            answer = self._core.find(scopes)
            if answer is not None:
                return answer.info
        return run(self._core.steps_with(scopes, options)).info

    def invalidate(self, token: str) -> None:
        """Forget a token that an API refused, if it is still held; its successor stays."""
        self._core.forget(token)

    def suspect(self, token: str) -> None:
        """Have a token replaced that an API refused without saying why; it is served until its successor is there.

        The next call asks the provider, and waits 2 s for it at most.
        """
        self._core.suspect(token)

    def close(self) -> None:
        """Forget the tokens held in memory, and close the credentials that were given; MSAL applications stay open."""
        with ExitStack() as stack:  # what one of them raises keeps no other open
            for credential in reversed(self._core.close()):
                close = getattr(credential, "close", None)
                if close is not None:
                    stack.callback(close)

    def __enter__(self) -> ResilientCredential:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncResilientCredential(Credential):
    """Give tokens as `resilient_auth.ResilientCredential` does, to be awaited.

    Args:
        sources: As there, and also credentials and functions that are coroutines. These are awaited in an event loop of
            this package's own, which outlives the callers' ones and so refreshes ahead too; where they belong to a
            caller's loop, such as one with a session that was opened there, in that one. What blocks is asked on a
            thread.
        account: As there.
        settings: As there.
        additionally_allowed_tenants: As there.
        failover_after: As there, in seconds.
        subject: As there; not a coroutine function.

    Raises:
        ConfigurationError: An argument is wrong; raised before any network call.
    """

    _asynchronous = True

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **_: Any,
    ) -> AccessToken:
        """Get an access token for scopes; arguments, result and errors are those of the blocking one."""
        try:
            # What `CredentialCore.find` does, in place: calling it would cost a fifth of the whole.
            answer = self._ready[scopes]
            if (
                not (claims or tenant_id or enable_cae)
                and answer.entry.token is answer.token
                and answer.sure_from <= answer.wall() < answer.sure_until
                and answer.home[answer.cache_name] is answer.cache
            ):
                served = answer.served
                if served is not None:
                    served.count += 1
                return answer.access
        except (KeyError, TypeError):  # not asked for before, or no scopes at all: told where they are looked at
            pass
        return (await run_async(self._core.steps(scopes, claims, tenant_id, enable_cae))).access

    async def get_token_info(self, *scopes: str, options: Mapping[str, Any] | None = None) -> AccessTokenInfo:
        """Get an access token for scopes, and the time from which to ask again; as the blocking one does."""
        try:
            answer = self._ready[scopes]
            if (
                not options
                and answer.entry.token is answer.token
                and answer.sure_from <= answer.wall() < answer.sure_until
                and answer.home[answer.cache_name] is answer.cache
            ):
                served = answer.served
                if served is not None:
                    served.count += 1
                return answer.info
        except (KeyError, TypeError):
            pass
        return (await run_async(self._core.steps_with(scopes, options))).info

    async def invalidate(self, token: str) -> None:
        """Forget a token that an API refused, if it is still held; its successor stays."""
        await on_a_thread(partial(self._core.forget, token))

    async def suspect(self, token: str) -> None:
        """Have a token replaced that an API refused without saying why; it is served until its successor is there."""
        await on_a_thread(partial(self._core.suspect, token))

    async def close(self) -> None:
        """Forget the tokens held in memory, and close the credentials that were given; MSAL applications stay open."""
        async with AsyncExitStack() as stack:  # what one of them raises keeps no other open
            for credential in reversed(self._core.close()):
                close = getattr(credential, "close", None)
                if close is not None:
                    stack.push_async_callback(_close, close)

    async def __aenter__(self) -> AsyncResilientCredential:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _close(close: Callable[[], Any]) -> None:
    if inspect.iscoroutinefunction(close):
        await where_it_belongs(close)
    else:
        closing = await on_a_thread(close)
        if inspect.isawaitable(closing):
            await closing


def get_bearer_token_provider(credential: Any, *scopes: str) -> Callable[[], str]:
    """Return a function that returns a token, for clients that take one, as azure-identity's function of this name.

    Nothing is held here: the credential is asked each time, so a token that it has dropped is given to nobody.

    Args:
        credential: Anything with `get_token` or `get_token_info`, such as `ResilientCredential`; none of asyncio's.
        scopes: What the token is for, one by one.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    ask = way_to_ask(credential, scopes)
    if inspect.iscoroutinefunction(ask):
        raise ConfigurationError(
            f"credential is one of asyncio's, a {type(credential).__name__}: use "
            "resilient_auth.aio.get_bearer_token_provider for clients of asyncio's, or a credential that blocks"
        )

    def provide() -> str:
        token: str = ask(*scopes).token
        return token

    return provide
