"""A log handler or a listener that itself asks for a token, at each event that it is told of."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]
OTHER = ["https://vault.azure.net/.default"]


class Asking(logging.Handler):
    """Asks for tokens whenever something is logged, and notes what it was and how long that took."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.app: Any = None
        self.scopes = [SCOPE]
        self.took: list[tuple[str, float]] = []
        self._inside = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if self.app is None or getattr(self._inside, "on", False):
            return
        self._inside.on = True
        try:
            for scope in self.scopes:
                begun = time.monotonic()
                with contextlib.suppress(ra.ProviderUnavailable, ra.Closed):  # the test may be over meanwhile
                    self.app.acquire_token_for_client(scope)
                self.took.append((f"{vars(record).get('ra_event')} {scope}", time.monotonic() - begun))
        finally:
            self._inside.on = False


@pytest.fixture
def asking() -> Iterator[Asking]:
    handler, log = Asking(), logging.getLogger("resilient_auth")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


def test_a_log_handler_gets_tokens_while_all_is_well(
    asking: Asking, daemon: Callable[..., Any], eventually: Any
) -> None:
    """The very token that it is told of, and another one."""
    app = asking.app = daemon()
    asking.scopes = [SCOPE, OTHER]
    begun = time.monotonic()
    assert app.acquire_token_for_client(SCOPE)["access_token"]
    assert app.acquire_token_for_client(OTHER)["access_token"]
    assert time.monotonic() - begun < 5
    eventually(lambda: len(asking.took) >= 4)
    asking.app = None
    assert max(took for _, took in asking.took) < 2, asking.took


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.status(429, retry_after=30), Fault.refuse()])
def test_a_log_handler_holds_up_no_exchange_that_fails(
    asking: Asking,
    idp: Emulator,
    daemon: Callable[..., Any],
    settings: Callable[..., ra.Settings],
    fault: Fault,
    eventually: Any,
) -> None:
    """It is told at once that the token can't be had, and so is who asked."""
    app = daemon(resilience=settings(wait=20.0))
    app.acquire_token_for_client(OTHER)
    eventually(lambda: not app._ra_session.engine.workers.status())  # what it tells is told: a handler has one lock
    asking.app = app
    idp.fail(fault, "token")
    begun = time.monotonic()
    with ra.wait_at_most(1), pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - begun < 6
    eventually(lambda: asking.took, 12)
    asking.app = None
    assert max(took for _, took in asking.took) < 5, asking.took


def test_a_log_handler_that_is_told_of_a_denial_goes_on(
    asking: Asking, idp: Emulator, daemon: Callable[..., Any], eventually: Any
) -> None:
    """Whatever it asks for."""
    app = asking.app = daemon()
    idp.deny("client_credentials", "invalid_client")
    begun = time.monotonic()
    assert "error" in app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - begun < 4
    eventually(lambda: asking.took)
    asking.app = None
    assert max(took for _, took in asking.took) < 3, asking.took


def test_a_log_handler_that_is_told_of_a_refused_file_may_use_the_store(
    asking: Asking, daemon: Callable[..., Any], settings: Callable[..., ra.Settings], tmp_path: Path, eventually: Any
) -> None:
    """The store's lock is free by then."""
    tmp_path.chmod(0o700)
    path = tmp_path / "tokens"
    store = ra.FileStore(path, key=bytes(range(32)))
    app = daemon(resilience=settings(store=store))
    app.acquire_token_for_client(["https://first/.default"])
    for file in tmp_path.glob("tokens*"):
        file.unlink()
    path.write_bytes(b"nobody's database" * 100)
    path.chmod(0o600)
    asking.app, asking.scopes = app, [OTHER]
    begun = time.monotonic()
    assert app.acquire_token_for_client(SCOPE)["access_token"]
    assert time.monotonic() - begun < 4
    eventually(lambda: any(name.startswith("store_rejected") for name, _ in asking.took))
    asking.app = None
    assert max(took for _, took in asking.took) < 3, asking.took
    store.close()


def test_a_listener_that_asks_is_answered(idp: Emulator, daemon: Callable[..., Any], eventually: Any) -> None:
    """At each event of an exchange, for the same token and for another one."""
    app, took = daemon(), []

    def listener(event: ra.events.Event) -> None:
        begun = time.monotonic()
        for scope in (SCOPE, OTHER):
            app.acquire_token_for_client(scope)
        took.append(time.monotonic() - begun)

    stop = ra.subscribe(listener)
    app.acquire_token_for_client(SCOPE)
    eventually(lambda: len(took) >= 2)
    stop()
    assert max(took) < 2


def test_an_assertion_function_that_asks_for_its_own_token_is_told_at_once(
    idp: Emulator, daemon: Callable[..., Any]
) -> None:
    """It would wait for itself."""
    seen: list[BaseException | None] = []

    def assertion() -> str:
        begun = time.monotonic()
        try:
            app.acquire_token_for_client(SCOPE)
        except ra.ProviderUnavailable as error:
            seen.append(error)
        assert time.monotonic() - begun < 2
        return "assertion"

    app = daemon(client_credential={"client_assertion": assertion})
    begun = time.monotonic()
    app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - begun < 5
    assert isinstance(seen[0], ra.AcquisitionTimeout)
