"""Where tokens come from: any credential, or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from .._engine.threads import on_a_thread
from .._policy.checks import is_scope, require
from ..errors import ConfigurationError
from .errors import TokenUnavailable

__all__ = ["ForgettingCredential", "TokenSource"]


class ForgettingCredential(Protocol):
    """What a credential offers beside `get_token` or `get_token_info` to have a refused token replaced.

    Without it, a refused token is replaced only if the credential gives another one by itself.
    """

    def invalidate(self, token: str, /) -> object:
        """Forget this token if it is the one that is held, and leave its successor alone (compare and swap).

        May be a coroutine function where `get_token` is one.
        """
        ...


class TokenSource:
    """Ask a credential for one set of scopes, in whichever of the usual shapes it has.

    Args:
        credential: Has `get_token_info(*scopes, options={...})` or `get_token(*scopes, ...)`, as azure-core's do, or is
            a function. A function is called with `claims=` if it takes that, and gives the token, something with a
            `token`, or a result of MSAL's.
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
        self._unavailable = unavailable
        self._options = {
            name: value for name, value in (("tenant_id", tenant_id), ("enable_cae", cae or None)) if value is not None
        }
        self._scopes = scopes
        self._invalidate = getattr(credential, "invalidate", None)
        self._by_options = callable(getattr(credential, "get_token_info", None))
        ask = getattr(credential, "get_token_info", None) or getattr(credential, "get_token", None)
        if ask is None:
            require(
                callable(credential),
                "the credential must have get_token or get_token_info, or be a function, "
                f"not {type(credential).__name__}",
            )
            ask = credential
            self._takes = _keywords(ask)
            if "claims" not in self._takes:
                self._takes = frozenset()
            self._arguments: tuple[str, ...] = ()
            self._takes &= {"claims"}
            require(not tenant_id, "a function gets its tokens wherever it wants: tenant_id means nothing to it")
        else:
            require(bool(scopes), "name at least one scope, such as 'api://orders/.default'")
            self._takes = frozenset({"claims", "tenant_id", "enable_cae"}) if self._by_options else _keywords(ask)
            self._arguments = scopes
        self._ask: Callable[..., Any] = ask
        self._is_async = inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(
            getattr(ask, "__call__", None)  # noqa: B004 - not whether it can be called, but how
        )
        self._usual = self._keywords_for(None)

    @property
    def takes_claims(self) -> bool:
        """Return whether a claims challenge can be met."""
        return "claims" in self._takes

    def token(self, claims: str | None) -> str:
        """Ask, blocking."""
        if self._is_async:
            raise ConfigurationError(_ASYNC_IN_SYNC)
        answer = self._ask(*self._arguments, **(self._usual if claims is None else self._keywords_for(claims)))
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise ConfigurationError(_ASYNC_IN_SYNC)
        return self._text_of(answer)

    async def token_async(self, claims: str | None) -> str:
        """Ask in a task; a blocking credential is asked on a thread."""
        keywords = self._usual if claims is None else self._keywords_for(claims)
        if self._is_async:
            return self._text_of(await self._ask(*self._arguments, **keywords))
        answer = await on_a_thread(partial(self._ask, *self._arguments, **keywords))
        return self._text_of(await answer if inspect.isawaitable(answer) else answer)

    def forget(self, token: str) -> None:
        """Have a refused token forgotten."""
        if self._invalidate is not None:
            self._invalidate(token)

    async def forget_async(self, token: str) -> None:
        """Have a refused token forgotten, in a task."""
        if self._invalidate is not None:
            done = self._invalidate(token)
            if inspect.isawaitable(done):
                await done

    def _text_of(self, answer: object) -> str:
        if isinstance(answer, Mapping):
            if "access_token" not in answer:
                said = ": ".join(str(answer[k]) for k in ("error", "error_description") if answer.get(k))
                raise self._unavailable(f"the provider gave no token: {said or 'it said nothing more'}")
            text: object = answer["access_token"]
        else:
            text = getattr(answer, "token", answer)
        if not isinstance(text, str) or not text or not text.isascii() or any(c.isspace() for c in text):
            # What it is isn't shown: it may be most of a secret.
            raise self._unavailable(f"the credential gave {type(text).__name__} that can't be a token")
        return text

    def _keywords_for(self, claims: str | None) -> dict[str, Any]:
        options = self._options if claims is None else {**self._options, "claims": claims}
        options = {name: value for name, value in options.items() if name in self._takes}
        return {"options": options} if self._by_options else options


_ASYNC_IN_SYNC = (
    "this credential is asyncio's, and the client isn't: use httpx.AsyncClient, or a credential whose get_token blocks"
)


def _keywords(call: Callable[..., Any]) -> frozenset[str]:
    known = frozenset({"claims", "tenant_id", "enable_cae"})
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return known
    return known & {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
