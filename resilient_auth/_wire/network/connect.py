"""Connections to a name within a time-out: its look-up and all of its addresses together, not each (RFC 8305)."""

from __future__ import annotations

import errno
import functools
import importlib
import ipaddress
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import Any

from ..._process import forks
from ..._process.sockets import refused_by_host
from .handshake import first_words, secure

__all__ = ["NO_SUCH_NAME", "LookupTimeout", "Refused", "connect", "racing"]

#: Codes of a `socket.gaierror` that waiting doesn't mend; EAI_AGAIN, a server that doesn't answer, is another matter.
NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})

#: Seconds between the beginnings of two attempts, at most; RFC 8305, section 5.
_STAGGER = 0.25
#: Of one name; no name that is meant well has more.
_MOST_ADDRESSES = 16
#: Look-ups of one name, and names, that may hang at the same time.
_LOOKUPS_OF_NAME = 4
_NAMES = 64
#: Seconds after which a look-up that hasn't come back is taken for one that hangs.
_HANGS_AFTER = 1.0
#: Seconds from its beginning for which one has forks wait: the resolver has locks, but a server may never answer.
_HOLDS_FORKS_OFF = 0.1
_UNDER_WAY = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK})

_Address = tuple[Any, ...]


class Refused(ConnectionRefusedError):
    """The other end refused the connection, within so many seconds."""

    seconds: float | None = None
    #: Whether that is this machine, to which a name has led that isn't its own.
    led_here: bool = False


class LookupTimeout(TimeoutError):
    """The system's resolver gave no answer in time."""


class _Lookup:
    """One look-up of a name, which the system gives no way to end."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.done = threading.Event()
        self.found: list[_Address] = []
        self.error: OSError | None = None

    def carry_out(self, host: str, port: int) -> None:
        try:
            with forks.held_off(_HOLDS_FORKS_OFF):
                self.found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            self.error = error
        except UnicodeError:
            # A label that is too long, or no name at all.
            self.error = socket.gaierror(socket.EAI_NONAME, "no name of a host")
        finally:
            self.done.set()


class _Lookups:
    """The look-ups under way in this process."""

    def __init__(self) -> None:
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Forget those under way: a child hasn't got its parent's threads."""
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], list[_Lookup]] = {}

    def look_up(self, host: str, port: int, seconds: float | None) -> list[_Address]:
        lookup, mine = self._join((host, port))
        if mine:
            try:
                threading.Thread(
                    target=self._carry_out, args=(lookup, host, port), name="resilient-auth-lookup", daemon=True
                ).start()
            except RuntimeError:  # no thread is to be had: then this one waits as long as the system likes
                self._carry_out(lookup, host, port)
        if not lookup.done.wait(seconds):
            raise LookupTimeout(f"the name {host} wasn't resolved in time")
        if lookup.error is not None:
            # A copy for each who waited: a traceback would hold their frames.
            raise type(lookup.error)(*lookup.error.args)
        return lookup.found

    def _join(self, name: tuple[str, int]) -> tuple[_Lookup, bool]:
        """Take the look-up to wait for, and whether it is this caller's to carry out."""
        with self._lock:
            running = self._under_way.get(name, [])
            # One that hangs asked a server that may be back by now: a few more are begun beside it.
            if running and (len(running) >= _LOOKUPS_OF_NAME or time.monotonic() - running[-1].began < _HANGS_AFTER):
                return running[-1], False
            if not running and len(self._under_way) >= _NAMES:
                raise socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up")
            lookup = _Lookup()
            self._under_way.setdefault(name, []).append(lookup)
            return lookup, True

    def _carry_out(self, lookup: _Lookup, host: str, port: int) -> None:
        try:
            lookup.carry_out(host, port)
        finally:
            with self._lock:
                running = self._under_way[host, port]
                running.remove(lookup)
                if not running:
                    del self._under_way[host, port]


_lookups = _Lookups()


def _addresses_of(host: str, port: int, seconds: float | None) -> list[_Address]:
    """Look a host up in time, and return its addresses with the families in turn (RFC 8305, section 4)."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        forks.notice()
        found = _lookups.look_up(host, port, seconds)
    else:
        with forks.held_off():
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    by_family: dict[int, list[_Address]] = {}
    for address in dict.fromkeys(found):
        by_family.setdefault(address[0], []).append(address)
    return [a for a in chain.from_iterable(zip_longest(*by_family.values())) if a is not None][:_MOST_ADDRESSES]


def connect(host: str, port: int, seconds: float | None, local_address: str | None = None) -> socket.socket:
    """Connect to whichever address of a host answers first.

    Args:
        host: A name, or an address.
        port: Where it listens.
        seconds: For all of it: the look-up and every address. None for as long as the system takes.
        local_address: The address to connect from.

    Raises:
        TimeoutError: No address answered in time.
        OSError: None can be reached, or the name can't be resolved.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    waiting = _addresses_of(host, port, seconds)
    led_here = _leads_here(host, waiting)
    left = _STAGGER if ends is None else ends - time.monotonic()
    # However little time there is, each address has its turn.
    stagger = max(0.01, min(_STAGGER, left / (len(waiting) + 1)))
    errors: list[OSError] = []
    #: With the times at which they were.
    begun: dict[socket.socket, float] = {}
    winner: socket.socket | None = None
    # One that needs no descriptor of its own, and takes those past 1024.
    selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
    next_at = time.monotonic()
    try:
        while winner is None:
            now = time.monotonic()
            if ends is not None and now >= ends:
                raise TimeoutError(f"no address of {host} answered in time")
            if waiting and now >= next_at:
                next_at = now + stagger
                try:
                    at = time.monotonic()
                    one = _begin(waiting.pop(0), local_address)
                except OSError as error:
                    errors.append(error)
                    next_at = now
                    continue
                begun[one] = at
                selector.register(one, selectors.EVENT_WRITE)
            elif not begun:
                # That nobody listens says more than that there is no way to the other family.
                refusals = [error for error in errors if isinstance(error, ConnectionRefusedError)]
                worst = (refusals or errors)[0]
                if isinstance(worst, Refused):
                    worst.led_here = led_here
                raise worst
            until = [at for at in (ends, next_at if waiting else None) if at is not None]
            for key, _ in selector.select(max(0.0, min(until) - time.monotonic()) if until else None):
                one = key.fileobj  # type: ignore[assignment]
                code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0 and winner is None:
                    winner = one
                elif code:
                    errors.append(_refusal(one, code, time.monotonic() - begun.pop(one)))
                    selector.unregister(one)
                    one.close()
                    next_at = now
    finally:
        selector.close()
        for one in begun:
            if one is not winner:
                one.close()
    winner.setblocking(True)
    return winner


def _leads_here(host: str, addresses: list[_Address]) -> bool:
    """Return whether a name that isn't this machine's own, as by RFC 6761, section 6.3, leads to nowhere else."""
    if host.lower().rstrip(".").rpartition(".")[2] == "localhost":
        return False
    found = [ipaddress.ip_address(str(address[4][0]).partition("%")[0]) for address in addresses]
    named = str(found[0]) != host.strip("[]") if found else False
    return named and all(one.is_loopback or one.is_unspecified for one in found)


def _begin(address: _Address, local_address: str | None) -> socket.socket:
    family, kind, protocol, _, at = address
    one = socket.socket(family, kind, protocol)
    try:
        one.setblocking(False)
        if local_address is not None:
            one.bind((local_address, 0))
        code = one.connect_ex(at)
    except BaseException:
        one.close()
        raise
    if code not in _UNDER_WAY:
        refusal = _refusal(one, code, 0.0)
        one.close()
        raise refusal
    return one


def _refusal(one: socket.socket, code: int, seconds: float) -> OSError:
    """Return why there is no connection: a firewall that says no is another matter than a host that does."""
    if code != errno.ECONNREFUSED:
        return OSError(code, os.strerror(code))
    if refused_by_host(one) is False:
        return OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    refused = Refused(code, os.strerror(code))
    refused.seconds = seconds
    return refused


@contextmanager
def _raised_as(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """Raise what a library raises where time is over, and where something else fails."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error


@functools.cache
def _stream_of(library: str) -> Any:
    """Return httpcore's blocking stream, or httpcore2's, which a fork waits for while OpenSSL holds locks."""
    errors: Any = importlib.import_module(library)
    # They show no way to make a stream of a socket; a test pins this one.
    plain: Any = importlib.import_module(f"{library}._backends.sync").SyncStream

    class Stream(plain):  # type: ignore[misc]
        #: Whether what the other end says about its session, before anything else, has been read.
        greeted = True

        def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
            if isinstance(self._sock, ssl.SSLSocket):  # TLS to a proxy, and through it
                return super().start_tls(ssl_context, server_hostname, timeout)
            with _raised_as(errors.ConnectTimeout, errors.ConnectError):
                secured = type(self)(secure(self._sock, ssl_context, server_hostname, timeout))
            secured.greeted = False
            return secured

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            if self.greeted:
                data: bytes = super().read(max_bytes, timeout)
                return data
            with _raised_as(errors.ReadTimeout, errors.ReadError):
                data = first_words(self._sock, max_bytes, timeout)
            self.greeted = True
            return data

    return Stream


class _Racing:
    """httpcore's blocking backend, or httpcore2's, with `connect` in place of one address after the other."""

    def __init__(self, backend: Any, library: str) -> None:
        self._backend = backend
        self._library: Any = importlib.import_module(library)
        self._stream = _stream_of(library)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        with _raised_as(self._library.ConnectTimeout, self._library.ConnectError):
            one = connect(host, port, timeout, local_address)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            one.setsockopt(*option)
        return self._stream(one)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> Any:
        return self._backend.connect_unix_socket(path, timeout, socket_options)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def racing(backend: Any) -> Any:
    """Have a blocking backend of httpcore's race a name's addresses.

    asyncio's does so by itself. Others are returned as they are.
    """
    library = type(backend).__module__.partition(".")[0]
    plain = library in ("httpcore", "httpcore2") and type(backend).__name__ == "SyncBackend"
    return _Racing(backend, library) if plain else backend
