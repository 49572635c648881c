"""REST APIs: a token on each request, and calls that survive the API's failures.

client ── BearerAuth ──▶ deadline ─▶ retry ─▶ breaker ─▶ bulkhead ─▶ attempt time-out ──▶ httpx ──▶ API
"""

from .._policy.breaker import BreakerOptions, BreakerStatus
from .bearer import BearerAuth
from .client import api_client, async_api_client
from .deadlines import deadline
from .errors import (
    ApiAnsweredError,
    ApiAttemptTimeout,
    ApiBulkheadFull,
    ApiCircuitOpen,
    ApiConnectionRefused,
    ApiDeadlinePassed,
    ApiNameNotResolved,
    ApiUnavailable,
    TokenUnavailable,
)
from .options import TransportOptions
from .source import ForgettingCredential
from .transport import AsyncResilientTransport, ResilientTransport

__all__ = [
    "ApiAnsweredError",
    "ApiAttemptTimeout",
    "ApiBulkheadFull",
    "ApiCircuitOpen",
    "ApiConnectionRefused",
    "ApiDeadlinePassed",
    "ApiNameNotResolved",
    "ApiUnavailable",
    "AsyncResilientTransport",
    "BearerAuth",
    "BreakerOptions",
    "BreakerStatus",
    "ForgettingCredential",
    "ResilientTransport",
    "TokenUnavailable",
    "TransportOptions",
    "api_client",
    "async_api_client",
    "deadline",
]
