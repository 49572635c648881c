"""Which tokens are accepted: issuers, tenants, audiences, clients, kinds, times, scopes (G16)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from arriving import AUDIENCE, NOWHERE, TENANT, Signer

import resilient_auth as ra
from resilient_auth.testing import ManualClock
from resilient_auth.verify import DenyList, GraceOptions, SeenOptions

Claims = Callable[..., dict[str, Any]]
Refused = Callable[..., str]
OTHER = "11111111-2222-3333-4444-555555555555"
PERSONAL = "9188040d-6c67-4c5b-b112-36a304b66dad"


def code_of(verifier: ra.ClaimsVerifier, token: str, **asked: Any) -> str:
    """Return the code with which a verifier refuses a token, "" where it accepts it."""
    try:
        verifier.verify(token, **asked)
    except ra.InvalidToken as error:
        return error.code
    return ""


class TestIssuers:
    @pytest.mark.parametrize(
        "issuer",
        [
            f"{NOWHERE}/{OTHER}/v2.0",
            f"{NOWHERE}/{TENANT}/v2.0/",
            f"{NOWHERE}/{TENANT.upper()}/v2.0",
            f"{NOWHERE}/{TENANT}",
            f"{NOWHERE}/{{tenantid}}/v2.0",
            f"{NOWHERE}/{TENANT}/v2.0\n",
            f"https://evil.example/{TENANT}/v2.0",
            f"https://evil.example/?{NOWHERE}/{TENANT}/v2.0",
            "https://login.microsoftonline.com",
            "",
            None,
            1,
            ["x"],
        ],
    )
    def test_an_issuer_is_matched_exactly(self, refused: Refused, signer: Signer, claims: Claims, issuer: Any) -> None:
        """No prefix, no other case, no other tenant, no placeholder."""
        assert refused(signer.token(claims(iss=issuer))) in ("issuer", "tenant", "malformed")

    def test_version_1_and_version_2(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """One tenant's tokens have two issuers, and either names its client in its own way."""
        first = claims(iss=f"{NOWHERE}/{TENANT}/", azp=None, azpacr=None, appid="shop", appidacr="1", ver="1.0")
        assert offline().verify(signer.token(first)).client_id == "shop"
        assert offline().verify(signer.token(claims())).client_id == "shop"

    def test_a_public_clouds_version_1_issuer(self, settings: Any, signer: Signer, claims: Claims) -> None:
        """`sts.windows.net`, and for each other cloud its own."""
        options = {"pinned_keys": {"keys": [signer.jwk]}, "settings": settings(), "proxies": {"https": NOWHERE}}
        with ra.ClaimsVerifier.for_entra(TENANT, AUDIENCE, **options) as verifier:
            assert not code_of(verifier, signer.token(claims(iss=f"https://sts.windows.net/{TENANT}/")))
            assert not code_of(verifier, signer.token(claims(iss=f"https://login.microsoftonline.com/{TENANT}/v2.0")))
            assert (
                code_of(verifier, signer.token(claims(iss=f"https://sts.windows.net/{OTHER}/", tid=OTHER))) == "tenant"
            )

    @pytest.mark.parametrize("authority", ["https://Login.Contoso.COM", "https://login.contoso.com:443/"])
    def test_an_authority_in_another_spelling(
        self, settings: Any, signer: Signer, claims: Claims, authority: str
    ) -> None:
        """Is the same one: its tokens have the usual one."""
        options: dict[str, Any] = {"pinned_keys": {"keys": [signer.jwk]}, "settings": settings()}
        options |= {"authority": authority, "proxies": {"https": NOWHERE}}
        own = {"tenant_id": TENANT}
        for verifier, issuer in (
            (ra.ClaimsVerifier.for_entra(TENANT, AUDIENCE, **options), f"{TENANT}/v2.0"),
            (ra.ClaimsVerifier.for_external_id("contoso", AUDIENCE, **own, **options), f"{TENANT}/v2.0"),
            (ra.ClaimsVerifier.for_b2c("contoso", ["b2c_1_in"], AUDIENCE, **own, **options), f"{TENANT}/v2.0/"),
        ):
            with verifier:
                token = signer.token(claims(iss=f"https://login.contoso.com/{issuer}", tfp="b2c_1_in"))
                assert not code_of(verifier, token)

    def test_all_tenants(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """For `common` any tenant may stand in the issuer, if it is the token's `tid` too."""
        verifier = offline(tenant="common")
        assert not code_of(verifier, signer.token(claims(iss=f"{NOWHERE}/{OTHER}/v2.0", tid=OTHER)))
        assert code_of(verifier, signer.token(claims(iss=f"{NOWHERE}/{OTHER}/v2.0"))) == "tenant"
        assert code_of(verifier, signer.token(claims(tid=None))) == "tenant"
        assert code_of(verifier, signer.token(claims(iss=f"{NOWHERE}/common/v2.0", tid="common"))) == "issuer"

    def test_work_accounts_alone(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """`organizations` has no personal accounts; `consumers` has nothing else."""
        personal = signer.token(claims(iss=f"{NOWHERE}/{PERSONAL}/v2.0", tid=PERSONAL))
        assert code_of(offline(tenant="organizations"), personal) == "tenant"
        assert not code_of(offline(tenant="consumers"), personal)
        assert not code_of(offline(tenant="common"), personal)
        assert code_of(offline(tenant="consumers"), signer.token(claims())) == "tenant"

    def test_a_list_of_tenants(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Customers' tenants, by GUID in any case."""
        verifier = offline(tenant="common", tenants=[OTHER.upper()])
        assert not code_of(verifier, signer.token(claims(iss=f"{NOWHERE}/{OTHER}/v2.0", tid=OTHER)))
        assert code_of(verifier, signer.token(claims())) == "tenant"

    def test_a_list_of_tenants_of_an_issuer_without_one(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Goes by `tid` alone."""
        issuer = "https://localhost:9/a"
        verifier = offline(issuer=issuer, tenants=["acme"])
        assert not code_of(verifier, signer.token(claims(iss=issuer, tid="acme")))
        assert [code_of(verifier, signer.token(claims(iss=issuer, tid=tid))) for tid in ("other", None)] == [
            "tenant"
        ] * 2

    def test_several_issuers(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Each by its exact name."""
        verifier = offline(issuer=["https://localhost:9/a", "https://localhost:9/b"])
        for issuer in ("https://localhost:9/a", "https://localhost:9/b"):
            assert not code_of(verifier, signer.token(claims(iss=issuer)))
        assert code_of(verifier, signer.token(claims(iss="https://localhost:9/c"))) == "issuer"

    def test_an_issuer_whose_name_is_no_address(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """ADFS's access tokens have one that isn't https: a mere name, where the document has an address of its own."""
        names = ["https://localhost:9/adfs", "http://localhost/adfs/services/trust"]
        verifier = offline(issuer=names, discovery="https://localhost:9/adfs/.well-known/openid-configuration")
        assert not code_of(verifier, signer.token(claims(iss=names[1], azp=None, azpacr=None, appid="shop")))

    def test_a_key_of_another_tenant(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """A key whose entry in the set names its issuer signs for that one alone, though it sits in the same set."""
        for issuer, code in (
            (f"{NOWHERE}/{TENANT}/v2.0", ""),
            (f"{NOWHERE}/{{tenantid}}/v2.0", ""),
            (f"{NOWHERE}/{PERSONAL}/v2.0", "key_issuer"),
            ("https://evil.example", "key_issuer"),
        ):
            verifier = offline(tenant="common", pinned_keys={"keys": [signer.jwk | {"issuer": issuer}]})
            assert code_of(verifier, signer.token(claims())) == code
        # Version 1 tokens are signed with keys whose issuer is version 2's.
        verifier = offline(pinned_keys={"keys": [signer.jwk | {"issuer": f"{NOWHERE}/{{tenantid}}/v2.0"}]})
        assert not code_of(verifier, signer.token(claims(iss=f"{NOWHERE}/{TENANT}/")))

    def test_a_b2c_policy(self, settings: Any, signer: Signer, claims: Claims) -> None:
        """By `tfp`, or `acr` in older ones; one that isn't listed isn't accepted, though it has the same issuer."""
        options = {"pinned_keys": {"keys": [signer.jwk]}, "settings": settings(), "authority": NOWHERE}
        with ra.ClaimsVerifier.for_b2c(
            "contoso", ["B2C_1_signin", "b2c_1_edit"], AUDIENCE, tenant_id=TENANT, tenants=[TENANT], **options
        ) as verifier:
            issuer = f"{NOWHERE}/{TENANT}/v2.0/"
            found = verifier.verify(signer.token(claims(iss=issuer, tfp="B2C_1_SignIn", tid=None)))
            assert (found.policy, found.tenant_id) == ("b2c_1_signin", TENANT)
            assert not code_of(verifier, signer.token(claims(iss=issuer, acr="b2c_1_edit")))
            assert code_of(verifier, signer.token(claims(iss=issuer, tfp="b2c_1_weak"))) == "policy"
            assert code_of(verifier, signer.token(claims(iss=issuer, tfp="b2c_1_weak", acr="b2c_1_edit"))) == "policy"
            assert code_of(verifier, signer.token(claims(iss=issuer))) == "policy"
            assert code_of(verifier, signer.token(claims(iss=f"{NOWHERE}/{OTHER}/v2.0/", tfp="b2c_1_edit"))) == "tenant"
            # The older form of the issuer has the policy in it.
            older = f"{NOWHERE}/tfp/{TENANT}/b2c_1_signin/v2.0/"
            assert not code_of(verifier, signer.token(claims(iss=older, tfp="b2c_1_signin")))
            assert code_of(verifier, signer.token(claims(iss=older, tfp="b2c_1_edit"))) == "policy"

    def test_an_external_tenant(self, settings: Any, signer: Signer, claims: Claims) -> None:
        """Its issuer has the tenant in its host and in its path."""
        options = {"pinned_keys": {"keys": [signer.jwk]}, "settings": settings(), "authority": NOWHERE}
        with ra.ClaimsVerifier.for_external_id("contoso", AUDIENCE, tenant_id=TENANT, **options) as verifier:
            assert not code_of(verifier, signer.token(claims(iss=f"https://{TENANT}.ciamlogin.com/{TENANT}/v2.0")))
            mixed = f"https://{OTHER}.ciamlogin.com/{TENANT}/v2.0"
            assert code_of(verifier, signer.token(claims(iss=mixed))) == "issuer"


class TestAudiences:
    @pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
    def test_one_of_several_will_do(self, offline: Any, signer: Signer, claims: Claims, audience: Any) -> None:
        """RFC 7519, section 4.1.3."""
        assert not code_of(offline(), signer.token(claims(aud=audience)))

    @pytest.mark.parametrize(
        "audience", ["other", ["other"], "", f"{AUDIENCE}/", AUDIENCE.upper(), f"{AUDIENCE} other"]
    )
    def test_another_audience(self, refused: Refused, signer: Signer, claims: Claims, audience: Any) -> None:
        """Matched exactly."""
        assert refused(signer.token(claims(aud=audience))) == "audience"

    @pytest.mark.parametrize("audience", [None, 1, [], [1], {"a": 1}, [AUDIENCE, 1], True])
    def test_what_is_no_audience(self, refused: Refused, signer: Signer, claims: Claims, audience: Any) -> None:
        """Types aren't guessed."""
        assert refused(signer.token(claims(aud=audience))) == "malformed"

    @pytest.mark.parametrize(
        "audience",
        ["https://graph.microsoft.com", "https://graph.microsoft.com/", "00000003-0000-0000-c000-000000000000"],
    )
    def test_graphs_tokens_have_an_error_of_their_own(
        self, refused: Refused, signer: Signer, claims: Claims, audience: str
    ) -> None:
        """The most frequent mistake there is: the client asked for Graph's scopes and sends the token elsewhere."""
        assert refused(signer.token(claims(aud=audience))) == "graph_token"
        assert refused(signer.token(claims(), nonce="hashed-before-it-was-signed")) == "graph_token"

    def test_a_list_of_clients(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """By `azp`, or `appid` in version 1."""
        verifier = offline(clients=["shop"])
        assert not code_of(verifier, signer.token(claims()))
        assert not code_of(verifier, signer.token(claims(azp=None, appid="shop")))
        assert code_of(verifier, signer.token(claims(azp="other"))) == "client"
        assert code_of(verifier, signer.token(claims(azp=None))) == "client"
        assert code_of(verifier, signer.token(claims(azp=["shop"]))) == "malformed"


class TestKinds:
    ID: dict[str, Any] = {"scp": None, "azp": None, "azpacr": None, "nonce": "n-0S6", "aud": "shop"}  # noqa: RUF012

    def test_an_id_token_is_no_access_token(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Though it has the same issuer and, where the API is the client, the same audience."""
        api, site = offline(audience="shop"), offline(audience="shop", accepts="id")
        token = signer.token(claims(**self.ID))
        assert code_of(api, token) == "token_type"
        assert not code_of(site, token)
        assert code_of(site, signer.token(claims(aud="shop"))) == "token_type"
        assert code_of(site, signer.token(claims(**self.ID), typ="at+jwt")) == "type"
        assert code_of(api, signer.token(claims(aud="shop", at_hash="x"))) == "token_type"

    def test_a_header_says_what_no_claim_does(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """By its type (RFC 9068, section 2.1); null is none."""
        api, bare = offline(audience="shop"), self.ID | {"nonce": None}
        assert not code_of(api, signer.token(claims(**bare), typ="application/AT+JWT"))
        null = {"alg": "RS256", "typ": None, "kid": signer.kid}
        assert code_of(api, signer.sign(null, claims(**bare))) == "token_type"
        assert not code_of(offline(audience="shop", accepts="id"), signer.sign(null, claims(**bare)))

    def test_no_claim_of_access_tokens_names_the_client_of_an_id_token(
        self, offline: Any, signer: Signer, claims: Claims
    ) -> None:
        """`cid` is Okta's, in access tokens; what stands there in an ID token is the owner's own."""
        site = offline(audience="shop", accepts="id")
        assert site.verify(signer.token(claims(**self.ID, cid="a-customer"))).client_id is None

    def test_an_access_token_may_have_a_nonce(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """B2C puts the sign-in's into both tokens."""
        assert offline().verify(signer.token(claims(nonce="of-the-sign-in"))).nonce == "of-the-sign-in"

    def test_a_token_that_is_bound_to_a_key(self, refused: Any, signer: Signer, claims: Claims) -> None:
        """Is no bearer token: nobody has shown the key (RFC 9449, section 7)."""
        assert refused(signer.token(claims(cnf={"jkt": "thumbprint"}))) == "sender_constrained"

    def test_a_nonce(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """An ID token must be the answer to the sign-in that this browser began, cached or not."""
        site = offline(audience="shop", accepts="id")
        token = signer.token(claims(**self.ID))
        for _ in range(2):
            assert code_of(site, token, nonce="another") == "nonce"
            assert code_of(site, token, nonce="") == "nonce"
            assert site.verify(token, nonce="n-0S6").nonce == "n-0S6"
        without = signer.token(claims(**self.ID | {"nonce": None}))
        assert code_of(site, without, nonce="") == "nonce"
        assert not code_of(site, without)

    def test_an_id_token_for_several(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """It must be this client's (OpenID Connect Core, section 3.1.3.7)."""
        site = offline(audience="shop", accepts="id")
        assert code_of(site, signer.token(claims(**self.ID | {"aud": ["shop", "other"]}))) == "audience"
        assert code_of(site, signer.token(claims(**self.ID | {"aud": ["shop", "other"], "azp": "other"}))) == "audience"
        assert not code_of(site, signer.token(claims(**self.ID | {"aud": ["shop", "other"], "azp": "shop"})))

    @pytest.mark.parametrize(
        ("changes", "app_only"),
        [
            ({}, False),
            ({"idtyp": "user"}, False),
            ({"idtyp": "app", "scp": None, "roles": ["Orders.Read.All"]}, True),
            ({"idtyp": "device", "scp": None}, True),
            ({"scp": None, "sub": "6f6e2c3a-ann", "roles": ["x"]}, True),
            ({"scp": None, "sub": "shop", "oid": None}, True),
            ({"scp": None, "roles": ["x"]}, False),
        ],
    )
    def test_who_acts(
        self, offline: Any, signer: Signer, claims: Claims, changes: dict[str, Any], app_only: bool
    ) -> None:
        """A client for itself, or for a user."""
        verifier, token = offline(), signer.token(claims(**changes))
        for _ in range(2):
            assert verifier.verify(token).app_only is app_only
            assert verifier.verify(token, app_only=app_only)
            assert code_of(verifier, token, app_only=not app_only) == ("user_only" if app_only else "app_only")


class TestTimes:
    @pytest.mark.parametrize(
        "value",
        [
            "1795000000",
            "1_795_000_000",
            "١٧٩٥",
            1e308,
            1e12,
            -0.5,
            253402300799.5,
            True,
            False,
            [1],
            {},
            -1,
            2**63,
            253402300800,
        ],
    )
    @pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
    def test_a_time_is_a_number_within_reason(
        self, refused: Refused, signer: Signer, claims: Claims, name: str, value: Any
    ) -> None:
        """Texts and numbers for which there is no date aren't guessed at."""
        assert refused(signer.token(claims(**{name: value}))) == "malformed"

    @pytest.mark.parametrize("value", ["null", "1e12", "1e400", "0x10", "017", "1795000000.", "NaN", "Infinity"])
    def test_a_time_that_json_or_another_reader_would_take(
        self, refused: Refused, signer: Signer, claims: Claims, value: str
    ) -> None:
        """Written by hand."""
        import json

        text = json.dumps(claims() | {"exp": "HERE"}).replace('"HERE"', value)
        assert refused(signer.token(text)) == "malformed"

    def test_a_token_without_an_end(self, refused: Refused, signer: Signer, claims: Claims) -> None:
        """Would be one for ever."""
        assert refused(signer.token(claims(exp=None))) == "malformed"

    def test_leeway(self, offline: Any, signer: Signer, claims: Claims, clock: Any) -> None:
        """Clocks may differ by a minute, or what the owner says; the exact moment of expiry is over."""
        now = int(clock.wall())
        verifier, strict = offline(), offline(leeway=0.0)
        for name, offset, code, strict_code in (
            ("exp", 10, "", ""),
            ("exp", -50, "", "expired"),
            ("exp", -70, "expired", "expired"),
            ("nbf", 50, "", "not_yet_valid"),
            ("nbf", 70, "not_yet_valid", "not_yet_valid"),
            ("iat", 50, "", "not_yet_valid"),
            ("iat", 70, "not_yet_valid", "not_yet_valid"),
        ):
            token = signer.token(claims(**{name: now + offset}))
            assert (code_of(verifier, token), code_of(strict, token)) == (code, strict_code), (name, offset)

    def test_the_very_moments(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """It is good from its beginning on, and no more at its end; seen before or not."""
        now, clock = 1_800_000_000, ManualClock(1_800_000_000.0)
        token = signer.token(claims(iat=now, nbf=now + 2, exp=now + 4))
        before = offline(leeway=0.0, settings=ra.Settings(clock=clock))
        for code in ("not_yet_valid", "not_yet_valid", "", "", "expired"):
            after = offline(leeway=0.0, settings=ra.Settings(clock=clock))
            assert (code_of(before, token), code_of(after, token)) == (code, code)
            clock.advance(1.0)


class TestWhatACallAsks:
    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            ({"scopes": ["Orders.Read"]}, ""),
            ({"scopes": ("Orders.Read", "Orders.Write")}, ""),
            ({"scopes": {"Orders.Read", "Orders.Delete"}}, "insufficient_scope"),
            ({"scopes": "Orders.Read Orders.Write"}, ""),
            ({"scopes": "Orders"}, "insufficient_scope"),
            ({"scopes": ["orders.read"]}, "insufficient_scope"),
            ({"roles": ["Reader"]}, ""),
            ({"roles": "Reader"}, ""),
            ({"roles": ["Reader", "Writer"]}, "insufficient_role"),
            ({"scopes": ["Orders.Read"], "roles": ["Writer"]}, "insufficient_role"),
        ],
    )
    def test_scopes_and_roles(
        self, offline: Any, signer: Signer, claims: Claims, asked: dict[str, Any], code: str
    ) -> None:
        """All that is asked for must be there, on the first verification and on each one after."""
        verifier, token = offline(), signer.token(claims(roles=["Reader"]))
        assert [code_of(verifier, token, **asked) for _ in range(2)] == [code, code]

    @pytest.mark.parametrize("argument", ["scopes", "roles", "any_scopes", "any_roles"])
    @pytest.mark.parametrize("made", [iter, lambda names: map(str, names), lambda names: (n for n in names)])
    def test_what_is_read_once_asks_for_nothing_the_next_time(
        self, offline: Any, signer: Signer, claims: Claims, argument: str, made: Any
    ) -> None:
        """So it is refused at once: by the second call everybody would be let in."""
        verifier, good = offline(), signer.token(claims(roles=["Orders.Read"]))
        for token in (good, good, signer.token(claims(scp="Other"))):
            with pytest.raises(ra.ConfigurationError, match=argument):
                verifier.verify(token, **{argument: made(["Orders.Read"])})

    def test_names_in_another_collection(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Are as good as a list."""
        verifier, token = offline(), signer.token(claims(roles=["Reader"]))
        for names in (dict.fromkeys(["Reader"]), {"Reader": 1}.keys(), deque(["Reader"]), frozenset({"Reader"})):
            assert not code_of(verifier, token, roles=names)
            assert code_of(verifier, token, scopes=names) == "insufficient_scope"

    def test_a_role_with_a_blank_is_one_role(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Unlike scopes."""
        verifier, token = offline(), signer.token(claims(roles=["Order Reader"]))
        assert verifier.verify(token, roles=["Order Reader"]).roles == {"Order Reader"}
        assert code_of(verifier, token, roles=["Reader"]) == "insufficient_role"

    @pytest.mark.parametrize("scopes", [1, ["a", 1], {"a": 1}, [["a"]]])
    def test_scopes_of_the_wrong_type(self, refused: Refused, signer: Signer, claims: Claims, scopes: Any) -> None:
        """Aren't guessed at."""
        assert refused(signer.token(claims(scp=scopes))) == "malformed"

    @pytest.mark.parametrize("name", ["iss", "sub", "oid", "tid", "azp", "xms_par_app_azp"])
    @pytest.mark.parametrize("value", [1, True, ["x"], {"x": 1}])
    def test_texts_are_texts(self, refused: Refused, signer: Signer, claims: Claims, name: str, value: Any) -> None:
        """A list where an id should be would compare in unforeseen ways."""
        assert refused(signer.token(claims(**{name: value}))) in ("malformed", "token_type")


class TestConfiguration:
    @pytest.mark.parametrize(
        "options",
        [
            {"audience": ""},
            {"audience": ()},
            {"audience": [1]},
            {"algorithms": ["none"]},
            {"algorithms": ["HS256"]},
            {"algorithms": "RS256"},
            {"algorithms": ()},
            {"accepts": "any"},
            {"leeway": -1.0},
            {"leeway": 3600.0},
            {"tenants": "contoso"},
            {"clients": "shop"},
            {"tenant": "../evil"},
            {"tenant": "a b"},
            {"tenant": ""},
            {"issuer": "http://localhost/x"},
            {"issuer": "https://user:pw@localhost/x"},
            {"issuer": ()},
            {"issuer": "https://localhost", "discovery": "http://localhost/d"},
            {"keys": {}},
            {"grace": ra.verify.GraceOptions(), "accepts": "id"},
            {"pinned_keys": {"keys": []}},
            {"pinned_keys": "/there/is/no/such/file"},
            {"tenant": "contoso"},
        ],
        ids=str,
    )
    def test_wrong_arguments_are_told_before_any_network_call(self, offline: Any, options: dict[str, Any]) -> None:
        """By name, with the fix."""
        with pytest.raises(ra.ConfigurationError) as caught:
            offline(**options)
        assert any(name in str(caught.value) for name in (*options, "tenant_id"))

    def test_grace_needs_a_total_that_is_longer(self) -> None:
        """Options are checked against each other."""
        with pytest.raises(ra.ConfigurationError, match="past_expiry"):
            ra.verify.GraceOptions(past_expiry=7200.0, outage=3600.0)
        with pytest.raises(ra.ConfigurationError, match="probe_every"):
            ra.verify.GraceOptions(probe_every=10.0, probe_every_in_outage=20.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tenants": ["contoso.com"]}, "tenants must be the GUIDs"),
        ({"grace": GraceOptions(), "seen": SeenOptions(tokens=0)}, "let SeenOptions remember some"),
    ],
)
def test_what_could_never_hold_is_refused_at_construction(options: dict[str, Any], says: str) -> None:
    """A verifier that would refuse every token, or never give the grace that was asked for, isn't made."""
    with pytest.raises(ra.ConfigurationError, match=says):
        ra.ClaimsVerifier.for_entra("common", AUDIENCE, **options)


def test_owners_files_that_others_may_write_are_refused(tmp_path: Any) -> None:
    """Whoever writes them decides who is let in."""
    pinned, denied = tmp_path / "keys.json", tmp_path / "denied.json"
    pinned.write_text('{"keys": []}')
    denied.write_text("{}")
    for file in (pinned, denied):
        file.chmod(0o666)
    with pytest.raises(ra.ConfigurationError, match="chmod go-w"):
        ra.ClaimsVerifier.for_entra(TENANT, AUDIENCE, pinned_keys=pinned)
    with pytest.raises(ra.ConfigurationError, match="chmod go-w"):
        DenyList(file=denied)
