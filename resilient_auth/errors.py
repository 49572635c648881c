"""What can go wrong, as exceptions with a stable `code` each.

    ResilientAuthError
    ├── ConfigurationError (also ValueError)          an argument or option is wrong; raised before any network call
    ├── Closed                                        the application object was closed
    ├── TokenDenied                                   a credential's provider works and said no
    ├── StoreUnavailable                              a store's medium fails; the engine goes on from memory
    └── ProviderUnavailable (also requests.RequestException)
        ├── CircuitOpen                               no request was sent: it failed, and its break isn't over
        ├── Throttled                                 429; or no request was sent, since Retry-After hasn't passed
        ├── AcquisitionTimeout (also requests.Timeout)    this caller's deadline passed
        ├── AttemptTimeout (also requests.Timeout)    the provider didn't answer in time
        ├── ConnectionFailed (also requests.ConnectionError)  refused, reset, unreachable
        │   └── NameNotResolved
        ├── TLSFailed (also requests.exceptions.SSLError)
        ├── ServerFailed                              5xx, or an error of the provider's own at any status
        ├── MalformedAnswer                           not the JSON that it should be: a captive portal, a cut-off body
        ├── AssertionUnavailable                      what is to prove who the application is couldn't be had
        ├── Overloaded                                the queue is full
        └── LocalResourcesExhausted                   this machine has no descriptor, memory or port left

A denial (`invalid_grant`, `invalid_client` and so on) stays the error dict that MSAL returns. Credentials alone, which
return nothing but tokens, raise it as `TokenDenied`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import requests

__all__ = [
    "AcquisitionTimeout",
    "AssertionUnavailable",
    "AttemptTimeout",
    "CircuitOpen",
    "Closed",
    "ConfigurationError",
    "ConnectionFailed",
    "LocalResourcesExhausted",
    "MalformedAnswer",
    "NameNotResolved",
    "Overloaded",
    "ProviderUnavailable",
    "ResilientAuthError",
    "ServerFailed",
    "StoreUnavailable",
    "TLSFailed",
    "Throttled",
    "TokenDenied",
]


def printable(text: str) -> str:
    """Return a text with escapes in place of all that isn't printable.

    What a provider, an API or a store says is anybody's text: a line end in it would begin a line of its own in a log,
    and an escape sequence would steer a terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class ResilientAuthError(Exception):
    """Anything that this package raises of its own. Its text is one printable line."""

    code: ClassVar[str] = "resilient_auth_error"

    def __init__(self, *args: object, **options: Any) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args), **options)


class ConfigurationError(ResilientAuthError, ValueError):
    """An argument or an option is wrong; the message says which, and the fix."""

    code = "configuration"


class Closed(ResilientAuthError, RuntimeError):
    """The application object was closed."""

    code = "closed"


class TokenDenied(ResilientAuthError):
    """The provider works and refused a credential a token: trying again won't help.

    Args:
        error: OAuth's code, such as `invalid_client`.
        description: What the provider said about it.
        claims: What it wants of the next sign-in, where it said so.
    """

    code = "token_denied"

    def __init__(self, error: str = "denied", description: str = "", *, claims: str | None = None) -> None:
        self.error, self.description = printable(error), printable(description)
        self.message = f"{self.error}: {self.description}" if description else self.error
        super().__init__(self.message)
        self.claims = claims

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_denial, (type(self), self.error, self.description, self.claims)


def _rebuild_denial(cls: type[TokenDenied], error: str, description: str, claims: str | None) -> TokenDenied:
    return cls(error, description, claims=claims)


class StoreUnavailable(ResilientAuthError):
    """A store's medium fails, or its circuit is open; the engine goes on from memory.

    Args:
        label: The store's medium, such as `redis`.
        reason: A stable code of what is wrong with it, such as `timeout` or `full`.
        detail: For people; holds no secret.
        retry_after: Seconds until the next attempt, where that is known.
    """

    code = "store_unavailable"

    def __init__(self, label: str, reason: str, detail: str = "", *, retry_after: float | None = None) -> None:
        self.label, self.reason, self.detail = printable(label), printable(reason), printable(detail)
        self.message = f"the {self.label} store is unavailable ({self.reason})" + (f": {self.detail}" if detail else "")
        super().__init__(self.message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_store_failure, (type(self), self.label, self.reason, self.detail, self.retry_after)


def _rebuild_store_failure(
    cls: type[StoreUnavailable], label: str, reason: str, detail: str, retry_after: float | None
) -> StoreUnavailable:
    return cls(label, reason, detail, retry_after=retry_after)


class ProviderUnavailable(ResilientAuthError, requests.RequestException):
    """The provider gave no answer; `retry_after` says when to try again, where that is known.

    Callers of MSAL that catch `requests.RequestException` catch this too.
    """

    code = "provider_unavailable"
    #: Whether the request may have reached the provider.
    sent: bool = True
    #: Whether waiting may help: it doesn't where a name doesn't exist, or a certificate isn't trusted.
    heals: bool = True
    #: Whether it says something about this one request alone, and nothing about others.
    of_request: bool = False

    def __init__(self, message: str, *, authority: str = "", retry_after: float | None = None) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        #: The provider's origin, such as `https://login.microsoftonline.com`.
        self.authority = authority
        #: Seconds until an attempt makes sense, where that is known.
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, retry_after={self.retry_after!r})"

    def __reduce__(self) -> tuple[object, ...]:
        state = (self.message, self.authority, self.retry_after, self.sent, self.heals, self.of_request)
        return _rebuild, (type(self), *state)


def _rebuild(
    cls: type[ProviderUnavailable],
    message: str,
    authority: str,
    retry_after: float | None,
    sent: bool,
    heals: bool = True,
    of_request: bool = False,
) -> ProviderUnavailable:
    error = cls(message, authority=authority, retry_after=retry_after)
    error.sent, error.heals, error.of_request = sent, heals, of_request
    return error


class CircuitOpen(ProviderUnavailable):
    """The circuit is open: no request was sent, since the provider failed a moment ago (G11)."""

    code = "circuit_open"


class Throttled(ProviderUnavailable):
    """The provider throttles this application: 429, or `Retry-After` hasn't passed (G8)."""

    code = "throttled"


class AcquisitionTimeout(ProviderUnavailable, requests.Timeout):
    """This caller's deadline passed; the token request goes on for others."""

    code = "acquisition_timeout"


class AttemptTimeout(ProviderUnavailable, requests.Timeout):
    """The provider accepted a request and didn't answer in time (G10)."""

    code = "attempt_timeout"


class ConnectionFailed(ProviderUnavailable, requests.ConnectionError):
    """The connection was refused, reset or could not be made."""

    code = "connection_failed"


class NameNotResolved(ConnectionFailed):
    """The provider's host name could not be resolved."""

    code = "name_not_resolved"


class TLSFailed(ProviderUnavailable, requests.exceptions.SSLError):
    """No trusted TLS connection could be made."""

    code = "tls_failed"


class ServerFailed(ProviderUnavailable):
    """The provider answered with a 5xx status, or with an error of its own at any status (G9)."""

    code = "server_failed"


class MalformedAnswer(ProviderUnavailable):
    """The answer was not the JSON that it should be."""

    code = "malformed_answer"


class AssertionUnavailable(ProviderUnavailable):
    """What is to prove who the application is couldn't be had; its provider wasn't asked (G24).

    Args:
        message: What went wrong.
        link: Who should have given it, such as a file or a managed identity.
        authority: The origin of that one's provider, where it has one.
        retry_after: Seconds until an attempt makes sense, where that is known.
    """

    code = "assertion_unavailable"
    sent = False

    def __init__(self, message: str, *, link: str = "", authority: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, authority=authority, retry_after=retry_after)
        self.link = printable(link)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_assertion, (type(self), self.message, self.link, self.authority, self.retry_after)


def _rebuild_assertion(
    cls: type[AssertionUnavailable], message: str, link: str, authority: str, retry_after: float | None
) -> AssertionUnavailable:
    return cls(message, link=link, authority=authority, retry_after=retry_after)


class Overloaded(ProviderUnavailable):
    """The queue for this authority is full."""

    code = "overloaded"


class LocalResourcesExhausted(ProviderUnavailable):
    """This process or machine has no descriptor, memory or port left; that says nothing about the provider."""

    code = "local_resources"
    sent = False
    of_request = True
