"""What was issued up to a time is refused, in all processes that share a store, and nothing else is."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arriving import NOWHERE, TENANT, Signer

import resilient_auth as ra
from resilient_auth.testing import capture_events
from resilient_auth.verify import DenyList
from resilient_auth.verify.rules import revoked
from resilient_auth.verify.security_events.revocations import Revocations

ISSUER = f"{NOWHERE}/{TENANT}/v2.0"
GUID = "6f6e2c3a-0000-4000-8000-00000000a22a"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ra.FileStore]:
    with_key = ra.FileStore(tmp_path / "store", key=secrets.token_bytes(32))
    yield with_key
    with_key.close()


@pytest.fixture
def one(store: ra.FileStore, clock: Any) -> Iterator[Callable[[], Revocations]]:
    """Make what one process has, which looks when it is told to."""
    made: list[Revocations] = []

    def make() -> Revocations:
        made.append(Revocations(store, clock=clock, look_every=1.5))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def judge(offline: Any, signer: Signer, claims: Any) -> Callable[..., Callable[..., str]]:
    """Return what a process's verifier says of tokens: "" for those that are good."""

    def with_(held: Revocations) -> Callable[..., str]:
        verifier = offline(deny=held.deny)

        def says(**changes: Any) -> str:
            try:
                verifier.verify(signer.token(claims(**changes)))
            except ra.InvalidToken as error:
                return error.code
            return ""

        return says

    return with_


def test_what_was_issued_before_is_refused_and_a_new_sign_in_is_let_in(one: Any, judge: Any, clock: Any) -> None:
    """By user, session, object id and address; a token that was verified before is refused as well."""
    for what, where, id_ in (
        ("sub", ISSUER, "pairwise-of-ann"),
        ("sid", ISSUER, "session-of-ann"),
        ("oid", TENANT, "6f6e2c3a-ann"),
        ("mail", ISSUER, "ann@contoso.com"),
    ):
        held = one()
        says = judge(held)
        then = int(clock.wall())
        assert says(iat=then) == ""
        held.revoke([(what, where, id_)], clock.wall())
        assert says(iat=then) == "denied"
        clock.skip(2.0)
        assert says() == ""
        held.close()


def test_nobody_else_is_refused(one: Any, judge: Any, clock: Any) -> None:
    """Neither another user nor the same id at another issuer or in another tenant."""
    held = one()
    says = judge(held)
    now = clock.wall()
    held.revoke([("sub", ISSUER, "pairwise-of-bob"), ("sub", f"{NOWHERE}/other", "pairwise-of-ann")], now)
    held.revoke([("oid", "another-tenant", "6f6e2c3a-ann"), ("sid", f"{ISSUER}/", "session-of-ann")], now)
    held.revoke([("sub", ISSUER, "session-of-ann"), ("sid", ISSUER, "pairwise-of-ann")], now)
    assert says() == ""
    held.revoke([("sub", ISSUER, "pairwise-of-ann")], now - 3600)
    assert says() == ""


def test_an_earlier_time_takes_nothing_back(one: Any, judge: Any, clock: Any) -> None:
    """Events come in any order: what was issued between the two stays refused, in each process and in those to come."""
    first, second = one(), one()
    then = int(clock.wall())
    for before in (then, then - 300.0):
        first.revoke([("sub", ISSUER, "pairwise-of-ann")], before)
        second.look()
    for held in (first, second, one()):
        assert judge(held)(iat=then - 100) == "denied"


def test_what_is_over_is_forgotten() -> None:
    """Also where one that comes is over already, as from a process whose clock is behind."""
    deny = DenyList()
    deny.revoke((revoked.Revocation("sub", ISSUER, f"user-{number}", 100.0, 200.0) for number in range(3)), 150.0)
    assert len(deny.revoked) == 3
    deny.revoke([revoked.Revocation("sub", ISSUER, "late", 100.0, 190.0)], 200.0)
    assert len(deny.revoked) == 0
    deny.revoke([revoked.Revocation("sub", ISSUER, "user-3", 200.0, 300.0)], 200.0)
    assert len(deny.revoked) == 1


def test_another_process_learns_of_it(one: Any, judge: Any, clock: Any) -> None:
    """By the latest ones, by a look at all where it has missed some, and when it starts later."""
    first, second = one(), one()
    says = judge(second)
    then = int(clock.wall())
    first.revoke([("sub", ISSUER, "pairwise-of-ann")], clock.wall())
    second.look()
    assert says(iat=then) == "denied"
    assert says(sub="pairwise-of-bob", oid="bob", sid="other", preferred_username="bob") == ""
    for number in range(150):
        first.revoke([("sub", ISSUER, f"user-{number}")], clock.wall())
    second.look()
    assert says(sub="user-0", oid="x", sid="y", iat=then) == "denied"
    assert judge(one())(iat=then) == "denied"


def test_it_is_looked_for_all_the_time(store: Any, judge: Any, clock: Any, eventually: Any) -> None:
    """Nobody has to ask."""
    first, second = (Revocations(store, look_every=0.1) for _ in range(2))
    says, then = judge(second), int(clock.wall())
    assert says() == ""
    first.revoke([("sub", ISSUER, "pairwise-of-ann")], clock.wall())
    eventually(lambda: says(iat=then) == "denied")
    first.close()
    second.close()


class Dying:
    """A store that fails while it is told to."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.label = store.label
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise ra.StoreUnavailable(self.label, "timeout", "it is dead")
        return getattr(self._store, name)


def test_a_dead_store_changes_nothing_here_and_is_told_later(
    store: Any, judge: Any, clock: Any, eventually: Any
) -> None:
    """The process that heard of it refuses at once; the others do when the store works again."""
    dying = Dying(store)
    first, second = Revocations(dying, look_every=0.1), Revocations(store, look_every=0.1)  # type: ignore[arg-type]
    mine, theirs, then = judge(first), judge(second), int(clock.wall())
    dying.dead = True
    with capture_events() as captured:
        with pytest.raises(ra.StoreUnavailable):
            first.revoke([("sub", ISSUER, "pairwise-of-ann")], clock.wall())
        assert mine(iat=then) == "denied"
        assert theirs() == ""
        dying.dead = False
        eventually(lambda: theirs(iat=then) == "denied")
        captured.wait_for(ra.events.RemovalWritten)
        assert "pairwise-of-ann" not in str(captured)
    first.close()
    second.close()


@pytest.mark.parametrize("seed", range(30))
def test_a_store_that_has_lost_some_hides_none(store: Any, one: Any, judge: Any, clock: Any, seed: int) -> None:
    """As one that is restarted empty, or whose replica was behind: what is revoked then is learned of as well."""
    rng = random.Random(seed)
    writer, reader = one(), one()
    says, then = judge(reader), int(clock.wall())

    def revoke(whose: str, number: int) -> None:
        for each in range(number):
            writer.revoke([("sub", ISSUER, f"{whose}-{each}")], clock.wall())

    revoke("before", rng.randrange(4))
    kept = store.read("revocations", "latest")
    revoke("lost", rng.randrange(4))
    reader.look()
    if kept is None or rng.random() < 0.5:
        for record in [*store.scan("revocation"), *store.scan("revocations")]:
            store.erase(record.kind, record.name)
    else:
        store.write("revocations", "latest", kept.value, ttl=3600.0)
    number = 130 if seed == 0 else rng.randrange(1, 5)
    revoke("after", number)
    reader.look()
    assert [says(iat=then, sub=f"after-{each}") for each in range(number)] == ["denied"] * number


class Full(Dying):
    """A store whose disk is full: it tells what it holds, and takes nothing in."""

    def write(self, *given: Any, **options: Any) -> Any:
        if self.dead:
            raise ra.StoreUnavailable(self.label, "unwritable", "there is no place")
        return self._store.write(*given, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_who_cannot_write_goes_on_reading(store: Any, judge: Any, clock: Any, eventually: Any) -> None:
    """What waits for a store that takes nothing in keeps nobody from what others have revoked."""
    full = Full(store)
    first, second = Revocations(full, look_every=0.1), Revocations(store, look_every=0.1)  # type: ignore[arg-type]
    says, then = judge(first), int(clock.wall())
    full.dead = True
    with pytest.raises(ra.StoreUnavailable):
        first.revoke([("sub", ISSUER, "pairwise-of-bob")], clock.wall())
    assert says(iat=then) == ""
    second.revoke([("sub", ISSUER, "pairwise-of-ann")], clock.wall())
    eventually(lambda: says(iat=then) == "denied")
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("whose", "changes"),
    [
        (("mail", ISSUER, " Ann@Contoso.com "), {}),
        (("oid", TENANT.upper(), "6f6e2c3a-ann"), {}),
        (("oid", f"{{{TENANT}}}", f"{{{GUID.upper()}}}"), {"oid": GUID}),
        (("oid", TENANT, GUID.replace("-", "")), {"oid": GUID}),
        (("sub", ISSUER, GUID.upper()), {"sub": GUID}),
        (("sid", ISSUER, GUID.upper()), {"sid": GUID}),
    ],
)
def test_ids_are_compared_as_on_a_deny_list(
    one: Any, judge: Any, clock: Any, whose: tuple[str, str, str], changes: dict[str, str]
) -> None:
    """However people, portals and scripts write them; in the process that revokes, and in the others."""
    held, other, now = one(), one(), clock.wall()
    held.revoke([whose], now)
    other.look()
    for each in (held, other):
        assert judge(each)(iat=int(now), **changes) == "denied"


def test_too_many_make_an_issuer_strict(one: Any, judge: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be told apart any more is refused with all that is as old, at that issuer alone."""
    monkeypatch.setattr(revoked, "_MOST", 2)
    held = one()
    says, then = judge(held), int(clock.wall())
    for number in range(3):
        held.revoke([("sub", ISSUER, f"user-{number}")], clock.wall())
    assert len(held.deny.revoked) == 2
    assert says(iat=then) == "denied"
    other = [("sub", "https://other.example", f"user-{number}") for number in range(3)]
    clock.skip(2.0)
    held.revoke(other, clock.wall())
    assert says(iat=int(clock.wall()) + 1) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_looking(store: Any, judge: Any, clock: Any) -> None:
    """Its parent's timers aren't there."""
    from forked import in_a_child

    held, other = (Revocations(store, look_every=0.1) for _ in range(2))
    says, then = judge(held), int(clock.wall())

    def child() -> None:
        import time

        other.revoke([("sub", ISSUER, "pairwise-of-ann")], clock.wall())
        ends = time.monotonic() + 8.0
        while says(iat=then) != "denied":
            assert time.monotonic() < ends
            time.sleep(0.05)

    in_a_child(child)
    held.close()
    other.close()
