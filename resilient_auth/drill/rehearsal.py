"""A drill of an application in its own tests (G26)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from .._policy.checks import require
from ..errors import ConfigurationError
from .client import Refused
from .client.rehearsed import Provider, check
from .judge import Finding
from .plan import QUICK_LIFETIME, SCENARIOS, Plan, scenario
from .run import run
from .wording import headline, shortfalls

__all__ = ["rehearse"]

_ALL: Final = tuple(each.name for each in SCENARIOS)


def rehearse(
    app: str | Callable[[Provider], Callable[[], Any]],
    *,
    faults: Sequence[str] = _ALL,
    outage: float = 12.0,
    recovery: float = 6.0,
    threads: int = 4,
    rate: float = 20.0,
) -> dict[str, Finding]:
    """Drill an application with faults of a provider, and check that each request with a token in hand is served (G26).

    Each fault has a process and a provider of its own, and all run at the same time, in real time.

    Args:
        app: What builds the application, as `module:callable` or as a function of a module. It is given a
            `drill.Provider`, and returns a function, or a coroutine function, that makes one request and returns what
            it got: a token, MSAL's result, or the answer of an API, such as the provider's.
        faults: Names as in `resilient-auth drill --fault`; all by default.
        outage: Seconds of outage.
        recovery: Seconds to wait for a fresh token afterwards, at most.
        threads: Threads that ask.
        rate: Requests a second, all threads together.

    Returns:
        What became of the application, by fault.

    Raises:
        AssertionError: A request wasn't served while the application could have held a valid token; says which and why.
        ConfigurationError: An argument is wrong, or the application can't be drilled.
        ModuleNotFoundError: The extra `emulator` isn't installed.
    """
    fits = isinstance(faults, Sequence) and not isinstance(faults, str) and all(isinstance(one, str) for one in faults)
    require(fits, f"faults must be a list of names, such as ['503', 'black_hole'], not {faults!r}")
    try:
        plan = Plan(
            app=_name_of(app),
            scenarios=tuple(dict.fromkeys(scenario(name) for name in faults)),
            healthy=3.0,
            token_lifetime=QUICK_LIFETIME,
            outage=outage,
            recovery=recovery,
            threads=threads,
            rate=rate,
        )
        outcomes = run(plan, lambda _: None)
    except (ValueError, Refused) as error:
        raise ConfigurationError(str(error)) from None
    lines = shortfalls(outcomes)
    if lines:
        raise AssertionError("\n".join((headline(outcomes), *lines)))
    return {outcome.scenario.name: outcome.sdk for outcome in outcomes}


def _name_of(app: object) -> str:
    if isinstance(app, str):
        check(app)
        return app
    module, path = getattr(app, "__module__", None), getattr(app, "__qualname__", "")
    if module is None or module == "__main__" or not path or "<" in path:
        raise ValueError(f"app must be a function of a module, which another process can import, not {app!r}")
    return f"{module}:{path}"
