"""What an owner may choose about sign-in and sign-out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from .._policy.checks import require, require_function, require_number, require_path, require_whole
from ..verify import Revocations
from .codes import OneTimeCodes
from .pages import Page
from .paths import own_path
from .sessions.options import SessionOptions

__all__ = ["SIGN_IN", "SignInOptions", "SignOutOptions"]

#: What the names of cookies of sign-ins under way begin with, behind `__Host-`.
SIGN_IN: Final = "sign-in"


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
        require_path("path", self.path, "/sign-out")
        for name in ("at_provider", "typed"):
            require(isinstance(getattr(self, name), bool), f"{name} must be True or False")
        require(
            self.next_path is None
            or (
                isinstance(self.next_path, str)
                and bool(self.next_path)
                and own_path(self.next_path, "") == self.next_path
            ),
            f"next_path must be a path of the application's, not {self.next_path!r}",
        )
        require(
            self.revocations is None or isinstance(self.revocations, Revocations),
            f"revocations must be Revocations(...), not {type(self.revocations).__name__}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInOptions:
    """Choose how users sign in, and what a visitor may do while nobody can.

    Args:
        sessions: The bounds of sessions.
        sign_in_path: Where users begin to sign in; what else they need is below it.
        callback_path: Where providers send them back to: register it there, behind the application's address.
        cookie_name: What the session's cookie is called behind `__Host-`, and what the names of the others begin with:
            letters, digits, `-` and `_`. Cookies of a host are all of its applications', whatever their ports and
            paths; when not given, the name follows from both, as they are in the application's address. Applications
            that give the same address need one each.
        flow_life: Seconds that a user may take at the provider's pages.
        flows_per_browser: Sign-ins at the same time in one browser: in several tabs.
        silent_first: Ask the provider without any page first, and with one where that doesn't do (G4).
        incremental_consent: Let `token` ask for scopes beyond the provider's set (G6).
        codes: Let known users sign in by a one-time code while no provider can be reached.
        guests: Let visitors in as guests while no provider can be reached, where a view allows guests.
        render: Writes pages in the owner's words and looks: given a `Page`, returns HTML, or None for ours.
        sign_out: How users sign out, and what a provider that signs them out takes away.
    """

    sessions: SessionOptions = field(default_factory=SessionOptions)
    sign_in_path: str = "/sign-in"
    callback_path: str = "/signed-in"
    cookie_name: str | None = None
    flow_life: float = 600.0
    flows_per_browser: int = 5
    silent_first: bool = False
    incremental_consent: bool = False
    codes: OneTimeCodes | None = None
    guests: bool = False
    render: Callable[[Page], str | None] | None = None
    sign_out: SignOutOptions = field(default_factory=SignOutOptions)

    def __post_init__(self) -> None:
        require(isinstance(self.sessions, SessionOptions), f"sessions must be SessionOptions(...): {self.sessions!r}")
        require_path("sign_in_path", self.sign_in_path, "/sign-in")
        require_path("callback_path", self.callback_path, "/signed-in")
        require(isinstance(self.sign_out, SignOutOptions), f"sign_out must be SignOutOptions(...): {self.sign_out!r}")
        paths = {self.sign_in_path, self.callback_path, self.sign_out.path}
        require(len(paths) == 3, "sign_in_path, callback_path and the path of sign_out must differ")
        # Each application drops what is left of its own sign-ins: no name may look like another one's of these.
        named = self.cookie_name is None or (
            isinstance(self.cookie_name, str)
            and self.cookie_name.replace("-", "").replace("_", "").isalnum()
            and self.cookie_name.isascii()
            and len(self.cookie_name) <= 40
            and not self.cookie_name.startswith((SIGN_IN, "__"))
        )
        require(
            named,
            "cookie_name must be letters, digits, hyphens and underscores, 40 at most, and begin neither with "
            f'"{SIGN_IN}" nor with "__", since __Host- comes before it by itself: {self.cookie_name!r}',
        )
        require_number("flow_life", self.flow_life, low=60.0, high=3600.0)
        # A cookie each, of nearly 4 KB: servers take some 16 KB of headers in all.
        require_whole("flows_per_browser", self.flows_per_browser, low=1, high=8)
        for name in ("silent_first", "incremental_consent", "guests"):
            require(isinstance(getattr(self, name), bool), f"{name} must be True or False")
        require(self.codes is None or isinstance(self.codes, OneTimeCodes), "codes must be OneTimeCodes(...)")
        if self.render is not None:
            require_function("render", self.render, of="a Page")
