"""A provider, and Flask applications whose users sign in there; each test has an authority of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from signin_site import Site

from resilient_auth.emulator import Emulator


@pytest.fixture(scope="session")
def _running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        for name in ("ada", "bob"):
            emulator.add_user(f"{name}@contoso.com")
        yield emulator


@pytest.fixture
def emulator(_running: Emulator, own_environment: None) -> Iterator[Emulator]:
    yield _running
    _running.heal()
    _running.allow()


@pytest.fixture
def make_site(emulator: Emulator, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**given: Any) -> Site:
        made.append(Site(emulator, tmp_path, **given))
        return made[-1]

    yield make
    for site in made:
        site.stop()


@pytest.fixture(scope="module")
def _lasting(_running: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(_running, tmp_path_factory.mktemp("site"))
    yield site
    site.stop()


@pytest.fixture
def site(_lasting: Site, emulator: Emulator) -> Site:
    """An application of the module's, and a browser of the test's own."""
    _lasting.browser = _lasting.another_browser()
    return _lasting
