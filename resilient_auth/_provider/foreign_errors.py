"""What somebody else's credential raises, judged: a failure of its provider, a denial, or neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx

from .._policy.failure import Purpose, judge
from .._policy.local_resources import exhausted
from ..errors import ProviderUnavailable, TokenDenied
from .redaction import redact
from .wire import _causes, as_failure

__all__ = ["verdict_on"]

#: By name, since azure-core needn't be there: nothing went out, or nothing that can be read came back.
_NETWORK = frozenset({"ServiceRequestError", "ServiceResponseError", "RequestException", "SSLError", "gaierror"})

#: Entra's codes for failures of its own, which azure-identity tells like denials.
_TRANSIENT = re.compile(r"AADSTS(?:50033|90006|90012|90024|90033|90055)\b|\btemporarily_unavailable\b|\bserver_error\b")
_DENIED = re.compile(
    r"\b(?:AADSTS|AADB2C|MSIS)\d+|\b(?:invalid_(?:client|grant|request|resource|scope|target)|unauthorized_client|"
    r"unsupported_grant_type|access_denied|interaction_required|login_required|consent_required)\b"
)
_OAUTH_ERROR = re.compile(r"\b[a-z]+_(?:client|grant|request|resource|scope|required|denied|type)\b")


def verdict_on(error: Exception, name: str, wall: float) -> ProviderUnavailable | dict[str, Any] | None:
    """Judge what a source raised: a failure, or a denial as MSAL would tell it; None where it is neither.

    What can't be told apart is a failure: a valid token stays in use, and another source is asked.

    Args:
        error: What it raised.
        name: The source's; it takes the authority's place.
        wall: Now, for dates in `Retry-After`.
    """
    if exhausted(error):
        return as_failure(error, name)
    causes = list(_causes_of(error))
    for cause in causes:
        if isinstance(cause, ProviderUnavailable):
            return as_failure(cause, name)
        if isinstance(cause, TokenDenied):
            return {"error": cause.error, "error_description": cause.description, "claims": cause.claims}
        status = _status(cause)
        if status is not None:
            response = getattr(cause, "response", None)
            headers = {str(k).lower(): str(v) for k, v in dict(getattr(response, "headers", None) or {}).items()}
            return judge(Purpose.WS_TRUST, name, status, headers, "", wall) or _denial(error, cause)
    for cause in causes:
        if isinstance(cause, (ConnectionError, TimeoutError, httpx.TransportError)) or _kinds(cause) & _NETWORK:
            inner = getattr(cause, "inner_exception", cause)
            return as_failure(inner if isinstance(inner, Exception) else error, name)
    if isinstance(error, OSError):
        return ProviderUnavailable(f"{name} failed: {type(error).__name__}", authority=name)
    kinds, told = _kinds(error), str(error)
    if "ClientAuthenticationError" not in kinds:
        return None
    if "CredentialUnavailableError" not in kinds and _DENIED.search(told) and not _TRANSIENT.search(told):
        return _denial(error, error)
    return ProviderUnavailable(f"{name} gave no token: {_short(told)}", authority=name)


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    for cause in _causes(error):
        yield cause
        inner = getattr(cause, "inner_exception", None)  # azure-core's way of telling a cause
        if isinstance(inner, BaseException) and inner is not cause:
            yield from _causes(inner)


def _kinds(error: BaseException) -> frozenset[str]:
    return frozenset(kind.__name__ for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    for holder in (getattr(error, "response", None), error):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _denial(error: Exception, cause: BaseException) -> dict[str, Any]:
    told = str(error)
    found = _OAUTH_ERROR.search(told)
    return {"error": found.group() if found else "denied", "error_description": _short(told or type(cause).__name__)}


def _short(text: str) -> str:
    return redact(" ".join(text.split()))[:500]
