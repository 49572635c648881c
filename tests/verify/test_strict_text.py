"""What isn't exactly a signed token in compact form is refused before anything is believed of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from arriving import Signer, b64
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth.verify.jose.compact import NotStrict, json_object

Refused = Callable[..., str]
Claims = Callable[..., dict[str, Any]]


def test_a_good_token_is_accepted(offline: Any, signer: Signer, claims: Claims) -> None:
    """Or else nothing below would mean anything."""
    found = offline().verify(signer.token(claims()))
    assert (found.object_id, found.client_id, found.scopes) == ("6f6e2c3a-ann", "shop", {"Orders.Read", "Orders.Write"})


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", "missing"),
        (None, "missing"),
        (b"a.b.c", "missing"),
        (12, "missing"),
        (["a"], "missing"),
        ("Bearer x", "malformed"),
        ("a", "malformed"),
        ("a.b", "malformed"),
        ("a.b.c.d", "malformed"),
        ("..", "malformed"),
        ("a..c", "malformed"),
        ("a.b.c.d.e", "encrypted"),
        ("\x00.\x00.\x00", "malformed"),
        ("é.b.c", "malformed"),
        ("\ud800.b.c", "malformed"),
        ("a.b.c\n", "malformed"),
        (" a.b.c", "malformed"),
        ("a" * 40_000, "too_large"),
        ("a" * 5_000_000, "too_large"),
    ],
)
def test_text_that_is_no_token(refused: Refused, token: Any, code: str) -> None:
    """Whatever comes in the header is answered, and nothing but an InvalidToken comes of it."""
    assert refused(token) == code


def test_a_token_with_anything_around_it_is_refused(refused: Refused, signer: Signer, claims: Claims) -> None:
    """Blanks, padding, line ends and a fourth segment aren't trimmed away."""
    token = signer.token(claims())
    for text in (f" {token}", f"{token} ", f"{token}\n", f"{token}=", f"{token}.", f"{token}\x00", f"Bearer {token}"):
        assert refused(text) == "malformed"
    assert refused(token.replace(".", "=.", 1)) == "malformed"


def test_a_segment_has_one_spelling(refused: Refused, signer: Signer, claims: Claims) -> None:
    """Bits left over in the last character, or base64's own alphabet, would give a token a second text."""
    header, payload, signature = signer.token(claims()).split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 256 bytes end in a character with four bits left over.
    other = signature[:-1] + alphabet[alphabet.index(signature[-1]) + 1]
    assert base64.urlsafe_b64decode(other + "==") == base64.urlsafe_b64decode(signature + "==")
    assert refused(f"{header}.{payload}.{other}") == "malformed"
    assert refused(f"{header}.{payload}.{signature[:-1]}+") == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        '{"aud":"x","aud":"y"}',
        '{"a":{"b":1,"b":2}}',
        '{"a":[{"b":1,"b":1}]}',
        '{"exp":NaN}',
        '{"exp":Infinity}',
        '{"exp":-Infinity}',
        '{"a":1e999}',
        '{"a":123456789012345678901234567890}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":"\x01"}',
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        "{'a':1}",
        '{"a":1,}',
        '{"a":1}x',
        '{"a":1}{"a":1}',
        "[]",
        '"x"',
        "1",
        "null",
        "",
        "{",
        '\ufeff{"a":1}',
        '{"a":' + "[" * 17 + "]" * 17 + "}",
        '{"a":' * 900 + "1" + "}" * 900,
        "[" * 15_000,
    ],
    ids=lambda payload: payload[:24],
)
def test_json_that_isnt_strict(refused: Refused, signer: Signer, payload: str) -> None:
    """Each of these is accepted somewhere, and differently by the next one who looks."""
    assert refused(signer.token(payload)) == "malformed"


@pytest.mark.parametrize(
    "member",
    [
        '"sub":"x","sub":"y"',
        '"x":{"b":1,"b":2}',
        '"x":[{"b":1,"b":1}]',
        '"x":NaN',
        '"x":-Infinity',
        '"x":1e999',
        '"x":123456789012345678901',
        '"x":"\x01"',
        '"x":"\\ud800"',
        '"\\udfff":1',
        '"x":' + "[" * 16 + "]" * 16,
        '"x":' + '{"x":' * 16 + "1" + "}" * 16,
        "".join(f'"s{n}":"[{{",' for n in range(20)) + '"x":' + "[" * 16 + "]" * 16,
        '"x":1,',
    ],
    ids=lambda member: member[:24],
)
def test_one_bad_member_spoils_good_claims(refused: Refused, signer: Signer, claims: Claims, member: str) -> None:
    """All else about the token is as it should be."""
    good = json.dumps(claims(sub=None))[:-1]
    assert refused(signer.token(f"{good},{member}}}")) == "malformed"


@pytest.mark.parametrize("member", ['"x":' + "[" * 15 + "]" * 15, '"x":"\\ud83d\\ude00"', '"x":12345678901234567890'])
def test_unusual_members_that_are_fine(offline: Any, signer: Signer, claims: Claims, member: str) -> None:
    """Strict isn't narrow."""
    good = json.dumps(claims())[:-1]
    assert offline().verify(signer.token(f"{good},{member}}}"))


def test_the_same_holds_for_the_header(refused: Refused, signer: Signer, claims: Claims) -> None:
    """Two `alg` or `kid` members are one too many."""
    for header in ('{"alg":"RS256","kid":"own","alg":"none"}', '{"alg":"RS256","kid":"own","kid":"other"}', "[]", "{}"):
        assert refused(signer.sign(header, claims())) == "malformed"


@pytest.mark.parametrize("raw", [b"\xff\xfe{\x00}\x00", '{"a":1}'.encode("utf-16"), b'{"a":"\xed\xa0\x80"}', b"\x80"])
def test_text_that_isnt_utf8(refused: Refused, signer: Signer, raw: bytes) -> None:
    """JSON in a token is UTF-8 (RFC 7519, section 3), whatever a reader would guess."""
    assert refused(signer.token(raw)) == "malformed"


def test_brackets_in_strings_arent_depth(offline: Any, signer: Signer, claims: Claims) -> None:
    """A name may hold as many as it likes."""
    found = offline().verify(signer.token(claims(name='{[\\"' * 40)))
    assert found.name == '{[\\"' * 40


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"crit": ["exp"]}, "critical_header"),
        ({"crit": []}, "critical_header"),
        ({"b64": False}, "critical_header"),
        ({"b64": False, "crit": ["b64"]}, "critical_header"),
        ({"b64": "false"}, "critical_header"),
        ({"cty": "JWT"}, "nested"),
        ({"cty": "application/x"}, "nested"),
        ({"enc": "A256GCM"}, "encrypted"),
        ({"zip": "DEF"}, "encrypted"),
        ({"typ": "dpop+jwt"}, "type"),
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": "secevent+jwt"}, "type"),
        ({"typ": 1}, "type"),
        ({"typ": ["JWT"]}, "type"),
        ({"alg": ["RS256"]}, "malformed"),
        ({"alg": 1}, "malformed"),
        ({"alg": None}, "malformed"),
        ({"kid": 1}, "malformed"),
        ({"kid": ["own"]}, "malformed"),
        ({"kid": ""}, "malformed"),
        ({"kid": "k" * 300}, "malformed"),
        ({"kid": None}, "unknown_key"),
        ({"x": "y" * 8000}, "too_large"),
    ],
)
def test_headers_that_ask_for_something_else(
    refused: Refused, signer: Signer, claims: Claims, header: dict[str, Any], code: str
) -> None:
    """Extensions, nested tokens, other types of token and odd members are refused, correctly signed as they are."""
    assert refused(signer.token(claims(), **header)) == code


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", None])
def test_types_that_are_an_access_tokens(offline: Any, signer: Signer, claims: Claims, kind: str | None) -> None:
    """In any case, with the prefix or without (RFC 7515, section 4.1.9; RFC 9068, section 2.1)."""
    assert offline().verify(signer.token(claims(), typ=kind)).object_id == "6f6e2c3a-ann"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_no_signature_at_all(refused: Refused, claims: Claims, signer: Signer, algorithm: str) -> None:
    """In any spelling, with an empty signature or another one."""
    header = b64({"alg": algorithm, "typ": "JWT", "kid": "own"})
    assert refused(f"{header}.{b64(claims())}.") == "malformed"
    assert refused(f"{header}.{b64(claims())}.AAAA") == "algorithm"
    # Nobody is asked for a key first.
    assert refused(signer.token(claims(), alg=algorithm, kid="unknown")) == "algorithm"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "hs256"])
def test_a_public_key_as_a_secret(refused: Refused, signer: Signer, claims: Claims, algorithm: str) -> None:
    """Whoever knows the public key could sign, if it were taken for a shared secret."""
    import hashlib
    import hmac

    pem = signer.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for secret in (pem, pem.strip(), json.dumps(signer.jwk).encode(), b""):
        signed = f"{b64({'alg': algorithm, 'typ': 'JWT', 'kid': 'own'})}.{b64(claims())}"
        assert refused(f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}") == "algorithm"


@pytest.mark.parametrize(
    "algorithm", ["RS384", "RS512", "PS256", "ES256", "EdDSA", "RSA-OAEP", "dir", "rs256", "RS256 "]
)
def test_algorithms_that_werent_asked_for(refused: Refused, signer: Signer, claims: Claims, algorithm: str) -> None:
    """A good key does what its owner accepts, and nothing else."""
    assert refused(signer.token(claims(), alg=algorithm)) == "algorithm"


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_keys_that_a_token_brings_along(
    refused: Refused, offline: Any, signer: Signer, stranger: Signer, claims: Claims, member: str
) -> None:
    """They are neither used nor fetched; a token that is good otherwise isn't refused for them."""
    carried = {"jwk": stranger.jwk, "jku": "https://evil.example/k", "x5u": "https://evil.example/c", "x5c": ["MII"]}
    assert refused(stranger.token(claims(), **{member: carried[member]})) == "signature"
    assert offline().verify(signer.token(claims(), **{member: carried[member]}))


@pytest.mark.parametrize(
    "kid",
    ["../../etc/passwd", "own' OR 1=1 --", "own\x00", "OWN", " own", "http://169.254.169.254/", "${jndi:ldap://x}"],
)
def test_a_kid_is_an_opaque_name(offline: Any, signer: Signer, claims: Claims, kid: str) -> None:
    """It is looked up, and nothing else: no path, no query, no address. Here nobody can be asked for it."""
    with pytest.raises(ra.VerificationUnavailable) as caught:
        offline().verify(signer.token(claims(), kid=kid))
    assert kid not in str(caught.value)


def test_a_token_of_another_library_is_accepted(offline: Any, signer: Signer, claims: Claims) -> None:
    """PyJWT's, for one."""
    token = jwt.encode(claims(), signer.private, algorithm="RS256", headers={"kid": "own"})
    assert offline().verify(token).name == "Ann"


def test_changed_claims_have_a_wrong_signature(refused: Refused, signer: Signer, claims: Claims) -> None:
    """As has a signature of another token, or one cut short."""
    header, _, signature = signer.token(claims()).split(".")
    assert refused(f"{header}.{b64(claims(oid='somebody-else'))}.{signature}") == "signature"
    header, payload, signature = signer.token(claims()).split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    for wrong in (raw[:-1], raw + b"\0", b"\0" + raw, bytes(256), b"\xff" * 256, b"x"):
        assert refused(f"{header}.{payload}.{b64(wrong)}") == "signature"


@given(st.recursive(st.none() | st.text("[]{}\"\\a,:"), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
    st.text("[]{}\"\\"), inner, max_size=4), max_leaves=40), st.integers(0, 24), st.booleans())  # fmt: skip
def test_what_is_nested_too_deeply_is_refused_before_anything_recurses(value: Any, more: int, in_lists: bool) -> None:
    """Sixteen levels are allowed, whatever brackets stand in the strings."""
    for _ in range(more):
        value = [value] if in_lists else {"a": value}
    value = {"a": value}
    if _levels(value) <= 16:
        assert json_object(json.dumps(value).encode()) == value
    else:
        with pytest.raises(NotStrict, match="nested too deeply"):
            json_object(json.dumps(value).encode())


def _levels(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(_levels, inner), default=0) if isinstance(inner, list) else 0


@pytest.mark.parametrize("text", ["[" * 500_000, "]" * 20, "{" * 18 + "]" * 18, '{"a":' * 200_000, "}{" * 20])
def test_brackets_without_their_other_half_are_no_json(text: str) -> None:
    with pytest.raises(NotStrict, match=r"isn't JSON|too deeply"):
        json_object(text.encode())
