"""What Entra and B2C take for an answer, and what Entra's sign-in log says of what isn't one.

1003002 the status    1003003 the body        1003005 timed out   1003006 the content type
1003010 not one action    1003024, 1003025 the answer, or its claims, are too large    1003027 no connection
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["B2C", "CONTRACTS", "ENTRA", "Judged", "Unfit", "judge"]

_GRAPH: Final = "microsoft.graph."
_LARGEST_ANSWER: Final = 64 * 1024
_LARGEST_CLAIMS: Final = 3072
_VERSION: Final = "1.0.0"

#: By event: the name in the types of what comes and goes, that of its actions, and each action with what it must have.
ENTRA: Final[Mapping[str, tuple[str, str, Mapping[str, str]]]] = {
    "tokenIssuanceStart": ("TokenIssuanceStart", "tokenIssuanceStart", {"provideClaimsForToken": "claims"}),
    "attributeCollectionStart": (
        "AttributeCollectionStart",
        "attributeCollectionStart",
        {"continueWithDefaultBehavior": "", "setPrefillValues": "inputs", "showBlockPage": "message"},
    ),
    "attributeCollectionSubmit": (
        "AttributeCollectionSubmit",
        "attributeCollectionSubmit",
        {
            "continueWithDefaultBehavior": "",
            "modifyAttributeValues": "attributes",
            "showValidationError": "message",
            "showBlockPage": "message",
        },
    ),
    "emailOtpSend": ("OtpSend", "OtpSend", {"continueWithDefaultBehavior": ""}),
    "passwordSubmit": (
        "PasswordSubmit",
        "passwordSubmit",
        {"MigratePassword": "", "UpdatePassword": "", "Retry": "", "Block": "message"},
    ),
}
B2C: Final = ("apiConnector", "restProfile")
CONTRACTS: Final = (*ENTRA, *B2C)


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that the contract knows."""

    action: str
    #: The action's own members, or the claims; personal, maybe.
    says: Mapping[str, Any] = field(repr=False)


class Unfit(ValueError):
    """Say why an answer isn't the contract's.

    Args:
        code: What Entra's sign-in log says; 0 for B2C, which has no such codes.
        reason: In words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}" if code else reason)
        self.code = code
        self.reason = reason


def judge(event: str, status: int, content_type: str, body: bytes, *, nonce: str | None = None) -> Judged:
    """Return what an answer says.

    Args:
        event: One of `CONTRACTS`.
        status: The HTTP status.
        content_type: The header's value.
        body: As it came.
        nonce: For `passwordSubmit`: what must come back.

    Raises:
        Unfit: It isn't the contract's.
    """
    entra = event in ENTRA
    if entra and status != 200:
        raise Unfit(1003002, f"the status is {status}, and not 200")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Unfit(1003006 * entra, "the content type isn't application/json")
    if len(body) > _LARGEST_ANSWER:
        raise Unfit(1003024 * entra, f"the answer has {len(body)} bytes")
    try:
        said = json.loads(body.decode(), parse_constant=_refuse)
        # Half of a surrogate pair is no text.
        json.dumps(said, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Unfit(1003003 * entra, "the body isn't JSON") from None
    if not isinstance(said, dict):
        raise Unfit(1003003 * entra, "the body isn't a JSON object")
    if entra:
        return _of_entra(event, said, nonce)
    return _of_connector(status, said) if event == "apiConnector" else _of_profile(status, said)


def _of_entra(event: str, said: dict[str, Any], nonce: str | None) -> Judged:
    named, prefix, actions = ENTRA[event]
    data = said.get("data")
    if not isinstance(data, dict) or _type(data).lower() != f"{_GRAPH}on{named}ResponseData".lower():
        raise Unfit(1003003, f"data isn't an object of the type on{named}ResponseData")
    found = data.get("actions")
    if not isinstance(found, list) or len(found) != 1:
        raise Unfit(1003010, "there isn't exactly one action")
    (action,) = found
    kinds = {f"{_GRAPH}{prefix}.{name}".lower(): name for name in actions}
    name = kinds.get(_type(action).lower()) if isinstance(action, dict) else None
    if name is None:
        raise Unfit(1003003, "the action's type isn't one of this event's")
    holds = actions[name]
    value: Any = action.get(holds) if holds else ""
    if holds and not (isinstance(value, str if holds == "message" else dict) and (value or holds != "message")):
        raise Unfit(1003003, f"{name} has no {holds}")
    if name == "provideClaimsForToken":
        if not all(isinstance(one, str) or _texts(one) for one in value.values()):
            raise Unfit(1003003, "a claim is neither a text nor a list of texts")
        if len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) > _LARGEST_CLAIMS:
            raise Unfit(1003025, "the claims are larger than 3 KB")
    if nonce is not None and data.get("nonce") != nonce:
        raise Unfit(1003003, "the nonce isn't the one that was sent")
    return Judged(name, {key: one for key, one in action.items() if key != "@odata.type"})


def _of_connector(status: int, said: dict[str, Any]) -> Judged:
    action = said.get("action")
    wanted = {"Continue": 200, "ShowBlockPage": 200, "ValidationError": 400}.get(str(action))
    if wanted is None or said.get("version") != _VERSION:
        raise Unfit(0, "version isn't 1.0.0, or the action isn't Continue, ShowBlockPage or ValidationError")
    if status != wanted or (status == 400 and said.get("status") != 400):
        raise Unfit(0, f"{action} comes with the status {wanted}")
    if action != "Continue" and not (isinstance(said.get("userMessage"), str) and said["userMessage"]):
        raise Unfit(0, f"{action} has no userMessage")
    return Judged(str(action), said)


def _of_profile(status: int, said: dict[str, Any]) -> Judged:
    if status == 200:
        return Judged("claims", said)
    fits = said.get("version") == _VERSION and said.get("status") == 409 and isinstance(said.get("userMessage"), str)
    if status != 409 or not fits:
        raise Unfit(0, "it is neither 200 with claims, nor 409 with version, status and userMessage")
    return Judged("error", said)


def _refuse(name: str) -> None:
    """Take NaN and Infinity for no JSON, as others do."""
    raise ValueError(name)


def _type(holder: dict[str, Any]) -> str:
    return str(holder.get("@odata.type", "")).removeprefix("#")


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
