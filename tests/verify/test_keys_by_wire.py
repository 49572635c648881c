"""Keys that came over a connection which nobody verified vouch for no token elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from arriving import Signer

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator, Fault


@pytest.fixture
def settings_over(clock: Any, settings: Callable[..., ra.Settings]) -> Callable[[], ra.Settings]:
    """Settings with the same store, as one process after another has them."""
    backend = MemoryBackend(clock=clock)
    return lambda: settings(store=ra.SealedStore(backend, key=bytes(range(32)), clock=clock))


def test_a_forged_token_isnt_accepted_for_an_unverified_connections_sake(
    idp: Emulator, at_idp: Any, mint: Any, claims: Any, stranger: Signer, settings_over: Any
) -> None:
    """What somebody in between gave a verifier without verification reaches no other one, over a store neither."""
    idp.fail(Fault.status(200, json.dumps({"keys": [stranger.jwk]})), "jwks")
    forged = stranger.token(claims(iss=f"{idp.url}/{claims()['tid']}/v2.0"))
    lax = at_idp(settings=settings_over(), verify=False)
    assert lax.verify(forged)
    lax.close()
    idp.heal()
    strict = at_idp(settings=settings_over())
    with pytest.raises((ra.InvalidToken, ra.VerificationUnavailable)):
        strict.verify(forged)
    assert strict.verify(mint())


def test_keys_that_came_verified_are_found_in_the_store(
    idp: Emulator, at_idp: Any, mint: Any, settings_over: Any, tmp_path: Any
) -> None:
    """By who trusts the same authorities, wherever their file is; not by who trusts others, or nobody."""
    token = mint()
    at_idp(settings=settings_over()).verify(token)
    idp.fail(Fault.refuse())
    copied = tmp_path / "copied.pem"
    with open(idp.ca_file, "rb") as bundle:
        copied.write_bytes(bundle.read())
    assert at_idp(settings=settings_over(), verify=copied).verify(token)
    trustme.CA().cert_pem.write_to_path(other := str(tmp_path / "other.pem"))
    for verify in (other, False):
        with pytest.raises(ra.VerificationUnavailable):
            at_idp(settings=settings_over(), verify=verify).verify(token)


def test_a_verifier_that_trusts_nobody_leaves_the_others_breakers_closed(
    idp: Emulator, at_idp: Any, mint: Any, clock: Any, settings: Any, tmp_path: Any
) -> None:
    """With equal settings too, and so with one engine."""
    trustme.CA().cert_pem.write_to_path(other := str(tmp_path / "other.pem"))
    shared, token = settings(), mint()
    broken = at_idp(settings=shared, verify=other)
    for _ in range(6):
        with pytest.raises(ra.VerificationUnavailable):
            broken.verify(token)
        clock.skip(6.0)
    assert any(b.state == "open" and "other.pem" in b.wire for b in ra.health().breakers)
    assert at_idp(settings=shared).verify(token)
