"""Tokens as passwords of Azure's Redis, by redis-entraid.

    redis.Redis(host, 10000, ssl=True, credential_provider=credential_provider(resilient_auth.ResilientCredential(app)))

Its manager authenticates open connections anew as a token nears its end. Needs the extra:
`pip install 'resilient-auth[redis_entraid]'`.
"""

from __future__ import annotations

import inspect
from typing import Any

from .._credentials.request import way_to_ask
from .._engine.acquire import wait_at_most
from .._policy.checks import require, require_number
from .._process.extras import raise_missing

try:
    from redis.auth.err import RequestTokenErr
    from redis.auth.idp import IdentityProviderInterface
    from redis.auth.token import JWToken, TokenInterface
    from redis.auth.token_manager import RetryPolicy, TokenManagerConfig
    from redis_entraid import cred_provider
except ImportError as error:
    raise_missing(__name__, "redis_entraid", error)

__all__ = ["IdentityProvider", "credential_provider"]

_SCOPE = "https://redis.azure.com/.default"


class IdentityProvider(IdentityProviderInterface):
    """Give a credential's tokens to redis-entraid.

    Args:
        credential: Anything with `get_token` or `get_token_info`, such as `ResilientCredential`; none of asyncio's, for
            `redis.asyncio` neither, whose manager asks without awaiting.
        scopes: What the token is for; none for Azure's Redis.
        wait: Seconds to wait at most where no token is held. An asyncio client's loop stands still for as long.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(self, credential: Any, *scopes: str, wait: float = 5.0) -> None:
        require_number("wait", wait, low=0.01, high=3600.0)
        self._scopes = scopes or (_SCOPE,)
        self._ask = way_to_ask(credential, self._scopes)
        require(
            not inspect.iscoroutinefunction(self._ask),
            f"credential is one of asyncio's, a {type(credential).__name__}, and redis-entraid doesn't await it: "
            "use resilient_auth.ResilientCredential, for redis.asyncio too",
        )
        self._wait = wait

    def request_token(self, force_refresh: bool = False) -> TokenInterface:
        """Return a token; redis-entraid's name.

        Args:
            force_refresh: It says so each time, and it means nothing here: what is held is refreshed ahead, and is
                still good while its provider is down.

        Raises:
            RequestTokenErr: There is none; redis-entraid tries again.
        """
        try:
            with wait_at_most(self._wait):
                token = self._ask(*self._scopes).token
        except Exception as error:
            raise RequestTokenErr(str(error)) from error  # type: ignore[no-untyped-call]
        try:
            return JWToken(token)
        except Exception:  # noqa: BLE001 - PyJWT's errors, and redis-py's own
            # Without what led to it: it may quote the token.
            message = "the credential gave no JWT, and Redis takes its user's name from one"
            raise RequestTokenErr(message) from None  # type: ignore[no-untyped-call]


def credential_provider(credential: Any, *scopes: str, wait: float = 5.0) -> cred_provider.EntraIdCredentialsProvider:
    """Return the `credential_provider` that a Redis client takes; arguments as for `IdentityProvider`."""
    config = TokenManagerConfig(
        cred_provider.DEFAULT_EXPIRATION_REFRESH_RATIO,
        cred_provider.DEFAULT_LOWER_REFRESH_BOUND_MILLIS,
        cred_provider.DEFAULT_TOKEN_REQUEST_EXECUTION_TIMEOUT_IN_MS,
        RetryPolicy(cred_provider.DEFAULT_MAX_ATTEMPTS, cred_provider.DEFAULT_DELAY_IN_MS),
    )
    return cred_provider.EntraIdCredentialsProvider(IdentityProvider(credential, *scopes, wait=wait), config)
