"""The signature path alone: published vectors, and keys that a careful provider doesn't publish."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from arriving import Signer, b64
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

import resilient_auth as ra
from resilient_auth.verify import verify_signature
from resilient_auth.verify.jose.jwk import UnusableKey, verification_key

_JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
_JOE_SAYS = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
_FRODO = (
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIG"
    "lmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
)
#: By section: the token, its key, its algorithm.
VECTORS: dict[str, tuple[str, dict[str, str], str]] = {
    "RFC 7515, A.2": (
        f"eyJhbGciOiJSUzI1NiJ9.{_JOE}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm"
        "4Bh-0Qc_lF5YKt"
        "_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHl"
        "b1L07Qe7K0Gar"
        "ZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9F"
        "s98rqVt5AXLIh"
        "WkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        {
            "kty": "RSA",
            "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-y"
            "RT-SFd2"
            "lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-"
            "UTo7WTBEMa2"
            "R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs9"
            "1kzk2PAcDTW"
            "9gb54h4FRWyuXpoQ",
        },
        "RS256",
    ),
    "RFC 7515, A.3": (
        f"eyJhbGciOiJFUzI1NiJ9.{_JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxf"
        "KTUJqPP3-Kg6NU"
        "1Q",
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
        "ES256",
    ),
    "RFC 7515, A.4": (
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT"
        "2SI-KGDKB34XO0"
        "aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
        {
            "kty": "EC",
            "crv": "P-521",
            "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
            "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
        },
        "ES512",
    ),
    "RFC 7520, 4.2": (
        f"eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{_FRODO}.cu22eBqkYDKgIlTp"
        "zDXGvaFfz6WGoz"
        "7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWX"
        "zg-UD8biiReQF"
        "lfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cB"
        "E5awDzT0qI0n6"
        "uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
        {
            "kty": "RSA",
            "kid": "bilbo.baggins@hobbiton.example",
            "use": "sig",
            "e": "AQAB",
            "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMR"
            "BSFKrKb2wqV"
            "wGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lF"
            "HpPI9bTwJls"
            "de3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxw"
            "UkRz5iaiQkq"
            "gc5gHdrNP5zw",
        },
        "PS384",
    ),
}


def code_of(token: str, jwk: Any, *algorithms: str) -> str:
    """Return why a signature is refused."""
    with pytest.raises(ra.InvalidToken) as caught:
        verify_signature(token, jwk, algorithms=algorithms)
    return caught.value.code


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors(name: str) -> None:
    """Each gives its payload, which needn't be JSON."""
    token, jwk, algorithm = VECTORS[name]
    payload = verify_signature(token, jwk, algorithms=[algorithm])
    assert payload in (_JOE_SAYS, b"Payload", base64.urlsafe_b64decode(_FRODO + "=="))


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_with_one_bit_changed(name: str) -> None:
    """Anywhere in the payload or the signature."""
    token, jwk, algorithm = VECTORS[name]
    _, payload, signature = token.split(".")
    for segment in (payload, signature):
        raw = bytearray(base64.urlsafe_b64decode(segment + "=="))
        for place in (0, len(raw) // 2, len(raw) - 1):
            changed = bytearray(raw)
            changed[place] ^= 1
            text = token.replace(segment, b64(bytes(changed)))
            assert code_of(text, jwk, algorithm) == "signature"


@pytest.mark.parametrize("name", VECTORS)
def test_an_algorithm_must_be_accepted_and_be_the_keys(name: str) -> None:
    """The token's word for it isn't enough."""
    token, jwk, algorithm = VECTORS[name]
    other = "ES384" if algorithm != "ES384" else "RS256"
    assert code_of(token, jwk, other) == "algorithm"
    assert code_of(token, jwk | {"alg": other}, algorithm, other) in ("algorithm", "key")


def test_the_example_without_a_signature_is_refused() -> None:
    """RFC 7515, A.5; and A.1 is signed with a shared secret, which can't even be asked for."""
    token = f"eyJhbGciOiJub25lIn0.{_JOE}."
    assert code_of(token, VECTORS["RFC 7515, A.2"][1], "RS256") == "malformed"
    for algorithm in ("none", "HS256", "rs256", "ES256K"):
        with pytest.raises(ra.ConfigurationError, match="algorithms"):
            verify_signature(token, {}, algorithms=[algorithm])


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_algorithms(signer: Signer, algorithm: str) -> None:
    """The key does each, and takes none for another."""
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]
    scheme = padding.PKCS1v15()
    if algorithm.startswith("PS"):
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    signed = f"{b64({'alg': algorithm})}.{b64('{}')}"
    token = f"{signed}.{b64(signer.private.sign(signed.encode(), scheme, digest))}"
    assert verify_signature(token, signer.jwk, algorithms=[algorithm]) == b"{}"
    assert code_of(token, signer.jwk | {"alg": "RSA-OAEP"}, algorithm) == "key"
    other = "PS256" if algorithm == "RS256" else "RS256"
    lying = f"{b64({'alg': other})}.{b64('{}')}.{token.rpartition('.')[2]}"
    assert code_of(lying, signer.jwk, algorithm, other) == "signature"


def test_a_salt_is_as_long_as_the_digest(signer: Signer) -> None:
    """RFC 7518, section 3.5."""
    signed = f"{b64({'alg': 'PS256'})}.{b64('{}')}"
    for salt in (0, 20, 33, 222):
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        token = f"{signed}.{b64(signer.private.sign(signed.encode(), scheme, hashes.SHA256()))}"
        assert code_of(token, signer.jwk, "PS256") == "signature"


class TestEllipticCurves:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}  # noqa: RUF012
    signed = f"{b64({'alg': 'ES256'})}.{b64('{}')}"
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    def code(self, raw: bytes) -> str:
        return code_of(f"{self.signed}.{b64(raw)}", self.jwk, "ES256")

    def test_psychic_signatures(self) -> None:
        """Zero, the order and their like verify anything where a library forgets to look (CVE-2022-21449)."""
        for r in (0, 1, self.order, self.order - 1, self.order + 1, 2**256 - 1):
            for s in (0, 1, self.order, self.order - 1, self.order + 1, 2**256 - 1):
                assert self.code(r.to_bytes(32) + s.to_bytes(32)) == "signature"

    def test_a_signature_has_one_length(self) -> None:
        """Neither DER, nor padded, nor cut."""
        der = self.private.sign(self.signed.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(der)
        good = r.to_bytes(32) + s.to_bytes(32)
        assert verify_signature(f"{self.signed}.{b64(good)}", self.jwk, algorithms=["ES256"]) == b"{}"
        for raw in (der, good + b"\0", good[:-1], b"\0" + good, r.to_bytes(33) + s.to_bytes(33), good[:32], b"\0"):
            assert self.code(raw) == "signature"

    @pytest.mark.parametrize(
        "changes",
        [
            {"x": b64((numbers.x ^ 1).to_bytes(32))},
            {"x": b64(bytes(32)), "y": b64(bytes(32))},
            {"x": b64(numbers.x.to_bytes(33))},
            {"x": b64(b"\xff" * 32)},
            {"crv": "P-384"},
            {"crv": "secp256k1"},
            {"crv": None},
            {"y": 1},
            {"y": ""},
        ],
    )
    def test_points_that_arent_on_the_curve(self, changes: dict[str, Any]) -> None:
        """Invalid curves give a private key's bits away elsewhere; here they are refused as keys."""
        assert code_of(f"{self.signed}.{b64(bytes(64))}", self.jwk | changes, "ES256") == "key"


class TestKeysThatArentUsed:
    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"use": "enc"}, "use"),
            ({"use": ""}, "use"),
            ({"use": None}, "use"),
            ({"key_ops": ["sign"]}, "key_ops"),
            ({"key_ops": []}, "key_ops"),
            ({"key_ops": "verify"}, "key_ops"),
            ({"alg": "RS512"}, "algorithm"),
            ({"alg": "HS256"}, "algorithm"),
            ({"alg": ["RS256"]}, "algorithm"),
            ({"kty": "oct", "k": "AAAA"}, "private"),
            ({"kty": "oct"}, "type"),
            ({"kty": "OKP"}, "algorithm"),
            ({"kty": None}, "type"),
            ({"kty": ["RSA"]}, "type"),
            ({"e": b64(b"\x01")}, "exponent"),
            ({"e": b64(b"\x03")}, "exponent"),
            ({"e": b64((65536).to_bytes(3))}, "exponent"),
            ({"e": b64(b"\xff" * 32)}, "exponent"),
            ({"e": ""}, "e isn't"),
            ({"e": "AQAB="}, "e isn't"),
            ({"e": "AQ AB"}, "e isn't"),
            ({"e": 65537}, "e isn't"),
            ({"n": "ü"}, "n isn't"),
            ({"n": "A" * 5000}, "n isn't"),
            ({"n": b64(b"\xff" * 1025)}, "bits"),
            ({"n": b64(((1 << 2047) + 2).to_bytes(256))}, "small factor"),
            ({"n": b64((3 * ((1 << 2046) + 1)).to_bytes(256))}, "small factor"),
            ({"d": "AQAB"}, "private"),
            ({"issuer": 1}, "issuer"),
        ],
        ids=str,
    )
    def test_why(self, signer: Signer, changes: dict[str, Any], why: str) -> None:
        """The reason names what is wrong, and nothing of the key."""
        with pytest.raises(UnusableKey, match=why) as caught:
            verification_key(signer.jwk | changes, frozenset({"RS256"}))
        assert signer.jwk["n"][:20] not in str(caught.value)

    @pytest.mark.parametrize("bits", [1024, 1536, 2046])
    def test_short_moduli(self, bits: int) -> None:
        """Under 2,048 bits, a key can be broken by those who can pay for it."""
        short = Signer(bits=bits)
        token = short.token({})
        assert code_of(token, short.jwk, "RS256") == "key"

    def test_the_roca_family(self) -> None:
        """Such moduli are powers of 65537 modulo many small primes at once (CVE-2017-15361)."""
        primes = [n for n in range(3, 168) if all(n % d for d in range(2, n))]
        product = math.prod(primes)
        rest = pow(65537, 123_456_789, product)
        modulus = rest + product * ((1 << 2047) // product + 12)
        modulus += 0 if modulus % 2 else product
        assert modulus.bit_length() == 2048
        jwk = {"kty": "RSA", "e": "AQAB", "n": b64(modulus.to_bytes(256))}
        with pytest.raises(UnusableKey, match="ROCA"):
            verification_key(jwk, frozenset({"RS256"}))

    def test_honest_keys_arent_taken_for_it(self) -> None:
        """The test's mistakes are rare."""
        moduli = [Signer(bits=2048).jwk for _ in range(3)]
        assert all(verification_key(jwk, frozenset({"RS256"})) for jwk in moduli)

    def test_a_private_key_serves_for_vectors_alone(self, signer: Signer) -> None:
        """Published vectors have them; in a key set it is a leak."""
        token = signer.token({})
        assert verify_signature(token, signer.jwk | {"d": "AQAB"}, algorithms=["RS256"]) == b"{}"

    @pytest.mark.parametrize("jwk", [None, [], "x", 1, {}])
    def test_what_is_no_key(self, signer: Signer, jwk: Any) -> None:
        """Whatever is given, the answer is an InvalidToken."""
        assert code_of(signer.token({}), jwk, "RS256") == "key"


def test_a_key_says_nothing_of_itself(signer: Signer) -> None:
    """In a log, a fingerprint and its algorithms."""
    shown = repr(verification_key(signer.jwk, frozenset({"RS256", "PS256"})))
    assert "RS256" in shown
    assert signer.jwk["n"][:12] not in shown
    assert json.dumps(shown)
