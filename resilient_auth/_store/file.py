"""A store in one file, for the processes of one machine."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from pathlib import Path

from .._policy.checks import require, require_clock, require_number, require_whole
from ..clock import Clock, Jitter, SystemClock, system_jitter
from ..errors import ConfigurationError, StoreUnavailable
from ..store import BackendFailed
from .paths import code_of
from .processes import users
from .sealing.keys import KeySource, SealingKey, key_file, load_keys
from .sealing.sealed import SealedStore
from .sqlite import SqliteBackend

__all__ = ["FileStore"]

#: What the owner must put right, of all that can be wrong with a file.
_OWNERS = {
    "wrong_key": "{path} was sealed with another key: give the one that it was written with, first or later in "
    "key=[new, old]; or move the file away to begin anew",
    "newer_schema": "{path} was written by a newer release: install that, or give another path",
    "foreign": "{path} belongs to another application, or to a store of another owner, purpose or path{users}, and "
    "isn't taken from it: give owner=, purpose= and path as they were given there (a volume that is mounted at several "
    "paths needs bound_to_path=False from the beginning), or another path; or move the file away to begin anew",
}


class FileStore(SealedStore):
    """Keep tokens in a sealed file that restarts survive, and that the processes of a machine share (G3).

    The file is SQLite's, with mode 0600 from its first byte, and so is what lies beside it: its log while it is open,
    and `.lock`. It is bound to its purpose, owner and path: a copy elsewhere is refused, and so is another
    application's database. A file that is torn or edited is set aside as `<path>.refused-1` to `-3`, reported as
    `StoreRejected`, and a new one is begun.

    Args:
        path: Where; a missing directory is made, for this user alone. It must be on a disk of this machine, in
            a directory that nobody else can write to.
        key: As for `SealedStore`. When not given, a key file `<path>.key` of mode 0600 is made at first use: that keeps
            the tokens from somebody who gets a copy of the file alone, not from somebody who can read both.
        owner: Whose file it is, where several applications of one user must not read each other's.
        timeout: Seconds that a call waits for other threads, and as long again for other processes, at most.
        purpose: What it is for; works as `owner` does.
        bound_to_path: Whether the file is refused at any other path.
        trusted_group: The id of a group whose members may read and replace the file: the `fsGroup` of a Kubernetes
            volume, which opens everything on it to that group at each start of a pod. Files of other users are taken
            where they are this group's. Nobody else gets in.
        clock: Where the time comes from; for tests.
        jitter: Where randomness of breaks comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong, the key doesn't fit the file, a newer release wrote it, it is another
            store's or application's, or others can read or replace it.
        StoreUnavailable: A function that should have given a key failed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: KeySource | None = None,
        *,
        owner: str | None = None,
        timeout: float = 2.0,
        purpose: str = "tokens",
        bound_to_path: bool = True,
        trusted_group: int | None = None,
        clock: Clock | None = None,
        jitter: Jitter = system_jitter,
    ) -> None:
        require_clock(clock)
        require(isinstance(bound_to_path, bool), f"bound_to_path must be True or False, not {bound_to_path!r}")
        require(isinstance(path, (str, os.PathLike)) and bool(os.fspath(path)), "path must be that of a file")
        require_number("timeout", timeout, low=0.01, high=60.0)
        if trusted_group is not None:
            require_whole("trusted_group", trusted_group, low=0)
        given = _expanded(path)
        # Links on the way are followed once, so that the file is bound to where it is.
        place = Path(os.path.realpath(given.parent)) / given.name
        backend = SqliteBackend(place, timeout=timeout, clock=clock or SystemClock(), group=trusted_group)
        _check(backend)
        keys: tuple[SealingKey, ...] | None = None
        if key is not None:
            keys = load_keys(key, label=backend.label)
        else:
            with contextlib.suppress(BackendFailed):
                keys = _own_key(place, trusted_group)

        def load() -> tuple[SealingKey, ...]:
            return keys if keys is not None else _own_key(place, trusted_group)

        self._begin(
            backend,
            load=load,
            owner=owner,
            purpose=purpose,
            clock=clock,
            jitter=jitter,
            place=str(place) if bound_to_path else "",
        )
        backend.on_refusal = lambda reason: self._gate.reject("file", reason)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @classmethod
    def for_desktop(
        cls, path: str | os.PathLike[str], *, owner: str | None = None, timeout: float = 2.0, purpose: str = "tokens"
    ) -> FileStore:
        """Make a store whose key is kept by the platform: Keychain, DPAPI or libsecret, through `msal-extensions`.

        Args:
            path: Where, as for `FileStore`.
            owner: Whose file it is.
            timeout: Seconds that a call waits for other threads and processes, at most.
            purpose: What it is for.

        Raises:
            ConfigurationError: `msal-extensions` isn't installed, the platform keeps no secrets for it, or as for
                `FileStore`. It never falls back to a key in the clear.
        """
        return cls(path, _platform_key(_expanded(path)), owner=owner, timeout=timeout, purpose=purpose)

    def _open(self) -> None:
        """Find what the owner must put right; what heals by itself is left to later calls."""
        try:
            if self._gate.read(self._names.find) is None:
                self._names.current()
        except StoreUnavailable as error:
            if error.reason in _OWNERS and isinstance(self._backend, SqliteBackend):
                path = self._backend.path
                self._backend.close()
                using = users(path) if error.reason == "foreign" else []
                processes = f" (open in process {', '.join(map(str, using))})" if using else ""
                raise ConfigurationError(_OWNERS[error.reason].format(path=path, users=processes)) from None


def _expanded(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"the home directory in {os.fspath(path)!r} isn't known: set HOME, or give an absolute path"
        ) from None


def _check(backend: SqliteBackend) -> None:
    try:
        backend.check()
    except FileNotFoundError:
        raise ConfigurationError(f"the directory above {backend.path.parent} doesn't exist: make it") from None
    except NotADirectoryError:
        raise ConfigurationError(f"{backend.path.parent} isn't a directory") from None
    except OSError:
        return  # a disk that is full or read-only: the app goes on, and the store works when the disk does


def _own_key(path: Path, group: int | None) -> tuple[SealingKey, ...]:
    """Read the key file beside a store, or make it where the store is new."""
    beside = path.with_name(f"{path.name}.key")
    try:
        if not os.path.lexists(beside) and path.exists() and path.stat().st_size:
            raise BackendFailed("wrong_key", "its key file is gone")
        return load_keys(key_file(beside, group), label="file")
    except OSError as error:
        raise BackendFailed(code_of(error), f"the key file: {error.strerror}") from None


def _platform_key(path: Path) -> bytes:
    try:
        import msal_extensions as platform
        from msal_extensions.persistence import PersistenceNotFound
    except ImportError:
        raise ConfigurationError("FileStore.for_desktop needs msal-extensions: pip install msal-extensions") from None
    location = str(path.with_name(f"{path.name}.platform-key"))
    try:
        persistence = platform.build_encrypted_persistence(location)
        with platform.CrossPlatLock(f"{location}.lock"):
            try:
                text = persistence.load()
            except PersistenceNotFound:
                text = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
                persistence.save(text)
    except Exception as error:  # noqa: BLE001 - each platform has its own, and any of them may quote what it holds
        raise ConfigurationError(
            f"this platform has no key storage for FileStore.for_desktop ({type(error).__name__}): install what "
            "msal-extensions asks for (libsecret and PyGObject on Linux), or use FileStore with a key"
        ) from None
    return base64.urlsafe_b64decode(text)
