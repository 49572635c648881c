"""What an answer or an exception says about an API: success, failure, or nothing (the three verdicts)."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, replace
from typing import Any

import httpx

from ..._process.causes import causes_of
from ..._process.resources import exhausted
from ..._wire.failures import fault_of_proxy
from ..._wire.network.connect import NO_SUCH_NAME
from .. import errors as ours
from ..errors import ApiUnavailable

__all__ = ["HTTPX", "Dialect", "Failure", "explain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """An HTTP library, and our errors as its own."""

    #: httpx, or httpx2.
    library: Any
    circuit_open: type[ours.ApiCircuitOpen] = ours.ApiCircuitOpen
    deadline_passed: type[ours.ApiDeadlinePassed] = ours.ApiDeadlinePassed
    attempt_timeout: type[ours.ApiAttemptTimeout] = ours.ApiAttemptTimeout
    name_not_resolved: type[ours.ApiNameNotResolved] = ours.ApiNameNotResolved
    connection_refused: type[ours.ApiConnectionRefused] = ours.ApiConnectionRefused
    bulkhead_full: type[ours.ApiBulkheadFull] = ours.ApiBulkheadFull
    answered_error: type[ours.ApiAnsweredError] = ours.ApiAnsweredError


HTTPX = Dialect(library=httpx)


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer."""

    #: What the caller sees if it isn't made again.
    error: Exception
    #: What the breaker is told; None where it says nothing about the API.
    cause: str | None
    #: Whether the API may have seen the request.
    sent: bool
    #: Whether another attempt could end otherwise.
    transient: bool


def explain(error: Exception, name: str, dialect: Dialect, proxy: str | None = None) -> Failure:
    """Say what an exception of the wrapped transport means.

    Args:
        error: What it raised.
        name: The API's origin.
        dialect: The library that it belongs to.
        proxy: The origin of the proxy that is asked through, if there is one.
    """
    failure = _of_proxy(error, name, dialect, proxy) if proxy is not None else None
    failure = failure or _explain(error, name, dialect)
    # Where this machine can open no connection, nothing is seen of the API.
    return replace(failure, cause=None) if failure.cause is not None and exhausted(error) else failure


def _of_proxy(error: Exception, name: str, dialect: Dialect, proxy: str) -> Failure | None:
    """Say what a proxy did wrong, which isn't the API's doing; None where it did nothing wrong."""
    library = dialect.library
    if not isinstance(error, (library.ProxyError, library.ConnectError)):
        return None
    fault = fault_of_proxy(error, proxy)
    if fault is None:
        return None
    told = f"{name} is asked through a proxy {fault.text}: {proxy}"
    if isinstance(error, library.ProxyError):
        failed: Exception = library.ProxyError(told)
    elif any(isinstance(cause, socket.gaierror) for cause in causes_of(error)):
        failed = dialect.name_not_resolved(told, origin=name)
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes_of(error)):
        failed = dialect.connection_refused(told, origin=name)
    else:
        failed = library.ConnectError(told)
    failed.__cause__ = error
    # What a setting is to be changed for says nothing about the API, and isn't asked for again.
    return Failure(failed, type(error).__name__ if fault.heals else None, sent=False, transient=fault.heals)


def _explain(error: Exception, name: str, dialect: Dialect) -> Failure:
    library = dialect.library
    if isinstance(error, library.PoolTimeout):
        return Failure(error, None, sent=False, transient=False)
    if isinstance(error, (library.ConnectTimeout, library.ConnectError)):
        causes = list(causes_of(error))
        told: ApiUnavailable | None = None
        lookups = [cause for cause in causes if isinstance(cause, socket.gaierror)]
        if lookups:
            told = dialect.name_not_resolved(f"the name of {name} could not be resolved", origin=name)
        elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            told = dialect.connection_refused(f"{name} refused the connection: nothing listens there", origin=name)
        if told is not None:
            told.__cause__ = error
        untrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)
        unknown = any(cause.errno in NO_SUCH_NAME for cause in lookups)
        cause = getattr(told, "code", None) or ("tls_failed" if untrusted else type(error).__name__)
        return Failure(told or error, cause, sent=False, transient=not (untrusted or unknown))
    if isinstance(error, (library.ReadTimeout, TimeoutError)):
        late = dialect.attempt_timeout(f"{name} didn't answer in time", origin=name)
        late.__cause__ = error
        return Failure(late, late.code, sent=True, transient=True)
    if isinstance(error, (library.TimeoutException, library.NetworkError, library.RemoteProtocolError)):
        return Failure(error, type(error).__name__, sent=True, transient=True)
    # A proxy, an unsupported scheme, a request that breaks the protocol, a bug: not the API's doing.
    return Failure(error, None, sent=True, transient=False)
