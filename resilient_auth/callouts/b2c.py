"""API connectors and REST technical profiles of Azure AD B2C: what they ask, and how they are answered."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from ..verify.claims import FrozenDict, frozen
from .answers import Answer, Continue, ShowBlockPage, ShowValidationError, localized
from .contract import CalloutRequest, MalformedCallout, Reply, UnfitAnswer, json_reply, member, texts

__all__ = ["ApiConnector", "RestProfile"]

_VERSION: Final = "1.0.0"
_NOTHING: Final[Mapping[str, Any]] = FrozenDict()
_OWN: Final = frozenset({"version", "action", "status", "userMessage"})
_MOST_CLAIMS: Final = 200

Decrypt = Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _B2cRequest(CalloutRequest):
    """What both of B2C's kinds of request have in common: flat claims, and a patient caller."""

    timeout: ClassVar[float] = 20.0
    timeouts: ClassVar[tuple[float, float]] = (1.0, 20.0)
    answers: ClassVar[tuple[type, ...]] = (Continue, ShowBlockPage, ShowValidationError)
    defaults: ClassVar[tuple[type, ...]] = answers
    has_claims: ClassVar[bool] = True
    #: Fields that are read of claims of other names: the claim, and its characters at most.
    named: ClassVar[Mapping[str, tuple[str, int]]] = {}

    claims: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)

    @classmethod
    def read(cls, body: dict[str, Any], decrypt: Decrypt | None = None) -> tuple[Self, Any]:
        """Read what came."""
        if len(body) > _MOST_CLAIMS:
            raise MalformedCallout(f"there are more than {_MOST_CLAIMS} claims")
        known = {"client_id": ("client_id", 128), "user_id": ("objectId", 128), **cls.named}
        return cls(
            **{
                name: member(body, claim, str, required=False, longest=longest)
                for name, (claim, longest) in known.items()
            },
            locales=texts(member(body, "ui_locales", str, required=False)),
            claims=frozen(body),
        ), body


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConnector(_B2cRequest):
    """A user flow's API connector: after federating, before a user is made, or before a token is issued.

    B2C names no sign-in in it: a repeated request is known by all that it says.

    Attributes:
        step: Such as `PostAttributeCollection`.
        email: The user's; "" where the flow has none.
        claims: All that came, flat, these four included; personal.
    """

    event: ClassVar[str] = "apiConnector"
    named: ClassVar[Mapping[str, tuple[str, int]]] = {"step": ("step", 128), "email": ("email", 320)}

    step: str = ""
    email: str = field(default="", repr=False)

    @classmethod
    def write(cls, answer: Answer, asked: CalloutRequest | None) -> Reply:
        """Write an answer."""
        locales = () if asked is None else asked.locales
        match answer:
            case Continue():
                return json_reply(200, {"version": _VERSION, "action": "Continue", **_values(answer)})
            case ShowBlockPage():
                said = localized(answer.message, locales)
                return json_reply(200, {"version": _VERSION, "action": "ShowBlockPage", "userMessage": said})
            case ShowValidationError():
                said = localized(answer.message, locales)
                told = {"version": _VERSION, "status": 400, "action": "ValidationError", "userMessage": said}
                return json_reply(400, told)
        raise UnfitAnswer(f"{cls.event} knows no answer {type(answer).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestProfile(_B2cRequest):
    """A custom policy's REST technical profile: its input claims, as the policy names them.

    Where the policy sends `{Context:CorrelationId}` as `correlationId`, `{OIDC:ClientId}` as `client_id`,
    `{Policy:TenantObjectId}` as `tenantId` and `{Culture:RFC5646}` as `ui_locales`, they are read as such.

    One that names no sign-in is a request of its own, however often it comes: what a policy sends needn't tell one user
    from another, who must not get the first one's answer.

    Attributes:
        claims: All that came, these included; personal.
    """

    event: ClassVar[str] = "restProfile"
    named: ClassVar[Mapping[str, tuple[str, int]]] = {
        "correlation_id": ("correlationId", 128),
        "tenant_id": ("tenantId", 128),
    }

    @classmethod
    def read(cls, body: dict[str, Any], decrypt: Decrypt | None = None) -> tuple[Self, Any]:
        """Read what came."""
        request, told = super(RestProfile, cls).read(body, decrypt)
        return request, told if request.correlation_id else [told, secrets.token_hex(16)]

    @classmethod
    def write(cls, answer: Answer, asked: CalloutRequest | None) -> Reply:
        """Write an answer: 200 with claims, or 409 with a message (a policy shows no other status's)."""
        locales = () if asked is None else asked.locales
        if isinstance(answer, Continue):
            return json_reply(200, _values(answer))
        if not isinstance(answer, (ShowBlockPage, ShowValidationError)):
            raise UnfitAnswer(f"{cls.event} knows no answer {type(answer).__name__}")
        told: dict[str, Any] = {"version": _VERSION, "status": 409, "userMessage": localized(answer.message, locales)}
        if isinstance(answer, ShowValidationError) and answer.code:
            told["code"] = answer.code
        if asked is not None and asked.correlation_id:
            told["requestId"] = asked.correlation_id
        return json_reply(409, told)


def _values(answer: Continue) -> dict[str, Any]:
    taken = _OWN & answer.claims.keys()
    if taken:
        raise UnfitAnswer(f"a claim can't be named {sorted(taken)[0]}: the contract has that itself")
    return dict(answer.claims)
