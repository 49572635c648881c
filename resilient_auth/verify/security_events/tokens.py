"""Verify tokens that tell of something by what a claims verifier trusts: its issuers, audience, keys and deny-list."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias

from ..._engine.steps import Step
from ..._policy.checks import require
from ..._process import forks
from ...errors import Closed
from ..asynchronous import Awaiting
from ..errors import InvalidToken
from ..jose.compact import check_header, strict_json, take_apart
from ..keys.proving import proving
from ..several import Several
from ..verification import Verification
from ..verifier import Blocking
from .rules import EventKind, EventToken, check_event, check_type

__all__ = ["AnyVerifier", "EventTokens", "Telling"]

AnyVerifier: TypeAlias = Blocking | Awaiting

#: Yields what takes time, the wait for a key; ends with what the token tells.
Telling = Generator[Step, Any, EventToken]


class EventTokens:
    """Verify tokens of one kind.

    Nothing is remembered of them: whoever acts by one sees to it that it counts once.

    Args:
        verifier: Whose trust is meant: a `ClaimsVerifier`, an `AnyOf`, or one of asyncio's.
        kind: Which tokens.

    Raises:
        ConfigurationError: It is no verifier.
    """

    def __init__(self, verifier: AnyVerifier, kind: EventKind) -> None:
        require(
            isinstance(verifier, (Blocking, Awaiting)),
            f"verifier must be a ClaimsVerifier or an AnyOf, not {type(verifier).__name__}",
        )
        core: object = verifier._core
        self._cores = core.cores if isinstance(core, Several) else (core,) if isinstance(core, Verification) else ()
        self._kind = kind

    @property
    def audiences(self) -> tuple[str, ...]:
        """Return for whom they are."""
        return tuple(sorted({one for core in self._cores for one in core.rules.audiences}))

    def verifying(self, token: str) -> Telling:
        """Verify one, step by step; the drivers do the waiting.

        Raises:
            InvalidToken: It isn't believed.
            VerificationUnavailable: Its key is unavailable.
        """
        forks.notice()
        kind = self._kind
        compact = take_apart(token)
        algorithm, kid = check_header(compact.header, kind.types | {"jwt"})
        check_type(compact.header, kind)
        claims = strict_json(compact.payload, "payload")
        core = self._whose(claims)
        if core._closed:
            raise Closed("this verifier was closed: make a new one, or close it later")
        if algorithm not in core._algorithms:
            raise InvalidToken("algorithm", "the token's algorithm isn't one that is accepted")
        trust, told = check_event(claims, core._trusts, core.rules, kind, core.engine.clock.wall())
        if kid is None:
            raise InvalidToken("unknown_key", "the token names no key")
        yield from proving(
            core._sources[trust],
            issuer=told.issuer,
            tenant=told.tenant,
            algorithm=algorithm,
            kid=kid,
            compact=compact,
        )
        yield from core._deny_file.reading()
        if core._deny.current.match(kid, (), None, ()):
            raise InvalidToken("denied", "the token's key is on the deny-list")
        return told

    def _whose(self, claims: dict[str, Any]) -> Verification:
        """Return the verification that trusts a token's issuer; of several, the one that it is for."""
        trusting = [core for core in self._cores if core.trusts(claims.get("iss"))]
        if not trusting:
            raise InvalidToken("issuer", "the token comes from an issuer that isn't accepted here")
        audience = claims.get("aud")
        named = {audience} if isinstance(audience, str) else set()
        if isinstance(audience, list):
            named = {one for one in audience if isinstance(one, str)}
        return next((core for core in trusting if not core.rules.audiences.isdisjoint(named)), trusting[0])
