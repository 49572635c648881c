"""An expired token is accepted under conditions that all hold, or not at all."""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import ExpiredTokenAccepted, ProviderSeenDown, ProviderSeenUp
from resilient_auth.testing import capture_events
from resilient_auth.verify import BindingOptions, DenyList, GraceOptions, Presented
from resilient_auth.verify.outage import Observation

OPTIONS = GraceOptions()


def code_of(verifier: ra.ClaimsVerifier, token: str, **asked: Any) -> str:
    try:
        return "" if not verifier.verify(token, **asked).provenance.grace else "grace"
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        return error.code


class Scene:
    """A token that was seen valid, and a provider that goes down."""

    def __init__(self, idp: Emulator, at_idp: Any, mint: Any, clock: Any, eventually: Any) -> None:
        self.idp, self.clock, self.eventually, self._mint, self._at_idp = idp, clock, eventually, mint, at_idp
        self.deny = DenyList()
        self.binding: BindingOptions | None = None
        self.presented: Presented | None = None

    def begin(self, *, grace: GraceOptions | None = OPTIONS, life: int = 600, **claims: Any) -> None:
        self.verifier = self._at_idp(grace=grace, deny=self.deny, binding=self.binding)
        self.token = self._mint(exp=int(self.clock.wall()) + life, **claims)
        self.claims = claims
        assert self.verifier.verify(self.token, presented=self.presented)
        if grace is not None:
            self.rounds(1)

    @property
    def watch(self) -> Any:
        (watch,) = self.verifier._core._watches.values()
        return watch

    def rest(self) -> None:
        """Wait for a look that is due or under way: it would tell of how the provider was before."""
        ran = threading.Event()
        self.watch._engine.timers.call_at(self.clock.monotonic(), ran.set)
        assert ran.wait(5.0)
        self.eventually(lambda: self.watch._timer is not None and self.watch._timer.pending)

    def rounds(self, count: int) -> None:
        """Let so many looks at the provider happen."""
        for _ in range(count):
            self.rest()
            before = self.watch.observation
            self.clock.skip(61.0)
            self.eventually(lambda before=before: self.watch.observation is not before)

    def outage(self, fault: Fault | None = None, endpoint: str = "*") -> None:
        self.idp.fail(fault or Fault.http_503(), endpoint)
        self.rounds(2)

    def expire(self, past: float = 120.0) -> None:
        """Go on until the token is `past` seconds past its expiry, with the provider looked at all the while."""
        target = self.verifier._core._seen.find(_digest(self.token)).claims.expires_at + past
        while (left := target - self.clock.wall()) > 0:
            before = self.watch.observation
            self.clock.skip(min(left + 0.01, 61.0))
            if left > 61.0:
                self.eventually(lambda before=before: self.watch.observation is not before)
        self.rest()


def _digest(token: str) -> bytes:
    from resilient_auth.verify.seen import digest_of

    return digest_of(token)


@pytest.fixture
def scene(idp: Emulator, at_idp: Any, mint: Any, clock: Any, eventually: Callable[..., None]) -> Scene:
    return Scene(idp, at_idp, mint, clock, eventually)


def test_an_expired_token_is_accepted_in_an_outage(scene: Scene) -> None:
    """Where the owner and the call want it, with an event each time, and until the provider is back."""
    scene.begin()
    with capture_events() as events:
        scene.outage()
        scene.expire()
        assert code_of(scene.verifier, scene.token) == "expired"
        found = scene.verifier.verify(scene.token, grace=True, scopes=["Orders.Read"])
        assert found.provenance.grace
        assert 115 < found.provenance.past_expiry < 190
        assert code_of(scene.verifier, scene.token, grace=True) == "grace"
        assert code_of(scene.verifier, scene.token, grace=True, scopes=["Orders.Delete"]) == "insufficient_scope"
        used = events.wait_for(ExpiredTokenAccepted, count=2)
        assert "ann" not in str(used[0])
        (down,) = events.wait_for(ProviderSeenDown)
        assert down.code == "server_failed"
        scene.idp.heal()
        scene.rounds(1)
        assert code_of(scene.verifier, scene.token, grace=True) == "expired"
        assert events.wait_for(ProviderSeenUp)


@pytest.mark.parametrize("roles", [{"admin": True}, [{"name": "Admin"}], ["Reader", 1]], ids=str)
def test_roles_that_cant_be_read_get_none(scene: Scene, roles: Any) -> None:
    """They may be an administrator's."""
    scene.begin(roles=roles)
    scene.outage()
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"


def test_a_token_that_is_bound_stays_bound(scene: Scene, pem: str) -> None:
    """Grace is about the time alone."""
    bound = base64.urlsafe_b64encode(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()).rstrip(b"=").decode()
    scene.binding, scene.presented = BindingOptions(certificates=True), Presented(certificate=pem)
    scene.begin(cnf={"x5t#S256": bound})
    scene.outage()
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "certificate"
    assert code_of(scene.verifier, scene.token, grace=True, presented=scene.presented) == "grace"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.refuse(),
        Fault.reset(),
        Fault.tls_failed(),
        Fault.html_200(),
        Fault.http_503_html(),
        Fault.truncated_json(),
        Fault.status(400, '{"error": "temporarily_unavailable"}'),
    ],
)
def test_ways_to_be_down(scene: Scene, fault: Fault) -> None:
    """Whatever isn't an answer of its own."""
    scene.begin()
    scene.outage(fault)
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "grace"


@pytest.mark.parametrize("fault", [None, Fault.http_429(), Fault.status(400), Fault.status(404)])
def test_ways_not_to_be_down(scene: Scene, fault: Fault | None) -> None:
    """Throttling and refusals are answers."""
    scene.begin()
    if fault is not None:
        scene.idp.fail(fault)
    scene.rounds(3)
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"


@pytest.mark.parametrize("endpoint", ["discovery", "token", "jwks"])
def test_half_an_outage_is_none(scene: Scene, endpoint: str) -> None:
    """Discovery and token endpoint must both fail; the keys' endpoint isn't looked at."""
    scene.begin()
    scene.outage(endpoint=endpoint)
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"


def test_it_is_off_unless_the_owner_wants_it(scene: Scene) -> None:
    """A call alone can't ask for it, and nothing is looked at."""
    scene.begin(grace=None)
    scene.idp.fail(Fault.http_503())
    scene.clock.skip(720.0)
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"
    assert not scene.verifier._core._watches


def test_a_token_that_wasnt_seen_before(scene: Scene, mint: Any) -> None:
    """Or was seen first when the provider was down already."""
    scene.begin()
    never = mint(exp=int(scene.clock.wall()) + 600, uti="never")
    scene.outage()
    late = mint(exp=int(scene.clock.wall()) + 300, uti="late")
    assert scene.verifier.verify(late)
    scene.expire(200.0)
    assert code_of(scene.verifier, never, grace=True) == "expired"
    scene.clock.skip(1.0)
    assert code_of(scene.verifier, late, grace=True) == "expired"
    assert code_of(scene.verifier, scene.token, grace=True) == "grace"


@pytest.mark.parametrize(
    "claims",
    [
        {"idtyp": "app", "scp": None},
        {"idtyp": "app"},
        {"sub": "shop"},
        {"sub": None, "oid": None},
        {"azp": None, "cid": "shop", "sub": "shop", "oid": None},
        {"scp": None, "sub": "6f6e2c3a-ann", "roles": ["Orders.Read.All"]},
        {"roles": ["Admin"]},
        {"roles": ["Reader", "Site-Administrator"]},
        {"roles": ["Privileged Operator"]},
        {"roles": ["Break Glass"]},
        {"wids": ["62e90394-69f5-4237-9190-012177145e10"]},
        {"wids": ["b79fbf4d-3ef9-4689-8143-76b194e85509", "62e90394-69f5-4237-9190-012177145e10"]},
        {"wids": "62e90394-69f5-4237-9190-012177145e10"},
    ],
    ids=str,
)
def test_who_never_gets_it(scene: Scene, claims: dict[str, Any]) -> None:
    """Applications, and administrators of any kind."""
    scene.begin(grace=GraceOptions(refused_roles=frozenset({"Break Glass"})), **claims)
    scene.outage()
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"


def test_a_member_of_the_tenant_is_no_administrator(scene: Scene) -> None:
    """Entra's marker for having no directory role."""
    scene.begin(wids=["b79fbf4d-3ef9-4689-8143-76b194e85509"], roles=["Reader"])
    scene.outage()
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "grace"


def test_it_ends_after_minutes(scene: Scene) -> None:
    """Past the token's expiry."""
    scene.begin(grace=GraceOptions(past_expiry=300.0))
    scene.outage()
    scene.expire(290.0)
    assert code_of(scene.verifier, scene.token, grace=True) == "grace"
    scene.clock.skip(11.0)
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"


def test_it_ends_with_the_total_time(scene: Scene) -> None:
    """Since the outage was first seen."""
    scene.begin(grace=GraceOptions(past_expiry=900.0, outage=900.0))
    scene.outage()
    scene.expire(100.0)
    assert code_of(scene.verifier, scene.token, grace=True) == "grace"
    scene.rounds(7)
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"


def test_the_deny_list_wins(scene: Scene) -> None:
    """Offline as everything is."""
    scene.begin()
    scene.outage()
    scene.expire()
    scene.deny.add(oids=["6f6e2c3a-ann"])
    assert code_of(scene.verifier, scene.token, grace=True) == "denied"


def test_a_changed_deny_list_costs_nobody_their_grace(scene: Scene, tmp_path: Path) -> None:
    """A token that was verified anew in the outage was seen valid before it all the same, unless the list names it."""
    file = tmp_path / "denied.json"
    file.write_text("{}")
    scene.deny = DenyList(file=file)
    scene.begin(oid="6f6e2c3a-0b7e-4a53-9a3e-5d0b8d7a6f10")
    scene.outage()
    file.write_text('{"oids": ["mallory"]}')
    assert scene.verifier.verify(scene.token)
    scene.expire()
    assert code_of(scene.verifier, scene.token, grace=True) == "grace"
    file.write_text('{"oids": ["{6F6E2C3A-0B7E-4A53-9A3E-5D0B8D7A6F10}"]}')
    scene.clock.skip(5.1)
    assert code_of(scene.verifier, scene.token, grace=True) == "denied"


def test_a_provider_that_nobody_looks_at_isnt_seen_to_be_down(scene: Scene) -> None:
    """A process that slept through hours knows nothing of the provider now."""
    scene.begin(life=4 * 3600)
    scene.outage()
    scene.watch.close()
    scene.clock.skip(4 * 3600.0 + 100)
    assert code_of(scene.verifier, scene.token, grace=True) == "expired"


def test_requests_have_no_influence(scene: Scene, mint: Any) -> None:
    """Forged tokens, failing fetches and open breakers neither make an outage nor end one."""
    scene.begin()
    scene.idp.fail(Fault.http_503(), "jwks")
    for n in range(50):
        code_of(scene.verifier, mint({"kid": f"made-up-{n}"}), grace=True)
    ra.isolate(scene.idp.url)
    scene.rounds(3)
    assert scene.watch.down_since() is None
    ra.reset(scene.idp.url)
    scene.idp.heal()
    scene.outage(endpoint="discovery")
    scene.outage(endpoint="token")
    before = scene.watch.down_since()
    assert before is not None
    # A fetch of keys that works is an answer to a request, and no look at the provider.
    assert code_of(scene.verifier, mint({"kid": "made-up-again"}), grace=True) != ""
    assert scene.watch.down_since() == before


def test_observations() -> None:
    """Two rounds must fail; the outage began with the first one; any answer ends it."""
    seen = Observation()
    assert seen.down_since(0.0, 60.0) is None
    seen = seen.after(answered=False, began_at=10.0, now=11.0)
    assert seen.down_since(12.0, 60.0) is None
    seen = seen.after(answered=False, began_at=25.0, now=26.0)
    assert seen.down_since(30.0, 60.0) == 10.0
    assert seen.down_since(90.0, 60.0) is None
    assert seen.after(answered=True, began_at=40.0, now=41.0).down_since(42.0, 60.0) is None
