"""An external service that decides on claims: a fraud score, an entitlement, an address that exists.

Is the call needed for the authentication decision at all (G18)? If a claim of the token has the answer, use that (G14):
this is one more thing that can fail. Where it is needed, it goes through the pipeline of `downstream`, and the owner
says what happens when it can't be asked (G11, G19, G20). `decide` decides; these two ask.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, ClassVar, Literal

import httpx

from .._engine.steps import Steps, run, run_async
from .._policy.checks import awaits, require, require_function, require_number, require_whole
from .._process import forks
from ..downstream import TransportOptions, api_client, async_api_client
from ..downstream.given import Verify
from ..downstream.options import chosen
from ..downstream.origins import named_origin
from ..errors import Closed, ConfigurationError
from ..verify.claims import Claims
from .decide import MOST_ANSWER, Rules, ServiceAnswer
from .decision import Decision, Unavailable
from .last_decisions import LastDecisions

__all__ = ["AsyncRemoteClaimsVerifier", "RemoteClaimsVerifier", "WhenUnavailable"]

WhenUnavailable = Literal["deny", "last_decision", "reduced"]

_DECISION_AGE = 900.0
_MOST_DECISIONS = 10_000


def _default_options(deadline: float) -> TransportOptions:
    # A user waits in front of a sign-in page (G18).
    return TransportOptions(
        deadline=deadline,
        attempt_timeout=min(2.0, deadline),
        connect_timeout=min(1.0, deadline),
        first_delay=min(0.1, deadline / 10),
        longest_delay=1.0,
        queue_wait=min(1.0, deadline),
    )


class _Verifier:
    """What the verifiers for threads and for asyncio share; see `RemoteClaimsVerifier`."""

    _make: ClassVar[Callable[..., Any]]
    _awaits: ClassVar[bool]

    def __init__(
        self,
        url: str | httpx.URL,
        *,
        sends: Iterable[str] | None = None,
        request: Callable[[Any], Mapping[str, Any]] | None = None,
        parse: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        credential: Any = None,
        scopes: str | Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        when_unavailable: WhenUnavailable = "deny",
        reduced: Callable[[Any, Unavailable], Any] | None = None,
        decision_age: float | None = None,
        most_decisions: int | None = None,
        deadline: float | None = None,
        options: TransportOptions | None = None,
        verify: Verify = True,
        transport: Any = None,
        allow_http_loopback: bool = False,
    ) -> None:
        self._origin = named_origin("url", url, allow_http_loopback=allow_http_loopback, bare=False)
        require((sends is None) != (request is None), "give either sends=('sub', ...), or request=, a function")
        if request is not None:
            require_function("request", request, of="the claims")
        if parse is not None:
            require_function("parse", parse, of="the service's JSON object")
        require(
            when_unavailable in ("deny", "last_decision", "reduced"),
            f"when_unavailable must be 'deny', 'last_decision' or 'reduced', not {when_unavailable!r}",
        )
        require(
            (when_unavailable == "reduced") == (reduced is not None) and (reduced is None or callable(reduced)),
            "when_unavailable='reduced' and reduced=, a function of the claims and what failed, go together",
        )
        require(
            self._awaits or not awaits(reduced),
            "an async reduced in a sync verifier: use resilient_auth.aio.RemoteClaimsVerifier, or a plain function",
        )
        require(deadline is None or options is None, "deadline is one of the options: give it there")
        keeps = when_unavailable == "last_decision"
        for name, given in (("decision_age", decision_age), ("most_decisions", most_decisions)):
            require(given is None or keeps, f"{name} has no effect without when_unavailable='last_decision'")
        decision_age = _DECISION_AGE if decision_age is None else decision_age
        most_decisions = _MOST_DECISIONS if most_decisions is None else most_decisions
        require_number("decision_age", decision_age, low=1.0, high=24 * 3600.0)
        require_whole("most_decisions", most_decisions, low=1)
        if deadline is None:
            deadline = 5.0
        require_number("deadline", deadline, low=0.05, high=3600.0)
        options = _default_options(deadline) if options is None else chosen(options)
        self._rules = Rules(
            origin=self._origin,
            sends=_names(sends),
            request=request,
            parse=parse,
            reduced=reduced,
            last=LastDecisions(most_decisions, decision_age, options.clock.monotonic) if keeps else None,
            wall=options.clock.wall,
        )
        self._url = httpx.URL(url)
        self._when_unavailable = when_unavailable
        self._about_client: dict[str, Any] = {
            "credential": credential,
            "scopes": scopes,
            "options": options,
            "headers": _checked_headers(headers, has_credential=credential is not None),
            "verify": verify,
            "transport": transport,
            "allow_http_loopback": allow_http_loopback,
            "follow_redirects": False,
        }
        self._closed = False
        self.after_fork()
        forks.renew_in_children(self)
        # What is wrong with the arguments is told here, and not to the first user.
        self._http: Any = self._client()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._origin!r}, when_unavailable={self._when_unavailable!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"a {type(self).__name__} can't be pickled: make one in each process")

    def after_fork(self) -> None:
        """Take a lock of one's own; the transports see to their connections, and the parent's threads aren't here."""
        self._lock = threading.Lock()
        self._under_way = 0

    def _client(self) -> Any:
        # Cookies of one user's answer have no place in the next user's question.
        no_cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=()))
        return type(self)._make(self._url, cookies=no_cookies, **self._about_client)

    def _steps(self, claims: Any, ask: Callable[[bytes], Any]) -> Steps[Decision]:
        forks.notice()
        self._refuse_if_closed()
        return self._rules.steps(claims, ask)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Closed("this verifier was closed: make a new one, or close it later")

    def _sending(self, body: bytes) -> dict[str, Any]:
        return {
            "method": "POST",
            "url": self._url,
            "content": body,
            "headers": {
                "Content-Type": "application/json",
                "Accept": "application/json",
                # A few bytes that unpack to many would be read in full.
                "Accept-Encoding": "identity",
                # Without a key, the pipeline wouldn't repeat a POST that may have arrived; with it, a service that
                # counts its questions counts a repeated one once.
                "Idempotency-Key": str(uuid.uuid4()),
            },
        }


class RemoteClaimsVerifier(_Verifier):
    """Ask an external service about claims, and know what to do when it can't be asked (G11, G19, G20).

    Args:
        url: Where the service takes a POST with a JSON object; https.
        sends: Names of the claims that it is sent. No others are, and the token never is.
        request: In place of `sends`: makes the JSON object to be sent of the claims.
        parse: Makes a JSON object with `allowed` (true or false), `reason` (a line for the user) and `attributes` (an
            object) of the service's own; not needed where it answers with these.
        credential: Gets tokens for the service, as for `BearerAuth`; None where it wants none.
        scopes: What the token is for; none where the credential is a function.
        headers: Further headers, such as an API key.
        when_unavailable: What happens when the service can't be asked: `deny`; `last_decision`, what it said before
            about the same subject (`iss` and `sub`) and the same question, unless it refused that subject since; or
            `reduced`, what the function of that name says.
        reduced: Called with the claims and `Unavailable`; returns a `Decision`, or a mapping like the service's answer.
        decision_age: Seconds for which a last decision may stand in, from 1 to 86,400; 900 when not given.
        most_decisions: Last decisions that are kept, at most, 10,000 when not given; the least recently used go first.
        deadline: Seconds that asking may take, retries and the token included; 5 when not given. A deadline of the
            calls around holds too.
        options: More about the calls, in place of `deadline`; see `TransportOptions`.
        verify: Whom to trust, as in MSAL: False, or the path of a CA bundle; or an SSL context.
        transport: The transport underneath; one of httpx's when not given.
        allow_http_loopback: Let the question go to this machine over http, for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    _make = staticmethod(api_client)
    _awaits = False

    def verify(self, claims: Claims | Mapping[str, Any]) -> Decision:
        """Ask the service about claims that were verified before.

        Args:
            claims: What `ClaimsVerifier.verify` returned, or a mapping with such claims and what else is asked about.

        Returns:
            A decision, in time, whatever the service does. Look at `allowed`; `provenance` tells who decided.

        Raises:
            ConfigurationError: What is to be sent isn't JSON, or what `reduced` returned is no decision.
            Closed: The verifier was closed.
        """
        return run(self._steps(claims, self._ask))

    def close(self) -> None:
        """Close the connections when the calls under way are over; nothing can be asked any more."""
        with self._lock:
            self._closed = True
            idle = not self._under_way
        if idle:
            self._http.close()

    def __enter__(self) -> RemoteClaimsVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, body: bytes) -> ServiceAnswer:
        # A connection that is closed while a thread reads from it leaves that thread with a descriptor that the next
        # connection gets: the last call closes.
        with self._lock:
            self._refuse_if_closed()
            self._under_way += 1
        try:
            return self._send(body)
        finally:
            with self._lock:
                self._under_way -= 1
                last = self._closed and not self._under_way
            if last:
                self._http.close()

    def _send(self, body: bytes) -> ServiceAnswer:
        read = b""
        with self._http.stream(**self._sending(body)) as response:
            if _is_readable(response):
                for part in response.iter_bytes():
                    read += part
                    if len(read) > MOST_ANSWER:
                        break
        return _answer(response, read)


class AsyncRemoteClaimsVerifier(_Verifier):
    """Do for asyncio what `RemoteClaimsVerifier` does for threads; see there for the arguments.

    `reduced` may be a coroutine function; other functions are called in the loop, and must not block it. A credential
    may be async; one that blocks is asked on a thread.
    """

    _make = staticmethod(async_api_client)
    _awaits = True

    async def verify(self, claims: Claims | Mapping[str, Any]) -> Decision:
        """Ask the service about claims that were verified before; as `RemoteClaimsVerifier.verify` does."""
        return await run_async(self._steps(claims, self._ask))

    async def close(self) -> None:
        """Close the connections that belong to this event loop; nothing can be asked any more."""
        self._closed = True
        await self._http.aclose()

    async def __aenter__(self) -> AsyncRemoteClaimsVerifier:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, body: bytes) -> ServiceAnswer:
        read = b""
        async with self._http.stream(**self._sending(body)) as response:
            if _is_readable(response):
                async for part in response.aiter_bytes():
                    read += part
                    if len(read) > MOST_ANSWER:
                        break
        return _answer(response, read)


def _is_readable(response: httpx.Response) -> bool:
    encoding: str = response.headers.get("Content-Encoding", "identity")
    return ServiceAnswer.may_decide(response.status_code) and encoding.strip().lower() == "identity"


def _answer(response: httpx.Response, read: bytes) -> ServiceAnswer:
    whole = _is_readable(response) and len(read) <= MOST_ANSWER
    return ServiceAnswer(response.status_code, response.headers, read if whole else None)


def _names(sends: Iterable[str] | None) -> tuple[str, ...]:
    if sends is None:
        return ()
    names = (sends,) if isinstance(sends, str) else tuple(sends) if isinstance(sends, Iterable) else ()
    require(
        bool(names) and all(isinstance(name, str) and name for name in names),
        f"sends must name the claims that the service is sent, such as ('sub', 'tid'), not {sends!r}",
    )
    return names


def _checked_headers(headers: Mapping[str, str] | None, *, has_credential: bool) -> httpx.Headers:
    try:
        checked = httpx.Headers(headers)
    except (TypeError, ValueError, AttributeError):
        # Not shown: one may be a key.
        raise ConfigurationError("headers must be a mapping of names to texts") from None
    require(
        not (has_credential and "authorization" in checked),
        "headers has Authorization, which the credential is to make: leave one of them out",
    )
    return checked
