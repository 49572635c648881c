"""What callers are told: two errors that are never confused, and the headers that go with them."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from arriving import TENANT, Signer

import resilient_auth
import resilient_auth as ra
from resilient_auth.downstream.challenge import parse_challenges, read
from resilient_auth.verify import claims_challenge
from resilient_auth.verify.errors import CODES

Claims = Callable[..., dict[str, Any]]


def made(**changes: Any) -> ra.Claims:
    """Make claims of a client that declared `cp1`."""
    texts = {"subject": "s", "issuer": "i", "audience": ("a",), "scopes": frozenset(), "roles": frozenset()}
    nothing = dict.fromkeys(
        ("object_id", "tenant_id", "client_id", "issued_at", "not_before", "token_id", "session_id", "policy", "nonce",
         "username", "name")
    )  # fmt: skip
    rest = {"app_only": False, "expires_at": 1, "raw": {"xms_cc": "cp1"}, "provenance": None}
    return ra.Claims(**texts | nothing | rest | changes)


def challenge_of(header: str) -> dict[str, str]:
    (challenge,) = parse_challenges(header)
    assert challenge.scheme == "Bearer"
    return challenge.parameters


def test_the_two_are_never_confused() -> None:
    """No `except` for the one catches the other; both are ours, and only the second one is the provider's doing."""
    assert not issubclass(ra.InvalidToken, ra.ProviderUnavailable)
    assert not issubclass(ra.VerificationUnavailable, ra.InvalidToken)
    assert issubclass(ra.VerificationUnavailable, requests.RequestException)
    assert issubclass(ra.InvalidToken, ra.ResilientAuthError)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("expired", 401, "invalid_token"),
        ("signature", 401, "invalid_token"),
        ("audience", 401, "invalid_token"),
        ("insufficient_scope", 403, "insufficient_scope"),
        ("insufficient_role", 403, "insufficient_scope"),
        ("app_only", 403, "insufficient_scope"),
        ("user_only", 403, "insufficient_scope"),
        ("unknown_user", 403, "insufficient_scope"),
        ("cross_site", 403, "insufficient_scope"),
    ],
)
def test_the_status_and_the_header(code: str, status: int, error: str) -> None:
    """RFC 6750, section 3.1."""
    told = ra.InvalidToken(code, "what is wrong", scope=("b", "a"))
    assert told.status == status
    parameters = challenge_of(told.www_authenticate("orders"))
    assert parameters["realm"] == "orders"
    assert parameters["error"] == error
    assert parameters["error_description"] == "what is wrong"
    assert parameters.get("scope") == ("b a" if code == "insufficient_scope" else None)
    assert "realm" not in challenge_of(told.www_authenticate())


def test_codes_are_stable() -> None:
    """Dashboards and alerts are built on them; each is used, and none is used that isn't listed."""
    package = Path(resilient_auth.__file__).parent
    files = [file for room in ("verify", "integrations") for file in (package / room).rglob("*.py")]
    used = {code for file in files for code in re.findall(r'InvalidToken\(\s*"(\w+)"', file.read_text())}
    assert used == CODES


def test_who_sent_no_token_is_told_no_error() -> None:
    """RFC 6750, section 3.1, last paragraph."""
    missing = ra.InvalidToken("missing", "there is no token")
    assert missing.www_authenticate() == "Bearer"
    assert missing.www_authenticate("orders") == 'Bearer realm="orders"'


@pytest.mark.parametrize("realm", ['a"b', "a\\b", "a\r\nSet-Cookie: x=1", "ü", "\x00"])
def test_a_header_cant_be_broken_out_of(realm: str) -> None:
    """Whatever the realm is."""
    header = ra.InvalidToken("expired", realm).www_authenticate(realm)
    assert header.isascii()
    assert header.isprintable()
    assert set(challenge_of(header)) == {"realm", "error", "error_description"}


def test_what_cant_be_verified_now_says_when_to_come_back() -> None:
    """In whole seconds, rounded up, one at least."""
    for given, told in ((None, "5"), (0.0, "5"), (0.2, "1"), (12.1, "13"), (300.0, "300")):
        error = ra.VerificationUnavailable("no keys", retry_after=given)
        assert error.headers == {"Retry-After": told}
        assert error.status == 503


@pytest.mark.parametrize(
    "error",
    [
        ra.InvalidToken("expired", "over", scope=("a",)),
        ra.VerificationUnavailable("no keys", authority="x", retry_after=7.0),
    ],
)
def test_they_survive_pickle_and_copy(error: Exception) -> None:
    """A task queue may carry them to another process."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert {name: getattr(other, name) for name in vars(error)} == vars(error)
        assert (str(other), repr(other)) == (str(error), repr(error))


class TestClaimsChallenge:
    WANTED = {"access_token": {"acrs": {"essential": True, "value": "c1"}}}  # noqa: RUF012

    def verified(self, offline: Any, signer: Signer, claims: Claims, **changes: Any) -> ra.Claims:
        found: ra.Claims = offline().verify(signer.token(claims(**changes)))
        return found

    @pytest.mark.parametrize("capabilities", [["cp1"], "cp1", ["a", "cp1"], ["CP1"], "Cp1 x"])
    @pytest.mark.parametrize("required", [WANTED, json.dumps(WANTED), "c1"])
    def test_a_client_that_declared_cp1_is_challenged(
        self, offline: Any, signer: Signer, claims: Claims, capabilities: Any, required: Any
    ) -> None:
        """And our own client side reads it (G17)."""
        found = self.verified(offline, signer, claims, xms_cc=capabilities)
        status, header = claims_challenge(found, required, realm="orders", authorization_uri="https://login.example/a")
        assert status == 401
        assert challenge_of(header)["authorization_uri"] == "https://login.example/a"
        asked = read([header])
        assert isinstance(asked, str)
        assert json.loads(asked) == self.WANTED

    @pytest.mark.parametrize("capabilities", [None, [], ["cp2"], "", "cp11", 1, {"cp1": 1}, [1, ["cp1"]]])
    def test_another_one_is_refused(self, offline: Any, signer: Signer, claims: Claims, capabilities: Any) -> None:
        """It would send the same token again for ever."""
        found = self.verified(offline, signer, claims, xms_cc=capabilities)
        status, header = claims_challenge(found, self.WANTED)
        assert status == 403
        assert challenge_of(header)["error"] == "insufficient_scope"
        assert "claims" not in challenge_of(header)

    @pytest.mark.parametrize(
        ("issuer", "tenant", "place"),
        [
            (f"https://login.microsoftonline.com/{TENANT}/v2.0", TENANT, "https://login.microsoftonline.com"),
            (f"https://sts.windows.net/{TENANT}/", TENANT, "https://login.microsoftonline.com"),
            (f"https://sts.chinacloudapi.cn/{TENANT}/", TENANT, "https://login.partner.microsoftonline.cn"),
            (f"https://login.microsoftonline.us/{TENANT}/v2.0", TENANT, "https://login.microsoftonline.us"),
            (f"https://{TENANT}.ciamlogin.com/{TENANT}/v2.0", TENANT, f"https://{TENANT}.ciamlogin.com"),
            (f"https://login.contoso.com/{TENANT}/v2.0/", TENANT, None),
            ("https://id.example/realms/shop", None, None),
            ("https://id.example", "no-guid", None),
            (f"https://sts.windows.net/{TENANT}/", None, None),
        ],
    )
    def test_the_place_to_go_is_told(self, issuer: str, tenant: str | None, place: str | None) -> None:
        """The tenant's own, where that is known; the owner's word counts more."""
        found = made(issuer=issuer, tenant_id=tenant)
        parameters = challenge_of(claims_challenge(found, "c1")[1])
        wanted = None if place is None else f"{place}/{TENANT}/oauth2/v2.0/authorize"
        assert parameters.get("authorization_uri") == wanted
        given = challenge_of(claims_challenge(found, "c1", authorization_uri="https://x.example")[1])
        assert given["authorization_uri"] == "https://x.example"

    @pytest.mark.parametrize("required", [{}, "", "{}", "[]", "{", None, 1])
    def test_asking_for_nothing_is_a_mistake(self, offline: Any, signer: Signer, claims: Claims, required: Any) -> None:
        """Which is told at once, whoever the client is."""
        with pytest.raises(ra.ConfigurationError, match="required"):
            claims_challenge(self.verified(offline, signer, claims), required)


class TestClaims:
    def test_nothing_can_be_changed(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Neither a field, nor anything within `raw`."""
        found = offline().verify(signer.token(claims(groups=["a", {"b": [1]}], act={"sub": "x"})))
        with pytest.raises(AttributeError):
            found.subject = "root"
        with pytest.raises(TypeError):
            found.raw["sub"] = "root"
        with pytest.raises(TypeError):
            found.raw["act"]["sub"] = "root"
        assert found.raw["groups"] == ("a", {"b": (1,)})
        with pytest.raises(AttributeError):
            found.provenance.grace = True
        with pytest.raises(AttributeError):
            found.scopes.add("x")

    def test_every_field(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """From the claims of Entra's tokens."""
        found = offline().verify(signer.token(claims(roles=["Reader"], upn="x")))
        assert (found.subject, found.object_id, found.client_id) == ("pairwise-of-ann", "6f6e2c3a-ann", "shop")
        assert (found.username, found.name, found.session_id) == ("ann@contoso.com", "Ann", "session-of-ann")
        assert (found.token_id, found.roles, found.policy) == ("token-of-ann", {"Reader"}, None)
        assert found.issued_at == found.not_before == found.expires_at - 3600

    def test_a_log_line_doesnt_tell_who_it_is(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """People's names, ids and sessions stay out of `repr`."""
        shown = repr(offline().verify(signer.token(claims())))
        for told in ("pairwise", "6f6e2c3a", "session", "Ann", "@contoso"):
            assert told not in shown.replace("session_id", "")
        assert "scopes" in shown

    def test_they_survive_pickle_and_copy(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """And are as unchangeable as before."""
        found = offline().verify(signer.token(claims(groups=["a", {"b": [1]}])))
        for other in (pickle.loads(pickle.dumps(found)), copy.copy(found), copy.deepcopy(found)):
            assert other == found
            assert other.raw == found.raw
            with pytest.raises(TypeError):
                other.raw["sub"] = "root"

    def test_a_verifier_cant_be_pickled(self, offline: Any) -> None:
        """Each process has its own; and its text tells whose tokens it takes."""
        verifier = offline()
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(verifier)
        assert "api://orders" in repr(verifier)
