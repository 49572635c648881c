"""When a failed attempt is made again (G8, G9, G10), with tenacity."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..clock import Clock, Jitter
from ..errors import (
    CircuitOpen,
    Overloaded,
    ProviderUnavailable,
    Throttled,
)
from .checks import require, require_number, require_whole

if TYPE_CHECKING:
    import tenacity

__all__ = ["Budget", "RetryOptions", "delay_before", "retrying"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """Choose how often and how soon a failed attempt is made again.

    Args:
        attempts: Attempts in one exchange, the first one included. 1 means no retry.
        first_delay: Seconds before the first retry, at least; the guidance forbids less than 5 (G9, G10).
        longest_delay: Seconds between two attempts, at most, where the provider didn't ask for more.
        budget: Retries per authority that may be made in a row without a success; each success earns a tenth. One
            request may take a quarter of it.
    """

    attempts: int = 3
    first_delay: float = 5.0
    longest_delay: float = 30.0
    budget: int = 20

    def __post_init__(self) -> None:
        require_whole("attempts", self.attempts, low=1, high=20)
        require_number("first_delay", self.first_delay, low=5.0, high=600.0)
        require_number("longest_delay", self.longest_delay, low=5.0, high=3600.0)
        require_whole("budget", self.budget, low=0)
        require(
            self.first_delay <= self.longest_delay,
            f"first_delay of {self.first_delay:g} s exceeds longest_delay of {self.longest_delay:g} s: "
            "lower the one or raise the other",
        )


#: Tenths of a retry that one costs, and that a success earns: ten tenths as a float aren't one.
_COST, _EARNED = 10, 1
#: Of a whole budget one request may take one share of so many.
_SHARES = 4
_MOST_TAKERS = 1024


class Budget:
    """Bound an authority's retries, so that many callers can't multiply its load while it fails.

    No request alone takes more than a share of it: one that always fails leaves the others theirs.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most * _COST
        self._share = max(_COST, self._most // _SHARES)
        #: What each has taken since it succeeded.
        self._taken: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Return how many retries may be made."""
        return self._left // _COST

    def spend(self, who: Hashable = None) -> bool:
        """Take one retry; False when none is left, or none of the share of `who`."""
        with self._lock:
            taken = self._taken.get(who, 0) + _COST
            if self._left < _COST or (who is not None and taken > self._share):
                return False
            self._left -= _COST
            if who is not None:
                if len(self._taken) >= _MOST_TAKERS:
                    self._taken.clear()
                self._taken[who] = taken
            return True

    def earn(self, who: Hashable = None) -> None:
        """Note a success."""
        # As it is nearly always; one that is missed in a race is made up by the next.
        if self._left >= self._most and not self._taken:
            return
        with self._lock:
            self._taken.pop(who, None)
            self._left = min(self._most, self._left + _EARNED)

    def renew_lock(self) -> None:
        """Take a lock of its own in a forked child."""
        self._lock = threading.Lock()


def delay_before(
    number: int, retry_after: float | None, *, first: float, longest: float, jitter: Jitter, spread: float = 0.3
) -> float:
    """Return the seconds to wait before retry `number`: as long as was asked, else exponentially longer.

    Args:
        number: 1 for the first.
        retry_after: Seconds that whoever failed asked for: it is never sooner, and a little later, so that those who
            were told the same don't come at once.
        first: Seconds before the first retry, at least; all above is jitter.
        longest: Seconds between two attempts, at most, where nothing was asked for.
        jitter: Spreads the delays.
        spread: How much later than asked, as a share of it; ten times as many seconds at most.
    """
    if retry_after is not None:
        return retry_after + jitter(0.0, min(10.0 * spread, spread * retry_after))
    return min(longest, first + jitter(0.0, first * 2.0 ** (number - 1)))


def may_repeat(error: BaseException, *, replayable: bool, spare: bool = False) -> bool:
    """Return whether an attempt that ended so may be made again.

    Args:
        error: How it ended.
        replayable: False for what must not be sent twice after an ambiguous failure: authorization codes, passwords.
        spare: Whether a valid token is held, so that there is time to come back later, and apart from others who were
            told the same `Retry-After`.
    """
    if not isinstance(error, ProviderUnavailable) or isinstance(error, (CircuitOpen, Overloaded)):
        return False
    if not error.heals:  # who waits learns at once what to mend
        return False
    if spare and error.retry_after is not None:
        return False
    if replayable:
        return True
    # Nothing was taken in: the connection was never made, or the provider said that it didn't even look.
    return isinstance(error, Throttled) or not error.sent


def retrying(
    *,
    options: RetryOptions,
    attempts: int,
    deadline: float,
    replayable: bool,
    spend: Callable[[], bool],
    refused: Callable[[], bool],
    clock: Clock,
    jitter: Jitter,
    sleep: Callable[[float], None],
    before_sleep: Callable[[int, float, BaseException], None],
    spare: bool = False,
) -> tenacity.Retrying:
    """Make the controller of one exchange's attempts.

    It waits as long as the provider asked; else exponentially longer, fully jittered above the first delay.

    Args:
        options: The owner's.
        attempts: At most so many, the first included.
        deadline: Monotonic time after which no attempt starts.
        replayable: See `may_repeat`.
        spend: Takes a retry out of the authority's budget; False when none is left.
        refused: Tells whether an attempt would be refused now.
        clock: Tells the time.
        jitter: Spreads the delays.
        sleep: Waits.
        before_sleep: Told the attempt's number, the delay and the error before each wait.
        spare: See `may_repeat`.
    """

    import tenacity  # the transport has loaded it

    def error_of(state: tenacity.RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome is not None else None

    def wait(state: tenacity.RetryCallState) -> float:
        error = error_of(state)
        asked = error.retry_after if isinstance(error, ProviderUnavailable) else None
        # Less than a second is no answer to when: a clock that runs ahead makes that of a date.
        asked = asked if asked is not None and asked >= 1.0 else None
        return delay_before(
            state.attempt_number, asked, first=options.first_delay, longest=options.longest_delay, jitter=jitter
        )

    def stop(state: tenacity.RetryCallState) -> bool:
        # In this order: a retry that isn't made costs no budget.
        return (
            state.attempt_number >= attempts
            or clock.monotonic() + state.upcoming_sleep >= deadline
            or refused()
            or not spend()
        )

    def tell(state: tenacity.RetryCallState) -> None:
        error = error_of(state)
        if error is not None:
            before_sleep(state.attempt_number, state.upcoming_sleep, error)

    return tenacity.Retrying(
        sleep=lambda seconds: sleep(float(seconds)),
        stop=stop,
        wait=wait,
        retry=tenacity.retry_if_exception(lambda error: may_repeat(error, replayable=replayable, spare=spare)),
        before_sleep=tell,
        reraise=True,
    )
