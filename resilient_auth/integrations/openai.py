"""Tokens for openai's clients, of models in Azure or behind a gateway of one's own.

    refusals = on_refusal(credential)
    AzureOpenAI(
        azure_endpoint="https://shop.openai.azure.com", api_version="...",
        azure_ad_token_provider=token_provider(credential),
        http_client=DefaultHttpxClient(event_hooks={"response": [refusals]}),
    )
    OpenAI(base_url="https://shop.openai.azure.com/openai/v1/", api_key=token_provider(credential))

Those clients ask for a token at each attempt of a request, and tell nobody of a 401: the hook does. It works in the
clients of httpx and httpx2 alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from .. import aio
from .._policy.checks import require
from ..credential import get_bearer_token_provider

__all__ = ["async_on_refusal", "async_token_provider", "on_refusal", "token_provider"]

_SCOPE = "https://cognitiveservices.azure.com/.default"
_BEARER = "Bearer "


def token_provider(credential: Any, *scopes: str) -> Callable[[], str]:
    """Return what `OpenAI` takes as `api_key`, and `AzureOpenAI` as `azure_ad_token_provider`.

    Args:
        credential: Anything with `get_token` or `get_token_info`, such as `ResilientCredential`; none of asyncio's.
        scopes: What the token is for; none for Azure's AI services in the public cloud.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    return get_bearer_token_provider(credential, *(scopes or (_SCOPE,)))


def async_token_provider(credential: Any, *scopes: str) -> Callable[[], Coroutine[Any, Any, str]]:
    """Return the same for `AsyncOpenAI` and `AsyncAzureOpenAI`; a credential that blocks is asked on a thread."""
    return aio.get_bearer_token_provider(credential, *(scopes or (_SCOPE,)))


def on_refusal(credential: Any) -> Callable[[Any], None]:
    """Return a response hook that tells a credential of a 401, so that the next request has another token.

    Args:
        credential: One with `invalidate`, as `ResilientCredential` has; none of asyncio's.

    Raises:
        ConfigurationError: It has none, or is one of asyncio's.
    """
    invalidate = _way_to_tell(credential)
    require(
        not inspect.iscoroutinefunction(invalidate),
        f"credential is one of asyncio's, a {type(credential).__name__}: use async_on_refusal",
    )

    def tell(response: Any) -> None:
        token = _refused(response)
        if token is not None:
            invalidate(token)

    return tell


def async_on_refusal(credential: Any) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Return the same for asyncio's clients, for a credential of either kind."""
    invalidate = _way_to_tell(credential)

    async def tell(response: Any) -> None:
        token = _refused(response)
        if token is not None:
            done = invalidate(token)
            if inspect.isawaitable(done):
                await done

    return tell


def _way_to_tell(credential: Any) -> Callable[[str], Any]:
    # A 401 proves nothing: where that can be said, the token is served until its successor is there.
    invalidate: Any = getattr(credential, "suspect", None) or getattr(credential, "invalidate", None)
    require(
        callable(invalidate) and not isinstance(credential, type),
        f"credential must have invalidate, as ResilientCredential has, and {type(credential).__name__} hasn't",
    )
    found: Callable[[str], Any] = invalidate
    return found


def _refused(response: Any) -> str | None:
    """Return the token that was sent, where a response refuses it."""
    sent = str(response.request.headers.get("Authorization") or "")
    return sent.removeprefix(_BEARER) if response.status_code == 401 and sent.startswith(_BEARER) else None
