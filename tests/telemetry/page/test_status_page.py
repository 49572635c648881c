"""What the status page says, and what it never does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from html.parser import HTMLParser
from typing import Any

import page_scenes
import pytest
from page_scenes import HERE, HOSTILE

import resilient_auth as ra
from resilient_auth import BreakerOptions, ConfigurationError, msal
from resilient_auth._policy.breaker import Breaker, Dependency
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import BreakerClosed, BreakerHalfOpen, BreakerOpened, BulkheadRefused, emit
from resilient_auth.telemetry.page import serving
from resilient_auth.telemetry.page.drawing import Axis, steps
from resilient_auth.telemetry.page.history import History, history
from resilient_auth.telemetry.page.markup import Html, element
from resilient_auth.telemetry.page.serving import StatusPage
from resilient_auth.testing import ManualClock, no_jitter


class Read(HTMLParser):
    """A page as a browser reads it: elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._in):
            self.text += data


@pytest.fixture
def outage(standing: Callable[..., Any]) -> StatusPage:
    standing(page_scenes.outage())
    return StatusPage("/status", "Orders")


def test_the_verdict_comes_first_and_then_the_time_to_dark(outage: StatusPage) -> None:
    """Then whose fault it is, the forecast, circuits, requests, and what is held."""
    read = Read(outage.document().body)
    ids = [attributes["id"] for tag, attributes in read.elements if tag == "section"]
    assert ids == ["verdict", "dark", "blame", "forecast", "timeline", "requests", "stores"]
    order = ["At risk", "First dark, this process", "11 min", "The network, or name resolution", "Pin this scope"]
    places = [read.text.index(each) for each in order]
    assert places == sorted(places)
    for told in (
        "has failed since 02:13 UTC", "02:40 UTC", "40 users; the last in 41 min", "in the fleet's store",
        "03:40 UTC instead of 02:40 UTC", "opened 2 times", "goes on", "41 % fewer requests", "4% fewer than",
        "read-only", "Sign-outs that no store has heard of yet: 2", "3 wait, 1 hang", "stale", "40 fresh", "in 6 days",
    ):  # fmt: skip
        assert told in read.text or told in outage.document().body, told


def test_a_calm_day_says_so(standing: Callable[..., Any]) -> None:
    """And where nothing is counted, how to have it counted."""
    standing(page_scenes.calm(), levels=page_scenes.levels(watched=False), quiet=True)
    text = Read(StatusPage("/status", "Orders").document().body).text
    for told in ("All is well", "No circuit has opened since", "resilient_auth.telemetry.watch()", "Nobody's"):
        assert told in text


def test_what_comes_from_outside_is_text(standing: Callable[..., Any]) -> None:
    """Names of authorities, scopes, stores and codes, the alerts' words and the title: none becomes markup."""
    standing(page_scenes.calm(), quiet=True)
    plain = Read(StatusPage("/status", "Orders").document().body)
    standing(page_scenes.outage("plain"), levels=page_scenes.levels("plain"), name="plain")
    known = Read(StatusPage("/status", "plain").document().body)
    standing(page_scenes.outage(HOSTILE), levels=page_scenes.levels(HOSTILE), name=HOSTILE)
    page = StatusPage("/status", HOSTILE)
    hostile = Read(page.document().body)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in known.elements]
    assert [set(attributes) for _, attributes in hostile.elements] == [set(a) for _, a in known.elements]
    assert hostile.text.count("owned") == known.text.count("plain") > 10
    assert {tag for tag, _ in hostile.elements if tag in ("img", "script", "style")} == {"script", "style"}
    assert len([1 for tag, _ in hostile.elements if tag == "script"]) == len(
        [1 for tag, _ in plain.elements if tag == "script"]
    )
    for section in json.loads(page.now().body)["sections"].values():
        assert "<script" not in section
        assert "<img" not in section


def test_nothing_is_asked_of_anybody_else(outage: StatusPage) -> None:
    """No address but the page's own, no style of an element's own, no handler in an attribute."""
    body = outage.document().body
    for tag, attributes in Read(body).elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("src", "href", "action", "data", "poster", "srcset", "formaction"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, value)
    assert "@import" not in body
    assert "url(" not in body


def test_the_policy_lets_only_its_own_script_and_style_in(outage: StatusPage) -> None:
    """By their hashes, which are those of what is sent."""
    told = outage.document()
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", told.body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in told.headers["Content-Security-Policy"]
    policy = told.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for part in ("connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
        assert part in policy
    for answer in (told, outage.now(), outage.event()):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_flood_of_readers_is_one_look(standing: Callable[..., Any]) -> None:
    """Within a second, whatever they ask for."""
    now = standing(page_scenes.outage())
    page = StatusPage("/status", "Orders")
    for _ in range(30):
        page.document()
        page.now()
        page.event()
    assert now.looks <= 3


def test_only_what_has_changed_is_sent_again(standing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream begins with all, and then tells changes; where there is none, a comment keeps it open."""
    monkeypatch.setattr(serving, "_KEPT", 0.0)
    monkeypatch.setattr(serving, "_OLD", 0.0)
    now = standing(page_scenes.calm())
    messages = StatusPage("/status", "Orders").changes()
    assert next(messages).startswith("retry: ")
    first = json.loads(next(messages).removeprefix("data: "))
    assert next(iter(first["sections"])) == "verdict"
    assert next(messages) == ":\n\n"
    now.health = page_scenes.outage()
    changed = json.loads(next(messages).removeprefix("data: "))
    assert "verdict" in changed["sections"]
    assert "requests" not in changed["sections"]
    assert changed["title"] == "AT RISK: Orders"


def test_the_spoken_verdict_changes_with_the_verdict_alone(standing: Callable[..., Any]) -> None:
    """No time that runs is in it, or a screen reader would read it out every second."""
    now = standing(page_scenes.outage())
    first = json.loads(StatusPage("/status", "Orders").now().body)["sections"]["verdict"]
    now.at += 1
    second = json.loads(StatusPage("/status", "Orders").now().body)["sections"]["verdict"]
    (spoken,) = re.findall(r'<p [^>]*role="status"[^>]*>.*?</p>', first)
    assert spoken in second
    assert not re.search(r"\d", Read(spoken).text)


def test_streams_are_counted_and_given_back() -> None:
    """Sixteen at a time; one whose end nobody has seen gives its place back too."""
    page = StatusPage("/status", "Orders")
    opened = [page.opened() for _ in range(16)]
    assert page.full()
    page.closed(opened[0])
    assert not page.full()
    page.opened()
    assert page.full()
    page._streams = dict.fromkeys(page._streams, time.monotonic() - 1.0)
    assert not page.full()


def test_stores_are_looked_into_beside_the_reader(monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    """A store that hangs or fails holds no reader up, and isn't asked again meanwhile."""
    asked: list[int] = []
    hang = threading.Event()

    def stock() -> None:
        asked.append(1)
        hang.wait(20)
        raise RuntimeError("no medium")

    monkeypatch.setattr(serving, "take_stock", stock)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    page = StatusPage("/status", "Orders")
    began = time.monotonic()
    page.document()
    page._look = serving.Look(page._take_look, 0.0, 0.0)
    page.document()
    assert time.monotonic() - began < 10
    eventually(lambda: asked == [1])
    hang.set()
    eventually(lambda: not page._stocking)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(("status", "T"), "path"), (("/status/", "T"), "path"), (("/s", " "), "title"), ((3, "T"), "path")],
)
def test_a_wrong_option_is_said_at_once(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        StatusPage(*wrong)


def _breaker(kind: Any, at: float, **more: Any) -> Any:
    known = {"authority": HERE, "target": "", "purpose": "token", "part": "", "wire": ""}
    return kind(at=at, **known, **more)


def test_the_history_follows_circuits() -> None:
    """Outages from the first break to the closing, however many probes fail in between; bounded in number and age."""
    kept = History()
    for event in (
        _breaker(BreakerOpened, 100.0, seconds=10.0, code="throttled"),
        _breaker(BreakerHalfOpen, 110.0),
        _breaker(BreakerOpened, 111.0, seconds=10.0, code="server_failed"),
        _breaker(BreakerHalfOpen, 121.0),
        _breaker(BreakerClosed, 122.0, seconds=22.0),
        _breaker(BreakerOpened, 200.0, seconds=10.0, code="connection_failed"),
    ):
        kept(event)
    (lane,) = kept.lanes(300.0, 12)
    assert (lane.name, len(lane.changes)) == (f"{HERE} token", 6)
    outages = kept.outages([lane], 50)
    assert [(each.began, each.ended, each.code) for each in outages] == [
        (200.0, None, "connection_failed"), (100.0, 122.0, "throttled"),
    ]  # fmt: skip
    (later,) = kept.lanes(200.0 + 25 * 3600.0, 12)
    assert [change.at for change in later.changes] == [200.0]
    for number in range(10_000):
        kept(_breaker(BreakerHalfOpen, 300.0 + number))
    assert len(kept._changes) == 4096


def test_a_flood_of_other_events_takes_no_circuit_along(
    eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """More of them at a time than a listener has room for: an outage that is over would go on."""
    kept = History()
    kept.begin()
    caplog.set_level("CRITICAL", "resilient_auth")

    def flood(number: int) -> None:
        for count in range(1000):
            emit(BulkheadRefused(at=1.0, target="https://api.example", code="queue_full"))
            if count == 500:
                about = {"at": time.time(), "target": f"https://api-{number}.example", "purpose": "api", "seconds": 1.0}
                emit(BreakerOpened(code="slow", **about))
                emit(BreakerClosed(**about))

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(32)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        def over() -> int:
            lanes = [lane for lane in kept.lanes(time.time(), 1000) if lane.name.startswith("https://api-")]
            return sum(lane.changes[-1].state == "closed" for lane in lanes)

        eventually(lambda: over() == 32)
    finally:
        kept.end()


def test_the_history_is_kept_while_a_page_is_mounted(eventually: Any) -> None:
    """From the first one on, and once however many there are."""
    StatusPage("/status", "One")
    StatusPage("/other", "Two")
    breaker = Breaker(
        Dependency(target="https://api.example", purpose="api"), BreakerOptions(), clock=SystemClock(), jitter=no_jitter
    )
    for _ in range(3):
        breaker.admit().failure("server_failed")
    eventually(lambda: any(lane.name.startswith("https://api.example") for lane in history.lanes(time.time(), 100)))
    (lane,) = [lane for lane in history.lanes(time.time(), 100) if lane.name.startswith("https://api.example")]
    assert [change.state for change in lane.changes] == ["open"]
    breaker.reset()


def test_markup_escapes_text_and_attributes() -> None:
    """All but markup of ours."""
    told = element("p", "<b>", Html("<i>ours</i>"), kind='"x', aria_label="'<'")
    assert told == '<p class="&quot;x" aria-label="&#x27;&lt;&#x27;">&lt;b&gt;<i>ours</i></p>'


def test_a_gap_is_drawn_where_nothing_is_known() -> None:
    """And a line of steps elsewhere."""
    assert steps("before", [1.0, None, 2.0], 10, 5) == '<path class="before" d="M0.0 4.0H10.0M20.0 3.0H30.0"/>'
    assert steps("before", [], 10, 5) == ""
    axis = Axis(0.0, 10.0)
    assert (axis.x(-5.0), axis.x(5.0), axis.x(50.0)) == (0.0, 500.0, 1000.0)


def test_no_secret_and_nobodys_name_is_on_it(own_environment: None) -> None:
    """With real tokens of an application and a user in memory and in a store, in an outage."""
    with Emulator() as idp, ExitStack() as opened:
        idp.add_user("ada@contoso.com")
        clock = ManualClock()
        store = ra.SealedStore(MemoryBackend(clock=clock), key=os.urandom(32), clock=clock)
        where: dict[str, Any] = {
            "authority": idp.authority("contoso"), "instance_discovery": False, "verify": idp.ca_file,
            "resilience": ra.Settings(clock=clock, store=store),
        }  # fmt: skip
        app = opened.enter_context(
            msal.ConfidentialClientApplication("daemon", client_credential="s3cret-of-the-daemon", **where)
        )
        desktop = opened.enter_context(msal.PublicClientApplication("desktop", **where))
        known = [app.acquire_token_for_client(["https://graph.microsoft.com/.default"])["access_token"]]
        flow = desktop.initiate_auth_code_flow(
            ["User.Read"], redirect_uri="http://localhost/back", response_mode="form_post"
        )
        result = desktop.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], "ada@contoso.com"))
        account = desktop.get_accounts()[0]
        desktop.acquire_token_silent(["User.Read"], account)
        known += [result["access_token"], result["refresh_token"], result["id_token"], "s3cret-of-the-daemon"]
        known += ["ada@", account["home_account_id"], account["local_account_id"]]
        idp.fail(Fault.http_503())
        ra.forecast()
        page = StatusPage("/status", "Orders")
        told = page.document().body + page.now().body + page.event().body + str(ra.forecast()) + str(ra.health())
        assert "User.Read" in told
        assert "1 user" in told
        for secret in known:
            assert secret not in told
