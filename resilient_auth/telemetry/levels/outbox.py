"""Messages to a webhook: written, handed to a thread that may wait, tried again by the one back-off there is."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

from ..._policy.retry import delay_before
from ...clock import Jitter
from ...events import AlertOpened, AlertResolved, CredentialExpiring, Delivery, Event, WebhookFailed
from .state import Item, State
from .webhooks import Sender, Sent, Webhook

__all__ = ["Outbox", "earliest", "message"]

#: Seconds before the first repetition, at least, and between two, at most; and how often one is tried, in half a day.
_FIRST, _LONGEST, _MOST_TRIES = 5.0, 3600.0, 20
_TYPES: Final = {
    AlertOpened: "alert.opened",
    AlertResolved: "alert.resolved",
    CredentialExpiring: "credential.expiring",
}


def message(event: Event, application: str) -> Item:
    """Return what a webhook is told of an event: no secret, no user, and no path of this machine."""
    data = {name: value for name, value in event.to_dict().items() if name not in ("event", "at", "target")}
    body = {
        "type": _TYPES[type(event)],
        "timestamp": datetime.fromtimestamp(event.at, UTC).isoformat().replace("+00:00", "Z"),
        "data": {"application": application, **data},
    }
    return Item(f"msg_{secrets.token_hex(12)}", event.at, json.dumps(body), due=event.at)


class Outbox:
    """Send what is due, one message at a time, and note what came of it.

    Args:
        webhook: Whom to tell.
        jitter: Spreads the delays.
        wake: Called when something came of a message, on the thread that sends.
        wall: Tells the time at which each is sent: a receiver refuses what is minutes old, as it must, and others may
            have taken that long before it.
    """

    def __init__(self, webhook: Webhook, jitter: Jitter, wake: Callable[[], object], wall: Callable[[], float]) -> None:
        self._webhook = webhook
        self._jitter = jitter
        self._wake = wake
        self._wall = wall
        self._sender = Sender(webhook)
        self._sending: Delivery[Callable[[], object]] = Delivery(lambda send: send(), capacity=256)
        self.renew()

    def renew(self) -> None:
        """Begin with nothing under way, at first and in a forked child."""
        self._sending.renew()
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._came: dict[str, Sent] = {}
        self._noted: dict[str, Sent] = {}

    def send(self, state: State, now: float) -> None:
        """Have sent what is due and isn't under way."""
        self._sending.revive()
        for item in state.outbox:
            # The clock may have been set back since that was noted.
            if now >= item.due or item.due > now + 2.0 * _LONGEST:
                with self._lock:
                    if item.id in self._under_way or item.id in self._came:
                        continue
                    self._under_way.add(item.id)
                self._sending.put(partial(self._send, item.id, item.body))

    def _send(self, message_id: str, body: str) -> None:
        sent = self._sender.send(message_id, int(self._wall()), body)
        with self._lock:
            self._under_way.discard(message_id)
            self._came[message_id] = sent
        self._wake()

    def account(self, state: State, now: float) -> Iterator[Event]:
        """Strike what was taken in from a state, and put off what wasn't; tells what failed."""
        with self._lock:
            came = self._noted = dict(self._came)
        for item in list(state.outbox):
            sent = came.get(item.id)
            if sent is None:
                continue
            if not sent.code:
                state.outbox.remove(item)
                continue
            item.tries += 1
            over = sent.gone or item.tries >= _MOST_TRIES
            pause = delay_before(
                item.tries, sent.retry_after, first=_FIRST, longest=_LONGEST, jitter=self._jitter, spread=0.1
            )
            item.due = now + pause
            if over:
                state.outbox.remove(item)
            if over or item.tries == 1:
                yield self.failed(now, sent.code, sent.detail, None if over else pause)

    def failed(self, now: float, code: str, detail: str, retry_after: float | None) -> Event:
        """Return the event that says so."""
        return WebhookFailed(at=now, target=self._webhook.origin, code=code, detail=detail, retry_after=retry_after)

    def accounted(self) -> None:
        """Forget what came of messages, since it is noted in a state that is kept."""
        with self._lock:
            for message_id in self._noted:
                self._came.pop(message_id, None)

    def end(self) -> None:
        """Send nothing more."""
        self._sending.end()
        self._sender.close()


def earliest(state: State) -> float | None:
    """Return when something is due next; None where nothing waits."""
    return min((item.due for item in state.outbox), default=None)
