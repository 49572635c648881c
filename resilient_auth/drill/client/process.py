"""The drill's hold on a client's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .records import Request, parse

__all__ = ["ClientProcess"]

# They would beat what an application is told: its certificates, its way to the provider, its settings.
_UNWANTED: Final = frozenset(
    {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REGION_NAME", "MSAL_FORCE_REGION"}
    | {name for scheme in ("http", "https", "all") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())}
)
_PACKAGE_HOME: Final = str(Path(__file__).resolve().parents[3])


class ClientProcess:
    """One client in a process of its own.

    Args:
        orders: What `client` is to do.
    """

    def __init__(self, orders: Mapping[str, Any]) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._last_words: deque[str] = deque(maxlen=5)
        self._ended_well = False
        #: Why it can't ask at all.
        self.refused: str | None = None
        self.ready = threading.Event()
        #: The phases as whose end it has written a scrape.
        self.scraped: set[str] = set()
        self.served = self.failed = 0
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of our own
            [sys.executable, "-m", __package__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(drills_an_app=orders.get("app") is not None),
        )
        self._readers = [
            threading.Thread(target=self._read_records, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self._tell(json.dumps(orders))

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def requests(self) -> tuple[Request, ...]:
        """What it has told so far."""
        with self._lock:
            return tuple(self._requests)

    @property
    def trouble(self) -> str | None:
        """Why its records aren't whole, if they aren't."""
        if self._ended_well:
            return None
        if self.refused is not None:
            return self.refused
        # The kind of error and not its text, which might quote an answer of the provider.
        words = self._last_words[-1].partition(":")[0][:80] if self._last_words else "no word of why"
        return f"its process ended with status {self._process.poll()}: {words}"

    def start(self, at: float) -> None:
        """Have it ask from `at` on, in seconds since the epoch."""
        self._tell(repr(at))

    def scrape(self, phase: str) -> None:
        """Have it write what a scrape tells now, under a phase's name."""
        self._tell(phase)

    def stop(self) -> None:
        """Have it tell the rest and end; returns at once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except OSError:
                return  # it has died, which `trouble` tells

    def close(self) -> None:
        """Free all that it holds, and kill it where it still runs."""
        self.stop()
        if self.alive:
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(5.0)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _tell(self, line: str) -> None:
        try:
            assert self._process.stdin is not None  # noqa: S101 - it is a pipe
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            return  # it has died, which `trouble` tells

    def _read_records(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            match line.strip():
                case "ready":
                    self.ready.set()
                case "end":
                    self._ended_well = True
                case text if text.startswith("refused "):
                    self.refused = text.removeprefix("refused ")
                case text if text.startswith("scraped "):
                    self.scraped.add(text.removeprefix("scraped "))
                case text:
                    request = parse(text)
                    with self._lock:
                        self._requests.append(request)
                        if request.token is None:
                            self.failed += 1
                        else:
                            self.served += 1

    def _read_errors(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        for line in self._process.stderr:
            self._last_words.append(line.strip())


def _environment(*, drills_an_app: bool) -> dict[str, str]:
    # An application is drilled with its own settings, and can import there what it can here.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _UNWANTED and (drills_an_app or not name.startswith("RESILIENT_AUTH_"))
    }
    path = (_PACKAGE_HOME, *(sys.path if drills_an_app else (kept.get("PYTHONPATH", ""),)))
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
