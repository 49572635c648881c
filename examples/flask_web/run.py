"""Run web.py through an outage of its provider on this machine, a restart included: who is signed in, and who isn't."""

import re
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from html import unescape
from pathlib import Path

import httpx
import trustme
from cryptography.fernet import Fernet
from resilient_auth.emulator import Emulator, Fault

sys.path.insert(0, str(Path(__file__).parents[1]))

from rehearsal import Program, led_to

WEB = Path(__file__).with_name("web.py")
#: Seconds. Tokens are due soon, so that the web application notices the outage; and live longer than the whole run.
HEALTHY, OUTAGE, RECOVERY_AT_MOST, START_AT_MOST, SLOWEST = 1.0, 2.0, 20.0, 20.0, 3.0
TOKEN_LIFETIME, REFRESH_IN = 600.0, 2.0


def environment(emulator: Emulator, folder: Path) -> dict[str, str]:
    """Make the application's environment, with a certificate of its own for this machine."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "web.pem")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return led_to(emulator) | {
        # httpx, with which the API is called, reads another variable than requests does.
        "SSL_CERT_FILE": emulator.ca_file,
        "BASE_URL": f"https://localhost:{port}",
        "CERTIFICATE_FILE": str(folder / "web.pem"),
        "KEY_FILE": str(folder / "web.pem"),
        "DATA": str(folder / "data"),
        "COOKIE_KEY": Fernet.generate_key().decode(),
        "OPERATOR_PASSWORD": "for operators alone",
        "AUTHORITY": "https://login.microsoftonline.com/contoso",
        "CLIENT_ID": "contoso-web",
        "CLIENT_SECRET": "a secret of the emulator",
        "API_URL": emulator.api_url,
        "API_SCOPE": "api://profiles/profile.read",
    }


def start(environment: dict[str, str]) -> Program:
    """Start the application, and return when it listens."""
    web = Program(WEB, environment)
    port = int(environment["BASE_URL"].rpartition(":")[2])
    ends = time.monotonic() + START_AT_MOST
    while time.monotonic() < ends:
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return web
    web.kill()
    raise RuntimeError("the web application didn't start")


class Visitor:
    """A browser, as far as it matters here: it keeps cookies, and is signed in at the provider by one click."""

    def __init__(self, emulator: Emulator, environment: dict[str, str], name: str) -> None:
        self.name = name
        self.pages: Counter[str] = Counter()
        self.slowest = 0.0
        self._emulator = emulator
        self._username = f"{name}@contoso.com"
        emulator.add_user(self._username)
        trust = ssl.create_default_context(cafile=str(Path(environment["CERTIFICATE_FILE"]).with_name("ca.pem")))
        self._client = httpx.Client(base_url=environment["BASE_URL"], verify=trust, trust_env=False, timeout=15)

    def open(self, path: str) -> httpx.Response:
        """Open a page, and note what came, and how long it took."""
        began = time.monotonic()
        answer = self._client.get(path)
        self.slowest = max(self.slowest, time.monotonic() - began)
        title = re.search("<h1>(.*?)</h1>", answer.text)
        self.pages[f"{answer.status_code} {unescape(title[1]) if title else ''}"] += 1
        return answer

    def sign_in(self) -> httpx.Response:
        """Follow the way to the provider and back; or stay where that isn't possible."""
        answer = self.open("/sign-in?next=/profile")
        if answer.status_code != 303:
            return answer
        form = self._emulator.sign_in(answer.headers["Location"], self._username)
        answer = self._client.post("/signed-in", data=form)
        return self.open(answer.headers["Location"]) if answer.status_code == 303 else answer

    def sign_out(self) -> httpx.Response:
        form_key = re.search('name="form_key" value="([^"]+)"', self.open("/").text)
        return self._client.post("/sign-out", data={"form_key": form_key[1] if form_key else ""})

    def stay_for(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.open("/")
            self.open("/profile")
            time.sleep(0.1)

    def forget_pages(self) -> Counter[str]:
        pages, self.pages = self.pages, Counter()
        return pages

    def close(self) -> None:
        self._client.close()


def told(pages: Counter[str]) -> str:
    return ", ".join(f"{page!r} {times} times" for page, times in sorted(pages.items()))


def rehearse(emulator: Emulator, settings: dict[str, str]) -> bool:
    web = start(settings)
    ada, bob = Visitor(emulator, settings, "ada"), Visitor(emulator, settings, "bob")
    try:
        ada.sign_in()
        ada.forget_pages()
        ada.stay_for(HEALTHY)
        before = ada.forget_pages()
        print(f"the provider works:       ada saw {told(before)}", flush=True)

        emulator.fail(Fault.black_hole())
        ada.stay_for(OUTAGE)
        refused = bob.sign_in()
        web.terminate()
        web.status()
        web = start(settings)
        ada.stay_for(OUTAGE)
        during = ada.forget_pages()
        print(f"the provider is gone:     ada saw {told(during)}, a restart in between")
        print(f"                          bob saw {told(bob.forget_pages())}", flush=True)

        emulator.heal()
        began = time.monotonic()
        while (came := bob.sign_in()).status_code != 200 and time.monotonic() - began < RECOVERY_AT_MOST:
            time.sleep(0.5)
        print(f"the provider works again: bob was signed in after {time.monotonic() - began:.1f} s", flush=True)
        left = ada.sign_out()
        ada.forget_pages()
        ada.open("/")
        print(f"ada signed out, and saw   {told(ada.pages)}", flush=True)
    finally:
        ada.close()
        bob.close()
        web.terminate()
        status = web.status()
        web.kill()
    print(f"\nThe slowest page took {max(ada.slowest, bob.slowest):.1f} s; the application ended with status {status}.")
    # Who was signed in stays signed in: nothing excuses another page than theirs.
    hers = {"200 Welcome back, Ada", "200 Your profile"}
    return (
        set(before) == set(during) == hers
        and (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        and came.status_code == 200
        and left.status_code == 303
        and set(ada.pages) == {"200 Welcome to Contoso"}
        and max(ada.slowest, bob.slowest) < SLOWEST
        and status == 0
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:
        return 0 if rehearse(emulator, environment(emulator, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
