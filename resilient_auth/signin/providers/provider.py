"""The identity providers at which users sign in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from ..._policy.checks import check_scopes, require
from ...errors import ConfigurationError
from ...verify import ClaimsVerifier
from ...verify.trust import b2c, entra, external_id, of_issuers
from ..sessions.record import GUEST
from ..user import ONE_TIME_CODE

__all__ = ["IdentityProvider", "Use"]

#: What a user comes for: to sign in, or to one of B2C's other policies.
Use = Literal["sign_in", "edit", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProvider:
    """Describe a provider: made by `for_entra`, `for_b2c`, `for_external_id` or `for_openid`.

    Args:
        name: Names it in addresses, sessions and events: letters, digits and hyphens.
        label: What users call it.
        client_id: The application's, there.
        client_credential: Its secret, certificate or assertion, as MSAL takes it.
        scopes: The one set of scopes that every sign-in asks for (G6); empty where no API is called.
        authorities: The authority of each use; as MSAL takes them.
        openid: Whether these are issuers of any OpenID provider.
        verifier: Makes the verifier of its ID tokens.
        response_mode: How the answer comes back: in a form, which no log or history keeps; or, for a provider that
            knows nothing else, in the address: `query`.
        client_capabilities: As in MSAL: `["cp1"]` where every API is called by `api_client`, or its claims challenges
            are handed to `token` (G17).
        verify: As in MSAL.
        proxies: As in MSAL.
        timeout: As in MSAL.
    """

    name: str
    label: str
    client_id: str
    client_credential: Any = field(repr=False)
    scopes: tuple[str, ...]
    authorities: Mapping[Use, str]
    openid: bool
    verifier: Callable[..., ClaimsVerifier] = field(repr=False)
    response_mode: Literal["form_post", "query"]
    client_capabilities: tuple[str, ...]
    verify: Any
    proxies: Mapping[str, str] | None
    timeout: Any

    @classmethod
    def for_entra(
        cls,
        tenant: str,
        *,
        client_id: str,
        client_credential: Any = None,
        authority: str = "https://login.microsoftonline.com",
        tenants: Collection[str] = (),
        **options: Any,
    ) -> IdentityProvider:
        """Describe Microsoft Entra ID.

        Args:
            tenant: Its GUID or domain name; `organizations` or `common` for many.
            client_id: The application's.
            client_credential: Its secret, certificate or assertion, as MSAL takes it.
            authority: Another cloud's, such as `https://login.microsoftonline.us`.
            tenants: GUIDs of the tenants whose users may sign in, of `organizations` or `common`.
            options: `name`, `label`, `scopes`, `response_mode`, `client_capabilities`, `verify`, `proxies`, `timeout`.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        entra(tenant, authority)

        def verifier(**wire: Any) -> ClaimsVerifier:
            return ClaimsVerifier.for_entra(
                tenant, client_id, authority=authority, tenants=tenants, accepts="id", **wire
            )

        authorities: dict[Use, str] = {"sign_in": f"{authority.rstrip('/')}/{tenant}"}
        return cls._of("entra", client_id, client_credential, authorities, verifier, options)

    @classmethod
    def for_b2c(
        cls,
        tenant: str,
        *,
        client_id: str,
        sign_in: str,
        edit: str | None = None,
        reset: str | None = None,
        client_credential: Any = None,
        authority: str | None = None,
        **options: Any,
    ) -> IdentityProvider:
        """Describe Azure AD B2C.

        Args:
            tenant: Its name, such as `contoso`.
            client_id: The application's.
            sign_in: The policy by which users sign up or sign in.
            edit: The policy by which they change their profile.
            reset: The policy by which they get a new password.
            client_credential: As for `for_entra`.
            authority: A custom domain, such as `https://login.contoso.com`.
            options: As for `for_entra`.
        """
        policies: dict[Use, str | None] = {"sign_in": sign_in, "edit": edit, "reset": reset}
        for use, policy in policies.items():
            absent = policy is None and use != "sign_in"
            require(absent or isinstance(policy, str), f"{use} must be the name of a policy, not {policy!r}")
            if not absent:
                b2c(tenant, (policy,), authority=authority)
        name = tenant.lower().removesuffix(".onmicrosoft.com")
        base = f"{(authority or f'https://{name}.b2clogin.com').rstrip('/')}/{name}.onmicrosoft.com"
        authorities: dict[Use, str] = {use: f"{base}/{policy}" for use, policy in policies.items() if policy}

        def verifier(**wire: Any) -> ClaimsVerifier:
            given = [policy for policy in policies.values() if policy]
            return ClaimsVerifier.for_b2c(tenant, given, client_id, authority=authority, accepts="id", **wire)

        return cls._of("b2c", client_id, client_credential, authorities, verifier, options)

    @classmethod
    def for_external_id(
        cls,
        tenant: str,
        *,
        client_id: str,
        client_credential: Any = None,
        authority: str | None = None,
        **options: Any,
    ) -> IdentityProvider:
        """Describe Microsoft Entra External ID.

        Args:
            tenant: Its name, such as `contoso`.
            client_id: The application's.
            client_credential: As for `for_entra`.
            authority: A custom domain, such as `https://login.contoso.com`.
            options: As for `for_entra`.
        """
        external_id(tenant, authority=authority)
        name = tenant.lower().removesuffix(".onmicrosoft.com")
        base = (authority or f"https://{name}.ciamlogin.com").rstrip("/")

        def verifier(**wire: Any) -> ClaimsVerifier:
            return ClaimsVerifier.for_external_id(tenant, client_id, authority=authority, accepts="id", **wire)

        authorities: dict[Use, str] = {"sign_in": f"{base}/{name}.onmicrosoft.com"}
        return cls._of("external-id", client_id, client_credential, authorities, verifier, options)

    @classmethod
    def for_openid(
        cls, issuer: str, *, client_id: str, client_credential: Any = None, **options: Any
    ) -> IdentityProvider:
        """Describe any OpenID provider.

        Args:
            issuer: Its `iss`, below which its discovery document is. MSAL, which asks for the tokens, takes one with a
                path alone, such as `https://id.example/realms/shop`.
            client_id: The application's.
            client_credential: As for `for_entra`.
            options: As for `for_entra`.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        require(isinstance(issuer, str), f"issuer must be an https address, not {issuer!r}")
        of_issuers(issuer)
        parts = urlsplit(issuer)
        require(
            bool(parts.path.strip("/")) or (parts.hostname or "").endswith(".ciamlogin.com"),
            f"issuer must have a path, such as https://id.example/realms/shop: MSAL doesn't take {issuer!r}, and so "
            "nobody can sign in there by this package; tokens of it are verified by ClaimsVerifier",
        )

        def verifier(**wire: Any) -> ClaimsVerifier:
            return ClaimsVerifier(issuer=issuer, audience=client_id, accepts="id", **wire)

        authorities: dict[Use, str] = {"sign_in": issuer}
        return cls._of("openid", client_id, client_credential, authorities, verifier, options, openid=True)

    @classmethod
    def _of(
        cls,
        name: str,
        client_id: str,
        client_credential: Any,
        authorities: Mapping[Use, str],
        verifier: Callable[..., ClaimsVerifier],
        options: Mapping[str, Any],
        *,
        openid: bool = False,
    ) -> IdentityProvider:
        given = dict(options)
        name = given.pop("name", name)
        scopes = check_scopes(given.pop("scopes", ()), empty=True)
        named = isinstance(name, str) and name.replace("-", "").isalnum() and name.isascii() and len(name) <= 40
        require(named, f"name must be letters, digits and hyphens, not {name!r}")
        # Sessions that came in without a provider have these in its place.
        require(name not in (GUEST, ONE_TIME_CODE), f"name must be another one than {name!r}: that is no provider's")
        require(isinstance(client_id, str) and bool(client_id), f"client_id must be a text, not {client_id!r}")
        mode = given.pop("response_mode", "form_post")
        require(mode in ("form_post", "query"), f'response_mode must be "form_post" or "query", not {mode!r}')
        provider = cls(
            name=name,
            label=str(given.pop("label", name)),
            client_id=client_id,
            client_credential=client_credential,
            scopes=scopes,
            authorities=authorities,
            openid=openid,
            verifier=verifier,
            response_mode=mode,
            client_capabilities=tuple(given.pop("client_capabilities", ())),
            verify=given.pop("verify", True),
            proxies=given.pop("proxies", None),
            timeout=given.pop("timeout", None),
        )
        for unknown in given:
            raise ConfigurationError(f"{unknown} is no option of an identity provider")
        return provider
