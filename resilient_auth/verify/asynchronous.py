"""The claims verifier, as tasks have it: the loop is never blocked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

from .._engine.steps import run_async
from .._engine.threads import on_a_thread
from .bound.presented import Presented
from .claims import Claims
from .rules.asked import NOTHING, Expected, check_asked
from .verifier import Core, Verifier

__all__ = ["AsyncClaimsVerifier", "Awaiting"]


class Awaiting:
    """Verify tokens, as tasks do it; made by `AsyncClaimsVerifier` and `AsyncAnyOf`."""

    _core: Core

    async def verify(
        self,
        token: str,
        *,
        scopes: Collection[str] = (),
        roles: Collection[str] = (),
        any_scopes: Collection[str] = (),
        any_roles: Collection[str] = (),
        app_only: bool | None = None,
        nonce: str | None = None,
        grace: bool = False,
        presented: Presented | None = None,
    ) -> Claims:
        """Verify a token; arguments, result and errors are those of the blocking one."""
        claims = self._core.seen(token) if presented is None else None
        if claims is None:
            asked = Expected(scopes, roles, any_scopes, any_roles, app_only, nonce, grace, presented)
            return await run_async(self._core.verifying(token, asked))
        if (
            scopes is not NOTHING
            or roles is not NOTHING
            or any_scopes is not NOTHING
            or any_roles is not NOTHING
            or app_only is not None
            or nonce is not None
        ):
            check_asked(claims, scopes, roles, app_only, nonce, any_scopes, any_roles)
        return claims

    async def warm_up(self) -> None:
        """Fetch the keys now, so that the first token needn't wait for them; as the blocking one does."""
        await run_async(self._core.warming())

    async def close(self) -> None:
        """Forget the tokens that were verified, and end refreshes unless another verifier shares them."""
        await on_a_thread(self._core.close)

    async def aclose(self) -> None:
        """Do what `close` does."""
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncClaimsVerifier(Awaiting, Verifier):
    """Verify tokens that arrive, as `resilient_auth.ClaimsVerifier` does, to be awaited; made with the same arguments.

    It may be shared by tasks, threads and event loops.
    """
