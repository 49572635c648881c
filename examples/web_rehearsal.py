"""What the run.py of the three web applications share: each leads its web.py through an outage, a restart included."""

import random
import re
import secrets
import socket
import ssl
import tempfile
import time
from collections import Counter
from html import unescape
from pathlib import Path

import httpx
import trustme
from resilient_auth.emulator import Emulator, Fault

from rehearsal import Program, led_to

TENANT = "1b5fcc5c-5b7c-4d40-9d0c-5d3d7a1f0c11"
#: Seconds. Tokens are due soon, so that the web application notices the outage; and live longer than the whole run.
HEALTHY, OUTAGE, RECOVERY_AT_MOST, START_AT_MOST, SLOWEST = 0.3, 0.7, 20.0, 20.0, 5.0
TOKEN_LIFETIME, REFRESH_IN = 600.0, 1.0
#: What a browser says when a person opens a page.
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
#: A server that stops waits for whoever keeps a connection.
NAVIGATION |= {"Connection": "close"}


def environment(emulator: Emulator, folder: Path) -> dict[str, str]:
    """Make the application's environment, with a certificate of its own for this machine."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "web.pem")
    port = free_port()
    inherited = led_to(emulator)
    return inherited | {
        # httpx, with which the API is called, reads another variable than requests does.
        "SSL_CERT_FILE": emulator.ca_file,
        # The pages that the three have in common.
        "PYTHONPATH": ":".join(filter(None, (str(Path(__file__).parent), inherited.get("PYTHONPATH")))),
        "BASE_URL": f"https://localhost:{port}",
        "CERTIFICATE_FILE": str(folder / "web.pem"),
        "KEY_FILE": str(folder / "web.pem"),
        "DATA": str(folder),
        "SECRET_KEY": secrets.token_urlsafe(),
        "OPERATOR_PASSWORD": "for operators alone",
        "TENANT_ID": TENANT,
        "CLIENT_ID": "contoso-web",
        "CLIENT_SECRET": "a secret of the emulator",
        "API_URL": emulator.api_url,
        "API_SCOPE": "api://profiles/profile.read",
    }


def free_port() -> int:
    """Return a port for later: below those that the system picks by itself, which may be another's by then."""
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:  # somebody listens there
            continue
        return port


def start(web: Path, environment: dict[str, str]) -> Program:
    """Start an application, and return when it listens."""
    program = Program(web, environment)
    port = int(environment["BASE_URL"].rpartition(":")[2])
    ends = time.monotonic() + START_AT_MOST
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return program
    program.kill()
    raise RuntimeError("the web application didn't start")


class Visitor:
    """A browser, as far as it matters here: it keeps cookies, and is signed in at the provider by one click."""

    def __init__(self, emulator: Emulator, environment: dict[str, str], name: str) -> None:
        self.pages: Counter[str] = Counter()
        self.slowest = 0.0
        self._emulator = emulator
        self._username = f"{name}@contoso.com"
        emulator.add_user(self._username)
        trust = ssl.create_default_context(cafile=str(Path(environment["CERTIFICATE_FILE"]).with_name("ca.pem")))
        self._client = httpx.Client(
            base_url=environment["BASE_URL"], verify=trust, trust_env=False, timeout=15, headers=NAVIGATION
        )

    def open(self, path: str, *, form: dict[str, str] | None = None) -> httpx.Response:
        """Open a page or send a form, and note what came, and how long it took."""
        began = time.monotonic()
        answer = self._client.get(path) if form is None else self._client.post(path, data=form)
        self.slowest = max(self.slowest, time.monotonic() - began)
        title = re.search("<h1>(.*?)</h1>", answer.text)
        told = unescape(title[1]) if title else f"led to {httpx.URL(answer.headers.get('Location', '')).host or 'here'}"
        self.pages[f"{answer.status_code} {told}"] += 1
        return answer

    def sign_in(self) -> httpx.Response:
        """Follow the way to the provider and back; or stay where that isn't possible."""
        answer = self.open("/profile")
        if answer.status_code != 303:
            return answer
        form = self._emulator.sign_in(answer.headers["Location"], self._username)
        answer = self._client.post("/signed-in", data=form)
        return self.open(answer.headers["Location"]) if answer.status_code == 303 else answer

    def cookies(self) -> dict[str, str]:
        return dict(self._client.cookies)

    def take(self, cookies: dict[str, str]) -> None:
        """Put back cookies that were copied, as who steals them does."""
        for name, value in cookies.items():
            self._client.cookies.set(name, value, domain="localhost.local")

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


def rehearse(web: Path, fault: Fault, emulator: Emulator, settings: dict[str, str]) -> bool:
    """Lead an application through an outage; return whether everybody saw what they should."""
    program = start(web, settings)
    ada, bob, cyd = visitors = [Visitor(emulator, settings, name) for name in ("ada", "bob", "cyd")]
    fine: list[bool] = []
    try:
        ada.sign_in()
        cyd.sign_in()
        ada.forget_pages()
        ada.stay_for(HEALTHY)
        before = ada.forget_pages()
        print(f"the provider works:       ada saw {told(before)}", flush=True)

        emulator.fail(fault)
        for visitor in visitors:
            visitor.forget_pages()
        ada.stay_for(OUTAGE)
        refused = bob.sign_in()
        stolen = cyd.cookies()
        left = cyd.open("/sign-out", form={})
        program.terminate()
        fine.append(ended_well(program))
        program = start(web, settings)
        cyd.take(stolen)
        back = cyd.open("/profile")
        ada.stay_for(OUTAGE)
        during, others = ada.forget_pages(), [bob.forget_pages(), cyd.forget_pages()]
        print(f"the provider is gone:     ada saw {told(during)}, a restart in between")
        print(f"                          bob saw {told(others[0])}")
        print(
            f"                          cyd signed out, came back with a copy of the cookie, and saw {told(others[1])}"
        )
        fine += [refused.status_code == back.status_code == 503, "Retry-After" in refused.headers]
        fine += [left.status_code == 200, "you may still be signed in there" in left.text]
        # Nobody was led to a page that never comes.
        fine += [not page.startswith("303") for pages in (during, *others) for page in pages]

        emulator.heal()
        began = time.monotonic()
        emulator.fail(Fault.http_503(), endpoint="api")
        old = ada.open("/profile")
        fine += [old.status_code == 200, "This is how it was at" in old.text]
        emulator.heal()
        while (came := bob.sign_in()).status_code != 200 and time.monotonic() - began < RECOVERY_AT_MOST:
            time.sleep(0.5)
        print("the API alone is gone:    ada saw what it told last, and how old that is")
        print(f"the provider works again: bob was signed in after {time.monotonic() - began:.1f} s", flush=True)
        stolen = ada.cookies()
        led = ada.open("/sign-out", form={})
        ada.take(stolen)
        ada.forget_pages()
        ada.open("/")
        print(f"ada signed out, and saw   {told(ada.pages)}", flush=True)
        fine += [came.status_code == 200, led.headers.get("Location", "").startswith("https://login.microsoft")]
    finally:
        for visitor in visitors:
            visitor.close()
        program.terminate()
        fine.append(ended_well(program))
        program.kill()
    slowest = max(visitor.slowest for visitor in visitors)
    print(f"\nThe slowest page took {slowest:.1f} s; the application ended {'in order' if fine[-1] else 'badly'}.")
    # Who was signed in stays signed in: nothing excuses another page than theirs.
    hers = {"200 Welcome back, Ada", "200 Your profile"}
    return (
        all(fine)
        and set(before) == set(during) == hers
        and set(ada.pages) == {"200 Welcome to Contoso"}
        and slowest < SLOWEST
    )


def ended_well(program: Program) -> bool:
    # uvicorn stops in order, and then ends by the signal that it was sent.
    return program.status() in (0, -15)


def main(web: Path, fault: Fault) -> int:
    with tempfile.TemporaryDirectory() as folder, Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:
        return 0 if rehearse(web, fault, emulator, environment(emulator, Path(folder))) else 1
