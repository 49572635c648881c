"""What a provider's error says whatever its HTTP status is: a failure of its own, or a denial, and of how much (G9).

The numbers are those of Entra's public error reference
(https://learn.microsoft.com/entra/identity-platform/reference-error-codes), which may change them at any time. So a
number that isn't listed here is a denial, as it is for MSAL, and OAuth's own words count whatever the number is.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from enum import Enum
from typing import Any

__all__ = ["Fault", "Propagation", "Refusal", "is_gone", "kind_of", "kind_of_text", "name_of", "refusal_of"]


class Fault(Enum):
    """What kind of failure an error is."""

    #: The provider's own: it is to be asked again.
    TRANSIENT = "transient"
    #: The provider throttles.
    THROTTLED = "throttled"
    #: A federated credential isn't known there yet: nothing is wrong with the provider, and waiting helps.
    UNMATCHED = "unmatched"


#: RFC 6749, section 4.1.2.1; Entra and ADFS use them at the token endpoint too, with 400, 503 and 200.
_WORDS = frozenset({"temporarily_unavailable", "server_error"})

#: What the reference calls transient, temporary or to be tried again, on Entra's side. Codes of an owner's own
#: federation server or password agent (AADSTS40010, 80001 to 80013) aren't: they tell nothing about Entra.
_CODES = {
    50033: Fault.TRANSIENT,  # RetryableError: a transient error not related to the database operations
    50087: Fault.TRANSIENT,  # SasRetryableError: the service is temporarily unavailable, try again
    70012: Fault.TRANSIENT,  # MsaServerError: a server error occurred while authenticating a consumer, try again
    90006: Fault.TRANSIENT,  # ExternalServerRetryableError: the service is temporarily unavailable
    90012: Fault.TRANSIENT,  # RequestTimeout: the request has timed out
    90024: Fault.TRANSIENT,  # RequestBudgetExceededError: a transient error has occurred, try again
    90033: Fault.TRANSIENT,  # MsodsServiceUnavailable: the Microsoft Online Directory Service isn't available
    90055: Fault.THROTTLED,  # TenantThrottlingError: there are too many incoming requests
    90090: Fault.TRANSIENT,  # GraphRetryableError: the service is temporarily unavailable
    90091: Fault.TRANSIENT,  # GraphServiceUnreachable
    # For minutes after a federated credential was made or changed, the directory answers from old data
    # (https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations). One whose letters
    # have another case (AADSTS7002138) is known, and wrong.
    70021: Fault.UNMATCHED,  # no matching federated identity record found
    700211: Fault.UNMATCHED,  # for the presented assertion's issuer
    700212: Fault.UNMATCHED,  # for its audience
    7002121: Fault.UNMATCHED,  # likewise
    700213: Fault.UNMATCHED,  # for its subject
}

#: Denials after which what was issued before must not be used any more. An application or a tenant that isn't found
#: (AADSTS700016, 90002) is most often a wrong identifier, or a directory that is behind.
_GONE = frozenset({
    50034,  # UserAccountNotFound
    50057,  # UserDisabled
    50132,  # SsoArtifactInvalidOrExpired: the password has expired or was changed
    50133,  # SsoArtifactRevoked: likewise
    50173,  # FreshTokenNeeded: an administrator or the user has revoked the tokens
    51004,  # UserAccountNotInDirectory
    70001,  # UnauthorizedClient: the application is disabled
    7000112,  # UnauthorizedClientApplicationDisabled
})  # fmt: skip


class Refusal(Enum):
    """What a denial says of the application itself, and not of what it asks for."""

    #: Its credential, or its registration.
    CREDENTIAL = "credential"
    #: The time within which its own assertion is good: its clock, perhaps.
    DATES = "dates"
    #: That of an assertion which it was given: its clock, or nobody's fault.
    GIVEN_DATES = "given dates"


_REFUSALS = {
    50013: Refusal.GIVEN_DATES,  # InvalidAssertion: not within its time range, among others
    70002: Refusal.CREDENTIAL,  # InvalidClient: an error validating the credentials
    500133: Refusal.GIVEN_DATES,  # an assertion is not within its valid time range
    700016: Refusal.CREDENTIAL,  # UnauthorizedClient_DoesNotMatchRequest: not found in this tenant
    700024: Refusal.DATES,  # a client assertion is not within its valid time range
    700027: Refusal.CREDENTIAL,  # CertificateValidationFailed
    7000112: Refusal.CREDENTIAL,  # UnauthorizedClientApplicationDisabled
    7000215: Refusal.CREDENTIAL,  # an invalid client secret
    7000216: Refusal.CREDENTIAL,  # an assertion, a secret or a certificate is required
    7000218: Refusal.CREDENTIAL,  # the body must contain an assertion or a secret
    7000222: Refusal.CREDENTIAL,  # InvalidClientSecretExpiredKeysProvided
}
#: RFC 6749, section 5.2.
_REFUSAL_WORDS = frozenset({"invalid_client", "unauthorized_client"})

#: What MSAL's libraries call a server's word on the token itself: invalid or corrupted, and over.
_GONE_WORDS = frozenset({"bad_token", "token_expired"})

#: Seconds for which a federated credential that the provider doesn't know may still be on its way through it.
_PROPAGATION = 600.0
_MOST_UNKNOWN = 4096


class Propagation:
    """Remember since when each federated credential isn't known: what stays so is a denial."""

    def __init__(self) -> None:
        #: By whose it is, such as a tenant's.
        self._since: dict[Hashable, float] = {}

    def is_over(self, whose: Hashable, now: float) -> bool:
        """Note that it isn't known, and return whether it has been so for too long to be on its way."""
        if len(self._since) >= _MOST_UNKNOWN and whose not in self._since:
            self._since.clear()
        return now - self._since.setdefault(whose, now) > _PROPAGATION

    def ended(self, whose: Hashable) -> None:
        """Note that it is known."""
        self._since.pop(whose, None)


_LEADING = re.compile(r"\s*AADSTS(\d{5,9})\b")
_FIRST = re.compile(r"\bAADSTS(\d{5,9})\b")
_WORD_IN_TEXT = re.compile(r"\b(?:temporarily_unavailable|server_error)\b")


def kind_of(body: Mapping[str, Any]) -> Fault | None:
    """Return what kind of failure an OAuth error is; None for a denial, and for what is no error.

    Args:
        body: The answer, or the error dict that MSAL made of it.
    """
    error = body.get("error")
    if not isinstance(error, str) or not error:
        return None
    kind = _CODES.get(_code_of(body) or 0)
    return kind or (Fault.TRANSIENT if error in _WORDS else None)


def kind_of_text(text: str) -> Fault | None:
    """Return what kind of failure a message tells of, which somebody made of an OAuth error; None for a denial."""
    found = _FIRST.search(text)
    kind = _CODES.get(int(found[1])) if found else None
    return kind or (Fault.TRANSIENT if _WORD_IN_TEXT.search(text) else None)


def is_gone(body: Mapping[str, Any]) -> bool:
    """Return whether a denial says that the account or its tokens are gone, or challenges the claims they were had by.

    Args:
        body: The error dict.
    """
    return bool(body.get("claims")) or str(body.get("suberror")) in _GONE_WORDS or _code_of(body) in _GONE


def refusal_of(body: Mapping[str, Any]) -> Refusal | None:
    """Return what a denial says of the application itself; None for one of what it asks for, or of a user.

    Args:
        body: The error dict.
    """
    refusal = _REFUSALS.get(_code_of(body) or 0)
    return refusal or (Refusal.CREDENTIAL if str(body.get("error")) in _REFUSAL_WORDS else None)


def name_of(body: Mapping[str, Any]) -> str:
    """Return a short name of an error that quotes nothing else of it, such as `AADSTS90033`."""
    code = _code_of(body)
    if code is not None:
        return f"AADSTS{code}"
    error = body.get("error")
    return error if isinstance(error, str) and error in _WORDS else "an error"


def _code_of(body: Mapping[str, Any]) -> int | None:
    # The first one is the answer's own. Descriptions quote what they were sent: only their beginning is Entra's.
    codes = body.get("error_codes")
    if isinstance(codes, list) and codes:
        first = codes[0]
        return first if isinstance(first, int) and not isinstance(first, bool) else None
    description = body.get("error_description")
    found = _LEADING.match(description) if isinstance(description, str) else None
    return int(found[1]) if found else None
