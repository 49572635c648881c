"""Where a credential that is replaced while its application runs comes from: a file, or the owner's function."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..._policy.checks import awaits, require
from ..._process.small_file import Reading, read_anew
from .certificate import Unusable, end_of, load_cryptography, parse

__all__ = ["CertificateFile", "CredentialFunction", "CredentialSource", "Given", "source_of"]

_LARGEST = 1 << 20
_LONGEST_PASSPHRASE = 4096
_HOW = "a secret as a string, or a dict as MSAL takes it"


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """A client credential as MSAL takes it. It has no text form."""

    credential: Any
    #: When its certificate ends, in seconds since the epoch; None where that isn't known, or there is none.
    ends: float | None = None
    #: The files that it was read from; none for a function's.
    readings: tuple[Reading, ...] = ()


class CredentialSource(Protocol):
    """Give the credential of the moment."""

    name: str

    def look(self, former: Given | None) -> Given:
        """Return it: `former` where nothing has changed.

        Raises:
            Unusable: There is none that could be used.
        """
        ...


class CertificateFile:
    """A private key and its certificate in a file, PEM or PFX, which may be replaced while the application runs (G24).

    Give it as `client_credential`, or the path itself, as a `pathlib.Path`, where no passphrase is needed. The file is
    looked at before a token is asked for, and read again when it is another one.

    Args:
        path: The file's. A PEM file holds both the key and the certificate, unless the key has a file of its own.
        private_key: The path of the key's file, as in a TLS Secret of Kubernetes.
        passphrase: Of the private key, or the path of a file that holds it, as a `pathlib.Path`.

    Raises:
        ConfigurationError: An argument is of the wrong type.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        private_key: str | os.PathLike[str] | None = None,
        passphrase: str | bytes | os.PathLike[str] | None = None,
    ) -> None:
        require(_is_path(path), f"path must be that of a PEM or PFX file, not {type(path).__name__}")
        require(
            private_key is None or _is_path(private_key),
            f"private_key must be the path of a PEM file, not {type(private_key).__name__}",
        )
        require(
            passphrase is None or isinstance(passphrase, (str, bytes, os.PathLike)),
            f"passphrase must be a string, bytes, or the path of a file, not {type(passphrase).__name__}",
        )
        self.path = os.fspath(path)
        self.name = f"certificate file {self.path}"
        self._paths = [self.path] if private_key is None else [self.path, os.fspath(private_key)]
        self._passphrase = passphrase
        load_cryptography()

    def __repr__(self) -> str:
        return f"CertificateFile({self.path!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a CertificateFile can't be pickled: make one in each process")

    def look(self, former: Given | None) -> Given:
        """Return the key and certificate of the moment; see `CredentialSource`."""
        known = former.readings if former is not None else ()
        try:
            readings = tuple(
                read_anew(path, _LARGEST, known[place] if known else None) for place, path in enumerate(self._paths)
            )
            if former is not None and [one.data for one in readings] == [one.data for one in known]:
                return Given(former.credential, former.ends, readings)
            credential, ends = parse(b"\n".join(one.data for one in readings), self._secret())
        except OSError as error:
            raise Unusable("unreadable", error.strerror or type(error).__name__) from None
        except ValueError as error:
            raise Unusable("malformed", str(error)) from None
        return Given(credential, ends, readings)

    def _secret(self) -> bytes | None:
        given = self._passphrase
        if isinstance(given, os.PathLike):
            return read_anew(os.fspath(given), _LONGEST_PASSPHRASE).data.rstrip(b"\r\n")
        return given.encode() if isinstance(given, str) else given


class CredentialFunction:
    """The owner's function, which is called before a token is asked for."""

    name = "the client_credential function"

    def __init__(self, function: Callable[[], Any]) -> None:
        require(
            not inspect.iscoroutinefunction(function),
            "client_credential must be a function that blocks, not a coroutine function: it is called on a thread",
        )
        needed = _needs(function)
        require(not needed, f"client_credential is called without arguments, and this function needs {needed}")
        self._function = function
        load_cryptography()

    def look(self, former: Given | None) -> Given:
        """Return what the function gives; see `CredentialSource`."""
        try:
            credential = self._function()
        except Exception as error:
            raise Unusable("failed", f"it raised {type(error).__name__}") from error
        if isinstance(credential, dict):
            credential = dict(credential)
        if not isinstance(credential, (str, dict)) or not credential:
            shown = "nothing" if credential in ("", {}, None) else type(credential).__name__
            raise Unusable("malformed", f"it returned {shown}, and must return {_HOW}")
        if former is not None and former.credential == credential:
            return former
        return Given(credential, end_of(credential))


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str) and bool(os.fspath(value))


def _needs(function: Callable[..., Any]) -> str:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are written in C
        return ""
    free = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return ", ".join(p.name for p in parameters if p.default is p.empty and p.kind not in free)


def source_of(credential: Any) -> CredentialSource | None:
    """Return where an application's credential comes from; None where MSAL is given it once and for all.

    Args:
        credential: What was given as `client_credential`.

    Raises:
        ConfigurationError: It can't be one.
    """
    if isinstance(credential, CertificateFile):
        return credential
    if isinstance(credential, os.PathLike):
        return CertificateFile(credential)
    if not callable(credential):
        require(
            credential is None or isinstance(credential, (str, bytes, Mapping)),
            "client_credential must be a secret, a dict as MSAL takes it, the Path of a certificate's file, a "
            f"CertificateFile or a function, not {type(credential).__name__}",
        )
        made = credential.get("client_assertion") if isinstance(credential, Mapping) else None
        require(
            not awaits(made),
            "client_assertion must be a string or a plain function, and this is a coroutine function, which nobody "
            "would await",
        )
        return None
    # What it returns would be taken for a secret.
    assertion = getattr(credential, "link", None)
    require(
        not isinstance(assertion, str),
        'client_credential is a function that makes assertions: write client_credential={"client_assertion": ...}',
    )
    return CredentialFunction(credential)
