"""What an event means for those who are signed in: CAEP, RISC, and the stream's own events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

__all__ = ["ACTIONS", "Action", "action_of", "is_verification", "told_at"]

#: `end`: sessions and tokens end; `tokens`: tokens alone, since what they say isn't so any more.
Action = Literal["end", "tokens", "nothing"]

_CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
#: Shared Signals Framework, and its earlier name.
_STREAMS: Final = ("https://schemas.openid.net/secevent/ssf/", "https://schemas.openid.net/secevent/sse/", _RISC)

#: By the event's URI; what isn't here means nothing.
ACTIONS: Final[Mapping[str, Action]] = {
    f"{_CAEP}session-revoked": "end",
    f"{_CAEP}credential-change": "end",
    f"{_CAEP}assurance-level-change": "end",
    f"{_CAEP}device-compliance-change": "end",
    f"{_CAEP}risk-level-change": "end",
    f"{_CAEP}token-claims-change": "tokens",
    f"{_RISC}account-disabled": "end",
    f"{_RISC}account-purged": "end",
    f"{_RISC}account-credential-change-required": "end",
    f"{_RISC}credential-compromise": "end",
    f"{_RISC}identifier-recycled": "end",
    f"{_RISC}recovery-activated": "end",
    f"{_RISC}sessions-revoked": "end",
    # Google's, of the whole of a user's tokens.
    "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked": "tokens",
}
#: Events that are good news in one of their forms: by what they say, whether they are bad.
_IF: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    f"{_CAEP}credential-change": lambda payload: payload.get("change_type") != "create",
    f"{_CAEP}assurance-level-change": lambda payload: payload.get("change_direction") != "increase",
    f"{_CAEP}device-compliance-change": lambda payload: payload.get("current_status") != "compliant",
    f"{_CAEP}risk-level-change": lambda payload: payload.get("current_level") not in ("LOW", "MEDIUM"),
}


def action_of(event: str, payload: Mapping[str, Any], owners: Mapping[str, Action]) -> Action:
    """Return what an event asks for.

    Args:
        event: Its URI.
        payload: What it says.
        owners: The owner's actions, by URI, in place of ours.
    """
    if event in owners:
        return owners[event]
    action = ACTIONS.get(event, "nothing")
    bad = _IF.get(event)
    return "nothing" if bad is not None and not bad(payload) else action


def is_verification(event: str) -> bool:
    """Return whether an event asks whether it arrives (Shared Signals Framework, section 8.1.4)."""
    return event in {f"{stream.removesuffix('event-type/')}event-type/verification" for stream in _STREAMS}


def told_at(claims: Mapping[str, Any], payload: Mapping[str, Any], issued_at: float) -> float:
    """Return when it happened, in seconds since the epoch: never later than it was told."""
    value: Any
    for value in (payload.get("event_timestamp"), claims.get("toe")):
        if type(value) in (int, float) and 0 < value < issued_at:
            return float(value)
    return issued_at
