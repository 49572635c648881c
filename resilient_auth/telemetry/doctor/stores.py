"""The store: is it there, can it be written, and can nobody else read it (G3)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ..._store.paths import private_directory, private_file
from ..._store.redis.clients import connector
from .finding import Finding, error, note, ok, warning
from .patient import Patient, authority_of

__all__ = ["check_store"]

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1", None})
#: Bytes under which a disk is taken for full.
_LITTLE: Final = 16 * 1024 * 1024


def check_store(patient: Patient) -> Iterator[Finding]:
    """Look at the store's file, or ask its Redis; nothing is written."""
    store = patient.setup.store
    if not store:
        return
    if "://" in store and not store.startswith("file://"):
        yield from _redis(store, patient.setup.timeout)
    else:
        yield from _file(Path(store.removeprefix("file://")).expanduser(), patient.setup.trusted_group)


def _file(path: Path, group: int | None) -> Iterator[Finding]:
    place = path.parent
    if not path.name:
        yield error("store_nowhere", f"{path} is a directory, and no file's path", "name a file in it", rule="G3")
        return
    if not place.exists() and not place.parent.exists():
        yield error(
            "store_nowhere", f"the directory above {place} doesn't exist", f"mkdir -p {place.parent}", rule="G3"
        )
        return
    existing = place if place.exists() else place.parent
    if place.exists():
        # A ConfigurationError of theirs says what is wrong and the fix.
        private_directory(place, group)
        for one in (path, path.with_name(f"{path.name}.key")):
            private_file(one, group)
        if path.exists() and path.stat().st_size and not path.with_name(f"{path.name}.key").exists():
            yield warning(
                "store_key_missing",
                f"{path} has no key file beside it",
                f"if the application gives key=, all is well; else {path} can't be opened any more: restore its key",
                rule="G3",
            )
    if not os.access(existing, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        yield error(
            "store_read_only",
            f"this user can't write to {path if path.exists() else existing}",
            "give the directory to the user that the application runs as, or mount it writable",
            rule="G3",
        )
        return
    if shutil.disk_usage(existing).free < _LITTLE:
        yield error("store_full", f"the disk of {existing} is full", "make room on it", rule="G3")
        return
    kept = "is this user's alone" if path.exists() else "will be made at the first use"
    yield ok(f"the store {path} {kept}", rule="G3")


def _memory_of(client: Any) -> Any:
    """Return what a server says of its memory; None where its user may not ask."""
    try:
        return client.info("memory")
    except Exception as failure:
        if type(failure).__name__ != "NoPermissionError":  # of redis-py and valkey-py alike
            raise
        return None


def _redis(url: str, seconds: float) -> Iterator[Finding]:
    connect = connector(url, seconds)  # or ConfigurationError, which doesn't quote the URL
    parts = urlsplit(url)
    shown = authority_of(parts.hostname or "this machine", parts.port or 6379)
    client: Any = None
    try:
        client = connect()
        client.ping()
        told = _memory_of(client)
    except Exception as failure:  # noqa: BLE001 - redis-py's, its cluster's and the system's
        kind = type(failure).__name__
        refused = "Auth" in kind or "NOAUTH" in str(failure) or "WRONGPASS" in str(failure)
        how = "refuses the user or password" if refused else f"cannot be asked ({kind})"
        yield error(
            "store_refuses" if refused else "store_unreachable",
            f"the Redis at {shown} {how}: tokens are kept in memory alone meanwhile",
            "correct the URL's user and password" if refused else "start it, or correct the URL, or open the way to it",
            rule="G3",
        )
        return
    finally:
        if client is not None:
            client.close()
    if told is None:
        yield note(
            "store_settings_unknown",
            f"the Redis at {shown} doesn't let this user see its settings, of which maxmemory-policy is one",
            "see to it that it is noeviction or volatile-ttl",
            rule="G3",
        )
    policy = str((told or {}).get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        yield warning(
            "store_evicts",
            f"the Redis at {shown} drops any key when its memory is full ({policy}): users would have to sign in again",
            "set maxmemory-policy to volatile-ttl, or give the store a Redis of its own",
            rule="G3",
        )
    if parts.scheme in ("redis", "redis+cluster") and parts.hostname not in _LOCAL:
        yield warning(
            "store_unencrypted",
            f"the way to the Redis at {shown} isn't encrypted: values are sealed, the password isn't",
            "use rediss:// and a TLS port",
            rule="G3",
        )
    yield ok(f"the Redis at {shown} answers", rule="G3")
