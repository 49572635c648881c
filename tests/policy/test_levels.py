"""What fails together, and no more: requests, grants at a tenant, a provider."""

from __future__ import annotations

import pytest

from resilient_auth._policy.breaker import BreakerOptions, breakers
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._policy.failure import Purpose
from resilient_auth._policy.levels import Levels, ProviderRequest
from resilient_auth.errors import CircuitOpen
from resilient_auth.testing import ManualClock, no_jitter
from resilient_auth.token import TokenRequest

HOST = "https://login.example"


class Bench:
    """Levels on a manual clock."""

    def __init__(self, **options: object) -> None:
        self.clock = ManualClock()
        self.levels = Levels(BreakerOptions(**options), clock=self.clock, jitter=no_jitter)  # type: ignore[arg-type]

    def fail(self, asked: ProviderRequest, times: int = 1, *, of_host: bool = False) -> None:
        for _ in range(times):
            self.levels.admit(asked).failure("http_500", of_host=of_host)

    def refused(self, asked: ProviderRequest) -> bool:
        try:
            self.levels.check(asked)
        except CircuitOpen:
            return True
        return False


def token(
    scope: str = "s", *, tenant: str = "t", grant: str = "client_credentials", user: str | None = None
) -> ProviderRequest:
    return ProviderRequest.of(TokenRequest(HOST, "app", grant, (scope,), user), Endpoint(HOST, tenant), Purpose.TOKEN)


def person(name: str) -> ProviderRequest:
    return ProviderRequest(Endpoint(HOST, "t"), client_id="app", grant="password", subject=name)


def document(tenant: str) -> ProviderRequest:
    return ProviderRequest(Endpoint(HOST, tenant), Purpose.DISCOVERY)


def test_a_request_that_fails_is_left_alone_alone() -> None:
    """However often: the grant, the tenant and the provider stay as they were."""
    bench = Bench()
    bench.fail(token("broken"), 3)
    assert bench.refused(token("broken"))
    assert not bench.refused(token("good"))
    assert not bench.refused(person("ann"))


def test_all_of_a_users_requests_are_one() -> None:
    """Whose session is broken fails with thirty scopes, and is one of those who fail."""
    bench = Bench()
    for n in range(30):
        bench.fail(token(f"s{n}", user="ada"))
    assert not bench.refused(token("s", user="bob"))


def test_three_different_requests_are_the_grants_at_that_tenant() -> None:
    """Another grant and another tenant go on."""
    bench = Bench()
    for n in range(3):
        bench.fail(token(f"s{n}"))
    assert bench.refused(token("other"))
    assert not bench.refused(token("other", tenant="u"))
    assert not bench.refused(token("other", grant="silent", user="ann"))


def test_three_different_grants_or_tenants_are_the_providers() -> None:
    """Nobody asks any more: people neither."""
    bench = Bench()
    for tenant in "uvw":
        bench.fail(token(tenant=tenant))
    assert bench.refused(token())
    assert bench.refused(person("ann"))


def test_a_connection_that_cant_be_made_is_the_providers_at_once() -> None:
    """Whoever has seen it: and of the request that has, nothing is said."""
    bench = Bench()
    bench.fail(token(), 3, of_host=True)
    assert bench.refused(token("other", tenant="u"))
    (site,) = (breaker for breaker, _ in bench.levels.around(token()))
    assert site.dependency.name == f"{HOST} token"


def test_what_a_person_sends_stops_nobody() -> None:
    """A hundred wrong passwords that get 500 count as one, a success in between or not."""
    bench = Bench()
    for n in range(100):
        bench.fail(person(f"stranger {n}"))
        if n % 2:
            bench.levels.admit(person("ann")).success()
    assert not bench.refused(person("ann"))
    assert not bench.refused(token())


def test_a_document_that_fails_is_its_tenants() -> None:
    """Three times in a row: of another tenant there may be one."""
    bench = Bench()
    bench.fail(document("t"), 3)
    assert bench.refused(document("t"))
    assert not bench.refused(document("u"))


def test_what_was_asked_with_success_fails_no_more() -> None:
    """Its breaker goes, and it counts anew."""
    bench = Bench()
    bench.fail(token("a"), 2)
    bench.levels.admit(token("a")).success()
    bench.fail(token("a"), 2)
    assert not bench.refused(token("a"))


def test_what_was_denied_fails_no_more() -> None:
    """The provider works, and said no: health has nothing against that request."""
    bench = Bench()
    bench.fail(token("a"), 3)
    bench.clock.advance(20.0)
    bench.levels.admit(token("a")).denied()
    assert not [
        b for b in breakers() if b.dependency.authority == HOST and b.dependency.part.endswith(" of a") and not b.closed
    ]
    assert not bench.refused(token("a"))


def test_a_level_that_recovers_frees_those_below() -> None:
    """After an outage nobody waits for the end of a break of their own."""
    bench = Bench()
    for _ in range(2):
        for n in range(3):
            if not bench.refused(token(f"s{n}")):
                bench.fail(token(f"s{n}"))
    bench.clock.advance(30.0)
    bench.levels.admit(token("s0")).success()
    assert not any(bench.refused(token(f"s{n}")) for n in range(3))


def test_who_fails_yields_to_who_doesnt() -> None:
    """Three failing tenants never take the probe of a fourth that was refused."""
    bench = Bench()
    for tenant in "uvw":
        bench.fail(token(tenant=tenant))
    with pytest.raises(CircuitOpen) as refused:
        bench.levels.check(token())
    assert refused.value.retry_after is not None
    bench.clock.advance(refused.value.retry_after)
    assert all(bench.refused(token(tenant=tenant)) for tenant in "uvw")
    bench.levels.admit(token()).success()


def test_who_is_told_when_is_let_through_then() -> None:
    """Who has failed too, though somebody else comes to wait meanwhile."""
    bench = Bench()
    for tenant in "uvw":
        bench.fail(token(tenant=tenant))
    with pytest.raises(CircuitOpen) as refused:
        bench.levels.check(token(tenant="u"))
    assert bench.refused(token())
    bench.clock.advance(refused.value.retry_after or 0.0)
    assert not bench.refused(token(tenant="u"))


def test_a_verdict_counts_once() -> None:
    """As where a credential is overdue, and then fails."""
    bench = Bench()
    leave = bench.levels.admit(token())
    for _ in range(5):
        leave.failure("attempt_timeout")
    assert not bench.refused(token())


def test_forgetting_a_provider_keeps_an_isolation() -> None:
    """An operator's word holds; what was seen is let go."""
    bench = Bench()
    bench.fail(token(), 3)
    bench.levels.forget(Endpoint(HOST))
    assert not bench.refused(token())
    bench.levels.site(Endpoint(HOST), Purpose.TOKEN).isolate()
    bench.levels.forget(Endpoint(HOST))
    assert bench.refused(token())


def test_a_level_that_recovers_frees_its_own_alone() -> None:
    """What fails at another tenant has not been answered."""
    bench = Bench()
    bench.fail(token("x", tenant="u"), 3)
    for n in range(3):
        bench.fail(token(f"s{n}"))
    bench.clock.advance(30.0)
    bench.levels.admit(token("other")).success()
    assert len(bench.levels.around(token("s0"))) == 2
    assert len(bench.levels.around(token("x", tenant="u"))) == 3


def test_a_provider_that_recovers_frees_all_below() -> None:
    """Whoever has seen it."""
    bench = Bench()
    for tenant in "uv":
        bench.fail(token(tenant=tenant), 3)
    bench.fail(token(tenant="w"))
    assert bench.refused(token(tenant="z"))
    bench.clock.advance(30.0)
    bench.levels.admit(token(tenant="z")).success()
    assert [len(bench.levels.around(token(tenant=tenant))) for tenant in "uvw"] == [2, 2, 2]


def test_a_probe_that_reaches_nobody_is_the_next_callers() -> None:
    """That no connection could be made says nothing of the request that was to try whether it works again."""
    bench = Bench()
    bench.fail(token(), 3)
    bench.clock.advance(30.0)
    bench.fail(token(), of_host=True)
    bench.levels.admit(token()).success()
    assert len(bench.levels.around(token())) == 2


def test_an_isolation_is_told_before_any_wait() -> None:
    """Waiting doesn't end it."""
    bench = Bench()
    for tenant in "tuv":
        bench.fail(token(tenant=tenant))
    site, (kind, _), _ = bench.levels.around(token())
    assert site[0].status().state == "open"
    kind.isolate()
    with pytest.raises(CircuitOpen, match="isolate") as refused:
        bench.levels.check(token())
    assert refused.value.retry_after is None


def test_what_a_narrow_level_has_against_a_provider_counts_while_it_is_open() -> None:
    """One that is closed learns nothing more of a provider to which no connection can be made."""
    bench = Bench()
    began = bench.clock.monotonic()
    bench.fail(token("broken"), 3)
    bench.fail(token("a"), 1)
    bench.clock.advance(1.0)
    bench.levels.admit(token("good")).success()
    assert bench.levels.failing_since(token("broken")) == began
    assert bench.levels.failing_since(token("a")) is None
    assert bench.levels.failing_since(token("good")) is None


def test_breakers_are_bounded() -> None:
    """Health tells nothing of those that had to go."""
    bench = Bench()
    for n in range(1030):
        bench.levels.site(Endpoint(f"https://host-{n}.bounded.example", "t"), Purpose.TOKEN)
    known = [b.dependency.authority for b in breakers() if b.dependency.authority.endswith(".bounded.example")]
    assert len(known) == 1024
    assert "https://host-0.bounded.example" not in known


def test_names_tell_the_level_and_no_user() -> None:
    """As they stand in health and in events."""
    bench = Bench()
    asked = token("api://a/.default", user="ann@contoso.com")
    bench.fail(asked)
    site, kind, request = (breaker.dependency.name for breaker, _ in bench.levels.around(asked))
    assert site == f"{HOST} token"
    assert kind == f"{HOST} token by client_credentials at t"
    assert request.startswith(f"{kind} of api://a/.default for ")
    assert "ann" not in request
