"""Entra as the emulator plays it, and callouts that it may call."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from provider_requests import AUDIENCE, events_token

import resilient_auth as ra
from resilient_auth.callouts import EntraCaller
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator
from resilient_auth.verify import KeyOptions


class Entra:
    """A tenant of the emulator's that calls."""

    def __init__(self, idp: Emulator) -> None:
        self.idp = idp
        trust = ssl.create_default_context(cafile=idp.ca_file)
        found = httpx.get(f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration", verify=trust)
        self.issuer: str = found.json()["issuer"]
        self.verifier = ra.ClaimsVerifier(
            issuer=self.issuer,
            audience=AUDIENCE,
            keys=KeyOptions(wait=2.0),
            verify=idp.ca_file,
            settings=ra.Settings(clock=SystemClock()),
        )
        self.verifier.warm_up()
        self.caller = EntraCaller(self.verifier)
        self.headers = self.token()

    def token(self, **claims: Any) -> dict[str, str]:
        """Return the header with a token, with other claims than it should have."""
        return {"Authorization": f"Bearer {events_token(self.idp, **{'issuer': self.issuer} | claims)}"}


@pytest.fixture(scope="session")
def entra() -> Iterator[Entra]:
    """The provider."""
    with Emulator() as idp:
        made = Entra(idp)
        yield made
        made.verifier.close()
