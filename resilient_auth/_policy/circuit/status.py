"""What a breaker is around, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BreakerStatus", "Dependency", "State"]

State = Literal["closed", "open", "half-open", "isolated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """What a breaker is around: an identity provider, or another target."""

    #: An identity provider's origin.
    authority: str = ""
    #: What else is called: an API's origin, or a store.
    target: str = ""
    #: What is asked of it, such as `token`, `discovery`, `api` or `reads`.
    purpose: str = ""
    #: What of it, where the breaker isn't around the whole: a grant at a tenant, or one request.
    part: str = ""
    #: The wire over which it is asked, where that isn't the default one: one provider has a breaker for each.
    wire: str = ""

    @property
    def whom(self) -> str:
        """Return who is asked: the authority or the target."""
        return self.authority or self.target

    @property
    def name(self) -> str:
        """Return who is asked for what, for a person to read."""
        return " ".join(filter(None, (self.whom, self.purpose, self.part)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatus(Dependency):
    """How a breaker stands; times are in seconds since the epoch."""

    state: State
    #: When this state began.
    since: float
    #: Seconds until a call would be let through; None while closed or isolated.
    retry_after: float | None
    #: When the first failure since the last success was seen; None where there was none.
    failing_since: float | None
    #: The code of the last failure, which may be over.
    last_code: str | None
    era: int
