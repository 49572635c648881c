"""What came or failed over one wire, or for one tenant, steers nobody who uses another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._store.memory import MemoryBackend
from resilient_auth._wire import documents
from resilient_auth._wire.exchange_context import ExchangeContext
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.emulator.provider.realms import tenant_id
from resilient_auth.events import DiscoveryRejected
from resilient_auth.testing import capture_events

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")

SCOPE = ["https://graph.microsoft.com/.default"]
ONE_ATTEMPT = ra.RetryOptions(attempts=1)


@pytest.fixture
def other_ca(tmp_path: Any) -> str:
    """A bundle that holds one authority, which hasn't signed the provider's certificate."""
    trustme.CA().cert_pem.write_to_path(path := str(tmp_path / "other.pem"))
    return path


@pytest.fixture
def build(idp: Emulator, clock: Any) -> Iterator[Callable[..., Any]]:
    """Build an application that trusts the provider's authority, but for what is given."""
    built = []

    def make(
        tenant: str = "contoso", *, client: str = "daemon", settings: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        resilience = ra.Settings(**({"clock": clock, "retry": ONE_ATTEMPT, "wait": 5.0} | (settings or {})))
        given = {"verify": idp.ca_file} | options
        app = msal.ConfidentialClientApplication(
            client,
            client_credential="s3cret-of-the-daemon",
            authority=idp.authority(tenant),
            instance_discovery=False,
            resilience=resilience,
            **given,
        )
        built.append(app)
        return app

    yield make
    for app in built:
        app.close()


@pytest.fixture(params=["memory", "file", "valkey"])
def store(request: pytest.FixtureRequest, clock: Any, tmp_path: Any) -> Iterator[Callable[[], Any]]:
    """The same store, as one process after another opens it."""
    backend, key, opened = MemoryBackend(clock=clock), os.urandom(32), []

    def open_it() -> Any:
        if request.param == "memory":
            opened.append(ra.SealedStore(backend, key=key, clock=clock))
        elif request.param == "file":
            opened.append(ra.FileStore(tmp_path / "store", key=key, clock=clock))
        else:
            opened.append(ra.RedisStore(request.getfixturevalue("redis_url"), key=key, clock=clock))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


def another_process() -> None:
    """Forget what one process's applications share."""
    documents.last_good = documents.Documents()


def session(verify: Any) -> requests.Session:
    own = requests.Session()
    own.verify = verify
    return own


def document(idp: Emulator, **changes: str) -> Fault:
    """A discovery document as somebody in between would have it."""
    realm = f"{idp.url}/{tenant_id('contoso')}"
    body = {
        "issuer": f"{realm}/v2.0",
        "authorization_endpoint": f"{realm}/oauth2/v2.0/authorize",
        "token_endpoint": f"{realm}/oauth2/v2.0/token",
    }
    return Fault.status(200, json.dumps(body | changes))


#: Ways to another wire that reaches the provider; those that aren't verified by us can't be vouched for.
WIRES: dict[str, Callable[[Emulator], dict[str, Any]]] = {
    "unverified": lambda _: {"verify": False},
    "own client": lambda idp: {"http_client": session(idp.ca_file), "verify": True},
    "own unverified client": lambda _: {"http_client": session(False), "verify": True},
    "proxy": lambda idp: {"proxies": {"https": idp.proxy_url}},
}


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "store"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_document_steers_only_who_uses_the_wire_that_it_came_over(
    idp: Emulator, build: Any, store: Any, wire: str, kept: bool
) -> None:
    """No secret goes to an address that somebody else's connection had named."""
    impostor = f"{idp.url}/impostor/oauth2/v2.0/token"
    idp.fail(document(idp, token_endpoint=impostor), "discovery")
    lax = build(settings={"store": store()} if kept else None, **WIRES[wire](idp))
    lax._ra_bind()
    assert lax.client.configuration["token_endpoint"] == impostor
    idp.heal()
    if kept:
        another_process()
    strict = build(settings={"store": store()} if kept else None)
    strict.acquire_token_for_client(SCOPE)
    assert strict.client.configuration["token_endpoint"] != impostor
    assert not [call for call in idp.ledger.calls if "impostor" in call.path]


@pytest.mark.parametrize("wire", WIRES)
def test_an_owners_http_cache_has_a_part_for_each_wire(idp: Emulator, build: Any, wire: str) -> None:
    """MSAL replays what is in it, documents for a day and denials for a minute, to every application that has it."""
    shared: dict[str, Any] = {}
    impostor = f"{idp.url}/impostor/oauth2/v2.0/token"
    idp.fail(document(idp, token_endpoint=impostor), "discovery")
    build(http_cache=shared, **WIRES[wire](idp))._ra_bind()
    idp.heal()
    for _ in range(2):
        app = build(http_cache=shared)
        app.acquire_token_for_client(SCOPE)
        assert app.client.configuration["token_endpoint"] != impostor
    assert any(key.startswith(f"{app._ra_transport.wire.identity.fleet} GET") for key in shared)
    assert len([call for call in idp.ledger.calls if call.endpoint == "discovery"]) == 2


def test_applications_over_the_same_wire_share_a_document(idp: Emulator, build: Any, tmp_path: Any) -> None:
    """Equal trust is one wire, wherever its file is."""
    copied = tmp_path / "copied.pem"
    copied.write_bytes(Path(idp.ca_file).read_bytes())
    build()._ra_bind()
    build(verify=str(copied))._ra_bind()
    build(verify=copied)._ra_bind()
    assert len([call for call in idp.ledger.calls if call.endpoint == "discovery"]) == 1


def _documents(store: Any) -> list[bytes]:
    return [record.value for record in store().scan("document")]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, 1),
        ({"verify": False}, 0),
        ({"http_client": session(False), "verify": True}, 0),
        ({"http_client": session(""), "verify": True}, 0),
        ({"http_client": "wrapped", "verify": True}, 0),
        ({"http_client": "session", "verify": True}, 1),
    ],
    ids=["verified", "unverified", "unverified session", "no path", "somebody's client", "verified session"],
)
def test_a_store_keeps_what_came_verified(idp: Emulator, build: Any, store: Any, options: Any, kept: int) -> None:
    """Of a client of the owner's own that is known to be; nothing can be said of one that isn't."""

    class Client:
        def __init__(self) -> None:
            self._session = session(idp.ca_file)

        def get(self, *args: Any, **kwargs: Any) -> Any:
            return self._session.get(*args, **kwargs)

        def post(self, *args: Any, **kwargs: Any) -> Any:
            return self._session.post(*args, **kwargs)

        def close(self) -> None:
            self._session.close()

    made: dict[Any, Callable[[], Any]] = {"wrapped": Client, "session": lambda: session(idp.ca_file)}
    given = {k: made[v]() if isinstance(v, str) else v for k, v in options.items()}
    app = build(settings={"store": store()}, **given)
    assert "access_token" in app.acquire_token_for_client(SCOPE)
    app.close()
    assert len(_documents(store)) == kept


def test_a_session_that_is_told_to_trust_everybody_stores_no_more(idp: Emulator, build: Any, store: Any) -> None:
    """What an owner's session is counts when something is written, not when the application was built."""
    own = session(idp.ca_file)
    idp.fail(Fault.http_503(), "discovery", count=1)
    app = build(settings={"store": store()}, http_client=own, verify=True)
    own.verify = False
    with ra.wait_at_most(5):
        assert "access_token" in app.acquire_token_for_client(SCOPE)
    assert _documents(store) == []


@pytest.mark.parametrize("member", ["token_endpoint", "authorization_endpoint"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_document_that_names_a_strangers_host_isnt_used(idp: Emulator, build: Any, member: str, verify: bool) -> None:
    """The secret isn't posted there, and the error names the option for who means it."""
    idp.fail(document(idp, **{member: "https://evil.example/token"}), "discovery")
    with capture_events() as events:
        app = build(**({} if verify else {"verify": False}))
        with pytest.raises(ra.MalformedAnswer, match=r'discovery_hosts=\("evil.example",\)'):
            app.acquire_token_for_client(SCOPE)
        assert events.wait_for(DiscoveryRejected)
    assert not idp.ledger.token_calls()


def test_an_owner_may_name_another_host(idp: Emulator, build: Any) -> None:
    """And that is the business of applications with these settings alone."""
    elsewhere = idp.url.replace("localhost", "127.0.0.1")
    idp.fail(document(idp, token_endpoint=f"{elsewhere}/{tenant_id('contoso')}/oauth2/v2.0/token"), "discovery")
    host = elsewhere.partition("//")[2]
    app = build(settings={"discovery_hosts": (host,)})
    assert "access_token" in app.acquire_token_for_client(SCOPE)
    with pytest.raises(ra.MalformedAnswer):
        build().acquire_token_for_client(SCOPE)


def test_a_host_that_another_owner_has_named_comes_out_of_no_store(idp: Emulator, build: Any, store: Any) -> None:
    """The document that those settings let into it is no document to others: a secret would be posted there."""
    elsewhere = idp.url.replace("localhost", "127.0.0.1")
    idp.fail(document(idp, token_endpoint=f"{elsewhere}/{tenant_id('contoso')}/oauth2/v2.0/token"), "discovery")
    settings = {"store": store(), "discovery_hosts": (elsewhere.partition("//")[2],)}
    assert "access_token" in build(settings=settings).acquire_token_for_client(SCOPE)
    assert _documents(store)
    another_process()
    idp.heal()
    app = build(client="another", settings={"store": store()})
    assert "access_token" in app.acquire_token_for_client(SCOPE)
    assert app.authority.token_endpoint.startswith(idp.url)


BROKEN: dict[str, Callable[[str], dict[str, Any]]] = {
    "another authority": lambda ca: {"verify": ca},
    "own client": lambda ca: {"http_client": session(ca), "verify": True},
    "dead proxy": lambda _: {"proxies": {"https": "http://127.0.0.1:9"}},
}


def _fail_often(app: Any, clock: Any, before_a_skip: Callable[[], object] = lambda: None) -> None:
    for _ in range(6):
        with pytest.raises(ra.ProviderUnavailable), ra.wait_at_most(2):
            app.acquire_token_for_client(SCOPE)
        before_a_skip()
        clock.skip(1.0)


@pytest.mark.parametrize("wire", BROKEN)
def test_a_broken_wire_opens_its_own_breaker(
    idp: Emulator, build: Any, clock: Any, eventually: Any, other_ca: str, wire: str
) -> None:
    """Applications in other threads that trust the right authority don't notice; health tells the two apart."""
    good = build()
    good.acquire_token_for_client(SCOPE)
    broken = build(**BROKEN[wire](other_ca))
    done = threading.Event()
    crossed: list[BaseException] = []
    calls = 0

    def work() -> None:
        nonlocal calls
        while not done.is_set():
            try:
                assert "access_token" in good.acquire_token_for_client(SCOPE, claims_challenge='{"access_token":{}}')
            except BaseException as error:
                crossed.append(error)
            calls += 1

    def one_more_call() -> None:
        before = calls  # several skips in one call would be its deadline
        eventually(lambda: calls > before)

    worker = threading.Thread(target=work)
    worker.start()
    _fail_often(broken, clock, one_more_call)
    done.set()
    worker.join()
    assert not crossed
    assert "access_token" in build("fabrikam").acquire_token_for_client(SCOPE)
    states = [b for b in ra.health().breakers if b.name == f"{idp.url} discovery"]
    assert {b.state for b in states} >= {"closed", "open"}
    assert len({b.wire for b in states}) == len(states)


@pytest.mark.parametrize("wire", [{"verify": False}, {"http_client": session(False), "verify": True}])
def test_a_broken_wires_failures_are_no_hint_to_others(
    idp: Emulator, build: Any, store: Any, wire: dict[str, Any]
) -> None:
    """Over a store too, in another process: who trusts the provider's authority asks at once."""
    breaker = ra.BreakerOptions(consecutive_failures=1, first_break=60.0)
    broken = build(client="broken", settings={"store": store(), "breaker": breaker}, **wire)
    idp.fail(Fault.http_503(), "token", match={"client_id": "broken"})
    with pytest.raises(ra.ServerFailed):
        broken.acquire_token_for_client(SCOPE)
    other = build(settings={"store": store(), "breaker": breaker})
    assert other.acquire_token_for_client(SCOPE)["token_source"] == "identity_provider"


def test_hints_still_reach_who_uses_the_same_wire(idp: Emulator, build: Any, store: Any) -> None:
    """What one process has learned of a provider spares the others finding out, as before."""
    build(settings={"store": store()})._ra_bind()
    idp.fail(Fault.http_429(retry_after=600), "token")
    for _ in range(2):
        app = build(settings={"store": store()})
        with pytest.raises(ra.Throttled):
            app.acquire_token_for_client(SCOPE)
    assert len(idp.ledger.token_calls()) == 1


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "store"])
def test_one_tenants_throttling_is_its_own(idp: Emulator, build: Any, store: Any, kept: bool) -> None:
    """Its other tenants get their tokens, here and in other processes, and the one that is throttled is left alone."""
    idp.fail(Fault.http_429(retry_after=3600), "token", match=lambda call: tenant_id("contoso") in call.path)

    def settings() -> dict[str, Any] | None:
        return {"store": store()} if kept else None

    for _ in range(2):
        with pytest.raises(ra.Throttled) as caught:
            build("contoso", settings=settings()).acquire_token_for_client(SCOPE)
        assert 3500 < (caught.value.retry_after or 0.0) <= 3600
        assert "access_token" in build("fabrikam", settings=settings()).acquire_token_for_client(SCOPE)
    throttled = [call for call in idp.ledger.token_calls() if call.status == 429]
    assert len(throttled) == 1


def test_one_tenants_throttling_holds_up_no_other_ones_recovery(
    idp: Emulator, build: Any, clock: Any, eventually: Any
) -> None:
    """The one who asked for patience isn't the one who is sent first when an outage ends."""
    settings = {"keep_trying": 3600.0, "breaker": ra.BreakerOptions(consecutive_failures=2)}
    throttled, other = build("contoso", settings=settings), build("fabrikam", settings=settings)
    throttled._ra_bind()
    other._ra_bind()
    idp.fail(Fault.http_429(retry_after=3600), "token", match=lambda call: tenant_id("contoso") in call.path)
    outage = idp.fail(Fault.http_503(), "token", match=lambda call: tenant_id("fabrikam") in call.path)
    for app in (throttled, other, other):
        with pytest.raises(ra.ProviderUnavailable):
            app.acquire_token_for_client(SCOPE)
        clock.skip(5.0)
    outage.stop()
    entry = next(iter(other._ra_session.memory))

    def recovered() -> bool:
        clock.skip(0.5)
        return entry.token is not None

    eventually(recovered)


_LAX = """
import json, sys
import resilient_auth as ra
from resilient_auth import msal
about = json.loads(sys.argv[1])
store = ra.FileStore(about["store"], key=bytes(range(32)))
app = msal.ConfidentialClientApplication(
    "daemon", client_credential="s3cret", authority=about["authority"], instance_discovery=False,
    verify=about["verify"], resilience=ra.Settings(store=store, retry=ra.RetryOptions(attempts=1)),
)
app._ra_bind()
print(app.client.configuration["token_endpoint"])
"""


@pytest.mark.parametrize("verified", [False, True])
def test_another_process_steers_nobody_unless_it_verifies(
    idp: Emulator, build: Any, clock: Any, tmp_path: Any, verified: bool
) -> None:
    """A file that processes share holds what one of them has verified, and another one like it needn't ask."""
    endpoint = f"{idp.url}/{tenant_id('contoso')}/oauth2/v2.0/token"
    if not verified:
        endpoint = endpoint.replace(tenant_id("contoso"), "impostor")
        idp.fail(document(idp, token_endpoint=endpoint), "discovery")
    about = {
        "store": str(tmp_path / "shared"),
        "authority": idp.authority("contoso"),
        "verify": idp.ca_file if verified else False,
    }
    done = subprocess.run(
        [sys.executable, "-c", _LAX, json.dumps(about)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == endpoint, done.stderr
    idp.heal()
    if verified:
        idp.fail(Fault.http_503(), "discovery")
    with ra.FileStore(tmp_path / "shared", key=bytes(range(32)), clock=clock) as shared:
        app = build(settings={"store": shared})
        assert "access_token" in app.acquire_token_for_client(SCOPE)
        app.close()
    assert not [call for call in idp.ledger.calls if "impostor" in call.path]


def test_a_session_that_verifies_no_more_has_nothing_kept_as_verified(
    idp: Emulator, build: Any, store: Any, clock: Any, eventually: Callable[..., None]
) -> None:
    """Though the document was asked for while it did: its second attempt went out when it didn't."""
    own, got = session(idp.ca_file), list[Any]()
    idp.fail(Fault.reset(), "discovery")
    retries = {"store": store(), "retry": ra.RetryOptions(), "wait": 30.0}
    app = build(settings=retries, http_client=own, verify=True)
    thread = threading.Thread(target=lambda: got.append(app.acquire_token_for_client(SCOPE)))
    thread.start()
    eventually(lambda: clock.waiting_workers == 2)
    own.verify = False
    idp.heal()
    clock.skip(11)
    thread.join(10)
    assert "access_token" in got[0]
    app.close()
    assert _documents(store) == []


def test_an_attempt_ends_with_its_exchange(idp: Emulator, build: Any, clock: Any) -> None:
    """One that begins late has what is left, and not all of an attempt's time."""
    app = build()
    app._ra_bind()
    idp.fail(Fault.slow(5))
    began = time.monotonic()
    with pytest.raises(ra.AttemptTimeout), ExchangeContext(clock.monotonic() + 0.3).under_way():
        app._ra_transport.get(f"{idp.url}/somewhere")
    assert time.monotonic() - began < 2.0
