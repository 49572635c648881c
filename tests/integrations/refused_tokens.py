"""Credentials that note how they are asked and what they are told of, and a claims challenge."""

from __future__ import annotations

import base64
import json
from typing import Any

CLAIMS = json.dumps({"access_token": {"nbf": {"essential": True, "value": "17"}}})
CHALLENGE = f'Bearer error="insufficient_claims", claims="{base64.b64encode(CLAIMS.encode()).decode()}"'


class _Noting:
    """Notes how it was asked and what it was told; each token that is forgotten has a successor."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.forgotten: list[str] = []

    def _give(self, claims: str | None) -> Any:
        self.asked.append(claims)
        return type("Token", (), {"token": f"T{len(self.forgotten) + 1}"})()


class Source(_Noting):
    """A credential of asyncio's."""

    async def get_token(self, *scopes: str, claims: str | None = None, **options: Any) -> Any:
        return self._give(claims)

    async def invalidate(self, token: str) -> None:
        self.forgotten.append(token)


class Blocking(_Noting):
    """A credential that blocks."""

    def get_token(self, *scopes: str, claims: str | None = None, **options: Any) -> Any:
        return self._give(claims)

    def invalidate(self, token: str) -> None:
        self.forgotten.append(token)
