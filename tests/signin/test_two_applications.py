"""Applications of one owner over one store: nothing of one counts at another, and none leads into another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from signin_site import BASE, Site

import resilient_auth as ra
from resilient_auth.signin import OneTimeCodes, SignalsReceiver, SignInOptions, SignOutOptions, Who
from resilient_auth.signin.engine import SignInEngine
from resilient_auth.signin.messages import Arrival
from resilient_auth.signin.sign_out.ending import Whom
from resilient_auth.verify import Revocations

#: They differ in path, in port, or in the name of their cookies alone.
APPLICATIONS = [
    *((base, None) for base in (BASE, f"{BASE}/shop", f"{BASE}/shop/shop", f"{BASE}:8443")),
    (BASE, "shop"),
    (BASE, "bank"),
]
ADDRESS = "eve@contoso.com"


class Applications:
    """They, each of which knows a user of its own by the same address."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sent: dict[str, str] = {}
        self.all = [self._made(base, name) for base, name in APPLICATIONS]

    def _made(self, base: str, name: str | None, sign_out: SignOutOptions | None = None) -> SignInEngine:
        whose = f"{base} {name}"

        def find(_: str) -> dict[str, str]:
            return {"sub": whose}

        def send(_: str, code: str) -> None:
            self.sent[whose] = code

        codes = OneTimeCodes(find=find, send=send, per_address=10)
        options = SignInOptions(cookie_name=name, codes=codes, sign_out=sign_out or SignOutOptions())
        settings = self.site.auth.engine.site.settings
        return SignInEngine(
            self.site.provider(), base_url=base, store=self.site.store, options=options, settings=settings
        )

    def at(self, prefix: str, **sign_out: Any) -> SignInEngine:
        self.all.append(self._made(f"{BASE}{prefix}", None, SignOutOptions(**sign_out)))
        return self.all[-1]

    def close(self) -> None:
        for each in self.all:
            each.close()


@pytest.fixture
def applications(site: Site) -> Iterator[Applications]:
    made = Applications(site)
    yield made
    made.close()


def of_session(one: SignInEngine, other: SignInEngine, sent: dict[str, str]) -> bool:
    """By whomever the user was let in there: a provider that the other one doesn't have, say."""
    _, cookie = one.site.sessions.create(Who(provider="another", issuer="https://idp.example", subject="eve"))
    return other.site.sessions.find(cookie) is not None


def of_code(one: SignInEngine, other: SignInEngine, sent: dict[str, str]) -> bool:
    assert one.site.codes is not None
    assert other.site.codes is not None
    sent.clear()
    one.site.codes.begin(ADDRESS)
    (code,) = sent.values()
    return other.site.codes.redeem(ADDRESS, code) is not None


def of_flow(one: SignInEngine, other: SignInEngine, sent: dict[str, str]) -> bool:
    cookies = one.site.flows.begin(Arrival("GET", "/"), "s", {})
    assert cookies is not None
    value = cookies[0].value
    name = (other.site.flows.begin(Arrival("GET", "/"), "s", {}) or cookies)[0].name
    return other.site.flows.open(Arrival("GET", "/", cookies={name: value}), "s")[0] is not None


def of_logout_token(one: SignInEngine, other: SignInEngine, sent: dict[str, str]) -> bool:
    """What one has done the other hasn't: both may be one client at the provider, whose token comes to each."""
    one.sign_out.once.first("https://idp.example", f"jti {id(one)}", one.site.clock.wall() + 60.0)
    return other.sign_out.once.was_seen("https://idp.example", f"jti {id(one)}")


@pytest.mark.parametrize("counts", [of_session, of_code, of_flow, of_logout_token])
def test_nothing_of_one_counts_at_another(
    applications: Applications, counts: Callable[[SignInEngine, SignInEngine, dict[str, str]], bool]
) -> None:
    """Whatever they have in common."""
    for one, other in itertools.permutations(applications.all, 2):
        assert not counts(one, other, applications.sent), (one.site.application, other.site.application)
    assert len({each.site.application for each in applications.all}) == len(APPLICATIONS)


def test_codes_of_one_use_up_none_of_anothers(applications: Applications) -> None:
    """Who asks for many at one keeps nobody out of the other."""
    first, second = applications.all[:2]
    assert first.site.codes is not None
    assert second.site.codes is not None
    for _ in range(11):
        first.site.codes.begin(ADDRESS)
    applications.sent.clear()
    second.site.codes.begin(ADDRESS)
    assert len(applications.sent) == 1


def test_an_event_that_one_has_received_is_new_to_another(applications: Applications) -> None:
    """Though their streams have the same audience."""
    site = applications.site
    revocations = Revocations(site.store, clock=site.clock)
    verifier = ra.ClaimsVerifier(issuer="https://idp.example", audience="https://receiver.example", **site.wire())

    class Auth:
        def __init__(self, engine: SignInEngine) -> None:
            self.engine = engine

    def once(engine: SignInEngine | None) -> Any:
        auth = None if engine is None else Auth(engine)
        return SignalsReceiver(verifier, store=site.store, sign_in=auth, revocations=revocations)._once

    receivers = [once(each) for each in (*applications.all, None)]
    for each in receivers:
        assert each.first("https://idp.example", "jti", site.clock.wall() + 60.0)
    # Two processes of one are one.
    assert not once(applications.all[0]).first("https://idp.example", "jti", site.clock.wall() + 60.0)
    verifier.close()
    revocations.close()


class Held:
    """An application of MSAL's of an API: which accounts were removed there."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    def get_accounts(self) -> list[dict[str, str]]:
        return []

    def remove_account(self, account: dict[str, str]) -> None:
        self.removed.append(account["home_account_id"])


def test_a_second_transmitter_takes_nothing_from_the_first(applications: Applications) -> None:
    """Whichever of them tells of a user, the tokens that either one's APIs hold go."""
    ending, sessions = applications.all[0].sign_out.ending, applications.all[0].site.sessions
    first, second = Held(), Held()
    endings = [ending.also(None, [first]), ending.also(None, [second])]
    for number, each in enumerate(endings):
        name, account = f"ada{number}", {"home_account_id": f"ada{number}", "environment": "idp.example"}
        sessions.create(Who(provider="b2c", issuer="https://idp.example", subject=name, account=account))
        whom = Whom(issuer="https://idp.example", subject=name)
        assert each.end(whom, code="security_event", before=applications.site.clock.wall()) == 1
        assert first.removed.count(name) == second.removed.count(name) == 1


class TestWhereto:
    """Below a path of a host that has others."""

    @pytest.mark.parametrize(
        ("path", "leads"),
        [
            ("/shop", "/shop"),
            ("/shop/me?x=/bank", "/shop/me?x=/bank"),
            ("/shop?x=1", "/shop?x=1"),
            ("/", "/shop/"),
            ("/bank/pay", "/shop/"),
            ("/shopping", "/shop/"),
            ("/shop/../bank/pay", "/shop/"),
            ("/shop/.. ", "/shop/"),
            ("/shop/%2e%2e/bank", "/shop/"),
            ("/shop/%252e%252e/bank", "/shop/"),
            ("/shop/..%2fbank", "/shop/"),
            ("/shop%2fme", "/shop/"),
            ("/shop/sign-in", "/shop/"),
            ("/shop/sign-in/code", "/shop/"),
            ("/shop/sign-instructions", "/shop/sign-instructions"),
        ],
    )
    def test_it_is_a_path_of_this_one(self, applications: Applications, path: str, leads: str) -> None:
        shop = applications.all[1]
        assert shop.site.next_of(Arrival("GET", "/", query=(("next", path),))) == leads
        done = shop.sign_out.done(Arrival("GET", "/", query=(("state", path),)))
        with pytest.raises(StopIteration) as end:
            next(done)
        headers = dict(end.value.value.headers)
        assert headers.get("Location", "/shop/") in (leads, path)
        assert headers.get("Location", "/shop").startswith("/shop")

    def test_an_owner_may_lead_out_of_it(self, applications: Applications) -> None:
        """By an option, and by nothing that comes in a request."""
        shop = applications.at("/kiosk", next_path="/goodbye")
        for state, leads in (("/goodbye", "/goodbye"), ("/goodbye2", None)):
            done = shop.sign_out.done(Arrival("GET", "/", query=(("state", state),)))
            with pytest.raises(StopIteration) as end:
                next(done)
            assert dict(end.value.value.headers).get("Location") == leads

    @pytest.mark.parametrize("path", ["/me?x=1", "/shop/me?x=1"])
    def test_a_proxy_may_take_the_path_away(self, applications: Applications, path: str) -> None:
        """Who is led to the provider comes back to the same page all the same."""
        assert applications.all[1].site.here(Arrival("GET", path)) == "/shop/me?x=1"


@pytest.mark.parametrize("base", ["https://App.Example", "https://app.example:443", "https://app.example/"])
def test_a_form_of_its_own_is_one_however_the_owner_writes_the_address(site: Site, base: str) -> None:
    """A browser writes an origin in one way."""
    settings = site.auth.engine.site.settings
    one = SignInEngine(site.provider(), base_url=base, store=site.store, settings=settings)

    def sent_from(origin: str) -> Arrival:
        return Arrival("POST", "/", header=lambda name: origin if name == "origin" else "")

    assert one.site.is_own(sent_from("https://app.example"))
    for other in ("https://app.example.evil", "http://app.example", "null", "https://[", "https://app.example:8443"):
        assert not one.site.is_own(sent_from(other))
    one.close()
