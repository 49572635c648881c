"""What the status page's routes answer, whichever framework serves them.

    {path}         the document, with all that there is to tell
    {path}/now     the sections as JSON, for who asks again and again
    {path}/events  the same as a server-sent event, or as a stream of what changes

All of them are behind the owner's own authentication, which each framework's `mount_status_page` sees to.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from time import monotonic
from time import time as _time
from typing import Final

from ..._policy.checks import require, require_path
from ...health import health
from ...health.looking import Look
from ...health.survival import take_stock
from .. import service_levels
from .history import history
from .sections import TITLES, Seen, sections

__all__ = ["EVENT_STREAM", "HTML", "JSON", "STREAM_SECONDS", "Answer", "Answers", "StatusPage"]

HTML, JSON, EVENT_STREAM = "text/html; charset=utf-8", "application/json", "text/event-stream"
#: Seconds for which one look is told to all who ask, and for which it is told while somebody looks again.
_KEPT, _OLD = 1.0, 10.0
#: Seconds between two looks into the stores, while somebody reads; and after which one counts as hung.
_STOCK_EVERY, _STOCK_HANGS = 30.0, 120.0
#: Streams at a time in one process; who comes later asks again and again. Seconds of one, and between two looks for it.
_MOST_STREAMS: Final = 16
STREAM_SECONDS: Final = 120.0
_MOST_LANES, _MOST_OUTAGES = 12, 50
#: Milliseconds after which a browser connects anew whose stream has ended.
_RETRY: Final = 3000

_STYLE, _SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash(_SCRIPT)}",
        f"style-src {_hash(_STYLE)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": _POLICY,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and the headers that it is sent with."""

    body: str
    media_type: str
    status: int = 200

    @property
    def headers(self) -> dict[str, str]:
        """Return them."""
        # A proxy that gathers a stream would make it none.
        return _HEADERS | ({"X-Accel-Buffering": "no"} if self.media_type == EVENT_STREAM else {})


#: Paths, and what answers at each.
Answers = tuple[tuple[str, Callable[[], Answer]], ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """One look, written down."""

    sections: dict[str, str]
    title: str
    time: str

    def to_json(self, wanted: set[str] | None = None) -> str:
        names = self.sections if wanted is None else wanted
        chosen = {name: self.sections[name] for name in self.sections if name in names}
        return json.dumps({"sections": chosen, "title": self.title, "time": self.time})


class StatusPage:
    """One application's page.

    Args:
        path: Where, such as `/status`.
        title: What it is headed with.

    Raises:
        ConfigurationError: The path can't be one, or the title isn't a text.
    """

    def __init__(self, path: str, title: str) -> None:
        require_path("path", path, "/status")
        require(isinstance(title, str) and title.strip() != "", f"title must be a text, not {title!r}")
        self.path = path
        self._title = title
        self._look: Look[_Told] = Look(self._take_look, _KEPT, _OLD)
        self._stock_at = -_STOCK_HANGS
        self._stocking = False
        #: When each stream that is open ends at the latest.
        self._streams: dict[int, float] = {}
        self._numbers = itertools.count()
        history.begin()

    @property
    def answers(self) -> Answers:
        """Return each path, and what answers there."""
        return (self.path, self.document), (f"{self.path}/now", self.now), (f"{self.path}/events", self.event)

    def document(self) -> Answer:
        """Return the page itself."""
        told = self._look()
        parts = "".join(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title"'
            f"{' class=heard' if name == 'verdict' else ''}>{heading}</h2><div>{told.sections[name]}</div></section>"
            for name, heading in TITLES.items()
            if name in told.sections
        )
        return Answer(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{escape(told.title)}</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n'
            f'<body>\n<a class="skip" href="#verdict">Skip to the verdict</a>\n<header><h1>{escape(self._title)}</h1>'
            f'<p class="small soft"><span id="live">not live</span>, as of <span id="renewed">{told.time}</span></p>'
            f'</header>\n<main>{parts}</main>\n<footer class="small soft"><p>Process {os.getpid()}, '
            f"circuits watched since {_moment(history.since or _time())}. Each process has a page of its own."
            f"</p></footer>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n",
            HTML,
        )

    def now(self) -> Answer:
        """Return the sections as JSON."""
        return Answer(self._look().to_json(), JSON)

    def event(self) -> Answer:
        """Return the sections as one event, after which a browser connects anew: a stream that holds no thread."""
        return Answer(f"retry: {_RETRY}\ndata: {self._look().to_json()}\n\n", EVENT_STREAM)

    def full(self) -> bool:
        """Return whether there are as many streams as there may be."""
        now = monotonic()
        for key, ends in list(self._streams.items()):
            if ends < now:  # a forked parent's, or one whose end nobody saw
                self._streams.pop(key, None)
        return len(self._streams) >= _MOST_STREAMS

    def opened(self) -> int:
        """Note a stream; returns what `closed` takes."""
        key = next(self._numbers)
        self._streams[key] = monotonic() + 2 * STREAM_SECONDS
        return key

    def closed(self, key: int) -> None:
        """Note that a stream has ended."""
        self._streams.pop(key, None)

    def changes(self) -> Iterator[str]:
        """Yield one message a look: the sections that have changed since, or a comment where none has."""
        known: dict[str, str] = {}
        yield f"retry: {_RETRY}\n\n"
        while True:
            told = self._look()
            changed = {name for name, html in told.sections.items() if known.get(name) != html}
            known = told.sections
            yield f"data: {told.to_json(changed)}\n\n" if changed else ":\n\n"

    def _take_look(self) -> _Told:
        self._stock_soon()
        at = _time()
        seen, lanes = health(), history.lanes(at, _MOST_LANES)
        told = Seen(
            at=at,
            health=seen,
            levels=service_levels(),
            lanes=lanes,
            outages=history.outages(lanes, _MOST_OUTAGES),
            since=history.since or at,
            process=os.getpid(),
        )
        return _Told(sections(told), f"{seen.verdict.upper()}: {self._title}", _moment(at))

    def _stock_soon(self) -> None:
        """Have the stores looked into on a thread of its own, now and then: who reads waits for none of them."""
        now = monotonic()
        if now - self._stock_at < (_STOCK_HANGS if self._stocking else _STOCK_EVERY):
            return
        self._stock_at, self._stocking = now, True

        def run() -> None:
            try:
                take_stock()
            finally:
                self._stocking = False

        try:
            threading.Thread(target=run, name="resilient-auth-status-page", daemon=True).start()
        except RuntimeError:  # the system has none to give: another time
            self._stocking = False


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%d %b %H:%M:%S} UTC"
