"""What an owner may choose about sign-out."""

from __future__ import annotations

from dataclasses import dataclass

from ..._policy.checks import require
from ...verify import Revocations
from ..paths import own_path

__all__ = ["SignOutOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOutOptions:
    """Choose how users sign out.

    Args:
        path: Where they do. Below it are `/done`, to which the provider leads them back, `/front-channel` and
            `/back-channel`: register these there, behind the application's address.
        at_provider: Lead them to the provider too, so that its session ends with ours.
        next_path: Where they are led then: a path of the application's; None for a page that says that it is done.
        typed: Refuse logout tokens whose `typ` isn't `logout+jwt`, which some providers leave out.
        revocations: Have access tokens refused too that were issued to whom a provider signs out, in every process
            whose verifiers go by these.
    """

    path: str = "/sign-out"
    at_provider: bool = True
    next_path: str | None = None
    typed: bool = False
    revocations: Revocations | None = None

    def __post_init__(self) -> None:
        fits = isinstance(self.path, str) and self.path.startswith("/") and self.path.strip("/") != ""
        require(
            fits and self.path[-1] != "/" and self.path.isprintable(),
            f'path must be a path such as "/sign-out", not {self.path!r}',
        )
        for name in ("at_provider", "typed"):
            require(isinstance(getattr(self, name), bool), f"{name} must be True or False")
        require(
            self.next_path is None or own_path(self.next_path, "") == self.next_path,
            f"next_path must be a path of the application's, not {self.next_path!r}",
        )
        require(
            self.revocations is None or isinstance(self.revocations, Revocations),
            f"revocations must be Revocations(...), not {type(self.revocations).__name__}",
        )
