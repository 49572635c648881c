"""A request is cancelled at one of its awaits, whichever: nothing is left half made, held, or another's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from awaiting_site import Awaiting, Visitor
from failing_site import AUDIENCE, World
from signin_site import BASE

from resilient_auth._engine import threads
from resilient_auth.emulator import Fault

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"


@pytest.fixture
def site(world: World) -> Iterator[Awaiting]:
    made = Awaiting(world)
    yield made
    made.close()


class Case:
    """A request, and what must be true once it was cancelled; then it is made once more."""

    def __init__(self, site: Awaiting, number: int) -> None:
        self.site, self.world = site, site.world
        self.name = f"user{number}"

    async def begin(self) -> None:
        self.first: str | None = self.world.begin(self.name, self.name)
        self.visitor = Visitor(self.site, self.first)

    async def ask(self, **at: Any) -> Any:
        return await self.visitor.ask("GET", "/me", **at)

    async def judge(self) -> None:
        assert await self.ask() == (200, f"me {self.name.title()}", "")
        self.is_in(self.visitor.cookies["__Host-session"], self.name.title())

    def is_in(self, cookie: str | None, name: str) -> None:
        assert [each.in_as(cookie) for each in (self.world.one, self.world.other)] == [f"me {name}"] * 2

    def is_out(self, cookie: str | None) -> None:
        self.world.clock.advance(0.1)
        assert [each.in_as(cookie) for each in (self.world.one, self.world.other)] == ["303"] * 2

    def sessions(self, subject: str) -> int:
        """Return how many there are of a user."""
        kept = self.world.one.auth.engine.site.sessions
        ids = kept._lists.read(f"sub {self.world.issuer} {subject}").sessions
        return sum(kept.get(each) is not None for each in ids)


class Beginning(Case):
    async def begin(self) -> None:
        self.visitor = Visitor(self.site)

    async def judge(self) -> None:
        answer = await self.ask()
        assert answer is not None
        assert answer[0] == 303


class Callback(Case):
    async def begin(self) -> None:
        await super().begin()
        await self.sign_in()

    async def sign_in(self) -> None:
        answer = await self.visitor.ask("GET", "/sign-in?next=/me")
        assert answer is not None
        self.form = await asyncio.to_thread(self.world.form, answer[2], self.name)

    async def ask(self, **at: Any) -> Any:
        return await self.visitor.ask("POST", "/signed-in", self.form, **at)

    async def judge(self) -> None:
        assert self.visitor.cookies["__Host-session"] == self.first
        await self.sign_in()
        answer = await self.ask()
        assert answer is not None
        assert answer[0] == 303
        kept = self.site.auth.engine.site.sessions.find(self.visitor.cookies["__Host-session"])
        assert kept is not None
        # The one that nobody was told of is none any more, and neither is the one before.
        self.world.calm()
        assert self.sessions(kept.session.who.subject) == 1
        self.is_out(self.first)


class Touched(Case):
    after = 61.0

    async def begin(self) -> None:
        await super().begin()
        self.world.clock.advance(self.after)


class Rotated(Touched):
    after = 901.0


class Extended(Case):
    async def begin(self) -> None:
        await super().begin()
        self.world.clock.advance(3600.0)
        self.world.emulator.fail(Fault.reset())

    async def judge(self) -> None:
        assert await self.ask() == (200, f"me {self.name.title()} extended", "")
        self.world.emulator.heal()
        self.world.clock.advance(60.0)


class SigningOut(Case):
    async def ask(self, **at: Any) -> Any:
        return await self.visitor.ask("POST", "/sign-out", sec_fetch_site="same-origin", **at)

    async def judge(self) -> None:
        answer = await self.ask()
        assert answer is not None
        assert answer[0] in (200, 303)
        assert "__Host-session" not in self.visitor.cookies
        self.is_out(self.first)


class BackChannel(Case):
    async def begin(self) -> None:
        await super().begin()
        claims = {"aud": "web", "events": {LOGOUT: {}}, "sid": self.name}
        self.token = await asyncio.to_thread(lambda: self.world.token("logout+jwt", **claims))

    async def ask(self, **at: Any) -> Any:
        return await self.visitor.ask("POST", "/sign-out/back-channel", {"logout_token": self.token}, **at)

    async def judge(self) -> None:
        answer = await self.ask()
        assert answer is not None
        # It may have been done before: then it counts no second time.
        assert answer[0] in (200, 400)
        self.is_out(self.first)


class FrontChannel(Case):
    async def ask(self, **at: Any) -> Any:
        return await self.visitor.ask("GET", f"/sign-out/front-channel?iss={self.world.issuer}&sid={self.name}", **at)

    async def judge(self) -> None:
        assert await self.ask() == (200, "", "")
        self.is_out(self.first)


class Signals(Case):
    async def begin(self) -> None:
        await super().begin()
        subject = {"format": "iss_sub", "iss": self.world.issuer, "sub": self.name}
        claims = {"aud": AUDIENCE, "sub_id": subject, "events": {REVOKED: {}}}
        self.token = await asyncio.to_thread(lambda: self.world.token("secevent+jwt", **claims))

    async def ask(self, **at: Any) -> Any:
        kind = "application/secevent+jwt"
        return await self.visitor.ask("POST", "/signals", body=self.token.encode(), kind=kind, **at)

    async def judge(self) -> None:
        assert await self.ask() == (202, "", "")
        self.is_out(self.first)


class Guest(Case):
    async def begin(self) -> None:
        self.visitor, self.before = Visitor(self.site), self.guests()
        self.world.emulator.fail(Fault.reset())
        self.world.clock.advance(10.0)

    def guests(self) -> set[str]:
        return set(self.world.one.auth.engine.site.sessions._lists.read("guests").sessions)

    async def ask(self, **at: Any) -> Any:
        return await self.visitor.ask("POST", "/sign-in/guest", {"next": "/"}, origin=BASE, **at)

    async def judge(self) -> None:
        assert "__Host-session" not in self.visitor.cookies
        assert await self.ask() == (303, "", "/")
        self.world.calm()
        assert len(self.guests() - self.before) == 1
        self.world.emulator.heal()
        self.world.clock.advance(10.0)


class Token(Callback):
    async def begin(self) -> None:
        await super().begin()
        await Callback.ask(self)
        self.world.clock.advance(1800.0 - 60.0)

    async def ask(self, **at: Any) -> Any:
        return await self.visitor.ask("GET", "/token", **at)

    async def judge(self) -> None:
        answer = await self.ask()
        assert answer is not None
        assert (answer[0], answer[1].count(".")) == (200, 2)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "as it comes"])
@pytest.mark.parametrize("case", [
    Beginning, Callback, Touched, Rotated, Extended, SigningOut, BackChannel, FrontChannel, Signals, Guest, Token,
])  # fmt: skip
async def test_nothing_is_left(site: Awaiting, case: type[Case], late: bool, eventually: Any) -> None:
    """The next request finds what it would have found, or what it would have made; and nobody else notices."""
    for number in itertools.count(1):
        one = case(site, number)
        await one.begin()
        bob = site.world.begin("bob")
        await one.ask(number=number, late=late)
        if one.visitor.awaits < number:
            break
        # Whoever works for who was cancelled goes on for a moment.
        await asyncio.to_thread(eventually, lambda: _idle(site))
        await one.judge()
        assert site.world.other.in_as(bob) == "me Bob"
    assert number > 1
    print("AWAITS", case.__name__, late, number)


def _idle(site: Awaiting) -> bool:
    lanes = threads._workers._lanes
    return not site.auth.engine.site.primary.watch.engine.flights._flights and not any(lanes.values())
