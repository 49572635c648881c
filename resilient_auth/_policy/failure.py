"""What an answer of the provider means: success, failure, or neither (the three verdicts)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from ..errors import MalformedAnswer, ProviderUnavailable, ServerFailed, Throttled
from .provider_errors import Fault, kind_of, name_of

__all__ = ["LONGEST_RETRY_AFTER", "Purpose", "http_date", "json_object", "judge", "parse_retry_after", "readable",
           "retry_after_of"]  # fmt: skip

#: Seconds; a longer `Retry-After` counts as this.
LONGEST_RETRY_AFTER = 3600.0
#: Of OpenAI's and Anthropic's APIs, and of Azure's.
_IN_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")
_MOST_DIGITS = 32


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


def parse_retry_after(value: str | None, wall: float, date: str | None = None) -> float | None:
    """Read a `Retry-After` header, seconds or an HTTP date (RFC 9110, section 10.2.3).

    Args:
        value: The header's.
        wall: Seconds since the epoch, by this machine's clock.
        date: The answer's own `Date`: two times of one clock are further apart by what was meant, whatever ours says.

    Returns:
        Seconds from 0 to one hour, or None for none or one that can't be read.
    """
    if value is None:
        return None
    value = value.strip()
    # A header that is there twice, the provider's and a proxy's, say, arrives as one: then none is to be early.
    numbers = value.split(", ")
    if value.isascii() and all(number.replace(".", "", 1).isdigit() for number in numbers):
        seconds = max(map(float, numbers))
    else:
        until, sent = http_date(value), http_date(date)
        if until is None:
            return None
        seconds = until - wall
        # A `Date` that makes no sense of it is a cache's, or nonsense.
        if sent is not None and 0.0 <= until - sent <= LONGEST_RETRY_AFTER:
            seconds = until - sent
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None


def retry_after_of(headers: Mapping[str, str], wall: float) -> float | None:
    """Read how long an answer asks to wait, by the most exact of the headers that say so.

    Args:
        headers: Looked up by lower-case names.
        wall: Seconds since the epoch, by this machine's clock.

    Returns:
        Seconds from 0 to one hour, or None for none or what can't be read.
    """
    for name in _IN_MILLISECONDS:
        value = headers.get(name, "").strip()
        # More digits than that are no time.
        if value.isascii() and value.replace(".", "", 1).isdigit() and len(value) < _MOST_DIGITS:
            return min(float(value) / 1000.0, LONGEST_RETRY_AFTER)
    return parse_retry_after(headers.get("retry-after"), wall, headers.get("date"))


def http_date(value: str | None) -> float | None:
    """Read an HTTP date as seconds since the epoch; None for none, and for what is none."""
    try:
        date = parsedate_to_datetime(value or "")
        # An HTTP date is GMT, in its old forms too, which don't say so.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def judge(
    purpose: Purpose, authority: str, status: int, headers: Mapping[str, str], text: str, wall: float
) -> ProviderUnavailable | None:
    """Return why an answer is no answer, or None where the provider did its work, if only to say no.

    Args:
        purpose: What was asked.
        authority: Whom; for the message.
        status: HTTP status.
        headers: With lower-case names.
        text: The body.
        wall: Seconds since the epoch, for a `Retry-After` that is a date.
    """
    retry_after = retry_after_of(headers, wall)
    if status == 429:
        return _throttled(authority, "429", retry_after)
    # AD FS says 500 to a wrong password too, in SOAP, which knows whose fault it is (SOAP 1.2, part 1, section 5.4.6).
    if purpose is Purpose.WS_TRUST and ":Sender<" in text:
        return None
    # An instance metadata service says 404 and 410 while it is being updated, and means "ask again".
    if status >= 500 or status == 408 or (purpose is Purpose.MANAGED_IDENTITY and status in (404, 410)):
        return ServerFailed(f"{authority} answered {status}", authority=authority, retry_after=retry_after)
    if purpose not in _JSON:
        return None
    body = json_object(text)
    if body is not None and "error" in body:
        told = _told_by(body, authority, status, retry_after)
        if told is not None:
            return told
    fault = _shape(purpose, status, body, wall)
    if fault is None:
        return None
    malformed = MalformedAnswer(
        f"{authority} answered {status} with {fault}", authority=authority, retry_after=retry_after
    )
    # Where there is a token, it was the provider that answered, and this answer alone is odd.
    malformed.of_request = body is not None and _has_token(body)
    return malformed


def _told_by(
    body: dict[str, Any], authority: str, status: int, retry_after: float | None
) -> ProviderUnavailable | None:
    """Return the failure that an error body tells of, whatever the status (G9); None for a denial or an answer."""
    kind = kind_of(body)
    if kind is None:
        return None
    name = f"{name_of(body)}, {status}"
    if kind is Fault.THROTTLED:
        return _throttled(authority, name, retry_after)
    if kind is Fault.TRANSIENT:
        return ServerFailed(f"{authority} failed ({name})", authority=authority, retry_after=retry_after)
    if kind is Fault.UNMATCHED:
        message = (
            f"{authority} doesn't know this application's federated credential ({name}): it was made or changed a few "
            "minutes ago, or its issuer, subject or audience isn't the assertion's"
        )
        unmatched = ServerFailed(message, authority=authority, retry_after=retry_after)
        unmatched.of_request = True
        return unmatched
    return None


def _throttled(authority: str, how: str, retry_after: float | None) -> Throttled:
    wait = "" if retry_after is None else f" for {retry_after:.0f} s"
    return Throttled(
        f"{authority} throttles this application{wait} ({how})", authority=authority, retry_after=retry_after
    )


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object that a text is; None for what isn't one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _shape(purpose: Purpose, status: int, body: dict[str, Any] | None, wall: float) -> str | None:
    # A tenant that doesn't exist, or a realm that isn't known, is said with a 4xx and any body.
    if purpose not in (Purpose.TOKEN, Purpose.ALIASES) and 400 <= status < 500:
        # What a managed identity's endpoint says with one varies. MSAL reads it as JSON, but for Azure Arc's challenge:
        # what isn't is a page of something before the endpoint.
        page = purpose is Purpose.MANAGED_IDENTITY and status != 401 and body is None
        return "what isn't a JSON object" if page else None
    if body is None:
        return "what isn't a JSON object"
    if status < 400 and purpose in (Purpose.TOKEN, Purpose.MANAGED_IDENTITY):
        return _token_shape(body, wall)
    return None


def _has_token(body: dict[str, Any]) -> bool:
    access, identity = body.get("access_token"), body.get("id_token")
    return (isinstance(access, str) and access != "") or (isinstance(identity, str) and identity != "")


def _token_shape(body: dict[str, Any], wall: float) -> str | None:
    """Return what is wrong with a successful answer of a token or device authorization endpoint (RFC 6749, 5.1)."""
    if "error" in body or "device_code" in body:
        return None
    if not _has_token(body):
        return "no token in it"
    # What else there is of times only says when to refresh, or isn't used.
    name = "expires_on" if body.get("expires_in") is None else "expires_in"
    if body.get(name) is None:
        return None
    seconds = _whole_seconds(body[name])
    if seconds is None:
        return f"a token whose {name} isn't a number of seconds"
    # Such an answer must not take the place of a token that is still valid.
    if seconds <= (0 if name == "expires_in" else wall):
        return "a token that is over already"
    return None


def readable(text: str) -> str:
    """Return a token endpoint's answer as MSAL can read it: its times in whole seconds or left out, and without nulls.

    MSAL raises on `"3599.0"`, on a `refresh_in` that is text, and on null for a time, a scope or an ID token.
    """
    body = json_object(text)
    if body is None or not body.keys() & {"access_token", "device_code"}:
        return text
    odd = None in body.values()
    if odd:
        body = {name: value for name, value in body.items() if value is not None}
    for name in ("expires_in", "expires_on", "ext_expires_in", "refresh_in", "interval"):
        if name not in body or (type(body[name]) is int and 0 <= body[name] < _MOST_SECONDS):
            continue
        odd = True
        seconds = _whole_seconds(body[name])
        if seconds is None:
            del body[name]
        else:
            body[name] = seconds
    return json.dumps(body) if odd else text


_MOST_SECONDS = 10**11
_SECONDS = re.compile(r"\d{1,11}(?:\.\d{0,9})?", re.ASCII)


def _whole_seconds(value: object) -> int | None:
    """Read a number of seconds as providers write them: whole or not, as text in version 1 endpoints."""
    if isinstance(value, str):
        return int(float(value)) if _SECONDS.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MOST_SECONDS:
        return None
    return int(value)
