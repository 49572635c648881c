"""Tokens as somebody else's credential gives them: azure-core's two kinds, MSAL's results, pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, MalformedAnswer

__all__ = ["TokenMetadata", "is_denial", "told_by"]

#: Seconds; milliseconds since the epoch would give far more.
_LONGEST_LIFE = 10 * 366 * 24 * 3600.0


@dataclass(frozen=True, slots=True, repr=False)
class TokenMetadata:
    """Say what a source told of its token."""

    secret: str
    token_type: str
    #: Seconds from when it was asked for.
    life: float
    #: Seconds since the epoch.
    refresh_on: float | None


def is_denial(answer: Any) -> bool:
    """Return whether it is MSAL's way of saying no."""
    return isinstance(answer, Mapping) and "access_token" not in answer and "error" in answer


def told_by(answer: Any, name: str, asked_on: float) -> TokenMetadata:
    """Read what is like a token.

    Args:
        answer: Whatever was given.
        name: Of whom; for messages.
        asked_on: Wall time at which it was asked for.

    Raises:
        ConfigurationError: It is nothing like a token.
        MalformedAnswer: It is no token that is valid now.
    """
    expires_in = None
    if isinstance(answer, Mapping) and "access_token" in answer:
        secret, kind = answer["access_token"], answer.get("token_type")
        expires_on, refresh_on = answer.get("expires_on"), answer.get("refresh_on")
        expires_in = _number(answer.get("expires_in"))
    elif hasattr(answer, "token") and hasattr(answer, "expires_on"):
        secret, kind, expires_on = answer.token, getattr(answer, "token_type", None), answer.expires_on
        refresh_on = getattr(answer, "refresh_on", None)
    elif isinstance(answer, tuple) and len(answer) == 2:
        (secret, expires_on), kind, refresh_on = answer, None, None
    else:
        raise ConfigurationError(
            f"{name} gave a {type(answer).__name__}: a source must give an AccessToken(token, expires_on), "
            "or a mapping with access_token and expires_in"
        )
    ends = _number(expires_on)
    life = ends - asked_on if expires_in is None and ends is not None else expires_in
    fault = _fault_in(secret, life)
    if fault is not None or life is None:
        malformed = MalformedAnswer(f"{name} gave a token {fault}", authority=name)
        malformed.of_request = True  # it was asked, and answered
        raise malformed
    return TokenMetadata(secret, str(kind or "Bearer"), life, _number(refresh_on))


def _fault_in(secret: object, life: float | None) -> str | None:
    if not isinstance(secret, str) or not secret:
        return "that isn't a string"
    if not (secret.isascii() and secret.isprintable()):  # as from a file, with its line end
        return "with a character that no header can hold"
    if life is None:
        return "without expires_on, in seconds since the epoch"
    if life <= 0:  # it must not take the place of one that is still valid
        return "that is over already"
    if life > _LONGEST_LIFE:
        return "whose expires_on isn't in seconds since the epoch"
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None
