"""Users' own tests can break their API without a network."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth.errors import ConfigurationError
from resilient_auth.testing import chaos

API = "https://api.example"
WORKS = httpx.MockTransport(lambda request: httpx.Response(200))


def test_a_share_of_the_calls_fails() -> None:
    """Repeatably, by the seed; the rate can be changed on the way."""
    broken = chaos(WORKS, rate=0.5, status=503, seed=1)
    with httpx.Client(transport=broken) as client:
        seen = [client.get(API).status_code for _ in range(100)]
        assert 30 < seen.count(503) < 70
        assert broken.hits == seen.count(503)
        broken.rate = 0.0
        assert client.get(API).status_code == 200


async def test_errors_in_tasks() -> None:
    """What is raised goes through the resilient transport."""
    transport = ra.AsyncResilientTransport(
        chaos(WORKS, error=httpx.ConnectError), options=ra.TransportOptions(attempts=1)
    )
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(API)


@pytest.mark.parametrize("wrong", [{"rate": 2}, {"delay": -1}, {"status": 503, "error": httpx.ReadError}])
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    """Are said at once."""
    with pytest.raises(ConfigurationError):
        chaos(WORKS, **wrong)
