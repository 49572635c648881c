"""Who acts, a user or an application: what the claims tell, and what the owner's function says where they don't."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from arriving import Signer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth.verify.http import Arrived, Guard

Claims = Callable[..., dict[str, Any]]

RUNS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
CLIENTS = ("azp", "appid", "client_id", "cid")
#: A user, the user's object id, two clients, and nothing at all.
WHO = st.sampled_from(["ann", "ann-oid", "shop", "till", "", None])
#: Any mix of what tells who acts; None leaves a claim out.
MIXES = st.fixed_dictionaries(
    {
        "sub": WHO | st.just("shop@clients"),
        "oid": WHO,
        **{name: st.sampled_from(["shop", "till", None]) for name in CLIENTS},
        "scp": st.sampled_from(["Orders.Read", "Orders.Read Orders.Write", "", None]),
        "roles": st.sampled_from([["Orders.Read.All"], [], None]),
        "idtyp": st.sampled_from(["app", "user", "device", None, None, None]),
        "gty": st.sampled_from(["client-credentials", "password", None, None]),
    }
)


def code_of(verifier: ra.ClaimsVerifier, token: str, **asked: Any) -> str:
    try:
        verifier.verify(token, **asked)
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        return error.code
    return ""


def is_told(mix: dict[str, Any]) -> bool:
    """Return whether some claim makes a token an application's, whatever else is in it."""
    clients = {mix[name] for name in CLIENTS} - {None}
    subject = mix["sub"]
    return bool(
        not (subject or mix["oid"])
        or subject in clients
        or (subject or "").removesuffix("@clients") in clients
        or mix["idtyp"] in ("app", "device")
        or (mix["idtyp"] is None and mix["gty"] == "client-credentials")
    )


@pytest.fixture
def asked() -> list[Any]:
    """The claims about which an owner's function was asked."""
    return []


@pytest.fixture
def three(offline: Any, asked: list[Any]) -> tuple[ra.ClaimsVerifier, ...]:
    """A verifier without an owner's function, one whose function says yes to everything, and one whose says no."""

    def always(raw: Any) -> bool:
        asked.append(raw)
        return True

    return offline(), offline(is_application=always), offline(is_application=lambda raw: False)


@RUNS
@given(mix=MIXES)
@example(
    mix=dict.fromkeys(("sub", "oid", "azp", "appid", "client_id", "roles", "idtyp", "gty"))
    | {"cid": "shop", "scp": "x"}
)
@example(
    mix=dict.fromkeys(("oid", "azp", "appid", "roles", "idtyp", "gty", "cid"))
    | {"sub": "shop", "client_id": "shop", "scp": "x"}
)
def test_no_application_passes_for_a_user(
    three: tuple[ra.ClaimsVerifier, ...], asked: list[Any], signer: Signer, claims: Claims, mix: dict[str, Any]
) -> None:
    """Whatever mix of claims comes: a token is one of the two, each time, and an application's where a claim tells."""
    token = signer.token(claims(**mix))
    asked.clear()
    for verifier in three:
        for _ in range(2):
            codes = (code_of(verifier, token, app_only=True), code_of(verifier, token, app_only=False))
            assert codes in (("", "user_only"), ("app_only", ""), ("malformed", "malformed"))
            if is_told(mix):
                assert codes != ("app_only", "")
    if is_told(mix) or mix["idtyp"] == "user":
        assert not asked
    if asked:
        assert code_of(three[1], token, app_only=False) == "user_only"


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": None, "oid": None},
        {"sub": "", "oid": None},
        {"sub": "shop", "oid": None},
        {"sub": "shop"},
        {"azp": None, "client_id": "shop", "sub": "shop", "oid": None},
        {"azp": None, "appid": "shop", "sub": "shop", "oid": None},
        {"azp": None, "cid": "shop", "sub": "shop", "oid": None},
        {"azp": "till", "client_id": "shop", "sub": "shop", "oid": None},
        {"idtyp": "app"},
        {"idtyp": "user", "sub": "shop"},
        {"sub": "shop@clients", "oid": None},
    ],
    ids=str,
)
def test_an_application_with_scopes(offline: Any, signer: Signer, claims: Claims, changes: dict[str, Any]) -> None:
    """Is one for every face: a route for users refuses it with 403, one for applications lets it in."""
    verifier, token = offline(), signer.token(claims(**changes))
    assert verifier.verify(token).scopes
    assert verifier.verify(token).app_only
    assert code_of(verifier, token, app_only=False, scopes=["Orders.Read"]) == "user_only"
    request = Arrived("GET", "", lambda name: [f"Bearer {token}"])
    assert Guard(verifier, app_only=True).admit(request).app_only
    with pytest.raises(ra.InvalidToken) as caught:
        Guard(verifier, app_only=False).admit(request)
    assert caught.value.status == 403


def test_oktas_client_is_known(offline: Any, signer: Signer, claims: Claims) -> None:
    """By `cid`: it is told, and chosen by."""
    token = signer.token(claims(azp=None, cid="shop"))
    assert offline(clients=["shop"]).verify(token).client_id == "shop"
    assert code_of(offline(clients=["till"]), token) == "client"


class TestTheOwnersFunction:
    def test_it_decides_where_no_claim_tells(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Keycloak's service accounts, for example: asked once a token, and the same answer each time."""
        asked: list[Any] = []

        def is_service_account(raw: Any) -> bool:
            asked.append(raw)
            return raw["preferred_username"].startswith("service-account-")

        verifier = offline(is_application=is_service_account)
        service = signer.token(claims(sub="d1b1a5c2", oid=None, preferred_username="service-account-shop"))
        user = signer.token(claims(oid=None))
        for _ in range(2):
            assert code_of(verifier, service, app_only=False) == "user_only"
            assert verifier.verify(service, app_only=True).app_only
            assert not verifier.verify(user, app_only=False).app_only
        assert len(asked) == 2
        with pytest.raises(TypeError):
            asked[0]["sub"] = "another"

    @pytest.mark.parametrize("answer", [ValueError("secret"), None, 1, "yes"], ids=repr)
    def test_one_that_cant_tell(self, offline: Any, signer: Signer, claims: Claims, answer: Any) -> None:
        """Lets nobody in, says so without what it said, and signs nobody out: 503."""

        def answers(raw: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        verifier, token = offline(is_application=answers), signer.token(claims())
        for asked in ({}, {"app_only": False}, {"app_only": True}):
            with pytest.raises(ra.VerificationUnavailable, match=r"is_application (failed|returned)") as caught:
                verifier.verify(token, **asked)
            assert "secret" not in str(caught.value)
            assert caught.value.__cause__ is None

    def test_it_may_ask_the_verifier_itself(self, offline: Any, signer: Signer, claims: Claims, together: Any) -> None:
        """No lock is held while it runs: not even another thread's verification waits."""
        inner = signer.token(claims(uti="inner"))
        verifiers: list[Any] = []
        entered, leave = threading.Event(), threading.Event()

        def answers(raw: Any) -> bool:
            if raw["uti"] == "outer":
                assert not verifiers[0].verify(inner).app_only
                entered.set()
                leave.wait(5.0)
            return False

        verifiers.append(offline(is_application=answers))
        slow = threading.Thread(target=lambda: verifiers[0].verify(signer.token(claims(uti="outer"))))
        slow.start()
        assert entered.wait(5.0)
        assert not verifiers[0].verify(signer.token(claims(uti="beside"))).app_only
        leave.set()
        slow.join()

    async def test_asyncios_verifier_asks_it_too(self, signer: Signer, claims: Claims, settings: Any) -> None:
        """With the same results and errors."""
        from arriving import AUDIENCE, NOWHERE, TENANT

        async with ra.aio.ClaimsVerifier.for_entra(
            TENANT,
            AUDIENCE,
            authority=NOWHERE,
            pinned_keys={"keys": [signer.jwk]},
            settings=settings(),
            is_application=lambda raw: raw["sub"] == "robot",
        ) as verifier:
            assert (await verifier.verify(signer.token(claims(sub="robot")), app_only=True)).app_only
            with pytest.raises(ra.InvalidToken, match="users"):
                await verifier.verify(signer.token(claims(sub="robot")), app_only=False)

    def test_wrong_ones_are_told_at_construction(self, offline: Any) -> None:
        """A coroutine function's answer would be true always."""

        async def answers(raw: Any) -> bool:
            return False

        for wrong in (True, "idtyp", answers):
            with pytest.raises(ra.ConfigurationError, match="is_application"):
                offline(is_application=wrong)
        with pytest.raises(ra.ConfigurationError, match="is_application"):
            offline(is_application=bool, accepts="id")


def test_a_guard_takes_no_other_app_only(offline: Any) -> None:
    """1 equals True and would refuse everybody."""
    for wrong in (1, 0, "users"):
        with pytest.raises(ra.ConfigurationError, match="app_only"):
            Guard(offline(), app_only=wrong)  # type: ignore[arg-type]
