"""Bodies of answers: their breaks are the API's failures, and their ends give back what the call held."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import httpx

from .failure import Dialect, explain
from .lease import Lease, Turn

__all__ = ["AsyncBody", "AsyncTracked", "Body", "BodyOptions", "SyncTracked"]

_NEVER = float("inf")


class BodyOptions(NamedTuple):
    """What the bodies of one transport have in common."""

    dialect: Dialect
    #: The options' monotonic clock.
    now: Callable[[], float]
    #: Whether each read ends in time by itself.
    bounded: bool
    #: What is told as `retry_after` when the time was over.
    patience: float
    #: Where a body that was neither read nor closed leaves what it held, and itself; and a call that was never resumed.
    abandoned: deque[tuple[Lease | Turn, Any]]


class _Tracked:
    """What the blocking and the asyncio bodies share."""

    def __init__(self, stream: Any, lease: Lease, name: str, ends: float, terms: BodyOptions) -> None:
        self._stream = stream
        self._lease = lease
        self._name = name
        self._ends = ends
        self._terms = terms
        self._now = terms.now

    def _stop(self) -> NoReturn:
        """Stop before a read because the time is over: the reader took it, so the API isn't blamed."""
        self._lease.fail(None)
        raise self._late()

    def _broken(self, error: BaseException) -> Exception | None:
        """Judge what ended a read; returns what to raise in its place."""
        if not self._lease.held:
            return None
        if not isinstance(error, Exception):
            self._lease.fail(None)
            return None
        dialect = self._terms.dialect
        failure = explain(error, self._name, dialect)
        # The transport underneath drops the connection of a body that broke.
        self._lease.fail(failure.cause)
        if isinstance(error, TimeoutError) or (
            isinstance(error, dialect.library.TimeoutException) and self._now() >= self._ends
        ):
            return self._late()
        return None if failure.error is error else failure.error

    def _late(self) -> Exception:
        return self._terms.dialect.deadline_passed(
            f"deadline exceeded while reading the answer of {self._name}",
            origin=self._name,
            retry_after=self._terms.patience,
        )

    def __del__(self) -> None:
        # An answer that was neither read nor closed. Locks can't be taken here: the collector may have interrupted
        # whoever holds them. The next call gives it back.
        if self._lease.held:
            self._terms.abandoned.append((self._lease, self._stream))


class SyncTracked(_Tracked):
    """A body that is read by a thread."""

    def __iter__(self) -> Iterator[bytes]:
        """Read it part by part."""
        now, ends = self._now, self._ends
        try:
            if now() >= ends:
                self._stop()
            for part in self._stream:
                yield part
                if now() >= ends:
                    self._stop()
        except GeneratorExit:
            raise
        except BaseException as error:
            told = self._broken(error)
            if told is None:
                raise
            raise told from error
        self._lease.succeed()

    def close(self) -> None:
        """Close the connection or give it back, and let the next call in."""
        # Client and answer refer to each other: what isn't let go here would be the collector's work.
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                stream.close()
        finally:
            # It had answered in time, and the reader had enough.
            self._lease.succeed()


class AsyncTracked(_Tracked):
    """A body that is read by a task. It is its own iterator, since an event loop keeps books about async generators."""

    _next: Callable[[], Awaitable[bytes]]
    _bounded: bool

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Read it part by part."""
        self._next = self._stream.__aiter__().__anext__
        self._bounded = self._terms.bounded or self._ends == _NEVER
        return self

    async def __anext__(self) -> bytes:
        """Read the next part."""
        try:
            if self._now() >= self._ends:
                self._stop()
            if self._bounded:
                return await self._next()
            async with asyncio.timeout(self._ends - self._now()):
                return await self._next()
        except StopAsyncIteration:
            self._lease.succeed()
            raise
        except GeneratorExit:
            raise
        except BaseException as error:
            told = self._broken(error)
            if told is None:
                raise
            raise told from error

    async def aclose(self) -> None:
        """Close the connection or give it back, and let the next call in."""
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                await stream.aclose()
        finally:
            self._lease.succeed()


class Body(SyncTracked, httpx.SyncByteStream):
    """httpx's kind of a body."""


class AsyncBody(AsyncTracked, httpx.AsyncByteStream):
    """httpx's kind of a body for asyncio."""
