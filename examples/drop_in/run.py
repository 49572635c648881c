"""Run before.py and after.py through the same outage of a provider on this machine, and compare."""

import sys
import time
from pathlib import Path

from resilient_auth.emulator import Emulator, Fault

sys.path.insert(0, str(Path(__file__).parents[1]))

from rehearsal import Program, led_to

HERE = Path(__file__).parent
PROGRAMS = ("before.py", "after.py")
#: Seconds. The token lives ten minutes, so that a valid one is in hand all the time.
HEALTHY, OUTAGE, RECOVERY = 4.0, 10.0, 4.0
TOKEN_LIFETIME, REFRESH_IN = 600.0, 2.0


def environment(emulator: Emulator, name: str) -> dict[str, str]:
    return led_to(emulator) | {
        "AUTHORITY": "https://login.microsoftonline.com/contoso",
        "CLIENT_ID": name,
        "CLIENT_SECRET": "any will do here",
        "SCOPE": "api://sample/.default",
        "API_URL": f"{emulator.api_url}/api/orders",
        "REQUESTS": "1000",
    }


def between(program: Program, start: float, stop: float) -> list[str]:
    return [line for at, line in program.told if start <= at < stop]


def main() -> int:
    with Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:
        print(f"Tokens live {TOKEN_LIFETIME:g} s and are due for a refresh after {REFRESH_IN:g} s.")
        programs = [Program(HERE / name, environment(emulator, name), echo=False) for name in PROGRAMS]
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
                program.kill()
    print(f"\n{'requests served':<24}" + "".join(f"{program.name:>16}" for program in programs))
    phases = zip(("before the outage", "during the outage", "after it"), marks, marks[1:], strict=False)
    for phase, start, stop in phases:
        counts = [between(program, start, stop) for program in programs]
        shares = [f"{sum(line == 'served' for line in lines)} of {len(lines)}" for lines in counts]
        print(f"{phase:<24}" + "".join(f"{share:>16}" for share in shares))
    for program in programs:
        reasons = sorted({line for line in program.lines if line != "served"})
        print(f"{program.name}: {'; '.join(reasons) or 'nothing failed'}")
    # From its first answer on, a valid token was in hand: nothing excuses a failure of after.py.
    after = between(programs[1], marks[0], marks[-1])
    return 0 if after and all(line == "served" for line in after) else 1


if __name__ == "__main__":
    sys.exit(main())
