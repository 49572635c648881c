"""What somebody else's credential raises, judged: a failure of its provider, a denial, or neither."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx

from .._policy.failure import Purpose, judge
from .._policy.provider_errors import Fault, kind_of, kind_of_text, name_of
from .._process.causes import causes_of
from .._process.resources import exhausted
from .._wire.failures import as_failure
from .._wire.redaction import redact
from ..errors import ProviderUnavailable, ServerFailed, Throttled, TokenDenied

__all__ = ["denied", "verdict_on"]

#: By name, since azure-core needn't be there: nothing went out, or nothing that can be read came back.
_NETWORK = frozenset({"ServiceRequestError", "ServiceResponseError", "RequestException", "SSLError", "gaierror"})

_DENIED = re.compile(
    r"\b(?:AADSTS|AADB2C|MSIS)\d+|\b(?:invalid_(?:client|grant|request|resource|scope|target)|unauthorized_client|"
    r"unsupported_grant_type|access_denied|interaction_required|login_required|consent_required)\b"
)
_OAUTH_ERROR = re.compile(r"\b[a-z]+_(?:client|grant|request|resource|scope|required|denied|type)\b")


def verdict_on(
    error: Exception, name: str, wall: float, propagating: Callable[[], bool]
) -> ProviderUnavailable | dict[str, Any] | None:
    """Judge what a source raised: a failure, or a denial as MSAL would tell it; None where it is neither.

    What can't be told apart is a failure: a valid token stays in use, and another source is asked.

    Args:
        error: What it raised.
        name: The source's; it takes the authority's place.
        wall: Now, for dates in `Retry-After`.
        propagating: Returns whether a federated credential that isn't known may still be on its way.
    """
    if exhausted(error):
        return as_failure(error, name)
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, ProviderUnavailable):
            return as_failure(cause, name)
        if isinstance(cause, TokenDenied):
            told = {"error": cause.error, "error_description": cause.description, "claims": cause.claims}
            return denied(told, name, propagating)
        status = _status(cause)
        if status is not None:
            response = getattr(cause, "response", None)
            headers = {str(k).lower(): str(v) for k, v in dict(getattr(response, "headers", None) or {}).items()}
            fault = judge(Purpose.WS_TRUST, name, status, headers, "", wall)
            text = str(error)
            return fault or _failed(kind_of_text(text), name, _short(text), propagating) or _denial(error, cause)
    for cause in causes:
        if isinstance(cause, (ConnectionError, TimeoutError, httpx.TransportError)) or _kinds(cause) & _NETWORK:
            inner = getattr(cause, "inner_exception", cause)
            return as_failure(inner if isinstance(inner, Exception) else error, name)
    if isinstance(error, OSError):
        return ProviderUnavailable(f"{name} failed: {type(error).__name__}", authority=name)
    kinds, text = _kinds(error), str(error)
    if "ClientAuthenticationError" not in kinds:
        return None
    failure = _failed(kind_of_text(text), name, _short(text), propagating)
    if failure is not None:
        return failure
    if "CredentialUnavailableError" not in kinds and _DENIED.search(text):
        return _denial(error, error)
    return ProviderUnavailable(f"{name} gave no token: {_short(text)}", authority=name)


def denied(told: dict[str, Any], name: str, propagating: Callable[[], bool]) -> ProviderUnavailable | dict[str, Any]:
    """Judge an error dict as MSAL tells denials: some of them are failures of the provider (G9).

    Args:
        told: The dict.
        name: The source's.
        propagating: As for `verdict_on`.
    """
    return _failed(kind_of(told), name, name_of(told), propagating) or told


def _failed(kind: Fault | None, name: str, told: str, propagating: Callable[[], bool]) -> ProviderUnavailable | None:
    if kind is None or (kind is Fault.UNMATCHED and not propagating()):
        return None
    failure = Throttled if kind is Fault.THROTTLED else ServerFailed
    error = failure(f"{name} gave no token: {told}", authority=name)
    error.of_request = kind is Fault.UNMATCHED
    return error


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
