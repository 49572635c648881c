"""Several verifiers as one: whose token it is decides which one verifies it, before any key is asked for.

token ──▶ seen before? ──▶ strict text ─▶ those that trust its `iss` ─▶ the first whose rules it keeps, alone
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from .._engine.steps import Step
from .._policy.checks import require
from .._process import observing
from ..errors import ProviderUnavailable
from .asynchronous import AsyncClaimsVerifier, Awaiting
from .claims import Claims
from .errors import InvalidToken
from .jose.compact import Text
from .rules.acceptance import Accepted
from .rules.asked import Expected
from .verification import Verification, Verifying
from .verifier import Blocking, ClaimsVerifier, Face

__all__ = ["AnyOf", "AsyncAnyOf", "Several"]

#: Refusals that say no more than that another verifier's tokens are meant.
_OF_OTHERS = ("issuer", "policy", "tenant", "audience")


class Several:
    """Verify each token by one of several owners' settings."""

    def __init__(self, cores: tuple[Verification, ...]) -> None:
        self.cores = cores

    def seen(self, token: str) -> Claims | None:
        """Return the claims of a token that one of them verified before."""
        for core in self.cores:
            claims = core.seen(token)
            if claims is not None:
                return claims
        return None

    def verifying(self, token: str, asked: Expected) -> Verifying:
        """Verify a token by the one verifier whose it is, step by step.

        Raises:
            InvalidToken: It is nobody's, or that one refuses it.
            VerificationUnavailable: That one can't verify it now.
        """
        try:
            core, text, accepted = self._whose(token)
        except InvalidToken as error:
            if observing.observer is not None:
                observing.observer.begin("verification", issuer="").end(error=error)
            raise
        return (yield from core.verifying(token, asked, text, accepted))

    def _whose(self, token: str) -> tuple[Verification, Text, Accepted]:
        text = self.cores[0].read(token)
        trusting = [core for core in self.cores if core.trusts(text.raw.get("iss"))]
        if not trusting:
            raise InvalidToken("issuer", "the token comes from an issuer that isn't accepted here")
        refusals: list[InvalidToken] = []
        for core in trusting:
            try:
                return core, text, core.judged(text)
            except InvalidToken as error:
                refusals.append(error)
        # What one of them says about a token of its own tells more than that it is another one's.
        raise next((error for error in refusals if error.code not in _OF_OTHERS), refusals[-1])

    def warming(self) -> Generator[Step, Any, None]:
        """Get every issuer's keys; one that is unavailable keeps no other from being warmed."""
        failure: ProviderUnavailable | None = None
        for core in self.cores:
            try:
                yield from core.warming()
            except ProviderUnavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Close all of them."""
        for core in self.cores:
            core.close()

    def __repr__(self) -> str:
        return ", ".join(f"({core!r})" for core in self.cores)


class _Made(Face):
    """How both faces are made of verifiers."""

    def _take(self, verifiers: tuple[Any, ...], kind: type) -> None:
        name = type(self).__name__
        require(len(verifiers) > 0, f"{name} needs verifiers: {name}(first, second)")
        for verifier in verifiers:
            require(
                isinstance(verifier, kind),
                f"{name} takes {kind.__name__}s one by one, not {type(verifier).__name__}",
            )
        cores = tuple(verifier._core for verifier in verifiers)
        require(
            len({core.rules.kind for core in cores}) == 1,
            f"{name} takes verifiers for access tokens, or for ID tokens, and not both: what a call asks differs",
        )
        self._core = Several(cores)


class AnyOf(_Made, Blocking):
    """Verify each token by one of several verifiers: Entra's and B2C's, two domains, audiences of their own.

    A token's `iss` chooses among them, and their rules where several trust that issuer, all before any key is asked
    for. It is then that verifier's alone: no other one is asked whether it would be less strict.

    Args:
        verifiers: Each a `ClaimsVerifier`. They are closed together.

    Raises:
        ConfigurationError: There is none, or one is something else.
    """

    def __init__(self, *verifiers: ClaimsVerifier) -> None:
        self._take(verifiers, ClaimsVerifier)


class AsyncAnyOf(_Made, Awaiting):
    """Verify each token by one of several of asyncio's verifiers, as `AnyOf` does, to be awaited."""

    def __init__(self, *verifiers: AsyncClaimsVerifier) -> None:
        self._take(verifiers, AsyncClaimsVerifier)
