"""A claims service's name with many addresses, none of which says anything: decided in time all the same."""

from __future__ import annotations

import asyncio
import time

import pytest

import resilient_auth as ra


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_the_deadline_holds_for_all_addresses_together(swallowing, resolver, kind):
    """Eight that swallow what they are sent don't take eight times as long."""
    port = swallowing(8)
    resolver("eight.example", *(f"127.0.0.{number}" for number in range(2, 10)))
    url, claims = f"https://eight.example:{port}/decide", {"iss": "https://idp.example", "sub": "ada"}
    began = time.monotonic()
    if kind == "threads":
        with ra.RemoteClaimsVerifier(url, sends="sub", deadline=1.0) as verifier:
            decision = verifier.verify(claims)
    else:

        async def ask() -> ra.Decision:
            async with ra.aio.RemoteClaimsVerifier(url, sends="sub", deadline=1.0) as verifier:
                return await verifier.verify(claims)

        decision = asyncio.run(ask())
    assert not decision.allowed
    assert time.monotonic() - began < 1.6
