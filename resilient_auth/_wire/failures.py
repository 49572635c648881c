"""What a client raised, as the error that says what happened."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import NamedTuple

import requests

from .._process.causes import causes_of
from .._process.resources import exhausted
from ..errors import (
    AttemptTimeout,
    ConfigurationError,
    ConnectionFailed,
    LocalResourcesExhausted,
    NameNotResolved,
    ProviderUnavailable,
    TLSFailed,
)
from .network.connect import NO_SUCH_NAME, LookupTimeout

__all__ = ["FaultOfProxy", "Unsendable", "as_failure", "fault_of_answer", "fault_of_proxy", "is_unknown_name"]

#: Statuses below 500 with which a proxy says that it can't now.
_NOT_NOW = frozenset({"408", "429"})
#: OpenSSL's words for an answer that isn't TLS.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})

#: OpenSSL's X509_V_ERR_*: self-signed, and no issuer to be found.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})


class Unsendable(ConfigurationError):
    """A request can't be made as it is asked for, by a user's name in a header, say: that shows nothing of others."""


class FaultOfProxy(NamedTuple):
    """What is wrong with a proxy."""

    #: What kind of proxy it is, to go on with after "a proxy".
    text: str
    #: Whether it may be over by itself; else somebody has to change a setting.
    heals: bool
    #: Where it may, what has failed.
    failed: type[ConnectionFailed | NameNotResolved] = ConnectionFailed


def fault_of_proxy(error: Exception, proxy: str) -> FaultOfProxy | None:
    """Return what a proxy did wrong where an httpx or httpx2 client found no way through it.

    Args:
        error: A `ProxyError` or a `ConnectError`.
        proxy: Its URL.

    Returns:
        None for what isn't the proxy's doing.
    """
    causes = list(causes_of(error))
    if type(error).__name__ == "ProxyError":
        status = str(error)[:3]
        refusal = fault_of_answer(status)
        if refusal is not None:
            return FaultOfProxy(refusal, heals=False)
        return FaultOfProxy(f"that finds no way on{f' (it answered {status})' if status.isdigit() else ''}", heals=True)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        if is_unknown_name(causes):
            return FaultOfProxy("whose name doesn't exist", heals=False)
        return FaultOfProxy("whose name can't be resolved now", heals=True, failed=NameNotResolved)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return FaultOfProxy("that refused the connection", heals=True)
    speaks_http = any(isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS for cause in causes)
    if speaks_http and proxy.lower().startswith("https:"):
        return FaultOfProxy("that speaks no TLS: write http:// in place of https://", heals=False)
    return None


def fault_of_answer(status: str) -> str | None:
    """Return what a proxy's own answer says is to be changed, as `FaultOfProxy.text` has it; None for nothing."""
    if status == "407":
        return "that wants a user and a password, or other ones"
    if status.startswith("4") and status.isdigit() and status not in _NOT_NOW:
        return f"that doesn't let this through (it answered {status})"
    return None


def as_failure(error: Exception, authority: str) -> ProviderUnavailable:
    """Turn what a client raised into the error that says what happened, to whom."""
    if isinstance(error, ProviderUnavailable):
        error.authority = error.authority or authority
        return error
    if exhausted(error):
        return LocalResourcesExhausted(
            f"{authority} can't be reached: this process or machine has no file descriptor, memory or port left",
            authority=authority,
        )
    import httpx  # the transport has loaded it

    causes = list(causes_of(error))

    def any_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    names = {type(cause).__name__ for cause in causes}
    if any_of(socket.gaierror, LookupTimeout) or "NameResolutionError" in names:
        unknown = is_unknown_name(causes)
        told = ": there is no such name; look at the authority, and at this machine's DNS" if unknown else ""
        failure: ProviderUnavailable = NameNotResolved(
            f"the name of {authority} could not be resolved{told}", authority=authority
        )
        failure.sent, failure.heals = False, not unknown
        return failure
    if any_of(ssl.SSLError, requests.exceptions.SSLError):
        reason, untrusted = _tls_reason(causes)
        failure = TLSFailed(f"no trusted TLS connection to {authority}: {reason}", authority=authority)
        failure.heals = not untrusted
        return failure
    never_sent = any_of(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, requests.ConnectTimeout)
    if never_sent or "NewConnectionError" in names or any_of(ConnectionRefusedError):
        refused = any_of(ConnectionRefusedError) or any("refused" in str(cause).lower() for cause in causes[:2])
        how = "refused the connection" if refused else "could not be reached"
        # As a client of the owner's says it; ours names the setting.
        whom = f"the proxy on the way to {authority}" if "ProxyError" in names else authority
        failure = ConnectionFailed(f"{whom} {how}", authority=authority)
        failure.sent = False
        return failure
    if any_of(httpx.TimeoutException, requests.Timeout, TimeoutError):
        return AttemptTimeout(f"{authority} didn't answer in time", authority=authority)
    return ConnectionFailed(f"the connection to {authority} broke: {type(error).__name__}", authority=authority)


def _tls_reason(causes: list[BaseException]) -> tuple[str, bool]:
    """Return what is wrong, and whether it is the certificate."""
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = cause.verify_message or "the certificate is not trusted"
            fix = "; name the CA that signed it: verify=<CA file>, or REQUESTS_CA_BUNDLE"
            return reason + (fix if cause.verify_code in _UNKNOWN_ISSUER else ""), True
    return "the handshake failed", False


def is_unknown_name(causes: Iterable[BaseException]) -> bool:
    """Return whether a look-up told that there is no such name."""
    return any(isinstance(cause, socket.gaierror) and cause.errno in NO_SUCH_NAME for cause in causes)
