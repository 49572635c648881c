"""Discovery documents: the last known good one, refreshed behind (G14, G15)."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import cachetools

from .._policy.failure import Purpose
from .wire import Answer

__all__ = ["ALIASES", "Document", "Documents", "aliases_of", "fault_in"]


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A document as it came, and when; times are on the monotonic clock."""

    answer: Answer
    obtained_at: float
    #: When a newer one was last asked for in vain.
    tried_at: float = float("-inf")


class Documents:
    """Hold documents by what was asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: cachetools.LRUCache[str, Document] = cachetools.LRUCache(1024)

    def get(self, key: str) -> Document | None:
        """Find a document."""
        with self._lock:
            found: Document | None = self._documents.get(key)
            return found

    def put(self, key: str, document: Document) -> None:
        """Keep a document."""
        with self._lock:
            self._documents[key] = document

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child."""
        self._lock = threading.Lock()


def fault_in(purpose: Purpose, text: str) -> str | None:
    """Tell why a document must not be kept; None when it may."""
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "it isn't JSON"
    if not isinstance(body, dict):
        return "it isn't a JSON object"
    if purpose is Purpose.ALIASES:
        return _fault_in_aliases(body)
    for name in ("authorization_endpoint", "token_endpoint"):
        if not _is_https(body.get(name)):
            return f"its {name} isn't an https URL"
    device = body.get("device_authorization_endpoint")
    if device is not None and not _is_https(device):
        return "its device_authorization_endpoint isn't an https URL"
    return None


def _is_https(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def _fault_in_aliases(body: Mapping[str, Any]) -> str | None:
    if "error" in body:
        return "it is an error"
    if "tenant_discovery_endpoint" in body and not _is_https(body["tenant_discovery_endpoint"]):
        return "its tenant_discovery_endpoint isn't an https URL"
    groups = body.get("metadata", [])
    if not isinstance(groups, list) or not all(
        isinstance(group, dict)
        and isinstance(group.get("aliases"), list)
        and all(isinstance(alias, str) for alias in group["aliases"])
        for group in groups
    ):
        return "its metadata isn't a list of aliases"
    return None


#: The host names of each Microsoft cloud, which MSAL asks for after a failure and with no account. They have not
#: changed in years; knowing them saves a call that can fail (G14). Source: the instance discovery endpoint.
_CLOUDS = (
    ("login.microsoftonline.com", "login.microsoft.com", "sts.windows.net", "login.windows.net"),
    ("login.partner.microsoftonline.cn", "login.chinacloudapi.cn"),
    ("login.microsoftonline.us", "login.usgovcloudapi.net"),
    ("login-us.microsoftonline.com",),
)

#: The same, as the endpoint would answer.
ALIASES = json.dumps(
    {
        "api-version": "1.1",
        "metadata": [
            {"preferred_network": cloud[0], "preferred_cache": cloud[-1], "aliases": list(cloud)} for cloud in _CLOUDS
        ],
    }
)


def aliases_of(host: str) -> tuple[str, ...]:
    """List the other names of a Microsoft cloud's host."""
    return next((tuple(name for name in cloud if name != host) for cloud in _CLOUDS if host in cloud), ())
