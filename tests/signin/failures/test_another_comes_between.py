"""Between two of one's calls of the store another one does all of its own, in whichever process: no end is lost."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from test_sessions import ISSUER, Medium, who

import resilient_auth as ra
from resilient_auth.errors import StoreUnavailable
from resilient_auth.signin import SessionOptions, Sessions
from resilient_auth.testing import ManualClock

KEY = os.urandom(32)
OPTIONS = SessionOptions(idle=300.0, lifetime=3600.0, extension=600.0, rotate_every=60.0, overlap=10.0, per_user=3)


class Between(Medium):
    """Has something done before its n-th call."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.what: Callable[[], Any] | None = None
        self.before = 0

    def _called(self) -> None:
        super()._called()
        if self.what is not None and self.calls == self.before:
            what, self.what = self.what, None
            what()


class Scene:
    """A user's session, which two processes know and whose id is due to change."""

    def __init__(self, after: float) -> None:
        self.clock = ManualClock(1_000_000_000.0)
        self.medium = Between(self.clock)
        self.fleet = [
            Sessions(ra.SealedStore(self.medium, key=KEY, clock=self.clock), OPTIONS, clock=self.clock)
            for _ in range(2)
        ]
        self.session, cookie = self.fleet[0].create(who(sid="s"))
        self.cookies = [cookie]
        self.clock.advance(after)
        #: As both have read it, and as it is found by who comes then.
        self.found: Any = [each.find(cookie) for each in self.fleet]
        # What they have read counts no more.
        self.clock.advance(1.1)

    def do(self, what: str, process: int) -> None:
        sessions, found = self.fleet[process], self.found[process]
        if what == "renew":
            self._given(sessions.renew(found)[1])
        elif what == "rotate":
            self._given(sessions.rotate(found, anyway=True))
        elif what == "extend":
            sessions.extend(found)
        elif what == "find":
            sessions.find(self.cookies[0])
        elif what == "end":
            sessions.end(self.session.id)
        elif what == "end a user's":
            sessions.end_where(ISSUER, subject="ada")
        elif what == "end a provider's":
            sessions.end_where(ISSUER, sid="s", begun_by=self.clock.wall())
        elif what == "crowd":
            for _ in range(OPTIONS.per_user):
                self._begun(sessions)
        else:
            self._begun(sessions)

    def _given(self, cookie: str | None) -> None:
        if cookie is not None:
            self.cookies.append(cookie)

    def _begun(self, sessions: Sessions) -> None:
        # Whoever is ended as they begin is told that the store is busy.
        with suppress(StoreUnavailable):
            self._given(sessions.create(who(sid="s"))[1])


ENDS = ["end", "end a user's", "end a provider's", "crowd"]
OTHERS = ["renew", "rotate", "extend", "find", "begin"]


def _each(first: str, then: str, together: bool, after: float) -> Any:
    """Yield a scene for each call of the first one's before which the second one comes."""
    for number in itertools.count(1):
        scene = Scene(after)
        scene.medium.calls, scene.medium.before = 0, number
        scene.medium.what = lambda scene=scene: scene.do(then, 0 if together else 1)
        scene.do(first, 0)
        if scene.medium.what is not None:
            assert number > 1
            return
        yield scene, number


@pytest.mark.parametrize("together", [True, False], ids=["in one process", "in two"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("within", [True, False], ids=["within it", "around it"])
def test_what_is_ended_is_over(other: str, end: str, within: bool, together: bool) -> None:
    """At once where it was ended, and in the other process as soon as that looks."""
    first, then = (other, end) if within else (end, other)
    for scene, number in _each(first, then, together, after=400.0 if other == "extend" else 61.0):
        ender = 1 if within and not together else 0
        # Who has read by then that nothing was ended, of the user and of the provider's session, is out, or was told.
        begun_before = other == "begin" and within and number > 2 and end.startswith("end a")
        old = scene.cookies if begun_before or (other != "begin" and end != "crowd") else scene.cookies[:1]
        for cookie in old if end != "crowd" else ():
            assert scene.fleet[ender].find(cookie) is None, number
        scene.clock.advance(1.1)
        for cookie in old:
            assert [each.find(cookie) for each in scene.fleet] == [None, None], number


@pytest.mark.parametrize("together", [True, False], ids=["in one process", "in two"])
@pytest.mark.parametrize(("first", "then"), [*itertools.product(["renew", "rotate", "find", "begin"], repeat=2)])
def test_nobody_is_signed_out(first: str, then: str, together: bool) -> None:
    """Whichever answer a browser keeps: each id that was given is good, and so is the one before for a while."""
    for scene, number in _each(first, then, together, after=61.0):
        for _ in range(2):
            for cookie in scene.cookies:
                assert all(each.find(cookie) is not None for each in scene.fleet), (number, len(scene.cookies))
            scene.clock.advance(1.1)
