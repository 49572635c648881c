"""What every contract has: strict reading of what the provider sent, and the reply that is sent back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from ..errors import ResilientAuthError
from .answers import Answer

__all__ = [
    "CLAIMS_BYTES",
    "CalloutRequest",
    "MalformedCallout",
    "Reply",
    "UnfitAnswer",
    "json_reply",
    "member",
    "texts",
]

#: Bytes of claims that a token can take (3 KB).
CLAIMS_BYTES: Final = 3072
#: Bytes of an answer, at most, in every contract.
_LARGEST_ANSWER: Final = 64 * 1024
_HEADERS: Final[Mapping[str, str]] = {"Cache-Control": "no-store"}


class MalformedCallout(ResilientAuthError):
    """Say what about a provider's request isn't the contract's. Nothing of it is quoted."""

    code = "malformed_request"


class UnfitAnswer(ResilientAuthError):
    """Say why a handler's answer can't be sent to the provider."""

    code = "unfit_answer"


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: the status, the JSON's bytes and further headers. The type is always `application/json`."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutRequest:
    """What a provider asks. What it says about a user is personal: the text of this object shows none of it.

    Attributes:
        correlation_id: The provider's name for this sign-in; "" where the contract has none.
        tenant_id: The tenant's GUID; "" where the contract doesn't say.
        client_id: The application that the user signs in to; "" where the contract doesn't say.
        user_id: Who signs in, as the provider names them; "" where it doesn't.
        locales: The user's languages, the best first.
    """

    #: Its name in events, in logs and in `check_callout`.
    event: ClassVar[str] = ""
    #: Seconds that the provider waits, where the owner doesn't say otherwise; and the bounds of what can be said.
    timeout: ClassVar[float] = 1.0
    timeouts: ClassVar[tuple[float, float]] = (0.2, 2.0)
    #: The answers that the contract knows, and those of them that may stand in for a handler's.
    answers: ClassVar[tuple[type, ...]] = ()
    defaults: ClassVar[tuple[type, ...]] = ()
    #: Whether an answer's claims are about the user, and so may be known from before.
    has_claims: ClassVar[bool] = False

    correlation_id: str = field(default="", repr=False)
    tenant_id: str = ""
    client_id: str = ""
    user_id: str = field(default="", repr=False)
    locales: tuple[str, ...] = ()

    @classmethod
    def read(cls, body: dict[str, Any], decrypt: Callable[[str], dict[str, Any]] | None = None) -> tuple[Self, Any]:
        """Read what came; return it, and what tells a repeated request from another one.

        Args:
            body: The JSON object.
            decrypt: Opens what is encrypted in it.

        Raises:
            MalformedCallout: It isn't the contract's.
        """
        raise NotImplementedError

    @classmethod
    def write(cls, answer: Answer, asked: CalloutRequest | None) -> Reply:
        """Write an answer in the contract's shape; `asked` is None where what came couldn't be read.

        Raises:
            UnfitAnswer: The contract doesn't know it, or it is too large.
        """
        raise NotImplementedError


def member(body: Mapping[str, Any], path: str, kind: type, *, required: bool = True, longest: int = 2048) -> Any:
    """Return a member of a JSON object by its path, such as `data/tenantId`.

    Args:
        body: The object.
        path: Names with slashes between them.
        kind: What it must be; an empty one is returned for what isn't there and isn't required.
        required: Whether it must be there, and, as a text, not be empty.
        longest: Characters of a text, at most.

    Raises:
        MalformedCallout: It isn't that.
    """
    found: Any = body
    for name in path.split("/"):
        if found is None:
            break
        if not isinstance(found, Mapping):
            raise MalformedCallout(f"what holds {path} isn't an object")
        found = found.get(name)
    if found is None and not required:
        return kind()
    if not isinstance(found, kind):
        raise MalformedCallout(f"{path} is missing" if found is None else f"{path} isn't of the type {kind.__name__}")
    if isinstance(found, str) and ((required and not found) or len(found) > longest):
        raise MalformedCallout(f"{path} isn't a text of 1 to {longest} characters")
    return found


def texts(given: str) -> tuple[str, ...]:
    """Return the languages in a text such as `de-AT en`, eight at most."""
    return tuple(given.replace(",", " ").split()[:8])


def json_reply(status: int, body: Mapping[str, Any]) -> Reply:
    """Make a reply.

    Raises:
        UnfitAnswer: What is to be sent isn't JSON, or is too large.
    """
    try:
        written = json.dumps(body, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UnfitAnswer(f"the answer can't be written as JSON ({type(error).__name__})") from None
    if len(written) > _LARGEST_ANSWER:
        raise UnfitAnswer(f"the answer has {len(written)} bytes, and no provider takes more than {_LARGEST_ANSWER}")
    return Reply(status, written)
