"""What a request is answered that may not go on, or that met an error of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._process.causes import causes_of
from ...errors import ConfigurationError, ResilientAuthError, TokenDenied
from ..challenge import claims_challenge
from ..claims import Claims
from ..errors import InvalidToken, VerificationUnavailable

__all__ = ["Refusal", "challenged", "gravest", "refused"]

_MESSAGES = {
    "missing": "Please sign in.",
    "expired": "Your sign-in has expired. Please sign in again.",
    "insufficient_scope": "This application isn't allowed to do this for you.",
    "insufficient_role": "You aren't allowed to do this.",
    "insufficient_claims": "This needs a further sign-in step. Please sign in again.",
    "unknown_user": "You aren't known here.",
    "cross_site": "Another site had this request sent. Please start from this site's own page.",
}
_OF_STATUS = {
    401: "Your sign-in isn't valid here. Please sign in again.",
    403: "This application isn't allowed to do this.",
    502: "This can't be done, since this application was refused. Please contact support.",
}
#: Seconds, where no better time is known, and at most.
_RETRY_AFTER, _LONGEST = 5.0, 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Answer a request that may not go on."""

    status: int
    #: `WWW-Authenticate` or `Retry-After`, and `Cache-Control`.
    headers: Mapping[str, str]
    #: Stable, for programs.
    code: str
    #: For the user.
    message: str

    @property
    def body(self) -> dict[str, Any]:
        """Return the JSON object to answer with."""
        return {"detail": {"code": self.code, "message": self.message}}


def refused(error: ResilientAuthError, *, realm: str | None = None) -> Refusal:
    """Make the answer to a request that met an error of this package's.

    A token that is bad is a 401, one that isn't enough a 403, each with its challenge. What can't be had now, be it
    from the provider, an API, a claims service or a store, is a 503 with `Retry-After`. Where the provider refuses this
    application a token, trying again won't help: that is a 502.

    Args:
        error: What was raised.
        realm: The protection space's name in challenges.

    Raises:
        ConfigurationError: The error is one: a mistake of the application's, which its log must show.
    """
    if not isinstance(error, ResilientAuthError):
        raise ConfigurationError(f"error must be one of this package's, not {type(error).__name__}")
    if isinstance(error, InvalidToken):
        message = _MESSAGES.get(error.code) or _OF_STATUS[error.status]
        headers = {"WWW-Authenticate": error.www_authenticate(realm), **error.headers}
        return _refusal(error.status, error.code, message, headers)
    if isinstance(error, ConfigurationError):
        raise error
    causes = tuple(causes_of(error))
    status = getattr(error, "status", None) or (502 if any(isinstance(c, TokenDenied) for c in causes) else 503)
    message = getattr(error, "user_message", "")
    if status != 503:
        return _refusal(status, error.code, message or _OF_STATUS[status], {})
    known = (getattr(cause, "retry_after", None) for cause in causes)
    seconds = next((value for value in known if value is not None), _RETRY_AFTER)
    whole = math.ceil(min(max(seconds, 1.0), _LONGEST))
    what = "Your sign-in can't be checked" if isinstance(error, VerificationUnavailable) else "This can't be done"
    again = f"{what} right now. Please try again in {whole} second{'' if whole == 1 else 's'}."
    return _refusal(503, error.code, message or again, {"Retry-After": str(whole)})


def gravest(raised: BaseException) -> ResilientAuthError | None:
    """Return the error of this package's that a view has met; None where the view failed otherwise.

    Of a group, as `asyncio.TaskGroup` raises one, it is the one that says most: a user's or a token's first, then a
    refusal of this application, then what can't be had for longest. A group in which there is anything else is none of
    these: a mistake must be seen.
    """
    if isinstance(raised, BaseExceptionGroup):
        found = [gravest(each) for each in raised.exceptions]
        ours = [error for error in found if error is not None]
        return min(ours, key=_gravity) if len(ours) == len(found) else None
    return raised if isinstance(raised, ResilientAuthError) and not isinstance(raised, ConfigurationError) else None


def _gravity(error: ResilientAuthError) -> tuple[int, int]:
    refusal = refused(error)
    return refusal.status, -int(refusal.headers.get("Retry-After", 0))


def challenged(
    claims: Claims,
    required: Mapping[str, Any] | str,
    *,
    realm: str | None = None,
    authorization_uri: str | None = None,
) -> Refusal:
    """Make the answer that asks for more than a token has; see `claims_challenge` (G17)."""
    status, header = claims_challenge(claims, required, realm=realm, authorization_uri=authorization_uri)
    return _refusal(status, "insufficient_claims", _MESSAGES["insufficient_claims"], {"WWW-Authenticate": header})


def _refusal(status: int, code: str, message: str, headers: Mapping[str, str]) -> Refusal:
    return Refusal(status=status, headers={**headers, "Cache-Control": "no-store"}, code=code, message=message)
