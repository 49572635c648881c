"""What may run inside a locked region without anybody's doing: the collector, and the handler of a signal."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import httpx

from resilient_auth.emulator import Emulator, Fault


def test_calls_of_a_loop_that_was_dropped_end_without_a_lock(idp: Emulator, run_program: Callable[..., str]) -> None:
    """The collector ends them on any thread, in any locked region; what they held is given back by who comes next."""
    form = {
        "grant_type": "client_credentials",
        "client_id": "daemon",
        "client_secret": "s",
        "scope": "api://orders/.default",
    }
    trust = ssl.create_default_context(cafile=idp.ca_file)
    token = httpx.post(f"{idp.authority('contoso')}/oauth2/v2.0/token", data=form, verify=trust).json()["access_token"]
    idp.fail(Fault.slow(30.0), "token")
    idp.fail(Fault.slow(30.0), "jwks")
    assert run_program("dropped_loops.py", idp.url, idp.api_url, idp.ca_file, token).strip() == "none"


def test_health_can_be_asked_by_a_signals_handler(
    idp: Emulator, directory: Path, run_program: Callable[..., str]
) -> None:
    """Whatever the main thread is in the middle of."""
    told = run_program("health_in_a_handler.py", idp.url, idp.api_url, idp.ca_file, directory)
    assert told.strip() == "True none"
