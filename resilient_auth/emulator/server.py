"""The emulator itself: everything wired together on a thread of its own."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

from .api import ProtectedApi
from .authorize import SignIn
from .control import Control
from .directory import Directory, User
from .discovery import Discovery
from .endpoints import EVERYTHING, Host
from .exchange import Exchange
from .faults import Fault, Refuse, TlsFailure
from .gateway import METADATA_ADDRESS, Gateway
from .grants import TokenEndpoint, short_grant_name
from .identity_provider import IdentityProvider
from .injection import Injection, Injections, Match
from .keys import KeyRing
from .ledger import Ledger
from .managed_identity import ManagedIdentity
from .messages import Site
from .network import LOOPBACK, Certificates, Listener
from .oauth_errors import Refusal
from .realms import locate
from .settings import Settings
from .tokens import Mint

_START_LIMIT: Final = 30.0
_CALL_LIMIT: Final = 30.0
_STOP_LIMIT: Final = 10.0

_Result = TypeVar("_Result")


class InjectedFault:
    """A fault in force; `stop` ends it."""

    def __init__(self, emulator: Emulator, injection: Injection) -> None:
        self._emulator = emulator
        self._injection = injection

    @property
    def fault(self) -> Fault:
        """What goes wrong."""
        return self._injection.fault

    @property
    def endpoint(self) -> str:
        """Where it goes wrong."""
        return self._injection.endpoint

    def stop(self) -> None:
        """End this fault; ending it twice does nothing."""
        self._emulator._end(self._injection)


class Emulator(Settings):
    """An identity provider, an API and managed-identity endpoints on loopback that fail on command.

    Use it as a context manager, or call `start` and `stop`. Its methods may be called from any thread; a fault
    is in force when `fail` returns. The attributes of `Settings` may be set while it runs.

    Args:
        token_lifetime: Life of access tokens in seconds, from 0.
        refresh_in: Sent as `refresh_in`, in seconds; None leaves it out.
        revocable: Give clients that declare `cp1` tokens of 20 to 28 hours, as Entra does.
        seed: Makes faults with a probability reproducible.
        port, api_port, metadata_port, proxy_port, control_port: Fixed ports; 0 takes free ones.
    """

    def __init__(
        self,
        token_lifetime: float = 3600.0,
        refresh_in: float | None = None,
        revocable: bool = False,
        seed: int | None = None,
        *,
        port: int = 0,
        api_port: int = 0,
        metadata_port: int = 0,
        proxy_port: int = 0,
        control_port: int = 0,
    ) -> None:
        super().__init__()
        self.change({"token_lifetime": token_lifetime, "refresh_in": refresh_in, "revocable": revocable})
        self.ledger = Ledger()
        self._ports = {
            "idp": port,
            "api": api_port,
            "metadata": metadata_port,
            "proxy": proxy_port,
            "control": control_port,
        }
        self._seed = seed
        self._listeners: dict[str, Listener] = {}
        self._tls_broken: dict[Host | None, bool] = {}
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> Self:
        """Start serving; return when every port answers.

        Raises:
            RuntimeError: It was started before.
            OSError: A port that was asked for is taken.
        """
        if self._thread is not None:
            raise RuntimeError("this emulator was started before: make another one")
        self._directory = Directory()
        self._keys = KeyRing()
        self._certificates = Certificates()
        self._files = tempfile.TemporaryDirectory(prefix="resilient-auth-emulator-")
        Path(self.ca_file).write_bytes(self._certificates.authority_pem)
        self._thread = threading.Thread(target=self._run, name="resilient-auth-emulator", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_LIMIT) or self._failure is not None:
            self._files.cleanup()
            raise self._failure or TimeoutError("the emulator didn't start in time")
        return self

    def stop(self) -> None:
        """End every connection, close every port and remove the CA file; stopping twice does nothing."""
        if self._thread is None or self._loop is None:
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_LIMIT)
        self._files.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The identity provider's origin."""
        return f"https://localhost:{self._port('idp')}"

    @property
    def api_url(self) -> str:
        """The protected API's origin."""
        return f"https://localhost:{self._port('api')}"

    @property
    def metadata_url(self) -> str:
        """The origin of the managed-identity endpoints."""
        return f"http://{LOOPBACK}:{self._port('metadata')}"

    @property
    def proxy_url(self) -> str:
        """An HTTP proxy behind which every host is the identity provider."""
        return f"http://{LOOPBACK}:{self._port('proxy')}"

    @property
    def control_url(self) -> str:
        """The origin of the commands for other processes."""
        return f"http://{LOOPBACK}:{self._port('control')}"

    @property
    def ca_file(self) -> str:
        """The path of the certificate authority's PEM file."""
        return str(Path(self._files.name) / "ca.pem")

    def authority(self, tenant: str) -> str:
        """Return the authority of a tenant, or of `"tenant/policy"`."""
        return f"{self.url}/{tenant}"

    def fail(
        self,
        fault: Fault,
        endpoint: str = EVERYTHING,
        *,
        count: int | None = None,
        seconds: float | None = None,
        probability: float = 1.0,
        match: Match | None = None,
    ) -> InjectedFault:
        """Break an endpoint; requests that come after this returns meet the fault.

        Args:
            fault: What goes wrong.
            endpoint: Where; `"*"` is every endpoint of the identity provider.
            count: End after so many requests.
            seconds: End after so long.
            probability: Share of requests that fail, above 0 and up to 1.
            match: Which calls fail: a predicate, or the values of `Call`'s fields that they have.

        Returns:
            A handle whose `stop` ends this fault alone.

        Raises:
            ValueError: The endpoint is unknown, a number is out of range, or the fault doesn't fit.
        """

        def add() -> Injection:
            injection = Injection(fault, endpoint, count=count, probability=probability, match=match)
            return self._injections.add(injection, seconds)

        return InjectedFault(self, self._call(add))

    def schedule(self, plan: Iterable[tuple[float, float, Fault, str]]) -> None:
        """Plan faults as (start, stop, fault, endpoint), in seconds from now; all or none are planned."""
        entries = list(plan)
        self._call(lambda: self._injections.schedule(entries))

    def heal(self, endpoint: str | None = None) -> None:
        """End the faults of an endpoint, or all of them, and cancel those that are planned."""
        self._call(lambda: self._injections.heal(endpoint))

    def deny(
        self,
        grant: str,
        error: str = "invalid_grant",
        description: str | None = None,
        suberror: str | None = None,
        status: int = 400,
    ) -> None:
        """Refuse a grant type, by its short name or URN, or every one by `"*"`, with an OAuth error."""
        refusal = Refusal(error, 70000, description or "The provider was told to refuse this grant.", status, suberror)
        self._call(lambda: self._tokens.denials.update({short_grant_name(grant): refusal}))

    def allow(self, grant: str | None = None) -> None:
        """Stop refusing a grant type, or all of them."""
        denials = self._tokens.denials
        self._call(lambda: denials.clear() if grant is None else denials.pop(short_grant_name(grant), None))

    def roll_keys(self) -> str:
        """Publish a new signing key and sign with it; return its `kid`."""
        return self._call(self._keys.roll).kid

    def drop_old_keys(self) -> None:
        """Publish the newest signing key alone."""
        self._call(self._keys.drop_old)

    def add_user(self, username: str, password: str | None = "pw", oid: str | None = None) -> User:  # noqa: S107
        """Create or replace a user, whose home is the tenant of the name's domain."""
        return self._call(lambda: self._directory.add_user(username, password, oid))

    def revoke(self, subject_or_client_id: str, *, refresh_tokens: bool = False) -> None:
        """Revoke the access tokens that a user (by name or object id) or a client got so far.

        Args:
            subject_or_client_id: A user name, an object id or a client id.
            refresh_tokens: Refuse their refresh tokens too, so that the user must sign in again.
        """

        def revoke() -> None:
            user = self._directory.find_user(subject_or_client_id)
            key = user.oid if user else subject_or_client_id
            self.ledger.revoke(key)
            if refresh_tokens:
                self._directory.revoke_refresh_tokens(key)

        self._call(revoke)

    def approve_device(self, user_code: str, username: str) -> None:
        """Sign a user in at the device that shows a code.

        Raises:
            ValueError: The user is unknown, or no device waits with this code.
        """
        self._call(lambda: self._directory.approve_device(user_code, self._user(username)))

    def sign_in(self, auth_uri: str, username: str) -> dict[str, str]:
        """Sign a user in at an authorization URL, as a browser would.

        Returns:
            The parameters of the redirect: `code`, `state` and so on.

        Raises:
            ValueError: The user is unknown, or the URL isn't one of an authorization endpoint.
        """
        target = urlsplit(auth_uri)
        asked = dict(parse_qsl(target.query, keep_blank_values=True))
        endpoint, realm = locate(target.netloc.lower(), tuple(filter(None, target.path.split("/"))), asked)
        if endpoint != "authorize" or realm is None or "client_id" not in asked:
            raise ValueError("this isn't the URL of an authorization request")
        return self._call(lambda: self._sign_in.grant(asked, realm, self._user(username)))

    def state(self) -> dict[str, Any]:
        """Return addresses, settings and the faults in force, ready for JSON."""
        return {
            "url": self.url,
            "api_url": self.api_url,
            "metadata_url": self.metadata_url,
            "proxy_url": self.proxy_url,
            "control_url": self.control_url,
            "ca_file": self.ca_file,
            "token_lifetime": self.token_lifetime,
            "refresh_in": self.refresh_in,
            "faults": self._call(self._injections.describe),
        }

    def _user(self, username: str) -> User:
        user = self._directory.find_user(username)
        if user is None:
            raise ValueError(f"there is no user {username!r}: add_user first")
        return user

    def _end(self, injection: Injection) -> None:
        self._call(lambda: self._injections.remove(injection))

    def _port(self, name: str) -> int:
        try:
            return self._listeners[name].port
        except KeyError:
            raise RuntimeError("the emulator isn't running: use it as a context manager or call start()") from None

    def _call(self, work: Callable[[], _Result]) -> _Result:
        """Do work on the loop's thread, where everything but the ledger lives."""
        if threading.current_thread() is self._thread:
            return work()
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            raise RuntimeError("the emulator isn't running: use it as a context manager or call start()")

        async def run() -> _Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CALL_LIMIT)

    def _run(self) -> None:
        try:
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
        self._injections = Injections(self._seed, self._apply_host_faults)
        exchange = Exchange(self.ledger, self._injections)
        self._gateway = Gateway(exchange, self._injections, self.ledger, self._certificates)
        self._sites = self._build_sites()
        try:
            for name, site in self._sites.items():
                self._listeners[name] = Listener(self._ports[name], partial(self._gateway.enter, site))
            proxy = partial(self._gateway.enter_proxy, self._route)
            self._listeners["proxy"] = Listener(self._ports["proxy"], proxy)
            for listener in self._listeners.values():
                listener.listen()
            self._ready.set()
            await self._stopping.wait()
        finally:
            self._injections.heal()
            for listener in self._listeners.values():
                listener.close()
            await self._gateway.close()

    def _build_sites(self) -> dict[str, Site]:
        mint = Mint(self._keys, self.ledger, self)
        self._sign_in = SignIn(self._directory, mint, self)
        self._tokens = TokenEndpoint(self._directory, self.ledger, mint, self)
        provider = IdentityProvider(Discovery(self._keys, self), self._sign_in, self._tokens)
        api = ProtectedApi(self.ledger, lambda: f"{self.url}/common/oauth2/v2.0/authorize")
        metadata = ManagedIdentity(mint, self, lambda: f"localhost:{self._port('idp')}")
        control = Control(self)
        return {
            "idp": Site("idp", provider.endpoint_of, provider.respond),
            "api": Site("api", api.endpoint_of, api.respond),
            "metadata": Site("metadata", metadata.endpoint_of, metadata.respond, tls=False),
            "control": Site(None, control.endpoint_of, control.respond, tls=False),
        }

    def _route(self, name: str, port: int) -> Site:
        """Return what stands behind the proxy: the identity provider, unless the address is another site's."""
        local = name in ("localhost", LOOPBACK)
        if local and port == self._port("api"):
            return self._sites["api"]
        if name == METADATA_ADDRESS or (local and port == self._port("metadata")):
            return self._sites["metadata"]
        return self._sites["idp"]

    def _apply_host_faults(self) -> None:
        for name in ("idp", "api", "metadata"):
            site, listener = self._sites[name], self._listeners[name]
            refused = self._injections.host_wide(site.host, Refuse) is not None
            broken = self._injections.host_wide(site.host, TlsFailure) is not None
            if (refused and listener.listening) or (broken and not self._tls_broken.get(site.host)):
                self._gateway.kill(site.host)
            self._tls_broken[site.host] = broken
            if refused:
                listener.refuse()
            else:
                listener.listen()
