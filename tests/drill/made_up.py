"""Evidence made up for the judge."""

from __future__ import annotations

from typing import Any

from resilient_auth.drill.client.records import Request
from resilient_auth.emulator import Call, IssuedToken

DARK_FROM, DARK_UNTIL, ENDED = 1010.0, 1020.0, 1030.0


def issued(name: str, at: float, lifetime: float = 320.0) -> IssuedToken:
    return IssuedToken(f"jti-{name}", f"sha-{name}", "s", "c", "t", (), at, at + lifetime, "access")


def call(at: float, name: str | None = None, fault: str | None = None, status: int = 200) -> Call:
    jti = None if name is None else f"jti-{name}"
    return Call(at, at, "token", "POST", "localhost", "/", fault=fault, status=status, token_id=jti)


def asked(at: float, name: str | None = "a", wait: float = 0.001, **rest: Any) -> Request:
    return Request(at, wait, None if name is None else f"sha-{name}", **rest)
