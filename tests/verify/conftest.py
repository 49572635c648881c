"""Verifiers at an emulator, at a provider of the tests' own, and with pinned keys and no provider at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from arriving import AUDIENCE, NOWHERE, TENANT, Signer, Site, access_claims

import resilient_auth as ra
from resilient_auth.emulator import Emulator


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    """Leave out what the machine's environment says."""


@pytest.fixture(scope="session")
def signer() -> Signer:
    """A key of the tests' own."""
    return Signer()


@pytest.fixture(scope="session")
def stranger() -> Signer:
    """A key that nobody trusts, under the same `kid`."""
    return Signer()


@pytest.fixture(scope="session")
def pem() -> str:
    """A client's certificate."""
    return trustme.CA().issue_cert("client.example").cert_chain_pems[0].bytes().decode()


@pytest.fixture
def settings(clock: Any) -> Callable[..., ra.Settings]:
    """Build settings on the test's own clock, and so with an engine that no other test shares."""

    def build(**options: Any) -> ra.Settings:
        return ra.Settings(**{"clock": clock} | options)

    return build


@pytest.fixture
def offline(signer: Signer, settings: Callable[..., ra.Settings]) -> Iterator[Callable[..., ra.ClaimsVerifier]]:
    """Build a verifier with a pinned key, whose provider isn't there."""
    built: list[ra.ClaimsVerifier] = []

    def build(**options: Any) -> ra.ClaimsVerifier:
        given = {"pinned_keys": {"keys": [signer.jwk]}, "settings": settings(), "audience": AUDIENCE} | options
        if "issuer" in given:
            built.append(ra.ClaimsVerifier(**given))
        else:
            tenant = given.pop("tenant", TENANT)
            built.append(ra.ClaimsVerifier.for_entra(tenant, given.pop("audience"), authority=NOWHERE, **given))
        return built[-1]

    yield build
    for verifier in built:
        verifier.close()


@pytest.fixture
def claims(clock: Any) -> Callable[..., dict[str, Any]]:
    """Make the claims of a user's access token, with changes."""
    return lambda **changes: access_claims(clock, **changes)


@pytest.fixture
def refused(offline: Callable[..., ra.ClaimsVerifier]) -> Callable[..., str]:
    """Return the code with which a token is refused; it must be refused as invalid, and its message tell none of it."""
    verifiers: list[ra.ClaimsVerifier] = []

    def code(token: Any, **asked: Any) -> str:
        if not verifiers:
            verifiers.append(offline())
        with pytest.raises(ra.InvalidToken) as caught:
            verifiers[0].verify(token, **asked)
        error = caught.value
        if isinstance(token, str) and len(token) > 20:
            assert token[:20] not in f"{error} {error!r} {error.www_authenticate('r')}"
            assert token[-20:] not in f"{error} {error!r} {error.www_authenticate('r')}"
        assert error.www_authenticate("r").isascii()
        assert "\n" not in error.www_authenticate("r")
        return error.code

    return code


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def mint(idp: Emulator, clock: Any) -> Callable[..., str]:
    """Have the provider sign a user's access token, with changes."""

    def sign(header: dict[str, Any] | None = None, **changes: Any) -> str:
        return idp.sign(access_claims(clock, idp.url, **changes), header)

    return sign


@pytest.fixture
def at_idp(idp: Emulator, settings: Callable[..., ra.Settings]) -> Iterator[Callable[..., ra.ClaimsVerifier]]:
    """Build a verifier at the emulator."""
    built: list[ra.ClaimsVerifier] = []

    def build(**options: Any) -> ra.ClaimsVerifier:
        given = {"settings": settings(), "verify": idp.ca_file, "audience": AUDIENCE, "authority": idp.url} | options
        built.append(ra.ClaimsVerifier.for_entra(given.pop("tenant", TENANT), given.pop("audience"), **given))
        return built[-1]

    yield build
    for verifier in built:
        verifier.close()


@pytest.fixture
def fetches(idp: Emulator) -> Callable[[], int]:
    """Count how often the provider was asked for its keys."""
    return lambda: sum(call.endpoint == "jwks" for call in idp.ledger.calls)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def at_site(site: Site, settings: Callable[..., ra.Settings]) -> Iterator[Callable[..., ra.ClaimsVerifier]]:
    """Build a verifier at the tests' own provider."""
    built: list[ra.ClaimsVerifier] = []

    def build(**options: Any) -> ra.ClaimsVerifier:
        given = {"issuer": site.url, "audience": AUDIENCE, "verify": site.trust, "settings": settings()} | options
        built.append(ra.ClaimsVerifier(**given))
        return built[-1]

    yield build
    for verifier in built:
        verifier.close()
