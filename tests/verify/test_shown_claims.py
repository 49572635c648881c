"""What is only shown refuses nothing; what decides is strict, and is asked for in every way that routes need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from arriving import Signer

import resilient_auth as ra
from resilient_auth.verify import DenyList
from resilient_auth.verify.http import Arrived, Guard

Claims = Callable[..., dict[str, Any]]
ODD = [1, 1.5, True, False, [], ["x"], ["x", 1], {}, {"x": 1}]


def code_of(verifier: ra.ClaimsVerifier, token: str, **asked: Any) -> str:
    try:
        verifier.verify(token, **asked)
    except ra.InvalidToken as error:
        return error.code
    return ""


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize(
    "name", ["name", "preferred_username", "upn", "email", "sid", "uti", "jti", "nonce", "acr", "tfp"]
)
def test_what_is_only_shown(offline: Any, signer: Signer, claims: Claims, name: str, value: Any) -> None:
    """Is None where it isn't a text, with the rest as it is, and in `raw` as it came."""
    only = dict.fromkeys(("preferred_username", "name", "sid", "uti")) | {name: value}
    found = offline().verify(signer.token(claims(**only)))
    shown = (found.name, found.username, found.session_id, found.token_id, found.nonce, found.policy)
    assert shown == (None,) * 6
    assert found.raw[name] == (tuple(value) if isinstance(value, list) else value)


def test_the_first_text_is_shown(offline: Any, signer: Signer, claims: Claims) -> None:
    """Of several claims that would do."""
    found = offline().verify(signer.token(claims(preferred_username=["a"], upn="b", email="c", uti=1, jti="2")))
    assert (found.username, found.token_id) == ("b", "2")


def test_a_nonce_that_is_none(offline: Any, signer: Signer, claims: Claims) -> None:
    """Answers to no sign-in."""
    token = signer.token(claims(nonce=1, scp=None, azp=None, azpacr=None))
    site = offline(accepts="id")
    assert site.verify(token).nonce is None
    for nonce in ("1", ""):
        assert code_of(site, token, nonce=nonce) == "nonce"


class TestRoles:
    @pytest.mark.parametrize("roles", [{"admin": True}, [{"name": "Reader"}], ["Reader", {"x": 1}], 7, True], ids=str)
    def test_what_are_none(self, offline: Any, signer: Signer, claims: Claims, roles: Any) -> None:
        """Refuse nobody who isn't asked for one, and open no door."""
        verifier, token = offline(), signer.token(claims(roles=roles))
        for _ in range(2):
            assert verifier.verify(token).roles == frozenset()
            assert code_of(verifier, token, roles="Reader") == "insufficient_role"
            assert code_of(verifier, token, any_roles=["Reader"]) == "insufficient_role"

    @pytest.mark.parametrize(
        ("way", "roles"),
        [
            ("roles", {"top"}),
            ("realm_access.roles", {"realm"}),
            (["realm_access", "roles"], {"realm"}),
            (("resource_access", "a.b", "roles"), {"client"}),
            ("cognito:groups", {"group"}),
            ("https://x.example/roles", {"address"}),
            ("one", {"alone"}),
            ("nothing", set()),
            ("nothing.at.all", set()),
            ("roles.x", set()),
            ("realm_access", set()),
            ("realm_access.roles.x", set()),
        ],
        ids=str,
    )
    def test_where_they_are(self, offline: Any, signer: Signer, claims: Claims, way: Any, roles: set[str]) -> None:
        """Is the owner's to say; nowhere else is looked."""
        given = {
            "roles": ["top"],
            "realm_access": {"roles": ["realm"]},
            "resource_access": {"a.b": {"roles": ["client"]}},
            "cognito:groups": ["group"],
            "https://x.example/roles": ["address"],
            "one": "alone",
        }
        assert offline(roles_claim=way).verify(signer.token(claims(**given))).roles == roles

    @pytest.mark.parametrize(
        "way", ["", " ", ".", "a..b", "a.", [], [1], [""], None, 1, b"roles", {"roles": 1}], ids=str
    )
    def test_a_way_that_leads_nowhere(self, offline: Any, way: Any) -> None:
        """Is told at construction."""
        with pytest.raises(ra.ConfigurationError, match="roles_claim"):
            offline(roles_claim=way)


class TestTheDenyList:
    @pytest.mark.parametrize(("claim", "listed"), [("sid", "sids"), ("jti", "token_ids"), ("uti", "token_ids")])
    def test_numbered_sessions_and_tokens(
        self, offline: Any, signer: Signer, claims: Claims, claim: str, listed: str
    ) -> None:
        """Are denied by their number; what can't be compared is refused where there is something to compare it with."""
        deny = DenyList()
        verifier = offline(deny=deny)
        tokens = [signer.token(claims(**{claim: value})) for value in (17, 18, 17.0, True, ["17"], {"a": 17})]
        assert [code_of(verifier, token) for token in tokens] == [""] * 6
        deny.add(**{listed: ["17"]})
        assert [code_of(verifier, token) for token in tokens] == ["denied", "", *["malformed"] * 4]
        deny.remove(**{listed: ["17"]})
        assert [code_of(verifier, token) for token in tokens] == [""] * 6


class TestTimesWithFractions:
    def test_they_are_times(self, offline: Any, signer: Signer, claims: Claims, clock: Any) -> None:
        """RFC 7519, section 2; and count to the fraction."""
        now = clock.wall()
        verifier = offline(leeway=0.0)
        token = signer.token(claims(iat=int(now) - 0.5, nbf=int(now) - 1.0, exp=now + 10.5))
        found = verifier.verify(token)
        assert (found.issued_at, found.not_before, found.expires_at) == (int(now) - 0.5, int(now) - 1.0, now + 10.5)
        clock.skip(10.25)
        assert not code_of(verifier, token)
        clock.skip(0.5)
        assert code_of(verifier, token) == "expired"


class TestWhatARouteAsks:
    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            ({"any_scopes": ["Orders.Delete", "Orders.Read"]}, ""),
            ({"any_scopes": "Orders.Read"}, ""),
            ({"any_scopes": "Orders.Delete Orders.Read"}, ""),
            ({"any_scopes": ["Orders.Delete"]}, "insufficient_scope"),
            ({"any_roles": ["Writer", "Order Reader"]}, ""),
            ({"any_roles": "Order Reader"}, ""),
            ({"any_roles": ["Writer"]}, "insufficient_role"),
            ({"any_scopes": ["Orders.Delete"], "any_roles": ["Order Reader"]}, ""),
            ({"any_scopes": ["Orders.Read"], "any_roles": ["Writer"]}, ""),
            ({"any_scopes": ["Orders.Delete"], "any_roles": ["Writer"]}, "insufficient_scope"),
            ({"scopes": ["Orders.Write"], "any_roles": ["Order Reader"]}, ""),
            ({"scopes": ["Orders.Delete"], "any_roles": ["Order Reader"]}, "insufficient_scope"),
            ({"roles": ["Order Reader"], "any_scopes": ["Orders.Delete"]}, "insufficient_scope"),
            ({"any_scopes": [], "any_roles": []}, ""),
            ({"scopes": None, "roles": None, "any_scopes": None, "any_roles": None}, ""),
            ({"scopes": "Orders.Read"}, ""),
            ({"roles": "Order Reader"}, ""),
            ({"scopes": frozenset({"Orders.Read"}), "roles": {"Order Reader": 1}.keys()}, ""),
        ],
        ids=str,
    )
    async def test_all_of_these_and_any_of_those(
        self, offline: Any, signer: Signer, claims: Claims, settings: Any, asked: dict[str, Any], code: str
    ) -> None:
        """A scope or a role, beside all that must be there; new and remembered, threads and tasks alike."""
        verifier, token = offline(), signer.token(claims(roles=["Order Reader"]))
        assert [code_of(verifier, token, **asked) for _ in range(2)] == [code, code]
        several = ra.AnyOf(verifier)
        assert [code_of(several, token, **asked) for _ in range(2)] == [code, code]  # type: ignore[arg-type]

    def test_the_challenge_names_the_scopes(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Of which one will do."""
        with pytest.raises(ra.InvalidToken) as caught:
            offline().verify(signer.token(claims()), any_scopes=["b", "a"], any_roles=["Writer"])
        assert (caught.value.status, caught.value.scope) == (403, ("a", "b"))

    @pytest.mark.parametrize("name", ["scopes", "roles", "any_scopes", "any_roles"])
    @pytest.mark.parametrize("wrong", ["", " ", [""], ["a", ""], [1], 1, True, [["a"]], b"a", [None]], ids=repr)
    def test_what_cant_be_asked_for(self, offline: Any, signer: Signer, claims: Claims, name: str, wrong: Any) -> None:
        """Asks for nothing by mistake: that is told by name, for new tokens and remembered ones."""
        verifier, token = offline(), signer.token(claims())
        for _ in range(2):
            with pytest.raises(ra.ConfigurationError, match=f"^{name} must be"):
                verifier.verify(token, **{name: wrong})

    def test_a_guard_asks_so_too(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """For every framework."""
        header = f"Bearer {signer.token(claims(roles=['Reader']))}"
        token = Arrived("GET", "", lambda name: [header])
        assert Guard(offline(), any_scopes="x", any_roles="Reader").admit(token)
        with pytest.raises(ra.InvalidToken):
            Guard(offline(), any_scopes=["x"], any_roles=["Writer"]).admit(token)
        with pytest.raises(ra.ConfigurationError, match="any_roles"):
            Guard(offline(), any_roles=[""])
