"""Send a token with each request, and get another one where the API wants that (G17, G22).

    ask ──▶ send ──┬─ anything but a 401 of an origin that got the token ──────────────▶ the answer
                   ├─ claims challenge ─▶ forget, ask with the claims ─┬─ another one ─▶ send once more ─▶ the answer
                   ├─ plain 401 ────────▶ forget, ask ─────────────────┘   └─ the same ──────────────────▶ the answer
                   └─ malformed challenge, a body that is gone, or nothing new to be had ▶ the answer

One generator decides; the drivers of httpx, httpx2 and requests send.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import cachetools
import httpx

from .._engine.acquire import wait_at_most
from .._policy.challenge import IN_VAIN_FOR, same_claims
from .._policy.checks import require_number
from .._policy.subject import Subject, SubjectOf, check_subject, subject_now
from .._process import forks
from ..clock import Clock, SystemClock
from ..events import ApiRefusedToken, emit
from ..token import fingerprint
from .challenge import Remedy, read
from .deadlines import shared
from .errors import TokenUnavailable
from .origins import Origins, origin_of
from .replay import replayable
from .source import TokenSource

__all__ = ["BearerAuth", "BearerFlow", "BearerRules", "GetToken", "Send"]

_MOST_REMEMBERED = 1024
_NEVER = float("inf")
_SYSTEM = SystemClock()


class GetToken(NamedTuple):
    """Ask the credential, and send its token back into the generator."""

    claims: str | None
    #: The token that was refused, to be forgotten first where `forget` is set.
    refused: str | None
    forget: bool


class Send(NamedTuple):
    """Send the request with this token; send back the challenges of a 401 to it, or None for any other answer."""

    token: str


Steps = Generator[GetToken | Send, Any, None]


class BearerRules:
    """Decide what to do about each answer, and remember which tokens were refused.

    What is remembered belongs to a token, or to the subject where the owner tells one: nobody's refusals are another's.
    """

    def __init__(self, *, takes_claims: bool, clock: Clock = _SYSTEM, subject: SubjectOf | None = None) -> None:
        check_subject(subject)
        self._takes_claims = takes_claims
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

    def steps(self, origin: str, body_is_there: Callable[[], bool]) -> Steps:
        """Take one request through; begun on the caller's thread or in their task."""
        forks.notice()
        subject = None if self._subject is None else subject_now(self._subject)
        token = yield GetToken(None, None, False)
        challenges: Sequence[str] | None = yield Send(token)
        if challenges is None:
            return
        wanted = read(challenges)
        claims = wanted if isinstance(wanted, str) else None
        emit(ApiRefusedToken(at=self._clock.wall(), target=origin, claims=claims is not None))
        if wanted is Remedy.UNCLEAR or not body_is_there() or (claims is not None and not self._takes_claims):
            return
        asked = None if claims is None else same_claims(claims)
        with self._lock:
            if self._clock.monotonic() < self._in_vain.get((subject or fingerprint(token), origin, asked), -_NEVER):
                return
            # Many requests were on their way with this token. The first to be refused has it replaced, the others
            # find its successor.
            key = (fingerprint(token), asked)
            met = key in self._met
        successor = yield GetToken(None if met else claims, token, not met)
        with self._lock:
            self._met[key] = True
        if successor == token:
            return
        challenges = yield Send(successor)
        if challenges is not None and (claims is None or _asks_for(challenges) == asked):
            self._give_up(subject, successor, origin, asked)

    def _give_up(self, subject: Subject | None, token: str, origin: str, asked: str | None) -> None:
        with self._lock:
            self._in_vain[subject or fingerprint(token), origin, asked] = self._clock.monotonic() + IN_VAIN_FOR


#: The subject, or a token's fingerprint; the API's origin; the claims that it asked for, None for a plain 401.
_Refusal = tuple[Subject | str, str, str | None]


def _asks_for(challenges: Sequence[str]) -> str | None:
    wanted = read(challenges)
    return same_claims(wanted) if isinstance(wanted, str) else None


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
        self._source = TokenSource(credential, scopes, cae=cae, tenant_id=tenant_id, unavailable=self._unavailable)
        self._origins = Origins(origins, allow_http_loopback=allow_http_loopback)
        self._rules = BearerRules(takes_claims=self._source.takes_claims, clock=clock, subject=subject)
        self._deadline = _NEVER if deadline is None else deadline
        self._clock = clock

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Take a request through, blocking while a token is fetched."""
        flow = _Flow(self, request)
        if flow.steps is None:
            yield request
            return
        step = next(flow.steps)
        while True:
            if isinstance(step, GetToken):
                if flow.response is not None:
                    # Read, it frees its connection while the provider is asked.
                    flow.response.read()
                with flow.patience():
                    if step.forget and step.refused is not None:
                        self._source.forget(step.refused)
                    told: Any = self._source.token(step.claims)
            else:
                flow.sign(step.token)
                flow.response = yield request
                told = flow.refusal(step.token)
            try:
                step = flow.steps.send(told)
            except StopIteration:
                return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Take a request through in a task."""
        flow = _Flow(self, request)
        if flow.steps is None:
            yield request
            return
        step = next(flow.steps)
        while True:
            if isinstance(step, GetToken):
                if flow.response is not None:
                    await flow.response.aread()
                with flow.patience():
                    told: Any = await self._told_in_time(step, flow.deadline.left())
            else:
                flow.sign(step.token)
                flow.response = yield request
                told = flow.refusal(step.token)
            try:
                step = flow.steps.send(told)
            except StopIteration:
                return

    async def _told_in_time(self, step: GetToken, left: float) -> str:
        """Ask the credential, which may be anybody's and hang."""
        try:
            async with asyncio.timeout(None if left == _NEVER else left) as limit:
                if step.forget and step.refused is not None:
                    await self._source.forget_async(step.refused)
                return await self._source.token_async(step.claims)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._unavailable("the credential gave no token before the time for the call was over") from error


class _Flow:
    """One request on its way."""

    def __init__(self, auth: BearerFlow, request: Any) -> None:
        self.request = request
        self.response: Any = None
        self.steps: Steps | None = None
        url = request.url
        self._allow = auth._origins.allow
        host = url.raw_host.decode("ascii")
        if self._allow(url.scheme, host, url.port):
            self.deadline = shared(request.extensions, auth._deadline, auth._clock.monotonic)
            self.steps = auth._rules.steps(
                origin_of(url.scheme, host, url.port), lambda: replayable(request.stream, auth._library)
            )

    def sign(self, token: str) -> None:
        self.request.headers["Authorization"] = f"Bearer {token}"

    def patience(self) -> AbstractContextManager[None]:
        """Bound the wait for a token by what is left of the call's time."""
        left = self.deadline.left()
        return nullcontext() if left == _NEVER else wait_at_most(min(max(left, 0.001), 3600.0))

    def refusal(self, token: str) -> list[str] | None:
        """Return a 401's challenges, if it answers our token: a redirect may have led elsewhere, without it."""
        response = self.response
        if response.status_code != 401:
            return None
        asked = response.request if response._request is not None else self.request
        url = asked.url
        if asked.headers.get("Authorization") != f"Bearer {token}":
            return None
        if not self._allow(url.scheme, url.raw_host.decode("ascii"), url.port):
            return None
        challenges: list[str] = response.headers.get_list("WWW-Authenticate")
        return challenges


class BearerAuth(BearerFlow, httpx.Auth):
    """Send a token with each request of an httpx client, sync or async (G17, G22).

    Args:
        credential: Anything with azure-core's `get_token` or `get_token_info`, such as `ResilientCredential`, or a
            function; see `TokenSource`. asyncio's kind in an `httpx.AsyncClient` alone. A credential that offers
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
