"""What a client raised, as the error that says what happened."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable

import requests

from .._process.causes import causes_of
from .._process.resources import exhausted
from ..errors import (
    AttemptTimeout,
    ConnectionFailed,
    LocalResourcesExhausted,
    NameNotResolved,
    ProviderUnavailable,
    TLSFailed,
)
from .connect import NO_SUCH_NAME

__all__ = ["as_failure", "is_unknown_name"]

#: OpenSSL's X509_V_ERR_*: self-signed, and no issuer to be found.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})


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
    if any_of(socket.gaierror) or "NameResolutionError" in names:
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
        failure = ConnectionFailed(f"{authority} {how}", authority=authority)
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
