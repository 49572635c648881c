"""Tokens for anthropic's clients, of models in Microsoft Foundry or behind a gateway of one's own.

    AnthropicFoundry(resource="shop", azure_ad_token_provider=token_provider(credential))
    Anthropic(base_url="https://gateway.example", credentials=Credentials(credential, "api://gateway/.default"))

The first asks for a token at each request. The second does so too, and tells of a 401. Needs the extra:
`pip install 'resilient-auth[anthropic]'`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from .. import aio
from .._process.extras import raise_missing
from ..credential import get_bearer_token_provider

try:
    from anthropic.lib.credentials import AccessToken
except ImportError as error:
    raise_missing(__name__, "anthropic", error)

__all__ = ["AsyncCredentials", "Credentials", "async_token_provider", "token_provider"]

_SCOPE = "https://ai.azure.com/.default"
#: Has the client ask each time: what is held, and for how long, is the credential's matter.
_ASK_EACH_TIME = 0


def token_provider(credential: Any, *scopes: str) -> Callable[[], str]:
    """Return what `AnthropicFoundry` takes as `azure_ad_token_provider`.

    Args:
        credential: Anything with `get_token` or `get_token_info`, such as `ResilientCredential`; none of asyncio's.
        scopes: What the token is for; none for Microsoft Foundry in the public cloud.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    return get_bearer_token_provider(credential, *(scopes or (_SCOPE,)))


def async_token_provider(credential: Any, *scopes: str) -> Callable[[], Coroutine[Any, Any, str]]:
    """Return the same for `AsyncAnthropicFoundry`; a credential that blocks is asked on a thread."""
    return aio.get_bearer_token_provider(credential, *(scopes or (_SCOPE,)))


class Credentials:
    """Give a credential's tokens to `Anthropic(credentials=...)`, and tell it of one that was refused.

    Args:
        credential: Anything with `get_token` or `get_token_info`, such as `ResilientCredential`; none of asyncio's.
        scopes: What the token is for.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(self, credential: Any, *scopes: str) -> None:
        self._provide = get_bearer_token_provider(credential, *scopes)
        self._tell = _way_to_tell(credential)
        self._last: str | None = None

    def __call__(self, *, force_refresh: bool = False) -> AccessToken:
        """Return a token; anthropic's client calls it.

        Args:
            force_refresh: The last one was refused.
        """
        if force_refresh and self._last is not None and self._tell is not None:
            self._tell(self._last)
        self._last = self._provide()
        return AccessToken(self._last, _ASK_EACH_TIME)


class AsyncCredentials:
    """Do the same for `AsyncAnthropic`, for a credential of either kind."""

    def __init__(self, credential: Any, *scopes: str) -> None:
        self._provide = aio.get_bearer_token_provider(credential, *scopes)
        self._tell = _way_to_tell(credential)
        self._last: str | None = None

    async def __call__(self, *, force_refresh: bool = False) -> AccessToken:
        """Return a token; anthropic's client awaits it."""
        if force_refresh and self._last is not None and self._tell is not None:
            done = self._tell(self._last)
            if inspect.isawaitable(done):
                await done
        self._last = await self._provide()
        return AccessToken(self._last, _ASK_EACH_TIME)


def _way_to_tell(credential: Any) -> Callable[[str], Any] | None:
    """Return how a credential is told of a 401, which proves nothing; None where it can't be."""
    tell: Callable[[str], Any] | None = getattr(credential, "suspect", None) or getattr(credential, "invalidate", None)
    return tell
