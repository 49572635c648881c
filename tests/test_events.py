"""What is told of every decision, and that nobody is harmed by who listens."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import logging
import os
import pickle
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_a_child

import resilient_auth
from resilient_auth import errors
from resilient_auth._engine.acquire import Served, Source
from resilient_auth._engine.cache import Memory
from resilient_auth._engine.single_flight import Flight, Outcome
from resilient_auth._engine.timers import Timers
from resilient_auth._fleet.engines import engine_for
from resilient_auth._process import forks
from resilient_auth.clock import SystemClock
from resilient_auth.errors import ProviderUnavailable
from resilient_auth.events import (
    CODES,
    BreakerHalfOpen,
    BreakerIsolated,
    Delivery,
    Event,
    ExchangeFailed,
    ExchangesOverdue,
    TokenAcquired,
    catalogue,
    emit,
    subscribe,
)
from resilient_auth.settings import Settings
from resilient_auth.testing import ManualClock, capture_events
from resilient_auth.token import Token, TokenRequest, fingerprint

SECRET = "eyJ0eXAi.SECRET.c2ln"
REQUEST = TokenRequest("https://login.example", "app", "client_credentials", ("api://x/.default",), "user.tenant")
KINDS = [getattr(catalogue, name) for name in catalogue.__all__]


def told(name: str) -> BreakerHalfOpen:
    return BreakerHalfOpen(at=0.0, target=name)


def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds, for a moment at most."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never held"
        time.sleep(0.001)


class Listener:
    """A listener that can be held up."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        self.threads: set[threading.Thread] = set()
        self.may_go_on.set()

    def __call__(self, event: Event) -> None:
        self.threads.add(threading.current_thread())
        self.entered.set()
        assert self.may_go_on.wait(10.0)
        assert isinstance(event, BreakerHalfOpen)
        self.heard.append(event.target)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    unsubscribe = subscribe(listener)
    yield listener
    unsubscribe()
    listener.may_go_on.set()


class TestDelivery:
    def test_events_come_in_order(self, listener: Listener) -> None:
        """One at a time, each once."""
        names = [str(n) for n in range(500)]
        for name in names:
            emit(told(name))
        until(lambda: len(listener.heard) == 500)
        assert listener.heard == names

    def test_a_listener_runs_on_a_thread_of_its_own(self, listener: Listener) -> None:
        """Never on the thread of whoever decided."""
        emit(told("x"))
        until(lambda: listener.heard)
        assert threading.current_thread() not in listener.threads

    def test_its_thread_ends_when_there_is_nothing_to_tell(self, listener: Listener) -> None:
        """And comes again when there is."""
        for name in ("first", "second"):
            emit(told(name))
            until(lambda n=name: n in listener.heard)
            until(lambda: not any(thread.is_alive() for thread in listener.threads))

    def test_a_listener_that_blocks_delays_nobody(self, listener: Listener) -> None:
        """Neither who emits nor another listener."""
        other = Listener()
        unsubscribe = subscribe(other)
        listener.may_go_on.clear()
        began = time.monotonic()
        for n in range(100):
            emit(told(str(n)))
        assert time.monotonic() - began < 1.0
        until(lambda: len(other.heard) == 100)
        assert listener.heard == []
        listener.may_go_on.set()
        until(lambda: len(listener.heard) == 100)
        unsubscribe()

    def test_a_listener_that_blocks_keeps_the_newest_1024(self, listener: Listener) -> None:
        """What is kept for it is bounded."""
        listener.may_go_on.clear()
        emit(told("held"))
        assert listener.entered.wait(5.0)
        for n in range(3000):
            emit(told(str(n)))
        listener.may_go_on.set()
        until(lambda: listener.heard[-1:] == ["2999"])
        assert listener.heard == ["held", *(str(n) for n in range(3000 - 1024, 3000))]

    def test_a_listener_that_raises_hears_the_next_event(self, caplog: pytest.LogCaptureFixture) -> None:
        """The failure is logged by type alone, and harms no other listener."""
        heard: list[Event] = []

        def clumsy(event: Event) -> None:
            heard.append(event)
            raise ValueError(SECRET)

        unsubscribe = subscribe(clumsy)
        with caplog.at_level(logging.DEBUG, "resilient_auth"), capture_events() as captured:
            emit(told("1"))
            emit(told("2"))
            until(lambda: len(heard) == 2)
            captured.wait_for(BreakerHalfOpen, count=2)
            until(lambda: caplog.text.count("A listener failed on BreakerHalfOpen: ValueError") == 2)
        unsubscribe()
        assert SECRET not in caplog.text

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_listener_that_wants_to_exit_hears_the_next_event(self) -> None:
        """`sys.exit()` in a listener stays its own affair too."""
        heard: list[Event] = []

        def leaving(event: Event) -> None:
            heard.append(event)
            raise SystemExit(1)

        unsubscribe = subscribe(leaving)
        try:
            emit(told("1"))
            until(lambda: heard)
            time.sleep(0.05)
            emit(told("2"))
            until(lambda: len(heard) == 2, 0.5)
        finally:
            unsubscribe()

    def test_a_log_handler_that_raises_ends_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Neither who emits, nor the listeners' threads: whoever is told of a listener's failure may fail, too."""
        heard: list[Event] = []

        class Broken(logging.Handler):
            def handle(self, record: logging.LogRecord) -> bool:
                raise ValueError(SECRET)

        def clumsy(event: Event) -> None:
            heard.append(event)
            raise KeyError(SECRET)

        logger, broken = logging.getLogger("resilient_auth"), Broken()
        before = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(broken)
        unsubscribe = subscribe(clumsy)
        try:
            for number in range(1, 4):
                emit(told(str(number)))
                until(lambda number=number: len(heard) == number)
        finally:
            unsubscribe()
            logger.removeHandler(broken)
            logger.setLevel(before)
        said = capsys.readouterr().err
        assert "a handler of its log failed: ValueError" in said
        assert SECRET not in said

    def test_a_log_handler_that_raises_ends_no_timer_and_no_worker(self) -> None:
        """Which tell the log of what fails on them, and go on."""

        class Broken(logging.Handler):
            def handle(self, record: logging.LogRecord) -> bool:
                raise ValueError(SECRET)

        def fail() -> None:
            raise KeyError

        logger, broken, run = logging.getLogger("resilient_auth"), Broken(), threading.Event()
        logger.addHandler(broken)
        try:
            timers = Timers(SystemClock())
            timers.call_at(time.monotonic(), fail)
            timers.call_at(time.monotonic() + 0.01, run.set)
            assert run.wait(5.0)
        finally:
            logger.removeHandler(broken)

    def test_a_signal_amid_an_event_may_emit_another(self) -> None:
        """Its handler runs on the thread that it has interrupted, whatever that was doing."""
        heard: list[int] = []
        delivery: Delivery[int] = Delivery(heard.append)
        over = threading.Event()

        def interrupted() -> None:
            with delivery._lock:
                delivery.put(1)
            over.set()

        threading.Thread(target=interrupted, daemon=True).start()
        assert over.wait(5.0)
        until(lambda: heard == [1])

    def test_what_is_flushed_is_told_to_its_end(self) -> None:
        """The last one, too: at an exit nothing else would wait for it."""
        ended = threading.Event()

        def slow(_: int) -> None:
            time.sleep(0.05)
            ended.set()

        delivery: Delivery[int] = Delivery(slow)
        delivery.put(1)
        delivery.flush(5.0)
        assert ended.is_set()

    def test_a_listener_may_emit_and_subscribe(self) -> None:
        """No lock is held while it runs."""
        heard: list[str] = []
        ends: list[Callable[[], None]] = []

        def busy(event: Event) -> None:
            assert isinstance(event, BreakerHalfOpen)
            heard.append(event.target)
            if event.target == "1":
                ends.append(subscribe(lambda _: None))
                emit(told("2"))

        ends.append(subscribe(busy))
        emit(told("1"))
        until(lambda: heard == ["1", "2"])
        for end in ends:
            end()

    def test_after_unsubscribing_nothing_more_is_heard(self, listener: Listener) -> None:
        """And ending it twice is harmless."""
        other = Listener()
        unsubscribe = subscribe(other)
        emit(told("1"))
        until(lambda: other.heard and listener.heard)
        unsubscribe()
        unsubscribe()
        emit(told("2"))
        until(lambda: "2" in listener.heard)
        assert other.heard == ["1"]

    def test_unsubscribing_drops_what_was_queued(self) -> None:
        """The listener's owner may have closed what it writes to."""
        slow = Listener()
        slow.may_go_on.clear()
        unsubscribe = subscribe(slow)
        for n in range(5):
            emit(told(str(n)))
        assert slow.entered.wait(5.0)
        unsubscribe()
        slow.may_go_on.set()
        until(lambda: not any(thread.is_alive() for thread in slow.threads))
        assert len(slow.heard) <= 1

    def test_one_listener_may_subscribe_twice(self) -> None:
        """Each subscription has an end of its own."""
        heard: list[Event] = []
        ends = [subscribe(heard.append), subscribe(heard.append)]
        ends.pop()()
        emit(told("x"))
        until(lambda: heard)
        time.sleep(0.01)
        assert len(heard) == 1
        ends.pop()()

    def test_what_cant_be_called_is_refused(self) -> None:
        """With what it should be."""
        with pytest.raises(TypeError, match="listener must be a plain function"):
            subscribe("print")  # type: ignore[arg-type]

    def test_threads_emit_together(self) -> None:
        """Nothing is lost, and each thread's own events stay in order."""
        with capture_events() as captured:
            start = threading.Barrier(8)

            def run(me: int) -> None:
                start.wait()
                for n in range(100):
                    emit(told(f"{me} {n}"))

            threads = [threading.Thread(target=run, args=(me,)) for me in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            heard = [e.target for e in captured.wait_for(BreakerHalfOpen, count=800)]
        for me in range(8):
            assert [h for h in heard if h.startswith(f"{me} ")] == [f"{me} {n}" for n in range(100)]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_childs_listener_hears_the_childs_events(self, listener: Listener) -> None:
        """Even when the parent's was in the middle of one, whose queue stays the parent's."""
        listener.may_go_on.clear()
        emit(told("parent's"))
        emit(told("parent's, queued"))
        assert listener.entered.wait(5.0)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                unsubscribe = subscribe(lambda event: os.write(write, f"{event.target};".encode()))  # type: ignore[attr-defined]
                emit(told("child's"))
                time.sleep(5.0)
                unsubscribe()
            finally:
                os._exit(0)
        try:
            ready, _, _ = select.select([read], [], [], 5.0)
            assert ready
            assert os.read(read, 1000) == b"child's;"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(read)
            os.close(write)
        listener.may_go_on.set()
        until(lambda: listener.heard == ["parent's", "parent's, queued"])


class TestLogging:
    def test_events_are_logged_at_their_own_level(self, caplog: pytest.LogCaptureFixture) -> None:
        """Through the standard library, as text that names what happened."""
        with caplog.at_level(logging.DEBUG, "resilient_auth"):
            emit(told("x"))
            emit(ExchangeFailed(at=0.0, request=REQUEST, code="server_failed", detail="503", retry_after=None))
        levels = [(r.levelname, vars(r)["ra_event"]) for r in caplog.records if r.name == "resilient_auth"]
        assert levels == [("DEBUG", "breaker_half_open"), ("WARNING", "exchange_failed")]

    def test_a_record_carries_the_fields(self, caplog: pytest.LogCaptureFixture) -> None:
        """Under names that no other part of a record has, with numbers rounded, as a JSON formatter can write them."""
        with caplog.at_level(logging.DEBUG, "resilient_auth"):
            emit(TokenAcquired(at=1.23456, request=REQUEST, expires_in=3599.98765, seconds=0.123456))
        (record,) = caplog.records
        ours = {name: value for name, value in vars(record).items() if name.startswith("ra_")}
        assert ours == {
            "ra_event": "token_acquired",
            "ra_at": 1.235,
            "ra_authority": "https://login.example",
            "ra_client_id": "app",
            "ra_flow": "client_credentials",
            "ra_scopes": ["api://x/.default"],
            "ra_subject": fingerprint("user.tenant"),
            "ra_expires_in": 3599.988,
            "ra_seconds": 0.123,
            "ra_source": "identity_provider",
        }
        assert json.loads(json.dumps(ours)) == ours
        assert record.getMessage() == (
            "Token acquired from identity_provider in 0.1 s, valid for 3600 s: client_credentials api://x/.default for "
            f"{fingerprint('user.tenant')} at https://login.example [token_acquired]"
        )

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
    def test_every_event_is_json_and_a_sentence(self, kind: type[Event]) -> None:
        """Its text names fields that it has."""
        values: dict[str, Any] = {
            field.name: ("x",) if "tuple" in str(field.type) else 1.0 if "float" in str(field.type) else "x"
            for field in dataclasses.fields(kind)
        }
        event = kind(**values | ({"request": REQUEST} if "request" in values else {}))
        assert json.loads(json.dumps(event.to_dict()))["event"] == kind.name
        assert not set("{}") & set(str(event))

    def test_an_isolation_and_its_end_are_told_apart(self) -> None:
        """In words too."""
        texts = [str(BreakerIsolated(at=0.0, target="api", isolated=isolated)) for isolated in (True, False)]
        assert texts == [
            "api: isolated by hand until it is reset [breaker_isolated]",
            "api: isolation by hand ended [breaker_isolated]",
        ]

    def test_nothing_is_printed_where_nobody_set_up_logging(self) -> None:
        """A NullHandler keeps the last-resort handler away."""
        assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("resilient_auth").handlers)


def _codes_in_the_code() -> Iterator[tuple[str, str]]:
    """Find what is given as the code of an event, or of what an event's code comes from, as text."""
    positions = {
        "BackendFailed": 0, "UnsealableError": 0, "Anomaly": 0, "drop_all": 0, "drop_subject": 1, "drop_token": 2,
        "_crowded": 1, "judge": 0,
    }  # fmt: skip
    kinds = {kind.__name__ for kind in KINDS}
    for file in Path(resilient_auth.__path__[0]).rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            given = [keyword.value for keyword in call.keywords if keyword.arg == "code" and name in kinds]
            given += [arg for n, arg in enumerate(call.args) if positions.get(name) == n]
            for value in given:
                for constant in ast.walk(value):
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        yield f"{file.name}:{call.lineno}", constant.value


NAMES = """
    api_refused_token blame_changed breaker_closed breaker_half_open breaker_isolated breaker_opened bulkhead_refused
    callout_answered callout_defaulted callout_rejected
    claims_service_refused cooldown_started credential_expiring credential_rejected
    credential_rotated decision_substituted deny_list_rejected discovery_rejected
    discovery_served_stale exchange_denied exchange_failed exchanges_overdue expired_token_accepted fallback_served
    grace_served hedge_sent keys_anomaly keys_refresh_failed keys_refreshed pinned_keys_in_use provider_seen_down
    provider_seen_up refresh_scheduled removal_postponed removal_written retry_scheduled
    security_event_received session_extended sessions_ended sign_in_refused sign_in_unavailable sign_out_refused
    source_switched
    store_failed store_recovered store_rejected token_acquired token_dropped token_on_deny_list token_served
    alert_opened alert_resolved clock_jumped clocks_differ secret_ends_unread webhook_failed
    write_failed write_given_up
    user_signed_in
"""


class TestVocabulary:
    def test_names_are_stable(self) -> None:
        """What alerts and dashboards ask for: one may be added, none may change."""
        assert {kind.name for kind in KINDS} == set(NAMES.split())

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
    def test_one_word_for_one_thing(self, kind: type[Event]) -> None:
        """Who is asked is `authority` or `target`, and why is `code` or `detail`."""
        names = {field.name for field in dataclasses.fields(kind)}
        assert not names & {"url", "origin", "store", "file", "reason", "cause", "error", "message", "delay", "took"}
        assert {"authority", "target", "source"} & {*names, *dir(kind)}

    def test_an_event_about_an_identity_provider_has_its_origin(self) -> None:
        """Also one that has a request, an issuer, a document or a lane."""
        request = dataclasses.replace(REQUEST, authority="https://Login.example:8443/contoso.com")
        issuer = "https://login.example/contoso.com/v2.0"
        assert TokenAcquired(at=0.0, request=request, expires_in=1.0, seconds=1.0).authority == (
            "https://login.example:8443"
        )
        assert catalogue.ProviderSeenDown(at=0.0, issuer=issuer, code="x").authority == "https://login.example"
        assert catalogue.DiscoveryRejected(at=0.0, target=issuer, detail="x").authority == "https://login.example"
        lanes = [ExchangesOverdue(at=0.0, lane=lane, count=1).authority for lane in (f"{issuer} keys", "deny-list")]
        assert lanes == ["https://login.example", ""]

    def test_every_code_is_listed(self) -> None:
        """In `CODES`, or as an error's; but for statuses, and for the provider's own `error`."""
        listed = {"http_", "error", *CODES, *(getattr(getattr(errors, name), "code", "") for name in errors.__all__)}
        found = list(_codes_in_the_code())
        assert len(found) > 40
        assert [(where, code) for where, code in found if code not in listed] == []

    def test_a_detail_is_bounded(self) -> None:
        """It may be anybody's text."""
        event = ExchangeFailed(at=0.0, request=REQUEST, code="x", detail="y" * 10_000, retry_after=None)
        assert len(event.detail) == 300

    def test_the_pages_name_events_that_there_are(self) -> None:
        """Who is paged looks for them in a log, by their name or by their class."""
        known = {each for kind in KINDS for each in (kind.name, kind.__name__)}
        named = {
            (page.name, found)
            for page in (Path(resilient_auth.__file__).parents[1] / "docs").rglob("*.md")
            for found in re.findall(r"\b[Ee]vents?[ \n]`(\w+)`", page.read_text())
        }
        assert len(named) > 5
        assert {each for each in named if each[1] not in known} == set()


class TestSecrets:
    TOKEN = Token(SECRET, "Bearer", 1e9, 1.0, 3600.0, 1800.0, extras={"refresh_token": SECRET, "id_token": SECRET})

    @pytest.mark.parametrize(
        "thing",
        [
            TOKEN,
            Outcome(token=TOKEN, result={"access_token": SECRET}),
            Served(Source.CACHE, TOKEN, {"access_token": SECRET}),
            Memory(3, engine_for(Settings())).entry(dataclasses.replace(REQUEST, subject=fingerprint(SECRET)), ()),
            Flight(("x",), 0.0, ManualClock()),
            TokenAcquired(at=0.0, request=REQUEST, expires_in=1.0, seconds=1.0),
        ],
        ids=lambda thing: type(thing).__name__,
    )
    def test_no_text_of_it_tells_a_secret(self, thing: Any) -> None:
        """Neither repr, nor str, nor a format, nor inside of a list."""
        if isinstance(thing, Flight):
            thing.land(Outcome(token=self.TOKEN))
        text = f"{thing!r} {thing!s} {thing} {[thing]} {{{thing!r}: 1}}"
        assert "SECRET" not in text

    def test_a_token_tells_a_fingerprint(self) -> None:
        """Two log lines can be matched by it."""
        assert fingerprint(SECRET) in repr(self.TOKEN)
        assert fingerprint(SECRET) == fingerprint(SECRET.encode())

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_token_cant_be_pickled(self, protocol: int) -> None:
        """Alone or within something else: a sealed store is where tokens are written down."""
        for thing in (self.TOKEN, [self.TOKEN], Outcome(token=self.TOKEN)):
            with pytest.raises(TypeError, match="can't be pickled"):
                pickle.dumps(thing, protocol)

    def test_events_tell_whose_token_by_a_hash(self) -> None:
        """An account's id is nobody's business in a log line."""
        text = str(TokenAcquired(at=0.0, request=REQUEST, expires_in=1.0, seconds=1.0))
        assert "user.tenant" not in text
        assert fingerprint("user.tenant") in text
        assert "client_credentials" in text

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_event_is_frozen_and_given_by_name(self, kind: type[Event]) -> None:
        """A listener can't change what the next one sees."""
        values: dict[str, Any] = {field.name: "x" for field in dataclasses.fields(kind)}
        event = kind(**values)
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.at = 1.0  # type: ignore[misc]
        with pytest.raises(TypeError):
            kind(0.0)  # type: ignore[misc]
        assert str(event).endswith(f"[{kind.name}]")
        assert pickle.loads(pickle.dumps(event)) == event

    def test_an_error_tells_its_message_only(self) -> None:
        """Not the exception beneath it, which may quote a body."""
        error = ProviderUnavailable("the host broke")
        error.__cause__ = ValueError(SECRET)
        assert "SECRET" not in f"{error} {error!r}"


def test_a_fork_amid_a_record_leaves_the_child_its_log() -> None:
    """The lock of a file in which a thread is writing at a fork would be held in the child for ever."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    os.set_blocking(writing, True)
    handler = logging.StreamHandler(os.fdopen(writing, "w", buffering=1 << 16))
    logger = logging.getLogger("resilient_auth")
    logger.addHandler(handler)
    event = BreakerIsolated(at=0.0, target="x", isolated=True)
    logger.setLevel(logging.DEBUG)
    drained = threading.Event()

    def drain() -> None:
        time.sleep(0.2)  # the fork comes meanwhile
        while not drained.is_set() and select.select([reading], [], [], 0.05)[0]:
            os.read(reading, 1 << 20)

    writer, reader = threading.Thread(target=emit, args=(event,)), threading.Thread(target=drain)
    try:
        writer.start()
        while writer.ident not in forks._holding:
            time.sleep(0.001)
        time.sleep(0.02)
        reader.start()
        in_a_child(lambda: emit(event), seconds=3.0)
        writer.join(5)
        assert not writer.is_alive()
    finally:
        drained.set()
        reader.join()
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        os.set_blocking(writing, False)
        with contextlib.suppress(OSError):
            handler.stream.close()
        os.close(reading)
