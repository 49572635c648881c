"""Users, processes and a store that fails, at random: nobody signed out comes back, nobody signed in is unknown."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from typing import Any

from fleet_world import BreakableBackend
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import resilient_auth as ra
from resilient_auth._fleet.user_record import UserRecord
from resilient_auth._msal.identity import Ownership, identity_given
from resilient_auth._msal.session import Session
from resilient_auth._msal.user_cache import UserCache
from resilient_auth.testing import ManualClock
from resilient_auth.token import TokenRequest

AUTHORITY, HOST, REALM = "https://sso.example/t1", "sso.example", "t1"
ENDPOINT = f"{AUTHORITY}/oauth2/v2.0/token"
USERS = st.sampled_from(["ann", "bob"])
PROCESS = st.integers(0, 1)
OLD, NEW = os.urandom(32), os.urandom(32)


class Process:
    """An application as far as its session goes, with memory of its own."""

    def __init__(self, backend: BreakableBackend, clock: ManualClock, keys: list[bytes]) -> None:
        store = ra.SealedStore(backend, key=keys, clock=clock)
        self.session = Session(ra.Settings(store=store, clock=clock), {"token_cache": UserCache()})
        identity = identity_given({"client_id": "app", "authority": AUTHORITY})
        about = type("Authority", (), {"token_endpoint": ENDPOINT, "instance": HOST, "tenant": REALM})
        self.session.identify(identity, lambda: Ownership.of(identity, about))
        assert self.session.shared_cache is not None
        self.shared_cache = self.session.shared_cache

    def add(self, who: str, secret: str, *, grant: str) -> None:
        """Add what an exchange brought, as MSAL does."""
        told = base64.urlsafe_b64encode(json.dumps({"uid": who, "utid": "t"}).encode()).decode()
        claims = {"oid": who, "tid": "t", "preferred_username": f"{who}@contoso.com"}
        self.session.look_at_cache().add(
            {
                "client_id": "app", "scope": ["s"], "token_endpoint": ENDPOINT, "environment": HOST,
                "grant_type": grant, "data": {}, "skip_account_creation": grant == "refresh_token",
                "response": {
                    "access_token": f"at {secret}", "refresh_token": secret, "expires_in": 3600,
                    "client_info": told, "id_token_claims": claims,
                },
            }
        )  # fmt: skip

    def die(self) -> None:
        """Be killed: what isn't written never is."""
        self.shared_cache.after_fork()
        self.session.close()

    def refresh_token(self, who: str) -> str | None:
        """Find the refresh token that MSAL would use."""
        cache = self.session.look_at_cache()
        found = list(cache.search("RefreshToken", query={"home_account_id": f"{who}.t", "environment": HOST}))
        return found[0]["secret"] if found else None

    def accounts(self, who: str) -> list[str]:
        """Find the user by name, as `get_accounts` does."""
        return [entry["home_account_id"] for entry in self.session.accounts(f"{who}@contoso.com")]


class Users(RuleBasedStateMachine):
    """Two processes sign users in and out over one store, under one lease at a time as a fleet does."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.backend = BreakableBackend(self.clock)
        self.processes = [Process(self.backend, self.clock, [OLD]) for _ in range(2)]
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

    @rule(number=PROCESS, who=USERS)
    def sign_in(self, number: int, who: str) -> None:
        """A code is redeemed."""
        process = self.processes[number]
        with process.shared_cache.signing_in():
            process.add(who, f"{who} {next(self.numbers)}", grant="authorization_code")
        with contextlib.suppress(ra.StoreUnavailable):
            process.shared_cache.flush()
        self.signed_in[who] = True if process.shared_cache.settled else None

    @rule(number=PROCESS, who=USERS)
    def refresh(self, number: int, who: str) -> None:
        """Under the lease: looked up, exchanged, written."""
        process = self.processes[number]
        with contextlib.suppress(ra.StoreUnavailable):
            process.shared_cache.load(f"{who}.t")
        if process.refresh_token(who) is None:
            return
        request = TokenRequest(AUTHORITY, "app", "silent", ("s",), f"{who}.t")
        with contextlib.suppress(ra.StoreUnavailable):
            with process.shared_cache.saving_later():
                process.add(who, f"{who} {next(self.numbers)}", grant="refresh_token")
            process.shared_cache.save(f"{who}.t", request, None)

    @rule(number=PROCESS, who=USERS)
    def sign_out(self, number: int, who: str) -> None:
        """Made, or told."""
        process, subject = self.processes[number], f"{who}.t"
        try:
            with process.session.erasing(subject):
                process.session.evict(subject)
        except ra.StoreUnavailable:
            self.signed_in[who] = None
            assert process.shared_cache.removals_pending
        else:
            assert not self.backend.failing
            self.signed_in[who] = False
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
            self.signed_in[who] = removed_on is None or since >= removed_on

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
        self.processes[number] = Process(self.backend, self.clock, [OLD])
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
