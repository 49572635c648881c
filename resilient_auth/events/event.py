"""What all events have: a name, a level, the words in which they are told, and what may be shown of their fields.

One word for one thing, in every event and in `health()`:

    authority     an identity provider's origin; every event about one has it
    target        what else is called or read: an API's origin, a store, a claims service, a file, a document's URL
    purpose       what is asked of it: `token`, `discovery`, `keys`, `api`, ...
    request       the token that it is about; whose that is, is a hash
    issuer        the tenant, where it is about tokens that arrive
    code          why, as one of `CODES`; or the provider's own `error` where it denied something
    detail        the same for people: one printable line, at most 300 characters, without a secret
    seconds       how long; other times say of what: `age`, `remaining`, `retry_after`
    count         how many
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..errors import printable
from ..token import TokenRequest

__all__ = [
    "BreakerEvent",
    "DependencyEvent",
    "DocumentEvent",
    "Event",
    "IssuerEvent",
    "RequestEvent",
    "origin_in",
]

_LONGEST_DETAIL = 300


#: Each kind's fields, looked up once: `fields` makes its list anew each time.
_fields_of: Callable[[type], tuple[Field[Any], ...]] = functools.cache(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What was decided, at `at` seconds since the epoch."""

    #: A stable name, such as `token_served`.
    name: ClassVar[str] = "event"
    #: Of the log record. What is told to nobody but who looks for it, and what is as it should be, says so.
    level: ClassVar[int] = logging.WARNING
    #: The log record's text, with fields by name.
    text: ClassVar[str] = "Something was decided"
    at: float

    def __init_subclass__(cls) -> None:
        cls.name = "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("_")

    def __post_init__(self) -> None:
        for field in _fields_of(type(self)):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)):
                continue
            shown = _shown(value)
            if field.name == "detail" and isinstance(shown, str) and len(shown) > _LONGEST_DETAIL:
                shown = f"{shown[: _LONGEST_DETAIL - 1]}…"
            if shown is not value:
                object.__setattr__(self, field.name, shown)

    def __str__(self) -> str:
        spoken = {name: _spoken(value) for name, value in self._values().items()}
        return printable(f"{self._words().format_map(spoken)} [{self.name}]")

    def _words(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return its name and its fields as JSON has them, with numbers rounded to milliseconds.

        A token's request is told as `authority`, `client_id`, `flow`, `scopes` and `subject`, which is a hash.
        """
        found: dict[str, Any] = {"event": self.name}
        for name, value in self._values().items():
            if isinstance(value, TokenRequest):
                found |= {
                    "client_id": value.client_id,
                    "flow": value.flow,
                    "scopes": list(value.scopes),
                    "subject": value.subject,
                }
            else:
                found[name] = list(value) if isinstance(value, tuple) else _rounded(value)
        return found

    def _values(self) -> dict[str, Any]:
        """Return the fields, `authority` too where that follows from another one."""
        found = {field.name: getattr(self, field.name) for field in _fields_of(type(self))}
        authority = getattr(self, "authority", None)
        return found if authority is None else {"at": self.at, "authority": authority} | found


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEvent(Event):
    """What was decided about the token of one request."""

    request: TokenRequest

    @property
    def authority(self) -> str:
        """Return the origin of the identity provider that is asked for it."""
        return origin_in(self.request.authority)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerEvent(Event):
    """What was decided about tokens of one issuer."""

    issuer: str

    @property
    def authority(self) -> str:
        """Return the origin of the identity provider that issues them."""
        return origin_in(self.issuer)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentEvent(Event):
    """What was decided about a provider's document, whose URL is the target."""

    target: str

    @property
    def authority(self) -> str:
        """Return the origin of the identity provider that publishes it."""
        return origin_in(self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyEvent(Event):
    """What was decided about an identity provider, its `authority`, or an API or a store, its `target`."""

    authority: str = ""
    target: str = ""
    purpose: str = ""

    def _values(self) -> dict[str, Any]:
        return {name: value for name, value in Event._values(self).items() if value != ""}

    def __str__(self) -> str:
        return f"{printable(' '.join(filter(None, self._whom())))}: {Event.__str__(self)}"

    def _whom(self) -> tuple[str, ...]:
        return self.authority or self.target, self.purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerEvent(DependencyEvent):
    """How a circuit breaker changed."""

    #: What of it, where the breaker isn't around the whole: a grant at a tenant, or one request.
    part: str = ""
    #: Over which it is asked, where that isn't the default one.
    wire: str = ""

    def _whom(self) -> tuple[str, ...]:
        return self.authority or self.target, self.purpose, self.part


def origin_in(text: object) -> str:
    """Return the origin of the URL that a text begins with; "" where it begins with none."""
    url = str(text).partition(" ")[0]
    try:
        parts = urlsplit(url)
    except ValueError:  # an issuer is whatever a token says
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}" if parts.netloc else ""


def _shown(value: object) -> object:
    """Return what of an event's field may be shown to anybody, in any way."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, tuple):
        return tuple(map(_shown, value))
    return value.shown() if isinstance(value, TokenRequest) else value


def _rounded(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def _spoken(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
