"""How far the searches go: a little in every run of the tests, and much further by `make search`."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def preemptions() -> int:
    """How many preemptions an order has at most."""
    return int(os.environ.get("RESILIENT_AUTH_SEARCH", "1"))
