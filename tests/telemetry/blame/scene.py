"""Breaks providers, and what lies between, in every way at once, each with an application of its own that is to tell
whose fault it is. Run in a network namespace: it changes routes, firewall and table of hosts.

    python scene.py warm|idle|cold [RESOLVER [CASE ...]]    prints a line of JSON for each case

`warm` breaks it just after a token was had, `idle` when no connection is kept any more, and `cold` before. The resolver
is `silent`, `closed` or says `unknown` to every name.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]
SECRET = "s3cret-of-the-daemon"
#: Seconds after which nobody waits for a verdict any more: one that comes later than it should is told as late.
PATIENCE = 25.0
_hosts = threading.Lock()


class Clock:
    """The real one, which can skip ahead, and be wrong."""

    def __init__(self) -> None:
        self.skipped = self.wrong = 0.0

    def wall(self) -> float:
        return time.time() + self.skipped + self.wrong

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        return condition.wait(0.02 if timeout is None else min(timeout, 0.02))


@dataclass
class Site:
    """Where a case's application asks: an emulator, or a server of the case's own."""

    emulator: Emulator | None = None
    server: Server | None = None
    #: Under this name and at this address, in place of localhost.
    name: str = "localhost"
    address: str = "127.0.0.1"
    clock: Clock = field(default_factory=Clock)
    #: The application's options.
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.server.port if self.server else int(self.idp.url.rpartition(":")[2])

    @property
    def idp(self) -> Emulator:
        assert self.emulator is not None
        return self.emulator

    def application(self) -> Any:
        ca_file = self.server.ca_file if self.server else self.idp.ca_file
        options = {"client_credential": SECRET, "verify": ca_file} | self.options
        settings = ra.Settings(clock=self.clock)
        authority = f"https://{self.name}:{self.port}/contoso"
        return msal.ConfidentialClientApplication(
            "daemon", authority=authority, instance_discovery=False, resilience=settings, **options
        )


class Server:
    """A provider that says what it is told, with a certificate that can be replaced while it runs."""

    def __init__(self) -> None:
        self.authority, self.other = trustme.CA(), trustme.CA(organization_name="Inspection Ltd")
        self.name = "localhost"
        self.page: int | None = None
        #: Seconds by which its clock differs.
        self.wrong = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                content, kind, status = outer.answer(self.path)
                self.send_response_only(status)
                self.send_header("Date", self.date_time_string(time.time() + outer.wrong))
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = True

            do_GET = do_POST = _answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Listening(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Say nothing of clients that hang up."""

        self._listening = Listening(("127.0.0.1", 0), Handler)
        self.port = self._listening.server_port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.show(self.authority, context=context)
        context.sni_callback = self._shown
        self._listening.socket = context.wrap_socket(
            self._listening.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self._listening.serve_forever, args=(0.05,), daemon=True).start()
        with tempfile.NamedTemporaryFile("wb", suffix=".pem", delete=False) as bundle:
            bundle.write(self.authority.cert_pem.bytes())
        self.ca_file = bundle.name

    def show(
        self,
        by: trustme.CA,
        *names: str,
        context: ssl.SSLContext | None = None,
        logged: bool = False,
        **dates: datetime,
    ) -> None:
        """Show such a certificate from now on."""
        self._context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = by.issue_cert(*(names or ("localhost",)), **dates)
        if logged:
            issued = _stamped(issued, by)
        issued.configure_cert(self._context)

    def trust_both(self) -> None:
        """Have the application trust the inspector as well."""
        with open(self.ca_file, "ab") as bundle:
            bundle.write(self.other.cert_pem.bytes())

    def _shown(self, connection: Any, *_: object) -> None:
        connection.context = self._context

    def answer(self, path: str) -> tuple[bytes, str, int]:
        if self.page is not None:
            return b"<html><body>Sign in to this network</body></html>", "text/html", self.page
        if path.endswith("/openid-configuration"):
            at = f"https://{self.name}:{self.port}/contoso"
            told = {"issuer": f"{at}/v2.0", "authorization_endpoint": f"{at}/authorize",
                    "token_endpoint": f"{at}/token", "jwks_uri": f"{at}/keys"}  # fmt: skip
        else:
            told = {"access_token": "a-token", "token_type": "Bearer", "expires_in": 3600}
        return json.dumps(told).encode(), "application/json", 200

    def close(self) -> None:
        self._listening.shutdown()
        self._listening.server_close()
        os.unlink(self.ca_file)


def _stamped(issued: trustme.LeafCert, by: trustme.CA) -> trustme.LeafCert:
    """A certificate with the extension in which public authorities put the stamps of logs (RFC 6962, section 3.3)."""
    plain = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    stamps = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), b"\x04\x02\0\0")
    builder = x509.CertificateBuilder(
        plain.issuer, plain.subject, plain.public_key(), plain.serial_number, plain.not_valid_before_utc,
        plain.not_valid_after_utc, [*plain.extensions, x509.Extension(stamps.oid, False, stamps)],
    )  # fmt: skip
    authority: Any = serialization.load_pem_private_key(by.private_key_pem.bytes(), None)
    stamped = builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return trustme.LeafCert(issued.private_key_pem.bytes(), stamped, [])


@dataclass(frozen=True)
class Case:
    """Something that breaks, and who is to blame for it."""

    name: str
    #: Any of these is right; "nobody" where nothing fails.
    right: frozenset[str]
    begin: Callable[[Site], object]
    prepare: Callable[[Site, ExitStack], object] = lambda site, stack: None
    #: Whether something on this machine, or between, is at fault, and so the provider may never be blamed.
    local: bool = True
    own_server: bool = False
    #: Whether it can be told by one who never reached the provider, too.
    cold: bool = True


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def sh(text: str) -> Callable[[Site], None]:
    """A command, with {port} and {address}."""
    return lambda site: run(*text.format(port=site.port, address=site.address).split())


def named(address: str) -> Callable[[Site, ExitStack], None]:
    """Have the provider asked by a name of its own, at another address, which is led to it."""

    def prepare(site: Site, _: ExitStack) -> None:
        assert site.server
        site.name, site.address = f"login{site.port}.test", address
        site.server.name = site.name
        site.server.show(site.server.authority, site.name)
        with _hosts, open("/etc/hosts", "a") as hosts:
            hosts.write(f"{address} {site.name}\n")
        if address.startswith("192.0.2."):
            run(*f"ip route add {address} dev lo src 127.0.0.1".split())
        if address != "127.0.0.1":
            run(*f"iptables -w -t nat -A OUTPUT -p tcp -d {address} -j DNAT --to 127.0.0.1".split())

    return prepare


def forget_name(site: Site) -> None:
    with _hosts, open("/etc/hosts", "r+") as hosts:
        kept = "".join(line for line in hosts if site.name not in line)
        # In one go: others look names up meanwhile.
        os.pwrite(hosts.fileno(), kept.encode(), 0)
        os.ftruncate(hosts.fileno(), len(kept))


def astray(site: Site, stack: ExitStack) -> None:
    """Its name leads to this machine, where nobody listens: a filter's answer, or an old line in a table of hosts."""
    assert site.server
    unheard = stack.enter_context(socket.socket())
    unheard.bind(("127.0.0.1", 0))
    site.server.port = unheard.getsockname()[1]
    site.name = f"login{site.port}.test"
    with _hosts, open("/etc/hosts", "a") as hosts:
        hosts.write(f"127.0.0.1 {site.name}\n")


def route(kind: str) -> Callable[[Site], None]:
    return lambda site: run("ip", "route", "add", kind, site.address, "table", "100")


def through_proxy(site: Site, _: ExitStack) -> None:
    site.options["proxies"] = {"https": site.idp.proxy_url}


def at_proxy(text: str) -> Callable[[Site], None]:
    return lambda site: run(*text.format(port=site.idp.proxy_url.rstrip("/").rpartition(":")[2]).split())


def answering(says: bytes | None) -> Callable[[Site, ExitStack], None]:
    """A proxy that gives each connection the same bytes; None for one that says nothing."""

    def prepare(site: Site, stack: ExitStack) -> None:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        site.options["proxies"] = {"https": f"http://127.0.0.1:{listening.getsockname()[1]}"}

        def serve() -> None:
            held = []
            with suppress(OSError):
                while True:
                    connection = listening.accept()[0]
                    held.append(connection)
                    if says is not None:
                        with connection, suppress(OSError):
                            connection.recv(4096)
                            connection.sendall(says)

        threading.Thread(target=serve, daemon=True).start()

    return prepare


def behind(text: str) -> bytes:
    return f"HTTP/1.1 {text}\r\nContent-Length: 0\r\n\r\n".encode()


def assertion(age: float) -> Callable[[Site, ExitStack], None]:
    def prepare(site: Site, _: ExitStack) -> None:
        site.idp.register("daemon", certificates=[], federated=[])
        claims = {"iss": "daemon", "sub": "daemon", "aud": "x", "exp": int(time.time() - age)}
        site.options["client_credential"] = {"client_assertion": jwt.encode(claims, "k" * 32)}

    return prepare


def at_once(_: Site) -> None:
    """It is wrong from the beginning."""


def wrong_clock(seconds: float) -> Callable[[Site, ExitStack], None]:
    def prepare(site: Site, _: ExitStack) -> None:
        site.clock.wrong = seconds

    return prepare


def both(*steps: Callable[..., object]) -> Callable[..., None]:
    def each(*about: Any) -> None:
        for step in steps:
            step(*about)

    return each


def dated(**since: float) -> Callable[[Site], None]:
    """A certificate whose dates are so many days from now."""
    now = datetime.now(UTC)
    dates = {name: now + timedelta(days=days) for name, days in since.items()}
    return lambda site: site.server.show(site.server.authority, **dates)  # type: ignore[union-attr]


def other_name(site: Site) -> None:
    assert site.server
    site.server.show(site.server.authority, "elsewhere.example")


def inspected(page: int | None = None, *, trusted: bool = False) -> Callable[[Site], None]:
    """Somebody reads along; with a page of theirs, perhaps."""

    def begin(site: Site) -> None:
        assert site.server
        if trusted:
            site.server.trust_both()
        site.server.show(site.server.other)
        site.server.page = page

    return begin


def logged(site: Site, _: ExitStack) -> None:
    """As a public authority's certificates are."""
    assert site.server
    site.server.show(site.server.authority, logged=True)


def page(status: int) -> Callable[[Site], None]:
    def begin(site: Site) -> None:
        assert site.server
        site.server.page = status

    return begin


#: Whose fault each of the emulator's is. A page with status 200 can be a provider's, or that of what inspects TLS: with
#: a certificate of an authority that isn't public, it can't be told.
_OF_EMULATOR = {
    "slow": {"nobody"},
    "http_429": {"throttled"},
    "html_200": {"unknown"},
    "tls_failed": {"tls"},
}

DROP = "iptables -w -A OUTPUT -p tcp --dport {port} -j DROP"
DROP_ANSWERS = "iptables -w -A OUTPUT -p tcp --sport {port} -j DROP"
REJECT = "iptables -w -A OUTPUT -p tcp --dport {port} -j REJECT"
PROHIBITED = "iptables -w -A OUTPUT -p tcp --dport {port} -j REJECT --reject-with icmp-admin-prohibited"
NFT_DROP = "nft add rule ip blame out tcp dport {port} drop"
NFT_REJECT = "nft add rule ip blame out tcp dport {port} reject"
NETWORK, TLS, PROXY = frozenset({"network"}), frozenset({"tls"}), frozenset({"proxy"})


def cases() -> list[Case]:
    found = [
        Case(name, frozenset(_OF_EMULATOR.get(name, {"provider"})), lambda site, f=fault: site.idp.fail(f), local=False)
        # One that flaps fast may be met in its good half alone.
        for name, fault in (Fault.all() | {"flapping": Fault.flapping(5.0)}).items()
    ]
    found += [
        Case(f"deny-{error}", frozenset({right}), lambda site, e=error: site.idp.deny("client_credentials", e),
             local=False)
        for error, right in (("invalid_client", "credential"), ("unauthorized_client", "credential"),
                             ("temporarily_unavailable", "provider"), ("invalid_scope", "nobody"))
    ]  # fmt: skip
    found += [
        Case("drop", NETWORK, sh(DROP)),
        Case("drop-answers", NETWORK, sh(DROP_ANSWERS)),
        Case("reject", NETWORK, sh(REJECT)),
        Case("admin-prohibited", NETWORK, sh(PROHIBITED)),
        Case("nft-drop", NETWORK, sh(NFT_DROP)),
        Case("nft-reject", NETWORK, sh(NFT_REJECT)),
        Case("no-route", NETWORK, sh("ip route del {address}"), named("192.0.2.10"), own_server=True),
        Case("blackhole", NETWORK, route("blackhole"), named("192.0.2.11"), own_server=True),
        Case("unreachable", NETWORK, route("unreachable"), named("192.0.2.12"), own_server=True),
        Case("prohibit", NETWORK, route("prohibit"), named("192.0.2.13"), own_server=True),
        Case("name-gone", NETWORK, forget_name, named("127.0.0.1"), own_server=True),
        Case("led-astray", NETWORK, at_once, astray, own_server=True),
        Case("proxy-dropped", PROXY, at_proxy(DROP), through_proxy),
        Case("proxy-rejected", PROXY, at_proxy(REJECT), through_proxy),
        Case("proxy-silent", PROXY, at_once, answering(None)),
        Case("proxy-407", PROXY, at_once, answering(behind("407 Proxy Authentication Required"))),
        Case("proxy-403", PROXY, at_once, answering(behind("403 Forbidden"))),
        Case("proxy-502", frozenset({"unknown"}), at_once, answering(behind("502 Bad Gateway"))),
        Case("untrusted", TLS, inspected(), own_server=True),
        Case("other-name", TLS, other_name, own_server=True),
        Case("page-of-inspector", TLS, inspected(200, trusted=True), logged, own_server=True, cold=False),
        Case("503-of-inspector", TLS, inspected(503, trusted=True), logged, own_server=True, cold=False),
        Case("page-of-provider", frozenset({"provider"}), page(200), logged, own_server=True, local=False),
        Case("page-200", frozenset({"unknown"}), page(200), own_server=True),
        Case("over-by-wrong-clock", frozenset({"clock"}),
             both(dated(not_before=-9, not_after=-1), lambda site: setattr(site.clock, "wrong", 2 * 86400.0)),
             own_server=True, cold=False),
        Case("not-yet-by-wrong-clock", frozenset({"clock"}),
             both(dated(not_before=1, not_after=9), lambda site: setattr(site.clock, "wrong", -2 * 86400.0)),
             own_server=True, cold=False),
        Case("over-by-right-clock", TLS, dated(not_before=-9, not_after=-1), own_server=True, local=False, cold=False),
        Case("assertion-by-wrong-clock", frozenset({"clock"}), at_once, both(assertion(100), wrong_clock(-3600.0))),
        Case("assertion-by-right-clock", frozenset({"credential"}), at_once, assertion(100)),
        Case("secret-wrong", frozenset({"credential"}), at_once,
             lambda site, _: site.options.update(client_credential="wrong")),
    ]  # fmt: skip
    return found


def observe(case: Case, when: str) -> dict[str, Any]:
    """Break it, ask for a token, and wait for the verdict."""
    with ExitStack() as stack:
        site = Site()
        if case.own_server:
            site.server = Server()
            stack.callback(site.server.close)
        else:
            site.emulator = stack.enter_context(Emulator())
        case.prepare(site, stack)
        app: Any = None
        try:
            if (when != "cold" or not case.cold) and case.begin is not at_once:
                app = site.application()
                stack.callback(app.close)
                app.acquire_token_for_client(SCOPE)
        except Exception as error:
            raise AssertionError(f"{case.name} failed before anything broke") from error
        if when == "idle":
            time.sleep(5.5)  # longer than the wire keeps a connection
        case.begin(site)
        if app is not None:
            site.clock.skipped += 2000.0
        began, authority = time.monotonic(), f"https://{site.name}:{site.port}"
        ready = threading.Event()

        def ask() -> None:
            with suppress(Exception):
                (app or site.application()).acquire_token_for_client(SCOPE)
            ready.set()

        threading.Thread(target=ask, daemon=True).start()
        nothing_fails = "nobody" in case.right
        found = _told(authority, lambda: nothing_fails and ready.is_set() and time.monotonic() - began > 3.0)
        return _result(case, found, time.monotonic() - began, when)


def starve() -> dict[str, Any]:
    """Take every file descriptor of a process beside the emulator's: it is to blame, whatever fails."""
    with Emulator() as emulator:
        command = [sys.executable, __file__, "starved", emulator.url, emulator.ca_file]
        told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return told


def starved(url: str, ca_file: str) -> dict[str, Any]:
    clock = Clock()
    app = msal.ConfidentialClientApplication(
        "daemon", authority=f"{url}/contoso", client_credential=SECRET, verify=ca_file, instance_discovery=False,
        resilience=ra.Settings(clock=clock),
    )  # fmt: skip
    app.acquire_token_for_client(SCOPE)
    ra.health()
    app._ra_transport.wire.close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    held, began = [], time.monotonic()
    with suppress(OSError):
        while True:
            held.append(os.dup(0))
    clock.skipped += 2000.0
    app.acquire_token_for_client(SCOPE)
    found, took = _told(url, lambda: False), time.monotonic() - began
    for one in held:
        os.close(one)
    return _result(Case("no-descriptors", frozenset({"process"}), at_once), found, took, "warm")


def _told(authority: str, enough: Callable[[], bool]) -> list[Any]:
    """Wait for the verdict."""
    ends = time.monotonic() + PATIENCE
    found: list[Any] = []
    while time.monotonic() < ends and not found and not enough():
        time.sleep(0.05)
        found = [blame for blame in ra.health().blame if blame.authority == authority]
    return found


def _result(case: Case, found: list[Any], took: float, when: str) -> dict[str, Any]:
    return {
        "case": case.name, "right": sorted(case.right), "local": case.local, "when": when,
        "told": found[0].what if found else "nobody", "evidence": found[0].evidence if found else (),
        "seconds": round(took, 2),
    }  # fmt: skip


def resolve(how: str) -> None:
    """Be a resolver that takes questions and is silent, or says that there is no such name; or have none."""
    if how == "closed":
        return
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.53", 53))

    def serve() -> None:
        while True:
            asked, whom = server.recvfrom(4096)
            if how == "unknown":
                # An answer, recursion available, and NXDOMAIN (RFC 1035, section 4.1.1); the question, and no more.
                server.sendto(asked[:2] + b"\x81\x83" + asked[4:6] + b"\0" * 6 + asked[12:], whom)

    threading.Thread(target=serve, daemon=True).start()


def main() -> None:
    """Break everything at once."""
    when, resolver, *names = [*sys.argv[1:], "silent"] if len(sys.argv) == 2 else sys.argv[1:]
    if when == "starved":
        print(json.dumps(starved(resolver, *names)), flush=True)
        os._exit(0)  # who waits for descriptors is of no interest
    if names == ["no-descriptors"]:
        print(json.dumps(starve()), flush=True)
        return
    for setup in (
        "ip rule add pref 10 lookup local", "ip rule del pref 0 lookup local", "ip rule add pref 5 lookup 100",
        "sysctl -q -w net.ipv4.conf.all.route_localnet=1",
        "nft add table ip blame", "nft add chain ip blame out { type filter hook output priority 0 ; }",
    ):  # fmt: skip
        run(*setup.split())
    resolve(resolver)
    wanted = [case for case in cases() if not names or case.name in names]
    wanted = [case for case in wanted if when != "cold" or case.cold]
    with ThreadPoolExecutor(len(wanted)) as pool:
        for told in pool.map(lambda case: observe(case, when), wanted):
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
