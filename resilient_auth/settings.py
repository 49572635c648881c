"""Everything that an owner may choose, as one frozen object."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ._policy.breaker import BreakerOptions
from ._policy.checks import is_scope, nearest, require, require_number, require_store, require_whole
from ._policy.endpoint import host_of
from ._policy.fallback import FallbackOptions
from ._policy.freshness import FreshnessOptions
from ._policy.retry import RetryOptions
from .clock import Clock, Jitter, SystemClock, system_jitter
from .errors import ConfigurationError
from .store import Store

__all__ = ["BreakerOptions", "FallbackOptions", "FreshnessOptions", "RetryOptions", "Settings"]

#: Seconds by which a lease in a store outlasts the attempt that is made under it: time to write down what came of that.
LEASE_SPARE = 2.0
_SYSTEM_CLOCK = SystemClock()
_HOST = re.compile(r"(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Choose how an application is kept authenticated. Equal settings share breakers, workers and timers.

    Args:
        freshness: When tokens are refreshed.
        retry: How often and how soon a failed attempt is made again.
        breaker: When the circuit of a failing authority opens, and for how long.
        fallback: What may be served while it fails.
        wait: Seconds that a caller with nothing to serve waits, at most.
        exchange_deadline: Seconds that one exchange may take, with its queueing, attempts and back-offs. Raised to
            `wait` where that is longer.
        connect_timeout: Seconds for making a connection.
        attempt_timeout: Seconds for one HTTP request and its whole answer.
        discovery_wait: Seconds that a constructor waits for a discovery document before it goes on without.
        discovery_refresh: Seconds after which a discovery document is fetched again, in the background.
        discovery_hosts: Hosts that a discovery document may name besides the authority's own and those that Microsoft,
            Google and Amazon Cognito are known to use: `("login.example.com", "idp.example.com:8443")`. A document
            whose endpoints are elsewhere isn't used: secrets would be posted there.
        workers_per_authority: Exchanges with one authority at the same time, at most; an application that calls a
            function of yours in its exchanges has as many of its own, and so has a credential that isn't MSAL's.
        queue_per_authority: Exchanges with one authority that may wait for a worker, at most.
        max_tokens: Tokens that an application object holds in memory, at most; the least recently refreshed goes first.
        keep_fresh: Scopes of `acquire_token_for_client` to keep fresh without any traffic: `(("scope",), ...)`; for a
            managed identity, one resource each.
        keep_trying: Seconds after the last request for a token for which its recovery is still attempted.
        store: What outlives this process and is shared with others, such as `FileStore(...)` or `RedisStore(...)`;
            None, the default, for memory alone.
        max_users: Users whose accounts and refresh tokens are held in memory, at most, where there is a store; the one
            whose tokens were obtained longest ago goes there first, and comes back when it is wanted.
        max_stored_tokens: Access tokens in one record of the store, at most; the shortest-lived go first. The
            application's own tokens have a record for each set of scopes, which holds those with other parameters, such
            as `fmi_path`, too. A user's record holds those that MSAL's cache has no place for.
        explain: Whether the result of every call whose token is held says, under `resilience`, where it came from and
            where the time went. One from memory takes some ten microseconds then, in place of one.
        clock: Where the time comes from; for tests.
        jitter: Where randomness comes from; for tests.
    """

    freshness: FreshnessOptions = field(default_factory=FreshnessOptions)
    retry: RetryOptions = field(default_factory=RetryOptions)
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    fallback: FallbackOptions = field(default_factory=FallbackOptions)
    wait: float = 30.0
    exchange_deadline: float = 30.0
    connect_timeout: float = 5.0
    attempt_timeout: float = 10.0
    discovery_wait: float = 5.0
    discovery_refresh: float = 12 * 3600.0
    discovery_hosts: tuple[str, ...] = ()
    workers_per_authority: int = 8
    queue_per_authority: int = 10_000
    max_tokens: int = 100_000
    keep_fresh: tuple[tuple[str, ...], ...] = ()
    keep_trying: float = 900.0
    store: Store | None = field(default=None, repr=False)
    max_users: int = 100_000
    max_stored_tokens: int = 256
    explain: bool = False
    clock: Clock = field(default=_SYSTEM_CLOCK, repr=False)
    jitter: Jitter = field(default=system_jitter, repr=False)

    def __post_init__(self) -> None:
        for name, kind in _GROUPS.items():
            if not isinstance(getattr(self, name), kind):
                raise ConfigurationError(f"{name} must be {kind.__name__}(...), not {getattr(self, name)!r}")
        for name in ("wait", "exchange_deadline", "connect_timeout", "attempt_timeout"):
            require_number(name, getattr(self, name), low=0.01, high=3600.0)
        require_number("discovery_wait", self.discovery_wait, low=0.0, high=3600.0)
        require_number("discovery_refresh", self.discovery_refresh, low=60.0, high=30 * 24 * 3600.0)
        require_number("keep_trying", self.keep_trying, low=0.0, high=24 * 3600.0)
        require_whole("workers_per_authority", self.workers_per_authority, low=1, high=256)
        require_whole("queue_per_authority", self.queue_per_authority, low=0)
        require_whole("max_tokens", self.max_tokens, low=1)
        require(isinstance(self.explain, bool), f"explain must be True or False, not {self.explain!r}")
        require_whole("max_users", self.max_users, low=1)
        require_whole("max_stored_tokens", self.max_stored_tokens, low=1, high=1024)
        if self.store is not None:
            require_store(self.store)
        require(
            self.connect_timeout <= self.attempt_timeout,
            f"connect_timeout of {self.connect_timeout:g} s exceeds attempt_timeout of {self.attempt_timeout:g} s: "
            "lower the one or raise the other",
        )
        require(
            self.attempt_timeout <= max(self.exchange_deadline, self.wait),
            f"attempt_timeout of {self.attempt_timeout:g} s exceeds exchange_deadline of "
            f"{max(self.exchange_deadline, self.wait):g} s: an attempt couldn't end in time",
        )
        require(
            self.store is None or self.attempt_timeout + LEASE_SPARE <= self.deadline,
            f"attempt_timeout of {self.attempt_timeout:g} s, with the {LEASE_SPARE:g} s by which a lease outlasts it, "
            f"exceeds exchange_deadline of {self.deadline:g} s: after a process that was killed no other one of the "
            "fleet would get its turn in time; raise the one or lower the other",
        )
        require(
            self.breaker.probe_lease >= self.attempt_timeout,
            f"probe_lease of {self.breaker.probe_lease:g} s is shorter than attempt_timeout of "
            f"{self.attempt_timeout:g} s: a probe would be given up under way; "
            "raise the one or lower the other",
        )
        require(
            len(self.keep_fresh) <= self.max_tokens,
            f"keep_fresh names {len(self.keep_fresh)} tokens, and max_tokens is {self.max_tokens}: raise max_tokens",
        )
        require(
            self.freshness.margin_wait <= self.wait,
            f"margin_wait of {self.freshness.margin_wait:g} s exceeds wait of {self.wait:g} s: lower the one or raise "
            "the other",
        )
        _check_scope_sets(self.keep_fresh)
        _check_hosts(self.discovery_hosts)

    @property
    def deadline(self) -> float:
        """Return how many seconds one exchange may take."""
        return max(self.exchange_deadline, self.wait)

    @classmethod
    def from_env(cls, prefix: str = "RESILIENT_AUTH_", *, environ: Mapping[str, str] | None = None) -> Settings:
        """Read settings from environment variables.

        Each option is its name in capitals behind the prefix: `RESILIENT_AUTH_WAIT=10`; an option of a group has the
        group's name before it: `RESILIENT_AUTH_BREAKER_FAILURE_RATE=0.3`. `KEEP_FRESH` holds scopes, separated by
        blanks, and sets of scopes separated by semicolons; `DISCOVERY_HOSTS` hosts, separated by blanks.

        Args:
            prefix: What the variables' names start with.
            environ: Where to look; the process's environment when not given.

        Raises:
            ConfigurationError: A variable with the prefix names no option, or its value is of the wrong kind or out of
                range. Every problem names the variable.
        """
        require(isinstance(prefix, str), f"prefix must be a text, not {type(prefix).__name__}")
        fits = environ is None or isinstance(environ, Mapping)
        require(fits, f"environ must be a mapping such as os.environ, not {type(environ).__name__}")
        given = {k: v for k, v in (os.environ if environ is None else environ).items() if k.startswith(prefix)}
        known = _variables(prefix)
        unknown = sorted(set(given) - set(known))
        if unknown:
            hint = nearest(unknown[0], known)
            raise ConfigurationError(f"{unknown[0]} names no option{hint}; there are {', '.join(sorted(known))}")
        top: dict[str, Any] = {}
        groups: dict[str, dict[str, Any]] = {}
        for variable, text in given.items():
            group, name, default = known[variable]
            value = _parse(variable, text, default)
            (groups.setdefault(group, {}) if group else top)[name] = value
        try:
            for group, values in groups.items():
                top[group] = _GROUPS[group](**values)
            return cls(**top)
        except ConfigurationError as error:
            told = str(error)
            meant = [variable for variable in sorted(given) if known[variable][1] in told]
            raise ConfigurationError(f"{', '.join(meant) or prefix + '...'}: {told}") from None

    def but(self, **changes: Any) -> Settings:
        """Make a copy with some options changed."""
        return replace(self, **changes)


_GROUPS: dict[str, type[Any]] = {
    "freshness": FreshnessOptions,
    "retry": RetryOptions,
    "breaker": BreakerOptions,
    "fallback": FallbackOptions,
}
_BOOLS = {"true": True, "1": True, "false": False, "0": False}
_NOT_IN_THE_ENVIRONMENT = frozenset({"store", "clock", "jitter"})


def _check_scope_sets(sets: object) -> None:
    hint = 'keep_fresh must be a tuple of tuples of scopes, such as (("https://graph.microsoft.com/.default",),)'
    require(isinstance(sets, tuple), f"{hint}, not {sets!r}")
    for scopes in sets if isinstance(sets, tuple) else ():
        require(isinstance(scopes, tuple) and bool(scopes), f"{hint}; {scopes!r} isn't one")
        require(all(map(is_scope, scopes)), f"{hint}; {scopes!r} holds what isn't a scope")


def _check_hosts(hosts: object) -> None:
    hint = 'discovery_hosts must be a tuple of host names such as ("login.example.com", "idp.example.com:8443")'
    require(isinstance(hosts, tuple), f"{hint}, not {hosts!r}")
    for host in hosts if isinstance(hosts, tuple) else ():
        fits = isinstance(host, str) and _HOST.fullmatch(host) and host_of(f"https://{host}") == host
        require(bool(fits), f"{hint}; {host!r} isn't one: lower case, no scheme, no path, no port 443")


def _variables(prefix: str) -> dict[str, tuple[str, str, Any]]:
    found: dict[str, tuple[str, str, Any]] = {}
    for option in fields(Settings):
        if option.name in _GROUPS:
            for part in fields(_GROUPS[option.name]):
                found[f"{prefix}{option.name.upper()}_{part.name.upper()}"] = (option.name, part.name, part.default)
        elif option.name not in _NOT_IN_THE_ENVIRONMENT:
            found[f"{prefix}{option.name.upper()}"] = ("", option.name, option.default)
    return found


def _parse(variable: str, text: str, default: object) -> object:
    if variable.upper().endswith("DISCOVERY_HOSTS"):
        return tuple(text.split())
    if default == () or variable.upper().endswith("KEEP_FRESH"):
        return tuple(tuple(part.split()) for part in text.split(";") if part.strip())
    if isinstance(default, bool):
        if text.lower() not in _BOOLS:
            raise ConfigurationError(f"{variable} must be a truth value (true, false, 1 or 0), not {text!r}")
        return _BOOLS[text.lower()]
    try:
        if isinstance(default, tuple):
            low, high = (float(part) for part in text.replace(",", " ").split())
            return (low, high)
        return type(default)(text)  # type: ignore[call-arg]
    except (TypeError, ValueError):
        kind = {int: "a whole number", float: "a number", tuple: "two numbers"}.get(type(default), "a value")
        raise ConfigurationError(f"{variable} must be {kind}, not {text!r}") from None
