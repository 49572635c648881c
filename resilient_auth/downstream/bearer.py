"""Send a token with each request, and get another one where the API wants that (G17, G22).

    ask ──▶ send ──┬─ anything but a 401 of an origin that got the token ──────────────▶ the answer
                   ├─ claims challenge ─▶ forget, ask with the claims ─┬─ another one ─▶ send once more ─▶ the answer
                   ├─ plain 401 ────────▶ forget, ask ─────────────────┘   └─ the same ──────────────────▶ the answer
                   └─ malformed challenge, a body that is gone, or nothing new to be had ▶ the answer

`BearerCall` decides; the flows of httpx, httpx2 and requests send.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple

import cachetools
import httpx

from .._engine.acquire import wait_at_most
from .._engine.steps import Step, Steps, run, run_async
from .._policy.challenge import IN_VAIN_FOR, same_claims
from .._policy.checks import require_number
from .._policy.endpoint import origin_from
from .._policy.subject import Subject, SubjectOf, check_subject, subject_now
from .._process import forks
from ..clock import Clock, SystemClock
from ..events import ApiRefusedToken, emit
from ..token import fingerprint
from .challenge import Remedy
from .challenge import read as parse
from .deadlines import shared
from .errors import TokenUnavailable
from .origins import Origins
from .replay import replayable
from .source import TokenSource

__all__ = ["BearerAuth", "BearerCall", "BearerFlow", "BearerRules"]

_MOST_REMEMBERED = 1024
_NEVER = float("inf")
_SYSTEM = SystemClock()


class _GetToken(NamedTuple):
    """The step that asks the credential, which may be anybody's and hang."""

    source: TokenSource
    claims: str | None
    #: The token that was refused, where it is to be forgotten first.
    refused: str | None
    #: Seconds that this may take.
    seconds: float

    def run(self) -> str:
        """Ask on this thread."""
        with self._patience():
            if self.refused is not None:
                self.source.forget(self.refused)
            return self.source.token(self.claims)

    async def run_async(self) -> str:
        """Ask in this task."""
        try:
            with self._patience():
                async with asyncio.timeout(None if self.seconds == _NEVER else self.seconds) as limit:
                    if self.refused is not None:
                        await self.source.forget_async(self.refused)
                    return await self.source.token_async(self.claims)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self.source.too_late() from error

    def _patience(self) -> AbstractContextManager[None]:
        return nullcontext() if self.seconds == _NEVER else wait_at_most(min(max(self.seconds, 0.001), 3600.0))


class BearerRules:
    """Ask for tokens, and remember which ones were refused.

    What is remembered belongs to a token, or to the subject where the owner tells one: nobody's refusals are another's.
    """

    def __init__(self, source: TokenSource, *, clock: Clock = _SYSTEM, subject: SubjectOf | None = None) -> None:
        check_subject(subject)
        self._source = source
        self._clock = clock
        self._subject = subject
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Make it usable in a forked child, whose parent may have been in the middle of changing it."""
        self._lock = threading.Lock()
        #: What was asked for in place of which token.
        self._met: cachetools.LRUCache[tuple[str, str | None], bool] = cachetools.LRUCache(_MOST_REMEMBERED)
        #: Until when nothing is asked for any more, since a successor was refused in the same way.
        self._in_vain: cachetools.LRUCache[_Refusal, float] = cachetools.LRUCache(_MOST_REMEMBERED)

    def begin(self, origin: str, left: Callable[[], float] = lambda: _NEVER) -> Steps[BearerCall]:
        """Get a token for one request; begun on the caller's thread or in their task.

        Args:
            origin: The API's.
            left: Returns how many seconds the call may still take.
        """
        forks.notice()
        subject = None if self._subject is None else subject_now(self._subject)
        token = yield _GetToken(self._source, None, None, left())
        return BearerCall(self, origin, left, subject, token)


#: The subject, or a token's fingerprint; the API's origin; the claims that it asked for, None for a plain 401.
_Refusal = tuple[Subject | str, str, str | None]


class BearerCall:
    """One request on its way: the token that it is sent with, and what its answers mean."""

    __slots__ = ("_asked", "_claims", "_decided", "_left", "_origin", "_rules", "_subject", "token")

    def __init__(
        self, rules: BearerRules, origin: str, left: Callable[[], float], subject: Subject | None, token: str
    ) -> None:
        self._rules = rules
        self._origin = origin
        self._left = left
        self._subject = subject
        self._decided = False
        #: To be sent.
        self.token = token

    def go_on(self, challenges: Sequence[str], *, replayable: Callable[[], bool], read: Step) -> Steps[bool]:
        """Get another token where the answer wants that; return whether to send the request again, with it.

        Args:
            challenges: Those of a 401 to the token.
            replayable: Returns whether the request's body is there to be sent again.
            read: Reads the answer, which frees its connection while the provider is asked.
        """
        rules, source, token = self._rules, self._rules._source, self.token
        if self._decided:
            return False
        self._decided = True
        wanted = parse(challenges)
        claims = self._claims = wanted if isinstance(wanted, str) else None
        emit(ApiRefusedToken(at=rules._clock.wall(), target=self._origin, claims=claims is not None))
        if wanted is Remedy.UNCLEAR or not replayable() or (claims is not None and not source.takes_claims):
            return False
        asked = self._asked = None if claims is None else same_claims(claims)
        with rules._lock:
            if rules._clock.monotonic() < rules._in_vain.get(self._refusal(), -_NEVER):
                return False
            # Many requests were on their way with this token. The first to be refused has it replaced, the others
            # find its successor.
            key = (fingerprint(token), asked)
            met = key in rules._met
        yield read
        self.token = yield _GetToken(source, None if met else claims, None if met else token, self._left())
        with rules._lock:
            rules._met[key] = True
        return self.token != token

    def end(self, challenges: Sequence[str] | None) -> None:
        """Take note of the answer to the second token: a 401's challenges, or None."""
        if challenges is not None and (self._claims is None or _asks_for(challenges) == self._asked):
            rules = self._rules
            with rules._lock:
                rules._in_vain[self._refusal()] = rules._clock.monotonic() + IN_VAIN_FOR

    def _refusal(self) -> _Refusal:
        return self._subject or fingerprint(self.token), self._origin, self._asked


def _asks_for(challenges: Sequence[str]) -> str | None:
    wanted = parse(challenges)
    return same_claims(wanted) if isinstance(wanted, str) else None


class _Read(NamedTuple):
    """The step that reads an answer."""

    response: Any

    def run(self) -> Any:
        """Read it on this thread."""
        return self.response.read()

    def run_async(self) -> Awaitable[Any]:
        """Read it in this task."""
        reading: Awaitable[Any] = self.response.aread()
        return reading


class BearerFlow:
    """What the classes for httpx and for httpx2 share; see `BearerAuth`."""

    #: httpx, or its fork.
    _library: ClassVar[Any] = httpx
    _unavailable: ClassVar[type[TokenUnavailable]] = TokenUnavailable

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
        source = TokenSource(credential, scopes, cae=cae, tenant_id=tenant_id, unavailable=self._unavailable)
        self._origins = Origins(origins, allow_http_loopback=allow_http_loopback)
        self._rules = BearerRules(source, clock=clock, subject=subject)
        self._deadline = _NEVER if deadline is None else deadline
        self._clock = clock

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Take a request through, blocking while a token is fetched."""
        begun = self._begin(request)
        if begun is None:
            yield request
            return
        call = run(begun)
        response = yield _signed(request, call.token)
        challenges = self._refusal(call.token, request, response)
        if challenges is not None and run(self._go_on(call, challenges, request, response)):
            call.end(self._refusal(call.token, request, (yield _signed(request, call.token))))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Take a request through in a task."""
        begun = self._begin(request)
        if begun is None:
            yield request
            return
        call = await run_async(begun)
        response = yield _signed(request, call.token)
        challenges = self._refusal(call.token, request, response)
        if challenges is not None and await run_async(self._go_on(call, challenges, request, response)):
            call.end(self._refusal(call.token, request, (yield _signed(request, call.token))))

    def _begin(self, request: Any) -> Steps[BearerCall] | None:
        """Return how to begin a call; None where the request goes without a token."""
        url = request.url
        host = url.raw_host.decode("ascii")
        if not self._origins.allow(url.scheme, host, url.port):
            return None
        deadline = shared(request.extensions, self._deadline, self._clock.monotonic)
        return self._rules.begin(origin_from(url.scheme, host, url.port), deadline.left)

    def _go_on(self, call: BearerCall, challenges: list[str], request: Any, response: Any) -> Steps[bool]:
        there = partial(replayable, request.stream, self._library)
        return call.go_on(challenges, replayable=there, read=_Read(response))

    def _refusal(self, token: str, request: Any, response: Any) -> list[str] | None:
        """Return a 401's challenges, if it answers our token: a redirect may have led elsewhere, without it."""
        if response.status_code != 401:
            return None
        asked = response.request if response._request is not None else request
        url = asked.url
        if asked.headers.get("Authorization") != f"Bearer {token}":
            return None
        if not self._origins.allow(url.scheme, url.raw_host.decode("ascii"), url.port):
            return None
        challenges: list[str] = response.headers.get_list("WWW-Authenticate")
        return challenges


def _signed(request: Any, token: str) -> Any:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


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
