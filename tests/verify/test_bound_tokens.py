"""Tokens that are bound to a key: proofs of possession and certificates, where the owner turned them on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from arriving import AUDIENCE, NOWHERE, TENANT, Signer, b64
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import HealthCheck, given
from hypothesis import settings as runs
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.verify import BindingOptions, Presented, read_request
from resilient_auth.verify.bound.proof import read_proof, thumbprint_of
from resilient_auth.verify.bound.replays import Full, Replays
from resilient_auth.verify.http import refused as answer_to

Claims = Callable[..., dict[str, Any]]
URL = "https://api.example/orders/1"
DPOP = BindingOptions(dpop=True)


def digest(data: bytes) -> str:
    return b64(hashlib.sha256(data).digest())


class Client:
    """One who has a key, and makes proofs with it that may be as wrong as is wanted."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.private = ec.generate_private_key(ec.SECP256R1())
        numbers = self.private.public_key().public_numbers()
        self.jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}
        self.jkt = digest(json.dumps(self.jwk, separators=(",", ":"), sort_keys=True).encode())
        self.count = 0

    def proof(self, token: str, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Prove it for one request; None takes a member away."""
        self.count += 1
        said = {
            "jti": f"proof-{self.count}",
            "htm": "GET",
            "htu": URL,
            "iat": int(self.clock.wall()),
            "ath": digest(token.encode()),
        } | changes
        members = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk} | (header or {})
        first, second = ({k: v for k, v in part.items() if v is not None} for part in (members, said))
        signed = f"{b64(first)}.{b64(second)}"
        r, s = decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32) + s.to_bytes(32))}"

    def sent(self, *proofs: str, method: str = "GET", url: str = URL, dpop: bool = True) -> Presented:
        return Presented(method=method, url=url, proofs=proofs, dpop=dpop)


@pytest.fixture
def client(clock: Any) -> Client:
    return Client(clock)


@pytest.fixture
def bound(client: Client, signer: Signer, claims: Claims) -> str:
    """A token that is bound to the client's key."""
    return signer.token(claims(cnf={"jkt": client.jkt}))


def code_of(verifier: Any, token: str, presented: Presented | None = None, **asked: Any) -> str:
    try:
        verifier.verify(token, presented=presented, **asked)
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        text = f"{error!r} {error}"
        assert token[:20] not in text
        assert not presented or not any(len(str(proof)) > 20 and str(proof)[-20:] in text for proof in presented.proofs)
        return error.code
    return ""


@pytest.fixture
def lasting(offline: Any) -> ra.ClaimsVerifier:
    """One verifier for all examples."""
    made: ra.ClaimsVerifier = offline(binding=DPOP)
    return made


class TestProofs:
    def test_a_good_one(self, offline: Any, client: Client, bound: str) -> None:
        """Is good once, for a token that is new and for one that is remembered."""
        verifier = offline(binding=DPOP)
        for _ in range(3):
            sent = client.sent(client.proof(bound))
            assert not code_of(verifier, bound, sent, scopes="Orders.Read")
            assert code_of(verifier, bound, sent) == "dpop_replay"
        assert code_of(verifier, bound, client.sent(client.proof(bound)), scopes="x") == "insufficient_scope"

    def test_unless_it_is_turned_on(self, offline: Any, client: Client, bound: str) -> None:
        """It is refused, as ever, and so is one for certificates where proofs alone are verified."""
        sent = client.sent(client.proof(bound))
        assert code_of(offline(), bound) == "sender_constrained"
        assert code_of(offline(), bound, sent) == "sender_constrained"
        assert code_of(offline(binding=BindingOptions(certificates=True)), bound, sent) == "sender_constrained"

    def test_a_bound_token_is_no_bearer_token(self, offline: Any, client: Client, bound: str) -> None:
        """Remembered or not, with a proof beside it or without (RFC 9449, section 7.2)."""
        verifier = offline(binding=DPOP)
        for _ in range(2):
            assert code_of(verifier, bound) == "sender_constrained"
            assert code_of(verifier, bound, Presented()) == "sender_constrained"
            assert code_of(verifier, bound, client.sent(client.proof(bound), dpop=False)) == "sender_constrained"
            assert not code_of(verifier, bound, client.sent(client.proof(bound)))

    def test_a_bearer_token(self, offline: Any, client: Client, signer: Signer, claims: Claims) -> None:
        """Goes on to be one, unless it came as DPoP, or the owner wants bound ones alone."""
        token = signer.token(claims())
        for binding in (DPOP, None):
            verifier = offline(binding=binding)
            for _ in range(2):
                assert not code_of(verifier, token)
                assert not code_of(verifier, token, Presented())
                assert code_of(verifier, token, client.sent(client.proof(token))) == "sender_constrained"
        strict = offline(binding=BindingOptions(dpop=True, required=True))
        for _ in range(2):
            with pytest.raises(ra.InvalidToken) as caught:
                strict.verify(token)
            assert caught.value.code == "sender_constrained"
            assert caught.value.www_authenticate().startswith("DPoP ")

    @pytest.mark.parametrize(
        "changes",
        [
            {"jti": None}, {"jti": 1}, {"jti": ""}, {"jti": "x" * 300},
            {"htm": None}, {"htm": "POST"}, {"htm": "get"}, {"htm": ["GET"]},
            {"htu": None}, {"htu": "https://api.example/orders/2"}, {"htu": "https://evil.example/orders/1"},
            {"htu": "http://api.example/orders/1"}, {"htu": "https://api.example:8443/orders/1"},
            {"htu": "https://api.example/Orders/1"}, {"htu": "https://api.example/orders/1/"},
            {"htu": "https://api.example/orders%2F1"}, {"htu": "/orders/1"}, {"htu": "https://u@api.example/orders/1"},
            {"htu": "https://[api.example/orders/1"}, {"htu": 1}, {"htu": "https://api.example:x/orders/1"},
            {"iat": None}, {"iat": "1795000000"}, {"iat": True}, {"iat": 0}, {"iat": 1e308}, {"iat": -1e308},
            {"ath": None}, {"ath": "A" * 43}, {"ath": 1}, {"ath": ""}, {"ath": "ü"},
            {"nonce": 1},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_it_says(self, offline: Any, client: Client, bound: str, changes: dict[str, Any]) -> None:
        """Is about this request, this token and now (RFC 9449, section 4.3)."""
        assert code_of(offline(binding=DPOP), bound, client.sent(client.proof(bound, **changes))) == "dpop_proof"

    @pytest.mark.parametrize(
        "header",
        [
            {"typ": None}, {"typ": "JWT"}, {"typ": "at+jwt"}, {"typ": 1},
            {"alg": "none"}, {"alg": "HS256"}, {"alg": "RS256"}, {"alg": None},
            {"jwk": None}, {"jwk": "x"}, {"jwk": {}}, {"jwk": {"kty": "oct", "k": "AAAA"}},
            {"crit": ["x"]}, {"cty": "JWT"},
        ],
        ids=str,
    )  # fmt: skip
    def test_its_header(self, offline: Any, client: Client, bound: str, header: dict[str, Any]) -> None:
        """Names its type, an algorithm that is accepted, and a public key."""
        assert code_of(offline(binding=DPOP), bound, client.sent(client.proof(bound, header))) == "dpop_proof"

    def test_its_key(self, offline: Any, client: Client, bound: str, clock: Any) -> None:
        """Is the token's, made the signature, and is shown without its private half."""
        verifier, other = offline(binding=DPOP), Client(clock)
        assert code_of(verifier, bound, client.sent(other.proof(bound))) == "dpop_proof"
        assert code_of(verifier, bound, client.sent(other.proof(bound, {"jwk": client.jwk}))) == "dpop_proof"
        secret = b64(client.private.private_numbers().private_value.to_bytes(32))
        proof = client.proof(bound, {"jwk": client.jwk | {"d": secret}})
        assert code_of(verifier, bound, client.sent(proof)) == "dpop_proof"
        body, _, signature = client.proof(bound).rpartition(".")
        assert code_of(verifier, bound, client.sent(f"{body}.{b64(bytes(64))}")) == "dpop_proof"
        assert code_of(verifier, bound, client.sent(f"{body}.{signature}=")) == "dpop_proof"

    def test_there_is_one(self, offline: Any, client: Client, bound: str) -> None:
        """None, two, or something else isn't."""
        verifier, proof = offline(binding=DPOP), client.proof(bound)
        for proofs in ((), (proof, proof), (proof, ""), ("",), ("x",), (f"{proof}, {proof}",), ("a" * 100_000,), (1,)):
            assert code_of(verifier, bound, client.sent(*proofs)) == "dpop_proof"  # type: ignore[arg-type]
        assert not code_of(verifier, bound, client.sent(proof))

    @pytest.mark.parametrize(
        ("stated", "url"),
        [
            (URL, f"{URL}?page=2#x"),
            (f"{URL}?old=1", URL),
            ("HTTPS://API.example:443/orders/1", URL),
            ("https://api.example", "https://api.example/"),
            ("https://api.example/%7eann/a%2fb", "https://api.example/~ann/a%2Fb"),
            ("http://localhost:80/x", "http://localhost/x"),
        ],
    )
    def test_one_address_in_two_spellings(
        self, offline: Any, client: Client, bound: str, stated: str, url: str
    ) -> None:
        """Is one; queries and fragments aren't compared."""
        assert not code_of(offline(binding=DPOP), bound, client.sent(client.proof(bound, htu=stated), url=url))

    @pytest.mark.parametrize("url", ["", "x", "https://[", "https://api.example:x/orders/1", "/orders/1"])
    def test_an_address_that_a_stranger_spoilt(self, offline: Any, client: Client, bound: str, url: str) -> None:
        """Is a refusal and no error of the owner's: frameworks make it of the `Host` header."""
        for stated in (URL, url):
            sent = client.sent(client.proof(bound, htu=stated), url=url)
            assert code_of(offline(binding=DPOP), bound, sent) == "dpop_proof"

    def test_its_time(self, offline: Any, client: Client, bound: str, clock: Any) -> None:
        """A minute, and what clocks may differ by."""
        verifier = offline(binding=DPOP, leeway=10.0)
        now = int(clock.wall())
        for offset, code in ((-69, ""), (-71, "dpop_proof"), (9, ""), (12, "dpop_proof")):
            assert code_of(verifier, bound, client.sent(client.proof(bound, iat=now + offset))) == code, offset

    def test_the_published_example(self) -> None:
        """RFC 9449, section 7.1."""
        proof = (
            "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0R"
            "scEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMj"
            "U2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9w"
            "cm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWt"
            "zbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
        )
        found = read_proof(
            [proof],
            method="GET",
            url="https://resource.example.org/protectedresource",
            token="Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
            thumbprint="0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
            algorithms=frozenset({"ES256"}),
        )
        assert (found.token_id, found.issued_at) == ("e1j3V_bKic8-LAEB", 1562262618)

    def test_a_published_thumbprint(self) -> None:
        """RFC 7638, section 3.1, and RFC 8037, A.3."""
        modulus = (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
            "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
            "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
            "kEgU8awapJzKnqDKgw"
        )
        jwk = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
        assert thumbprint_of(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        edwards = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "use": "sig"}
        assert thumbprint_of(edwards) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"

    @runs(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.dictionaries(
            st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce", "exp"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=9)
            | st.lists(st.text(), max_size=1),
        ),
        st.text(max_size=40) | st.none() | st.integers() | st.binary(max_size=4),
    )
    def test_anything(self, lasting: Any, client: Client, bound: str, changes: dict[str, Any], junk: Any) -> None:
        """Is refused as what it is."""
        verifier = lasting
        code = code_of(verifier, bound, client.sent(client.proof(bound, **changes)))
        assert code in ("", "dpop_proof", "dpop_replay")
        assert code_of(verifier, bound, client.sent(junk)) == "dpop_proof"


class TestReplays:
    def test_all_at_once(self, offline: Any, client: Client, bound: str) -> None:
        """One of several threads with one proof gets in."""
        verifier, sent = offline(binding=DPOP), client.sent(client.proof(bound))
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda _: code_of(verifier, bound, sent), range(16)))
        assert sorted(codes) == ["", *["dpop_replay"] * 15]

    def test_a_key_is_told_from_another(self, offline: Any, signer: Signer, claims: Claims, clock: Any) -> None:
        """Two clients may count alike."""
        verifier = offline(binding=DPOP)
        for client in (Client(clock), Client(clock)):
            token = signer.token(claims(cnf={"jkt": client.jkt}))
            sent = client.sent(client.proof(token, jti="1"))
            assert (code_of(verifier, token, sent), code_of(verifier, token, sent)) == ("", "dpop_replay")

    def test_it_is_remembered_for_as_long_as_it_is_good(
        self, offline: Any, client: Client, bound: str, clock: Any
    ) -> None:
        """To its last second, one from a clock that is ahead for longer."""
        verifier = offline(binding=DPOP, leeway=10.0)
        now = int(clock.wall())
        for ahead in (0, 9):
            sent = client.sent(client.proof(bound, iat=now + ahead))
            assert not code_of(verifier, bound, sent)
            for _ in range(7):
                clock.skip(10.0)
                assert code_of(verifier, bound, sent) in ("dpop_replay", "dpop_proof")
            now = int(clock.wall())

    def test_a_flood_of_one_client(self, offline: Any, signer: Signer, claims: Claims, clock: Any) -> None:
        """Takes a quarter of the places, forgets nothing, and the others go on; time gives the places back."""
        verifier = offline(binding=BindingOptions(dpop=True, most=8))
        first, second = Client(clock), Client(clock)
        tokens = [signer.token(claims(cnf={"jkt": one.jkt})) for one in (first, second)]
        kept = [first.sent(first.proof(tokens[0])) for _ in range(4)]
        codes = [code_of(verifier, tokens[0], sent) for sent in kept]
        assert codes == ["", "", "verification_unavailable", "verification_unavailable"]
        assert not code_of(verifier, tokens[1], second.sent(second.proof(tokens[1])))
        assert [code_of(verifier, tokens[0], sent) for sent in kept[:2]] == ["dpop_replay"] * 2
        clock.skip(181.0)
        assert not code_of(verifier, tokens[0], first.sent(first.proof(tokens[0])))

    def test_they_are_bounded(self) -> None:
        """What is still good is never forgotten for something new."""
        replays = Replays(4)
        for n in range(4):
            assert replays.first(bytes([n]), f"key-{n}", now=0.0, until=10.0 - n)
        with pytest.raises(Full, match="too many"):
            replays.first(b"x", "key", now=1.0, until=20.0)
        assert replays.first(b"x", "key", now=7.0, until=20.0)
        assert not replays.first(bytes([0]), "key-0", now=9.0, until=10.0)
        assert len(replays) == 2

    def test_a_note_that_is_taken_back(self) -> None:
        """It leaves its place, and the proof may come once more; what is over is let go of once."""
        replays = Replays(4)
        for until in (10.0, 10.0, 12.0):
            assert replays.first(b"p", "key", now=0.0, until=until)
            replays.forget(b"p", "key")
            replays.forget(b"p", "key")
        assert replays.first(b"p", "key", now=0.0, until=11.0)
        with pytest.raises(Full, match="this client"):
            replays.first(b"other", "key", now=10.5, until=20.0)
        assert not replays.first(b"p", "key", now=10.5, until=20.0)
        assert replays.first(b"p", "key", now=11.0, until=20.0)
        assert not replays.first(b"p", "key", now=13.0, until=20.0)
        assert len(replays) == 1
        for number in range(1000):
            assert replays.first(b"%d" % number, "another", now=13.0, until=20.0)
            replays.forget(b"%d" % number, "another")
        assert len(replays._ends) <= 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_begins_with_none(self) -> None:
        """Whatever a thread of its parent's was noting."""
        from forked import in_a_child

        replays = Replays(4)
        assert replays.first(b"p", "key", now=0.0, until=10.0)

        def work() -> None:
            assert replays.first(b"p", "key", now=0.0, until=10.0)
            assert not replays.first(b"p", "key", now=0.0, until=10.0)

        with replays._lock:
            in_a_child(work)

    def test_in_each_process_without_a_store_and_in_all_with_one(
        self, offline: Any, client: Client, bound: str, clock: Any
    ) -> None:
        """Two verifiers stand for two processes here."""
        alone = [offline(binding=DPOP) for _ in range(2)]
        sent = client.sent(client.proof(bound))
        assert [code_of(one, bound, sent) for one in alone] == ["", ""]
        backend = MemoryBackend(clock=clock)
        stores = [ra.SealedStore(backend, key=bytes(range(32)), clock=clock) for _ in range(2)]
        together = [offline(binding=BindingOptions(dpop=True, store=store)) for store in stores]
        sent = client.sent(client.proof(bound))
        assert [code_of(one, bound, sent) for one in together] == ["", "dpop_replay"]
        for key in backend.keys(""):
            assert client.jkt.lower() not in key

    async def test_in_tasks(self, signer: Signer, claims: Claims, settings: Any, client: Client, clock: Any) -> None:
        """The store is asked on another thread."""
        store = ra.SealedStore(MemoryBackend(clock=clock), key=bytes(range(32)), clock=clock)
        token = signer.token(claims(cnf={"jkt": client.jkt}))
        async with ra.aio.ClaimsVerifier.for_entra(
            TENANT,
            AUDIENCE,
            authority=NOWHERE,
            pinned_keys={"keys": [signer.jwk]},
            settings=settings(),
            binding=BindingOptions(dpop=True, store=store),
        ) as verifier:
            sent = client.sent(client.proof(token))
            assert (await verifier.verify(token, presented=sent)).subject
            with pytest.raises(ra.InvalidToken) as caught:
                await verifier.verify(token, presented=sent)
            assert caught.value.code == "dpop_replay"

    def test_a_store_that_is_gone_lets_nobody_in(self, offline: Any, client: Client, bound: str, clock: Any) -> None:
        """And signs nobody out: 503."""
        store = ra.SealedStore(MemoryBackend(clock=clock), key=bytes(range(32)), clock=clock)
        store.close()
        verifier = offline(binding=BindingOptions(dpop=True, store=store))
        assert code_of(verifier, bound, client.sent(client.proof(bound))) == "verification_unavailable"

    def test_what_a_store_could_not_tell_is_asked_again(
        self, offline: Any, client: Client, bound: str, clock: Any
    ) -> None:
        """Who was answered 503 sends the same request once more, and is let in once."""
        store = Failing(ra.SealedStore(MemoryBackend(clock=clock), key=bytes(range(32)), clock=clock))
        verifier = offline(binding=BindingOptions(dpop=True, store=store, most=8))
        for _ in range(6):
            sent = client.sent(client.proof(bound))
            store.fails = True
            assert [code_of(verifier, bound, sent) for _ in range(3)] == ["verification_unavailable"] * 3
            store.fails = False
            assert [code_of(verifier, bound, sent) for _ in range(2)] == ["", "dpop_replay"]
            clock.skip(61.0)

    def test_what_a_store_has_lost_is_known_here(self, offline: Any, client: Client, bound: str, clock: Any) -> None:
        """As long as this process lives."""
        store = ra.SealedStore(MemoryBackend(clock=clock), key=bytes(range(32)), clock=clock)
        verifier = offline(binding=BindingOptions(dpop=True, store=store))
        sent = client.sent(client.proof(bound))
        assert not code_of(verifier, bound, sent)
        for record in store.scan("dpop-proof"):
            store.erase(record.kind, record.name)
        assert code_of(verifier, bound, sent) == "dpop_replay"


class Failing:
    """A store that fails while it is told to."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        if self.fails:
            raise ra.StoreUnavailable("memory", "timeout", "it is dead")
        return getattr(self._store, name)


class TestNonces:
    SECRET = bytes(range(32))

    def test_the_client_is_given_one(self, offline: Any, client: Client, bound: str, clock: Any) -> None:
        """By a 401, and it serves for some minutes, in every process that has the secret."""
        options = BindingOptions(dpop=True, nonce_secret=self.SECRET, nonce_age=100.0)
        assert repr(self.SECRET) not in repr(options)
        one, two = offline(binding=options, leeway=5.0), offline(binding=options, leeway=5.0)
        with pytest.raises(ra.InvalidToken) as caught:
            one.verify(bound, presented=client.sent(client.proof(bound)))
        error = caught.value
        assert (error.code, error.status) == ("dpop_nonce", 401)
        assert 'error="use_dpop_nonce"' in error.www_authenticate()
        answer = answer_to(error)
        nonce = answer.headers["DPoP-Nonce"]
        assert answer.headers["WWW-Authenticate"].startswith("DPoP ")
        for verifier in (one, two):
            assert not code_of(verifier, bound, client.sent(client.proof(bound, nonce=nonce)))
        clock.skip(99.0)
        assert not code_of(one, bound, client.sent(client.proof(bound, nonce=nonce)))
        clock.skip(2.0)
        assert code_of(one, bound, client.sent(client.proof(bound, nonce=nonce))) == "dpop_nonce"

    def test_a_forged_one(self, offline: Any, client: Client, bound: str, clock: Any) -> None:
        """Or another secret's."""
        verifier = offline(binding=BindingOptions(dpop=True, nonce_secret=self.SECRET))
        with pytest.raises(ra.InvalidToken) as caught:
            offline(binding=BindingOptions(dpop=True, nonce_secret=bytes(32))).verify(
                bound, presented=client.sent(client.proof(bound))
            )
        others = str(caught.value.nonce)
        stamp = f"{int(clock.wall()):016x}"
        for nonce in ("", ".", "x", others, stamp, f"{stamp}.", f"{stamp}.{others[17:]}", "ü.ü", "zz.x", f"{others}x"):
            assert code_of(verifier, bound, client.sent(client.proof(bound, nonce=nonce))) == "dpop_nonce"


@pytest.fixture(scope="module")
def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)


class TestCertificates:
    @pytest.fixture
    def mine(self, der: bytes, signer: Signer, claims: Claims) -> str:
        return signer.token(claims(cnf={"x5t#S256": digest(der)}))

    def test_the_clients_own(self, offline: Any, pem: str, der: bytes, mine: str) -> None:
        """As servers and proxies give it (RFC 8705, section 3; RFC 9440)."""
        verifier = offline(binding=BindingOptions(certificates=True))
        crowd = trustme.CA().cert_pem.bytes().decode()
        for shown in (
            der,
            pem,
            pem.encode(),
            quote(pem),
            quote(pem, safe="+=/"),
            pem.strip().replace("\n", " "),
            f":{base64.b64encode(der).decode()}:",
            f"{pem}{crowd}",
        ):
            for _ in range(2):
                assert not code_of(verifier, mine, Presented(certificate=shown)), shown[:40]
        assert verifier.verify(mine, presented=Presented(certificate=der), scopes="Orders.Read")

    def test_any_other(self, offline: Any, pem: str, der: bytes, mine: str) -> None:
        """None, somebody else's, or no certificate at all."""
        verifier = offline(binding=BindingOptions(certificates=True))
        other = trustme.CA().issue_cert("client.example").cert_chain_pems[0].bytes().decode()
        for shown in (
            None,
            "",
            b"",
            other,
            f"{other}{pem}",
            "x",
            b"x",
            der[:-1],
            "::",
            ":!:",
            ":A:",
            "%",
            "ü",
            "x" * 99_999,
        ):
            assert code_of(verifier, mine, Presented(certificate=shown)) == "certificate"
        assert code_of(verifier, mine) == "certificate"
        assert code_of(offline(), mine, Presented(certificate=der)) == "sender_constrained"
        assert code_of(offline(binding=DPOP), mine, Presented(certificate=der)) == "sender_constrained"
        assert code_of(verifier, mine, Presented(certificate=der, dpop=True)) == "sender_constrained"

    def test_bound_to_both(self, offline: Any, client: Client, der: bytes, signer: Signer, claims: Claims) -> None:
        """Both are shown."""
        verifier = offline(binding=BindingOptions(dpop=True, certificates=True))
        token = signer.token(claims(cnf={"jkt": client.jkt, "x5t#S256": digest(der)}))

        def sent(certificate: bytes | None, dpop: bool) -> Presented:
            proofs = (client.proof(token),) if dpop else ()
            return Presented(method="GET", url=URL, proofs=proofs, dpop=dpop, certificate=certificate)

        assert code_of(verifier, token, sent(None, True)) == "certificate"
        assert code_of(verifier, token, sent(der, False)) == "sender_constrained"
        assert not code_of(verifier, token, sent(der, True))


@pytest.mark.parametrize(
    ("cnf", "code"),
    [
        ({}, "sender_constrained"),
        (None, "sender_constrained"),
        ([], "sender_constrained"),
        ("x", "sender_constrained"),
        ({"jwk": {}}, "sender_constrained"),
        ({"kid": "x"}, "sender_constrained"),
        ({"jkt": "A" * 43, "kid": "x"}, "sender_constrained"),
        ({"jkt": "A" * 42}, "malformed"),
        ({"jkt": None}, "malformed"),
        ({"jkt": ["A" * 43]}, "malformed"),
        ({"x5t#S256": 1}, "malformed"),
        ({"jkt": "A" * 42 + "\n"}, "malformed"),
    ],
    ids=str,
)
def test_what_a_token_is_bound_to(offline: Any, signer: Signer, claims: Claims, cnf: Any, code: str) -> None:
    """In a way that isn't known, or is written wrongly, isn't taken for a bearer token."""
    verifier = offline(binding=BindingOptions(dpop=True, certificates=True))
    token = signer.token(json.dumps(claims() | {"cnf": cnf}))
    assert code_of(verifier, token) == code
    assert code_of(verifier, token, Presented(dpop=True)) == code


class TestRequests:
    def test_what_a_request_has(self) -> None:
        """Both schemes in any case, every proof."""
        headers = [("Host", "x"), ("AUTHORIZATION", "dpop a.b.c"), ("DPoP", "p1"), ("dpop", "p2")]
        token, presented = read_request("POST", URL, headers, certificate=b"der")
        assert token == "a.b.c"
        assert presented == Presented(method="POST", url=URL, proofs=("p1", "p2"), dpop=True, certificate=b"der")
        assert "p1" not in repr(presented)
        assert not read_request("GET", URL, [("Authorization", "Bearer a.b.c")])[1].dpop
        assert read_request("GET", URL, {"Authorization": "DPoP a.b.c", "DPoP": "p"})[1].proofs == ("p",)
        for wrong in ([(b"authorization", b"Bearer a")], ["Authorization"], [("a", "b", "c")], [None]):
            with pytest.raises(ra.ConfigurationError, match="headers must be"):
                read_request("GET", URL, wrong)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ([], "missing"),
            ([("Authorization", "Bearer a"), ("authorization", "Bearer b")], "duplicated_header"),
            ([("Authorization", "Basic a")], "malformed_header"),
            ([("Authorization", "DPoP")], "malformed_header"),
            ([("Authorization", "DPoP a, DPoP b")], "malformed_header"),
        ],
    )
    def test_what_is_none(self, headers: Any, code: str) -> None:
        """Is a refusal."""
        with pytest.raises(ra.InvalidToken) as caught:
            read_request("GET", URL, headers)
        assert caught.value.code == code

    def test_the_challenge(self, offline: Any, client: Client, bound: str) -> None:
        """Says which scheme and which algorithms (RFC 9449, section 7.1)."""
        for presented, error in ((None, "invalid_token"), (client.sent("x"), "invalid_dpop_proof")):
            with pytest.raises(ra.InvalidToken) as caught:
                offline(binding=BindingOptions(dpop=True, algorithms=["PS256", "ES256"])).verify(
                    bound, presented=presented
                )
            header = caught.value.www_authenticate("orders")
            assert header.startswith('DPoP realm="orders", ')
            assert f'error="{error}"' in header
            assert header.endswith('algs="ES256 PS256"')
            assert caught.value.headers == {}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, "dpop=True, certificates=True"),
        ({"required": True}, "dpop=True, certificates=True"),
        ({"dpop": 1}, "dpop must be"),
        ({"dpop": True, "certificates": "x"}, "certificates must be"),
        ({"dpop": True, "required": None}, "required must be"),
        ({"dpop": True, "algorithms": []}, "algorithms must be"),
        ({"dpop": True, "algorithms": "ES256"}, "algorithms must be"),
        ({"dpop": True, "algorithms": ["none"]}, "algorithms must be"),
        ({"dpop": True, "algorithms": ["HS256"]}, "algorithms must be"),
        ({"dpop": True, "age": 0}, "age must be"),
        ({"dpop": True, "age": "60"}, "age must be"),
        ({"dpop": True, "most": 0}, "most must be"),
        ({"dpop": True, "store": {}}, "store must be"),
        ({"dpop": True, "nonce_secret": b"short"}, "nonce_secret must be"),
        ({"dpop": True, "nonce_secret": "x" * 32}, "nonce_secret must be"),
        ({"dpop": True, "nonce_age": 1}, "nonce_age must be"),
        ({"certificates": True, "nonce_secret": bytes(32)}, "give dpop=True as well"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], names: str) -> None:
    """Are told by name."""
    with pytest.raises(ra.ConfigurationError, match=names):
        BindingOptions(**options)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"method": None}, "method"),
        ({"url": 1}, "url"),
        ({"proofs": "x"}, "proofs"),
        ({"proofs": None}, "proofs"),
        ({"dpop": "yes"}, "dpop"),
        ({"certificate": 1}, "certificate"),
    ],
    ids=str,
)
def test_what_isnt_a_request(given: dict[str, Any], names: str) -> None:
    """Is the owner's mistake."""
    with pytest.raises(ra.ConfigurationError, match=f"^{names} must be"):
        Presented(**given)


def test_where_it_fits(offline: Any) -> None:
    """For access tokens, and of its kind."""
    for options in (
        {"binding": DPOP, "accepts": "id"},
        {"binding": True},
        {"client_as_audience": True, "accepts": "id"},
    ):
        with pytest.raises(ra.ConfigurationError, match=r"binding|client_as_audience"):
            offline(**options)
    with pytest.raises(ra.ConfigurationError, match="client_as_audience"):
        offline(client_as_audience="yes")
