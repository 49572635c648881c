"""The store fails at one of the calls that a request makes, whichever: no 500, and nobody's session but their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from failing_site import AUDIENCE, HOW, World
from signin_site import BASE

from resilient_auth.emulator import Fault

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
HOUR = 3600.0


class Case:
    """One user before a request, the request, and what must be true after it."""

    wants_page = True

    def __init__(self, world: World, number: int) -> None:
        self.world, self.one, self.other = world, world.one, world.other
        self.name = f"user{number}"
        self.browser = self.one.another_browser()

    def begin(self) -> None:
        """What was before."""

    def ask(self) -> Any:
        """Make the request."""
        raise NotImplementedError

    def told(self, answer: Any) -> None:
        """Look at what is true as it is answered: the process that has answered may be killed now."""

    def judge(self, answer: Any) -> None:
        """Look at what came of it, when the store works again."""

    def signed_in(self, cookie: str) -> None:
        self.first = cookie
        self.browser.set_cookie("__Host-session", cookie, domain="app.example", secure=True)

    @property
    def cookie(self) -> str | None:
        return self.one.cookie(browser=self.browser)

    def is_in(self, cookie: str | None, told: str) -> None:
        assert [process.in_as(cookie) for process in (self.one, self.other)] == [told] * 2

    def is_out(self, cookie: str | None) -> None:
        assert all(process.in_as(cookie) in ("303", "503") for process in (self.one, self.other))


class Beginning(Case):
    def ask(self) -> Any:
        return self.one.get("/me", self.browser)

    def judge(self, answer: Any) -> None:
        assert answer.status_code in (303, 503)
        assert self.cookie is None


class Callback(Case):
    """In place of a session of somebody else's in the same browser."""

    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name))
        self.form = self.world.form(self.one.begin("/sign-in?next=/me", self.browser), self.name)

    def ask(self) -> Any:
        return self.one.post("/signed-in", self.form, self.browser)

    def judge(self, answer: Any) -> None:
        if answer.status_code == 303:
            self.is_in(self.cookie, f"me {self.name.title()}")
            self.is_out(self.first)
        else:
            assert answer.status_code == 503
            assert self.cookie == self.first
        again = self.world.form(self.one.begin("/sign-in?next=/me", self.browser), self.name)
        assert self.one.post("/signed-in", again, self.browser).status_code == 303
        self.is_in(self.cookie, f"me {self.name.title()}")
        found = self.other.auth.engine.site.sessions.find(self.cookie or "")
        assert found is not None
        # What was half made is none of the user's, of whom there may be so many.
        kept = self.other.auth.engine.site.sessions
        names = kept._lists.read(f"sub {self.world.issuer} {found.session.who.subject}").sessions
        assert sum(kept.get(name) is not None for name in names) == 1


class Touched(Case):
    after = 61.0

    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name))
        self.world.clock.advance(self.after)

    def ask(self) -> Any:
        return self.one.get("/me", self.browser)

    def judge(self, answer: Any) -> None:
        assert answer.status_code == 503 or answer.text == f"me {self.name.title()}"
        self.is_in(self.cookie, f"me {self.name.title()}")


class Rotated(Touched):
    after = 901.0


class Extended(Case):
    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name))
        self.ends = self.world.clock.wall() + 1800.0
        self.world.clock.advance(HOUR)
        self.world.emulator.fail(Fault.reset())

    def ask(self) -> Any:
        return self.one.get("/me", self.browser)

    def judge(self, answer: Any) -> None:
        told = f"me {self.name.title()} extended"
        assert answer.status_code == 503 or answer.text == told
        self.is_in(self.cookie, told)
        self.world.clock.advance(self.ends + 4 * HOUR - self.world.clock.wall() + 1.0)
        self.is_out(self.cookie)
        self.world.emulator.heal()
        self.world.clock.advance(60.0)


class SigningOut(Case):
    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name))

    def ask(self) -> Any:
        return self.one.post("/sign-out", {}, self.browser, sec_fetch_site="same-origin")

    def judge(self, answer: Any) -> None:
        if answer.status_code == 503:
            # It wasn't done, and the browser is told so.
            assert self.cookie == self.first
            assert self.ask().status_code in (200, 303)
        assert self.cookie is None
        self.is_out(self.first)


class Ended(Case):
    """By the provider: whoever it answers that it is done has it written."""

    wants_page = False
    revokes = 1

    def told(self, answer: Any) -> None:
        self.other.revocations.look()
        if answer.status_code in (200, 202):
            self.world.clock.advance(0.1)
            assert self.other.in_as(self.first) == "303"
            assert len(self.other.revocations.deny.revoked) == self.revoked + self.revokes

    def signed_in(self, cookie: str) -> None:
        super().signed_in(cookie)
        self.other.revocations.look()
        self.revoked = len(self.other.revocations.deny.revoked)


class BackChannel(Ended):
    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name, f"sid {self.name}"))
        self.token = self.world.token("logout+jwt", aud="web", events={LOGOUT: {}}, sid=f"sid {self.name}")

    def ask(self) -> Any:
        return self.one.post("/sign-out/back-channel", {"logout_token": self.token}, self.one.another_browser())

    def judge(self, answer: Any) -> None:
        if answer.status_code != 200:
            assert (answer.status_code, answer.json["error"]) == (400, "temporarily_unavailable")
            # Without its being sent again, too.
            self.is_out(self.first)
            self.other.post("/sign-out/back-channel", {"logout_token": self.token}, self.other.another_browser())
        self.is_out(self.first)
        again = self.other.post("/sign-out/back-channel", {"logout_token": self.token}, self.other.another_browser())
        assert (again.status_code, again.json["error"]) == (400, "invalid_request")
        # Whoever signs in again is let in.
        self.world.clock.advance(10.0)
        self.is_in(self.world.begin(self.name), f"me {self.name.title()}")


class FrontChannel(Ended):
    revokes = 0

    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name, self.name))

    def ask(self) -> Any:
        told = {"iss": self.world.issuer, "sid": self.name}
        return self.browser.get("/sign-out/front-channel", base_url=BASE, query_string=told)

    def judge(self, answer: Any) -> None:
        assert answer.status_code in (200, 503)
        self.is_out(self.first)


class Signals(Ended):
    event = REVOKED

    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name))
        subject = {"format": "iss_sub", "iss": self.world.issuer, "sub": self.name}
        self.token = self.world.token("secevent+jwt", aud=AUDIENCE, sub_id=subject, events={self.event: {}})

    def ask(self, process: Any = None) -> Any:
        client = (process or self.one).another_browser()
        return client.post("/signals", base_url=BASE, data=self.token, content_type="application/secevent+jwt")

    def judge(self, answer: Any) -> None:
        assert answer.status_code in (202, 503)
        self.is_out(self.first)
        assert self.ask(self.other).status_code == 202
        self.is_out(self.first)


class Changed(Signals):
    """Tokens end, and the session goes on."""

    event = "https://schemas.openid.net/secevent/caep/event-type/token-claims-change"

    def told(self, answer: Any) -> None:
        self.other.revocations.look()
        if answer.status_code == 202:
            assert len(self.other.revocations.deny.revoked) == self.revoked + 1

    def judge(self, answer: Any) -> None:
        assert answer.status_code in (202, 503)
        assert self.ask(self.other).status_code == 202
        self.is_in(self.first, f"me {self.name.title()}")


class Anybody(Case):
    """A page for whoever comes, with the user's name where there is one."""

    def begin(self) -> None:
        self.signed_in(self.world.begin(self.name))
        self.world.clock.advance(901.0)

    def ask(self) -> Any:
        return self.one.get("/", self.browser)

    def judge(self, answer: Any) -> None:
        assert answer.text in (f"hello {self.name.title()}", "hello stranger")
        assert self.one.get("/", self.browser).text == f"hello {self.name.title()}"
        self.is_in(self.cookie, f"me {self.name.title()}")


class Dark(Case):
    """While the provider can't be reached."""

    def begin(self) -> None:
        self.world.emulator.fail(Fault.reset())
        self.world.clock.advance(10.0)

    def form(self, path: str, **data: str) -> Any:
        return self.one.post(path, data, self.browser, origin=BASE)

    def judge(self, answer: Any) -> None:
        self.world.emulator.heal()
        self.world.clock.advance(10.0)


class Guest(Dark):
    def ask(self) -> Any:
        return self.form("/sign-in/guest", next="/")

    def judge(self, answer: Any) -> None:
        assert answer.status_code in (303, 503)
        assert (answer.status_code == 303) == (self.cookie is not None)
        told = "hello Guest" if self.cookie else "hello stranger"
        assert self.one.get("/", self.browser).text == told
        super().judge(answer)


class AskedForCode(Dark):
    def ask(self) -> Any:
        return self.form("/sign-in/code", address=f"{self.name}@contoso.com")

    def judge(self, answer: Any) -> None:
        assert answer.status_code in (200, 503)
        assert self.cookie is None
        super().judge(answer)


class Code(AskedForCode):
    def begin(self) -> None:
        super().begin()
        assert super().ask().status_code == 200
        assert self.world.arrived.acquire(timeout=10.0)
        self.code = self.world.sent[-1]

    def ask(self) -> Any:
        return self.form("/sign-in/code/check", code=self.code)

    def judge(self, answer: Any) -> None:
        assert answer.status_code in (303, 503)
        assert (answer.status_code == 303) == (self.cookie is not None)
        if answer.status_code == 303:
            self.is_in(self.cookie, "me Coded")
            assert self.ask().status_code == 400
        Dark.judge(self, answer)


class Token(Case):
    wants_page = False

    def begin(self) -> None:
        address = self.one.begin("/me", self.browser)
        assert self.one.post("/signed-in", self.world.form(address, self.name), self.browser).status_code == 303
        self.first = self.cookie
        # Another process has nothing but what is in the store.
        self.browser.application = self.other.app

    def ask(self) -> Any:
        return self.other.get("/token", self.browser)

    def judge(self, answer: Any) -> None:
        assert answer.text.count(".") == 2 if answer.status_code == 200 else answer.status_code in (303, 503)
        self.is_in(self.first, f"me {self.name.title()}")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", [
    Beginning, Callback, Touched, Rotated, Extended, SigningOut, BackChannel, FrontChannel, Signals, Changed, Guest,
    AskedForCode, Code, Token, Anybody,
])  # fmt: skip
def test_it_is_all_or_nothing(world: World, case: Callable[[World, int], Case], how: str) -> None:
    """Who is let in is who has signed in; what is ended stays ended; another user notices nothing."""
    bob = world.begin("bob")
    for number in itertools.count(1):
        one = case(world, number)
        one.begin()
        bob = world.begin("bob")
        with world.medium.failing(number, how):
            answer = one.ask()
        calls = world.medium.calls
        one.told(answer)
        world.calm()
        assert answer.status_code != 500, (number, answer.text)
        # No 503 of the framework's for an error that nobody has caught.
        assert answer.status_code != 503 or not one.wants_page or "wait a moment" in answer.text, (number, answer.text)
        one.judge(answer)
        if case is not Extended:
            assert world.other.in_as(bob) == "me Bob"
        if calls < number:
            break
    assert number > 1
