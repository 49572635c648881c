"""When signed-in users' sessions end in an outage: what the forecast says, and what then happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from signin_site import BASE, Site

import resilient_auth as ra
from resilient_auth.emulator import Fault
from resilient_auth.health import GoesDark
from resilient_auth.signin import SessionOptions, SignInOptions
from resilient_auth.signin.sessions import recent

MINUTE, HOUR = 60.0, 3600.0
#: Seconds by which the forecast may be off.
OFF = 5.0
#: Half an hour without a request, two hours in all, and one more in an outage.
BOUNDS = SessionOptions(idle=30 * MINUTE, lifetime=2 * HOUR, extension=HOUR)


def bounded(make_site: Callable[..., Site], **bounds: float) -> Site:
    return make_site(options=SignInOptions(sessions=replace(BOUNDS, **bounds), guests=True))


def foreseen() -> list[GoesDark]:
    return [part for part in ra.health().forecast.parts if part.kind == "sessions"]  # type: ignore[union-attr]


def test_they_end_when_it_is_forecast(make_site: Callable[..., Site]) -> None:
    """Who goes on is in until the lifetime and its extension are over; who is past the end has the extension left."""
    site = bounded(make_site)
    assert foreseen() == []
    away = site.another_browser()
    site.sign_in(browser=away)
    site.clock.advance(10 * MINUTE)
    site.sign_in(user="bob")
    site.clock.advance(25 * MINUTE)
    assert site.get("/me").text == "me Bob"
    (part,) = foreseen()
    assert (part.authority, part.name, part.count) == (site.auth.engine.site.primary.watch.authority, BASE, 2)
    # The one had half an hour, and begins its extension; the other is taken to go on.
    assert (part.first, part.last) == (55 * MINUTE, 2 * HOUR + HOUR - 25 * MINUTE)
    seen = ra.health().forecast
    assert seen is not None
    # Whatever else is held here, by other tests too: sessions count as everything does.
    assert seen.first == min(one.first for one in seen.parts if one.first is not None and one.reach == part.reach)

    site.emulator.fail(Fault.refuse())
    began, first, last = site.clock.wall(), part.first or 0.0, part.last or 0.0
    moments = {*range(0, int(last), 1200), first - OFF, first + OFF, last - OFF, last + OFF}
    for moment in sorted(moments):
        site.clock.advance(began + moment - site.clock.wall())
        assert (site.get("/me").status_code == 200) == (moment < last), moment
        # Whoever is away comes back once, shortly before the end.
        if abs(moment - first) <= OFF:
            assert (site.get("/me", away).status_code == 200) == (moment < first)


def test_what_was_extended_has_the_rest_of_it(make_site: Callable[..., Site]) -> None:
    """In an outage that goes on, and in no other process: what it hasn't seen it doesn't count."""
    site = bounded(make_site)
    site.sign_in()
    site.emulator.fail(Fault.refuse())
    site.clock.advance(50 * MINUTE)
    assert site.get("/me").text == "me Ada extended"
    (part,) = foreseen()
    assert (part.count, part.first) == (1, 40 * MINUTE)
    site.restart()
    assert foreseen() == []
    assert site.get("/me").text == "me Ada extended"
    (part,) = foreseen()
    assert (part.count, part.first) == (1, 40 * MINUTE)
    site.clock.advance(41 * MINUTE)
    assert foreseen() == []


def test_who_signs_out_is_not_counted_and_a_guest_never_is(make_site: Callable[..., Site]) -> None:
    """A guest was signed in by nobody, and can come again."""
    site = bounded(make_site)
    site.sign_in(browser=site.another_browser(), user="bob")
    site.sign_in()
    assert [part.count for part in foreseen()] == [2]
    site.post("/sign-out", origin=BASE)
    assert [part.count for part in foreseen()] == [1]
    site.emulator.fail(Fault.refuse())
    site.clock.advance(1.1)  # that the provider was found a moment ago counts no more
    guest = site.another_browser()
    answer = site.post("/sign-in/guest", {"next": "/"}, guest, origin=BASE)
    assert (answer.status_code, site.get("/", guest).text) == (303, "hello Guest")
    assert [part.count for part in foreseen()] == [1]
    site.auth.close()
    assert foreseen() == []


def test_an_extension_is_advised_where_there_is_none(make_site: Callable[..., Site]) -> None:
    """It is what would lengthen most: tokens and keys last longer than sessions of ten minutes."""
    site = bounded(make_site, extension=0.0, lifetime=30 * MINUTE)
    site.sign_in()
    (part,) = foreseen()
    assert part.first == 30 * MINUTE
    seen = ra.health().forecast
    assert seen is not None
    (advised,) = [each for each in seen.advice if each.change == "extension"]
    assert advised.text.startswith("give sessions an extension of 4.0 h, while nobody can sign in: ")
    assert advised.first is not None
    assert advised.first > seen.first  # type: ignore[operator]


def test_nobody_is_named_and_no_lock_is_waited_for(make_site: Callable[..., Site]) -> None:
    """Whatever a signal has interrupted; and neither a name nor an id is in the report."""
    site = bounded(make_site)
    site.sign_in()
    sessions = site.auth.engine.site.sessions
    told: list[ra.Forecast] = []
    with sessions._recent._lock:
        asking = threading.Thread(target=lambda: told.append(ra.health().forecast), daemon=True)  # type: ignore[arg-type]
        asking.start()
        asking.join(5.0)
    text = str(told[0]) + str(told[0].to_dict())
    line = next(line for line in text.splitlines() if BASE in line)
    assert line.startswith(f"  1 session of {BASE}, of those that this process has seen, begun at https://")
    (session_id,) = sessions._recent._known
    for secret in ("ada", session_id, sessions._recent._known[session_id][0].who.subject):
        assert secret.lower() not in text.lower()


def test_as_many_as_are_remembered_are_counted(make_site: Callable[..., Site], monkeypatch: Any) -> None:
    """It is bounded: the one that was read longest ago is forgotten first."""
    monkeypatch.setattr(recent, "_MOST", 2)
    site = bounded(make_site)
    browsers = [site.another_browser() for _ in range(3)]
    for browser in browsers:
        site.sign_in(browser=browser)
    assert [part.count for part in foreseen()] == [2]
    site.clock.advance(2.0)
    assert all(site.get("/me", browser).text == "me Ada" for browser in browsers)
    assert [part.count for part in foreseen()] == [2]
