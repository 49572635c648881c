"""One token through any order of events: the promises hold in all of them."""

from __future__ import annotations

import logging

from flow_world import Caller, Process, Provider, World, check_patience, seeded
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilient_auth._engine import schedule
from resilient_auth.token import Token

logging.getLogger("resilient_auth").addHandler(logging.NullHandler())


class OneToken(RuleBasedStateMachine):
    """A token, its provider, its callers, and whoever removes or challenges it."""

    @initialize(seed=st.integers(0, 1000), life=st.sampled_from([320.0, 600.0, 3600.0]), held=st.booleans())
    def begin(self, seed: int, life: float, held: bool) -> None:
        self.world = World()
        self.provider = Provider(self.world, life=life, retry_after=45.0)
        self.process = Process.make(self.world, self.provider, jitter=seeded(seed))
        self.dropped: set[str] = set()
        self.asked = self.forgotten = 0
        self.callers: list[Caller] = []
        #: An exchange that was insisted on, or one from before a removal, may run beside the plain one.
        self.beside = False
        if held:
            self.process.hold(life=life)

    def ask(self, **options: bool | str) -> Caller:
        """Ask, and hold what is served against what was in hand."""
        self.beside = self.beside or bool(options)
        before = self.process.entry.token
        caller = self.process.ask(**options)
        self.callers.append(caller)
        self.asked += 1
        if not options and before is not None and before.remaining(self.world.wall(), self.world.now) > 0:
            self.must_be_served(caller, before)
        return caller

    def must_be_served(self, caller: Caller, token: Token) -> None:
        if not caller.done:
            self.world.advance(0.25)
        assert caller.done, "a caller with a valid token waits"
        assert caller.error is None, f"a valid token wasn't served: {caller.error!r}"
        assert caller.served is not None
        assert caller.served.token is not None, "a denial took the place of a valid token"

    @rule(seconds=st.one_of(st.floats(0.01, 15), st.floats(15, 400), st.sampled_from([5.0, 45.0, 60.0, 300.0, 1800.0])))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(mode=st.sampled_from(["up", "503", "503 later", "429", "html", "refuse", "hang", "denies"]))
    def becomes(self, mode: str) -> None:
        self.provider.mode = mode

    @rule(times=st.integers(1, 5))
    def asks(self, times: int) -> None:
        for _ in range(times):
            self.ask()

    @rule(every=st.floats(0.2, 3), times=st.integers(2, 30))
    def asks_on(self, every: float, times: int) -> None:
        for _ in range(times):
            self.ask()
            self.world.advance(every)

    @rule()
    def insists(self) -> None:
        self.ask(force=True)

    @precondition(lambda self: self.process.entry.token is not None)
    @rule()
    def challenges(self) -> None:
        """An API refuses the token: it is dropped, and asked for with the claims."""
        token = self.process.entry.token
        assert token is not None
        self.give_up()
        self.process.memory.drop_token(self.process.entry, token, "claims_challenge")
        self.dropped.add(token.secret)
        self.ask(claims='{"access_token": {}}')

    @rule()
    def removes(self) -> None:
        """The application removes it. Whoever waits has asked before that, and is left out."""
        token = self.process.entry.token
        self.give_up()
        self.process.memory.drop_all("removed")
        self.beside = True  # an exchange that began before goes on, and nobody joins it
        if token is not None:
            self.dropped.add(token.secret)

    def give_up(self) -> None:
        self.world.abandon()
        self.callers.clear()

    @rule()
    def pins(self) -> None:
        schedule.keep_fresh(self.process.engine, self.process.entry)

    @rule()
    def unpins(self) -> None:
        schedule.release(self.process.entry)

    @rule(seconds=st.sampled_from([-86_400.0, -60.0, 60.0, 1000.0]))
    def sets_the_clock(self, seconds: float) -> None:
        self.world.jump(seconds)

    @invariant()
    def no_expired_token_is_served(self) -> None:
        for caller in self.callers:
            token = caller.served.token if caller.served is not None else None
            if token is not None:
                assert caller.ended - token.obtained_at < token.life

    @invariant()
    def no_dropped_token_is_served(self) -> None:
        for caller in self.callers:
            # Callers are looked at after each rule: one that was served before the drop is gone by now.
            if caller.served is not None and caller.served.token is not None:
                assert caller.served.token.secret not in self.dropped
        self.callers = [caller for caller in self.callers if not caller.done]
        token = self.process.entry.token
        assert token is None or token.secret not in self.dropped, "a dropped token is back"

    @invariant()
    def one_request_at_a_time_and_none_in_a_back_off(self) -> None:
        if not self.beside:
            assert not self.provider.overlaps
            check_patience(self.provider.ledger)
        elif not self.process.engine.flights._flights:
            self.forgotten += len(self.provider.ledger)
            self.provider.ledger.clear()
            self.provider.overlaps.clear()
            self.beside = False

    @invariant()
    def nobody_waits_longer_than_his_patience(self) -> None:
        for caller in self.world._callers:
            assert self.world.now - caller.began <= 30.0 + 1e-6

    @invariant()
    def nothing_turns_in_a_circle(self) -> None:
        calls = self.forgotten + len(self.provider.ledger)
        assert self.world.jobs <= 10 + calls + self.asked + (self.world.now - 1_000.0) / 5.0
        assert self.world.entries <= 100 + 10 * (calls + self.asked) + (self.world.now - 1_000.0)


OneToken.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestOneToken = OneToken.TestCase
