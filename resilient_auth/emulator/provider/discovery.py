"""Metadata: OpenID configuration, keys, Entra's host aliases and user realms."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from ..settings import Settings
from ..wire.messages import Request, Response, json_response
from .keys import KeyRing
from .oauth_errors import Refusal
from .realms import CLOUDS, Realm, is_microsoft, tenant_id

RESPONSE_MODES: Final = ("query", "fragment", "form_post")
RESPONSE_TYPES: Final = ("code", "id_token", "code id_token")

_TENANT_TEMPLATE: Final = "{tenantid}"
_CACHEABLE: Final = (("Cache-Control", "max-age=86400, private"),)


class Discovery:
    """Answers what clients and validators ask before they ask for tokens."""

    def __init__(self, keys: KeyRing, settings: Settings) -> None:
        self._keys = keys
        self._settings = settings

    def openid_configuration(self, request: Request, realm: Realm) -> Response:
        """Answer with the discovery document of a realm."""
        if realm.tenant.lower() in self._settings.missing_tenants:
            raise Refusal("invalid_tenant", 90002, f"Tenant '{realm.tenant}' not found.")
        document: dict[str, Any] = {
            "issuer": realm.issuer(_TENANT_TEMPLATE if realm.shared else realm.tid),
            "authorization_endpoint": realm.endpoint("authorize"),
            "token_endpoint": realm.endpoint("token"),
            "device_authorization_endpoint": realm.endpoint("devicecode"),
            "end_session_endpoint": realm.endpoint("logout"),
            "frontchannel_logout_supported": True,
            "frontchannel_logout_session_supported": True,
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
            "jwks_uri": realm.endpoint("keys"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "response_modes_supported": RESPONSE_MODES,
            "response_types_supported": RESPONSE_TYPES,
            "subject_types_supported": ["pairwise"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "name", "nonce", "oid", "tid"],
        }
        if realm.kind in ("v1", "v2"):
            document |= {
                "tenant_region_scope": None if realm.shared else "EU",
                "cloud_instance_name": "microsoftonline.com",
                "cloud_graph_host_name": "graph.windows.net",
                "msgraph_host": "graph.microsoft.com",
            }
        if realm.kind == "adfs":
            document["access_token_issuer"] = realm.access_token_issuer(realm.tid)
        return json_response(document, headers=_CACHEABLE)

    def keys(self, realm: Realm) -> Response:
        """Answer with the published keys; Entra's v2 keys name the issuer that they sign for."""
        jwks = [key.as_jwk() for key in self._keys.published]
        if realm.kind == "v2":
            issuer = realm.issuer(_TENANT_TEMPLATE if realm.shared else realm.tid)
            jwks = [jwk | {"issuer": issuer, "cloud_instance_name": "microsoftonline.com"} for jwk in jwks]
        return json_response({"keys": jwks}, headers=_CACHEABLE)

    def instances(self, request: Request) -> Response:
        """Answer Entra's instance discovery: where a tenant's document is, and which hosts are one cloud."""
        asked = urlsplit(request.query.get("authorization_endpoint", ""))
        own = asked.hostname in ("localhost", "127.0.0.1")
        if asked.scheme != "https" or not (own or is_microsoft(asked.netloc)):
            raise Refusal("invalid_instance", 50049, "Unknown or invalid instance.")
        path = asked.path.lower()
        tenant = asked.path.strip("/").partition("/")[0] or "common"
        version = "/v2.0" if "/v2.0/" in path else ""
        # MSAL leaves the port out of what it asks, so this host and its port answer for the emulator itself.
        host = request.host if own else asked.netloc
        return json_response(
            {
                "tenant_discovery_endpoint": f"https://{host}/{tenant}{version}/.well-known/openid-configuration",
                "api-version": request.query.get("api-version", "1.0"),
                "metadata": [
                    {"preferred_network": network, "preferred_cache": cache or network, "aliases": [network, *aliases]}
                    for network, aliases, cache in CLOUDS
                ],
            },
            headers=_CACHEABLE,
        )

    def user_realm(self, request: Request) -> Response:
        """Answer that every user is managed, not federated."""
        domain = request.segments[-1].partition("@")[2]
        return json_response(
            {
                "ver": "1.0",
                "account_type": "Managed" if domain else "Unknown",
                "domain_name": domain,
                "cloud_instance_name": "microsoftonline.com",
                "cloud_audience_urn": "urn:federation:MicrosoftOnline",
                "tenant_id": tenant_id(domain or "contoso"),
            }
        )
