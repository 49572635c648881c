"""When an application's secrets end, as Microsoft Graph has it (G24)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from ..._policy.checks import require
from ...errors import ConfigurationError

__all__ = ["graph_secret_ends"]


def graph_secret_ends(client: Any, *client_ids: str) -> Callable[[], dict[str, list[datetime]]]:
    """Return a function for `watch(secret_expires=...)` that asks Microsoft Graph when secrets end (G24).

    It reads the `passwordCredentials` of each application, which needs `Application.Read.All`, or the application to be
    an owner of itself with `Application.Read.OwnedBy`. Graph tells no secret.

    Args:
        client: Such as `ra.api_client("https://graph.microsoft.com", app, "https://graph.microsoft.com/.default")`.
        client_ids: Whose secrets.

    Raises:
        ConfigurationError: No application is named.
    """
    require(callable(getattr(client, "get", None)), f"client must be an httpx.Client, not {type(client).__name__}")
    named = bool(client_ids) and all(isinstance(each, str) and each for each in client_ids)
    require(named, "client_ids must name applications, each by its client id")

    def read() -> dict[str, list[datetime]]:
        return {client_id: _ends(client, client_id) for client_id in client_ids}

    return read


def _ends(client: Any, client_id: str) -> list[datetime]:
    named = quote(client_id.replace("'", "''"), safe="")
    answer = client.get(f"/v1.0/applications(appId='{named}')", params={"$select": "passwordCredentials"})
    if answer.status_code != 200:
        raise ConfigurationError(
            f"Microsoft Graph answered {answer.status_code} when it was asked for the application {client_id}: grant "
            "Application.Read.All, or Application.Read.OwnedBy where it owns itself"
        )
    try:
        return [datetime.fromisoformat(each["endDateTime"]) for each in answer.json()["passwordCredentials"]]
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"Microsoft Graph's answer tells no ends of secrets of {client_id}") from None
