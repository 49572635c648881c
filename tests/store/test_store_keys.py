"""Where keys may come from, and what is refused before anything is sealed with it."""

from __future__ import annotations

import base64
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_media import KEY

from resilient_auth import ConfigurationError, EnvironmentKey, SealedStore, StoreUnavailable
from resilient_auth._store.memory import MemoryBackend
from resilient_auth._store.sealing.keys import SealingKey, key_file, load_keys

TEXT = base64.urlsafe_b64encode(KEY).decode()


def opens(source: Any, other: Any = KEY) -> bool:
    """Return whether two sources give the same key."""
    backend = MemoryBackend()
    SealedStore(backend, key=other).write("token", "a", b"x", ttl=60)
    return SealedStore(backend, key=source).read("token", "a") is not None


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


class TestSources:
    @pytest.mark.parametrize(
        "source",
        [
            bytearray(KEY),
            TEXT,
            TEXT.rstrip("="),
            base64.b64encode(KEY).decode(),
            KEY.hex(),
            KEY.hex().upper(),
            f"  {TEXT}\n",
            TEXT.encode(),
            [KEY],
            (KEY, secrets.token_bytes(32)),
            [KEY, KEY],
            lambda: KEY,
            lambda: TEXT,
        ],
    )
    def test_the_same_key_comes_in_many_shapes(self, source: Any) -> None:
        """Bytes, text, a function, a list."""
        assert opens(source)

    @pytest.mark.parametrize("content", [KEY, TEXT.encode(), TEXT.encode() + b"\r\n", KEY.hex().encode()])
    def test_a_key_file_holds_bytes_or_text(self, directory: Path, content: bytes) -> None:
        """As `secrets` and `openssl rand` write them."""
        assert opens(written(directory / "key", content))

    def test_an_environment_variable_holds_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And its name is all that is told of it."""
        monkeypatch.setenv("STORE_KEY", TEXT)
        assert opens(EnvironmentKey("STORE_KEY"))
        assert repr(EnvironmentKey("STORE_KEY")) == "EnvironmentKey('STORE_KEY')"
        monkeypatch.delenv("STORE_KEY")
        with pytest.raises(ConfigurationError, match="STORE_KEY holds no key"):
            opens(EnvironmentKey("STORE_KEY"))

    def test_a_function_is_called_once(self) -> None:
        """At construction: a key vault isn't asked for each token."""
        calls: list[int] = []

        def vault() -> bytes:
            calls.append(1)
            return KEY

        store = SealedStore(MemoryBackend(), key=vault)
        assert calls == [1]
        for _ in range(10):
            store.write("token", "a", b"x", ttl=60)
        assert calls == [1]

    def test_a_function_that_fails_is_asked_again_a_few_times(self) -> None:
        """What it raises is never quoted, since it may hold the key."""
        waits: list[float] = []
        turns = iter([OSError("SECRET"), OSError("SECRET"), KEY])

        def vault() -> bytes:
            turn = next(turns)
            if isinstance(turn, Exception):
                raise turn
            return turn

        (key,) = load_keys(vault, label="redis", wait=waits.append)
        assert key.id == SealingKey(KEY).id
        assert len(waits) == 2
        assert 0 < sum(waits) < 5

        def dead() -> bytes:
            raise RuntimeError("SECRET")

        with pytest.raises(StoreUnavailable, match=r"no_key.*RuntimeError") as failed:
            load_keys(dead, label="redis", wait=waits.append)
        assert "SECRET" not in str(failed.value)
        assert len(waits) == 4

    def test_short_random_keys_are_stretched(self) -> None:
        """Sixteen random bytes are enough for AES-256's key to be derived from."""
        short = bytes(range(40, 56))
        assert opens(b"\xff" + short, b"\xff" + short)

    def test_other_bytes_are_another_key(self) -> None:
        """One bit is enough."""
        with pytest.raises(StoreUnavailable, match="wrong_key"):
            opens(KEY[:-1] + bytes((KEY[-1] ^ 1,)))


class TestAKeyFileOfItsOwn:
    def test_whoever_makes_it_at_once_gets_the_same_key(self, directory: Path) -> None:
        """And nobody ever sees half of one, or a draft that was left."""
        for turn in range(25):
            path = directory / f"{turn}.key"
            start = threading.Barrier(8)
            found: list[bytes] = []

            def make(path: Path = path, start: threading.Barrier = start, found: list[bytes] = found) -> None:
                start.wait()
                found.append(key_file(path))

            threads = [threading.Thread(target=make) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 8
            assert set(found) == {key_file(path)}
            assert path.stat().st_mode & 0o777 == 0o600
        assert len(list(directory.iterdir())) == 25


class TestRefused:
    @pytest.mark.parametrize(
        "source",
        [
            b"",
            bytes(range(200, 215)),
            bytes(32),
            b"\x00\xff" * 16,
            b"correct horse battery staple",
            b"0123456789abcdef0123456789abcdef",
            "",
            "hunter2",
            "correct horse battery staple, and then some more of it",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "00" * 32,
            base64.urlsafe_b64encode(bytes(range(200, 216))).decode(),
            "/etc/keys/store.key",
            lambda: "hunter2",
            lambda: b"short",
        ],
    )
    def test_what_can_be_guessed(self, source: Any) -> None:
        """Short ones, passwords, and what isn't random; the error says how to make one, and quotes nothing."""
        with pytest.raises(ConfigurationError, match="token_urlsafe") as failed:
            SealedStore(MemoryBackend(), key=source)
        for word in ("hunter2", "correct horse", "/etc/keys"):
            assert word not in str(failed.value)

    @pytest.mark.parametrize("source", [None, 5, {}, [], [KEY, 5], lambda: None, [secrets.token_bytes(32)] * 0])
    def test_what_is_no_key(self, source: Any) -> None:
        """At construction."""
        with pytest.raises(ConfigurationError, match="key"):
            SealedStore(MemoryBackend(), key=source)

    def test_more_keys_than_a_rotation_needs(self) -> None:
        """Each of them would be tried."""
        with pytest.raises(ConfigurationError, match="9 keys"):
            SealedStore(MemoryBackend(), key=[secrets.token_bytes(32) for _ in range(9)])

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda path: written(path, TEXT.encode(), 0o644), "chmod 600"),
            (lambda path: written(path, TEXT.encode(), 0o640), "chmod 600"),
            (lambda path: written(path, b"hunter2"), "token_urlsafe"),
            (lambda path: written(path, b""), "token_urlsafe"),
            (lambda path: written(path, os.urandom(5000)), "too long"),
            (lambda path: path, "no key file"),
            (lambda path: path.parent, "regular file"),
            (lambda path: (os.mkfifo(path, 0o600), path)[1], "regular file"),
        ],
    )
    def test_a_key_file_that_is_none_or_open_to_others(
        self, directory: Path, make: Callable[[Path], Path], says: str
    ) -> None:
        """The error names the path and the fix."""
        with pytest.raises(ConfigurationError, match=says) as failed:
            SealedStore(MemoryBackend(), key=make(directory / "key"))
        assert "hunter2" not in str(failed.value)

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs a user that may change owners")
    def test_another_users_key_file(self, directory: Path) -> None:
        """He could change it."""
        path = written(directory / "key", TEXT.encode())
        os.chown(path, 12345, -1)
        with pytest.raises(ConfigurationError, match="user 12345"):
            SealedStore(MemoryBackend(), key=path)
