"""Where a store's keys come from, and what is derived from them.

Every key is stretched by HKDF (RFC 5869) into subkeys: one for each kind of record, one for the names, and an id that
travels with what it sealed, so that several keys can be tried.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..._policy.checks import require
from ...errors import ConfigurationError, StoreUnavailable
from ..paths import make_private

__all__ = ["EnvironmentKey", "KeySource", "MountedKey", "SealingKey", "framed", "key_file", "load_keys"]

_HOW = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
#: Bytes that a key has at least, in the form that nobody can mistake for a password's.
_SHORTEST = 16
_LONGEST_FILE = 4096
_TRIES = 3
_PAUSE = 0.2


class EnvironmentKey:
    """A key in an environment variable, as text: 32 random bytes or more in base64 or hex.

    Args:
        name: The variable's name. It is read when the store is made.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        require(
            isinstance(name, str) and bool(name), f"EnvironmentKey needs a variable's name, not {type(name).__name__}"
        )
        self.name = name

    def __repr__(self) -> str:
        return f"EnvironmentKey({self.name!r})"


class MountedKey:
    """A key in a file that the platform mounts into this container: a Secret of Kubernetes or Docker.

    Such files are root's, and everybody in the container may read them: modes up to 0444 are accepted here, but only
    on a file system that is mounted read-only. `pathlib.Path` is for every other key file.

    Args:
        path: The file's. It is read when the store is made.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require(
            isinstance(path, (str, os.PathLike)) and bool(os.fspath(path)),
            f"MountedKey needs the path of a file, not {type(path).__name__}",
        )
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"MountedKey({str(self.path)!r})"


_One: TypeAlias = bytes | bytearray | str | os.PathLike[str] | EnvironmentKey | MountedKey | Callable[[], object]
KeySource: TypeAlias = _One | Sequence[_One]
"""Bytes, text in base64 or hex, a path to a key file, `EnvironmentKey`, `MountedKey`, a function; or several."""


class SealingKey:
    """A key. It has no text form, can't be pickled, and is used through what is derived from it alone."""

    __slots__ = ("_secret", "id")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        #: Eight bytes that name it and reveal nothing of it.
        self.id = self.derive("id", length=8)

    def derive(self, *purpose: str, length: int = 32) -> bytes:
        """Derive a subkey for one purpose."""
        info = b"resilient-auth/1" + framed(purpose)
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self._secret)

    def __repr__(self) -> str:
        return f"SealingKey(id={self.id.hex()})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key can't be pickled: make the store in each process")


def framed(texts: Iterable[str]) -> bytes:
    """Return texts as bytes, each behind its length: no two lists of them read alike."""
    found = b""
    for text in texts:
        part = text.encode()
        found += len(part).to_bytes(4, "big") + part
    return found


def load_keys(source: object, *, label: str, wait: Callable[[float], object] | None = None) -> tuple[SealingKey, ...]:
    """Read keys from where the owner says they are; the first one seals, all of them open.

    Args:
        source: A `KeySource`.
        label: The store's, for errors.
        wait: Waits some seconds before a function is called again; for tests.

    Raises:
        ConfigurationError: A key is missing, short, guessable or readable by others.
        StoreUnavailable: A function that should have given a key failed each time.
    """
    several = source if isinstance(source, (list, tuple)) else (source,)
    require(bool(several), "key=[] holds no key: give one at least")
    keys: dict[bytes, SealingKey] = {}
    for one in several:
        key = SealingKey(_secret(one, label, wait or threading.Event().wait))
        keys.setdefault(key.id, key)
    require(len(keys) <= 8, f"{len(keys)} keys are more than the 8 that a store tries: drop those that are retired")
    return tuple(keys.values())


def key_file(path: Path, group: int | None = None) -> bytes:
    """Read a key file, or make it with a new random key; of several processes that make it at once, one prevails.

    Args:
        path: The file's.
        group: Whose members may read it, as `FileStore` has it.

    Raises:
        ConfigurationError: It is readable by others, not the process's own, or holds no key.
        OSError: It can't be read or made.
    """
    with contextlib.suppress(FileNotFoundError):
        return _read_file(path, follow=False, group=group)
    text = base64.urlsafe_b64encode(secrets.token_bytes(32)) + b"\n"
    # Written aside and linked into place: nobody ever sees a key file that holds half a key.
    draft = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(6)}")
    try:
        make_private(draft, group)
        with open(draft, "r+b") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return _read_file(path, follow=False, group=group)


def _secret(source: object, label: str, wait: Callable[[float], object]) -> bytes:
    match source:
        case bytes() | bytearray():
            return _from_bytes(bytes(source), "key")
        case str():
            return _from_text(source, "key")
        case EnvironmentKey():
            text = os.environ.get(source.name)
            if not text:
                raise ConfigurationError(f"the environment variable {source.name} holds no key: {_HOW}")
            return _from_text(text, f"the environment variable {source.name}")
        case os.PathLike() | MountedKey():
            mounted = isinstance(source, MountedKey)
            path = source.path if isinstance(source, MountedKey) else Path(source)
            try:
                return _read_file(path, follow=True, mounted=mounted)
            except FileNotFoundError:
                fix = "mount the Secret there" if mounted else f"chmod 600 {path}"
                raise ConfigurationError(f"no key file at {path}; {_HOW}, and {fix}") from None
            except OSError as error:
                raise ConfigurationError(f"the key file {path} can't be read: {error.strerror}") from None
        case _ if callable(source):
            return _from_function(source, label, wait)
    raise ConfigurationError(
        "key must be bytes, text in base64 or hex, a pathlib.Path to a key file, EnvironmentKey(name), "
        f"MountedKey(path), a function, or a list of those, not {type(source).__name__}"
    )


def _from_function(function: Callable[[], object], label: str, wait: Callable[[float], object]) -> bytes:
    for attempt in range(_TRIES):
        if attempt:
            wait(_PAUSE * 2**attempt)
        try:
            given = function()
        except Exception as error:  # noqa: BLE001 - a vault's client may raise anything, and its text may hold the key
            failed = type(error).__name__
            continue
        if isinstance(given, (bytes, bytearray)):
            return _from_bytes(bytes(given), "what the key function gave")
        if isinstance(given, str):
            return _from_text(given, "what the key function gave")
        raise ConfigurationError(f"the key function must give bytes or text, not {type(given).__name__}")
    raise StoreUnavailable(label, "no_key", f"the key function failed {_TRIES} times, last with {failed}")


def _from_bytes(given: bytes, what: str) -> bytes:
    # Nobody draws this many printable bytes at random: it is text, or a password.
    if given and all(32 <= byte < 127 or byte in b"\r\n" for byte in given):
        return _from_text(given.decode("ascii"), what)
    require(len(given) >= _SHORTEST, f"{what} must be {_SHORTEST} random bytes or more, not {len(given)}; {_HOW}")
    require(len(set(given)) >= _SHORTEST // 2, f"{what} isn't random: it repeats few bytes; {_HOW}")
    return given


def _from_text(given: str, what: str) -> bytes:
    """Decode a key from base64 or hex, and refuse what looks like a password."""
    text = given.strip()
    decoded = b""
    with contextlib.suppress(ValueError, binascii.Error):
        if len(text) >= 64 and all(c in "0123456789abcdefABCDEF" for c in text):
            decoded = bytes.fromhex(text)
        elif any(c.islower() for c in text) and any(c.isupper() for c in text) and len(set(text)) >= _SHORTEST:
            plain = text.rstrip("=").replace("+", "-").replace("/", "_")
            decoded = base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    # A password of 43 characters that mixes cases and decodes is possible, and no longer easily guessed.
    if len(decoded) < 32 or len(set(decoded)) < _SHORTEST // 2:
        raise ConfigurationError(
            f"{what} must be 32 random bytes or more in base64 or hex, not a password; {_HOW}. "
            "A key file is given as pathlib.Path"
        )
    return decoded


def _read_file(path: Path, *, follow: bool, mounted: bool = False, group: int | None = None) -> bytes:
    # O_NONBLOCK: a pipe at that path must not hang the start.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    handle = os.open(path, flags)
    try:
        status = os.fstat(handle)
        require(stat.S_ISREG(status.st_mode), f"the key file {path} isn't a regular file")
        if hasattr(os, "geteuid"):
            trusted = status.st_gid == group
            require(
                status.st_uid in (os.geteuid(), 0) or trusted,
                f"the key file {path} belongs to user {status.st_uid}, not to this process's user {os.geteuid()}",
            )
            if mounted:
                require(
                    bool(os.fstatvfs(handle).f_flag & os.ST_RDONLY) and not status.st_mode & 0o022,
                    f"the key file {path} isn't on a read-only mount, as a Secret is: mount it so, or give "
                    "pathlib.Path and chmod 600",
                )
            else:
                require(
                    not status.st_mode & (0o007 if trusted else 0o077),
                    f"the key file {path} can be read by others: chmod 600 {path}; or, if it is a Secret that "
                    f"Kubernetes or Docker mounts, give MountedKey({str(path)!r})",
                )
        given = os.read(handle, _LONGEST_FILE + 1)
    finally:
        os.close(handle)
    require(len(given) <= _LONGEST_FILE, f"the key file {path} is too long to be one")
    return _from_bytes(given, f"the key file {path}")
