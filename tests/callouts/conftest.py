"""Entra as the emulator plays it, and writes in the background on a clock of their own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from databases import KEY, FailingBackend
from provider_requests import AUDIENCE, events_token

import resilient_auth as ra
from resilient_auth.callouts import BackgroundWrites, EntraCaller
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator
from resilient_auth.testing import ManualClock, no_jitter
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


@pytest.fixture
def manual() -> ManualClock:
    return ManualClock()


@pytest.fixture
def backend(manual: ManualClock) -> FailingBackend:
    return FailingBackend(clock=manual)


@pytest.fixture
def make(manual: ManualClock, backend: FailingBackend) -> Iterator[Callable[..., BackgroundWrites]]:
    made: list[BackgroundWrites] = []

    def make(target: Any, **options: Any) -> BackgroundWrites:
        store = options.pop("store", None) or ra.SealedStore(backend, key=KEY, clock=manual, jitter=no_jitter)
        made.append(BackgroundWrites("audit", target, store=store, clock=manual, jitter=no_jitter, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pass_until(manual: ManualClock) -> Callable[..., None]:
    """Let the clock's time pass until something holds."""

    def wait(true: Callable[[], object], *, at_most: float = 7200.0, step: float = 1.0) -> None:
        passed = 0.0
        pause = threading.Event()
        while not true():
            assert passed < at_most, "it never became true"
            manual.advance(step)
            passed += step
            # For the threads that are woken, of which more is asked where the time that may pass is short.
            pause.wait(0.004 if at_most > 60.0 else 0.02)

    return wait
