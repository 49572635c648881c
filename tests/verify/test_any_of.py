"""Several verifiers as one: whose token it is decides, before any key is asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from arriving import AUDIENCE, NOWHERE, TENANT, Signer, Site

import resilient_auth as ra
from resilient_auth.verify import BindingOptions, DenyList, Presented
from resilient_auth.verify.http import Arrived, Guard

Claims = Callable[..., dict[str, Any]]
B2C = f"{NOWHERE}/b2c/{TENANT}/v2.0/"


def code_of(verifier: Any, token: str, **asked: Any) -> str:
    try:
        verifier.verify(token, **asked)
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        return error.code
    return ""


@pytest.fixture
def b2c(signer: Signer, settings: Any) -> Callable[..., ra.ClaimsVerifier]:
    def build(policies: list[str], audience: str, domain: str = "https://login.contoso.com", **options: Any) -> Any:
        return ra.ClaimsVerifier.for_b2c(
            "contoso",
            policies,
            audience,
            tenant_id=TENANT,
            authority=domain,
            **{"pinned_keys": {"keys": [signer.jwk]}, "settings": settings(), "proxies": {"https": NOWHERE}} | options,
        )

    return build


def of_b2c(domain: str = "https://login.contoso.com", **changes: Any) -> dict[str, Any]:
    return {"iss": f"{domain}/{TENANT}/v2.0/", "tid": None, "tfp": "b2c_1_signin", "aud": "shop-api"} | changes


def test_entra_and_b2c(offline: Any, b2c: Any, signer: Signer, claims: Claims) -> None:
    """Each token is its own provider's, with that one's audience and no other one's."""
    with ra.AnyOf(offline(), b2c(["b2c_1_signin"], "shop-api")) as both:
        for _ in range(2):
            assert both.verify(signer.token(claims())).policy is None
            assert both.verify(signer.token(claims(**of_b2c())), scopes="Orders.Read").policy == "b2c_1_signin"
        assert code_of(both, signer.token(claims(aud="shop-api"))) == "audience"
        assert code_of(both, signer.token(claims(**of_b2c(aud=AUDIENCE)))) == "audience"
        assert code_of(both, signer.token(claims(iss="https://evil.example"))) == "issuer"
        assert code_of(both, signer.token(claims(iss=None))) == "issuer"
        assert code_of(both, signer.token(claims(iss=["x"]))) == "issuer"
        assert code_of(both, "nonsense") == "malformed"
        assert code_of(both, None) == "missing"  # type: ignore[arg-type]


def test_two_domains_and_two_audiences_of_one_issuer(b2c: Any, signer: Signer, claims: Claims) -> None:
    """Where several trust an issuer, the one whose rules a token keeps verifies it."""
    other = "https://login.fabrikam.com"
    with ra.AnyOf(
        b2c(["b2c_1_signin"], "shop-api"),
        b2c(["b2c_1_signin"], "shop-api", other),
        b2c(["b2c_1_admin"], "admin-api", clients=["console"]),
    ) as three:
        assert not code_of(three, signer.token(claims(**of_b2c())))
        assert not code_of(three, signer.token(claims(**of_b2c(other))))
        admin = of_b2c(tfp="b2c_1_admin", aud="admin-api")
        assert not code_of(three, signer.token(claims(**admin, azp="console")))
        # No mix of two.
        assert code_of(three, signer.token(claims(**of_b2c(aud="admin-api")))) in ("audience", "policy")
        assert code_of(three, signer.token(claims(**of_b2c(other) | {"tfp": "b2c_1_admin"}))) == "policy"
        # What the one whose it is says about it is told.
        assert code_of(three, signer.token(claims(**admin))) == "client"


def test_no_key_of_another_issuer_is_asked_for(signer: Signer, settings: Any, clock: Any) -> None:
    """Nor is a token tried with another verifier's keys when its own fail."""
    mine, theirs = Site(), Site()
    try:
        mine.provide({"keys": []})
        theirs.provide({"keys": [signer.jwk]})
        made = [
            ra.ClaimsVerifier(issuer=site.url, audience=AUDIENCE, verify=site.trust, settings=settings())
            for site in (mine, theirs)
        ]
        now = int(clock.wall())
        said = {"iss": mine.url, "aud": AUDIENCE, "sub": "ann", "scope": "x", "iat": now, "exp": now + 60}
        with ra.AnyOf(*made) as both:
            assert code_of(both, signer.token(said)) == "verification_unavailable"
            assert (bool(mine.asked), theirs.asked) == (True, [])
            assert code_of(both, signer.token(said | {"iss": "https://evil.example"})) == "issuer"
            assert theirs.asked == []
            assert not code_of(both, signer.token(said | {"iss": theirs.url}))
    finally:
        mine.close()
        theirs.close()


def test_one_that_is_down_keeps_no_other_from_being_warmed(signer: Signer, settings: Any) -> None:
    """It is told at the end."""
    good = Site()
    try:
        good.provide({"keys": [signer.jwk]})
        options = {"audience": AUDIENCE, "verify": good.trust, "settings": settings()}
        with ra.AnyOf(
            ra.ClaimsVerifier(issuer=NOWHERE, **options), ra.ClaimsVerifier(issuer=good.url, **options)
        ) as both:
            with pytest.raises(ra.VerificationUnavailable, match="localhost:9 "):
                both.warm_up()
            assert "/keys" in good.asked
    finally:
        good.close()


def test_what_one_remembers_is_that_ones(offline: Any, signer: Signer, claims: Claims) -> None:
    """Its deny-list holds for its tokens, remembered or not."""
    deny = DenyList()
    both = ra.AnyOf(offline(audience="other"), offline(deny=deny))
    token = signer.token(claims())
    assert both.verify(token) is both.verify(token)
    deny.add(sids=["session-of-ann"])
    assert code_of(both, token) == "denied"


def test_a_bound_token_is_the_business_of_who_turned_it_on(offline: Any, signer: Signer, claims: Claims) -> None:
    """The others refuse it, and what came as a proof, as ever."""
    bound = offline(audience="bound", binding=BindingOptions(certificates=True))
    both = ra.AnyOf(offline(), bound)
    cnf = {"x5t#S256": "A" * 43}
    assert code_of(both, signer.token(claims(cnf=cnf))) == "sender_constrained"
    assert code_of(both, signer.token(claims(cnf=cnf, aud="bound"))) == "certificate"
    for aud in (AUDIENCE, "bound"):
        token = signer.token(claims(aud=aud))
        for _ in range(2):
            assert not code_of(both, token, presented=Presented())
            assert code_of(both, token, presented=Presented(dpop=True)) == "sender_constrained"


async def test_in_tasks(signer: Signer, claims: Claims, settings: Any) -> None:
    """The twin does the same, and closes what it was made of."""
    options: dict[str, Any] = {"pinned_keys": {"keys": [signer.jwk]}, "settings": settings(), "authority": NOWHERE}
    one = ra.aio.ClaimsVerifier.for_entra(TENANT, AUDIENCE, **options)
    two = ra.aio.ClaimsVerifier.for_entra(TENANT, "other", **options)
    async with ra.aio.AnyOf(one, two) as both:
        assert await both.verify(signer.token(claims(aud="other")), scopes="Orders.Read")
        header = f"Bearer {signer.token(claims())}"
        request = Arrived("GET", "", lambda name: [header])
        assert (await Guard(both, any_scopes="Orders.Read").admit_async(request)).scopes
        with pytest.raises(ra.InvalidToken, match="audience"):
            await both.verify(signer.token(claims(aud="third")))
    with pytest.raises(ra.ResilientAuthError, match="closed"):
        await two.verify(signer.token(claims(aud="other")))


def test_what_it_cant_be_made_of(offline: Any) -> None:
    """Is told by what it is."""
    one = offline()
    asynchronous = ra.aio.ClaimsVerifier.for_entra("contoso.com", AUDIENCE)
    for wrong in ((), ([one],), (one, None), (ra.AnyOf(one),), (asynchronous,), (one, offline(accepts="id"))):
        with pytest.raises(ra.ConfigurationError, match=r"^AnyOf "):
            ra.AnyOf(*wrong)
    with pytest.raises(ra.ConfigurationError, match=r"^AsyncAnyOf "):
        ra.aio.AnyOf(one)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(ra.AnyOf(one))
    assert AUDIENCE in repr(ra.AnyOf(one))
