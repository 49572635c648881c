"""The `http_client` that an application gave to MSAL, bounded from outside."""

from __future__ import annotations

import contextvars
import inspect
import math
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import requests
import requests.adapters
import requests.utils

from .._engine.single_flight import Flight, Outcome
from .._engine.workers import pause_behind
from .._policy.checks import awaits
from .._policy.endpoint import WireIdentity, origin_of
from .._process import forks
from .._process.living import LiveObjects
from ..clock import Clock
from ..errors import AttemptTimeout, ConfigurationError, MalformedAnswer, Overloaded
from .answers import LARGEST_ANSWER, WireResponse, followed, read
from .failures import Unsendable, fault_of_answer
from .identity import identity_of_client, number_of, said_by

__all__ = ["OwnersClient", "built_by_msal"]

#: Calls that may be left behind by those who waited for them, and haven't come back.
_MOST_OVERDUE = 128
#: So many of them without a pause before the next call is made beside them: what works again is to be seen to.
_QUICKLY = 64
#: Seconds that a call gets beyond its time: what the client itself says of a time-out tells more.
_MOMENT = 0.1
_CHUNK = 65536


def built_by_msal(client: Any) -> dict[str, Any] | None:
    """Return MSAL's `verify`, `proxies` and `timeout`, where it built a session of them itself; else None.

    A session with anything else about it, such as an adapter, a hook or a header, is its owner's.
    """
    if type(client) is not requests.Session:
        return None
    request, adapters = client.__dict__.get("request"), client.adapters
    if not isinstance(request, partial) or request.args or request.keywords.keys() != {"timeout"}:
        return None
    given = {"verify": client.verify, "proxies": client.proxies, "timeout": request.keywords["timeout"]}
    plain = requests.Session()
    same = ("headers", "auth", "params", "stream", "cert", "max_redirects", "trust_env", "hooks")
    mounted = set(adapters.values())
    if (
        getattr(request.func, "__func__", None) is not requests.Session.request
        or getattr(request.func, "__self__", None) is not client
        or client.__dict__.keys() != plain.__dict__.keys() | {"request"}
        or any(getattr(client, name) != getattr(plain, name) for name in same)
        or adapters.keys() != {"http://", "https://"}
        or len(mounted) != 1
        or any(type(one) is not requests.adapters.HTTPAdapter or one.max_retries.total != 1 for one in mounted)
    ):
        return None
    return given


class OwnersClient:
    """Send requests with the `http_client` that the application gave to MSAL.

    A requests session, and a client like httpx's, is told to follow no redirect and not to read ahead. Any other is
    judged by what it returns: what it did until then can't be undone.

    Args:
        client: The owner's.
        clock: Bounds each request's duration.

    Raises:
        ConfigurationError: It is no HTTP client.
    """

    def __init__(self, client: Any, clock: Clock) -> None:
        if isinstance(client, type) or not all(callable(getattr(client, name, None)) for name in ("get", "post")):
            raise ConfigurationError(
                "http_client must have the methods get and post, as a requests.Session has, "
                f"not {client.__name__ if isinstance(client, type) else type(client).__name__}"
                + (": make an object of it" if isinstance(client, type) else "")
            )
        if awaits(client.get) or awaits(client.post):
            raise ConfigurationError(
                f"http_client must be one that blocks, not an asyncio one such as {type(client).__name__}: MSAL awaits "
                "nothing; resilient_auth.aio.wrap is for asyncio"
            )
        self.client = client
        self._clock = clock
        self._number = number_of(client)
        #: The identity that was found last, and what the client said of itself then.
        self._known: tuple[object, WireIdentity] = said_by(client), identity_of_client(client, self._number)
        self.after_fork()
        forks.renew_in_children(self)
        _open.add(self)

    def after_fork(self) -> None:
        """Forget the calls that are out: a child hasn't got its parent's threads."""
        self._lock = threading.Lock()
        self._overdue = 0
        #: Monotonic time at which one was left behind last.
        self._left_at = -math.inf

    @property
    def identity(self) -> WireIdentity:
        """What tells it from other wires; a session may be told at any time to trust others."""
        said = said_by(self.client)
        if self._known[0] != said:
            self._known = said, identity_of_client(self.client, self._number)
        return self._known[1]

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> WireResponse:
        """Send a request, on a thread that is left behind when its time is over.

        Raises:
            AttemptTimeout: The client didn't come back in time.
            Overloaded: Too many calls haven't come back.
            ConfigurationError: It can't work as this machine is set up.
        """
        forks.notice()
        lock = self._lock
        with lock:
            pause = pause_behind(self._overdue, _QUICKLY)
            if self._overdue >= _MOST_OVERDUE or self._clock.monotonic() < self._left_at + pause:
                raise Overloaded(f"{self._overdue} calls of this application's http_client are overdue")
        flight = Flight(None, ends, self._clock)

        def carry_out() -> None:
            try:
                outcome = Outcome(result=self._ask(method, url, ends, options))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is told to who waits
                outcome = Outcome(error=error)
            flight.land(outcome)
            with lock:
                if flight.doubted:
                    self._overdue -= 1

        try:
            context = contextvars.copy_context()
            forks.begin_thread(context.run, carry_out, name="resilient-auth-http-client")
        except RuntimeError:  # no thread is to be had: then nothing bounds it but itself
            carry_out()
        if flight.wait(ends + _MOMENT - self._clock.monotonic()) is None:
            with lock:
                flight.doubted = flight.outcome is None
                if flight.doubted:
                    self._overdue += 1
                    self._left_at = self._clock.monotonic()
        if flight.outcome is None or flight.doubted:
            raise AttemptTimeout("this application's http_client didn't return in time")
        if flight.outcome.error is not None:
            raise flight.outcome.error
        answer: WireResponse = flight.outcome.result
        return answer

    def _ask(self, method: str, url: str, ends: float, options: dict[str, Any]) -> WireResponse:
        client = self.client
        if "timeout" not in options and _has_no_timeout(client):
            options = {**options, "timeout": max(0.1, ends - self._clock.monotonic())}
        given = {name: value for name, value in options.items() if name not in ("redirects", "largest", "trail")}
        try:
            if isinstance(client, requests.Session) and _takes(
                (client.get, client.post, client.request), "stream", "allow_redirects"
            ):
                ask = partial(_ask_session, client, method)
            elif _takes((getattr(client, "stream", None),), "follow_redirects"):
                ask = partial(_ask_streaming, client, method)
            else:
                return self._ask_unknown(method, url, options, given)

            def send(at: str, first: bool) -> tuple[WireResponse, str | None]:
                own = given if first else {**given, "params": None}
                packed = {"Accept-Encoding": "identity", **(given.get("headers") or {})}
                return ask(at, {**own, "headers": packed}, lambda parts: self._in_time(parts, ends), options)

            return followed(method, url, send, options)
        except Exception as error:
            wrong = _fault_of_this_machine(error)
            if wrong is None:
                raise
        raise wrong

    def _ask_unknown(self, method: str, url: str, options: Mapping[str, Any], given: dict[str, Any]) -> WireResponse:
        response = (self.client.get if method == "GET" else self.client.post)(url, **given)
        came_from = getattr(response, "url", None)
        moved = isinstance(came_from, str) and origin_of(came_from) != origin_of(url)
        if moved or (method == "POST" and getattr(response, "history", None)):
            raise MalformedAnswer("an answer to which the http_client was redirected")
        largest = options.get("largest", LARGEST_ANSWER)
        if len(response.text) > largest:
            raise MalformedAnswer(f"an answer of more than {largest} bytes")
        headers = {str(k).lower(): str(v) for k, v in getattr(response, "headers", {}).items()}
        return WireResponse(response.status_code, response.text, headers)

    def _in_time(self, parts: Iterable[bytes], ends: float) -> Iterator[bytes]:
        for part in parts:
            yield part
            if self._clock.monotonic() >= ends:
                raise AttemptTimeout("the answer didn't end in time")

    def close(self) -> None:
        """Close the owner's client, as MSAL would, with the last application that has it."""
        _open.discard(self)
        close = getattr(self.client, "close", None)
        if close is not None and all(one.client is not self.client for one in _open.all()):
            close()


#: Those that are in use.
_open: LiveObjects[OwnersClient] = LiveObjects()

_Bound = Callable[[Iterable[bytes]], Iterable[bytes]]


def _ask_session(
    session: requests.Session, method: str, url: str, given: dict[str, Any], bound: _Bound, options: Mapping[str, Any]
) -> tuple[WireResponse, str | None]:
    send = session.get if method == "GET" else session.post
    with send(url, allow_redirects=False, stream=True, **given) as response:
        return read(response.status_code, response.headers, bound(_arriving(response)), options)


def _arriving(response: requests.Response) -> Iterator[bytes]:
    """Read an answer as it arrives: requests waits for a whole chunk, however long each byte of it takes."""
    read_some = getattr(response.raw, "read1", None)
    # A hook of the owner's may have read it already.
    if read_some is None or response._content_consumed:  # type: ignore[attr-defined]
        yield from response.iter_content(_CHUNK)
        return
    while part := read_some(_CHUNK):
        yield part


def _ask_streaming(
    client: Any, method: str, url: str, given: dict[str, Any], bound: _Bound, options: Mapping[str, Any]
) -> tuple[WireResponse, str | None]:
    given = dict(given)
    body = given.pop("data", None)
    if body is not None:
        given["data" if isinstance(body, Mapping) else "content"] = body
    with client.stream(method, url, follow_redirects=False, **given) as response:
        return read(response.status_code, response.headers, bound(response.iter_raw()), options)


def _takes(calls: Iterable[Any], *names: str) -> bool:
    """Return whether each of these can be called with such arguments."""
    for call in calls:
        try:
            parameters = inspect.signature(call).parameters
        except (TypeError, ValueError):
            return False
        anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
        if not anything and not all(name in parameters for name in names):
            return False
    return True


def _has_no_timeout(client: Any) -> bool:
    """Return whether this is a requests session that would wait for ever."""
    if not isinstance(client, requests.Session):
        return False
    # MSAL, and who follows its advice, wraps `request` in a partial that has the time-out.
    keywords = getattr(client.request, "keywords", {})
    return keywords.get("timeout") is None


def _fault_of_this_machine(error: Exception) -> ConfigurationError | None:
    """Return what is wrong with the request or how this machine is set up, where the owner's client says so."""
    if isinstance(error, (UnicodeEncodeError, requests.exceptions.InvalidHeader)):
        # Not quoted: it may be a secret.
        return Unsendable("a header or a field of this request can't be encoded by this application's http_client")
    told = _setting_at_fault(error)
    return None if told is None else ConfigurationError(told)


def _setting_at_fault(error: Exception) -> str | None:
    text = str(error)
    if type(error) is OSError and "invalid path:" in text:
        return f"{text}: see REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, and the http_client's verify and cert"
    if isinstance(error, requests.exceptions.InvalidSchema) and "SOCKS" in text:
        return f"{text} pip install 'requests[socks]', or see ALL_PROXY and the http_client's proxies"
    if isinstance(error, requests.exceptions.InvalidProxyURL) or text.startswith("Proxy URL had"):
        return "the http_client's proxy isn't one that can be used: see HTTPS_PROXY, ALL_PROXY and its proxies"
    if "ProxyError" in type(error).__name__:
        # requests says "Tunnel connection failed: 407 ..." at the end of much else, httpx just the status.
        refusal = fault_of_answer(text.rpartition("failed: ")[2][:3])
        if refusal is not None:
            return f"the http_client's proxy is one {refusal}: see HTTPS_PROXY and its proxies"
    if isinstance(error, requests.exceptions.ProxyError) and f"[Errno {socket.EAI_NONAME}]" in text:
        return "the name of the http_client's proxy doesn't exist: see HTTPS_PROXY, ALL_PROXY and its proxies"
    return None
