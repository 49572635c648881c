"""Sign-outs and sign-ins that cross, on machines whose clocks disagree: who left stays out, who came last is in."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleet_world import BreakableBackend, ClockAhead, Process

import resilient_auth as ra
from resilient_auth._fleet.user_record import Change, SignIn
from resilient_auth.testing import ManualClock

OLD, NEW = os.urandom(32), os.urandom(32)
AHEAD = [-50.0, -45.0, 0.0, 45.0, 50.0]
Make = Callable[..., Process]


@pytest.fixture
def manual() -> ManualClock:
    return ManualClock()


@pytest.fixture
def backend(manual: ManualClock) -> BreakableBackend:
    return BreakableBackend(manual)


@pytest.fixture
def process(backend: BreakableBackend, manual: ManualClock) -> Iterator[Make]:
    made: list[Process] = []

    def make(ahead: float = 0.0, *, realm: str = "t1", keys: list[bytes] | None = None) -> Process:
        made.append(Process(backend, ClockAhead(manual, ahead), keys or [OLD], realm=realm))
        return made[-1]

    yield make
    for each in made:
        each.die()


@pytest.fixture
def in_an_outage(backend: BreakableBackend) -> Callable[[Process], None]:
    """Sign ann in at a process while the store fails."""

    def sign_in(at: Process) -> None:
        backend.failing = True
        assert not at.sign_in("ann", "late")
        backend.failing = False

    return sign_in


@pytest.mark.parametrize("here", AHEAD)
@pytest.mark.parametrize("there", AHEAD)
@pytest.mark.parametrize("between", [0.0, 1.0, 12.0, 100.0])
def test_a_sign_in_that_is_written_late_undoes_no_sign_out_that_followed(
    process: Make, manual: ManualClock, in_an_outage: Callable[[Process], None],
    here: float, there: float, between: float,
) -> None:  # fmt: skip
    """Whatever the clocks say, and however soon the store works again."""
    one, other = process(here), process(there)
    assert other.sign_in("ann", "first")
    in_an_outage(one)
    assert other.sign_out("ann")
    manual.advance(between)
    one.shared_cache.flush()
    assert not any(each.finds("ann") for each in (one, other, process()))
    assert process().accounts("ann") == []


@pytest.mark.parametrize("ahead", AHEAD)
def test_who_comes_back_right_after_a_sign_out_is_in_everywhere(process: Make, ahead: float) -> None:
    """At the same process or another one, while the store works."""
    one, other = process(), process(ahead)
    for n, (out, back) in enumerate([(one, one), (one, other), (other, one), (other, other)]):
        assert one.sign_in("ann", f"{n}a")
        assert other.finds("ann")
        assert out.sign_out("ann")
        assert back.sign_in("ann", f"{n}b")
        assert all(each.finds("ann") for each in (one, other, process(ahead), process()))


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_late_sign_in_counts_where_its_process_knew_of_the_sign_out(
    process: Make, manual: ManualClock, in_an_outage: Callable[[Process], None], ahead: float
) -> None:
    """It had made it, or had read of it."""
    one, other = process(), process(ahead)
    for out in (one, other):
        assert other.sign_in("ann", "first")
        assert one.finds("ann")
        assert out.sign_out("ann")
        assert not one.finds("ann")
        in_an_outage(one)
        manual.advance(12.0)
        one.shared_cache.flush()
        assert all(each.finds("ann") for each in (one, other, process()))


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_late_sign_in_counts_long_after_a_sign_out_of_which_nobody_there_knew(
    process: Make, manual: ManualClock, in_an_outage: Callable[[Process], None], ahead: float
) -> None:
    """Clocks don't disagree by that much."""
    one, other = process(), process(ahead)
    assert other.sign_in("ann", "first")
    assert other.sign_out("ann")
    manual.advance(3600.0)
    in_an_outage(one)
    manual.advance(12.0)
    one.shared_cache.flush()
    assert all(each.finds("ann") for each in (one, other, process()))


@pytest.mark.parametrize("ahead", AHEAD)
def test_of_two_sign_outs_the_second_counts_though_the_first_was_known(
    process: Make, manual: ManualClock, in_an_outage: Callable[[Process], None], ahead: float
) -> None:
    """That of a clock which is behind says that it was made before the first one."""
    one, other = process(), process(ahead)
    assert one.sign_in("ann", "first")
    assert one.sign_out("ann")
    in_an_outage(one)
    assert other.sign_out("ann")
    manual.advance(12.0)
    one.shared_cache.flush()
    assert not any(each.finds("ann") for each in (one, other, process()))


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("again", [True, False])
def test_a_sign_out_and_a_sign_in_that_are_both_written_late(
    process: Make, backend: BreakableBackend, manual: ManualClock, ahead: float, again: bool
) -> None:
    """The sign-in counts, unless somebody else signed them out meanwhile."""
    one, other = process(), process(ahead)
    assert one.sign_in("ann", "first")
    backend.failing = True
    assert not one.sign_out("ann")
    assert not one.sign_in("ann", "late")
    backend.failing = False
    if again:
        assert other.sign_out("ann")
    manual.advance(12.0)
    one.shared_cache.flush()
    assert [each.finds("ann") for each in (one, other, process())] == [not again] * 3


def test_a_sign_in_may_take_its_time_to_be_written(
    process: Make, backend: BreakableBackend, manual: ManualClock
) -> None:
    """As long as its caller waits, nobody can have come after it: a slow store makes it no late one."""
    one, other = process(), process()
    assert other.sign_in("ann", "first")
    assert other.sign_out("ann")
    put = backend.put

    def slow(*args: object, **options: object) -> object:
        manual.advance(1.0)
        return put(*args, **options)  # type: ignore[arg-type]

    backend.put = slow  # type: ignore[method-assign]
    assert one.sign_in("ann", "second")
    assert all(each.finds("ann") for each in (one, other, process()))


def test_a_late_sign_in_takes_no_sign_out_in_another_tenant_back(
    process: Make, manual: ManualClock, in_an_outage: Callable[[Process], None]
) -> None:
    """Nor does it count in its own; whoever holds the user there doesn't take that for a store which was emptied."""
    one, other, third = process(), process(realm="t2"), process(realm="t2")
    assert other.sign_in("ann", "first")
    assert third.finds("ann")
    in_an_outage(one)
    assert other.sign_out("ann")
    manual.advance(12.0)
    one.shared_cache.flush()
    assert not any(each.finds("ann") for each in (third, other, process(realm="t2"), one, process()))
    assert one.sign_in("ann", "again")
    assert all(each.finds("ann") for each in (one, process()))


def test_a_write_that_began_before_its_caller_gave_up_undoes_no_sign_out_since(
    process: Make, manual: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at what is there once more, and then at how its sign-in stands."""
    one, other = process(), process()
    stored, sign_in = one.shared_cache.stored, SignIn(manual.wall())
    write = stored.store.write

    def write_late(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        sign_in.under_way = False
        assert other.sign_out("ann")
        return write(*args, **options)

    monkeypatch.setattr(stored.store, "write", write_late)
    changes = {("RefreshToken", "r"): Change(None, {"secret": "late"})}
    name = f"{one.shared_cache.label} ann.t"
    assert stored.save(name, None, "born", changes, {}, anew=sign_in) is None
    (kept,) = stored.partitions([name])
    assert kept is not None
    assert kept.removed


def test_a_late_sign_in_replaces_nothing_that_cant_be_opened_here(
    process: Make, manual: ManualClock, in_an_outage: Callable[[Process], None]
) -> None:
    """It may be the note of a sign-out."""
    one = process()
    assert one.sign_in("ann", "first")
    process(keys=[OLD, NEW]).finds("ann")
    ahead = process(keys=[NEW, OLD])
    ahead.sign_in("bob", "any")
    in_an_outage(one)
    assert ahead.sign_out("ann")
    manual.advance(12.0)
    with pytest.raises(ra.StoreUnavailable, match="can't be opened here"):
        one.shared_cache.flush()
    assert one.refresh_token("ann") is not None
    assert not process(keys=[NEW, OLD]).finds("ann")


def test_who_was_signed_out_here_too_comes_back_by_a_late_sign_in(
    process: Make, manual: ManualClock, in_an_outage: Callable[[Process], None]
) -> None:
    """Another process's note of it was there already, of which nobody knew here."""
    one, other = process(), process()
    assert other.sign_in("ann", "first")
    assert other.sign_out("ann")
    assert one.sign_out("ann")
    in_an_outage(one)
    manual.advance(12.0)
    one.shared_cache.flush()
    assert all(each.finds("ann") for each in (one, other, process()))


def test_a_sign_out_that_is_written_late_makes_no_later_one_older(
    process: Make, backend: BreakableBackend, manual: ManualClock
) -> None:
    """A sign-in between the two is over."""
    apart = copy.copy(backend)  # the same records, and a network of its own
    one, other, third = Process(apart, manual, [OLD]), process(), process()
    assert one.sign_in("ann", "first")
    backend.failing = True
    assert not third.sign_out("ann")
    manual.advance(400.0)
    apart.failing = True
    assert not one.sign_in("ann", "late")
    backend.failing = False
    assert other.sign_out("ann")
    manual.advance(12.0)
    third.shared_cache.flush()
    apart.failing = False
    manual.advance(12.0)
    one.shared_cache.flush()
    assert not any(each.finds("ann") for each in (one, other, third, process()))
    one.die()


def test_a_sign_out_in_all_tenants_isnt_taken_back_by_a_sign_in_in_the_middle_of_it(
    process: Make, backend: BreakableBackend
) -> None:
    """Both were under way; where the sign-out was made it holds."""
    one, other, third = process(), process(realm="t2"), process(realm="t2")
    assert one.sign_in("ann", "first")
    assert other.sign_in("ann", "second")
    assert third.finds("ann")
    put, written = backend.put, list[str]()

    def put_and_sign_in(key: str, *args: object, **options: object) -> object:
        version = put(key, *args, **options)  # type: ignore[arg-type]
        if key.startswith("user_record"):
            written.append(key)
            if len(written) == 2:
                assert one.sign_in("ann", "third")
        return version

    backend.put = put_and_sign_in  # type: ignore[method-assign,assignment]
    assert other.sign_out("ann")
    assert len(set(written)) == 2
    assert one.finds("ann")
    assert not any(each.finds("ann") for each in (third, other, process(realm="t2")))


def test_a_forked_child_has_no_sign_out_to_make_again(
    process: Make, backend: BreakableBackend, manual: ManualClock
) -> None:
    """It is its parent's to write; who signs in after that is signed in in the child too."""
    parent, other = process(), process()
    assert other.sign_in("ann", "first")
    backend.failing = True
    assert not parent.sign_out("ann")
    child = parent
    child.shared_cache.after_fork()
    backend.failing = False
    assert other.sign_out("ann")
    assert other.sign_in("ann", "second")
    manual.advance(12.0)
    assert child.finds("ann")
    assert other.finds("ann")
