"""Send a token with each request of httpx or httpx2, and another one where the API wants that (G17, G22)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any, ClassVar

import httpx

from .._engine.steps import Steps, run, run_async
from .._policy.checks import require, require_number
from .._policy.endpoint import origin_from
from .._policy.subject import SubjectOf
from ..clock import Clock, SystemClock
from .deadlines import shared
from .errors import TokenUnavailable
from .origins import Origins
from .refusals import BearerRules
from .signed import SIGNED, Signed
from .source import TokenSource

__all__ = ["BearerAuth", "BearerFlow", "Signer"]

_NEVER = float("inf")
_SYSTEM = SystemClock()


class Signer:
    """What signs the requests of each library: with whose tokens, and where they may go; see `BearerAuth`."""

    _unavailable: ClassVar[type[TokenUnavailable]] = TokenUnavailable

    def __init__(
        self,
        credential: Any,
        *scopes: str,
        origins: str | Iterable[str] | None = None,
        tenant_id: str | None = None,
        cae: bool = True,
        subject: SubjectOf | None = None,
        allow_http_loopback: bool = False,
        clock: Clock = _SYSTEM,
    ) -> None:
        super().__init__()
        require(isinstance(cae, bool), f"cae must be True or False, not {cae!r}")
        require(
            tenant_id is None or (isinstance(tenant_id, str) and bool(tenant_id)),
            f"tenant_id must be a tenant's GUID or domain, not {tenant_id!r}",
        )
        require(
            isinstance(allow_http_loopback, bool),
            f"allow_http_loopback must be True or False, not {allow_http_loopback!r}",
        )
        source = TokenSource(credential, scopes, cae=cae, tenant_id=tenant_id, unavailable=self._unavailable)
        self._origins = Origins(origins, allow_http_loopback=allow_http_loopback)
        self._rules = BearerRules(source, clock=clock, subject=subject)
        self._clock = clock

    def _signed_at(self, scheme: str, host: str, port: int | None) -> str | None:
        """Return the origin of a request that gets a token; None for one that goes without."""
        return origin_from(scheme, host, port) if self._origins.allow(scheme, host, port) else None


class BearerFlow(Signer):
    """What the classes for httpx and for httpx2 share; see `BearerAuth`."""

    #: httpx, or its fork.
    _library: ClassVar[Any] = httpx
    #: Whether the transport below asks a fallback where there is no token.
    hands_on: bool = False

    def __init__(
        self,
        credential: Any,
        *scopes: str,
        origins: str | Iterable[str] | None = None,
        tenant_id: str | None = None,
        cae: bool = True,
        deadline: float | None = None,
        subject: SubjectOf | None = None,
        allow_http_loopback: bool = False,
        clock: Clock = _SYSTEM,
    ) -> None:
        if deadline is not None:
            require_number("deadline", deadline, low=0.01, high=3600.0)
        self._deadline = _NEVER if deadline is None else deadline
        super().__init__(
            credential,
            *scopes,
            origins=origins,
            tenant_id=tenant_id,
            cae=cae,
            subject=subject,
            allow_http_loopback=allow_http_loopback,
            clock=clock,
        )

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Take a request through, blocking while a token is fetched."""
        signed = run(self._sign(request))
        response = yield request
        while signed is not None and not signed.below and run(signed.again(request, response)):
            response = yield request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Take a request through in a task."""
        signed = await run_async(self._sign(request))
        response = yield request
        while signed is not None and not signed.below and await run_async(signed.again(request, response)):
            response = yield request

    def _sign(self, request: Any) -> Steps[Signed | None]:
        """Get a token for a request, and put it in; return what to do with a 401, None where it goes without one."""
        url = request.url
        request.extensions.pop(SIGNED, None)  # of another sending of it
        origin = self._signed_at(url.scheme, url.raw_host.decode("ascii"), url.port)
        if origin is None:
            return None
        deadline = shared(request.extensions, self._deadline, self._clock.monotonic)
        try:
            call = yield from self._rules.begin(origin, deadline.left)
        except TokenUnavailable as error:
            error.request = request
            if not self.hands_on:
                raise
            request.extensions[SIGNED] = error
            return None
        request.extensions[SIGNED] = signed = Signed(call, self._origins, self._library)
        signed.put_in(request)
        return signed


class BearerAuth(BearerFlow, httpx.Auth):
    """Send a token with each request of an httpx client, sync or async (G17, G22).

    Args:
        credential: Anything with azure-core's `get_token` or `get_token_info`, such as `ResilientCredential`, or a
            function; see `TokenSource`. An async one in an `httpx.AsyncClient` only. A credential that offers
            `invalidate(token)` has refused tokens replaced; see `ForgettingCredential`.
        scopes: What the token is for; none where the credential is a function.
        origins: Where the token may go, such as `https://api.example`. Requests to other origins go without it. When
            not given, the origin of the first request is the one.
        tenant_id: Another tenant than the credential's own.
        cae: Ask for tokens that can be revoked early: claims challenges are handled here.
        deadline: Seconds that the whole call may take, with its waits for tokens; None for no bound of its own.
        subject: For a function that answers for the current user, and gives a new token each time: a function that
            returns the user's id, by which refusals are remembered. The token itself is asked for at each request, in
            the caller's context, and never held here.
        allow_http_loopback: Let the token go to this machine over http, for tests.
        clock: Where the time comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong; or, at a request, its URL is http.
    """
