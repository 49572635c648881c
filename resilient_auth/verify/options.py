"""What an owner may choose about keys, remembered tokens and grace."""

from __future__ import annotations

from dataclasses import dataclass

from .._policy.checks import require, require_number, require_whole
from .trust import named_host

__all__ = ["GraceOptions", "KeyOptions"]

_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOptions:
    """Choose how an issuer's signing keys are fetched and how long they serve (G15).

    Args:
        refresh_every: Seconds after which the keys are fetched again, in the background. Older keys are reported as
            stale.
        last_known_good: Seconds for which keys serve after a refresh was due and failed: the longest outage of the
            provider through which every token with a known key is verified. A key that the provider no longer
            publishes serves as long after it was last seen.
        discovery_every: Seconds after which the discovery document is fetched again, before the keys.
        unknown_every: Seconds between two fetches that tokens with an unknown `kid` cause, at least, whether they
            succeed or not. Until the next one may be made, such a token is answered with 503.
        wait: Seconds that a caller waits for keys, at most. Only one whose token's key is missing waits.
        waiters: Callers that may wait at the same time.
        waiting_kids: Different unknown `kid`s that may be waited for at the same time.
        largest: Bytes of a discovery document or a key set, at most.
        most_keys: Keys in a set, at most.
        hosts: Further hosts that the discovery document may name, as `host` or `host:port`, an IPv6 address in
            brackets. Its own host is always allowed, and no other one.
    """

    refresh_every: float = 3600.0
    last_known_good: float = _DAY
    discovery_every: float = _DAY
    unknown_every: float = 300.0
    wait: float = 5.0
    waiters: int = 1000
    waiting_kids: int = 16
    largest: int = 2 * 1024 * 1024
    most_keys: int = 1000
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_number("refresh_every", self.refresh_every, low=60.0, high=7 * _DAY)
        require_number("last_known_good", self.last_known_good, low=0.0, high=30 * _DAY)
        require_number("discovery_every", self.discovery_every, low=60.0, high=30 * _DAY)
        require_number("unknown_every", self.unknown_every, low=1.0, high=_DAY)
        require_number("wait", self.wait, low=0.01, high=600.0)
        require_whole("waiters", self.waiters, low=0, high=1_000_000)
        require_whole("waiting_kids", self.waiting_kids, low=1, high=100_000)
        require_whole("largest", self.largest, low=1024, high=4 * 1024 * 1024)
        require_whole("most_keys", self.most_keys, low=1, high=1000)
        require(
            isinstance(self.hosts, tuple),
            f'hosts must be a tuple of host names, such as ("keys.example",), not {self.hosts!r}',
        )
        for host in self.hosts:
            named_host(host)

    @property
    def longest(self) -> float:
        """Return for how many seconds past the last success keys serve."""
        return self.refresh_every + self.last_known_good


@dataclass(frozen=True, slots=True, kw_only=True)
class GraceOptions:
    """Choose to accept tokens a little past their expiry while the provider is down. Off unless given.

    All of these must hold: the call asks for it (`verify(..., grace=True)`); this verifier saw the same token valid
    before the outage began; scheduled probes of the discovery document and of the token endpoint both fail, and have
    failed twice at least; the token is a user's access token without an administrator's role; it isn't on the
    deny-list. It ends when a probe gets any answer. Requests have no influence on what the probes see.

    Args:
        past_expiry: Seconds past a token's expiry for which it may be accepted, at most.
        outage: Seconds since the outage was first seen after which grace ends, whatever the token.
        probe_every: Seconds between two looks at the provider while it works.
        probe_every_in_outage: Seconds between two looks while it doesn't.
        refused_roles: Roles that get no grace, next to those with `admin`, `privileged` or `owner` in their name and
            to holders of any of Entra's directory roles (`wids`).
    """

    past_expiry: float = 900.0
    outage: float = 3600.0
    probe_every: float = 60.0
    probe_every_in_outage: float = 15.0
    refused_roles: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        require_number("past_expiry", self.past_expiry, low=1.0, high=4 * 3600.0)
        require_number("outage", self.outage, low=1.0, high=_DAY)
        require_number("probe_every", self.probe_every, low=5.0, high=3600.0)
        require_number("probe_every_in_outage", self.probe_every_in_outage, low=5.0, high=600.0)
        require(
            isinstance(self.refused_roles, frozenset) and all(isinstance(r, str) for r in self.refused_roles),
            f"refused_roles must be a frozenset of role names, not {self.refused_roles!r}",
        )
        require(
            self.past_expiry <= self.outage,
            f"past_expiry of {self.past_expiry:g} s exceeds outage of {self.outage:g} s: lower the one or raise "
            "the other",
        )
        require(
            self.probe_every_in_outage <= self.probe_every,
            f"probe_every_in_outage of {self.probe_every_in_outage:g} s exceeds probe_every of "
            f"{self.probe_every:g} s: an outage must be looked at more often, not less",
        )
