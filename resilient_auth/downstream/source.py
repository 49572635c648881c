"""Where tokens come from: any credential, or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from .._credentials.request import CredentialCall
from .._engine.threads import on_a_thread
from .._policy.checks import is_scope, require
from ..errors import ConfigurationError
from .errors import TokenUnavailable, no_token
from .given import credential_of

__all__ = ["ForgettingCredential", "TokenSource"]


class ForgettingCredential(Protocol):
    """What a credential offers beside `get_token` or `get_token_info` to have a refused token replaced.

    Without it, a refused token is replaced only if the credential gives another one by itself. A credential that also
    has `suspect(token)`, as a `ResilientCredential` has, is told by that of a 401 without a claims challenge: the next
    call asks for another token, and this one stays in use until there is one. A plain 401 doesn't prove that a token is
    bad, and in an outage of the provider there is no other.
    """

    def invalidate(self, token: str, /) -> object:
        """Forget this token if it is the one that is held, and leave its successor alone (compare and swap).

        May be a coroutine function where `get_token` is one.
        """
        ...


class TokenSource:
    """Ask a credential for one set of scopes, in whichever of the usual shapes it has.

    Args:
        credential: As for `CredentialCall`. A function is called with `claims=` if it takes that, and gives the token,
            something with a `token`, or a result of MSAL's.
        scopes: What the token is for.
        cae: Whether to ask for tokens that can be revoked early (G17).
        tenant_id: Another tenant than the credential's own.
        unavailable: What is raised where there is no token.
    """

    def __init__(
        self,
        credential: Any,
        scopes: tuple[str, ...],
        *,
        cae: bool,
        tenant_id: str | None,
        unavailable: type[TokenUnavailable] = TokenUnavailable,
    ) -> None:
        for scope in scopes:
            require(
                is_scope(scope) and len(scope.split()) == 1,
                f"each scope must be a string such as 'api://orders/.default', not {scope!r}",
            )
        credential = credential_of(credential)
        require(not isinstance(credential, type), f"{credential!r} is a class: make an object of it")
        self._ask = ask = CredentialCall(credential)
        require(
            callable(credential) or not ask.is_function,
            f"the credential must have get_token or get_token_info, or be a function, not {type(credential).__name__}",
        )
        self._unavailable = unavailable
        self._invalidate = getattr(credential, "invalidate", None)
        self._suspect = getattr(credential, "suspect", self._invalidate)
        self._scopes = scopes
        if ask.is_function:
            for name, given in (("scopes", scopes), ("tenant_id", tenant_id), ("cae=False", not cae)):
                require(not given, f"a function gets its tokens wherever it wants: {name} means nothing to it")
            self._takes = ask.takes & {"claims"}
        else:
            require(bool(scopes), "name at least one scope, such as 'api://orders/.default'")
            require(tenant_id is None or "tenant_id" in ask.takes, f"get_token of {ask.name} takes no tenant_id")
            self._takes = ask.takes
        options = {"tenant_id": tenant_id, "enable_cae": cae or None}
        self._options = {name: value for name, value in options.items() if value is not None and name in self._takes}
        self._usual = ask.bound(*scopes, **self._options)

    @property
    def takes_claims(self) -> bool:
        """Return whether a claims challenge can be met."""
        return "claims" in self._takes

    def token(self, claims: str | None) -> str:
        """Ask, blocking."""
        answer = None if self._ask.is_async else self._call(claims)()
        if self._ask.is_async or inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise ConfigurationError(_ASYNC_IN_SYNC)
        return self._text_of(answer)

    async def token_async(self, claims: str | None) -> str:
        """Ask in a task; a blocking credential is asked on a thread."""
        ask = self._call(claims)
        answer = ask() if self._ask.is_async else await on_a_thread(ask)
        return self._text_of(await answer if inspect.isawaitable(answer) else answer)

    @property
    def replaces(self) -> bool:
        """Return whether it can be told to give another token than the one that it holds."""
        return self._suspect is not None

    def refused(self, token: str, *, revoked: bool) -> None:
        """Tell the credential of a refused token; `revoked` where a claims challenge says that it is no good."""
        tell = self._invalidate if revoked else self._suspect
        if tell is not None:
            tell(token)

    async def refused_async(self, token: str, *, revoked: bool) -> None:
        """Tell the credential of a refused token, in a task."""
        tell = self._invalidate if revoked else self._suspect
        if tell is None:
            return
        done = tell(token) if inspect.iscoroutinefunction(tell) else await on_a_thread(partial(tell, token))
        if inspect.isawaitable(done):
            await done

    def told(self, error: Exception) -> TokenUnavailable | None:
        """Return what the credential raised as an error of the caller's HTTP library too; see `no_token`."""
        return no_token(error, self._unavailable)

    def too_late(self) -> TokenUnavailable:
        """Make the error of a call that ran out of time here."""
        return self._unavailable("deadline exceeded waiting for the credential's token")

    def _text_of(self, answer: object) -> str:
        if isinstance(answer, Mapping):
            if "access_token" not in answer:
                said = ": ".join(str(answer[k]) for k in ("error", "error_description") if answer.get(k))
                raise self._unavailable(f"the provider gave no token: {said or 'it said nothing more'}")
            text: object = answer["access_token"]
        else:
            text = getattr(answer, "token", answer)
        if not (isinstance(text, str) and text and text.isascii() and text.isprintable() and " " not in text):
            # What it is isn't shown: it may be most of a secret.
            raise self._unavailable(f"the credential gave {type(text).__name__} that can't be a token")
        return text

    def _call(self, claims: str | None) -> Callable[[], Any]:
        if claims is None or not self.takes_claims:
            return self._usual
        return self._ask.bound(*self._scopes, **self._options, claims=claims)


_ASYNC_IN_SYNC = "an async credential in a sync client: use httpx.AsyncClient, or a credential whose get_token blocks"
