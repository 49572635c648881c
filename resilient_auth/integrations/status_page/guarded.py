"""What guards a status page: the owner says it, or says that nothing does."""

from __future__ import annotations

from typing import TypeVar

from ..._policy.checks import require

__all__ = ["check_guard"]

_G = TypeVar("_G")


def check_guard(guard: _G | None, *, unprotected: bool, such_as: str) -> _G | None:
    """Return the guard.

    Args:
        guard: The owner's.
        unprotected: Whether the owner wants none.
        such_as: What one looks like.

    Raises:
        ConfigurationError: There is neither, or both.
    """
    require(isinstance(unprotected, bool), f"unprotected must be True or False, not {unprotected!r}")
    require(
        guard is not None or unprotected,
        f"the status page names authorities, scopes and stores: give a guard, such as {such_as}; or unprotected=True, "
        "where nobody else reaches it",
    )
    require(guard is None or not unprotected, "give a guard or unprotected=True, not both")
    require(guard is None or callable(guard) or hasattr(guard, "dependency"), f"guard must be callable, not {guard!r}")
    return guard
