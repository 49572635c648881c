"""Keys as providers list them: one `kid` for several algorithms, Ed25519, many of them, and where they lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from arriving import AUDIENCE, TENANT, Signer, Site, b64
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.verify import GraceOptions, KeyOptions, verify_signature
from resilient_auth.verify.jose.jwk import UnusableKey, verification_key
from resilient_auth.verify.keys.documents import keys_in
from resilient_auth.verify.keys.key_set import KeySet

Sign = Callable[[bytes], bytes]
EVERY = frozenset({"RS256", "PS256", "ES256", "EdDSA"})


def curve_key() -> tuple[dict[str, Any], Sign]:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}

    def sign(signed: bytes) -> bytes:
        r, s = decode_dss_signature(private.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    return jwk, sign


def edwards_key() -> tuple[dict[str, Any], Sign]:
    private = ed25519.Ed25519PrivateKey.generate()
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(private.public_key().public_bytes_raw())}, private.sign


def made(algorithm: str, payload: dict[str, Any], sign: Sign, kid: str = "own") -> str:
    signed = f"{b64({'alg': algorithm, 'kid': kid})}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def signs(signer: Signer, algorithm: str) -> Sign:
    scheme = padding.PKCS1v15() if algorithm == "RS256" else padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return lambda signed: signer.private.sign(signed, scheme, hashes.SHA256())


@pytest.fixture
def payload(site: Site, clock: Any) -> dict[str, Any]:
    now = int(clock.wall())
    return {"iss": site.url, "aud": AUDIENCE, "sub": "ann", "scope": "read", "iat": now, "exp": now + 3600}


def test_a_kid_that_is_listed_once_for_each_algorithm(
    site: Site, at_site: Any, signer: Signer, payload: dict[str, Any]
) -> None:
    """One key twice, or a key for each: whichever the token names is the one."""
    curve, sign = curve_key()
    listed = [signer.jwk | {"alg": "PS256"}, signer.jwk | {"alg": "RS256"}, curve | {"kid": "own", "alg": "ES256"}]
    for keys in (listed, listed[::-1]):
        site.provide({"keys": keys})
        verifier = at_site(algorithms=["RS256", "PS256", "ES256"])
        for algorithm in ("RS256", "PS256"):
            assert verifier.verify(made(algorithm, payload, signs(signer, algorithm)))
        assert verifier.verify(made("ES256", payload, sign))
        with pytest.raises(ra.InvalidToken):
            verifier.verify(made("ES256", payload, curve_key()[1]))


@pytest.mark.parametrize(
    ("first", "second"),
    [({"alg": "RS256"}, {"alg": "RS256"}), ({}, {"alg": "RS256"}), ({"alg": "RS256"}, {}), ({}, {})],
    ids=str,
)
def test_two_keys_for_one_algorithm_are_none(
    signer: Signer, stranger: Signer, first: dict[str, str], second: dict[str, str]
) -> None:
    """Nobody could tell which one is meant."""
    text = json.dumps({"keys": [signer.jwk | first, stranger.jwk | second]})
    found = keys_in(text, EVERY, 10)
    assert (dict(found.usable), found.unfit) == ({}, {"own"})


def test_an_algorithm_that_comes_later(signer: Signer, stranger: Signer) -> None:
    """Is taken in beside the known key; another key in its place isn't."""
    options, (curve, _) = KeyOptions(), curve_key()

    def found(*keys: dict[str, Any]) -> Any:
        return keys_in(json.dumps({"keys": [{"kid": "own"} | key for key in keys]}), EVERY, 10).usable

    alone, both = found(signer.jwk | {"alg": "RS256"}), found(signer.jwk | {"alg": "RS256"}, curve)
    held, _ = KeySet().merged(alone, 0.0, options)
    after, anomalies = held.merged(both, 10.0, options)
    assert not anomalies
    assert after.held["own"].key.keys.keys() == {"RS256", "ES256"}
    for other in (found(stranger.jwk), found(stranger.jwk | {"alg": "RS256"}, curve)):
        after, anomalies = held.merged(other, 10.0, options)
        assert [one.kind for one in anomalies] == ["changed"]
        assert after.held["own"].key is alone["own"]


class TestEd25519:
    def test_on_request(self, site: Site, at_site: Any, payload: dict[str, Any]) -> None:
        """By its older name, and its key by either."""
        jwk, sign = edwards_key()
        token = made("EdDSA", payload, sign)
        for named in ({}, {"alg": "EdDSA"}, {"alg": "Ed25519"}):
            site.provide({"keys": [jwk | {"kid": "own", "use": "sig"} | named]})
            assert at_site(algorithms=["EdDSA"]).verify(token).subject == "ann"
            with pytest.raises((ra.InvalidToken, ra.VerificationUnavailable)):
                at_site().verify(token)
            with pytest.raises(ra.InvalidToken) as caught:
                at_site(algorithms=["EdDSA"]).verify(made("EdDSA", payload, edwards_key()[1]))
            assert caught.value.code == "signature"

    def test_the_published_example(self) -> None:
        """RFC 8037, A.4."""
        key = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
        token = (
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        )
        assert verify_signature(token, key, algorithms=["EdDSA"]) == b"Example of Ed25519 signing"

    @pytest.mark.parametrize(
        "point",
        [
            bytes(32),
            (1).to_bytes(32, "little"),
            (1 + (1 << 255)).to_bytes(32, "little"),
            (2**255 - 20).to_bytes(32, "little"),
            (2**255 - 19).to_bytes(32, "little"),
            (2**255 - 18).to_bytes(32, "little"),
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
            bytes(31),
            b"\x00" + bytes([7] * 32),
            b"",
        ],
        ids=bytes.hex,
    )
    def test_points_of_small_order(self, point: bytes) -> None:
        """Signatures of anything can be made for them; a second spelling of a point is none."""
        with pytest.raises(UnusableKey):
            verification_key({"kty": "OKP", "crv": "Ed25519", "x": b64(point)}, EVERY)

    @pytest.mark.parametrize("curve", ["Ed448", "X25519", "P-256", None, ["Ed25519"]], ids=str)
    def test_other_curves(self, curve: Any) -> None:
        """Aren't Ed25519, of whatever size their keys are."""
        with pytest.raises(UnusableKey, match="algorithm"):
            verification_key(edwards_key()[0] | {"crv": curve}, EVERY)


def test_a_thousand_keys(site: Site, at_site: Any, signer: Signer, payload: dict[str, Any]) -> None:
    """With their certificates, as large sets have them; one more is too many."""
    curve = curve_key()[0]
    listed = [curve | {"kid": f"k{n}", "x5c": ["M" * 1500]} for n in range(999)]
    site.provide({"keys": [*listed, signer.jwk]})
    with at_site(algorithms=["RS256", "ES256"]) as verifier:
        assert verifier.verify(signer.token(payload))
        assert sum(k.keys for k in ra.health().keys if k.issuer == site.url) == 1000
    site.provide({"keys": [*listed, signer.jwk, curve | {"kid": "more"}]})
    with pytest.raises(ra.VerificationUnavailable):
        at_site(algorithms=["RS256", "ES256"]).verify(signer.token(payload))


class TestAKeySetWithoutADocument:
    def test_it_is_asked_for_alone(self, site: Site, at_site: Any, signer: Signer, payload: dict[str, Any]) -> None:
        """At its own address, which the issuer's name needn't have anything to do with."""
        site.serve("/certs", {"keys": [signer.jwk]})
        verifier = at_site(issuer="issuer-by-name", jwks_uri=f"{site.url}/certs")
        assert verifier.verify(signer.token(payload | {"iss": "issuer-by-name"}))
        assert site.asked == ["/certs"]
        with pytest.raises(ra.InvalidToken, match="issuer"):
            verifier.verify(signer.token(payload))

    def test_it_outlives_the_process(self, idp: Emulator, mint: Any, settings: Any, clock: Any) -> None:
        """By a store, as the others do."""
        backend = MemoryBackend(clock=clock)
        options = {"issuer": f"{idp.url}/{TENANT}/v2.0", "jwks_uri": f"{idp.url}/{TENANT}/discovery/v2.0/keys"}
        for _ in range(2):
            store = ra.SealedStore(backend, key=bytes(range(32)), clock=clock)
            with ra.ClaimsVerifier(
                **options, audience=AUDIENCE, verify=idp.ca_file, settings=settings(store=store)
            ) as verifier:
                assert verifier.verify(mint())
            idp.fail(Fault.refuse())

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            ({"jwks_uri": "http://keys.example/certs"}, "jwks_uri"),
            ({"jwks_uri": ""}, "jwks_uri"),
            ({"jwks_uri": 1}, "jwks_uri"),
            ({"jwks_uri": "https://keys.example", "discovery": "https://keys.example/d"}, "jwks_uri"),
            ({"jwks_uri": "https://keys.example", "grace": GraceOptions()}, "grace"),
        ],
        ids=str,
    )
    def test_wrong_ones(self, options: dict[str, Any], names: str) -> None:
        """Are told before anything is sent."""
        with pytest.raises(ra.ConfigurationError, match=names):
            ra.ClaimsVerifier(issuer="https://id.example", audience=AUDIENCE, **options)


class TestEntrasOptions:
    @pytest.mark.parametrize(
        ("options", "names"),
        [
            ({"keys_of": "orders"}, "keys_of must be a GUID"),
            ({"keys_of": ""}, "keys_of must be a GUID"),
            ({"appid": "x"}, "appid can't be given here: there is no such option"),
            ({"issuer": "https://id.example"}, "issuer can't be given here: it follows from the tenant"),
            ({"jwks_uri": "https://id.example"}, "jwks_uri can't be given here"),
            (
                {"authority": "https://login.microsoftonline.com/contoso.com"},
                "authority must be an address without a path",
            ),
            ({"authority": "https://login.microsoftonline.com/?p=x"}, "authority must be an address without a path"),
        ],
        ids=str,
    )
    def test_wrong_ones(self, options: dict[str, Any], names: str) -> None:
        """Name themselves and what is right, in every way of making one for a tenant."""
        with pytest.raises(ra.ConfigurationError, match=names):
            ra.ClaimsVerifier.for_entra("contoso.com", AUDIENCE, **options)
        if "keys_of" not in options:
            with pytest.raises(ra.ConfigurationError, match=names):
                ra.ClaimsVerifier.for_external_id("contoso", AUDIENCE, **options)
            with pytest.raises(ra.ConfigurationError, match=names):
                ra.aio.ClaimsVerifier.for_b2c("contoso", ["b2c_1_signin"], AUDIENCE, **options)

    def test_a_slash_is_no_path(self) -> None:
        """As people copy an address."""
        ra.ClaimsVerifier.for_entra("contoso.com", AUDIENCE, authority="https://login.microsoftonline.us/").close()


class TestHttpOnThisMachine:
    @pytest.fixture
    def plain(self) -> Any:
        """A provider without TLS, as a developer runs one: what it answers, and whom it was asked by."""
        answers: dict[str, Any] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(answers.get(self.path, {})).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}", answers
        server.shutdown()
        server.server_close()
        thread.join()

    def test_by_the_owners_word(
        self, plain: Any, signer: Signer, payload: dict[str, Any], settings: Any, clock: Any, monkeypatch: Any
    ) -> None:
        """No proxy is asked, whatever the environment says, and no store keeps it: others have another `localhost`."""
        url, answers = plain
        answers["/.well-known/openid-configuration"] = {"issuer": url, "jwks_uri": f"{url}/keys"}
        answers["/keys"] = {"keys": [signer.jwk]}
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        backend = MemoryBackend(clock=clock)
        store = ra.SealedStore(backend, key=bytes(range(32)), clock=clock)
        options: dict[str, Any] = {"issuer": url, "audience": AUDIENCE, "http_on_loopback": True}
        with ra.ClaimsVerifier(**options, settings=settings(store=store)) as verifier:
            assert verifier.verify(signer.token(payload | {"iss": url}))
        answers.clear()
        again = ra.SealedStore(backend, key=bytes(range(32)), clock=clock)
        with (
            ra.ClaimsVerifier(**options, settings=settings(store=again)) as verifier,
            pytest.raises(ra.VerificationUnavailable),
        ):
            verifier.verify(signer.token(payload | {"iss": url}))

    def test_a_document_over_https_leads_to_no_http(
        self, site: Site, plain: Any, at_site: Any, signer: Signer, payload: dict[str, Any]
    ) -> None:
        """The option is about where one begins."""
        url, answers = plain
        answers["/keys"] = {"keys": [signer.jwk]}
        site.provide({}, jwks_uri=f"{url}/keys")
        hosts = (url.removeprefix("http://"),)
        with pytest.raises(ra.VerificationUnavailable):
            at_site(http_on_loopback=True, keys=KeyOptions(hosts=hosts)).verify(signer.token(payload))

    @pytest.mark.parametrize(
        "issuer",
        [
            "http://id.example",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://[::2]",
            "http://2130706433",
            "http://127.1",
            "ftp://localhost",
            "HTTP://localhost",
        ],
    )
    def test_what_is_another_machine(self, issuer: str) -> None:
        """Or could be read as one."""
        with pytest.raises(ra.ConfigurationError, match="issuer"):
            ra.ClaimsVerifier(issuer=issuer, audience=AUDIENCE, http_on_loopback=True)

    def test_the_fix_is_told(self) -> None:
        """Where it is this machine."""
        for issuer in ("http://localhost:8080/realms/x", "http://127.0.0.1", "http://[::1]:8080"):
            with pytest.raises(ra.ConfigurationError, match="http_on_loopback=True"):
                ra.ClaimsVerifier(issuer=issuer, audience=AUDIENCE)
            ra.ClaimsVerifier(issuer=issuer, audience=AUDIENCE, http_on_loopback=True).close()
        with pytest.raises(ra.ConfigurationError, match="http_on_loopback must be"):
            ra.ClaimsVerifier(issuer="https://id.example", audience=AUDIENCE, http_on_loopback=1)  # type: ignore[arg-type]
