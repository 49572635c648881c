"""Refuse an option or an argument that can't be right, naming it and the fix."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard, TypeVar, cast

from ..errors import ConfigurationError
from ..store import Store

__all__ = [
    "awaits",
    "called",
    "check_scopes",
    "is_path",
    "is_scope",
    "nearest",
    "require",
    "require_clock",
    "require_function",
    "require_number",
    "require_path",
    "require_store",
    "require_whole",
]

#: From Python 3.12 on, `isinstance` sees nothing of what an owner's object hands on by `__getattr__`.
_OF_STORES = tuple(name for name in vars(Store) if not name.startswith("_"))
#: No finite number is larger, and a whole one may be: it is compared exactly, where `math.isfinite` would raise.
_MOST = sys.float_info.max
_RESERVED_SCOPES = frozenset({"openid", "profile", "offline_access"})

_F = TypeVar("_F", bound=Callable[..., Any])


def called(name: str, *, elsewhere: str) -> Callable[[_F], _F]:
    """Have a function whose keyword is `name` say so to who gives it by the name that it has elsewhere.

    Settings are `settings` in what is ours, and `resilience` where MSAL's signatures are kept.
    """

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            require(elsewhere not in kwargs, f"{elsewhere} is called {name} here: give {name}=Settings(...)")
            return function(*args, **kwargs)

        return cast("_F", checked)

    return decorate


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name that is like an unknown one; "" where none is."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" (did you mean {found[0]!r}?)" if found else ""


def require(holds: bool, message: str) -> None:
    """Raise `ConfigurationError(message)` unless `holds`."""
    if not holds:
        raise ConfigurationError(message)


def awaits(function: object) -> bool:
    """Return whether a call of it gives something that has to be awaited, as far as that can be told before."""
    of_an_object = None if isinstance(function, type) else getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(of_an_object)


def require_function(name: str, function: object, *, of: str) -> None:
    """Raise `ConfigurationError` unless `function` is one that nobody has to await.

    Args:
        name: The argument's.
        function: What was given.
        of: What it takes, for people.
    """
    require(callable(function), f"{name} must be a function of {of}, not {type(function).__name__}")
    require(
        not awaits(function),
        f"{name} must be a plain function of {of}, and this is a coroutine function, which nobody would await",
    )


def require_clock(clock: object) -> None:
    """Raise `ConfigurationError` unless `clock` is one, or None."""
    fits = clock is None or all(callable(getattr(clock, name, None)) for name in ("wall", "monotonic", "wait"))
    require(fits, f"clock must be a Clock, such as resilient_auth.testing.ManualClock(), not {type(clock).__name__}")


def is_path(value: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether something can be a file's path; `open` would take a number for a file that is open already."""
    if not isinstance(value, (str, os.PathLike)):
        return False
    path = os.fspath(value)
    return isinstance(path, str) and bool(path)


def require_store(store: object) -> None:
    """Raise `ConfigurationError` unless `store` is one, or hands all of one's methods on."""
    require(
        all(hasattr(store, name) for name in _OF_STORES),
        f"store must be a FileStore, a RedisStore or a SealedStore, not {type(store).__name__}",
    )


def require_path(name: str, path: object, example: str, *, slash: bool = False) -> None:
    """Raise `ConfigurationError` unless `path` can be a route's, and means itself in every framework.

    Args:
        name: The argument's.
        path: What was given.
        example: What could be given.
        slash: Whether it may end with a slash.
    """
    fits = isinstance(path, str) and path.startswith("/") and path.isprintable() and not set(path) & set("<>{}?#")
    whole = fits and (slash or not str(path).endswith("/"))
    require(whole, f'{name} must be a path such as "{example}", not {path!r}')


def require_number(name: str, value: object, *, low: float, high: float = math.inf, unit: str = " s") -> None:
    """Raise `ConfigurationError` unless `value` is a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MOST <= value <= _MOST:
        raise ConfigurationError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high:
        span = f"at least {low:g}{unit}" if high == math.inf else f"from {low:g} to {high:g}{unit}"
        raise ConfigurationError(f"{name} must be {span}, not {value:g}")


def require_whole(name: str, value: object, *, low: int, high: int | None = None) -> None:
    """Raise `ConfigurationError` unless `value` is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, not {value!r}")
    if value < low or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigurationError(f"{name} must be {span}, not {value}")


def is_scope(value: object) -> bool:
    """Return whether something can be a scope, or several in one text, as MSAL takes them too."""
    return isinstance(value, str) and bool(value) and value == value.strip()


def check_scopes(scopes: object, *, empty: bool = False) -> tuple[str, ...]:
    """Return the scopes of a list, sorted and without repetitions, or say what is wrong before anything is sent."""
    if isinstance(scopes, (str, bytes)):
        raise ConfigurationError(f"scopes must be a list of strings, not the string {scopes!r}: write [{scopes!r}]")
    if not isinstance(scopes, (list, tuple, set, frozenset)):
        raise ConfigurationError(f"scopes must be a list of strings, not {type(scopes).__name__}")
    for scope in scopes:
        if not is_scope(scope):
            raise ConfigurationError(f"scopes must hold non-empty strings without blanks around them, not {scope!r}")
    if not scopes and not empty:
        raise ConfigurationError('scopes must not be empty: ask for "<resource>/.default" or for the API\'s scopes')
    if taken := _RESERVED_SCOPES & set(scopes):
        raise ConfigurationError(
            f"scopes must not hold {', '.join(sorted(taken))}: they are added where they are needed"
        )
    return tuple(sorted(set(scopes)))
