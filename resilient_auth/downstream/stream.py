"""Bodies of answers: their breaks are the API's failures, and their ends give back what the call held."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from .failure import Dialect, explain
from .lease import Lease

__all__ = ["AsyncBody", "AsyncTracked", "Body", "SyncTracked"]

_NEVER = float("inf")


class _Tracked:
    """What the blocking and the asyncio bodies share."""

    def __init__(
        self,
        stream: Any,
        lease: Lease,
        *,
        name: str,
        ends: float,
        now: Callable[[], float],
        dialect: Dialect,
        bounded: bool,
        patience: float,
        abandoned: deque[Lease],
    ) -> None:
        self._stream = stream
        self._lease = lease
        self._name = name
        self._ends = ends
        self._now = now
        self._dialect = dialect
        #: Each read ends in time by itself.
        self._bounded = bounded
        #: What is told as `retry_after` when the time was over.
        self._patience = patience
        self._abandoned = abandoned

    def _check(self) -> None:
        """Stop before a read when the time is over: the reader took it, so the API isn't blamed."""
        if self._now() >= self._ends:
            self._lease.fail(None)
            raise self._late()

    def _broken(self, error: BaseException) -> Exception | None:
        """Judge what ended a read; returns what to raise in its place."""
        if not isinstance(error, Exception):
            self._lease.fail(None)
            return None
        failure = explain(error, self._name, self._dialect)
        # The transport underneath drops the connection of a body that broke.
        self._lease.fail(failure.cause)
        if isinstance(error, TimeoutError) or (
            isinstance(error, self._dialect.library.TimeoutException) and self._now() >= self._ends
        ):
            return self._late()
        return None if failure.error is error else failure.error

    def _late(self) -> Exception:
        return self._dialect.deadline_passed(
            f"the answer of {self._name} was still coming when the time for the call was over",
            origin=self._name,
            retry_after=self._patience,
        )

    def __del__(self) -> None:
        # An answer that was neither read nor closed. Locks can't be taken here: the collector may have interrupted
        # whoever holds them. The next call gives it back.
        if self._lease.held:
            self._abandoned.append(self._lease)


class SyncTracked(_Tracked):
    """A body that is read by a thread."""

    def parts(self) -> Iterator[bytes]:
        """Read it part by part."""
        if self._ends != _NEVER:
            self._check()
        try:
            for part in self._stream:
                yield part
                if self._ends != _NEVER:
                    self._check()
        except GeneratorExit:
            raise
        except BaseException as error:
            told = self._broken(error) if self._lease.held else None
            if told is None:
                raise
            raise told from error
        self._lease.succeed()

    def close(self) -> None:
        """Close the connection or give it back, and let the next call in."""
        try:
            self._stream.close()
        finally:
            # It had answered in time, and the reader had enough.
            self._lease.succeed()


class AsyncTracked(_Tracked):
    """A body that is read by a task."""

    async def parts(self) -> AsyncIterator[bytes]:
        """Read it part by part."""
        parts = self._stream.__aiter__()
        try:
            if self._bounded or self._ends == _NEVER:
                if self._ends != _NEVER:
                    self._check()
                async for part in parts:
                    yield part
                    if self._ends != _NEVER:
                        self._check()
            else:
                while True:
                    self._check()
                    try:
                        async with asyncio.timeout(self._ends - self._now()):
                            part = await anext(parts)
                    except StopAsyncIteration:
                        break
                    yield part
        except GeneratorExit:
            raise
        except BaseException as error:
            told = self._broken(error) if self._lease.held else None
            if told is None:
                raise
            raise told from error
        self._lease.succeed()

    async def aclose(self) -> None:
        """Close the connection or give it back, and let the next call in."""
        try:
            await self._stream.aclose()
        finally:
            self._lease.succeed()


class Body(SyncTracked, httpx.SyncByteStream):
    """httpx's kind of a body."""

    def __iter__(self) -> Iterator[bytes]:
        return self.parts()


class AsyncBody(AsyncTracked, httpx.AsyncByteStream):
    """httpx's kind of a body for asyncio."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.parts()
