"""What an owner may choose about calls to APIs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._policy.breaker import BreakerOptions
from .._policy.checks import require, require_number, require_whole
from ..clock import Clock, Jitter, SystemClock, system_jitter
from ..errors import ConfigurationError

__all__ = ["TransportOptions", "chosen"]

_SYSTEM_CLOCK = SystemClock()


def _breaker(probe_lease: float = 30.0) -> BreakerOptions:
    # An API has more callers than a token endpoint, and a failure there costs one of them: more must fail, and breaks
    # are shorter.
    return BreakerOptions(
        consecutive_failures=5, window=30.0, first_break=5.0, longest_break=30.0, probe_lease=probe_lease
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """Choose how calls to APIs are kept from hanging, from hammering, and from failing for a moment's fault.

    Args:
        deadline: Seconds that a whole call may take: queueing, attempts, back-offs and the body of its answer. A call's
            own extension `deadline` goes before it; None there means no bound.
        attempt_timeout: Seconds in which one attempt must bring the head of an answer. A call or a client whose own
            time-out is longer has that instead, as httpx means it: for each silence, within the deadline.
        bound_silence: Whether `attempt_timeout` bounds each silence of an attempt, in which no byte comes or goes, and
            not the attempt as a whole; see `for_slow_apis`.
        connect_timeout: Seconds for making a connection; a client's or a call's own where it names one that isn't its
            time-out for reading.
        attempts: Attempts in one call, the first one included. 1 means no retry.
        first_delay: Seconds before the first retry, at least. The 5 s of G9 and G10 are for the identity provider,
            whose tokens are held for an hour; an API's caller waits now, within the deadline and the budget.
        longest_delay: Seconds between two attempts, at most, where the API didn't ask for more.
        retry_budget: Retries and hedges per key that may be made in a row without a success; each success earns a
            tenth.
        breaker: When a failing API is left alone, and how it is probed. The defaults here are five failures in a row,
            a window of 30 s, and breaks of 5 to 30 s.
        slow_call: Seconds to the head of an answer beyond which a good answer counts as a failure of the API all the
            same; None for never.
        concurrency: Calls with one key at the same time, at most.
        queue: Calls with one key that may wait for their turn, at most.
        queue_wait: Seconds that one waits there, at most.
        hedge_after: Seconds after which a GET, HEAD, OPTIONS or TRACE that has no answer yet is sent a second time, and
            the first good answer taken; None for never. Not other methods: a write that loses the race could land after
            the caller's next one.
        clock: Where the time comes from; for tests.
        jitter: Where randomness comes from; for tests.
    """

    deadline: float = 30.0
    attempt_timeout: float = 10.0
    bound_silence: bool = False
    connect_timeout: float = 3.0
    attempts: int = 3
    first_delay: float = 0.2
    longest_delay: float = 5.0
    retry_budget: int = 20
    breaker: BreakerOptions = field(default_factory=_breaker)
    slow_call: float | None = None
    concurrency: int = 512
    queue: int = 512
    queue_wait: float = 2.0
    hedge_after: float | None = None
    clock: Clock = field(default=_SYSTEM_CLOCK, repr=False)
    jitter: Jitter = field(default=system_jitter, repr=False)

    @classmethod
    def for_slow_apis(cls, *, silence: float = 120.0, deadline: float = 900.0, **others: Any) -> TransportOptions:
        """Return options for APIs that take their time, such as language models and uploads.

        What is bounded is each silence, in which no byte comes or goes. An attempt that is silent for too long is made
        once more at most, since each may cost minutes. `api_client` has its client wait as long; a client of your own
        needs `timeout=` as well, since httpx's is 5 s.

        Args:
            silence: Seconds without a byte after which an attempt is given up.
            deadline: Seconds that a whole call may take.
            others: Further options.

        Raises:
            ConfigurationError: An option is wrong.
        """
        require_number("silence", silence, low=0.01, high=3500.0)
        for name in ("attempt_timeout", "bound_silence"):
            require(name not in others, f"{name} has no place here: silence= says it")
        usual: dict[str, Any] = {"attempts": 2, "breaker": _breaker(max(30.0, silence + 30.0))}
        return cls(**(usual | others), attempt_timeout=silence, bound_silence=True, deadline=deadline)

    def __post_init__(self) -> None:
        require(isinstance(self.bound_silence, bool), f"bound_silence must be a bool, not {self.bound_silence!r}")
        if not isinstance(self.breaker, BreakerOptions):
            raise ConfigurationError(f"breaker must be BreakerOptions(...), not {self.breaker!r}")
        for name in ("deadline", "attempt_timeout", "connect_timeout"):
            require_number(name, getattr(self, name), low=0.01, high=3600.0)
        for name in ("first_delay", "longest_delay", "queue_wait"):
            require_number(name, getattr(self, name), low=0.0, high=3600.0)
        for name in ("slow_call", "hedge_after"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), low=0.001, high=3600.0)
        require_whole("attempts", self.attempts, low=1, high=20)
        require_whole("retry_budget", self.retry_budget, low=0)
        require_whole("concurrency", self.concurrency, low=1)
        require_whole("queue", self.queue, low=0)
        for name, limit in (
            ("connect_timeout", "attempt_timeout"),
            ("attempt_timeout", "deadline"),
            ("first_delay", "longest_delay"),
            ("slow_call", "attempt_timeout"),
            ("hedge_after", "attempt_timeout"),
            ("queue_wait", "deadline"),
        ):
            seconds, most = getattr(self, name), getattr(self, limit)
            require(
                seconds is None or seconds <= most,
                f"{name} of {seconds} s exceeds {limit} of {most} s: lower the one or raise the other",
            )
        require(
            self.hedge_after is None or self.retry_budget > 0,
            "hedge_after has no effect: a retry_budget of 0 leaves no second request",
        )
        require(
            self.attempts == 1 or self.first_delay < self.deadline,
            f"first_delay of {self.first_delay:g} s leaves no time for a retry within the deadline of "
            f"{self.deadline:g} s",
        )
        require(
            self.breaker.probe_lease > self.attempt_timeout,
            f"the breaker's probe_lease of {self.breaker.probe_lease:g} s isn't longer than attempt_timeout of "
            f"{self.attempt_timeout:g} s: a probe would be given up while it runs",
        )


def chosen(options: TransportOptions | None) -> TransportOptions:
    """Return what an owner chose, or the defaults.

    Raises:
        ConfigurationError: It is something else.
    """
    fits = options is None or isinstance(options, TransportOptions)
    require(fits, f"options must be TransportOptions(...), not {options!r}")
    return options or TransportOptions()
