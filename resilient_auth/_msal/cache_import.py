"""Read the caches that applications of MSAL have today, so that nobody signs in again because the store changed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from msal import TokenCache

from ..errors import ConfigurationError
from .methods import ResilientApplication

__all__ = ["import_msal_cache", "read_msal_cache"]

_LARGEST = 64 * 1024 * 1024
_SECTIONS = ("AccessToken", "RefreshToken", "IdToken", "Account", "AppMetadata", "AccountSource")


@runtime_checkable
class _Persistence(Protocol):
    """What `msal_extensions` keeps a cache in."""

    def load(self) -> str: ...

    def get_location(self) -> str: ...


def read_msal_cache(source: object) -> str:
    """Read the text of an MSAL `SerializableTokenCache`, and check that it is one.

    Args:
        source: The text itself, the path of a file with it, as a `pathlib.Path`, or a persistence of `msal_extensions`.

    Returns:
        The text; that of an empty cache where a persistence holds none.

    Raises:
        ConfigurationError: It isn't there, is open to others, too large, or not such a cache. What it holds is never
            quoted.
    """
    match source:
        case str():
            text = source
        case os.PathLike():
            text = _read(Path(source))
        case _Persistence():
            text = _load(source)
        case _:
            raise ConfigurationError(
                "an MSAL cache is given as its text, a pathlib.Path or a persistence of msal_extensions, not as "
                f"{type(source).__name__}"
            )
    _check(text)
    return text


def import_msal_cache(app: Any, source: object) -> int:
    """Bring into an application the accounts and tokens of a cache that MSAL has kept for it until now.

    They go to the application's token cache, and so to its store where it has one: nobody need sign in again because
    the store changed. Do it once, with the old cache kept until it is done. Where there is a store, nobody is brought
    back of whom it knows that they signed out after their latest entry was obtained.

    Args:
        app: An application of ours.
        source: The text of a `SerializableTokenCache`, a `pathlib.Path` with it, or a persistence of msal-extensions.

    Returns:
        How many accounts the source has.

    Raises:
        ConfigurationError: The source isn't such a cache, is open to others, or `app` isn't one of ours.
    """
    if not isinstance(app, ResilientApplication):
        raise ConfigurationError(f"app must be an application of resilient_auth.msal, not {type(app).__name__}")
    sections = json.loads(read_msal_cache(source))
    app._ra_session.bring_in({kind: sections[kind].values() for kind in TokenCache().key_makers if kind in sections})
    return len(sections.get("Account", {}))


def _read(path: Path) -> str:
    try:
        # O_NONBLOCK: a pipe at that path must not hang the start.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise ConfigurationError(f"the cache {path} can't be read: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"the cache {path} isn't a regular file")
        if hasattr(os, "geteuid"):
            if status.st_uid not in (os.geteuid(), 0):
                raise ConfigurationError(f"the cache {path} belongs to user {status.st_uid}, who may have made it up")
            if status.st_mode & 0o077:
                raise ConfigurationError(f"the cache {path} is open to others: chmod 600 {path}")
        with open(handle, "rb", closefd=False) as file:
            return file.read(_LARGEST + 1).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"the cache {path} isn't text: one that msal_extensions encrypted is given as its persistence"
        ) from None
    finally:
        os.close(handle)


def _load(persistence: _Persistence) -> str:
    try:
        return persistence.load()
    except Exception as error:  # noqa: BLE001 - each platform has its own, and may quote what it holds
        # msal_extensions needn't be imported to know its own: it is there if its persistence is.
        if type(error).__name__ == "PersistenceNotFound":
            return "{}"
        raise ConfigurationError(f"the persistence can't be read: {type(error).__name__}") from None


def _check(text: str) -> None:
    if len(text) > _LARGEST:
        raise ConfigurationError(f"the cache is larger than {_LARGEST // 1024 // 1024} MiB: it isn't one application's")
    try:
        cache: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError("the cache isn't JSON: give what SerializableTokenCache.serialize() gave") from None
    if not isinstance(cache, dict):
        raise ConfigurationError("the cache isn't a JSON object: give what SerializableTokenCache.serialize() gave")
    for section, entries in cache.items():
        known = section in _SECTIONS
        if known and not (isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values())):
            raise ConfigurationError(f"the cache's section {section} isn't an object of objects")
    if cache and not any(section in cache for section in _SECTIONS):
        raise ConfigurationError(f"the cache has none of the sections {', '.join(_SECTIONS[:4])}: it isn't MSAL's")
