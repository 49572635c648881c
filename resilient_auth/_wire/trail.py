"""How far one attempt came, and what its end shows of whose fault that is.

    look up ─▶ connect ─▶ (through a proxy) ─▶ TLS ─▶ request ─▶ answer

Only what came over TLS with a trusted certificate is the provider's own word. Linux tells of a socket whether its other
end has acknowledged what was sent, and whether it was the other end that refused: nothing is sent to find out.
"""

from __future__ import annotations

import errno
import ssl
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from .._policy.blame.sighting import WRONG_CLOCK, Sighting, Symptom, certificate_of
from .._policy.failure import http_date, json_object
from .._policy.provider_errors import Refusal, name_of, refusal_of
from .._process.causes import causes_of
from .._process.sockets import acknowledged
from ..errors import (
    AttemptTimeout,
    ConfigurationError,
    LocalResourcesExhausted,
    MalformedAnswer,
    NameNotResolved,
    ProviderUnavailable,
    ServerFailed,
    Throttled,
    TLSFailed,
)
from .answers import WireResponse
from .network.connect import Refused

__all__ = ["Trail", "shown_by_answer", "shown_by_failure", "shown_by_setting"]

_NO_WAY: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EACCES, errno.EPERM, errno.EINVAL}
)
#: OpenSSL's X509_V_ERR_*.
_NOT_YET, _EXPIRED, _OTHER_NAMES = 9, 10, frozenset({62, 63, 64})
#: Seconds by which a time-out that comes late shows that this process stood still.
_LATE: Final = 2.0


class Stream(Protocol):
    """A connection."""

    #: The TLS handshakes that were made on it.
    handshakes: int

    def get_extra_info(self, info: str) -> Any:
        """Return its `socket`."""


@dataclass(slots=True, eq=False)
class Trail:
    """How far one attempt has come: written by its thread, and read by whoever asks meanwhile."""

    #: Whether the provider is asked over TLS; and whether its certificate is checked, as far as can be told.
    https: bool
    trusted_wire: bool
    #: Whether the wire tells how far it comes; an owner's own client doesn't.
    ours: bool = False
    #: Whether it goes through a proxy; and whether that said that it is others who don't answer.
    proxied: bool = False
    beyond_proxy: bool = False
    #: The TLS handshakes that it takes, and those that were begun.
    layers: int = 1
    begun: int = 0
    connected: bool = False
    #: What the way there and back takes, or took where it was refused.
    seconds: float | None = None
    #: What the request was written to; a connection that was kept has made its handshakes before.
    stream: Stream | None = None
    #: The certificate that was shown.
    certificate: bytes | None = None
    #: Whether all that was sent was acknowledged, as it broke.
    acknowledged: bool | None = None

    @property
    def reached(self) -> bool:
        """Whether what answers there is the provider, as far as TLS tells."""
        made = 0 if self.stream is None else self.stream.handshakes
        return self.connected and made >= self.layers and not (self.proxied and not self.https)

    @property
    def in_tunnel(self) -> bool:
        """Whether the last handshake was begun, through whatever proxy: the one with the provider."""
        return max(self.begun, 0 if self.stream is None else self.stream.handshakes) >= self.layers > 0

    def look(self) -> Sighting:
        """Tell what is to be seen while the answer is awaited."""
        if not self.ours:
            return Sighting()
        stream = self.stream
        told = None if stream is None else acknowledged(stream.get_extra_info("socket"))
        if told is False:
            return self._sighting(Symptom.PROXY if self.proxied else Symptom.SILENT)
        if self.proxied and not self.in_tunnel:
            return self._sighting(Symptom.PROXY)
        if not self.reached or (told is None and not self.begun):
            return Sighting()
        return self._sighting(Symptom.NO_ANSWER)

    def _sighting(self, symptom: Symptom | None, detail: str = "", *, trusted: bool = False) -> Sighting:
        seen = None if self.certificate is None or not trusted else certificate_of(self.certificate)
        return Sighting(symptom=symptom, detail=detail, trusted=trusted, certificate=seen, seconds=self.seconds)


def shown_by_setting(error: ConfigurationError, trail: Trail) -> Sighting:
    """Return what it shows that a request can't be made as this machine is set up."""
    of_proxy = trail.proxied if trail.ours else "invalid path:" not in str(error)
    return Sighting(symptom=Symptom.PROXY if of_proxy else Symptom.BUNDLE)


def shown_by_failure(error: Exception, failure: ProviderUnavailable, trail: Trail, late: float) -> Sighting:
    """Return what it shows that there was no answer.

    Args:
        error: What the client raised.
        failure: What was made of it.
        trail: How far the attempt came.
        late: Seconds by which it ended after its time.
    """
    symptom, detail = _of_failure(error, failure, trail, late)
    if symptom is Symptom.REFUSED:
        refused = next((cause for cause in causes_of(error) if isinstance(cause, Refused)), Refused())
        trail.seconds = refused.seconds
        symptom = Symptom.LED_HERE if refused.led_here else symptom
    trusted = trail.trusted_wire and trail.ours and trail.reached
    return trail._sighting(symptom, detail, trusted=trusted)


def _of_failure(error: Exception, failure: ProviderUnavailable, trail: Trail, late: float) -> tuple[Symptom, str]:
    if isinstance(failure, LocalResourcesExhausted):
        return Symptom.STARVED, ""
    if isinstance(failure, AttemptTimeout) and late > _LATE:
        return Symptom.STALLED, f"for {late:.0f} s"
    causes = list(causes_of(error))
    if isinstance(failure, NameNotResolved) and not trail.proxied:
        return (Symptom.UNRESOLVED if failure.heals else Symptom.NO_SUCH_NAME), ""
    if isinstance(failure, TLSFailed) and (trail.in_tunnel or not trail.ours):
        return _of_tls(causes, trail)
    if trail.proxied and not trail.in_tunnel:
        return (Symptom.BEYOND_PROXY if trail.beyond_proxy else Symptom.PROXY), ""
    if isinstance(failure, MalformedAnswer):
        return Symptom.PAGE, "too large, packed, or a way elsewhere"
    if not trail.ours:
        return _of_owners(causes)
    if trail.acknowledged is False:
        return (Symptom.PROXY if trail.proxied else Symptom.SILENT), ""
    timed_out = any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in causes)
    if trail.reached and timed_out:
        # Over a connection that was kept, and may be dead since, that nothing came shows nothing by itself.
        return (Symptom.NO_ANSWER if trail.acknowledged or trail.begun else Symptom.UNSEEN), ""
    if trail.reached:
        return Symptom.BROKE, ""
    if trail.connected:
        return (Symptom.HANDSHAKE_SILENT if timed_out else Symptom.BROKE_EARLY), ""
    return _of_connect(causes, timed_out)


def _of_connect(causes: list[BaseException], timed_out: bool) -> tuple[Symptom, str]:
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Symptom.REFUSED, ""
    if any(isinstance(cause, OSError) and cause.errno in _NO_WAY for cause in causes):
        return Symptom.UNREACHABLE, ""
    return (Symptom.SILENT if timed_out else Symptom.UNSEEN), ""


def _of_owners(causes: list[BaseException]) -> tuple[Symptom, str]:
    """Judge what a client of the owner's raised: it doesn't tell how far it came, nor who refused."""
    names = {type(cause).__name__ for cause in causes}
    symptom, _ = _of_connect(causes, bool(names & {"ConnectTimeout", "ConnectTimeoutError"}))
    return (Symptom.UNSEEN if symptom is Symptom.REFUSED else symptom), ""


def _of_tls(causes: list[BaseException], trail: Trail) -> tuple[Symptom, str]:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # One that wasn't raised by OpenSSL has neither.
            code, why = getattr(cause, "verify_code", 0), getattr(cause, "verify_message", "")
            if code in (_NOT_YET, _EXPIRED):
                return Symptom.DATES, why
            return (Symptom.OTHER_NAME, "") if code in _OTHER_NAMES else (Symptom.UNTRUSTED, why)
    # In the middle of an answer it is the connection that breaks.
    if trail.ours and trail.reached:
        return Symptom.BROKE, ""
    reason = next((cause.reason for cause in causes if isinstance(cause, ssl.SSLError) and cause.reason), "")
    return Symptom.HANDSHAKE, reason


def shown_by_answer(
    answer: WireResponse, fault: ProviderUnavailable | None, trail: Trail, wall: float
) -> Sighting | None:
    """Return what an answer shows that isn't simply what was asked for; None for a page that says no, or anybody's.

    Args:
        answer: As it came.
        fault: Why it is none; None where the provider did its work, if only to say no.
        trail: Over which it came.
        wall: Seconds since the epoch, by this machine's clock.
    """
    if fault is None and answer.status_code >= 400 and _is_page(answer):
        return None
    trusted, said = trail.trusted_wire, answer.headers.get("date")
    date = http_date(said) if trusted else None
    symptom, detail = _of_answer(answer, fault, trusted, None if date is None else wall - date)
    seen = trail._sighting(symptom, detail, trusted=trusted)
    return replace(seen, date=None if date is None or symptom is Symptom.PAGE else said)


def _of_answer(
    answer: WireResponse, fault: ProviderUnavailable | None, trusted: bool, ahead: float | None
) -> tuple[Symptom | None, str]:
    status = f"status {answer.status_code}"
    if fault is None:
        refusal, name = _refused(answer) if answer.status_code >= 400 else (None, "")
        if refusal is None or (refusal is Refusal.GIVEN_DATES and abs(ahead or 0.0) < WRONG_CLOCK):
            return None, ""
        return (Symptom.CREDENTIAL if refusal is Refusal.CREDENTIAL else Symptom.ASSERTION_DATES), name
    if isinstance(fault, Throttled):
        return Symptom.THROTTLED, status
    if isinstance(fault, ServerFailed) and fault.of_request:
        return Symptom.CREDENTIAL, "it doesn't know the federated credential"
    page = _is_page(answer)
    if isinstance(fault, ServerFailed):
        if page and not trusted:
            return Symptom.PAGE, status
        return Symptom.FAILED, f"{status}, with a page" if page else status
    # What it is, in words of ours.
    return (Symptom.PAGE if page else Symptom.MALFORMED), fault.message.partition(" answered ")[2] or status


def _refused(answer: WireResponse) -> tuple[Refusal | None, str]:
    body = json_object(answer.text)
    if body is None:
        return None, ""
    refusal = refusal_of(body)
    name = name_of(body)
    return refusal, "invalid_client" if name == "an error" else name


def _is_page(answer: WireResponse) -> bool:
    return "html" in answer.headers.get("content-type", "").lower() or answer.text[:64].lstrip().startswith("<")
