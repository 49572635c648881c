"""What can go wrong at an API, as exceptions that are also httpx's.

    ResilientAuthError
    ├── TokenUnavailable (also httpx.TransportError)           the credential gave no token; what it raised is both
    └── ApiUnavailable (also httpx.TransportError)             no answer could be had from the API
        ├── ApiCircuitOpen                                     not asked: it failed a moment ago
        ├── ApiDeadlinePassed (also httpx.TimeoutException)    the whole call took too long
        ├── ApiAttemptTimeout (also httpx.ReadTimeout)         one attempt took too long
        ├── ApiNameNotResolved (also httpx.ConnectError)
        ├── ApiConnectionRefused (also httpx.ConnectError)
        ├── ApiBulkheadFull (also httpx.PoolTimeout)           too many calls are under way
        └── ApiAnsweredError                                   a 429 or 5xx; only fallback functions see it

Other failures, such as a connection that breaks, stay what httpx raises. Each error has two messages: `str(error)` for
logs, `error.user_message` for whoever waits in front of a screen (G20).
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Any, ClassVar

import httpx

from ..errors import Closed, ConfigurationError, ResilientAuthError, printable

__all__ = [
    "ApiAnsweredError",
    "ApiAttemptTimeout",
    "ApiBulkheadFull",
    "ApiCircuitOpen",
    "ApiConnectionRefused",
    "ApiDeadlinePassed",
    "ApiNameNotResolved",
    "ApiUnavailable",
    "TokenUnavailable",
    "no_token",
]


class TokenUnavailable(ResilientAuthError, httpx.TransportError):
    """Say that a credential gave no token, or that the provider denied it."""

    code = "token_unavailable"


def no_token(error: Exception, kind: type[TokenUnavailable]) -> TokenUnavailable | None:
    """Return what a credential raised as an error that callers of an HTTP library catch as well.

    It stays what it is: whoever catches `ProviderUnavailable`, `TokenDenied` or azure-core's errors goes on doing so.

    Args:
        error: What the credential raised. It may be on its way to several callers: each gets an error of their own.
        kind: `TokenUnavailable` of the caller's library.

    Returns:
        The error; None where this isn't how a credential says that it has no token, but a bug, a wrong argument, or
        what a web framework is to answer.
    """
    if isinstance(error, kind):
        return error
    ours = isinstance(error, ResilientAuthError)
    azure = getattr(sys.modules.get("azure.core.exceptions"), "AzureError", ())
    theirs = isinstance(error, (OSError, httpx.HTTPError, azure))
    if isinstance(error, (ConfigurationError, Closed)) or not (ours or theirs):
        return None
    if getattr(error, "for_the_framework", False):
        # A view that takes an API's failures for what they are would take this for one.
        return None
    made = _as_both(type(error), kind, error.args, error.__dict__)
    made.__cause__ = error.__cause__ if ours else error
    made.__suppress_context__ = True
    return made


def _as_both(
    theirs: type[Exception], kind: type[TokenUnavailable], args: tuple[Any, ...], state: dict[str, Any]
) -> TokenUnavailable:
    find: Any = _both
    both = find(theirs, kind)
    if both is None:
        return kind(f"the credential gave no token: {theirs.__name__}")
    made: Any = both.__new__(both, *args)
    if isinstance(made, OSError):  # whose number is set here or there
        OSError.__init__(made, *args)
    made.args = args
    made.__dict__.update(state)
    made._request = None
    told: TokenUnavailable = made
    return told


@functools.cache
def _both(theirs: type[Any], kind: type[Any]) -> type[Any] | None:
    def reduce(error: Any) -> Any:
        # The class for azure-core's callers is made when it is wanted too, and can't be found by its name.
        named = next(c for c in theirs.__mro__ if getattr(sys.modules.get(c.__module__), c.__qualname__, None) is c)
        state = {name: value for name, value in error.__dict__.items() if name not in ("request", "_request")}
        return _as_both, (named, kind, error.args, state)

    attributes = {
        "__reduce__": reduce,
        "__str__": theirs.__str__,
        "__repr__": theirs.__repr__,
        "__module__": theirs.__module__,
        "__qualname__": theirs.__qualname__,
        "__doc__": theirs.__doc__,
    }
    bases: tuple[Any, ...] = (kind,) if issubclass(kind, theirs) else (theirs, kind)
    try:
        return type(theirs.__name__, bases, attributes)
    except TypeError:  # the two can't be one class
        return None


class ApiUnavailable(ResilientAuthError, httpx.TransportError):
    """Say that no answer could be had from an API, and when to ask again (G19)."""

    code = "api_unavailable"
    _told: ClassVar[str] = "This service can't be reached right now."

    def __init__(
        self, message: str, *, origin: str = "", retry_after: float | None = None, request: Any = None
    ) -> None:
        self.message = printable(message)
        super().__init__(self.message, request=request)
        #: The API's origin, such as `https://api.example`, or what the transport's `key` made of the request.
        self.origin = origin
        #: Seconds until an attempt makes sense, where that is known.
        self.retry_after = retry_after

    @property
    def user_message(self) -> str:
        """Say it to a user: nothing technical, and when to try again."""
        if self.retry_after is None:
            return f"{self._told} Please try again later."
        seconds = max(1, math.ceil(self.retry_after))
        return f"{self._told} Please try again in {seconds} second{'s' if seconds > 1 else ''}."

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, retry_after={self.retry_after!r})"

    def __reduce__(self) -> tuple[object, ...]:
        made = functools.partial(type(self), origin=self.origin, retry_after=self.retry_after)
        return made, (self.message,)


class ApiCircuitOpen(ApiUnavailable):
    """Say that the API wasn't asked, since it failed a moment ago or was isolated (G11)."""

    code = "api_circuit_open"
    _told = "This service has a problem and is given a moment to recover."


class ApiDeadlinePassed(ApiUnavailable, httpx.TimeoutException):
    """Say that the time for the whole call is over, retries and waiting included (G19)."""

    code = "api_deadline_passed"
    _told = "This took too long and was stopped."


class ApiAttemptTimeout(ApiUnavailable, httpx.ReadTimeout):
    """Say that the API didn't answer one attempt in time (G10)."""

    code = "api_attempt_timeout"
    _told = "The service didn't answer in time."


class ApiNameNotResolved(ApiUnavailable, httpx.ConnectError):
    """Say that the API's host name could not be resolved (G20)."""

    code = "api_name_not_resolved"
    _told = "The service's address can't be found right now."


class ApiConnectionRefused(ApiUnavailable, httpx.ConnectError):
    """Say that nothing listens at the API's address."""

    code = "api_connection_refused"
    _told = "The service isn't running right now."


class ApiBulkheadFull(ApiUnavailable, httpx.PoolTimeout):
    """Say that as many calls as may be are under way, and that the queue for them is full or too slow (G11)."""

    code = "api_bulkhead_full"
    _told = "The service is very busy right now."


class ApiAnsweredError(ApiUnavailable):
    """Say that the API answered 429 or 5xx, to a fallback function: without one the answer itself is returned."""

    code = "api_answered_error"
    _told = "The service has a problem right now."
    #: The answer, whose body isn't read yet.
    response: Any = None
