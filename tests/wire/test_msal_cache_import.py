"""Reading the caches that applications of MSAL have today."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msal
import msal_extensions
import pytest

from resilient_auth import ConfigurationError
from resilient_auth._msal.cache_import import read_msal_cache


@pytest.fixture
def text() -> str:
    """What MSAL itself writes, for a user with a refresh token."""
    cache = msal.SerializableTokenCache()
    cache.add(
        {
            "client_id": "app",
            "scope": ["s"],
            "token_endpoint": "https://login.microsoftonline.com/common/oauth2/v2.0/token",
            "response": {
                "token_type": "Bearer",
                "access_token": "SECRET-AT",
                "refresh_token": "SECRET-RT",
                "expires_in": 3600,
                "id_token_claims": {"oid": "o", "tid": "t", "preferred_username": "alice@example.com"},
                "client_info": "eyJ1aWQiOiJvIiwidXRpZCI6InQifQ",
            },
        }
    )
    return cache.serialize()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of this user's own, whatever the umask."""
    tmp_path.chmod(0o700)
    return tmp_path


def loads(text: str) -> msal.SerializableTokenCache:
    cache = msal.SerializableTokenCache()
    cache.deserialize(text)
    return cache


def test_a_caches_text_is_what_msal_loads(text: str) -> None:
    """The account and its refresh token are in it."""
    cache = loads(read_msal_cache(text))
    assert [token["secret"] for token in cache.search("RefreshToken")] == ["SECRET-RT"]
    assert [account["username"] for account in cache.search("Account")] == ["alice@example.com"]


def test_a_file_is_read_where_nobody_else_can(directory: Path, text: str) -> None:
    """As applications wrote it, with a byte order mark or without."""
    path = directory / "cache.json"
    path.write_text(text, encoding="utf-8-sig")
    path.chmod(0o600)
    assert read_msal_cache(path) == text
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_msal_cache(path)
    link = directory / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_msal_cache(link)
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_msal_cache(directory / "none")
    with pytest.raises(ConfigurationError, match="regular file"):
        read_msal_cache(directory)
    os.mkfifo(directory / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="regular file"):
        read_msal_cache(directory / "pipe")


def test_a_persistence_of_msal_extensions_is_read(directory: Path, text: str) -> None:
    """An empty one is an empty cache."""
    persistence = msal_extensions.FilePersistence(str(directory / "cache.bin"))
    (directory / "cache.bin").unlink(missing_ok=True)
    assert loads(read_msal_cache(persistence)).serialize()
    persistence.save(text)
    assert read_msal_cache(persistence) == text


def test_a_persistence_that_fails_is_not_quoted() -> None:
    """Its text may hold what it kept."""

    class Broken:
        def load(self) -> str:
            raise RuntimeError("SECRET")

        def get_location(self) -> str:
            return "here"

    with pytest.raises(ConfigurationError, match="RuntimeError") as failed:
        read_msal_cache(Broken())
    assert "SECRET" not in str(failed.value)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "SECRET",
        "[]",
        "null",
        '{"SECRET": 1}',
        '{"AccessToken": ["SECRET"]}',
        '{"RefreshToken": {"k": "SECRET"}}',
        "[" * 100_000,
        json.dumps({"AccessToken": {}}) + " " * (65 * 1024 * 1024),
        b"{}",
        None,
        5,
    ],
    ids=lambda source: repr(source)[:20],
)
def test_what_is_no_cache_is_refused(source: Any) -> None:
    """And never quoted."""
    with pytest.raises(ConfigurationError) as failed:
        read_msal_cache(source)
    assert "SECRET" not in str(failed.value)


def test_bytes_that_are_no_text_are_told_as_encrypted(directory: Path) -> None:
    """As msal-extensions writes them on Windows."""
    path = directory / "cache.bin"
    path.write_bytes(b"\x01\xff\xfe" * 100)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="persistence"):
        read_msal_cache(path)


def test_an_empty_cache_is_one() -> None:
    """MSAL writes `{}` before anybody signed in."""
    assert read_msal_cache("{}") == "{}"
