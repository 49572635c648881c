"""What a verified token says, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, NoReturn

__all__ = ["Claims", "FrozenDict", "Provenance", "frozen", "plain"]


class FrozenDict(dict[str, Any]):
    """Hold names and JSON values as a dict that can't be changed: whatever writes JSON, copies or pickles takes it.

    `dict(it)` is a copy that can be changed.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("verified claims and decisions can't be changed: take dict(...) of it, or to_dict()")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: object) -> FrozenDict:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return FrozenDict, (dict(self),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """State what a verification is based on.

    Attributes:
        keys: "fresh": fetched lately; "stale": the last known good ones, while newer ones are unavailable; "pinned":
            from the owner's file, since none could be fetched yet.
        keys_age: Seconds since the keys were last fetched, to the minute; None for pinned ones.
        grace: Whether the token has expired and was accepted by the owner's grace.
        past_expiry: Seconds by which it has, in that case.
    """

    keys: Literal["fresh", "stale", "pinned"]
    keys_age: float | None
    grace: bool = False
    past_expiry: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Hold what a verified token says. Nothing in it can be changed, `raw` included.

    Attributes:
        subject: `sub`; where there is none, as in some B2C tokens, `oid` or the client.
        object_id: `oid`, the user's or service principal's id in its tenant.
        tenant_id: `tid`.
        client_id: `azp`, `appid`, `client_id` or, in an access token, `cid`: the application that got the token.
        agent_blueprint: `xms_par_app_azp`: the application of which the client is an agent (Entra Agent ID). None where
            the client is no agent.
        issuer: `iss`.
        audience: `aud`; the client, where the owner lets it stand in for one that isn't there.
        scopes: `scp` or `scope`: what a user lets the client do.
        roles: What the client, or the user, was assigned: `roles`, or the claim that the verifier's `roles_claim`
            names. Empty where something else than texts stands there.
        app_only: Whether the client acts for itself: there is neither a `sub` nor an `oid`, or `sub` is the client;
            `idtyp` or `gty` says so; there is no scope and `sub` is `oid`; or the owner's `is_application` says so,
            where no claim does. Scopes alone don't make a token a user's.
        issued_at, not_before, expires_at: Seconds since the epoch, whole or with a fraction.
        token_id: `uti` or `jti`. It is None, as are the next one, `nonce`, `username` and `name`, where the token has
            something else than a text there.
        session_id: `sid`.
        policy: B2C's user flow or custom policy, in lower case, by `tfp` or `acr`; None for other providers.
        nonce: An ID token's.
        username: `preferred_username`, `upn`, `unique_name` or `email`. It may change and be reassigned: show it, and
            decide nothing by it.
        name: A name to show.
        raw: All claims as they came.
        provenance: What this is based on.
    """

    subject: str = field(repr=False)
    object_id: str | None = field(repr=False)
    tenant_id: str | None
    client_id: str | None
    agent_blueprint: str | None = None
    issuer: str
    audience: tuple[str, ...]
    scopes: frozenset[str]
    roles: frozenset[str]
    app_only: bool
    issued_at: float | None
    not_before: float | None
    expires_at: float
    token_id: str | None
    session_id: str | None = field(repr=False)
    policy: str | None
    nonce: str | None = field(repr=False)
    username: str | None = field(repr=False)
    name: str | None = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values that JSON knows, to be changed at will; sets are sorted lists."""
        shown: dict[str, Any] = plain(self)
        return shown

    def __deepcopy__(self, memo: object) -> Claims:
        return self


#: What nobody can change. Most of a token's claims are such, and each call costs more than this look.
_UNCHANGEABLE = frozenset({str, int, float, bool, type(None)})


def frozen(value: Any) -> Any:
    """Make a JSON value unchangeable, all the way down."""
    if isinstance(value, Mapping):
        return FrozenDict({name: part if type(part) in _UNCHANGEABLE else frozen(part) for name, part in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(frozen(part) for part in value)
    return value


def plain(value: Any) -> Any:
    """Make plain values that JSON knows, all the way down, of what is frozen."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
