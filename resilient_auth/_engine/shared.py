"""What the engine asks of those beside it: other processes, and this one in an earlier life.

`Shared` is what all applications with the same settings share, `SharedTokens` what one application does. `_fleet`
implements both over a store; `ALONE` is what there is without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .._policy.endpoint import Endpoint, WireIdentity
from .._policy.failure import Purpose
from .._policy.levels import ProviderRequest
from ..token import Token, TokenRequest
from .single_flight import Exchange, Outcome

__all__ = ["ALONE", "LOOK_AGAIN", "Alone", "Shared", "SharedEntry", "SharedTokens"]

#: Seconds after which it is looked again whether others have a token that the provider may not be asked for.
LOOK_AGAIN: Final = 1.0


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class SharedEntry:
    """The part of a cache entry that those beside this process look at, and note what they know in."""

    request: TokenRequest
    authorities: tuple[Endpoint, ...]
    #: What the authorities are asked for; each purpose has a breaker of its own.
    purpose: Purpose
    #: What is asked of each authority that can give this token.
    ways: tuple[ProviderRequest, ...] = field(init=False)
    token: Token | None = None
    #: Counts what was forgotten, so that an exchange begun before doesn't bring it back.
    generation: int = 0
    #: The fingerprint of a token that an API has refused, and that must not come back from a cache or a store.
    refused: str | None = None
    #: Finds the token in MSAL's cache, into which the store's entries are put; None where it isn't kept there.
    read: Callable[[], Token | None] | None = None
    #: Monotonic time at which it was looked last what others have.
    looked_at: float = -1e9
    #: The names of what others knew against the provider when the exchange under way began.
    hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.ways = tuple([ProviderRequest.of(self.request, each, self.purpose) for each in self.authorities])

    def ask_of(self, authorities: tuple[Endpoint, ...]) -> None:
        """Say which endpoints can give this token, in order of preference."""
        if authorities != self.authorities:
            self.authorities = authorities
            self.__post_init__()

    def looked_lately(self, now: float) -> bool:
        """Return whether it was looked a moment ago what others have."""
        return 0 <= now - self.looked_at <= LOOK_AGAIN  # a time to come: the clock was set back


class Shared(Protocol):
    """What an engine asks of those beside it. Calls may block for as long as a store allows, on a worker."""

    def document(self, asked: str, wire: WireIdentity) -> Mapping[str, Any] | None:
        """Return a discovery document or a key set that others have obtained; None where there is none.

        Args:
            asked: What it answers.
            wire: Over which this process would ask for it: there is none but what came over a wire like it, verified.

        Raises:
            StoreUnavailable: That can't be told.
        """

    def publish(self, asked: str, wire: WireIdentity, body: Mapping[str, Any]) -> None:
        """Let others have a document that came over a verified wire.

        Raises:
            StoreUnavailable: They can't be told now; they are later.
        """

    def throttled(self, asked: ProviderRequest, seconds: float, detail: str, *, whole: bool) -> None:
        """Tell others that a provider has throttled a request.

        Args:
            asked: The request.
            seconds: For how long.
            detail: What it said.
            whole: Whether that holds for all of the application's requests there.
        """

    def after_fork(self) -> None:
        """Take locks of one's own in a forked child."""


class SharedTokens(Protocol):
    """What the engine asks of those beside it for the tokens of one application."""

    #: The workers' lane on which it is looked what others have, apart from those of providers that may hang.
    lane: str

    def look(self, entry: SharedEntry) -> Outcome | None:
        """Return what others know of a token, and of those who could give it.

        Returns:
            A token that they have obtained, where it is better than what is held. Else why no exchange should begin
            now. Else None.
        """

    def exchange(self, entry: SharedEntry, exchange: Exchange, *, reuse: bool) -> Exchange:
        """Make an exchange for all out of one of this process's: asked alone, and published.

        Args:
            entry: Whose token.
            exchange: How to ask the provider.
            reuse: Whether a token that others obtain meanwhile will do: not after a claims challenge.
        """


class Alone:
    """Nobody is beside this process."""

    def document(self, asked: str, wire: WireIdentity) -> None:
        """Return nothing: there is nobody to have it from."""

    def publish(self, asked: str, wire: WireIdentity, body: Mapping[str, Any]) -> None:
        """Tell nobody."""

    def throttled(self, asked: ProviderRequest, seconds: float, detail: str, *, whole: bool) -> None:
        """Tell nobody."""

    def after_fork(self) -> None:
        """Do nothing: there is no lock."""


ALONE: Final = Alone()
