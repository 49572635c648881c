# mypy: disable-error-code="empty-body"
"""What ours inherit from MSAL's classes, with types, which MSAL itself hasn't. Nothing imports this at runtime.

`tests/faces/test_types.py` compares it and ours with the installed MSAL: what a release adds is to be added here, and
to what `aio` declares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, TypedDict

from msal import SystemAssignedManagedIdentity, TokenCache, UserAssignedManagedIdentity
from msal.authority import AuthorityBuilder

from ..rotation.sources import CertificateFile
from . import bases


class CommonArguments(TypedDict, total=False):
    authority: str | AuthorityBuilder | None
    validate_authority: bool
    token_cache: TokenCache | None
    http_client: Any
    verify: bool | str
    proxies: Mapping[str, str] | None
    timeout: float | tuple[float, float] | None
    client_claims: Mapping[str, Any] | None
    app_name: str | None
    app_version: str | None
    client_capabilities: list[str] | None
    azure_region: str | bool | None
    exclude_scopes: list[str] | None
    http_cache: MutableMapping[str, Any] | None
    instance_discovery: bool | None
    allow_broker: bool | None
    enable_pii_log: bool | None
    oidc_authority: str | AuthorityBuilder | None


class ClientArguments(CommonArguments, total=False):
    # MSAL takes the first two.
    client_credential: (
        str | Mapping[str, Any] | os.PathLike[str] | CertificateFile | Callable[[], str | Mapping[str, Any]] | None
    )


class PublicArguments(CommonArguments, total=False):
    enable_broker_on_windows: bool | None
    enable_broker_on_mac: bool | None
    enable_broker_on_linux: bool | None
    enable_broker_on_wsl: bool | None


class ClientApplication(bases.ClientApplication):
    ACQUIRE_TOKEN_SILENT_ID: ClassVar[str]
    ACQUIRE_TOKEN_BY_REFRESH_TOKEN: ClassVar[str]
    ACQUIRE_TOKEN_BY_USERNAME_PASSWORD_ID: ClassVar[str]
    ACQUIRE_TOKEN_BY_AUTHORIZATION_CODE_ID: ClassVar[str]
    ACQUIRE_TOKEN_ON_BEHALF_OF_ID: ClassVar[str]
    ACQUIRE_TOKEN_BY_DEVICE_FLOW_ID: ClassVar[str]
    ACQUIRE_TOKEN_FOR_CLIENT_ID: ClassVar[str]
    ACQUIRE_TOKEN_BY_USER_FIC_ID: ClassVar[str]
    ACQUIRE_TOKEN_INTERACTIVE: ClassVar[str]
    GET_ACCOUNTS_ID: ClassVar[str]
    REMOVE_ACCOUNT_ID: ClassVar[str]
    ATTEMPT_REGION_DISCOVERY: ClassVar[bool]
    DISABLE_MSAL_FORCE_REGION: ClassVar[bool]

    client_id: str
    token_cache: Any
    http_client: Any
    authority: Any

    def is_pop_supported(self) -> bool: ...
    def initiate_auth_code_flow(
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
    def get_authorization_request_url(
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


class PublicClientApplication(ClientApplication, bases.PublicClientApplication):
    DEVICE_FLOW_CORRELATION_ID: ClassVar[str]
    CONSOLE_WINDOW_HANDLE: ClassVar[object]


class ConfidentialClientApplication(ClientApplication, bases.ConfidentialClientApplication): ...


class ManagedIdentityClient(bases.ManagedIdentityClient):
    _managed_identity: dict[str, Any]
    _http_client: Any
    _token_cache: Any
    _client_capabilities: list[str] | None

    def __init__(
        self,
        managed_identity: dict[str, Any] | SystemAssignedManagedIdentity | UserAssignedManagedIdentity,
        *,
        http_client: Any,
        token_cache: TokenCache | None = None,
        http_cache: MutableMapping[str, Any] | None = None,
        client_capabilities: list[str] | None = None,
    ) -> None: ...
