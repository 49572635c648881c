"""The same faces for asyncio: a held token without a thread hop, everything else awaited, the loop never blocked.

This is more than 400 lines because each method of MSAL's stands here as a coroutine, with its parameters.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Self, overload

from ._credentials.credential import Credential
from ._credentials.request import way_to_ask
from ._engine.steps import run_async
from ._engine.threads import on_a_thread
from ._msal.applications import ManagedIdentityClient
from ._msal.plans import Plan
from ._msal.wrapped import Awaited
from ._msal.wrapped import wrap as _wrap
from ._policy.checks import called
from .claims_service.remote import AsyncRemoteClaimsVerifier as RemoteClaimsVerifier
from .credential import AsyncResilientCredential as ResilientCredential
from .downstream import async_api_client as api_client
from .settings import Settings

if TYPE_CHECKING:
    from ._msal.declared import bases
    from .verify.asynchronous import AsyncClaimsVerifier as ClaimsVerifier
    from .verify.several import AsyncAnyOf as AnyOf

MYPY: bool = False  # mypy, and it alone, takes a variable of this name for true

__all__ = [
    "AnyOf",
    "Application",
    "ClaimsVerifier",
    "ManagedIdentity",
    "RemoteClaimsVerifier",
    "ResilientCredential",
    "api_client",
    "get_bearer_token_provider",
    "wrap",
]


async def _carry_out(planned: Callable[[], Plan | None], claims: str | None = None) -> Any:
    """Carry a call out in this task.

    Args:
        planned: Plans it.
        claims: A challenge, with which a thread plans: the token goes out of MSAL's cache, which may be a file.
    """
    plan = await on_a_thread(planned) if claims else planned()
    return None if plan is None else await run_async(plan.steps())


class _Face(Awaited):
    """What both faces have in common."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def close(self) -> None:
        """Forget the tokens held in memory, end refreshes ahead, and close idle connections."""
        await on_a_thread(self._app.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Application(_Face):
    """An MSAL application whose methods are coroutines; see `wrap`. Arguments and results are MSAL's."""

    @property
    def app(self) -> Any:
        """The application underneath, with the same methods for threads."""
        return self._app

    @property
    def token_cache(self) -> Any:
        """MSAL's token cache, which may be swapped."""
        return self._app.token_cache

    @token_cache.setter
    def token_cache(self, cache: Any) -> None:
        self._app.token_cache = cache

    async def acquire_token_for_client(
        self,
        scopes: list[str],
        claims_challenge: str | None = None,
        fmi_path: str | None = None,
        forwarded_client_claims: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Get the application's own token."""
        app = self._app
        if scopes.__class__ is list and not (claims_challenge or fmi_path or forwarded_client_claims or kwargs):
            answer: dict[str, Any] | None = app._ra_hit(tuple(scopes))
            if answer is not None:
                return answer
        planned = functools.partial(
            app._ra_for_client, scopes, claims_challenge, fmi_path, forwarded_client_claims, kwargs
        )
        result: dict[str, Any] = await _carry_out(planned, claims_challenge)
        return result

    async def acquire_token_silent(
        self,
        scopes: list[str],
        account: Mapping[str, Any] | None,
        authority: str | None = None,
        force_refresh: bool | None = False,
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        auth_scheme: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Get a user's token without interaction; None when that can't be."""
        special = authority or force_refresh or claims_challenge or forwarded_client_claims or auth_scheme or kwargs
        if not special and scopes.__class__ is list and isinstance(account, dict):
            answer: dict[str, Any] | None = self._app._ra_hit((account.get("home_account_id"), tuple(scopes)))
            if answer is not None:
                return answer
        given = authority, force_refresh, claims_challenge, forwarded_client_claims, auth_scheme
        return await self._silent(scopes, account, given, kwargs, silent=True)

    async def acquire_token_silent_with_error(
        self,
        scopes: list[str],
        account: Mapping[str, Any] | None,
        authority: str | None = None,
        force_refresh: bool | None = False,
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        auth_scheme: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Get a user's token without interaction, with the error dict of a denial."""
        special = authority or force_refresh or claims_challenge or forwarded_client_claims or auth_scheme or kwargs
        if not special and scopes.__class__ is list and isinstance(account, dict):
            answer: dict[str, Any] | None = self._app._ra_hit((account.get("home_account_id"), tuple(scopes)))
            if answer is not None:
                return answer
        given = authority, force_refresh, claims_challenge, forwarded_client_claims, auth_scheme
        return await self._silent(scopes, account, given, kwargs, silent=False)

    async def _silent(
        self, scopes: list[str], account: Any, given: tuple[Any, ...], kwargs: dict[str, Any], *, silent: bool
    ) -> dict[str, Any] | None:
        planned = functools.partial(self._app._ra_silent, scopes, account, *given, kwargs, silent=silent)
        _, _, claims_challenge, _, _ = given
        result: dict[str, Any] | None = await _carry_out(planned, claims_challenge)
        return result

    async def acquire_token_on_behalf_of(
        self, user_assertion: str, scopes: list[str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Exchange a user's token for one to an API behind."""
        return await self._planned("_ra_on_behalf_of", user_assertion, scopes, *args, **kwargs)

    async def acquire_token_by_auth_code_flow(
        self, auth_code_flow: dict[str, Any], auth_response: Mapping[str, Any], scopes: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Redeem an authorization code."""
        return await self._planned("_ra_by_auth_code_flow", auth_code_flow, auth_response, scopes, **kwargs)

    async def acquire_token_by_authorization_code(
        self, code: str, scopes: list[str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Redeem an authorization code."""
        return await self._planned("_ra_by_authorization_code", code, scopes, *args, **kwargs)

    async def acquire_token_by_refresh_token(
        self, refresh_token: str, scopes: list[str], **kwargs: Any
    ) -> dict[str, Any]:
        """Bring a refresh token from elsewhere into the cache."""
        return await self._planned("_ra_by_refresh_token", refresh_token, scopes, **kwargs)

    async def acquire_token_by_username_password(
        self, username: str, password: str, scopes: list[str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Sign in with a password."""
        return await self._planned("_ra_by_username_password", username, password, scopes, *args, **kwargs)

    async def acquire_token_by_user_federated_identity_credential(
        self, scopes: list[str], assertion: str, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Exchange a federated identity credential for a user's token."""
        name = "_ra_by_user_federated_identity_credential"
        return await self._planned(name, scopes, assertion, *args, **kwargs)

    async def initiate_device_flow(
        self, scopes: list[str] | None = None, *, claims_challenge: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Begin a device flow."""
        return await self._planned("_ra_initiate_device_flow", scopes, claims_challenge=claims_challenge, **kwargs)

    async def acquire_token_by_device_flow(
        self, flow: dict[str, Any], claims_challenge: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Poll until the user has signed in, or this task is cancelled."""
        left, is_over = False, kwargs.pop("exit_condition", _has_expired)
        poll = functools.partial(
            self._app.acquire_token_by_device_flow,
            flow,
            claims_challenge,
            exit_condition=lambda flow: left or is_over(flow),
            **kwargs,
        )
        try:
            result: dict[str, Any] = await on_a_thread(poll)
        finally:
            left = True
        return result

    async def _planned(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        result: dict[str, Any] = await _carry_out(functools.partial(getattr(self._app, name), *args, **kwargs))
        return result

    def keep_fresh(self, scopes: list[str], account: dict[str, Any] | None = None) -> None:
        """Refresh a token ahead of need from now on, with or without traffic (G5). Returns at once."""
        self._app.keep_fresh(scopes, account)

    if TYPE_CHECKING:
        # What `_of_msal` finds; `tests/faces/test_types.py` compares it with MSAL.
        client_id: str
        authority: Any
        http_client: Any

        async def acquire_token_interactive(
            self,
            scopes: list[str],
            prompt: str | None = None,
            login_hint: str | None = None,
            domain_hint: str | None = None,
            claims_challenge: str | None = None,
            timeout: float | None = None,  # noqa: ASYNC109 - it is MSAL's
            port: int | None = None,
            extra_scopes_to_consent: list[str] | None = None,
            max_age: int | None = None,
            parent_window_handle: object = None,
            on_before_launching_ui: Callable[..., None] | None = None,
            auth_scheme: Any = None,
            **kwargs: Any,
        ) -> dict[str, Any]: ...
        async def get_accounts(self, username: str | None = None) -> list[dict[str, Any]]: ...
        async def get_authorization_request_url(
            self,
            scopes: list[str],
            login_hint: str | None = None,
            state: str | None = None,
            redirect_uri: str | None = None,
            response_type: str = "code",
            prompt: str | None = None,
            nonce: str | None = None,
            domain_hint: str | None = None,
            claims_challenge: str | None = None,
            **kwargs: Any,
        ) -> str: ...
        async def initiate_auth_code_flow(
            self,
            scopes: list[str],
            redirect_uri: str | None = None,
            state: str | None = None,
            prompt: str | None = None,
            login_hint: str | None = None,
            domain_hint: str | None = None,
            claims_challenge: str | None = None,
            max_age: int | None = None,
            response_mode: str | None = None,
        ) -> dict[str, Any]: ...
        async def is_pop_supported(self) -> bool: ...
        async def remove_account(self, account: Mapping[str, Any]) -> None: ...
        async def remove_tokens_for_client(self) -> None: ...


def _of_msal(self: Application, name: str) -> Any:
    # All other methods of MSAL's: get_accounts, remove_account, the interactive ones, ...
    if name == "_app":  # a copy in the making hasn't got it yet
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    value = getattr(self._app, name)
    if not callable(value) or name.startswith("_"):
        return value

    @functools.wraps(value)
    async def method(*args: Any, **kwargs: Any) -> Any:
        return await on_a_thread(functools.partial(value, *args, **kwargs))

    return method


# Not in the class itself: to type checkers, it would have every attribute that anybody asks for.
Application.__getattr__ = _of_msal  # type: ignore[attr-defined]


def _has_expired(flow: dict[str, Any]) -> bool:
    """Return whether a device flow is over: MSAL's own `exit_condition`, by whatever the application makes of it."""
    return bool(flow.get("expires_at", 0) < time.time())


class ManagedIdentity(_Face):
    """A managed identity client whose methods are coroutines; see `wrap`."""

    _app: ManagedIdentityClient

    @property
    def app(self) -> ManagedIdentityClient:
        """The client underneath, with the same methods for threads."""
        return self._app

    async def acquire_token_for_client(self, *, resource: str, claims_challenge: str | None = None) -> dict[str, Any]:
        """Get the managed identity's token."""
        if claims_challenge is None and resource.__class__ is str:
            answer = self._app._ra_hit(resource)
            if answer is not None:
                return answer
        planned = functools.partial(self._app._ra_for_client, resource=resource, claims_challenge=claims_challenge)
        result: dict[str, Any] = await _carry_out(planned, claims_challenge)
        return result

    def keep_fresh(self, *, resource: str) -> None:
        """Refresh the token ahead of need from now on, with or without traffic (G5). Returns at once."""
        self._app.keep_fresh(resource=resource)


def get_bearer_token_provider(credential: Any, *scopes: str) -> Callable[[], Coroutine[Any, Any, str]]:
    """Return a coroutine function that returns a token, as azure-identity's function of this name does.

    See `resilient_auth.get_bearer_token_provider`. A credential that blocks is asked on a thread.
    """
    ask = way_to_ask(credential, scopes)
    if inspect.iscoroutinefunction(ask):

        async def provide() -> str:
            token: str = (await ask(*scopes)).token
            return token

        return provide
    held = credential._core.find if isinstance(credential, Credential) else None

    async def provide_from_thread() -> str:
        answer = None if held is None else held(scopes)
        if answer is not None:
            return answer.access.token
        given = await on_a_thread(functools.partial(ask, *scopes))
        token: str = (await given if inspect.isawaitable(given) else given).token
        return token

    return provide_from_thread


if MYPY:
    # To mypy, an application of MSAL's is no kind in particular: what is returned is each kind.
    class _AnyKind(Application, ManagedIdentity):
        @overload
        async def acquire_token_for_client(
            self,
            scopes: list[str],
            claims_challenge: str | None = None,
            fmi_path: str | None = None,
            forwarded_client_claims: str | None = None,
            **kwargs: Any,
        ) -> dict[str, Any]: ...
        @overload
        async def acquire_token_for_client(
            self, *, resource: str, claims_challenge: str | None = None
        ) -> dict[str, Any]: ...
        async def acquire_token_for_client(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...
        @overload
        def keep_fresh(self, scopes: list[str], account: dict[str, Any] | None = None) -> None: ...
        @overload
        def keep_fresh(self, *, resource: str) -> None: ...
        def keep_fresh(self, *args: Any, **kwargs: Any) -> None: ...

    def wrap(app: Any, *, resilience: Settings | None = None) -> _AnyKind: ...

else:

    @overload
    def wrap(app: bases.ClientApplication, *, resilience: Settings | None = None) -> Application: ...
    @overload
    def wrap(app: bases.ManagedIdentityClient, *, resilience: Settings | None = None) -> ManagedIdentity: ...
    @called("resilience", elsewhere="settings")
    def wrap(app, *, resilience=None):
        """Give an application coroutines in place of its methods.

        Args:
            app: One of ours, of MSAL's, or a subclass's; a managed identity client too.
            resilience: As for `resilient_auth.wrap`.

        Returns:
            An object with the same methods, to be awaited. A token that is held is returned without leaving the loop's
            thread; a cancelled task harms no other.
        """
        resilient = _wrap(app, resilience=resilience)
        return ManagedIdentity(resilient) if isinstance(resilient, ManagedIdentityClient) else Application(resilient)


def __getattr__(name: str) -> Any:
    # Loaded when first used: who only asks for tokens needs no cryptography.
    if name == "ClaimsVerifier":
        from .verify.asynchronous import AsyncClaimsVerifier

        globals()[name] = AsyncClaimsVerifier
        return AsyncClaimsVerifier
    if name == "AnyOf":
        from .verify.several import AsyncAnyOf

        globals()[name] = AsyncAnyOf
        return AsyncAnyOf
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
