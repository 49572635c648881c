"""What an owner may choose about sign-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .._policy.checks import require, require_number, require_whole
from .codes import OneTimeCodes
from .pages import Page
from .sessions.options import SessionOptions

__all__ = ["SignInOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInOptions:
    """Choose how users sign in, and what a visitor may do while nobody can.

    Args:
        sessions: The bounds of sessions.
        sign_in_path: Where users begin to sign in; what else they need is below it.
        callback_path: Where providers send them back to: register it there, behind the application's address.
        flow_life: Seconds that a user may take at the provider's pages.
        flows_per_browser: Sign-ins at the same time in one browser: in several tabs.
        silent_first: Ask the provider without any page first, and with one where that doesn't do (G4).
        incremental_consent: Let `token` ask for scopes beyond the provider's set (G6).
        codes: Let known users sign in by a one-time code while no provider can be reached.
        guests: Let visitors in as guests while no provider can be reached, where a view allows guests.
        render: Writes pages in the owner's words and looks: given a `Page`, returns HTML, or None for ours.
    """

    sessions: SessionOptions = field(default_factory=SessionOptions)
    sign_in_path: str = "/sign-in"
    callback_path: str = "/signed-in"
    flow_life: float = 600.0
    flows_per_browser: int = 5
    silent_first: bool = False
    incremental_consent: bool = False
    codes: OneTimeCodes | None = None
    guests: bool = False
    render: Callable[[Page], str | None] | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.sessions, SessionOptions), f"sessions must be SessionOptions(...): {self.sessions!r}")
        for name in ("sign_in_path", "callback_path"):
            path = getattr(self, name)
            fits = isinstance(path, str) and path.startswith("/") and path.strip("/") != "" and path[-1] != "/"
            require(fits and path.isprintable(), f'{name} must be a path such as "/sign-in", not {path!r}')
        require(self.sign_in_path != self.callback_path, "sign_in_path and callback_path must differ")
        require_number("flow_life", self.flow_life, low=60.0, high=3600.0)
        # A cookie each, of nearly 4 KB: servers take some 16 KB of headers in all.
        require_whole("flows_per_browser", self.flows_per_browser, low=1, high=8)
        for name in ("silent_first", "incremental_consent", "guests"):
            require(isinstance(getattr(self, name), bool), f"{name} must be True or False")
        require(self.codes is None or isinstance(self.codes, OneTimeCodes), "codes must be OneTimeCodes(...)")
        require(self.render is None or callable(self.render), "render must be a function that takes a Page")
