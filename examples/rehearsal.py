"""What the samples' run.py share: a program that knows nothing of an emulator, led through an outage of it."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from resilient_auth.emulator import Emulator, Fault

#: What would lead a program past the emulator.
_FOREIGN = (
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
)


def led_to(emulator: Emulator, *, ca_file: str | None = None) -> dict[str, str]:
    """Make an environment in which every host is the emulator, the one of the authority too, but for this machine."""
    return {
        **{name: value for name, value in os.environ.items() if name not in _FOREIGN},
        "HTTPS_PROXY": emulator.proxy_url,
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
        "REQUESTS_CA_BUNDLE": ca_file or emulator.ca_file,
        "PYTHONUNBUFFERED": "1",
    }


class Program:
    """A program under way, and what it has told, line by line with the time."""

    def __init__(self, file: Path, environment: dict[str, str], *, echo: bool = True) -> None:
        self.name = file.name
        self.told: list[tuple[float, str]] = []
        self._echo = echo
        self._process = subprocess.Popen(
            [sys.executable, str(file)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self.told.append((time.monotonic(), line.strip()))
            if self._echo:
                print(line, end="", flush=True)

    @property
    def lines(self) -> list[str]:
        return [line for _, line in self.told]

    def wait_for_first(self) -> None:
        """Wait until it tells something."""
        ends = time.monotonic() + 20
        while not self.told and self._process.poll() is None and time.monotonic() < ends:
            time.sleep(0.05)

    def close_input(self) -> None:
        """Tell it to stop by ending its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def terminate(self) -> None:
        """Tell it to stop by a signal, as a service's supervisor does."""
        self._process.terminate()

    def status(self) -> int:
        """Wait for its end, and for the last that it tells."""
        status = self._process.wait(timeout=10)
        self._listener.join(timeout=5)
        return status

    def kill(self) -> None:
        """End it, if it hasn't ended."""
        self._process.kill()
        self._process.wait()
        self._listener.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def break_and_heal(emulator: Emulator, fault: Fault, what: str, *, seconds: float, recovery_at_most: float) -> None:
    """Break the provider, heal it, and wait for a fresh token."""
    print(f"--- for {seconds:g} s the provider {what}", flush=True)
    emulator.fail(fault)
    time.sleep(seconds)
    emulator.heal()
    healed = time.time()
    print("--- the provider works again", flush=True)
    while time.time() < healed + recovery_at_most:
        if any(token.issued_at >= healed for token in emulator.ledger.tokens):
            print(f"--- a fresh token, {time.time() - healed:.1f} s later", flush=True)
            time.sleep(1.0)
            return
        time.sleep(0.1)
    print(f"--- no fresh token within {recovery_at_most:g} s; the one in hand is still valid", flush=True)
