"""The ways in which a provider breaks, as frozen values.

Faults say what goes wrong; `injection` says where and when, and `wire` makes it happen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from math import ceil
from typing import Any, Final

from .checks import LONGEST, check, check_number, check_text, check_whole

REFUSE, TLS_FAILED, EXPIRED_TOKENS = "refuse", "tls_failed", "expired_tokens"

_ERROR_PAGE: Final = (
    "<!DOCTYPE html><html><head><title>Service Unavailable</title></head>"
    "<body><h1>Service Unavailable</h1><p>The service is temporarily unavailable.</p></body></html>"
)
_PORTAL_PAGE: Final = (
    "<!DOCTYPE html><html><head><title>Guest network</title></head>"
    "<body><h1>Welcome</h1><form>Accept the terms to go online. <button>Accept</button></form></body></html>"
)
_CUT_ANSWER: Final = '{"token_type":"Bearer","expires_in":3599,"access_token":"eyJ0eXAiOiJKV1QiLCJhbGci'


@dataclass(frozen=True)
class Fault:
    """A way to fail; make one with a constructor below and hand it to `Emulator.fail`."""

    name: str

    @property
    def host_wide(self) -> bool:
        """Return whether it breaks a whole host, its live connections included."""
        return self.name in (REFUSE, TLS_FAILED)

    @staticmethod
    def refuse() -> Fault:
        """Close the listener and abort every live connection of the host; the port stays reserved."""
        return Fault(REFUSE)

    @staticmethod
    def reset() -> Fault:
        """Send RST after the request has been read."""
        return Fault("reset")

    @staticmethod
    def black_hole() -> Fault:
        """Accept, read and never answer; healing aborts those who still wait."""
        return Fault("black_hole")

    @staticmethod
    def slow(seconds: float = 2.0) -> Fault:
        """Answer correctly, `seconds` late."""
        check_number("seconds", seconds, above=True)
        return Slow(seconds=seconds)

    @staticmethod
    def trickle(bytes_per_second: float = 1.0, headers: bool = False) -> Fault:
        """Answer correctly, a few bytes at a time; with `headers`, the header bytes too."""
        check_number("bytes_per_second", bytes_per_second, above=True)
        _check_bool("headers", headers)
        return Trickle(bytes_per_second=bytes_per_second, headers=headers)

    @staticmethod
    def http_503(json: bool = True, retry_after: float | None = None) -> Fault:
        """Answer 503 with Entra's JSON, or with a page where `json` is false."""
        _check_bool("json", json)
        return Fault.status(503, retry_after=retry_after) if json else Fault.http_503_html(retry_after)

    @staticmethod
    def http_503_html(retry_after: float | None = None) -> Fault:
        """Answer 503 with a gateway's HTML page."""
        return WrongAnswer("http_503_html", 503, _ERROR_PAGE, "text/html; charset=utf-8", retry_after)

    @staticmethod
    def status(code: int, body: str | None = None, retry_after: float | None = None) -> Fault:
        """Answer any status of 200 to 599, with an OAuth error body unless `body` is given."""
        check_whole("the status code", code, low=200, high=599)
        check(body is None or isinstance(body, str), f"body must be a text, not {type(body).__name__}")
        return WrongAnswer(f"http_{code}", code, _error_body(code) if body is None else body, retry_after=retry_after)

    @staticmethod
    def http_429(retry_after: float | None = 30, as_date: bool = False) -> Fault:
        """Throttle: 429 with `Retry-After` in seconds, or as an HTTP date."""
        return WrongAnswer("http_429", 429, _error_body(429), retry_after=retry_after, as_date=as_date)

    @staticmethod
    def html_200() -> Fault:
        """Answer 200 with a captive portal's page."""
        return WrongAnswer("html_200", 200, _PORTAL_PAGE, "text/html; charset=utf-8")

    @staticmethod
    def json_array() -> Fault:
        """Answer 200 with `[]`."""
        return WrongAnswer("json_array", 200, "[]")

    @staticmethod
    def json_object() -> Fault:
        """Answer 200 with `{}`."""
        return WrongAnswer("json_object", 200, "{}")

    @staticmethod
    def truncated_json() -> Fault:
        """Answer 200 with JSON that breaks off in a string, under a correct content length."""
        return WrongAnswer("truncated_json", 200, _CUT_ANSWER)

    @staticmethod
    def wrong_content_length() -> Fault:
        """Promise more bytes than are sent, then close."""
        return Fault("wrong_content_length")

    @staticmethod
    def tls_failed() -> Fault:
        """Fail every TLS handshake of the host and abort its live connections."""
        return Fault(TLS_FAILED)

    @staticmethod
    def flapping(period: float = 1.0, inner: Fault | None = None) -> Fault:
        """Fail as `inner` does (503 unless given) for `period` seconds, work for as long, and so on."""
        check_number("period", period, above=True)
        fits = inner is None or isinstance(inner, Fault)
        check(fits, f"inner must be a fault such as Fault.refuse(), not {inner!r}")
        check(not isinstance(inner, Flapping), "inner can't flap: it does so inside a flapping fault")
        return Flapping(period=period, inner=inner or Fault.http_503())

    @staticmethod
    def expired_tokens() -> Fault:
        """Issue tokens that have expired already."""
        return Fault(EXPIRED_TOKENS)

    @staticmethod
    def all() -> dict[str, Fault]:
        """Return one instance of each fault under its name, for drills and parametrised tests."""
        return {name: make() for name, make in _CONSTRUCTORS.items()}

    @staticmethod
    def parse(text: str, **options: Any) -> Fault:
        """Build a fault from a name such as `"503"`, `"black-hole"`, `"slow:5"` or `"429:30"`.

        Args:
            text: A name of `all()`, or a status code; after a colon, the first argument of its constructor.
            options: Further arguments of the constructor.

        Raises:
            ValueError: There is no such fault, or it doesn't take these arguments.
        """
        check_text("a fault", text, "503")
        head, _, argument = text.strip().lower().replace("-", "_").partition(":")
        name = f"http_{head}" if head[:3].isdecimal() and head.isascii() else head
        code = name.removeprefix("http_")
        known = _CONSTRUCTORS.get(name)
        if known is None and not (code.isdecimal() and code.isascii() and len(code) == 3):
            raise ValueError(f"unknown fault {text!r}: use a status code or one of {', '.join(_CONSTRUCTORS)}")
        if argument:
            options.setdefault(_FIRST_ARGUMENT.get(name, "retry_after"), _number_in(text, argument))
        if isinstance(options.get("inner"), str):
            options["inner"] = Fault.parse(options["inner"])
        try:
            return known(**options) if known else Fault.status(int(code), **options)
        except TypeError as error:
            raise ValueError(f"fault {name!r} doesn't take these arguments: {error}") from error


@dataclass(frozen=True)
class Slow(Fault):
    """The answer comes late."""

    name: str = "slow"
    seconds: float = 2.0


@dataclass(frozen=True)
class Trickle(Fault):
    """The answer comes byte by byte."""

    name: str = "trickle"
    bytes_per_second: float = 1.0
    headers: bool = False


@dataclass(frozen=True)
class WrongAnswer(Fault):
    """An answer that isn't the one asked for."""

    code: int = 503
    body: str = ""
    content_type: str = "application/json; charset=utf-8"
    retry_after: float | None = None
    as_date: bool = False

    def __post_init__(self) -> None:
        if self.retry_after is not None:
            check_number("retry_after", self.retry_after, low=-LONGEST)
        _check_bool("as_date", self.as_date)

    def retry_after_header(self, now: float) -> str | None:
        """Return the `Retry-After` to send at wall-clock time `now`, rounded so that it's never too early."""
        if self.retry_after is None:
            return None
        if self.as_date:
            return formatdate(ceil(now + self.retry_after), usegmt=True)
        return str(ceil(self.retry_after))


@dataclass(frozen=True)
class Flapping(Fault):
    """A fault that comes and goes."""

    name: str = "flapping"
    period: float = 1.0
    inner: Fault = Fault("none")

    @property
    def host_wide(self) -> bool:
        return self.inner.host_wide


#: All but `status`, which takes a code.
_CONSTRUCTORS: Final[dict[str, Callable[..., Fault]]] = {
    name: getattr(Fault, name)
    for name, made_by in vars(Fault).items()
    if isinstance(made_by, staticmethod) and name not in ("all", "parse", "status")
}
_FIRST_ARGUMENT: Final = {"slow": "seconds", "trickle": "bytes_per_second", "flapping": "period"}


def _error_body(code: int) -> str:
    # Entra's number for a failure of its own isn't to be had with a denial.
    failing = code == 429 or code >= 500
    error, number = ("temporarily_unavailable", 90033) if failing else ("invalid_request", 90023)
    description = f"AADSTS{number}: A fault on command, with HTTP status {code}."
    return json.dumps({"error": error, "error_description": description, "error_codes": [number]})


def _number_in(text: str, argument: str) -> float:
    try:
        return float(argument)
    except ValueError:
        raise ValueError(f"what follows the colon of a fault must be a number, as in slow:5, not {text!r}") from None


def _check_bool(name: str, value: object) -> None:
    check(isinstance(value, bool), f"{name} must be True or False, not {value!r}")
