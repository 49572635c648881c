"""Custom authentication extensions of Entra ID and External ID: what they ask, and how they are answered.

Whatever is answered has the status 200 and exactly one action, since anything else fails the sign-in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from ..verify.claims import FrozenDict, frozen
from .answers import (
    Answer,
    Continue,
    MigratePassword,
    RetryPassword,
    SendByProvider,
    ShowBlockPage,
    ShowValidationError,
    UpdatePassword,
    localized,
)
from .contract import (
    CLAIMS_BYTES,
    CalloutRequest,
    MalformedCallout,
    Reply,
    UnfitAnswer,
    json_reply,
    member,
    texts,
)

__all__ = [
    "AttributeCollectionStart",
    "AttributeCollectionSubmit",
    "EmailOtpSend",
    "EntraRequest",
    "PasswordSubmit",
    "TokenIssuanceStart",
]

_EVENT: Final = "microsoft.graph.authenticationEvent."
_GRAPH: Final = "microsoft.graph."
_NOTHING: Final[Mapping[str, Any]] = FrozenDict()
_LONGEST_JWE: Final = 16_384

Decrypt = Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntraRequest(CalloutRequest):
    """What all of Entra's events have in common.

    Attributes:
        listener_id: `authenticationEventListenerId`.
        extension_id: `customAuthenticationExtensionId`.
        protocol: Such as `OAUTH2.0`.
        resource_id: The application that the token is for.
        user: What is known of the user; personal.
        ip: From where they sign in.
    """

    listener_id: str = ""
    extension_id: str = ""
    protocol: str = ""
    resource_id: str = ""
    ip: str = field(default="", repr=False)
    user: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)

    @classmethod
    def read(cls, body: dict[str, Any], decrypt: Decrypt | None = None) -> tuple[Self, Any]:
        """Read an event."""
        kind = member(body, "type", str)
        if kind.lower() != f"{_EVENT}{cls.event}".lower():
            raise MalformedCallout(f"type is another event's than {cls.event}")
        stated = member(body, "data/@odata.type", str)
        if stated.lower().removeprefix("#") != f"{_GRAPH}on{cls._named()}CalloutData".lower():
            raise MalformedCallout(f"data/@odata.type isn't that of {cls.event}")
        at = "data/authenticationContext"
        locale = member(body, f"{at}/client/locale", str, required=False)
        market = member(body, f"{at}/client/market", str, required=False)
        user = member(body, f"{at}/user", dict, required=False)
        further, asked = cls._further(body, decrypt)
        request = cls(
            correlation_id=member(body, f"{at}/correlationId", str, longest=128),
            tenant_id=member(body, "data/tenantId", str, longest=128),
            listener_id=member(body, "data/authenticationEventListenerId", str, required=False, longest=128),
            extension_id=member(body, "data/customAuthenticationExtensionId", str, required=False, longest=128),
            protocol=member(body, f"{at}/protocol", str, required=False),
            client_id=member(body, f"{at}/clientServicePrincipal/appId", str, required=False, longest=128),
            resource_id=member(body, f"{at}/resourceServicePrincipal/appId", str, required=False, longest=128),
            user_id=member(user, "id", str, required=False, longest=128),
            ip=member(body, f"{at}/client/ip", str, required=False),
            locales=texts(f"{locale} {market}"),
            user=frozen(user),
            **further,
        )
        return request, {**body, "data": {**body["data"], **asked}}

    @classmethod
    def _further(cls, body: dict[str, Any], decrypt: Decrypt | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the event has beyond the others, and what tells it from another one of this sign-in."""
        return {}, {}

    @classmethod
    def write(cls, answer: Answer, asked: CalloutRequest | None) -> Reply:
        """Write an answer."""
        if not isinstance(answer, cls.answers):
            raise UnfitAnswer(f"{cls.event} knows no answer {type(answer).__name__}")
        if isinstance(answer, SendByProvider):
            return json_reply(503, {"error": "unavailable"})
        locales = () if asked is None else asked.locales
        name, members = cls._action(answer, locales)
        data: dict[str, Any] = {
            "@odata.type": f"{_GRAPH}{cls._response_type()}",
            "actions": [{"@odata.type": f"{_GRAPH}{cls._actions()}.{name}", **members}],
        }
        return json_reply(200, {"data": data | cls._echoed(asked)})

    @classmethod
    def _named(cls) -> str:
        """Return the event as the types of what comes and goes have it: `on<name>CalloutData`."""
        return cls.event[:1].upper() + cls.event[1:]

    @classmethod
    def _actions(cls) -> str:
        return cls.event

    @classmethod
    def _response_type(cls) -> str:
        return f"on{cls._named()}ResponseData"

    @classmethod
    def _echoed(cls, asked: CalloutRequest | None) -> dict[str, Any]:
        return {}

    @classmethod
    def _action(cls, answer: Answer, locales: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        """Return an action's name and members."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssuanceStart(EntraRequest):
    """A token is about to be issued; claims may be added to it. The one answer is `Continue`, with the claims."""

    event: ClassVar[str] = "tokenIssuanceStart"
    answers: ClassVar[tuple[type, ...]] = (Continue,)
    defaults: ClassVar[tuple[type, ...]] = (Continue,)
    has_claims: ClassVar[bool] = True

    @classmethod
    def _action(cls, answer: Answer, locales: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        claims = _values(answer, others=False)
        size = len(json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
        if size > CLAIMS_BYTES:
            raise UnfitAnswer(f"the claims have {size} bytes, and a token takes {CLAIMS_BYTES}")
        return "provideClaimsForToken", {"claims": claims}


@dataclass(frozen=True, slots=True, kw_only=True)
class _SignUp(EntraRequest):
    """What the events of a sign-up's form have in common."""

    #: The action by which an answer's claims become the form's values, and the member of it that holds them.
    values: ClassVar[tuple[str, str]] = ("", "")

    attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)
    identities: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @classmethod
    def _further(cls, body: dict[str, Any], decrypt: Decrypt | None) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes = member(body, "data/userSignUpInfo/attributes", dict, required=False)
        identities = member(body, "data/userSignUpInfo/identities", list, required=False)
        values = {}
        for name, told in attributes.items():
            if not isinstance(told, dict):
                raise MalformedCallout("data/userSignUpInfo/attributes holds something else than objects")
            values[name] = told.get("value")
        if not all(isinstance(identity, dict) for identity in identities):
            raise MalformedCallout("data/userSignUpInfo/identities holds something else than objects")
        return {"attributes": frozen(values), "identities": tuple(frozen(identity) for identity in identities)}, {}

    @classmethod
    def _action(cls, answer: Answer, locales: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        match answer:
            case ShowBlockPage():
                return "showBlockPage", _block(answer, locales)
            case ShowValidationError():
                told: dict[str, Any] = {"message": localized(answer.message, locales)}
                if answer.attributes:
                    told["attributeErrors"] = {
                        attribute: localized(message, locales) for attribute, message in answer.attributes.items()
                    }
                return "showValidationError", told
            case Continue() if answer.claims:
                action, holds = cls.values
                return action, {holds: _values(answer, others=True)}
        return "continueWithDefaultBehavior", {}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeCollectionStart(_SignUp):
    """The form for a sign-up is about to be shown. `Continue` with claims fills these in.

    Attributes:
        attributes: The form's, with the values that are known; personal.
        identities: By what the user signs up, such as an email address; personal.
    """

    event: ClassVar[str] = "attributeCollectionStart"
    answers: ClassVar[tuple[type, ...]] = (Continue, ShowBlockPage)
    defaults: ClassVar[tuple[type, ...]] = answers
    values: ClassVar[tuple[str, str]] = ("setPrefillValues", "inputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeCollectionSubmit(_SignUp):
    """The form for a sign-up was submitted. `Continue` with claims replaces what was submitted.

    Attributes:
        attributes: What was submitted; personal.
        identities: By what the user signs up, such as an email address; personal.
    """

    event: ClassVar[str] = "attributeCollectionSubmit"
    answers: ClassVar[tuple[type, ...]] = (Continue, ShowBlockPage, ShowValidationError)
    defaults: ClassVar[tuple[type, ...]] = answers
    values: ClassVar[tuple[str, str]] = ("modifyAttributeValues", "attributes")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailOtpSend(EntraRequest):
    """A one-time code is to be sent to a user. `Continue` says that it is on its way.

    Attributes:
        email: Where to.
        one_time_code: A secret.
        purpose: Such as `signUp`; "" where it isn't said.
    """

    event: ClassVar[str] = "emailOtpSend"
    answers: ClassVar[tuple[type, ...]] = (Continue, SendByProvider)
    defaults: ClassVar[tuple[type, ...]] = (SendByProvider, Continue)

    email: str = field(repr=False)
    one_time_code: str = field(repr=False)
    purpose: str = ""

    @classmethod
    def _further(cls, body: dict[str, Any], decrypt: Decrypt | None) -> tuple[dict[str, Any], dict[str, Any]]:
        context = member(body, "data/otpContext", dict)
        # Microsoft's own pages and samples disagree on how it is written.
        code = "oneTimeCode" if "oneTimeCode" in context else "onetimecode"
        return {
            "email": member(context, "identifier", str, longest=320),
            "one_time_code": member(context, code, str, longest=64),
            "purpose": member(body, "data/authenticationContext/requestType", str, required=False),
        }, {}

    # Its types are named after nothing else, and that of the response begins with a capital letter.

    @classmethod
    def _named(cls) -> str:
        return "OtpSend"

    @classmethod
    def _actions(cls) -> str:
        return "OtpSend"

    @classmethod
    def _response_type(cls) -> str:
        return "OnOtpSendResponseData"

    @classmethod
    def _action(cls, answer: Answer, locales: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        if isinstance(answer, Continue) and answer.claims:
            raise UnfitAnswer(f"{cls.event} takes no claims")
        return "continueWithDefaultBehavior", {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSubmit(EntraRequest):
    """A user who isn't migrated yet has given their password, which the handler is to check.

    Attributes:
        username: As it was given; "" where the provider doesn't say.
        password: A secret.
        nonce: Goes back with the answer, by itself.
    """

    event: ClassVar[str] = "passwordSubmit"
    answers: ClassVar[tuple[type, ...]] = (MigratePassword, UpdatePassword, RetryPassword, ShowBlockPage)
    # A password that nobody has checked is never right.
    defaults: ClassVar[tuple[type, ...]] = (RetryPassword, ShowBlockPage)

    username: str = field(repr=False)
    password: str = field(repr=False)
    nonce: str = field(repr=False)

    @classmethod
    def _further(cls, body: dict[str, Any], decrypt: Decrypt | None) -> tuple[dict[str, Any], dict[str, Any]]:
        sealed = member(body, "data/encryptedPasswordContext", str, longest=_LONGEST_JWE)
        if decrypt is None:
            raise MalformedCallout("no key is given to decrypt passwords with")
        opened = decrypt(sealed)
        found = {
            "username": member(opened, "username", str, required=False, longest=320),
            "password": member(opened, "user-password", str, longest=1024),
            "nonce": member(opened, "nonce", str, longest=256),
        }
        return found, {"encryptedPasswordContext": found}

    @classmethod
    def _echoed(cls, asked: CalloutRequest | None) -> dict[str, Any]:
        return {"nonce": asked.nonce} if isinstance(asked, PasswordSubmit) else {}

    @classmethod
    def _action(cls, answer: Answer, locales: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        match answer:
            case MigratePassword():
                return "MigratePassword", {}
            case UpdatePassword():
                return "UpdatePassword", {}
            case ShowBlockPage():
                return "Block", _block(answer, locales)
        return "Retry", {}


def _block(answer: ShowBlockPage, locales: tuple[str, ...]) -> dict[str, Any]:
    title = localized(answer.title, locales)
    return ({"title": title} if title else {}) | {"message": localized(answer.message, locales)}


def _values(answer: Answer, *, others: bool) -> dict[str, Any]:
    """Return claims as the contract takes them: texts, lists of them, and for forms whole numbers and yes or no."""
    claims = answer.claims if isinstance(answer, Continue) else {}
    found: dict[str, Any] = {}
    for name, value in claims.items():
        if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
            found[name] = list(value)
        elif isinstance(value, str) or (others and isinstance(value, (int, bool))):
            found[name] = value
        else:
            raise UnfitAnswer(f"a claim is of the type {type(value).__name__}, which the contract doesn't know")
    return found
