"""Users who come once: what is held of them in memory ends with their tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import resilient_auth as ra
from resilient_auth.emulator import Emulator

USER_SCOPE = ["https://graph.microsoft.com/User.Read"]


def test_tokens_on_behalf_of_users_who_are_gone_go_too(
    idp: Emulator, daemon: Callable[..., Any], clock: Any, eventually: Any
) -> None:
    """Nobody can renew them, since their assertions aren't kept; the next one who comes has them forgotten."""
    app = daemon("web-api")
    for n in range(60):
        assert "access_token" in app.acquire_token_on_behalf_of(f"an.assertion.{n}", USER_SCOPE)
    held = lambda: [t for t in ra.health().tokens if t.client_id == "web-api" and t.flow == "on_behalf_of"]  # noqa: E731
    assert len(held()) == 60
    clock.skip(2 * 3600.0)
    assert "access_token" in app.acquire_token_on_behalf_of("an.assertion.at-last", USER_SCOPE)
    eventually(lambda: len(held()) == 1)
    # And it is served as ever.
    again = app.acquire_token_on_behalf_of("an.assertion.at-last", USER_SCOPE)
    assert again["token_source"] == "cache"
