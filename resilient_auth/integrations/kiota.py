"""Tokens for clients that Kiota generates, Microsoft Graph's SDK among them.

    provider = AuthenticationProvider(resilient_auth.aio.ResilientCredential(app))
    graph = msgraph.GraphServiceClient(request_adapter=GraphRequestAdapter(provider))

Its adapter answers a claims challenge by asking here again; a plain 401 it tells to nobody. Needs the
extra: `pip install 'resilient-auth[kiota]'`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from .._policy.checks import require
from .._process.extras import raise_missing
from ..downstream.challenge import read
from ..downstream.origins import is_loopback
from ..downstream.source import TokenSource
from ..errors import ConfigurationError

try:
    from kiota_abstractions import authentication as kiota
except ImportError as error:
    raise_missing(__name__, "kiota", error)

__all__ = ["GRAPH_HOSTS", "AccessTokenProvider", "AuthenticationProvider"]

#: Microsoft Graph's hosts, worldwide and in national clouds.
GRAPH_HOSTS = (
    "graph.microsoft.com",
    "graph.microsoft.us",
    "dod-graph.microsoft.us",
    "graph.microsoft.de",
    "microsoftgraph.chinacloudapi.cn",
    "canary.graph.microsoft.com",
)
_GRAPH = "https://graph.microsoft.com/.default"
_CLAIMS = "claims"


class AccessTokenProvider(kiota.AccessTokenProvider):  # type: ignore[misc]
    """Give tokens to a Kiota client, for allowed hosts alone.

    Args:
        credential: Anything with azure-core's `get_token` or `get_token_info`, of either kind; one that blocks is asked
            on a thread.
        scopes: What the token is for; none for Microsoft Graph's, worldwide.
        allowed_hosts: Where it may go: hosts, or their ends, such as `.example.com`. Microsoft Graph's where no scopes
            are given. Requests to other hosts go without it.
        tenant_id: Another tenant than the credential's own.
        cae: Ask for tokens that can be revoked early: the adapter handles claims challenges.
        allow_http_loopback: Let the token go to this machine over http, for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        credential: Any,
        *scopes: str,
        allowed_hosts: Iterable[str] | None = None,
        tenant_id: str | None = None,
        cae: bool = True,
        allow_http_loopback: bool = False,
    ) -> None:
        hosts = GRAPH_HOSTS if allowed_hosts is None and not scopes else allowed_hosts
        require(
            hosts is not None and not isinstance(hosts, str) and bool(hosts := tuple(hosts)),
            "allowed_hosts must list the hosts that the token may go to, such as ['api.example']",
        )
        require(bool(scopes) or allowed_hosts is None, "name at least one scope for these allowed_hosts")
        try:
            self._validator = kiota.AllowedHostsValidator(list(hosts or ()))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"allowed_hosts must hold hosts without https://: {error}") from None
        self._source = TokenSource(credential, scopes or (_GRAPH,), cae=cae, tenant_id=tenant_id)
        self._allow_http_loopback = allow_http_loopback

    async def get_authorization_token(
        self, uri: str, additional_authentication_context: dict[str, Any] | None = None
    ) -> str:
        """Return the token for a request, "" where it may not go; Kiota's name."""
        if not self._validator.is_url_host_valid(uri):
            return ""
        parts = urlsplit(uri)
        require(
            parts.scheme == "https" or (self._allow_http_loopback and is_loopback(parts.hostname or "")),
            f"a token for {parts.hostname} would go over {parts.scheme}, where it can be read on the way: use https",
        )
        challenge = (additional_authentication_context or {}).get(_CLAIMS)
        return await self._source.token_async(_decoded(challenge) if challenge else None)

    def get_allowed_hosts_validator(self) -> kiota.AllowedHostsValidator:
        """Return what knows the allowed hosts; Kiota's name."""
        return self._validator


class AuthenticationProvider(kiota.BaseBearerTokenAuthenticationProvider):  # type: ignore[misc]
    """Sign a Kiota client's requests; arguments as for `AccessTokenProvider`."""

    def __init__(self, credential: Any, *scopes: str, **options: Any) -> None:
        super().__init__(AccessTokenProvider(credential, *scopes, **options))


def _decoded(challenge: Any) -> str | None:
    """Return a challenge's claims as JSON, which the adapter passes on as they came; None for what makes no sense."""
    if not isinstance(challenge, str) or '"' in challenge:
        return None
    return read([f'Bearer error="insufficient_claims", claims="{challenge}"'])
