"""A process without file descriptors sees nothing of a provider, and takes it for nothing."""

from __future__ import annotations

import errno
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth import errors
from resilient_auth._process.resources import exhausted
from resilient_auth._store.memory import MemoryBackend
from resilient_auth._wire.failures import as_failure
from resilient_auth.emulator import Emulator

WORKER = Path(__file__).with_name("starved_process.py")


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize("client", ["ours", "requests"])
def test_a_process_without_descriptors_takes_nobody_for_down(idp: Emulator, tmp_path: Any, client: str) -> None:
    """No breaker opens, no grace is given, no hint is posted; a valid token is served, and all is well afterwards."""
    about = {
        "url": idp.url,
        "authority": idp.authority("contoso"),
        "api_url": idp.api_url,
        "ca_file": idp.ca_file,
        "store": str(tmp_path / "store"),
        "client": client,
    }
    done = subprocess.run(
        [sys.executable, str(WORKER), json.dumps(about)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["valid"] == "cache same"
    assert said["expired"] == ["local_resources"] * 4
    assert said["seen down"] == 0
    assert said["breakers"] == {}
    assert said["hints"] == 0
    assert said["api"]
    assert said["after"] == ["identity_provider other", 401]


def _raised(error: BaseException, *causes: BaseException) -> BaseException:
    for outer, inner in zip((error, *causes), causes, strict=False):
        outer.__cause__ = inner
    return error


LOCAL = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENFILE, "Too many open files in system"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.ENOBUFS, "No buffer space available"),
    OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
    MemoryError(),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("cause", LOCAL, ids=repr)
def test_what_is_this_machines_own_isnt_the_providers(cause: BaseException) -> None:
    """However deep it is, and whoever raised it."""
    error = _raised(Exception("outer"), Exception("inner"), cause)
    assert isinstance(as_failure(error, "https://a"), errors.LocalResourcesExhausted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        _raised(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), OSError(errno.EADDRNOTAVAIL, "no IPv6 here")),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ssl.SSLError(1, "certificate verify failed"),
        TimeoutError("late"),
        RuntimeError("a bug"),
    ],
    ids=repr,
)
def test_what_the_network_says_is_still_the_providers(error: Exception) -> None:
    """A name that doesn't resolve and an address that refuses are failures, as ever."""
    assert not exhausted(error)
    assert not isinstance(as_failure(error, "https://a"), errors.LocalResourcesExhausted)


class _Full(MemoryBackend):
    """A medium that can't be opened, for want of a descriptor."""

    full = True

    def get(self, key: str) -> Any:
        if self.full:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().get(key)


def test_a_store_that_couldnt_be_opened_is_asked_again_at_once() -> None:
    """It may be well: its breaker stays closed."""
    backend = _Full()
    store = ra.SealedStore(backend, key=bytes(range(32)))
    for _ in range(5):
        with pytest.raises(ra.StoreUnavailable) as caught:
            store.read("document", "a")
        assert caught.value.reason == "local_resources"
    backend.full = False
    assert store.read("document", "a") is None


def test_a_last_decision_doesnt_stand_in_where_nobody_could_be_asked() -> None:
    """Who takes all descriptors of a process doesn't keep a yes alive; an outage of the service's does."""
    failing: list[Exception] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if failing:
            raise httpx.ConnectError("failed") from failing[0]
        return httpx.Response(200, json={"allowed": True})

    asker = ra.RemoteClaimsVerifier(
        "https://claims.example/decide",
        transport=httpx.MockTransport(answer),
        when_unavailable="last_decision",
        sends=("iss", "sub"),
        options=ra.TransportOptions(attempts=1),
    )
    claims = {"iss": "https://idp.example", "sub": "ann"}
    assert asker.verify(claims).provenance == "service"
    failing.append(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    assert asker.verify(claims).provenance == "last_decision"
    failing[0] = OSError(errno.EMFILE, "Too many open files")
    decision = asker.verify(claims)
    assert (decision.allowed, decision.provenance, decision.code) == (False, "denied", "local_resources")
