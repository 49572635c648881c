"""What a signed-in user's token costs among a hundred users and among a hundred thousand: ours and MSAL's."""

from __future__ import annotations

import base64
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msal

import resilient_auth as ra
from resilient_auth.emulator import Emulator

from .measure import in_turns, table

SCOPES = ["https://graph.microsoft.com/User.Read"]
FEW, MANY = 100, 100_000
#: Users whose tokens are asked for, in turn.
ACTIVE = 500


def _segment(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _sign_in(app: Any, number: int) -> None:
    """Put into the cache what a sign-in would."""
    claims = {"preferred_username": f"user{number}@contoso.com", "oid": str(number), "sub": str(number), "aud": "web"}
    app.token_cache.add(
        {
            "client_id": "web",
            "scope": SCOPES,
            "token_endpoint": app.authority.token_endpoint,
            "environment": "localhost",
            "grant_type": "authorization_code",
            "response": {
                "access_token": f"token-of-{number}" + "x" * 1200,
                "refresh_token": f"refresh-token-of-{number}" + "x" * 800,
                "id_token": f"{_segment({'alg': 'none'})}.{_segment(claims)}.",
                "client_info": _segment({"uid": str(number), "utid": "contoso"}),
                "expires_in": 80_000,
                "refresh_in": 40_000,
            },
        }
    )


def _turns(app: Any, users: int) -> Callable[[], object]:
    """Serve one active user after the other: find the account by its name, and get its token silently."""
    active: Iterator[int] = itertools.cycle(random.Random(0).sample(range(users), min(users, ACTIVE)))

    def serve() -> object:
        account = app.get_accounts(username=f"user{next(active)}@contoso.com")[0]
        result = app.acquire_token_silent(SCOPES, account)
        assert result["access_token"].startswith("token-of-")
        return result

    for _ in range(ACTIVE if isinstance(app, ra.msal.ClientApplication) else 1):
        serve()
    return serve


def run() -> None:
    """Measure with all users in memory, and with most of them in a store."""
    with Emulator() as idp, tempfile.TemporaryDirectory() as directory:
        about = {"authority": idp.authority("contoso"), "instance_discovery": False, "verify": str(idp.ca_file)}
        calls: dict[str, Callable[[], object]] = {}
        for users in (FEW, MANY):
            ours = ra.msal.ConfidentialClientApplication("web", "secret", **about)
            theirs = msal.ConfidentialClientApplication("web", "secret", **about)
            for number in range(users):
                _sign_in(ours, number)
                _sign_in(theirs, number)
            calls[f"resilient_auth.msal, {users:,} users"] = _turns(ours, users)
            calls[f"msal, {users:,} users"] = _turns(theirs, users)
        order = sorted(calls, key=lambda name: (name.startswith("msal"), len(name)))
        table("get_accounts(username=) and acquire_token_silent", in_turns({name: calls[name] for name in order}))

        small = ra.Settings(store=ra.FileStore(Path(directory) / "tokens"), max_users=50, max_tokens=50)
        stored = ra.msal.ConfidentialClientApplication("web", "secret", resilience=small, **about)
        for number in range(ACTIVE):
            _sign_in(stored, number)
        # Until it is written, a user stays in memory.
        while not stored._ra_session.shared_cache.settled:
            time.sleep(0.05)
        costs = in_turns({"a user who comes back from a FileStore": _turns(stored, ACTIVE)}, rounds=5)
        table("the same, with 50 of 500 users in memory", costs)
        stored.close()
