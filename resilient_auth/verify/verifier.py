"""The claims verifier, as blocking callers have it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, Self

from .._engine.steps import Step, run
from .._policy.checks import called
from ..errors import ConfigurationError
from ..settings import Settings
from .bound.binding import BindingOptions
from .bound.presented import Presented
from .claims import Claims
from .deny import DenyList
from .options import GraceOptions, KeyOptions
from .rules.asked import NOTHING, Expected, check_asked
from .seen import SeenOptions
from .trust import Trust, b2c, entra, external_id, of_issuers
from .verification import Verification, Verify, Verifying

__all__ = ["Blocking", "ClaimsVerifier", "Core", "Face", "Verifier"]

#: What decides whose tokens are accepted, and so isn't given where a tenant says it.
_OF_TRUSTS = frozenset({"issuer", "discovery", "jwks_uri", "http_on_loopback"})
_OPTIONS = frozenset(inspect.signature(Verification).parameters) - {"trusts", "audience"}
#: What settings are called where MSAL's signatures are kept; the error for that says so.
_ELSEWHERE = frozenset({"resilience"})


class Core(Protocol):
    """What verifies tokens, step by step, for the faces of threads and of tasks."""

    def seen(self, token: str) -> Claims | None:
        """Return the claims of a token that was verified before; None where it must be verified."""

    def verifying(self, token: str, asked: Expected) -> Verifying:
        """Verify a token."""

    def warming(self) -> Generator[Step, Any, None]:
        """Get every issuer's keys."""

    def close(self) -> None:
        """Forget what was verified."""


class Face:
    """What all verifiers have in common: what they are made of, and how they are shown."""

    _core: Core

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a verifier can't be pickled: make one in each process")


class Verifier(Face):
    """What the blocking verifier and asyncio's have in common: how they are made. See `ClaimsVerifier`."""

    @called("settings", elsewhere="resilience")
    def __init__(
        self,
        *,
        issuer: str | Sequence[str],
        audience: str | Sequence[str],
        discovery: str | None = None,
        jwks_uri: str | None = None,
        http_on_loopback: bool = False,
        algorithms: Collection[str] = ("RS256",),
        accepts: Literal["access", "id"] = "access",
        tenants: Collection[str] = (),
        clients: Collection[str] = (),
        leeway: float = 60.0,
        keys: KeyOptions | None = None,
        pinned_keys: str | PathLike[str] | Mapping[str, Any] | None = None,
        seen: SeenOptions | None = None,
        grace: GraceOptions | None = None,
        deny: DenyList | None = None,
        is_application: Callable[[Mapping[str, Any]], bool] | None = None,
        roles_claim: str | Sequence[str] = "roles",
        client_as_audience: bool = False,
        binding: BindingOptions | None = None,
        settings: Settings | None = None,
        verify: Verify = True,
        proxies: Mapping[str, str] | None = None,
        timeout: float | tuple[float | None, float | None] | None = None,
    ) -> None:
        self._core = Verification(
            of_issuers(issuer, discovery, jwks_uri, http_on_loopback=http_on_loopback),
            audience=audience,
            algorithms=algorithms,
            accepts=accepts,
            tenants=tenants,
            clients=clients,
            leeway=leeway,
            keys=keys,
            pinned_keys=pinned_keys,
            seen=seen,
            grace=grace,
            deny=deny,
            is_application=is_application,
            roles_claim=roles_claim,
            client_as_audience=client_as_audience,
            binding=binding,
            settings=settings,
            verify=verify,
            proxies=proxies,
            timeout=timeout,
        )

    @classmethod
    def for_entra(
        cls,
        tenant: str,
        audience: str | Sequence[str],
        *,
        authority: str = "https://login.microsoftonline.com",
        keys_of: str | None = None,
        **options: Any,
    ) -> Self:
        """Verify tokens of Microsoft Entra ID, of version 1 and of version 2.

        Args:
            tenant: Its GUID or a domain name; or `organizations`, `common` or `consumers`, where `tenants=` says whose
                tokens are accepted: without it, those of every tenant there is.
            audience: The client id, and the App ID URI for version 1 tokens.
            authority: Another cloud's, such as `https://login.microsoftonline.us`.
            keys_of: The client id of an application with a signing key of its own, as one with claims mapping has: its
                keys are asked for at `?appid=`. None for the tenant's.
            options: As for the class.

        Raises:
            ConfigurationError: An argument is wrong, or isn't one here.
        """
        return cls._of(entra(tenant, authority, keys_of=keys_of), audience, options)

    @classmethod
    def for_b2c(
        cls,
        tenant: str,
        policies: Collection[str],
        audience: str | Sequence[str],
        *,
        tenant_id: str | None = None,
        authority: str | None = None,
        **options: Any,
    ) -> Self:
        """Verify tokens of Azure AD B2C.

        Args:
            tenant: Its name, such as `contoso` or `contoso.onmicrosoft.com`.
            policies: The user flows and custom policies whose tokens are accepted, by name.
            audience: The client id.
            tenant_id: The tenant's GUID; learned from the discovery document when not given.
            authority: A custom domain, such as `https://login.contoso.com`.
            options: As for the class.
        """
        return cls._of(b2c(tenant, policies, tenant_id=tenant_id, authority=authority), audience, options)

    @classmethod
    def for_external_id(
        cls,
        tenant: str,
        audience: str | Sequence[str],
        *,
        tenant_id: str | None = None,
        authority: str | None = None,
        **options: Any,
    ) -> Self:
        """Verify tokens of Microsoft Entra External ID (CIAM).

        Args:
            tenant: Its name, such as `contoso`.
            audience: The client id.
            tenant_id: The tenant's GUID; learned from the discovery document when not given.
            authority: A custom domain, such as `https://login.contoso.com`.
            options: As for the class.
        """
        return cls._of(external_id(tenant, tenant_id=tenant_id, authority=authority), audience, options)

    @classmethod
    def _of(cls, trusts: tuple[Trust, ...], audience: str | Sequence[str], options: Mapping[str, Any]) -> Self:
        for name in options.keys() - _OPTIONS - _ELSEWHERE:
            why = "it follows from the tenant" if name in _OF_TRUSTS else "there is no such option"
            known = ", ".join(sorted(_OPTIONS))
            raise ConfigurationError(f"{name} can't be given here: {why}; the options are {known}")
        self = cls.__new__(cls)
        self._core = Verification(trusts, audience=audience, **options)
        return self


class Blocking:
    """Verify tokens, as threads do it; made by `ClaimsVerifier` and `AnyOf`."""

    _core: Core

    def verify(
        self,
        token: str,
        *,
        scopes: Collection[str] = (),
        roles: Collection[str] = (),
        any_scopes: Collection[str] = (),
        any_roles: Collection[str] = (),
        app_only: bool | None = None,
        nonce: str | None = None,
        grace: bool = False,
        presented: Presented | None = None,
    ) -> Claims:
        """Verify a token.

        A token whose key is held is verified without any network, and without waiting. Otherwise this waits until the
        keys are there, for at most `KeyOptions.wait` seconds.

        Args:
            token: The text that follows `Bearer`.
            scopes: What must be among its scopes, all of it. A text is one scope, or several with blanks between them.
            roles: What must be among its roles, all of it. A text is one role.
            any_scopes: One of these must be among its scopes, or one of `any_roles` among its roles.
            any_roles: See `any_scopes`.
            app_only: True for applications alone, False for users alone; see `Claims.app_only`.
            nonce: What an ID token must answer to.
            grace: Accept it past its expiry under the owner's `GraceOptions`, where all their conditions hold.
            presented: What came with it, where the verifier has `binding`; see `read_request`.

        Returns:
            Its claims, and the state of the keys that it was verified with.

        Raises:
            InvalidToken: It is refused, or isn't enough: 401 or 403.
            VerificationUnavailable: It can't be verified now: 503 with `Retry-After`.
            Closed: This verifier was closed.
            ConfigurationError: What is asked for can't be.
        """
        claims = self._core.seen(token) if presented is None else None
        if claims is None:
            asked = Expected(scopes, roles, any_scopes, any_roles, app_only, nonce, grace, presented)
            return run(self._core.verifying(token, asked))
        if (
            scopes is not NOTHING
            or roles is not NOTHING
            or any_scopes is not NOTHING
            or any_roles is not NOTHING
            or app_only is not None
            or nonce is not None
        ):
            check_asked(claims, scopes, roles, app_only, nonce, any_scopes, any_roles)
        return claims

    def warm_up(self) -> None:
        """Fetch the keys now, so that the first token needn't wait for them.

        Raises:
            VerificationUnavailable: They are unavailable; the next token makes it try again.
        """
        run(self._core.warming())

    def close(self) -> None:
        """Forget the tokens that were verified, and end refreshes unless another verifier shares them."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ClaimsVerifier(Blocking, Verifier):
    """Verify tokens that arrive, through outages of the provider that signed them (G15, G16).

    It makes no request until the first token arrives or `warm_up` is called. It may be shared by threads; make one for
    each kind of token, and keep it.

    Args:
        issuer: `iss` of the tokens that are accepted, or several; `{tenantid}` in it stands for a tenant's GUID.
        audience: `aud` of the tokens that are accepted, or several: the client id, and for version 1 tokens the App ID
            URI as well.
        discovery: The address of the discovery document, for all issuers; each one's own when not given.
        jwks_uri: The address of the key set, for all issuers, where there is no discovery document.
        http_on_loopback: Whether these addresses may be http ones of this machine: `localhost`, `127.0.0.1`, `[::1]`.
            For trying out alone.
        algorithms: Those that are accepted. PS256, ES256 and EdDSA (Ed25519) are supported too, among others; `none`
            and symmetric ones never are.
        accepts: "access" for APIs, "id" for sign-in.
        tenants: GUIDs of the tenants whose tokens are accepted; all that the issuer allows when not given.
        clients: Client ids whose tokens are accepted, by `azp`, `appid`, `client_id` or `cid`; all when not given. One
            of these may have asked for an ID token for this audience (Google).
        leeway: Seconds by which clocks may differ, from 0 to 300.
        keys: How keys are fetched and how long they serve.
        pinned_keys: A signed-off key set for a cold start in an outage: a file, or what would be in it. It is used
            until the issuer's own set has been fetched, and again when that is too old.
        seen: How many verified tokens are remembered.
        grace: Accept tokens a little past their expiry while the provider is down; off when not given.
        deny: An emergency deny-list.
        is_application: Called with a verified access token's claims where none of them says whether it is a user's or
            an application's own; True makes it an application's. Without it, such a token counts as a user's. It must
            be quick and must not wait for a network: it runs on the caller's thread, or event loop. When it raises, or
            returns anything but True or False, the token can't be verified.
        roles_claim: The claim that holds roles: its name, the way to one within others with dots between their names,
            or that as a list of names. A name with a colon or a slash is one name.
        client_as_audience: Accept an access token that has no `aud` at all, as Cognito's are, if its client is the
            `audience`. Whoever has any token of that client is let in.
        binding: Accept tokens that are bound to a key (DPoP, client certificates), with what their bearer must prove;
            they are refused when not given.
        settings: Whose breakers, workers and time-outs are used.
        verify: The path of a CA bundle, an SSL context, or False, as in MSAL.
        proxies: By scheme, as in MSAL.
        timeout: Seconds for one request, or a pair for connecting and reading; the settings' when not given.

    Raises:
        ConfigurationError: An argument is wrong; raised before any network call.
    """
