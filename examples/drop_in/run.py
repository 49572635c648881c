"""Run before.py and after.py through the same outage of a provider on this machine, and compare."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from resilient_auth.emulator import Emulator, Fault

HERE = Path(__file__).parent
PROGRAMS = ("before.py", "after.py")
#: Seconds. The token lives ten minutes, so that a valid one is in hand all the time.
HEALTHY, OUTAGE, RECOVERY = 4.0, 10.0, 4.0
TOKEN_LIFETIME, REFRESH_IN = 600.0, 2.0


def environment(emulator: Emulator, name: str) -> dict[str, str]:
    """Lead a program that knows nothing of an emulator to this one."""
    return {
        **{name: value for name, value in os.environ.items() if name != "CURL_CA_BUNDLE"},
        "AUTHORITY": "https://login.microsoftonline.com/contoso",
        "CLIENT_ID": name,
        "CLIENT_SECRET": "any will do here",
        "SCOPE": "api://sample/.default",
        "API_URL": f"{emulator.api_url}/api/orders",
        "REQUESTS": "1000",
        # Behind this proxy every host is the emulator, the one of the authority too.
        "HTTPS_PROXY": emulator.proxy_url,
        "NO_PROXY": "localhost",
        "REQUESTS_CA_BUNDLE": emulator.ca_file,
    }


class Program:
    """A program under way, and what it has told."""

    def __init__(self, emulator: Emulator, name: str) -> None:
        command = [sys.executable, str(HERE / name)]
        self.name = name
        self.told: list[tuple[float, str]] = []
        self._process = subprocess.Popen(command, env=environment(emulator, name), stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self.told.append((time.monotonic(), line.strip()))

    def wait_for_first(self) -> None:
        ends = time.monotonic() + 15
        while not self.told and self._process.poll() is None and time.monotonic() < ends:
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def between(self, start: float, stop: float) -> list[str]:
        return [line for at, line in self.told if start <= at < stop]


def main() -> int:
    with Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:
        print(f"Tokens live {TOKEN_LIFETIME:g} s and are due for a refresh after {REFRESH_IN:g} s.")
        programs = [Program(emulator, name) for name in PROGRAMS]
        try:
            for program in programs:
                program.wait_for_first()
            marks = [time.monotonic()]
            for fault, seconds in ((None, HEALTHY), (Fault.http_503(), OUTAGE), (None, RECOVERY)):
                emulator.heal()
                if fault is not None:
                    emulator.fail(fault)
                print(f"The provider {'works' if fault is None else 'answers 503'} for {seconds:g} s ...", flush=True)
                time.sleep(seconds)
                marks.append(time.monotonic())
        finally:
            for program in programs:
                program.stop()
    print(f"\n{'requests served':<24}" + "".join(f"{program.name:>16}" for program in programs))
    phases = zip(("before the outage", "during the outage", "after it"), marks, marks[1:], strict=False)
    for phase, start, stop in phases:
        counts = [program.between(start, stop) for program in programs]
        shares = [f"{sum(line == 'served' for line in lines)} of {len(lines)}" for lines in counts]
        print(f"{phase:<24}" + "".join(f"{share:>16}" for share in shares))
    for program in programs:
        reasons = sorted({line for _, line in program.told if line != "served"})
        print(f"{program.name}: {'; '.join(reasons) or 'nothing failed'}")
    # From its first answer on, a valid token was in hand: nothing excuses a failure of after.py.
    after = programs[1].between(marks[0], marks[-1])
    return 0 if after and all(line == "served" for line in after) else 1


if __name__ == "__main__":
    sys.exit(main())
