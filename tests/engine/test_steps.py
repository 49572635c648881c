"""The protocol of steps: however a step ends, both drivers tell the generator, which gives back what it holds."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from resilient_auth._engine.steps import Invoke, Steps, run, run_async
from resilient_auth._engine.threads import OnThread


class Give(NamedTuple):
    """A step that ends as the test says."""

    result: Any = None
    error: BaseException | None = None

    def run(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result

    async def run_async(self) -> Any:
        await asyncio.sleep(0)
        return self.run()


class Hang(NamedTuple):
    """A step that ends when somebody ends it."""

    begun: Callable[[], None]

    def run(self) -> Any:
        raise NotImplementedError

    async def run_async(self) -> Any:
        self.begun()
        await asyncio.Event().wait()


class Permits:
    """What a generator holds, and whether it gave it back."""

    def __init__(self) -> None:
        self.held = 0
        self.seen: list[type[BaseException]] = []

    def using(self, *steps: Any) -> Steps[list[Any]]:
        self.held += 1
        try:
            results: list[Any] = []
            for step in steps:
                result = yield step
                results += [result]
        except BaseException as error:
            self.seen.append(type(error))
            raise
        else:
            return results
        finally:
            self.held -= 1


def drive_async(steps: Steps[Any]) -> Any:
    return asyncio.run(run_async(steps))


@pytest.fixture(params=[run, drive_async], ids=["blocking", "awaiting"])
def drive(request: pytest.FixtureRequest) -> Callable[[Steps[Any]], Any]:
    driver: Callable[[Steps[Any]], Any] = request.param
    return driver


def test_what_came_of_each_step_is_sent_back_in_order(drive: Callable[[Steps[Any]], Any]) -> None:
    """The generator gets its steps' results, and its own end is the driver's."""
    permits = Permits()
    assert drive(permits.using(Give(1), Give(None), Give(3))) == [1, None, 3]
    assert permits.held == 0
    assert permits.seen == []


def test_steps_that_need_nothing_are_over_at_once(drive: Callable[[Steps[Any]], Any]) -> None:
    """A generator that yields nothing is carried out too."""
    assert drive(Permits().using()) == []


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), TimeoutError("late"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_step_raises_reaches_the_generator_and_then_the_caller(
    drive: Callable[[Steps[Any]], Any], error: BaseException
) -> None:
    """Not only an `Exception`: who is interrupted holds permits and slots all the same."""
    permits = Permits()
    with pytest.raises(type(error)):
        drive(permits.using(Give(1), Give(error=error), Give(2)))
    assert permits.seen == [type(error)]
    assert permits.held == 0


def test_an_error_may_be_answered_by_further_steps(drive: Callable[[Steps[Any]], Any]) -> None:
    """The generator decides what an error means; the driver goes on with what it yields then."""

    def steps() -> Steps[str]:
        try:
            yield Give(error=ConnectionError())
        except ConnectionError:
            found: str = yield Give("another way")
            return found
        return "never"

    assert drive(steps()) == "another way"


def test_a_step_that_raises_stop_iteration_isnt_taken_for_the_end(drive: Callable[[Steps[Any]], Any]) -> None:
    """An owner's function that leaks `StopIteration` must not end the call with its value."""
    permits = Permits()

    def leak() -> Any:
        raise StopIteration("not the answer")

    with pytest.raises(RuntimeError):
        drive(permits.using(Invoke(leak)))
    assert permits.held == 0


def test_an_error_of_the_generators_own_ends_it(drive: Callable[[Steps[Any]], Any]) -> None:
    """What the generator raises by itself reaches the caller as it is."""

    def steps() -> Steps[None]:
        yield Give()
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        drive(steps())


def test_one_generator_delegates_to_another(drive: Callable[[Steps[Any]], Any]) -> None:
    """`yield from` makes one call of several; an error passes through each of them."""
    inner, outer = Permits(), Permits()

    def steps() -> Steps[list[Any]]:
        outer.held += 1
        try:
            yield Give()
            return (yield from inner.using(Give(1), Give(error=OSError())))
        finally:
            outer.held -= 1

    with pytest.raises(OSError):  # noqa: PT011 - the very one
        drive(steps())
    assert (inner.held, outer.held, inner.seen) == (0, 0, [OSError])


def test_context_variables_set_between_steps_are_seen_by_them(drive: Callable[[Steps[Any]], Any]) -> None:
    """A block in a generator, such as a bound on waiting, holds for its steps, on whatever thread they run."""
    variable = contextvars.ContextVar("variable", default="outside")

    def steps() -> Steps[list[str]]:
        token = variable.set("inside")
        try:
            return [(yield Invoke(variable.get)), (yield OnThread(variable.get))]
        finally:
            variable.reset(token)

    assert drive(steps()) == ["inside", "inside"]
    assert variable.get() == "outside"


def test_a_cancelled_task_gives_back_what_its_steps_hold_at_every_await() -> None:
    """Wherever it waits, `CancelledError` goes into the generator before the task is over."""

    async def cancelled_at(position: int) -> Permits:
        permits, begun = Permits(), asyncio.Event()
        steps = [Give(), Give(), Give()]
        steps[position] = Hang(begun.set)  # type: ignore[call-overload]
        task = asyncio.create_task(run_async(permits.using(*steps)))
        await begun.wait()
        assert permits.held == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return permits

    for position in range(3):
        permits = asyncio.run(cancelled_at(position))
        assert (permits.held, permits.seen) == (0, [asyncio.CancelledError])


def test_a_task_that_is_never_resumed_is_told_by_its_end() -> None:
    """A coroutine closed by hand or by the collector, its loop being gone, closes its generator."""
    permits = Permits()
    suspended = run_async(permits.using(Give(1), Give(2)))
    suspended.send(None)
    assert permits.held == 1
    suspended.close()
    assert (permits.held, permits.seen) == (0, [GeneratorExit])
    suspended = run_async(permits.using(Give(1)))
    suspended.send(None)
    del suspended
    gc.collect()
    assert permits.held == 0


def test_a_call_is_made_here_and_awaited_where_it_can_be() -> None:
    """`Invoke` takes functions of both kinds in a task; a thread gets what the function returns."""

    async def later() -> str:
        return "later"

    def now() -> str:
        return "now"

    def both() -> Steps[list[str]]:
        return [(yield Invoke(now)), (yield Invoke(later))]

    assert asyncio.run(run_async(both())) == ["now", "later"]
    assert run(Permits().using(Invoke(now))) == ["now"]
    coroutine = Invoke(later).run()
    assert isinstance(coroutine, Awaitable)
    coroutine.close()  # type: ignore[attr-defined]


def test_a_blocking_call_never_blocks_a_tasks_loop() -> None:
    """`OnThread` makes it on the caller's own thread, or on another one for a task."""
    assert run(Permits().using(OnThread(threading.get_ident))) == [threading.get_ident()]
    [elsewhere] = asyncio.run(run_async(Permits().using(OnThread(threading.get_ident))))
    assert elsewhere != threading.get_ident()
