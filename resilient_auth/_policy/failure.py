"""What an answer of the provider means: success, failure, or neither (the three verdicts)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from ..errors import MalformedAnswer, ProviderUnavailable, ServerFailed, Throttled

__all__ = ["LONGEST_RETRY_AFTER", "Purpose", "judge", "parse_retry_after"]

#: Seconds; a provider that asks for more patience than this is asked again then.
LONGEST_RETRY_AFTER = 3600.0


class Purpose(StrEnum):
    """What is asked of an authority; each has a breaker of its own."""

    TOKEN = "token"  # noqa: S105 - a purpose, not a password
    DISCOVERY = "discovery"
    ALIASES = "aliases"
    USER_REALM = "user_realm"
    MANAGED_IDENTITY = "managed_identity"
    REGION = "region"
    WS_TRUST = "ws_trust"
    KEYS = "keys"


#: Where the answer must be a JSON object, whatever its status.
_JSON = frozenset(Purpose) - {Purpose.REGION, Purpose.WS_TRUST}


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """Read a `Retry-After` header, seconds or an HTTP date (RFC 9110, section 10.2.3).

    Returns seconds from `wall`, from 0 to one hour, or None for none or one that can't be read.
    """
    if value is None:
        return None
    value = value.strip()
    try:
        seconds = float(value) if value.isascii() and value.replace(".", "", 1).isdigit() else None
        if seconds is None:
            date = parsedate_to_datetime(value)
            # An HTTP date is GMT, in its old forms too, which don't say so.
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None


def judge(
    purpose: Purpose, authority: str, status: int, headers: Mapping[str, str], text: str, wall: float
) -> ProviderUnavailable | None:
    """Tell why an answer is no answer, or None where the provider did its work, if only to say no.

    Args:
        purpose: What was asked.
        authority: Whom; for the message.
        status: HTTP status.
        headers: With lower-case names.
        text: The body.
        wall: Seconds since the epoch, for a `Retry-After` that is a date.
    """
    retry_after = parse_retry_after(headers.get("retry-after"), wall)
    if status == 429:
        wait = "" if retry_after is None else f" for {retry_after:.0f} s"
        return Throttled(
            f"{authority} throttles this application{wait} (429)", authority=authority, retry_after=retry_after
        )
    if status >= 500 or status == 408:
        return ServerFailed(f"{authority} answered {status}", authority=authority, retry_after=retry_after)
    # An instance metadata service says these while it is being updated, and means "ask again".
    if purpose is Purpose.MANAGED_IDENTITY and status in (404, 410):
        return ServerFailed(f"{authority} answered {status}", authority=authority, retry_after=retry_after)
    if purpose not in _JSON:
        return None
    fault = _shape(purpose, status, text, wall)
    if fault is None:
        return None
    return MalformedAnswer(f"{authority} answered {status} with {fault}", authority=authority, retry_after=retry_after)


def _shape(purpose: Purpose, status: int, text: str, wall: float) -> str | None:
    # A tenant that doesn't exist, or a realm that isn't known, is said with a 4xx and any body.
    # What a managed identity's endpoint says with one varies: its status is what counts.
    if purpose not in (Purpose.TOKEN, Purpose.ALIASES) and 400 <= status < 500:
        return None
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "what isn't JSON"
    if not isinstance(body, dict):
        return "JSON that isn't an object"
    if status < 400 and purpose in (Purpose.TOKEN, Purpose.MANAGED_IDENTITY):
        return _token_shape(body, wall)
    return None


def _token_shape(body: dict[str, Any], wall: float) -> str | None:
    """Tell what is wrong with a successful answer of a token or device authorization endpoint (RFC 6749, 5.1)."""
    if "error" in body or "device_code" in body:
        return None
    if not any(isinstance(body.get(name), str) and body[name] for name in ("access_token", "id_token")):
        return "no token in it"
    for name in ("expires_in", "ext_expires_in", "refresh_in", "expires_on"):
        if not _is_seconds(body.get(name, 0)):
            return f"a token whose {name} isn't a number of seconds"
    # Such an answer must not take the place of a token that is still valid.
    if int(body.get("expires_in", 1)) <= 0 or (
        "expires_in" not in body and int(body.get("expires_on", wall + 1)) <= wall
    ):
        return "a token that is over already"
    return None


def _is_seconds(value: object) -> bool:
    # Version 1 endpoints send numbers as strings. MSAL adds refresh_in as it comes.
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) < 12
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**11
