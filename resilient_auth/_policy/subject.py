"""For whom a call is made, as the owner's `subject` function says it: no user's token may be another's."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import ConfigurationError
from .checks import require

__all__ = ["Subject", "SubjectOf", "check_subject", "subject_now"]

#: Called at each call, on the caller's thread or in their task; None is the application itself.
SubjectOf = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Subject:
    """One user, or the application itself. A type of its own, so that no caller's argument can equal it."""

    name: str | None = field(repr=False)

    @property
    def digest(self) -> str | None:
        """Return the whole SHA-256 of the name: users who choose their names must not be able to make two collide."""
        return None if self.name is None else hashlib.sha256(self.name.encode("utf-8", "surrogatepass")).hexdigest()


def check_subject(subject: object) -> None:
    """Raise `ConfigurationError` unless it is None, or a function that can be called wherever a token is asked for."""
    require(
        subject is None or callable(subject),
        "subject must be a function of no argument that returns the current user's id, "
        f"not {type(subject).__name__}: write subject=lambda: ...",
    )
    require(
        not inspect.iscoroutinefunction(subject),
        "subject must return the user's id at once: give a function, not a coroutine function",
    )


def subject_now(subject: SubjectOf) -> Subject:
    """Ask for whom this call is made.

    Raises:
        ConfigurationError: What it returned names nobody. Whatever `subject` itself raises is raised as it is.
    """
    name: object = subject()
    if name is None:
        return Subject(None)
    # By its type: a proxy for whoever is current says that it is a string, and would be another one at the next call.
    if isinstance(name, str) and issubclass(type(name), str) and name:
        return Subject(str.__str__(name))
    if inspect.iscoroutine(name):
        name.close()
    # The value isn't shown: it may be a whole user.
    what = "an empty one" if name == "" else f"a {type(name).__name__}"
    raise ConfigurationError(
        f"subject must return a non-empty string such as the user's id, not {what}; None is the application itself"
    )
