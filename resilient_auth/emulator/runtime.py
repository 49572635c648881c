"""The thread on which everything runs, and how its parts are wired together."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from .api import ProtectedApi
from .endpoints import Host
from .faults import REFUSE, TLS_FAILED
from .injection import Injections
from .ledger import Ledger
from .provider.authorize import SignIn
from .provider.clients import Clients
from .provider.directory import Directory
from .provider.discovery import Discovery
from .provider.grants import TokenEndpoint
from .provider.keys import KeyRing
from .provider.managed_identity import ManagedIdentity
from .provider.notices import Notices
from .provider.sessions import BrowserSessions
from .provider.site import IdentityProvider
from .provider.tokens import Mint
from .settings import Settings
from .wire.exchange import Exchange
from .wire.gateway import METADATA_ADDRESS, Gateway
from .wire.messages import Site
from .wire.network import LOOPBACK, Certificates, Listener

_START_LIMIT: Final = 30.0
_CALL_LIMIT: Final = 30.0
_STOP_LIMIT: Final = 10.0
_NOT_RUNNING: Final = "the emulator isn't running: use it as a context manager or call start()"

_Result = TypeVar("_Result")


class Runtime:
    """A loop in a daemon thread, with ports, parts and the state that they share."""

    def __init__(
        self, settings: Settings, ledger: Ledger, control: Site, ports: dict[str, int], seed: int | None
    ) -> None:
        self._ports = ports
        self.directory = Directory()
        self.keys = KeyRing()
        self.injections = Injections(seed, self._apply_host_faults)
        certificates = Certificates()
        self.sessions = BrowserSessions()
        self.notices = Notices(self.keys, lambda: certificates.authority_pem)
        mint = Mint(self.keys, ledger, settings, self.sessions)
        self.sign_in = SignIn(self.directory, mint, settings, self.sessions, self.notices)
        self.clients = Clients(self.keys)
        self.tokens = TokenEndpoint(self.directory, self.clients, ledger, mint, settings)
        provider = IdentityProvider(Discovery(self.keys, settings), self.sign_in, self.tokens)
        api = ProtectedApi(ledger, lambda: f"https://localhost:{self.port('idp')}/common/oauth2/v2.0/authorize")
        metadata = ManagedIdentity(mint, settings, lambda: f"localhost:{self.port('idp')}")
        self._sites = {
            "idp": Site("idp", provider.endpoint_of, provider.respond),
            "api": Site("api", api.endpoint_of, api.respond),
            "metadata": Site("metadata", metadata.endpoint_of, metadata.respond, tls=False),
            "control": control,
        }
        self._gateway = Gateway(Exchange(ledger, self.injections), self.injections, ledger, certificates)
        self._listeners: dict[str, Listener] = {}
        self._tls_broken: dict[Host | None, bool] = {}
        self._files = tempfile.TemporaryDirectory(prefix="resilient-auth-emulator-")
        self.ca_file = str(Path(self._files.name) / "ca.pem")
        Path(self.ca_file).write_bytes(certificates.authority_pem)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="resilient-auth-emulator", daemon=True)

    def start(self) -> None:
        """Start serving; return when every port answers."""
        self._thread.start()
        if not self._ready.wait(_START_LIMIT) or self._failure is not None:
            self._files.cleanup()
            raise self._failure or TimeoutError("the emulator didn't start in time")

    def stop(self) -> None:
        """End every connection, close every port and remove the CA file; stopping twice does nothing."""
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_LIMIT)
        self._files.cleanup()

    def port(self, name: str) -> int:
        """Return the port of a site."""
        if name not in self._listeners:
            raise RuntimeError(_NOT_RUNNING)
        return self._listeners[name].port

    def call(self, work: Callable[[], _Result]) -> _Result:
        """Do work on the loop's thread, where everything but the ledger lives."""
        if threading.current_thread() is self._thread:
            return work()
        if self._loop is None or not self._thread.is_alive():
            raise RuntimeError(_NOT_RUNNING)

        async def run() -> _Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CALL_LIMIT)

    def _run(self) -> None:
        try:
            _draw()
            # The selector loop everywhere, because listeners watch their sockets themselves.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 (whoever waits in start must hear of it)
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            for name, site in self._sites.items():
                self._listeners[name] = Listener(self._ports[name], partial(self._gateway.enter, site))
            proxy = partial(self._gateway.enter_proxy, self._route)
            self._listeners["proxy"] = Listener(self._ports["proxy"], proxy)
            for listener in self._listeners.values():
                listener.listen()
            self._ready.set()
            await self._stopping.wait()
            self.injections.heal()
        finally:
            for listener in self._listeners.values():
                listener.close()
            await self._gateway.close()

    def _route(self, name: str, port: int) -> Site:
        """Return what stands behind the proxy: the identity provider, unless the address is another site's."""
        local = name in ("localhost", LOOPBACK)
        if local and port == self.port("api"):
            return self._sites["api"]
        if name == METADATA_ADDRESS or (local and port == self.port("metadata")):
            return self._sites["metadata"]
        return self._sites["idp"]

    def _apply_host_faults(self) -> None:
        for name in ("idp", "api", "metadata"):
            site, listener = self._sites[name], self._listeners[name]
            refused = self.injections.host_wide(site.host, REFUSE) is not None
            broken = self.injections.host_wide(site.host, TLS_FAILED) is not None
            if (refused and listener.listening) or (broken and not self._tls_broken.get(site.host)):
                self._gateway.kill(site.host)
            self._tls_broken[site.host] = broken
            if refused:
                listener.refuse()
            else:
                listener.listen()


def _draw() -> None:
    """Have OpenSSL make this thread's generators of random numbers before anybody can ask.

    They take a lock of the process's, for which a child would wait that a test forks at the first handshake.
    """
    ssl.RAND_bytes(1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(ssl.SSLError):  # it wants an answer
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost").do_handshake()
