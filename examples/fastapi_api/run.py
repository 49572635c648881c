"""Run api.py through an outage of its provider on this machine, a restart included, and through claims challenges."""

import re
import signal
import socket
import ssl
import sys
import tempfile
import time
from base64 import b64decode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault

sys.path.insert(0, str(Path(__file__).parents[1]))

from rehearsal import Program, led_to

API = Path(__file__).with_name("api.py")
TENANT = "1b5fcc5c-5b7c-4d40-9d0c-5d3d7a1f0c11"
AUTHORITY = f"https://login.microsoftonline.com/{TENANT}"
SCOPES = ["api://orders/orders.read", "api://orders/orders.refund"]
#: Seconds.
HEALTHY, OUTAGE, RECOVERY_AT_MOST, START_AT_MOST, SLOWEST = 1.0, 2.0, 20.0, 20.0, 3.5


def environment(emulator: Emulator, folder: Path, port: int) -> dict[str, str]:
    """Make the API's environment, and pin the keys that the provider publishes; a person would look at them first."""
    trust = ssl.create_default_context(cafile=emulator.ca_file)
    with httpx.Client(proxy=emulator.proxy_url, verify=trust, trust_env=False) as client:
        (folder / "keys.json").write_text(client.get(f"{AUTHORITY}/discovery/v2.0/keys").text)
    return led_to(emulator) | {
        # httpx, with which the inventory is called, reads another variable than requests does.
        "SSL_CERT_FILE": emulator.ca_file,
        "PORT": str(port),
        "DATA": str(folder),
        "PINNED_KEYS": str(folder / "keys.json"),
        "TENANT_ID": TENANT,
        "AUDIENCE": "api://orders",
        "CLIENT_ID": "orders-api",
        "CLIENT_SECRET": "a secret of the emulator",
        "INVENTORY_URL": emulator.api_url,
        "INVENTORY_SCOPE": "api://inventory/stock.read",
        "OPERATOR_PASSWORD": "for operators alone",
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def start(environment: dict[str, str]) -> Program:
    """Start the API, and return when it answers."""
    api = Program(API, environment)
    ends = time.monotonic() + START_AT_MOST
    while time.monotonic() < ends:
        try:
            httpx.get(f"http://127.0.0.1:{environment['PORT']}/health", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return api
    api.kill()
    raise RuntimeError("the API didn't start")


class Caller:
    """A user's desktop application that calls the API, and knows what to do about claims challenges."""

    def __init__(self, emulator: Emulator, url: str, name: str) -> None:
        self.name = name
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=10)
        self._app = msal.PublicClientApplication(
            "orders-desktop",
            authority=AUTHORITY,
            client_capabilities=["cp1"],
            proxies={"https": emulator.proxy_url},
            verify=emulator.ca_file,
        )
        username = f"{name}@contoso.com"
        emulator.add_user(username)
        flow = self._app.initiate_auth_code_flow(SCOPES, redirect_uri="http://localhost", response_mode="form_post")
        signed_in = emulator.sign_in(flow["auth_uri"], username)
        self._token = self._app.acquire_token_by_auth_code_flow(flow, signed_in)["access_token"]

    def call(self, path: str, method: str = "GET") -> httpx.Response:
        return self._client.request(method, path, headers={"Authorization": f"Bearer {self._token}"})

    def orders(self) -> str:
        """Ask for the orders, and tell what came: `full`, `reduced`, or what went wrong."""
        try:
            answer = self.call("/orders")
        except httpx.TransportError as error:
            return type(error).__name__
        if answer.status_code != 200:
            return f"status {answer.status_code}"
        return "full" if answer.json()["stock"] else "reduced"

    def meet(self, challenge: httpx.Response) -> str:
        """Get a token with the claims that the API asked for, and tell them."""
        header = challenge.headers["WWW-Authenticate"]
        found = re.search('error="insufficient_claims".*claims="([^"]+)"', header)
        if challenge.status_code != 401 or found is None:
            raise RuntimeError(f"not a claims challenge: {challenge.status_code}, {header}")
        claims = b64decode(found[1]).decode()
        account = self._app.get_accounts()[0]
        result = self._app.acquire_token_silent(SCOPES, account, claims_challenge=claims)
        self._token = (result or {})["access_token"]
        return claims

    def close(self) -> None:
        self._client.close()
        self._app.close()


class Answers:
    """What callers got, each asking for its orders again and again, all at the same time."""

    def __init__(self) -> None:
        self.came: Counter[str] = Counter()
        self.slowest = 0.0

    def collect(self, seconds: float, *callers: Caller) -> None:
        ends = time.monotonic() + seconds
        with ThreadPoolExecutor(len(callers)) as pool:
            list(pool.map(lambda caller: self._ask(caller, ends), callers))

    def _ask(self, caller: Caller, ends: float) -> None:
        while time.monotonic() < ends:
            began = time.monotonic()
            self.came[f"{caller.name}: {caller.orders()}"] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(0.1)

    def __str__(self) -> str:
        return ", ".join(f"{what} {times} times" for what, times in sorted(self.came.items()))


def rehearse(emulator: Emulator, settings: dict[str, str]) -> bool:
    url = f"http://127.0.0.1:{settings['PORT']}"
    api = start(settings)
    ada, bob = Caller(emulator, url, "ada"), Caller(emulator, url, "bob")
    before, during = Answers(), Answers()
    try:
        before.collect(HEALTHY, ada)
        print(f"the provider works:       {before}", flush=True)

        emulator.fail(Fault.black_hole())
        # bob has a token, and never called before: none for the inventory can be obtained on their behalf.
        during.collect(OUTAGE, ada, bob)
        api.terminate()
        api.status()
        api = start(settings)
        keys = ada.call("/me").json()["keys"]
        during.collect(OUTAGE, ada, bob)
        print(f"the provider is gone:     {during}; the slowest took {during.slowest:.1f} s")
        print(f"after a restart meanwhile tokens were verified with {keys} keys", flush=True)

        emulator.heal()
        began = time.monotonic()
        while (came := bob.orders()) != "full" and time.monotonic() - began < RECOVERY_AT_MOST:
            time.sleep(0.2)
        print(f"the provider works again: bob: {came} after {time.monotonic() - began:.1f} s", flush=True)

        emulator.revoke("ada@contoso.com")
        print(f"the inventory challenges, and the API hands that on: {ada.meet(ada.call('/orders'))}")
        after = ada.orders()
        step_up = ada.meet(ada.call("/orders/1001/refund", "POST"))
        print(f"the API itself challenges, for a refund: {step_up}", flush=True)
    finally:
        ada.close()
        bob.close()
        api.terminate()
        status = api.status()
        api.kill()
    # uvicorn stops in order, and then ends by the signal that it was sent.
    print(f"\nthe API ended {'in order' if status in (0, -signal.SIGTERM) else f'with status {status}'}")
    # From the first request on, all that these answers were made of was in hand: nothing excuses a failure.
    return (
        set(before.came) == {"ada: full"}
        and set(during.came) == {"ada: full", "bob: reduced"}
        and during.slowest < SLOWEST
        and (came, after, keys) == ("full", "full", "pinned")
        and status in (0, -signal.SIGTERM)
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        return 0 if rehearse(emulator, environment(emulator, Path(folder), free_port())) else 1


if __name__ == "__main__":
    sys.exit(main())
