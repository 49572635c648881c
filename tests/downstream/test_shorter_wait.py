"""`Settings.wait` and a call's deadline: the shorter of the two bounds the wait for a token."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.downstream import TransportOptions
from resilient_auth.emulator import Emulator, Fault


@pytest.fixture
def credential(idp: Emulator) -> Iterator[Callable[[float], Any]]:
    """Make credentials whose callers wait for so long; the provider takes their questions and says nothing."""
    made: list[Any] = []

    def build(wait: float) -> Any:
        app = msal.ConfidentialClientApplication(
            "daemon",
            authority=idp.authority("contoso"),
            client_credential="s",
            instance_discovery=False,
            verify=idp.ca_file,
            resilience=ra.Settings(wait=wait),
        )
        made.append(app)
        return app

    yield build
    for app in made:
        app.close()


@pytest.mark.parametrize(("wait", "deadline"), [(0.2, 20.0), (20.0, 0.2)], ids=["settings", "deadline"])
@pytest.mark.parametrize("kind", ["threads", "tasks", "block"])
async def test_the_shorter_one_holds(
    idp: Emulator, trust: ssl.SSLContext, credential: Callable[[float], Any], kind: str, wait: float, deadline: float
) -> None:
    """In a client of either kind, and in a block that has a deadline."""
    app = credential(wait)
    options = TransportOptions(deadline=max(deadline, 0.5), attempt_timeout=0.2, connect_timeout=0.2, queue_wait=0.2)
    idp.fail(Fault.black_hole(), endpoint="token")
    began = time.monotonic()
    if kind == "block":
        with ra.downstream.deadline(deadline), pytest.raises(ra.AcquisitionTimeout):
            ra.ResilientCredential(app).get_token("api://x/.default")
    elif kind == "threads":
        with (
            ra.api_client(
                idp.api_url, ra.ResilientCredential(app), "api://x/.default", verify=trust, options=options
            ) as client,
            pytest.raises(ra.ResilientAuthError),
        ):
            client.get("/a")
    else:
        async with ra.aio.api_client(
            idp.api_url, ra.aio.ResilientCredential(app), "api://x/.default", verify=trust, options=options
        ) as awaiting:
            with pytest.raises(ra.ResilientAuthError):
                await awaiting.get("/a")
    assert 0.15 < time.monotonic() - began < 3.0


def test_the_waits_of_a_block_have_one_deadline_together(idp: Emulator, credential: Callable[[float], Any]) -> None:
    """Whoever waits once more has what the first wait left."""
    app = credential(20.0)
    idp.fail(Fault.black_hole(), endpoint="token")
    began = time.monotonic()
    with ra.downstream.deadline(1.0):
        for api in ("x", "y", "z"):
            with pytest.raises(ra.AcquisitionTimeout):
                ra.ResilientCredential(app).get_token(f"api://{api}/.default")
    assert 0.9 < time.monotonic() - began < 1.9


def test_a_caller_who_says_so_waits_longer_than_the_settings_but_not_than_the_call() -> None:
    """`wait_at_most` is in place of `Settings.wait`; neither outlasts a deadline around it."""
    from resilient_auth._engine.acquire import patience_of

    assert patience_of(2.0) == 2.0
    with ra.wait_at_most(8.0):
        assert patience_of(2.0) == 8.0
        with ra.downstream.deadline(5.0):
            assert patience_of(2.0) == pytest.approx(5.0, abs=0.5)
            with ra.downstream.deadline(1.0):
                assert patience_of(2.0) == pytest.approx(1.0, abs=0.5)
    with ra.downstream.deadline(5.0), ra.wait_at_most(8.0):
        assert patience_of(2.0) == pytest.approx(5.0, abs=0.5)
