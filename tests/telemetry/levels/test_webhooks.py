"""Webhooks: signed, tried again, bounded; a receiver that hangs, redirects or fails harms nobody."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import standardwebhooks
import trustme

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.errors import ConfigurationError
from resilient_auth.events import AlertOpened, WebhookFailed
from resilient_auth.telemetry.levels.outbox import Outbox, message
from resilient_auth.telemetry.levels.state import Item, State
from resilient_auth.telemetry.levels.webhooks import Sender, Webhook, signature
from resilient_auth.testing import ManualClock, capture_events, no_jitter

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
HOUR = 3600.0


class Receiver:
    """A server that takes messages, and answers as a test says."""

    def __init__(self, trust: trustme.CA | None = None) -> None:
        self.got: list[tuple[dict[str, str], str]] = []
        self.answer: Callable[[Any], None] = lambda handler: reply(handler, 204)
        self.elsewhere: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                receiver.answer(self)

            def do_GET(self) -> None:
                receiver.elsewhere.append(self.path)
                reply(self, 204)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/private-part"
        if trust is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trust.issue_cert("localhost").configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def reply(handler: Any, status: int, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", "0")
    handler.end_headers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


def outage(one: Any, hours: float = 1.0) -> None:
    one.live(hours * HOUR, lambda: (100, 100))


class TestMessages:
    def test_an_alert_is_told_signed_and_once(
        self, receiver: Receiver, watched: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        """As another implementation of the scheme verifies it; then that it is over."""
        one = watched(ManualClock(), webhook=Webhook(receiver.url, secret=SECRET))
        outage(one, 1 / 12)
        eventually(lambda: len(receiver.got) == 1)
        headers, body = receiver.got[0]
        (told,) = [standardwebhooks.Webhook(SECRET).verify(body, headers)]
        assert told["type"] == "alert.opened"
        assert told["data"].items() >= {
            "application": "app", "kind": "acquisitions", "code": "success_rate", "count": 100, "failed": 100,
        }.items()  # fmt: skip
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(SECRET).verify(body.replace("opened", "closed"), headers)
        eventually(lambda: (one.watch.look(), not one.watch._alone.outbox)[1])
        one.live(3 * HOUR)
        eventually(lambda: (one.watch.look(), len(receiver.got) == 2)[1])
        assert receiver.bodies()[1]["type"] == "alert.resolved"
        assert receiver.bodies()[1]["data"]["seconds"] > 0
        assert receiver.got[1][0]["webhook-id"] != headers["webhook-id"]

    def test_two_secrets_sign_while_one_is_replaced(self, receiver: Receiver) -> None:
        sender = Sender(Webhook(receiver.url, secret=[SECRET, OTHER]))
        assert sender.send("msg_1", int(time.time()), "{}").code == ""
        for secret in (SECRET, OTHER):
            standardwebhooks.Webhook(secret).verify(receiver.got[0][1], receiver.got[0][0])
        sender.close()

    def test_the_scheme_s_own_example(self) -> None:
        """The test vector of its reference implementation."""
        secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}')
        assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_over_tls_whom_it_trusts(self) -> None:
        authority = trustme.CA()
        receiver = Receiver(authority)
        with authority.cert_pem.tempfile() as bundle:
            trusting = Sender(Webhook(receiver.url, secret=SECRET, verify=bundle))
            assert trusting.send("msg_1", 1, "{}").code == ""
            wary = Sender(Webhook(receiver.url, secret=SECRET))
            assert wary.send("msg_2", 1, "{}").code == "tls_failed"
        assert [headers["webhook-id"] for headers, _ in receiver.got] == ["msg_1"]
        for one in (trusting, wary, receiver):
            one.close()

    def test_nothing_in_it_is_a_secret_a_user_or_a_path(self, watched: Callable[..., Any]) -> None:
        """Nor is it in what is shown of a webhook: its URL may be one itself."""
        event = ra.events.CredentialExpiring(
            at=1.8e9, authority="https://login.example", client_id="app", target="certificate file /home/ann/app.pem",
            expires="2027-01-01T00:00:00Z", remaining=5.0,
        )  # fmt: skip
        body = message(event, "orders").body
        assert "ann" not in body
        assert json.loads(body)["timestamp"] == "2027-01-15T08:00:00Z"
        webhook = Webhook("https://hooks.example/T00/B11/private-part?key=private-part", secret=SECRET)
        one = watched(webhook=webhook)
        shown = f"{webhook!r} {webhook} {one.watch!r} {one.watch._options!r}"
        assert "hooks.example" in shown
        assert "private-part" not in shown
        assert SECRET not in shown
        assert str(bytes(range(32)))[3:-2] not in shown


class TestReceiversThatFail:
    @pytest.mark.parametrize("how", ["hangs", "redirects", "fails", "closes", "trickles"])
    def test_they_are_told_later(
        self, how: str, receiver: Receiver, watched: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        """Looks go on meanwhile; an event says what is wrong; the same message comes again when it works."""
        held = threading.Event()

        def trickle(handler: Any) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not held.wait(0.05):
                handler.wfile.write(b"X: y\r\n")

        answers: dict[str, tuple[Callable[[Any], Any], str]] = {
            "hangs": (lambda handler: held.wait(20), "attempt_timeout"),
            "redirects": (lambda handler: reply(handler, 307, Location=receiver.url + "/other"), "http_307"),
            "fails": (lambda handler: reply(handler, 500, Retry_After="40"), "http_500"),
            "closes": (lambda handler: handler.connection.close(), "connection_failed"),
            "trickles": (trickle, "attempt_timeout"),
        }
        receiver.answer, code = answers[how]
        deadline = 1.0 if code == "attempt_timeout" else 10.0
        one = watched(webhook=Webhook(receiver.url, secret=SECRET, deadline=deadline))
        with capture_events() as told:
            began = time.monotonic()
            outage(one, 1)
            assert time.monotonic() - began < 10.0
            (failed,) = told.wait_for(WebhookFailed)
            assert (failed.code, failed.target) == (code, receiver.url.removesuffix("/hook/private-part"))
            eventually(lambda: one.watch._alone.outbox[0].tries >= 1 or one.watch.look())
            assert failed.retry_after is not None
            assert failed.retry_after >= (40.0 if how == "fails" else 5.0)
            held.set()
            receiver.answer = lambda handler: reply(handler, 200)
            eventually(lambda: (one.clock.advance(20.0), one.watch.look(), not one.watch._alone.outbox)[2])
        ids = {headers["webhook-id"] for headers, _ in receiver.got}
        assert len(ids) == 1
        assert receiver.elsewhere == []
        assert "private-part" not in str(list(told))

    def test_one_that_is_gone_is_told_no_more(
        self, receiver: Receiver, watched: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        receiver.answer = lambda handler: reply(handler, 410)
        one = watched(webhook=Webhook(receiver.url, secret=SECRET))
        with capture_events() as told:
            outage(one, 1 / 12)
            (failed,) = told.wait_for(WebhookFailed)
            eventually(lambda: (one.watch.look(), not one.watch._alone.outbox)[1])
        assert (failed.code, failed.retry_after) == ("http_410", None)
        assert len(receiver.got) == 1

    def test_what_waits_is_bounded_and_given_up(self, eventually: Callable[..., None]) -> None:
        """A receiver that isn't there for days, while alerts come and go."""
        state, now = State(), 1.8e9
        for number in range(70):
            event = AlertOpened(
                at=now, target="app", kind="downstream", code="success_rate", detail="", count=number, failed=number
            )
            assert (state.post(message(event, "app")) is not None) is (number >= 64)
        state.outbox = state.outbox[:1]
        told = threading.Event()
        outbox = Outbox(Webhook("http://127.0.0.1:9/", secret=SECRET), no_jitter, told.set, time.time)
        pauses, failures = [], []
        while state.outbox:
            outbox.send(state, now)
            assert told.wait(5.0)
            told.clear()
            failures += list(outbox.account(state, now))
            outbox.accounted()
            if state.outbox:
                pauses.append(round(state.outbox[0].due - now, 1))
                now = state.outbox[0].due
            assert len(pauses) < 50
        outbox.end()
        assert len(pauses) == 19
        assert (pauses[:3], pauses[-1]) == ([7.5, 10.0, 15.0], 3600.0)
        assert [(event.code, event.retry_after is None) for event in failures] == [
            ("connection_failed", False),
            ("connection_failed", True),
        ]

    def test_a_clock_that_is_set_back_keeps_nothing_waiting(self) -> None:
        """What was put off to an hour of next year is tried now."""
        state = State()
        state.post(Item("msg_1", 1.8e9, "{}", tries=3, due=1.8e9 + 365 * 86_400.0))
        told = threading.Event()
        outbox = Outbox(Webhook("http://127.0.0.1:9/", secret=SECRET), no_jitter, told.set, time.time)
        outbox.send(state, 1.8e9)
        assert told.wait(5.0)
        outbox.end()

    def test_a_message_that_waited_for_others_is_signed_when_it_goes(
        self, receiver: Receiver, eventually: Callable[..., None]
    ) -> None:
        """A receiver refuses what is minutes old: so long may those before it have hung."""
        held, state, clock = threading.Event(), State(), [time.time() - 1200.0]
        receiver.answer = lambda handler: (held.wait(5.0), reply(handler, 204))
        for number in range(2):
            state.post(Item(f"msg_{number}", clock[0], "{}", due=clock[0]))
        outbox = Outbox(Webhook(receiver.url, secret=SECRET), no_jitter, lambda: None, lambda: clock[0])
        outbox.send(state, clock[0])
        eventually(lambda: receiver.got)
        clock[0] += 1200.0
        held.set()
        eventually(lambda: len(receiver.got) == 2)
        headers, body = receiver.got[1]
        standardwebhooks.Webhook(SECRET).verify(body, headers)
        outbox.end()

    def test_its_thread_ends_with_the_watch(
        self, receiver: Receiver, watched: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        """Though the receiver holds it: after its deadline there is none."""
        held = threading.Event()
        receiver.answer = lambda handler: held.wait(20)
        one = watched(webhook=Webhook(receiver.url, secret=SECRET, deadline=0.5))
        outage(one, 1 / 12)
        eventually(lambda: receiver.got)
        before = time.monotonic()
        one.watch.close()
        assert time.monotonic() - before < 1.0
        eventually(lambda: not [t for t in threading.enumerate() if t.name == "resilient-auth-events"], 3.0)
        held.set()


class TestAFleet:
    def test_a_message_outlives_the_process_that_had_to_send_it(
        self, receiver: Receiver, watched: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        """Killed while the receiver failed: the next one sends it, under the same id."""
        clock = ManualClock()
        store = ra.SealedStore(MemoryBackend(clock=clock), key=bytes(range(32)), clock=clock)
        receiver.answer = lambda handler: reply(handler, 503)
        one = watched(clock, store=store, webhook=Webhook(receiver.url, secret=SECRET))
        outage(one, 1 / 12)
        eventually(lambda: (one.watch.look(), one.watch._state.outbox[0].tries == 1)[1])
        assert one.watch._looking.acquire(timeout=5.0)  # it does nothing more
        receiver.answer = lambda handler: reply(handler, 204)
        clock.advance(300.0)
        other = watched(clock, store=store, webhook=Webhook(receiver.url, secret=SECRET))
        eventually(lambda: (other.watch.look(), len(receiver.got) >= 2 and not other.watch._state.outbox)[1])
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
        assert [alert.code for alert in other.watch.levels().alerts] == ["success_rate"]
        one.watch._looking.release()


class TestOptions:
    @pytest.mark.parametrize(
        ("url", "secret", "what"),
        [
            ("http://hooks.example/", SECRET, "url must be https"),
            ("ftp://127.0.0.1/", SECRET, "url must begin with https"),
            ("https://ann:pw@hooks.example/", SECRET, "holds a user name or password"),
            ("hooks.example", SECRET, "url must begin with https"),
            ("https://hooks.example/", "hunter2", "secret must begin with whsec_"),
            ("https://hooks.example/", "whsec_aHVudGVyMg==", "secret must begin with whsec_ .* it has 7"),
            ("https://hooks.example/", "whsec_no base64!", "secret must begin with whsec_"),
            ("https://hooks.example/", [], "secret must be one"),
        ],
    )
    def test_a_wrong_one_is_named_and_not_repeated(self, url: str, secret: Any, what: str) -> None:
        with pytest.raises(ConfigurationError, match=what) as raised:
            Webhook(url, secret=secret)
        assert "hunter2" not in str(raised.value)
        assert "pw@" not in str(raised.value)

    def test_it_tells_nothing_of_itself(self, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
        """Neither to a pickle, nor to a log at DEBUG while it is used."""
        webhook = Webhook(receiver.url, secret=SECRET)
        with pytest.raises(TypeError, match="holds secrets"):
            pickle.dumps(webhook)
        sender = Sender(webhook)
        with caplog.at_level(logging.DEBUG):
            assert sender.send("msg_1", 1, "{}").code == ""
        sender.close()
        assert "httpcore" in caplog.text
        assert "private-part" not in caplog.text
        assert SECRET.removeprefix("whsec_") not in caplog.text
