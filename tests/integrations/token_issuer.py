"""A provider whose tokens web frameworks verify, over TLS, and that fails on command."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx

import resilient_auth as ra
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.testing import ManualClock
from resilient_auth.verify import KeyOptions

AUDIENCE = "api://orders"
#: An Authorization header that is no bearer token, and the code that says so.
WRONG_HEADERS = {
    "none": (None, "missing"),
    "other scheme": ("Basic dXNlcjpwYXNz", "missing"),
    "no token": ("Bearer", "malformed_header"),
    "empty": ("", "malformed_header"),
    "two words": ("Bearer a.b.c d.e.f", "malformed_header"),
    "joined": ("Bearer a.b.c, Bearer d.e.f", "malformed_header"),
    "not a token": ('Bearer "a.b.c"', "malformed_header"),
    "forged": ("Bearer eyJhbGciOiJub25lIn0.e30.", "malformed"),
}


class Issuer:
    """The emulator's tenant `contoso`, and tokens of it."""

    def __init__(self, idp: Emulator) -> None:
        self.idp = idp
        self._made: list[Any] = []
        self._trust = ssl.create_default_context(cafile=idp.ca_file)
        idp.add_user("ada@contoso.com")
        document = self._http("GET", "/v2.0/.well-known/openid-configuration")
        self.name: str = document["issuer"]

    def user_token(self, scope: str = "orders.read") -> str:
        """Get a user's token."""
        return self._token(
            grant_type="password", username="ada@contoso.com", password="pw", scope=f"{AUDIENCE}/{scope}"
        )

    def app_token(self) -> str:
        """Get an application's own token, which has the role `Tasks.ReadWrite.All`."""
        return self._token(grant_type="client_credentials", scope=f"{AUDIENCE}/.default")

    def expired_token(self) -> str:
        """Get a user's token that has expired."""
        with_fault = self.idp.fail(Fault.expired_tokens(), endpoint="token")
        try:
            return self.user_token()
        finally:
            with_fault.stop()

    def verifier(self, make: Callable[..., Any] = ra.ClaimsVerifier, **options: Any) -> Any:
        """Make a verifier of its tokens, which waits for keys for half a second only, and is closed in the end."""
        given: dict[str, Any] = {
            "audience": AUDIENCE,
            "keys": KeyOptions(wait=0.5),
            "verify": self.idp.ca_file,
            # A clock of its own has breakers of its own: other tests' outages are theirs.
            "settings": ra.Settings(clock=SystemClock()),
        }
        self._made.append(make(issuer=self.name, **given | options))
        return self._made[-1]

    def close(self) -> None:
        """Close its verifiers, none of which may be asking the provider any more."""
        for verifier in self._made:
            if isinstance(verifier, ra.ClaimsVerifier):
                verifier.close()
            else:
                asyncio.run(verifier.close())

    def outlive(self, clock: ManualClock, seen: Callable[[str], object], accepted: Callable[[str], bool]) -> str:
        """Get a user's token, have it seen, and let it expire in an outage, until it is accepted all the same.

        Fails after thirty real seconds.
        """
        self.idp.token_lifetime = 60.0
        try:
            token = self.user_token()
        finally:
            self.idp.token_lifetime = 3600.0
        ends, expired = time.monotonic() + 30.0, clock.monotonic() + 125.0
        asked = self._discovered()
        seen(self.user_token())
        # The keys are there, and the provider was found to be well.
        while self._discovered() < asked + 2:
            assert time.monotonic() < ends, "it wasn't probed in time"
            time.sleep(0.01)
        clock.advance(1.0)
        seen(token)
        self.idp.fail(Fault.reset())
        while clock.monotonic() < expired or not accepted(token):
            assert time.monotonic() < ends, "it wasn't accepted in time"
            clock.advance(5.0)
            # The provider is probed meanwhile, on a thread that takes real time.
            time.sleep(0.02)
        return token

    def _discovered(self) -> int:
        return sum(call.endpoint == "discovery" for call in self.idp.ledger.calls)

    def goes_down(self) -> None:
        """Accept connections, and answer nothing any more."""
        self.idp.fail(Fault.black_hole())

    def _token(self, **form: str) -> str:
        answer = self._http("POST", "/oauth2/v2.0/token", {"client_id": "spa", "client_secret": "s"} | form)
        return str(answer["access_token"])

    def _http(self, method: str, path: str, form: dict[str, str] | None = None) -> Any:
        with httpx.Client(verify=self._trust, trust_env=False) as client:
            return client.request(method, f"{self.idp.authority('contoso')}{path}", data=form).json()
