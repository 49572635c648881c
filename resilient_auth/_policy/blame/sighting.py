"""What one attempt at a provider showed, as values that may be told to anybody."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from enum import Enum

__all__ = ["LONGEST_TEXT", "OF_APPLICATION", "OF_WAY", "WRONG_CLOCK", "Certificate", "Sighting", "Symptom",
           "certificate_of"]  # fmt: skip

LONGEST_TEXT = 200
#: Seconds by which a clock is wrong enough for certificates and assertions.
WRONG_CLOCK = 60.0
_LONGEST_NAME = 100
#: The list of Signed Certificate Timestamps in a certificate (RFC 6962, section 3.3).
_STAMPS = "1.3.6.1.4.1.11129.2.4.2"


class Symptom(Enum):
    """How an attempt ended that gave nothing; each value is its evidence, in plain words."""

    # On the way there: nothing came that only the provider can have said.
    STARVED = "this process or machine has no file descriptor, memory, port or thread left"
    STALLED = "this process stood still while it waited for the answer"
    PROXY = "the proxy on the way there doesn't let it through"
    BEYOND_PROXY = "the proxy on the way there answers that it finds no way on"
    BUNDLE = "the file of certificate authorities to trust can't be read"
    NO_SUCH_NAME = "this machine's resolver says that there is no such name"
    UNRESOLVED = "this machine's resolver gives no answer for its name"
    UNREACHABLE = "there is no way to its address: a route is missing, or a firewall says no"
    SILENT = "nothing that is sent to its address is acknowledged"
    REFUSED = "its host refuses the connection"
    LED_HERE = "its name leads to this machine itself, which refuses the connection"
    DATES = "the certificate shown is over, or not valid yet, by this machine's clock"
    UNTRUSTED = "the certificate shown is signed by nobody who is trusted here"
    OTHER_NAME = "the certificate shown is for another name"
    HANDSHAKE = "the TLS handshake fails"
    HANDSHAKE_SILENT = "connections are taken, and the TLS handshake gets no answer"
    BROKE_EARLY = "the connection broke before TLS had shown who answers"
    UNSEEN = "there is no answer, and it wasn't seen how far the request came"
    # Of the provider, or of what has its certificate.
    FAILED = "it answers with a failure of its own"
    MALFORMED = "it answers what it should not"
    PAGE = "a page comes in place of its answer"
    NO_ANSWER = "it has the request, over TLS with a trusted certificate, and gives no whole answer"
    BROKE = "it broke the connection, over TLS with a trusted certificate, before its answer was whole"
    # Of this application alone.
    THROTTLED = "it throttles this application"
    CREDENTIAL = "it refuses this application's credential or registration"
    ASSERTION_DATES = "it says that the assertion is not within its time"


#: What is one application's, and nobody else's.
OF_APPLICATION = frozenset({Symptom.THROTTLED, Symptom.CREDENTIAL, Symptom.ASSERTION_DATES})
#: What is the provider's, or of what has its certificate.
_OF_PROVIDER = frozenset({Symptom.FAILED, Symptom.MALFORMED, Symptom.PAGE, Symptom.NO_ANSWER, Symptom.BROKE})
#: What says nothing of the provider but that it wasn't reached.
OF_WAY = frozenset(Symptom) - _OF_PROVIDER - OF_APPLICATION


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate that TLS has verified.

    Args:
        digest: Tells it from others.
        issuer: Who signed it.
        logged: Whether it bears the stamps of public logs, as each of a public authority's does, and none that is made
            by what inspects TLS.
    """

    digest: str
    issuer: str
    logged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What an attempt showed.

    Args:
        symptom: How it ended; None where the provider did its work, if only to say no.
        detail: More of it, for people; without a secret.
        trusted: Whether it came over TLS from whoever has the provider's certificate.
        certificate: That certificate, where it is known.
        date: The answer's own `Date`; None for none that can be trusted.
        seconds: What the way there and back takes, or took being refused; None where that isn't known.
    """

    symptom: Symptom | None = None
    detail: str = ""
    trusted: bool = False
    certificate: Certificate | None = None
    date: str | None = None
    seconds: float | None = None


@functools.lru_cache(64)
def certificate_of(der: bytes) -> Certificate | None:
    """Read a certificate; None for one that can't be read."""
    from cryptography import x509

    digest = hashlib.sha256(der).hexdigest()
    try:
        found = x509.load_der_x509_certificate(der)
        logged = any(extension.oid.dotted_string == _STAMPS for extension in found.extensions)
        return Certificate(digest, found.issuer.rfc4514_string()[:_LONGEST_NAME], logged)
    except ValueError:
        return None
