"""Keys that a fetch has missed are no verdict on the next token; keys that are listed and unfit are one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from arriving import Signer, Site
from hypothesis import given, settings
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth.emulator import Emulator
from resilient_auth.verify import KeyOptions
from resilient_auth.verify.jose.jwk import VerificationKey
from resilient_auth.verify.keys.key_set import KeySet

Claims = Callable[..., dict[str, Any]]
Mint = Callable[..., str]

SECONDS = st.floats(min_value=0.0, max_value=2.0**40, allow_nan=False)


def status(verifier: ra.ClaimsVerifier, token: str) -> int:
    """Return what a caller would be answered."""
    try:
        verifier.verify(token)
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        return error.status
    return 200


@pytest.fixture(scope="module")
def future() -> Signer:
    """A key that the provider will publish."""
    return Signer("future")


@pytest.fixture(scope="module")
def short() -> Signer:
    """A key of 1,024 bits."""
    return Signer("short", bits=1024)


class TestAFutureKey:
    def test_one_forged_token_signs_nobody_out(
        self, site: Site, at_site: Any, signer: Signer, future: Signer, claims: Claims, clock: Any
    ) -> None:
        """Good tokens under a key that a forged one has named before are answered 503 until the issuer is asked."""
        site.provide({"keys": [signer.jwk]})
        verifier = at_site()
        verifier.warm_up()
        forged = f"{future.token(claims(iss=site.url))[:-8]}AAAAAAAA"
        assert status(verifier, forged) == 401
        site.provide({"keys": [signer.jwk, future.jwk]})
        good = [future.token(claims(iss=site.url, uti=str(n))) for n in range(20)]
        assert [status(verifier, token) for token in good] == [503] * 20
        with pytest.raises(ra.VerificationUnavailable) as caught:
            verifier.verify(good[0])
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 300
        assert site.asked.count("/keys") == 2
        clock.skip(caught.value.retry_after)
        assert [status(verifier, token) for token in good] == [200] * 20
        assert site.asked.count("/keys") == 3

    def test_a_replica_that_is_late(
        self, site: Site, at_site: Any, signer: Signer, future: Signer, claims: Claims, clock: Any
    ) -> None:
        """Fails the one token for which it was asked, and none of those that follow."""
        site.provide({"keys": [signer.jwk]})
        verifier = at_site()
        verifier.warm_up()
        tokens = [future.token(claims(iss=site.url, uti=str(n))) for n in range(20)]
        assert [status(verifier, token) for token in tokens] == [401] + [503] * 19
        site.provide({"keys": [signer.jwk, future.jwk]})
        clock.skip(301.0)
        assert [status(verifier, token) for token in tokens] == [200] * 20

    def test_a_cold_start_with_a_forged_one(
        self, site: Site, at_site: Any, signer: Signer, future: Signer, claims: Claims
    ) -> None:
        """Is a fetch like any other: the tokens under keys that it brought are verified."""
        site.provide({"keys": [signer.jwk]})
        verifier = at_site()
        assert status(verifier, future.token(claims(iss=site.url))) == 401
        assert status(verifier, signer.token(claims(iss=site.url))) == 200

    def test_a_flood_asks_once(self, at_idp: Any, mint: Mint, fetches: Any, idp: Emulator, clock: Any) -> None:
        """However many names are made up, and however often each comes again; good tokens go on beside it."""
        verifier = at_idp()
        verifier.warm_up()
        good, before = mint(), fetches()
        forged = [mint({"kid": f"made-up-{n}"}) for n in range(50)]
        told = [status(verifier, token) for _ in range(200) for token in forged]
        assert (told.count(401), told.count(503)) == (1, 9_999)
        assert fetches() - before == 1
        assert status(verifier, good) == 200
        clock.skip(301.0)
        assert [status(verifier, token) for token in forged] == [401] + [503] * 49
        assert fetches() - before == 2


class TestAKeyThatIsUnfit:
    @pytest.mark.parametrize("kind", ["short", "encryption", "type", "algorithm", "twice"])
    @pytest.mark.parametrize("beside", [True, False], ids=["beside a good one", "alone"])
    def test_it_is_a_verdict(
        self, site: Site, at_site: Any, signer: Signer, short: Signer, claims: Claims, kind: str, beside: bool
    ) -> None:
        """401 each time, without asking again, whoever has asked for another one a moment ago."""
        listed, signs = {
            "short": ([short.jwk], short),
            "encryption": ([signer.jwk | {"kid": "x", "use": "enc"}], signer),
            "type": ([{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "x"}], signer),
            "algorithm": ([signer.jwk | {"kid": "x", "alg": "PS256"}], signer),
            "twice": ([signer.jwk | {"kid": "x"}, Signer("x").jwk], signer),
        }[kind]
        site.provide({"keys": [*listed, *([signer.jwk] if beside else [])]})
        verifier = at_site()
        kid = str(listed[0]["kid"])
        unfit = [signs.token(claims(iss=site.url, uti=str(n)), kid=kid) for n in range(3)]
        assert [status(verifier, token) for token in unfit] == [401] * 3
        with pytest.raises(ra.InvalidToken, match="isn't fit") as caught:
            verifier.verify(unfit[0])
        assert caught.value.code == "key"
        asked = site.asked.count("/keys")
        if beside:
            assert status(verifier, signer.token(claims(iss=site.url))) == 200
            assert status(verifier, signer.token(claims(iss=site.url), kid="nobody's")) == 401
            assert status(verifier, unfit[0]) == 401
            asked += 1
        else:
            assert status(verifier, signer.token(claims(iss=site.url))) == 503
        assert site.asked.count("/keys") == asked

    def test_it_may_be_mended(
        self, site: Site, at_site: Any, signer: Signer, stranger: Signer, claims: Claims, clock: Any, eventually: Any
    ) -> None:
        """The next refresh takes it in."""
        mended = stranger.jwk | {"kid": "x"}
        site.provide({"keys": [signer.jwk, mended | {"use": "enc"}]})
        verifier = at_site()
        token = stranger.token(claims(iss=site.url), kid="x")
        assert status(verifier, token) == 401
        site.provide({"keys": [signer.jwk, mended]})
        clock.skip(3600.0)
        eventually(lambda: status(verifier, token) == 200)

    def test_it_isnt_believed_for_ever(
        self, site: Site, at_site: Any, signer: Signer, stranger: Signer, claims: Claims, clock: Any, eventually: Any
    ) -> None:
        """Where the provider can't be asked any more, nobody can tell what has become of it."""
        site.provide({"keys": [signer.jwk, stranger.jwk | {"kid": "x", "use": "enc"}]})
        verifier = at_site()
        token = stranger.token(claims(iss=site.url, exp=int(clock.wall()) + 90_000), kid="x")
        assert status(verifier, token) == 401
        site.serve("/keys", "", status=503)
        clock.skip(3600.0)
        eventually(lambda: status(verifier, token) == 503)


@settings(deadline=None)
@given(began=SECONDS, every=st.floats(60.0, 7 * 86_400.0), good=st.floats(0.0, 30 * 86_400.0), unfit=st.booleans())
def test_a_view_holds_until_its_end_and_no_longer(began: float, every: float, good: float, unfit: bool) -> None:
    """On any machine, however long it has been up: each end is compared as it was reckoned."""
    options = KeyOptions(refresh_every=every, last_known_good=good)
    held, _ = KeySet().merged({"a": VerificationKey("1", {}, None)}, began, options, frozenset("x" if unfit else ""))
    view, ends = held.view(began, options), [held.view(began, options).until]
    assert view.provenance.keys == "fresh"
    for now in (began + every, began + options.longest):
        ends.append(held.view(now, options).until)
        assert held.view(now, options).until > now
    for now in ends:
        later = held.view(now, options)
        assert later.until > now, "a view whose end is over would be taken anew for every token"
    assert held.view(began + every, options).provenance.keys == "stale"
    assert not held.view(began + every, options).unfit
    assert not held.view(began + options.longest, options).keys
    assert held.time_to_dark(began + options.longest, options) == 0.0
