"""Users, processes and a store that fails, at random: nobody signed out comes back, nobody signed in is unknown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from fleet_world import HOST, REALM, BreakableBackend, ClockAhead, Process
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import resilient_auth as ra
from resilient_auth._fleet.user_record import _SURELY_AFTER, UserRecord
from resilient_auth.testing import ManualClock
from resilient_auth.token import TokenRequest

USERS = st.sampled_from(["ann", "bob"])
PROCESS = st.integers(0, 1)
#: Seconds by which a machine's wall clock is ahead of the right time.
AHEAD = st.sampled_from([-50.0, -25.0, 0.0, 25.0, 50.0])
OLD, NEW = os.urandom(32), os.urandom(32)


class Users(RuleBasedStateMachine):
    """Two processes sign users in and out over one store, under one lease at a time as a fleet does.

    Their clocks differ, and the store may fail for the one and work for the other.
    """

    @initialize(ahead=st.tuples(AHEAD, AHEAD))
    def begin(self, ahead: tuple[float, float]) -> None:
        self.clock = ManualClock()
        self.backend = BreakableBackend(self.clock)
        self.clocks = [ClockAhead(self.clock, seconds) for seconds in ahead]
        self.processes = [Process(self.backend, clock, [OLD]) for clock in self.clocks]
        #: Whether each user is signed in; None where something that others can't know yet waits to be written.
        self.signed_in: dict[str, bool | None] = {"ann": False, "bob": False}
        self.numbers = iter(range(10_000))
        self.exports: list[dict[str, Any]] = []

    def teardown(self) -> None:
        if hasattr(self, "processes"):
            for each in self.processes:
                each.die()

    def settle(self) -> None:
        """Have everything written that waits."""
        for each in self.processes:
            with contextlib.suppress(ra.StoreUnavailable):
                each.shared_cache.flush()

    def all_written(self) -> bool:
        return all(each.shared_cache.settled for each in self.processes)

    def waits_to_be_removed(self, who: str) -> bool:
        """Whether a sign-out waits to be written somewhere."""
        held = [each.shared_cache._partitions.get(f"{who}.t") for each in self.processes]
        return any(each is not None and each.erase for each in held)

    @contextlib.contextmanager
    def gone(self, gone: bool) -> Iterator[None]:
        """Have the store fail meanwhile, for whoever calls it."""
        was, self.backend.failing = self.backend.failing, self.backend.failing or gone
        yield
        self.backend.failing = was

    @rule(number=PROCESS, who=USERS, gone=st.booleans())
    def sign_in(self, number: int, who: str, gone: bool) -> None:
        """A code is redeemed. A sign-out elsewhere that waits to be written will undo it."""
        with self.gone(gone):
            written = self.processes[number].sign_in(who, f"{who} {next(self.numbers)}")
        self.signed_in[who] = True if written and not self.waits_to_be_removed(who) else None

    @rule(number=PROCESS, who=USERS)
    def refresh(self, number: int, who: str) -> None:
        """Under the lease: looked up, exchanged, written."""
        process = self.processes[number]
        with contextlib.suppress(ra.StoreUnavailable):
            process.shared_cache.load(f"{who}.t")
        if process.refresh_token(who) is None:
            return
        request = TokenRequest(process.authority, "app", "silent", ("s",), f"{who}.t")
        with contextlib.suppress(ra.StoreUnavailable):
            with process.shared_cache.saving_later():
                process.add(who, f"{who} {next(self.numbers)}", grant="refresh_token")
            process.shared_cache.save(f"{who}.t", request, None)

    @rule(number=PROCESS, who=USERS, gone=st.booleans())
    def sign_out(self, number: int, who: str, gone: bool) -> None:
        """Made, or told."""
        process = self.processes[number]
        with self.gone(gone):
            made = process.sign_out(who)
        if made:
            assert not self.backend.failing
            self.signed_in[who] = False
        else:
            self.signed_in[who] = None
            assert process.shared_cache.removals_pending
        assert process.refresh_token(who) is None

    @rule(who=USERS)
    def export(self, who: str) -> None:
        """An old application writes its cache down."""
        secret = f"{who} {next(self.numbers)}"
        key = {"home_account_id": f"{who}.t", "environment": HOST}
        self.exports.append(
            {
                "RefreshToken": [
                    {**key, "credential_type": "RefreshToken", "client_id": "app", "secret": secret, "target": "s",
                     "last_modification_time": str(int(self.clock.wall()))},
                ],
                "Account": [
                    {**key, "realm": REALM, "local_account_id": who, "username": f"{who}@contoso.com",
                     "authority_type": "MSSTS", "account_source": "authorization_code"},
                ],
            }
        )  # fmt: skip
        # Signing in there is signing in: it counts from the import on.
        self.clock.advance(2.0)

    @precondition(lambda self: self.backend.failing)
    @rule()
    def recover_soon(self) -> None:
        """Outages are short."""
        self.recover()

    @precondition(lambda self: self.exports)
    @rule(number=PROCESS, data=st.data())
    def bring_in(self, number: int, data: st.DataObject) -> None:
        """At a start, an export that may be older than a sign-out."""
        export = data.draw(st.sampled_from(self.exports))
        who = export["Account"][0]["local_account_id"]
        process = self.processes[number]
        since = float(export["RefreshToken"][0]["last_modification_time"])
        removed_on = self.removed_on(who)
        process.session.bring_in(export)
        if self.backend.failing or not process.shared_cache.settled:
            self.signed_in[who] = None
        elif self.signed_in[who] is False:
            self.signed_in[who] = removed_on is None or since > removed_on + _SURELY_AFTER

    def removed_on(self, who: str) -> float | None:
        """When the store says that a user was signed out."""
        kept = self.stored(who)
        return kept.removed_on if kept is not None and kept.removed else None

    def stored(self, who: str) -> UserRecord | None:
        """What the store has of a user."""
        was, self.backend.failing = self.backend.failing, False
        records = Process(self.backend, self.clock, [NEW, OLD]).shared_cache.stored
        user_record = next(records.partitions([f"{self.processes[0].shared_cache.label} {who}.t"]))
        self.backend.failing = was
        return user_record

    @rule(gone=st.integers(0, 2))
    def fail(self, gone: int) -> None:
        """The store is gone, once in three times: what it does while it works is to be seen too."""
        self.backend.failing = self.backend.failing or not gone

    # No precondition on what is written: that happens in the background, and which rules there are must not go by it.
    @rule()
    def recover(self) -> None:
        """It is back, and what waits is written."""
        self.backend.failing = False
        self.clock.advance(12.0)
        self.settle()
        if self.all_written():
            for who, known in self.signed_in.items():
                if known is None:
                    kept = self.stored(who)  # what a process had still to write may have died with it
                    self.signed_in[who] = kept is not None and not kept.removed

    @rule(number=PROCESS)
    def restart(self, number: int) -> None:
        """With memory of nothing; what it had still to write is lost, and its callers were told."""
        lost = not self.processes[number].shared_cache.settled
        self.processes[number].die()
        self.processes[number] = Process(self.backend, self.clocks[number], [OLD])
        if lost:
            self.signed_in = dict.fromkeys(self.signed_in)

    @rule(seconds=st.sampled_from([1.0, 70.0, 90_000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @invariant()
    def each_user_is_found_or_not_as_they_are(self) -> None:
        """By a process that knows nothing: never an empty list while the store can't say, never one who left."""
        if not hasattr(self, "processes"):
            return
        fresh = Process(self.backend, self.clock, [OLD])
        for who, known in self.signed_in.items():
            if self.backend.failing:
                try:
                    found: list[str] | None = fresh.accounts(who)
                except ra.StoreUnavailable:
                    found = None
                assert found is None
                continue
            if known is None or not self.all_written():
                continue
            fresh.shared_cache.load(f"{who}.t")
            assert (fresh.refresh_token(who) is not None) is known, who
            assert bool(fresh.accounts(who)) is known, who
        fresh.session.close()


TestUsers = Users.TestCase
TestUsers.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)
