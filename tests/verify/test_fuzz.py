"""Whatever comes, one of two errors is raised or the token is good: nothing else, and never for a forged one."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from arriving import AUDIENCE, NOWHERE, TENANT, Signer, b64
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth.verify import verify_signature
from resilient_auth.verify.keys.documents import UnusableDocument, facts_in, keys_in
from resilient_auth.verify.trust import entra

RUNS = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["iss", "aud", "exp", "nbf", "iat", "tid", "sub", "oid", "azp", "appid", "scp", "roles", "wids", "idtyp", "tfp",
     "acr", "sid", "uti", "jti", "nonce", "name", "xms_cc", "ver", "gty", "client_id", "at_hash", "preferred_username"]
)  # fmt: skip
HEADERS = st.sampled_from(
    ["alg", "typ", "kid", "crit", "b64", "cty", "jku", "jwk", "x5c", "x5u", "x5t", "enc", "zip", "nonce"]
)

VALUES = JSON | st.sampled_from(
    [
        "RS256",
        "none",
        "HS256",
        "JWT",
        "at+jwt",
        "own",
        AUDIENCE,
        TENANT,
        f"{NOWHERE}/{TENANT}/v2.0",
        2**31,
        2**63,
        -1,
        1e308,
    ]
)


@pytest.fixture(scope="module")
def key() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def verifier(key: Signer) -> Any:
    options = {"authority": NOWHERE, "pinned_keys": {"keys": [key.jwk]}, "settings": ra.Settings(queue_per_authority=3)}
    with ra.ClaimsVerifier.for_entra(TENANT, AUDIENCE, **options) as made:
        yield made


def claims() -> dict[str, Any]:
    return {
        "iss": f"{NOWHERE}/{TENANT}/v2.0", "aud": AUDIENCE, "tid": TENANT, "sub": "s", "azp": "shop", "scp": "a b",
        "exp": 2**33,
    }  # fmt: skip


def accepted(verifier: ra.ClaimsVerifier, token: Any, **asked: Any) -> bool:
    """Return whether a token is accepted; any error but the two is the test's failure."""
    with ra.wait_at_most(0.001):
        try:
            found = verifier.verify(token, **asked)
        except (ra.InvalidToken, ra.VerificationUnavailable) as raised:
            error = raised
        else:
            assert found.issuer == f"{NOWHERE}/{TENANT}/v2.0"
            return True
    if isinstance(error, ra.InvalidToken):
        header = error.www_authenticate("r")
        assert header.isascii()
        assert header.isprintable()
    assert error.status in (401, 403) if isinstance(error, ra.InvalidToken) else error.retry_after >= 1
    return False


@RUNS
@given(st.text() | st.binary() | st.none() | st.integers() | st.lists(st.text()))
@example("a" * 100_000)
@example("." * 100_000)
def test_anything(verifier: Any, thing: Any) -> None:
    """In place of a token."""
    assert not accepted(verifier, thing)


@RUNS
@given(st.binary(max_size=80), st.binary(max_size=200), st.binary(max_size=300))
def test_any_segments(verifier: Any, header: bytes, payload: bytes, signature: bytes) -> None:
    """In base64url."""
    assert not accepted(verifier, f"{b64(header)}.{b64(payload)}.{b64(signature)}")


@RUNS
@given(st.dictionaries(HEADERS, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=5), st.booleans())
def test_signed_with_anything_in_it(
    verifier: Any, key: Signer, header: dict[str, Any], changes: dict[str, Any], both: bool
) -> None:
    """Our own provider's signature under odd claims: accepted or refused, and what is accepted is what was checked."""
    payload = claims() | changes
    token = key.sign({"alg": "RS256", "typ": "JWT", "kid": "own"} | (header if both else {}), json.dumps(payload))
    if accepted(verifier, token):
        assert payload["iss"] == f"{NOWHERE}/{TENANT}/v2.0"
        assert payload["aud"] == AUDIENCE or AUDIENCE in payload["aud"]
        assert type(payload["exp"]) in (int, float)
        assert payload.get("tid", TENANT) == TENANT
        assert accepted(verifier, token)


@RUNS
@given(st.data())
def test_a_good_token_with_any_character_changed(verifier: Any, key: Signer, data: st.DataObject) -> None:
    """Is no good token any more."""
    token = key.token(claims())
    assert accepted(verifier, token)
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters() | st.sampled_from("ABab01-_.="))
    changed = token[:place] + character + token[place + 1 :]
    assert accepted(verifier, changed) is (changed == token)
    assert not accepted(verifier, token[:place])
    assert not accepted(verifier, token[:place] + token[place + 1 :])


@RUNS
@given(st.dictionaries(HEADERS, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4))
def test_no_forged_token_is_accepted(verifier: Any, header: dict[str, Any], changes: dict[str, Any]) -> None:
    """Whatever its header says about how it is to be verified."""
    stranger = _stranger()
    token = stranger.sign({"alg": "RS256", "kid": "own"} | header, json.dumps(claims() | changes))
    assert not accepted(verifier, token)
    assert not accepted(verifier, token, grace=True)


def _stranger(made: list[Signer] = []) -> Signer:  # noqa: B006 - one for all examples
    if not made:
        made.append(Signer())
    return made[0]


@RUNS
@given(
    st.dictionaries(
        st.sampled_from(["kty", "n", "e", "kid", "use", "alg", "key_ops", "x", "y", "crv", "issuer"]), VALUES
    )
)
def test_any_key(key: Signer, changes: dict[str, Any]) -> None:
    """A JWK that is none is refused as an invalid token, too."""
    token = key.token(claims())
    try:
        verify_signature(token, key.jwk | changes, algorithms=["RS256", "ES256"])
    except ra.InvalidToken:
        pass
    else:
        assert changes.get("n", key.jwk["n"]) == key.jwk["n"]


@RUNS
@given(st.text() | JSON.map(lambda value: json.dumps(value)) | JSON.map(lambda value: json.dumps({"keys": [value]})))
def test_any_document(text: str) -> None:
    """Is used, or refused as what it is."""
    (trust,) = entra(TENANT, NOWHERE)
    with suppress(UnusableDocument):
        assert not keys_in(text, frozenset({"RS256"}), 10).usable
    with pytest.raises(UnusableDocument):
        facts_in(text, trust, frozenset({"localhost:9"}))
