"""What an external service decided about a user, and what was decided in its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ResilientAuthError
from ..verify.claims import FrozenDict, plain

__all__ = [
    "DecidedBy",
    "Decision",
    "DecisionDenied",
    "MalformedDecision",
    "Unavailable",
    "read_answer",
    "shaped",
]

DecidedBy = Literal["service", "last_decision", "reduced", "denied"]

#: Bounds of what is taken from a service. They are far from what a decision needs.
_MOST_REASON = 500
_MOST_ATTRIBUTES = 64
_MOST_DEPTH = 6
_NOTHING: Mapping[str, Any] = FrozenDict()


class MalformedDecision(ValueError):
    """Say what about an answer isn't a decision. Nothing of the answer is quoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a user may go on, and who says so.

    What the service said about a user is personal: the text of this object shows neither `reason` nor `attributes`.
    """

    allowed: bool
    #: For the user, in the service's words or in ours; empty where there is nothing to say.
    reason: str = field(default="", repr=False)
    #: What else the service said: names and JSON values, immutable all the way down.
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)
    #: `service`: it said so now. `last_decision`: it said so `age` seconds ago. `reduced`: the owner's function did.
    #: `denied`: it couldn't be asked, or took the question for a wrong one.
    provenance: DecidedBy = "service"
    #: Why the service's own answer isn't this one, as a stable code such as `api_circuit_open`; empty where it is.
    code: str = ""
    #: Seconds since the service said it; 0 for what it said now and for what it never said.
    age: float = 0.0
    #: When it was decided, in seconds since the epoch.
    decided_at: float = 0.0
    #: Seconds until asking again makes sense, where the service couldn't be asked and that is known.
    retry_after: float | None = None

    def __deepcopy__(self, memo: object) -> Decision:
        return self

    def raise_for_denial(self) -> None:
        """Raise unless the user may go on.

        Raises:
            DecisionDenied: They may not, or nobody could be asked.
        """
        if not self.allowed:
            raise DecisionDenied(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values that JSON knows, to be changed at will."""
        shown: dict[str, Any] = plain(self)
        return shown


class DecisionDenied(ResilientAuthError):
    """Say that a user may not go on, for code that handles errors instead of decisions.

    Args:
        decision: The one that denies.
    """

    code = "denied"

    def __init__(self, decision: Decision) -> None:
        # Neither the reason nor the attributes: they are personal.
        super().__init__(f"the user may not go on: {decision.code or 'the service says so'} ({decision.provenance})")
        self.decision = decision
        if decision.code:
            self.code = decision.code  # type: ignore[misc]
        #: The HTTP status to answer with: 403 for a no to the user, 503 where nobody could be asked, 502 where the
        #: service refused to be asked.
        self.status = 403
        if decision.provenance == "denied":
            self.status = 502 if decision.code == "claims_service_refused" else 503
        self.retry_after = decision.retry_after
        self.user_message = decision.reason or "You aren't allowed to do this."

    def __reduce__(self) -> tuple[object, ...]:
        return DecisionDenied, (self.decision,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Why the service couldn't be asked, for the owner's function."""

    #: Stable, such as `api_circuit_open`, `api_attempt_timeout`, `api_name_not_resolved` or `malformed_decision`.
    code: str
    #: For logs.
    detail: str
    #: For whoever waits in front of a screen: its own for each of circuit open, time-out and name not resolved (G20).
    user_message: str
    #: Seconds until asking again makes sense, where that is known.
    retry_after: float | None = None


def read_answer(text: bytes, parse: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None) -> Decision:
    """Read a decision in a service's answer.

    Args:
        text: The body.
        parse: Turns the service's own JSON object into one that `shaped` takes.

    Raises:
        MalformedDecision: It isn't one.
    """
    try:
        body = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except MalformedDecision:
        raise
    except (ValueError, RecursionError):
        # Neither the text nor the parser's words about it: they quote it.
        raise MalformedDecision("the answer isn't JSON") from None
    if not isinstance(body, dict):
        raise MalformedDecision("the answer isn't a JSON object")
    if parse is None:
        return shaped(body)
    try:
        parsed = parse(body)
    except Exception as error:  # noqa: BLE001 - whatever it stumbled over was in the answer
        raise MalformedDecision(f"parse raised {type(error).__name__}") from None
    return shaped(parsed)


def shaped(body: object) -> Decision:
    """Make a decision of an object with `allowed`, and perhaps `reason` and `attributes`; other members mean nothing.

    Raises:
        MalformedDecision: It has another shape.
    """
    if not isinstance(body, Mapping):
        raise MalformedDecision("the decision isn't an object")
    allowed = body.get("allowed")
    if not isinstance(allowed, bool):
        raise MalformedDecision("'allowed' is neither true nor false")
    try:
        return Decision(
            allowed=allowed, reason=_reason(body.get("reason")), attributes=_attributes(body.get("attributes"))
        )
    except MalformedDecision:
        # A clear no stays one, whatever is wrong with the rest.
        if not allowed:
            return Decision(allowed=False)
        raise


def _reason(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MOST_REASON or not all(c.isprintable() for c in value):
        raise MalformedDecision(f"'reason' isn't a line of text of at most {_MOST_REASON} characters")
    return value


def _attributes(value: object) -> Mapping[str, Any]:
    if value is None:
        return _NOTHING
    if not isinstance(value, Mapping) or len(value) > _MOST_ATTRIBUTES:
        raise MalformedDecision(f"'attributes' isn't an object with at most {_MOST_ATTRIBUTES} members")
    frozen: Mapping[str, Any] = _frozen(value, 1)
    try:
        # An infinite number and half a character can be read, and can't be written anywhere.
        json.dumps(frozen, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        raise MalformedDecision("'attributes' holds what isn't JSON") from None
    return frozen


def _frozen(value: Any, depth: int) -> Any:
    if depth > _MOST_DEPTH:
        raise MalformedDecision(f"'attributes' is nested more than {_MOST_DEPTH} deep")
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise MalformedDecision("'attributes' has a name that isn't a string")
        return FrozenDict((name, _frozen(member, depth + 1)) for name, member in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(member, depth + 1) for member in value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedDecision("the answer has a member twice")
    return members


def _no_constant(_: str) -> Any:
    raise MalformedDecision("the answer holds a number that JSON doesn't have")
