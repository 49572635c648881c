"""Whose fault it is, by rules: rather unknown than wrong, and never the provider's on what a local fault can feign.

The provider is blamed by what only it can have said, over TLS with a trusted certificate; and by a refusal that its own
host has sent. What never got there is the network's, the proxy's, or this process's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ...errors import printable
from .sighting import LONGEST_TEXT, WRONG_CLOCK, Certificate, Sighting, Symptom

__all__ = ["ADVICE", "Blame", "Culprit", "Known", "judge"]

Culprit = Literal["process", "proxy", "network", "tls", "clock", "provider", "credential", "throttled", "unknown"]

#: What there is to do.
ADVICE: Final[Mapping[Culprit, str]] = {
    "process": "raise this process's limits, or restart it; the provider is not to blame",
    "proxy": "look at the proxy and its settings; the provider is not to blame",
    "network": "look at this machine's network: DNS, routes, firewall; nothing came from the provider itself",
    "tls": "look at the trust store, and for what inspects TLS: resilient-auth doctor says more",
    "clock": "set this machine's clock, and keep it set",
    "provider": "nothing to do on your side",
    "credential": "look at this application's credential and its registration",
    "throttled": "ask less, or wait",
    "unknown": "whose fault it is can't be told from here: resilient-auth doctor looks closer",
}

_PLAIN: Final[Mapping[Symptom, Culprit]] = {
    Symptom.STARVED: "process",
    Symptom.STALLED: "process",
    Symptom.PROXY: "proxy",
    Symptom.BUNDLE: "tls",
    Symptom.NO_SUCH_NAME: "network",
    Symptom.UNRESOLVED: "network",
    Symptom.UNREACHABLE: "network",
    Symptom.SILENT: "network",
    Symptom.UNTRUSTED: "tls",
    Symptom.OTHER_NAME: "tls",
    Symptom.HANDSHAKE: "tls",
    Symptom.NO_ANSWER: "provider",
    Symptom.BROKE: "provider",
    Symptom.THROTTLED: "throttled",
    Symptom.CREDENTIAL: "credential",
}
#: 2026, when this was written: a clock that says less is wrong.
_WRITTEN: Final = 1_767_225_600.0
#: A refusal that comes in such a share of the time that the way there takes was sent nearer by; and the shortest way,
#: in seconds, for which that can be told.
_TOO_SOON, _SHORTEST_WAY = 0.25, 0.002
#: Other authorities that can't be reached either make it the network's.
_SEVERAL: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Whose fault it is that something at an identity provider fails, as far as can be told from here."""

    #: "process": this process or machine has run out of something; "proxy"; "network": DNS, routes, firewalls; "tls":
    #: the trust store, or what inspects TLS; "clock": this machine's; "provider"; "credential": this application's, or
    #: its registration; "throttled": this application asks more than the provider lets it; "unknown".
    what: Culprit
    #: The identity provider's origin.
    authority: str
    #: Over which wire, where that isn't the default one.
    wire: str = ""
    #: Which application, where it is its affair alone.
    client_id: str = ""
    #: When it was seen first, in seconds since the epoch.
    since: float
    #: What says so, in plain words.
    evidence: tuple[str, ...]

    def __post_init__(self) -> None:
        told = tuple(printable(each)[:LONGEST_TEXT] for each in self.evidence)
        object.__setattr__(self, "evidence", told)

    @property
    def advice(self) -> str:
        """Return what there is to do."""
        return ADVICE[self.what]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What else is known over the same wire.

    Args:
        wall: This machine's time.
        ahead: Seconds by which that is ahead of providers' clocks, less than 0 if behind; None where nobody told.
        certificate: The one with which this authority gave its last proper answer.
        quickest: Seconds that the way there and back took at best.
        answered: Whether it ever gave a proper answer.
        others_fail: Other authorities that can't be reached now.
        others_answer: Other authorities that have answered since.
    """

    wall: float
    ahead: float | None = None
    certificate: Certificate | None = None
    quickest: float | None = None
    answered: bool = False
    others_fail: int = 0
    others_answer: int = 0


def judge(seen: Sighting, known: Known) -> tuple[Culprit, tuple[str, ...]]:
    """Return whose fault a symptom is, and what says so."""
    symptom = seen.symptom
    assert symptom is not None  # noqa: S101 - who asks has one
    told = [symptom.value + (f" ({seen.detail})" if seen.detail else "")]
    what = _PLAIN.get(symptom)
    if what is None:
        what, more = _weighed(symptom, seen, known)
        told += filter(None, (more,))
    return what, (*told, *_contrast(what, known))


def _weighed(symptom: Symptom, seen: Sighting, known: Known) -> tuple[Culprit, str]:
    """Judge what needs more than itself."""
    # A name that somebody has led astray; but for a provider that was here before.
    if symptom is Symptom.LED_HERE and not known.answered:
        return "network", ""
    if symptom in (Symptom.REFUSED, Symptom.LED_HERE):
        return _refused(seen, known)
    if symptom in (Symptom.DATES, Symptom.ASSERTION_DATES):
        return _of_dates(symptom, known)
    if symptom in (Symptom.FAILED, Symptom.MALFORMED, Symptom.PAGE):
        return _answered(symptom, seen, known)
    return "unknown", ""


def _refused(seen: Sighting, known: Known) -> tuple[Culprit, str]:
    took, usual = seen.seconds, known.quickest
    if took is not None and usual is not None and usual >= _SHORTEST_WAY and took < usual * _TOO_SOON:
        return "network", f"the refusal came in {took * 1000:.1f} ms, and the way there takes {usual * 1000:.1f} ms"
    if known.others_fail >= _SEVERAL and not known.others_answer:
        return "network", ""
    if known.others_fail and not known.others_answer:
        return "unknown", ""
    return "provider", ""


def _of_dates(symptom: Symptom, known: Known) -> tuple[Culprit, str]:
    ahead = known.ahead
    if known.wall < _WRITTEN:
        return "clock", "this machine's clock says a time long ago"
    if ahead is None:
        return "unknown", "nobody has told what time it is"
    if abs(ahead) >= WRONG_CLOCK:
        side = "ahead of" if ahead > 0 else "behind"
        return "clock", f"this machine's clock is {abs(ahead):.0f} s {side} the provider's Date"
    return ("tls" if symptom is Symptom.DATES else "credential"), "this machine's clock is the provider's"


def _answered(symptom: Symptom, seen: Sighting, known: Known) -> tuple[Culprit, str]:
    """Judge an answer: is it the provider's, or of what reads along?"""
    shown, before = seen.certificate, known.certificate
    if shown is not None and before is not None and shown.issuer != before.issuer and not shown.logged:
        told = f"its certificate is signed by {shown.issuer} now, and was by {before.issuer} when it answered"
        # An authority of one's own may have several issuers.
        return ("tls" if before.logged else "unknown"), told
    if symptom is Symptom.FAILED or symptom is Symptom.MALFORMED:
        return "provider", ""
    if not seen.trusted:
        return "unknown", "its certificate isn't checked, so anybody can have sent that page"
    if shown is not None and shown.logged:
        return "provider", f"nobody reads along: its certificate, by {shown.issuer}, bears the stamps of public logs"
    signed = f"the certificate is signed by {shown.issuer}" if shown is not None else "who signed it isn't known"
    return "unknown", f"{signed}: that may be the provider's, or of what inspects TLS"


def _contrast(what: Culprit, known: Known) -> list[str]:
    if what not in ("network", "provider", "tls", "proxy", "unknown"):
        return []
    told = []
    if known.others_fail:
        told.append(f"{_others(known.others_fail)} can't be reached either")
    if known.others_answer:
        told.append(f"{_others(known.others_answer)} answered since, over the same wire")
    if what in ("network", "unknown") and not known.answered:
        told.append("it has not answered this process yet: its name or port may be wrong")
    return told


def _others(number: int) -> str:
    return "another authority" if number == 1 else f"{number} other authorities"
