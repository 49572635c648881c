"""When signed-in users' sessions end in an outage: what the forecast says, and what then happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from signin_site import BASE, Site

import resilient_auth as ra
from resilient_auth.emulator import Fault
from resilient_auth.errors import StoreUnavailable
from resilient_auth.health import GoesDark, survival
from resilient_auth.signin import SessionOptions, SignInOptions
from resilient_auth.signin.sessions import outlook, recent
from resilient_auth.signin.sessions.record import Who
from resilient_auth.signin.sessions.sessions import Sessions

MINUTE, HOUR = 60.0, 3600.0
#: Seconds by which the forecast may be off.
OFF = 5.0
#: Half an hour without a request, two hours in all, and one more in an outage.
BOUNDS = SessionOptions(idle=30 * MINUTE, lifetime=2 * HOUR, extension=HOUR)


def bounded(make_site: Callable[..., Site], **bounds: float) -> Site:
    return make_site(options=SignInOptions(sessions=replace(BOUNDS, **bounds), guests=True))


def foreseen(reach: str = "process") -> list[GoesDark]:
    forecast = ra.health().forecast
    assert forecast is not None
    return [part for part in forecast.parts if part.kind == "sessions" and part.reach == reach]


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
    assert line.startswith(f"  1 session of {BASE}, of those that this process has read, begun at https://")
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


def test_those_of_all_processes_are_counted_in_the_store(make_site: Callable[..., Site]) -> None:
    """By one that has just begun, too; no guest's, none that is over or signed out, and no other application's."""
    site = bounded(make_site)
    away, gone = site.another_browser(), site.another_browser()
    site.sign_in(browser=away)
    site.clock.advance(35 * MINUTE)
    site.sign_in(browser=gone, user="bob")
    site.sign_in()
    site.post("/sign-out", browser=gone, origin=BASE)
    others = Sessions(site.store, BOUNDS, clock=site.clock, application="another")
    others.create(Who(provider="contoso", issuer="https://contoso.example", subject="1"))
    assert foreseen("fleet") == []
    site.restart()
    away.application = site.app
    assert ra.health().forecast.stores_age is None  # type: ignore[union-attr]
    seen = ra.forecast()
    assert foreseen() == []
    (part,) = foreseen("fleet")
    assert (part.authority, part.name, part.count) == (site.auth.engine.site.primary.watch.authority, BASE, 2)
    assert (part.first, part.last) == (85 * MINUTE - 30 * MINUTE, 3 * HOUR)
    assert seen.stores_age == pytest.approx(0.0, abs=5.0)
    assert f"  2 sessions of {BASE}, begun at {part.authority} in the fleet's store: in " in str(seen)
    # They aren't this process's yet.
    assert seen.first is None or seen.first != part.first

    site.emulator.fail(Fault.refuse())
    site.clock.advance(55 * MINUTE - OFF)
    site.get("/me")  # whose is the first to find the provider gone
    assert site.get("/me", away).text == "me Ada extended"
    site.clock.advance(2 * OFF)
    assert site.get("/me", away).status_code == 503
    ra.forecast()
    assert [part.count for part in foreseen("fleet")] == [1]


def test_a_store_that_fails_takes_nothing_from_what_was_seen(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found last holds, and grows old; where nobody could look yet, it isn't known how old."""
    site = bounded(make_site)
    site.sign_in()
    with monkeypatch.context() as broken:
        broken.setattr(site.store, "scan", _unavailable)
        assert ra.forecast().stores_age is None
        assert foreseen("fleet") == []
    assert ra.forecast().stores_age == pytest.approx(0.0, abs=5.0)
    with monkeypatch.context() as broken:
        broken.setattr(site.store, "scan", _unavailable)
        looked = survival._looked[site.auth.engine.site]
        assert ra.forecast().stores_age is not None
        assert survival._looked[site.auth.engine.site] == looked
    (part,) = foreseen("fleet")
    assert part.count == 1


def _unavailable(kind: str) -> Iterator[Any]:
    raise StoreUnavailable("file", "timeout", "no medium")


def test_a_look_into_the_store_is_bounded(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by time."""
    site = bounded(make_site)
    for _ in range(3):
        site.sign_in(browser=site.another_browser())
    monkeypatch.setattr(outlook, "_MOST_LOOKED_AT", 2)
    ra.forecast()
    assert [part.count for part in foreseen("fleet")] == [2]
    monkeypatch.setattr(outlook, "_LONGEST_LOOK", -1.0)
    ra.forecast()
    assert [part.count for part in foreseen("fleet")] == [1]
