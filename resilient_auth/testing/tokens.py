"""Claims and tokens of users and applications that nobody has to sign in."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .._policy.checks import require, require_number
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..emulator import Emulator
    from ..verify.claims import Claims

__all__ = ["claims", "token"]

_TENANT: Final = "11111111-2222-4333-8444-555555555555"
#: Claims that an argument makes, and that argument; and those that are a text where they are there.
_MADE_OF: Final = {"sub": "subject", "aud": "audience", "exp": "expires_in", "scp": "scopes"}
_TEXTS: Final = ("iss", "tid", "oid", "azp", "uti", "sid", "tfp", "nonce", "preferred_username", "name")


def claims(
    subject: str = "ada",
    *,
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    app_only: bool = False,
    audience: str = "api://orders",
    expires_in: float = 3600.0,
    **further: Any,
) -> Claims:
    """Make what a verifier gives for a good token, without a token, for the code that is given claims.

    Args:
        subject: `sub`.
        scopes: Scopes that the user granted, one by one or in one text.
        roles: Roles; a text is one of them.
        app_only: Make them an application's own, not a user's; it has roles, and no scopes.
        audience: `aud`.
        expires_in: Seconds until they expire; negative for those of a token that was accepted past its expiry.
        further: Claims by name, such as `tid="..."` or `preferred_username="ada@contoso.com"`; in place of those that
            are made up, and of none that an argument makes.

    Returns:
        Claims whose `raw` says the same.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    # What verifies tokens loads much that a test of something else can do without.
    from ..verify.claims import Claims, Provenance, frozen

    for name, argument in _MADE_OF.items():
        require(name not in further, f"{name} is made of {argument}: give {argument}=...")
    for name in _TEXTS:
        given = further.get(name, "")
        fits = isinstance(given, str) or (given is None and name != "iss")
        require(fits, f"{name} must be a text, as it is in tokens that verify, not {given!r}")
    for name in {"iat", "nbf"} & further.keys():
        require_number(name, further[name], low=0.0, unit="")
    issued = {"iss": f"https://login.microsoftonline.com/{_TENANT}/v2.0", "tid": _TENANT}
    said = issued | _said(subject, scopes, roles, app_only, audience, expires_in, further)
    late = max(0.0, -expires_in)
    return Claims(
        subject=subject,
        object_id=said.get("oid"),
        tenant_id=said.get("tid"),
        client_id=said.get("azp"),
        issuer=said["iss"],
        audience=(audience,),
        scopes=frozenset(said.get("scp", "").split()),
        roles=frozenset(said.get("roles", ())),
        app_only=app_only,
        issued_at=said.get("iat"),
        not_before=said.get("nbf"),
        expires_at=said["exp"],
        token_id=said.get("uti"),
        session_id=said.get("sid"),
        policy=said.get("tfp"),
        nonce=said.get("nonce"),
        username=said.get("preferred_username"),
        name=said.get("name"),
        raw=frozen(said),
        provenance=Provenance(keys="fresh", keys_age=0.0, grace=late > 0.0, past_expiry=late),
    )


def token(
    emulator: Emulator,
    subject: str = "ada",
    *,
    tenant: str = "contoso",
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    app_only: bool = False,
    audience: str = "api://orders",
    expires_in: float = 3600.0,
    **further: Any,
) -> str:
    """Sign an access token with the emulator's key, for requests to an application whose verifier trusts the emulator.

    Args:
        emulator: A running emulator, such as the fixture `identity_provider`.
        subject: As for `claims`.
        tenant: Whose token it is, as in `emulator.authority(tenant)`; `"contoso/b2c_1_signin"` for a policy of B2C's.
        scopes: As for `claims`.
        roles: As for `claims`.
        app_only: As for `claims`.
        audience: As for `claims`.
        expires_in: Seconds until it expires; negative for one that has.
        further: Claims by name, in place of those that are made up or that an argument makes, however wrong: for tests
            of what is refused.

    Returns:
        The token's text.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    from ..emulator import Emulator
    from ..emulator.provider.realms import locate

    require(
        isinstance(emulator, Emulator),
        f"emulator must be a running resilient_auth.emulator.Emulator, not {type(emulator).__name__}",
    )
    require(isinstance(tenant, str), f"tenant must be a text, such as 'contoso', not {type(tenant).__name__}")
    path = (*filter(None, tenant.split("/")), "oauth2", "v2.0", "token")
    realm = locate(urlsplit(emulator.url).netloc, path, {})[1]
    if realm is None or realm.shared or len(path) < 4:
        raise ConfigurationError(f"tenant must be one tenant, such as 'contoso', not {tenant!r}")
    said = _said(subject, scopes, roles, app_only, audience, expires_in, further)
    issued = {"iss": realm.access_token_issuer(realm.tid), "tid": realm.tid}
    if realm.policy is not None:
        issued["tfp"] = realm.policy
    return emulator.sign(issued | said)


def _said(
    subject: str,
    scopes: str | Collection[str],
    roles: str | Collection[str],
    app_only: bool,
    audience: str,
    expires_in: float,
    further: dict[str, Any],
) -> dict[str, Any]:
    for text_name, text in (("subject", subject), ("audience", audience)):
        require(isinstance(text, str) and bool(text), f"{text_name} must be a text, not {text!r}")
    require(isinstance(app_only, bool), f"app_only must be True or False, not {app_only!r}")
    try:
        json.dumps(further)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"claims must be what JSON can say: {error}") from None
    require_number("expires_in", expires_in, low=-10 * 365 * 86_400.0, high=10 * 365 * 86_400.0)
    granted, assigned = (
        scopes.split() if isinstance(scopes, str) else scopes,
        (roles,) if isinstance(roles, str) else roles,
    )
    for name, given in (("scopes", granted), ("roles", assigned)):
        fits = isinstance(given, Collection) and all(isinstance(one, str) and one for one in given)
        require(fits, f"{name} must be names, such as ('orders.read',), not {given!r}")
    require(not (app_only and granted), "an application's own token has no scopes: give roles, or app_only=False")
    ends = int(time.time() + expires_in)
    said: dict[str, Any] = {
        "aud": audience,
        "sub": subject,
        "oid": str(uuid.uuid5(uuid.NAMESPACE_URL, subject)),
        "azp": str(uuid.uuid5(uuid.NAMESPACE_URL, f"client of {audience}")),
        "azpacr": "1",
        "uti": uuid.uuid4().hex[:22],
        "ver": "2.0",
        "iat": min(int(time.time()), ends - 1),
        "nbf": min(int(time.time()), ends - 1),
        "exp": ends,
    }
    if app_only:
        said["idtyp"] = "app"
    if granted:
        said["scp"] = " ".join(sorted(granted))
    if assigned:
        said["roles"] = sorted(assigned)
    return said | further
