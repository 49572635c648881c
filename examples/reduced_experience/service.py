"""A shop's page that asks a recommendations API, and does without when that API fails.

Recommendations are nice to have: while they can't be had, visitors see what was recommended last, marked with its age,
or the editors' choice. The page itself always comes, and quickly.
"""

import time
from typing import Any

import httpx
import resilient_auth as ra

EDITORS_CHOICE = ["tea", "biscuits"]


class Recommendations:
    """The API, as the shop sees it."""

    def __init__(self, url: str, credential: Any, **client: Any) -> None:
        self._kept: tuple[float, list[str]] | None = None
        self._client = ra.api_client(
            url,
            credential,
            options=ra.TransportOptions(
                # A page that waits longer for its garnish is worse than one without.
                deadline=1.0,
                attempt_timeout=0.4,
                connect_timeout=0.4,
                queue_wait=0.2,
                first_delay=0.05,
                breaker=ra.BreakerOptions(first_break=5.0, longest_break=10.0),
            ),
            fallback=self._reduced,
            **client,
        )

    def get(self) -> tuple[list[str], str]:
        """Return what to recommend, and where that comes from."""
        answer = self._client.get("/recommendations")
        answer.raise_for_status()
        if "fallback" in answer.extensions:
            age = answer.headers.get("Age")
            return answer.json(), f"{age} s old" if age else "the editors' choice"
        # The API of this sample answers with what it was asked; a real one would send the items.
        items = [answer.json()["path"]]
        self._kept = (time.monotonic(), items)
        return items, "fresh"

    def _reduced(self, request: httpx.Request, error: httpx.TransportError) -> httpx.Response:
        """Serve what is kept, and say how old it is: the transport marks it as no answer of the API's."""
        if self._kept is None:
            return httpx.Response(200, json=EDITORS_CHOICE)
        at, items = self._kept
        return httpx.Response(200, json=items, headers={"Age": f"{time.monotonic() - at:.0f}"})

    def close(self) -> None:
        self._client.close()
