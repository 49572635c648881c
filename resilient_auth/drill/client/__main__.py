"""A client's process: `python -m resilient_auth.drill.client`, led by the drill through its standard input.

It reads its orders as one line of JSON, builds its application, says that it is ready, starts at the time that it is
told, writes a scrape when it is told a phase's name, and ends when its input does. Where plain MSAL is the client,
nothing of the SDK is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from . import PEER, SDK, Refused
from .records import Request, encode

_SCOPES: Final = ("api://drill/.default",)
_SECRET: Final = "of the drill"  # noqa: S105 - the emulator takes any
_FLUSH: Final = 0.25
_PATIENCE: Final = 0.3

#: Finds the token in what a request has come to, or else what went wrong.
TokenOf = Callable[[Any], tuple[str | None, str | None]]


def _build(orders: Mapping[str, Any]) -> Callable[[], Any]:
    if orders["app"] is not None:
        from .rehearsed import Provider, build

        provider = Provider(
            authority=orders["authority"],
            ca_file=orders["ca_file"],
            client_id="drilled",
            client_credential=_SECRET,
            scopes=_SCOPES,
            api_url=orders["api_url"],
        )
        return build(orders["app"], provider)
    options: dict[str, Any] = {
        "authority": orders["authority"],
        "client_credential": _SECRET,
        "instance_discovery": False,
        "verify": orders["ca_file"],
    }
    if orders["client"] == SDK:
        from resilient_auth import msal
    else:
        import msal  # type: ignore[no-redef]

        options["timeout"] = orders["timeout"]
    app = msal.ConfidentialClientApplication(orders["client"], **options)
    return lambda: app.acquire_token_for_client(list(_SCOPES))


class _Load:
    """The threads that ask, and what they have seen."""

    def __init__(self, ask: Callable[[], Any], token_of: TokenOf, threads: int, interval: float, start: float) -> None:
        self._ask = ask
        self._token_of = token_of
        self._interval = interval
        self._lock = threading.Lock()
        self._seen: list[tuple[float, float, str | None, str | None]] = []
        self._under_way: dict[int, tuple[float, float]] = {}
        self._stopping = threading.Event()
        for number in range(threads):
            first = start + interval * number / threads
            threading.Thread(target=self._work, args=(number, first), daemon=True).start()

    def stop(self) -> None:
        """Begin no further request."""
        self._stopping.set()

    def take(self) -> list[Request]:
        """Take what has ended since the last time."""
        with self._lock:
            seen, self._seen = self._seen, []
        return [Request(began, wait, token and _sha256(token), error) for began, wait, token, error in seen]

    def unfinished(self) -> list[Request]:
        """Return what is still under way."""
        now = time.perf_counter()
        return [Request(began, now - at, finished=False) for began, at in list(self._under_way.values())]

    def _work(self, number: int, due: float) -> None:
        while not self._stopping.wait(max(0.0, due - time.time())):
            began, at = time.time(), time.perf_counter()
            self._under_way[number] = (began, at)
            token = error = None
            try:
                result = self._ask()
                wait = time.perf_counter() - at
            except Exception as raised:  # noqa: BLE001 - whatever it is, this request wasn't served
                wait = time.perf_counter() - at
                error = type(raised).__name__
            else:
                token, error = self._token_of(result)
            del self._under_way[number]
            with self._lock:
                self._seen.append((began, wait, token, error))
            # What came due meanwhile is counted by the judge, and not made up for in a burst.
            behind = time.time() - due
            due += self._interval * (1 + max(0, int(behind / self._interval)))


def _in_result(result: Any) -> tuple[str | None, str | None]:
    token = result.get("access_token") if isinstance(result, dict) else None
    if token is not None:
        return token, None
    error = result.get("error") if isinstance(result, dict) else None
    return None, str(error)[:60] if error else type(result).__name__


def _tokens(orders: Mapping[str, Any]) -> TokenOf:
    if orders["app"] is None:
        return _in_result
    from .rehearsed import token_of

    return token_of


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _say(out: TextIO, lines: list[str]) -> None:
    if lines:
        out.write("\n".join(lines) + "\n")
        out.flush()


def _exports(orders: Mapping[str, Any]) -> Callable[[str], None]:
    if orders["client"] == PEER or orders["telemetry"] is None:
        return lambda phase: None
    from .exported import switch_on

    return switch_on(Path(orders["telemetry"]), orders["fault"])


def _lead(out: TextIO) -> None:
    orders = json.loads(sys.stdin.readline())
    scrape = _exports(orders)
    try:
        ask = _build(orders)
    except Refused as error:
        _say(out, [f"refused {error}"])
        return
    _say(out, ["ready"])
    start = sys.stdin.readline()
    if not start:
        return
    asking = _Load(ask, _tokens(orders), orders["threads"], orders["interval"], float(start))
    ended = threading.Event()
    scraped: deque[str] = deque()

    def listen() -> None:
        for phase in sys.stdin:
            scrape(phase.strip())
            scraped.append(f"scraped {phase.strip()}")
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    while not ended.wait(_FLUSH):
        _say(out, [encode(request) for request in asking.take()])
        _say(out, [scraped.popleft() for _ in range(len(scraped))])
    asking.stop()
    time.sleep(_PATIENCE)
    _say(out, [encode(request) for request in (*asking.take(), *asking.unfinished())])
    _say(out, ["end"])


if __name__ == "__main__":
    # Whatever a library prints must not mix with the records.
    records, sys.stdout = sys.stdout, sys.stderr
    _lead(records)
    # Not by way of interpreter shutdown: plain MSAL may hang in a thread, and the drill must end.
    os._exit(0)
