"""Where keys come from, and what isn't believed of what comes: real TLS, a provider that fails or lies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from arriving import AUDIENCE, TENANT, Signer, Site, b64

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import KeysAnomaly, KeysRefreshed, KeysRefreshFailed, PinnedKeysInUse
from resilient_auth.testing import capture_events
from resilient_auth.verify.keys import sharing

Claims = Callable[..., dict[str, Any]]
Mint = Callable[..., str]


def outcome(verifier: ra.ClaimsVerifier, token: str) -> str:
    """Return how a verification ends: the keys' standing, or the error's code."""
    try:
        return verifier.verify(token).provenance.keys
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        return error.code


class TestAtAnEmulator:
    def test_a_token_of_the_provider(self, idp: Emulator, at_idp: Any) -> None:
        """As MSAL gets it, discovery and keys fetched once."""
        with ra.msal.ConfidentialClientApplication(
            "daemon", "secret", authority=idp.authority("contoso"), instance_discovery=False, verify=idp.ca_file
        ) as app:
            token = app.acquire_token_for_client([f"{AUDIENCE}/.default"])["access_token"]
        claims = at_idp().verify(token, app_only=True, roles=["Tasks.ReadWrite.All"])
        assert (claims.tenant_id, claims.client_id, claims.provenance.keys) == (TENANT, "daemon", "fresh")

    @pytest.mark.parametrize("tenant", ["contoso", "contoso.com", TENANT, "common", "organizations"])
    def test_a_tenant_by_any_name(self, at_idp: Any, mint: Mint, tenant: str) -> None:
        """A name's GUID is learned from the discovery document; with `common` any tenant's will do."""
        other = "11111111-2222-3333-4444-555555555555"
        verifier = at_idp(tenant=tenant)
        assert outcome(verifier, mint()) == "fresh"
        assert outcome(verifier, mint(iss=f"https://elsewhere.example/{other}/v2.0", tid=other)) == "issuer"

    def test_a_token_of_another_tenant(self, at_idp: Any, mint: Mint, idp: Emulator) -> None:
        """Signed by the same provider with the same keys."""
        other = "11111111-2222-3333-4444-555555555555"
        foreign = mint(iss=f"{idp.url}/{other}/v2.0", tid=other)
        assert outcome(at_idp(tenant="contoso"), foreign) == "tenant"
        assert outcome(at_idp(), foreign) == "tenant"
        assert outcome(at_idp(tenant="common"), foreign) == "fresh"

    def test_each_b2c_policy_has_its_own_metadata(self, idp: Emulator, settings: Any, mint: Mint) -> None:
        """Only that of the token's is fetched, and the tenant's GUID is learned from it."""
        with ra.ClaimsVerifier.for_b2c(
            "contoso", ["b2c_1_a", "b2c_1_b"], AUDIENCE, authority=idp.url, verify=idp.ca_file, settings=settings()
        ) as verifier:
            token = mint(iss=f"{idp.url}/{TENANT}/v2.0/", tfp="B2C_1_A")
            assert verifier.verify(token).policy == "b2c_1_a"
            asked = [call.path for call in idp.ledger.calls]
            assert len(asked) == 2
            assert all("b2c_1_a" in path for path in asked)
            foreign = mint(iss=f"{idp.url}/11111111-2222-3333-4444-555555555555/v2.0/", tfp="b2c_1_a", tid=None)
            assert outcome(verifier, foreign) == "tenant"

    @pytest.mark.parametrize("given", [None, TENANT])
    def test_the_real_host_names(self, idp: Emulator, mint: Mint, settings: Any, given: str | None) -> None:
        """Through a proxy behind which the emulator answers for all of them: each product has its own issuers."""
        options: dict[str, Any] = {
            "proxies": {"https": idp.proxy_url}, "verify": idp.ca_file, "settings": settings(), "audience": AUDIENCE,
        }  # fmt: skip
        b2c = {"policies": ["b2c_1_in"], "tenant_id": given}
        for verifier, issuer in (
            (
                ra.ClaimsVerifier.for_entra(given or "contoso.com", **options),
                f"https://login.microsoftonline.com/{TENANT}/v2.0",
            ),
            (ra.ClaimsVerifier.for_entra(given or "contoso.com", **options), f"https://sts.windows.net/{TENANT}/"),
            (ra.ClaimsVerifier.for_b2c("contoso", **b2c, **options), f"https://contoso.b2clogin.com/{TENANT}/v2.0/"),
            (
                ra.ClaimsVerifier.for_external_id("contoso", tenant_id=given, **options),
                f"https://{TENANT}.ciamlogin.com/{TENANT}/v2.0",
            ),
        ):
            with verifier:
                assert outcome(verifier, mint(iss=issuer, tfp="b2c_1_in")) == "fresh", issuer
                elsewhere = issuer.replace(TENANT, "11111111-2222-3333-4444-555555555555")
                assert outcome(verifier, mint(iss=elsewhere, tfp="b2c_1_in", tid=None)) == "tenant"

    def test_keys_are_shared(self, at_idp: Any, mint: Mint, settings: Any, fetches: Any) -> None:
        """By verifiers with the same settings, until the last one is closed."""
        same = settings()
        first, second = at_idp(settings=same), at_idp(settings=same, audience="other")
        token = mint()
        assert outcome(first, token) == "fresh"
        assert outcome(second, token) == "audience"
        first.close()
        assert outcome(second, mint(aud="other")) == "fresh"
        assert fetches() == 1

    def test_the_last_one_is_closed_while_another_is_made(self, at_idp: Any, mint: Mint, settings: Any) -> None:
        """It has keys of its own then, and none that are closed in the next moment."""
        same = settings()
        last = at_idp(settings=same)
        (source,) = last._core._sources.values()
        with source._lock:  # as whoever looks at the keys holds it
            closing = threading.Thread(target=last.close)
            closing.start()
            while sharing._users[source]:
                time.sleep(0.001)
            another = at_idp(settings=same)
        closing.join()
        assert outcome(another, mint()) == "fresh"

    def test_warming_up(self, at_idp: Any, mint: Mint, idp: Emulator, fetches: Any) -> None:
        """The first token needs no network then; and where it can't be done, that is told."""
        verifier = at_idp()
        verifier.warm_up()
        idp.fail(Fault.refuse())
        assert outcome(verifier, mint()) == "fresh"
        assert fetches() == 1
        with pytest.raises(ra.VerificationUnavailable, match="refused"):
            at_idp(algorithms=["PS256"]).warm_up()

    @pytest.mark.parametrize(
        "name", sorted(set(Fault.all()) - {"black_hole", "slow", "trickle", "expired_tokens", "flapping"})
    )
    def test_a_cold_start_in_an_outage(self, idp: Emulator, at_idp: Any, mint: Mint, name: str, clock: Any) -> None:
        """503 with `Retry-After`, never 401; asked again no sooner than that, and good as soon as the provider is."""
        token, verifier = mint(), at_idp()
        idp.fail(Fault.all()[name])
        for _ in range(3):
            with pytest.raises(ra.VerificationUnavailable) as caught:
                verifier.verify(token)
            assert caught.value.status == 503
            assert 1 <= int(caught.value.headers["Retry-After"]) <= 61
        assert len([c for c in idp.ledger.calls if c.endpoint in ("discovery", "jwks")]) <= 1
        idp.heal()
        clock.skip(61.0)
        ra.reset(idp.url)
        ends = time.monotonic() + 5
        while outcome(verifier, token) != "fresh":
            assert time.monotonic() < ends

    def test_a_provider_that_never_answers(self, idp: Emulator, at_idp: Any, mint: Mint, settings: Any) -> None:
        """A caller waits as long as his patience lasts, and not as long as the request does."""
        idp.fail(Fault.black_hole())
        verifier = at_idp(keys=ra.verify.KeyOptions(wait=0.2), settings=settings())
        begun = time.monotonic()
        assert outcome(verifier, mint()) == "verification_unavailable"
        with ra.wait_at_most(0.05):
            assert outcome(verifier, mint()) == "verification_unavailable"
        assert time.monotonic() - begun < 1.5

    def test_keys_are_refreshed_behind(
        self, at_idp: Any, mint: Mint, clock: Any, eventually: Any, fetches: Any
    ) -> None:
        """Every hour, a little early, without any traffic."""
        verifier = at_idp()
        with capture_events() as events:
            verifier.warm_up()
            for hour in range(2, 5):
                # Not in the middle of a fetch, which would seem to have taken an hour.
                eventually(lambda hour=hour: len(events.of(KeysRefreshed)) == hour - 1)
                clock.skip(3600.0)
                eventually(lambda hour=hour: fetches() == hour)
            eventually(lambda: len(events.of(KeysRefreshed)) == 4)
        assert outcome(verifier, mint()) == "fresh"

    def test_an_outage_of_24_hours(self, idp: Emulator, at_idp: Any, mint: Mint, clock: Any, eventually: Any) -> None:
        """Every valid token with a known key is verified, at once; an hour later nothing can be verified any more."""
        verifier = at_idp()
        verifier.warm_up()
        idp.fail(Fault.refuse())
        with capture_events() as events:
            spent = []
            for _ in range(24):
                clock.skip(3600.0)
                token = mint()
                begun = time.thread_time()
                assert verifier.verify(token).provenance.keys == "stale"
                spent.append(time.thread_time() - begun)
            # Under a millisecond is the target; nobody waits for anything.
            assert sorted(spent)[-2] < 0.003
            failed = events.wait_for(KeysRefreshFailed)
            assert all(event.count == 1 for event in failed)
        assert verifier.verify(mint()).provenance.keys_age == 24 * 3600.0
        (keys,) = [k for k in ra.health().keys if k.issuer.startswith(idp.url)]
        assert keys.state == "stale"
        assert 0 < keys.time_to_dark <= 3600.0
        clock.skip(3601.0)
        assert outcome(verifier, mint()) == "verification_unavailable"
        assert ra.health().verdict == "down"

    def test_pinned_keys(self, idp: Emulator, at_idp: Any, mint: Mint, tmp_path: Any, eventually: Any) -> None:
        """A cold start in an outage: the first verification needs no network at all."""
        signed_off = tmp_path / "keys.json"
        published = [key.as_jwk() for key in idp._running.keys.published]
        signed_off.write_text(json.dumps({"keys": published}))
        idp.fail(Fault.black_hole())
        with capture_events() as events:
            verifier = at_idp(pinned_keys=signed_off)
            begun = time.perf_counter()
            found = verifier.verify(mint())
            assert time.perf_counter() - begun < 0.1
            assert (found.provenance.keys, found.provenance.keys_age) == ("pinned", None)
            idp.heal()
            idp.fail(Fault.http_503(), "jwks", count=1)
            events.wait_for(PinnedKeysInUse, timeout=15.0)

    def test_the_providers_own_keys_replace_pinned_ones(
        self, idp: Emulator, at_idp: Any, mint: Mint, signer: Signer, eventually: Any, claims: Claims
    ) -> None:
        """As soon as they are there, without anybody waiting."""
        verifier = at_idp(pinned_keys={"keys": [signer.jwk]})
        own = signer.token(claims(iss=f"{idp.url}/{TENANT}/v2.0"))
        assert outcome(verifier, own) == "pinned"
        eventually(lambda: [k for k in ra.health().keys if k.state == "fresh"])
        assert outcome(verifier, mint()) == "fresh"
        assert outcome(verifier, own) != "pinned"


class TestRollOver:
    def test_a_new_key_verifies_at_first_sight(
        self, idp: Emulator, at_idp: Any, mint: Mint, together: Any, fetches: Any
    ) -> None:
        """One fetch, whatever the concurrency; the old key's tokens go on."""
        verifier = at_idp()
        old = mint()
        assert outcome(verifier, old) == "fresh"
        idp.roll_keys()
        idp.drop_old_keys()
        tokens = [mint(uti=str(n)) for n in range(60)]
        assert together(60, lambda: outcome(verifier, tokens.pop())) == ["fresh"] * 60
        assert fetches() == 2
        assert outcome(verifier, old) == "fresh"
        assert outcome(verifier, mint(uti="another")) == "fresh"

    def test_a_second_one_within_five_minutes_can_wait(
        self, idp: Emulator, at_idp: Any, mint: Mint, clock: Any
    ) -> None:
        """Nobody is signed out over it: the token can't be verified now, and it is told from when on it can."""
        verifier = at_idp()
        verifier.warm_up()
        for _ in range(2):
            idp.roll_keys()
            token = mint()
            last = outcome(verifier, token)
        assert last == "verification_unavailable"
        with pytest.raises(ra.VerificationUnavailable) as caught:
            verifier.verify(token)
        assert 290 < caught.value.retry_after <= 300
        clock.skip(301.0)
        assert outcome(verifier, token) == "fresh"

    def test_a_kid_that_nobody_has(self, at_idp: Any, mint: Mint, fetches: Any, clock: Any) -> None:
        """A token for which the provider was asked is bad; nobody can tell about the next, until it is asked again."""
        verifier = at_idp()
        verifier.warm_up()
        forged = mint({"kid": "made-up"})
        assert outcome(verifier, forged) == "unknown_key"
        assert [outcome(verifier, forged) for _ in range(3)] == ["verification_unavailable"] * 3
        assert fetches() == 2
        assert outcome(verifier, mint({"kid": "made-up-too"})) == "verification_unavailable"
        assert fetches() == 2
        clock.skip(301.0)
        assert outcome(verifier, forged) == "unknown_key"

    def test_a_failed_fetch_counts_too(self, idp: Emulator, at_idp: Any, mint: Mint, fetches: Any, clock: Any) -> None:
        """A provider that fails isn't asked more often than one that works."""
        verifier = at_idp()
        verifier.warm_up()
        idp.fail(Fault.http_503())
        for n in range(5):
            assert outcome(verifier, mint({"kid": f"made-up-{n}"})) == "verification_unavailable"
        assert fetches() == 2

    def test_a_token_that_ends_while_its_key_is_fetched(
        self, site: Site, at_site: Any, signer: Signer, claims: Claims, clock: Any, eventually: Any
    ) -> None:
        """Is over when the key is there."""
        site.provide({"keys": [signer.jwk]})
        site.gate.clear()
        verifier, ends = at_site(), list[str]()
        token = signer.token(claims(iss=site.url, exp=int(clock.wall()) + 5))
        caller = threading.Thread(target=lambda: ends.append(outcome(verifier, token)))
        caller.start()
        eventually(lambda: bool(site.asked))
        clock.set_wall(100.0)
        site.gate.set()
        caller.join()
        assert ends == ["expired"]

    def test_a_fetch_that_was_under_way_before(
        self, site: Site, at_site: Any, signer: Signer, claims: Claims, clock: Any, eventually: Any
    ) -> None:
        """May have missed a key that was published meanwhile: then it is asked once more."""
        site.provide({"keys": [signer.jwk]})
        verifier = at_site()
        verifier.warm_up()
        site.gate.clear()
        clock.skip(3600.0)
        eventually(lambda: site.asked.count("/keys") == 2)
        new = Signer("new")
        site.provide({"keys": [signer.jwk, new.jwk]})
        ends: list[str] = []
        caller = threading.Thread(target=lambda: ends.append(outcome(verifier, new.token(claims(iss=site.url)))))
        caller.start()
        time.sleep(0.05)
        assert not ends
        site.gate.set()
        caller.join()
        assert ends == ["fresh"]
        assert site.asked.count("/keys") == 3

    def test_a_flood_of_forged_kids(self, at_idp: Any, mint: Mint, fetches: Any) -> None:
        """10,000 of them cause at most two fetches, and a good token is verified as fast as ever."""
        verifier = at_idp()
        good = [mint(uti=str(n)) for n in range(200)]
        verifier.warm_up()
        before = fetches()
        _, payload, signature = mint().split(".")
        stop, sent = threading.Event(), []

        def flood(name: str) -> None:
            for n in range(5_000):
                if stop.is_set():
                    return
                forged = f"{b64({'alg': 'RS256', 'typ': 'JWT', 'kid': f'{name}{n}'})}.{payload}.{signature}"
                sent.append(outcome(verifier, forged))

        threads = [threading.Thread(target=flood, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        spent = []
        for token in good:
            begun = time.thread_time()
            assert verifier.verify(token).provenance.keys == "fresh"
            spent.append(time.thread_time() - begun)
            time.sleep(0.001)
        for thread in threads:
            thread.join()
        assert len(sent) == 10_000
        assert set(sent) <= {"unknown_key", "verification_unavailable"}
        assert fetches() - before <= 2
        assert sorted(spent)[int(len(spent) * 0.99)] < 0.003


class TestWhatIsFetched:
    def good(self, site: Site, signer: Signer, claims: Claims) -> str:
        site.provide({"keys": [signer.jwk]})
        return signer.token(claims(iss=site.url))

    def test_a_plain_openid_provider(self, site: Site, at_site: Any, signer: Signer, claims: Claims) -> None:
        """Or else nothing below would mean anything."""
        assert outcome(at_site(), self.good(site, signer, claims)) == "fresh"

    @pytest.mark.parametrize(
        "body",
        ["<html>", "", "[]", "{}", '{"keys":{}}', '{"keys":[]}', '{"keys":[1,null,"x",[]]}', '{"keys":[],"keys":[]}',
         '{"keys":' + "[" * 5000, '{"keys":' + "[" * 400 + "]" * 400 + "}", '{"keys":[{"kty":"RSA","kid":1}]}', "\x00",
         '{"keys":[{"kid":"own"}]}', '{"keys": NaN}'],
        ids=lambda body: body[:20],
    )  # fmt: skip
    def test_key_sets_that_arent(
        self, site: Site, at_site: Any, signer: Signer, claims: Claims, body: str, clock: Any, eventually: Any
    ) -> None:
        """At first: nothing can be verified. Later: what was known goes on."""
        token = self.good(site, signer, claims)
        warm = at_site()
        warm.warm_up()
        site.serve("/keys", body)
        assert outcome(at_site(settings=ra.Settings(clock=clock, wait=29.0)), token) == "verification_unavailable"
        with capture_events() as events:
            clock.skip(3600.0)
            assert events.wait_for(KeysRefreshFailed)
        assert outcome(warm, token) in ("fresh", "stale")

    def test_a_key_set_that_is_too_large(self, site: Site, at_site: Any, signer: Signer, claims: Claims) -> None:
        """In bytes, compressed or not, or in keys: it isn't read to its end."""
        import gzip

        token = self.good(site, signer, claims)
        huge = json.dumps({"keys": [signer.jwk], "x": "y" * 3_000_000})
        for body, headers in ((huge, {}), (gzip.compress(huge.encode()), {"Content_Encoding": "gzip"})):
            site.serve("/keys", body, **headers)
            assert outcome(at_site(keys=ra.verify.KeyOptions(largest=200_000 + len(headers))), token) == (
                "verification_unavailable"
            )
        site.serve("/keys", {"keys": [signer.jwk | {"kid": str(n)} for n in range(101)]})
        assert outcome(at_site(keys=ra.verify.KeyOptions(most_keys=100, wait=4.0)), token) == "verification_unavailable"

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_redirects_arent_followed(
        self, site: Site, at_site: Any, signer: Signer, claims: Claims, status: int
    ) -> None:
        """Neither of the keys nor of the discovery document, to the same host or another."""
        token = self.good(site, signer, claims)
        site.serve("/elsewhere", {"keys": [signer.jwk]})
        site.serve("/keys", b"{}", status, Location=f"{site.url}/elsewhere")
        assert outcome(at_site(), token) == "verification_unavailable"
        assert "/elsewhere" not in site.asked

    @pytest.mark.parametrize(
        "address",
        ["http://localhost/keys", "https://169.254.169.254/latest/meta-data", "https://evil.example/keys", "file:///etc/passwd",
         "https://localhost/keys", "//localhost/keys", "/keys", "", None, 1, ["https://localhost/keys"], "https://",
         "https://localhost@evil.example/keys", "https://[::1", "https://evil.example#localhost", "gopher://localhost/"],
        ids=str,
    )  # fmt: skip
    def test_keys_are_fetched_from_hosts_that_are_allowed(
        self, site: Site, at_site: Any, signer: Signer, claims: Claims, address: Any
    ) -> None:
        """That is the discovery document's own: nobody is led to an address of his choice."""
        token = self.good(site, signer, claims)
        site.provide({"keys": [signer.jwk]}, jwks_uri=address)
        assert outcome(at_site(), token) == "verification_unavailable"
        assert "/keys" not in site.asked

    @pytest.mark.parametrize(
        "trick", ["{host}.evil.example", "{host}@evil.example", "evil.example\\@{host}", "user@{host}"]
    )
    def test_addresses_that_look_allowed(
        self, site: Site, at_site: Any, signer: Signer, claims: Claims, trick: str
    ) -> None:
        """Hosts are compared whole."""
        token = self.good(site, signer, claims)
        host = site.url.removeprefix("https://")
        site.provide({"keys": [signer.jwk]}, jwks_uri=f"https://{trick.format(host=host)}/keys")
        assert outcome(at_site(), token) == "verification_unavailable"

    def test_a_host_that_the_owner_allows(self, site: Site, at_site: Any, signer: Signer, claims: Claims) -> None:
        """As some providers have their keys elsewhere."""
        token = self.good(site, signer, claims)
        port = site.url.rpartition(":")[2]
        site.provide({"keys": [signer.jwk]}, jwks_uri=f"https://127.0.0.1:{port}/keys")
        assert outcome(at_site(), token) == "verification_unavailable"
        assert outcome(at_site(keys=ra.verify.KeyOptions(hosts=(f"127.0.0.1:{port}",))), token) == "fresh"

    @pytest.mark.parametrize("issuer", ["https://evil.example", "", None, 1, "{url}/", "{url}x"])
    def test_another_issuers_document(
        self, site: Site, at_site: Any, signer: Signer, claims: Claims, issuer: Any
    ) -> None:
        """Its keys aren't so much as fetched (OpenID Connect Discovery, section 4.3)."""
        token = self.good(site, signer, claims)
        named = issuer.format(url=site.url) if isinstance(issuer, str) else issuer
        site.provide({"keys": [signer.jwk]}, issuer=named)
        assert outcome(at_site(), token) == "verification_unavailable"
        assert "/keys" not in site.asked

    def test_bad_keys_in_a_good_set(
        self, site: Site, at_site: Any, signer: Signer, stranger: Signer, claims: Claims
    ) -> None:
        """Are left out, and told; the others are used."""
        site.provide(
            {"keys": [stranger.jwk | {"kid": "enc", "use": "enc"}, signer.jwk, {"kty": "oct", "k": "AA", "kid": "s"}]}
        )
        with capture_events() as events:
            verifier = at_site()
            assert outcome(verifier, signer.token(claims(iss=site.url))) == "fresh"
            (refreshed,) = events.wait_for(KeysRefreshed)
        assert refreshed.count == 1
        assert len(refreshed.refused) == 2
        assert outcome(verifier, stranger.token(claims(iss=site.url), kid="enc")) == "key"

    def test_two_keys_under_one_kid(
        self, site: Site, at_site: Any, signer: Signer, stranger: Signer, claims: Claims
    ) -> None:
        """Neither is used."""
        other = Signer("other")
        site.provide({"keys": [signer.jwk, stranger.jwk, other.jwk]})
        verifier = at_site()
        assert outcome(verifier, other.token(claims(iss=site.url))) == "fresh"
        assert outcome(verifier, signer.token(claims(iss=site.url))) == "key"

    def test_another_key_under_a_known_kid(
        self, site: Site, at_site: Any, signer: Signer, stranger: Signer, claims: Claims, clock: Any
    ) -> None:
        """Is an event, and isn't believed."""
        token = self.good(site, signer, claims)
        verifier = at_site()
        assert outcome(verifier, token) == "fresh"
        site.serve("/keys", {"keys": [stranger.jwk]})
        with capture_events() as events:
            clock.skip(3600.0)
            (anomaly,) = events.wait_for(KeysAnomaly)
        assert (anomaly.code, anomaly.kids) == ("changed", ("own",))
        assert outcome(verifier, stranger.token(claims(iss=site.url))) == "signature"
        assert outcome(verifier, signer.token(claims(iss=site.url))) == "fresh"


class TestStore:
    @pytest.mark.parametrize("fault", [Fault.http_503(), Fault.black_hole()], ids=["503", "black hole"])
    def test_keys_outlive_a_process(self, idp: Emulator, mint: Mint, clock: Any, settings: Any, fault: Fault) -> None:
        """What an earlier process fetched serves the next one's cold start in an outage, as old as it is, at once."""
        backend = MemoryBackend()

        def standing() -> str:
            store = ra.SealedStore(backend, key=bytes(range(32)), clock=clock)
            about = {"authority": idp.url, "verify": idp.ca_file, "settings": settings(store=store)}
            with ra.ClaimsVerifier.for_entra("contoso", AUDIENCE, **about) as verifier:
                return verifier.verify(mint()).provenance.keys

        assert standing() == "fresh"
        idp.fail(fault)
        clock.skip(2 * 3600.0)
        begun = time.monotonic()
        assert standing() == "stale"
        assert time.monotonic() - begun < 1.0
