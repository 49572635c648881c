"""Many users, tabs and processes, with ends, lost answers, restarts and a clock: nobody ever has another's session.

python -m tests.signin.session_machine 2000    # examples; the short form is in test_session_machine.py
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from resilient_auth import SealedStore
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.errors import StoreUnavailable
from resilient_auth.signin import SessionOptions, Sessions, Who
from resilient_auth.store import BackendFailed
from resilient_auth.testing import ManualClock

__all__ = ["SessionMachine", "run"]

ISSUER = "https://idp.example"
USERS = ("ada", "bob", "eve")
OPTIONS = SessionOptions(
    idle=300.0,
    lifetime=1800.0,
    extension=600.0,
    rotate_every=60.0,
    overlap=10.0,
    per_user=50,
    recheck=1.0,
    stale_if_error=20.0,
)


class Medium(MemoryBackend):
    down = False

    def get_many(self, keys: Any) -> Any:
        if self.down:
            raise BackendFailed("timeout")
        return super().get_many(keys)

    def get(self, key: str) -> Any:
        if self.down:
            raise BackendFailed("timeout")
        return super().get(key)

    def put(self, *args: Any, **options: Any) -> Any:
        if self.down:
            raise BackendFailed("timeout")
        return super().put(*args, **options)

    def delete(self, *args: Any, **options: Any) -> Any:
        if self.down:
            raise BackendFailed("timeout")
        return super().delete(*args, **options)


@dataclass
class Browser:
    """What one browser holds, and what must be true of it."""

    user: str
    sid: str
    session: str
    cookie: str
    started: float
    #: When a request of it was last certainly written down, and last made.
    seen: float
    extended: float | None = None
    #: When it was ended, and whether the store knows.
    ended: float | None = None


class SessionMachine(RuleBasedStateMachine):
    """A fleet of three processes over one store, which keep what they have read while that fails."""

    browsers = Bundle("browsers")

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(1_000_000_000.0)
        self.medium = Medium(clock=self.clock)
        self.key = os.urandom(32)
        self.fleet = [self._process() for _ in range(3)]
        self.all: list[Browser] = []

    def _process(self) -> Sessions:
        return Sessions(SealedStore(self.medium, key=self.key, clock=self.clock), OPTIONS, clock=self.clock)

    @rule(target=browsers, process=st.integers(0, 2), user=st.sampled_from(USERS), sid=st.sampled_from("12"))
    def sign_in(self, process: int, user: str, sid: str) -> Any:
        who = Who(provider="x", issuer=ISSUER, subject=user, sid=f"{user}{sid}", name=user)
        session, cookie = self.fleet[process].create(who)
        now = self.clock.wall()
        browser = Browser(user, f"{user}{sid}", session.id, cookie, now, now)
        self.all.append(browser)
        return browser

    @rule(browser=browsers, processes=st.lists(st.integers(0, 2), min_size=1, max_size=4), lost=st.booleans())
    def requests(self, browser: Browser, processes: list[int], lost: bool) -> None:
        """Requests of several tabs, all with the same cookie; the answers come back in the end, or are lost."""
        now, sent, given = self.clock.wall(), browser.cookie, []
        for process in processes:
            sessions = self.fleet[process]
            found = sessions.find(sent)
            if browser.ended is not None:
                assert found is None or now - browser.ended <= OPTIONS.recheck, "an ended session was found"
                continue
            live = now < min(browser.seen + OPTIONS.idle, browser.started + OPTIONS.lifetime)
            if live:
                assert found is not None, "signed out before its end"
            if found is None:
                continue
            assert found.session.who.subject == browser.user, "another's session"
            assert found.session.id == browser.session
            # It may have been touched without that having been certain, never the other way round.
            assert not live or found.standing == "live"
            last = min(found.session.seen + OPTIONS.idle, browser.started + OPTIONS.lifetime) + OPTIONS.extension
            assert now < last, "in after its end"
            if found.standing == "live":
                _, cookie = sessions.renew(found)
                if cookie is not None:
                    given.append(cookie)
                    browser.seen = now
                elif found.session.touched(found.digest, OPTIONS, now) is None:
                    browser.seen = max(browser.seen, found.session.seen)
            else:
                extended, _ = sessions.extend(found)
                assert browser.extended in (None, extended.extended), "extended twice"
                browser.extended = extended.extended
        if given and not lost:
            browser.cookie = given[-1]

    @rule(seconds=st.sampled_from([0.5, 1.1, 11.0, 61.0, 250.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(browser=browsers, process=st.integers(0, 2))
    def sign_out(self, browser: Browser, process: int) -> None:
        self.fleet[process].end(browser.session)
        browser.ended = browser.ended or self.clock.wall()
        assert self.fleet[process].find(browser.cookie) is None, "not ended here at once"

    @rule(process=st.integers(0, 2), user=st.sampled_from(USERS), sid=st.sampled_from(["", "1", "2"]))
    def provider_ends(self, process: int, user: str, sid: str) -> None:
        self.fleet[process].end_where(ISSUER, sid=f"{user}{sid}" if sid else None, subject=user)
        for browser in self.all:
            if browser.user == user and (not sid or browser.sid == f"{user}{sid}"):
                browser.ended = browser.ended or self.clock.wall()
                assert self.fleet[process].find(browser.cookie) is None, "not ended here at once"

    @rule(process=st.integers(0, 2))
    def restart(self, process: int) -> None:
        self.fleet[process] = self._process()

    @rule(
        browser=browsers,
        process=st.integers(0, 2),
        read=st.booleans(),
        seconds=st.sampled_from([1.1, 10.0, 19.0, 21.0]),
        elsewhere=st.booleans(),
    )
    def store_fails(self, browser: Browser, process: int, read: bool, seconds: float, elsewhere: bool) -> None:
        """Nobody is let in unseen: not by what wasn't read, and not for longer than the owner allows."""
        sessions = self.fleet[process]
        before = sessions.find(browser.cookie) if read else None
        if elsewhere and browser.ended is None:
            self.sign_out(browser, (process + 1) % 3)
        self.medium.down = True
        self.clock.advance(seconds)
        now = self.clock.wall()
        try:
            found = sessions.find(browser.cookie)
            assert found is not None, "signed out by a failure of the store"
            assert found.session.who.subject == browser.user, "another's session"
            assert browser.ended is None or now - browser.ended <= OPTIONS.stale_if_error, "in after the bound"
        except StoreUnavailable:
            if before is not None and seconds < OPTIONS.stale_if_error - OPTIONS.recheck:
                over = before.session.standing(OPTIONS, now) == "over"
                assert over or not before.session.knows(before.digest, now), "not let in by what was just read"
        finally:
            self.medium.down = False
        self.clock.advance(31.0)

    @rule(one=browsers, other=browsers)
    def mixed(self, one: Browser, other: Browser) -> None:
        """An id of one session with another one's secret."""
        if one is not other:
            forged = f"{one.cookie.partition('.')[0]}.{other.cookie.partition('.')[2]}"
            assert self.fleet[0].find(forged) is None


def run(examples: int, steps: int) -> None:
    """Try so many fleets, each for so many steps."""
    run_state_machine_as_test(
        SessionMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 500, 60)
    sys.stdout.write("nobody had another's session\n")
