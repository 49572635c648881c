"""Have a provider on this machine call api.py while its database works, is held by somebody, and is broken."""

import contextlib
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from resilient_auth.emulator import CalloutOutcome, Emulator

sys.path.insert(0, str(Path(__file__).parents[1]))

from rehearsal import Program, led_to

API = Path(__file__).with_name("api.py")
TENANT = "1b5fcc5c-5b7c-4d40-9d0c-5d3d7a1f0c11"
AUDIENCE = "api://callouts"
PASSWORD = "the password that B2C was given"
TABLES = """
CREATE TABLE members (id TEXT PRIMARY KEY, tier TEXT);
CREATE TABLE barred (email TEXT PRIMARY KEY);
CREATE TABLE sign_ups (key TEXT PRIMARY KEY, email TEXT);
"""
#: Sign-ins and sign-ups in each part, and seconds.
EACH, START_AT_MOST, WRITTEN_AT_MOST = 3, 20.0, 60.0


class Scene:
    """A provider, the API and its database."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.emulator = emulator
        self.database = folder / "members.db"
        self.ann = emulator.add_user("ann@contoso.com").oid
        with contextlib.closing(sqlite3.connect(self.database)) as db:
            db.executescript(TABLES)
            db.execute("INSERT INTO members VALUES (?, 'gold')", (self.ann,))
            db.execute("INSERT INTO barred VALUES ('eve@contoso.com')")
            db.commit()
        emulator.add_user("eve@contoso.com")
        emulator.add_user("bob@contoso.com")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {"PORT": str(port), "DATA": str(folder), "TENANT_ID": TENANT, "AUDIENCE": AUDIENCE}
        self.api = Program(API, led_to(emulator) | environment | {"B2C_PASSWORD": PASSWORD})
        ends = time.monotonic() + START_AT_MOST
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/health", trust_env=False)
                return
            if time.monotonic() > ends:
                self.api.kill()
                raise RuntimeError("the API didn't start")
            time.sleep(0.05)

    def sign_in(self, user: str) -> CalloutOutcome:
        """Have Entra ask for a token's claims, as it waits: for 1 s, and once more."""
        return self.emulator.call_out(
            f"{self.url}/callouts/token",
            audience=AUDIENCE,
            issuer=f"https://login.microsoftonline.com/{TENANT}/v2.0",
            tenant=TENANT,
            user=user,
        )

    def sign_up(self, user: str, email: str, name: str) -> CalloutOutcome:
        """Have B2C ask whether a sign-up may go on."""
        return self.emulator.call_out(
            f"{self.url}/callouts/sign-up",
            "apiConnector",
            basic=("b2c", PASSWORD),
            user=user,
            data={"email": email, "displayName": name},
            locale="de-AT",
        )

    def written(self) -> set[str]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=5.0)) as db:
            return {email for (email,) in db.execute("SELECT email FROM sign_ups")}


def told(outcome: CalloutOutcome) -> str:
    """Say what a user met."""
    if outcome.failed:
        return f"FAILED ({outcome.attempts[-1].reason})"
    claims = outcome.says.get("claims", {})
    return f"{outcome.action} {claims.get('tier', '')}".strip()


def part(scene: Scene, name: str, begun: list[CalloutOutcome]) -> Counter[str]:
    """Sign users in and up, and tell what they met."""
    met: Counter[str] = Counter()
    for number in range(EACH):
        visitor = f"{name.replace(' ', '-')}-{number}"
        for who, outcome in (
            ("ann signs in", scene.sign_in("ann@contoso.com")),
            ("bob signs in", scene.sign_in("bob@contoso.com")),
            ("a visitor signs up", scene.sign_up("bob@contoso.com", f"{visitor}@contoso.com", visitor)),
            ("eve signs up", scene.sign_up("eve@contoso.com", "eve@contoso.com", visitor)),
        ):
            met[f"{who}: {told(outcome)}"] += 1
            begun.append(outcome)
    print(f"while the database {name}:", flush=True)
    for what, times in sorted(met.items()):
        print(f"  {what} ({times} times)", flush=True)
    return met


def main() -> int:
    outcomes: list[CalloutOutcome] = []
    with Emulator() as emulator, tempfile.TemporaryDirectory() as folder:
        scene = Scene(emulator, Path(folder))
        try:
            works = part(scene, "works", outcomes)
            with contextlib.closing(sqlite3.connect(scene.database, isolation_level=None)) as holder:
                holder.execute("BEGIN EXCLUSIVE")
                held = part(scene, "is held by somebody", outcomes)
            away = scene.database.with_suffix(".away")
            scene.database.rename(away)
            part(scene, "is gone", outcomes)
            away.rename(scene.database)
            ends = time.monotonic() + WRITTEN_AT_MOST
            wanted = {f"works-{number}@contoso.com" for number in range(EACH)}
            while not wanted <= scene.written() and time.monotonic() < ends:
                time.sleep(0.2)
            print(f"sign-ups written in the end: {len(scene.written() & wanted)} of {len(wanted)}", flush=True)
            lost = wanted - scene.written()
        finally:
            scene.api.kill()
    failed = [outcome for outcome in outcomes if outcome.failed]
    slowest = max(attempt.seconds for outcome in outcomes for attempt in outcome.attempts)
    print(
        f"{len(outcomes)} sign-ins and sign-ups, {len(failed)} failed; the slowest answer took {slowest:.2f} s",
        flush=True,
    )
    kept = works["ann signs in: provideClaimsForToken gold"] == held["ann signs in: provideClaimsForToken gold"] == EACH
    barred = not any("eve signs up: Continue" in what for what in (*works, *held))
    return 0 if not failed and not lost and kept and barred else 1


if __name__ == "__main__":
    sys.exit(main())
