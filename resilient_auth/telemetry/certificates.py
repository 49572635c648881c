"""When the certificates end with which applications sign (G24)."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .._msal.late_binding import LateBound, applications

__all__ = ["CertificateLife", "lives"]


class CertificateLife(NamedTuple):
    """How long an application's certificate lasts."""

    authority: str
    client_id: str
    #: Seconds; negative when it is over.
    remaining: float
    #: The same in seconds since the epoch.
    ends: float
    #: Where it came from.
    target: str


#: By application, what it was given and the end of that, in seconds since the epoch: it is read once.
_ends: weakref.WeakKeyDictionary[LateBound, tuple[object, float | None]] = weakref.WeakKeyDictionary()


def lives() -> Iterator[CertificateLife]:
    """Tell how long the certificate of each application lasts that isn't closed, where it was given with its end."""
    for app in applications():
        if app._ra_session.closed:
            continue
        rotation = app.__dict__.get("_ra_rotation")
        end = _end_in_arguments(app) if rotation is None else rotation.ends
        if end is not None:
            target = "client_credential" if rotation is None else rotation.source.name
            remaining = end - app._ra_session.engine.clock.wall()
            yield CertificateLife(app._ra_authority, app.client_id, remaining, end, target)


def _end_in_arguments(app: LateBound) -> float | None:
    given = app.__dict__.get("_ra_arguments", {}).get("client_credential")
    if not isinstance(given, Mapping):
        return None
    before, end = _ends.get(app, (None, None))
    if before is not given:
        end = _end_of(given)
        _ends[app] = given, end
    return end


def _end_of(given: Mapping[str, Any]) -> float | None:
    """Return when the certificate in MSAL's kind of credential ends; None where there is none, or it can't be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import pkcs12

    text, path, passphrase = (given.get(name) for name in ("public_certificate", "private_key_pfx_path", "passphrase"))
    try:
        certificate: x509.Certificate | None = None
        if isinstance(text, str):
            certificate = x509.load_pem_x509_certificate(text.encode())
        elif path:
            secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
            certificate = pkcs12.load_pkcs12(Path(path).read_bytes(), secret).cert.certificate  # type: ignore[union-attr]
    except Exception:  # noqa: BLE001 - MSAL says what is wrong with it; here it has no end that is known
        return None
    return None if certificate is None else certificate.not_valid_after_utc.timestamp()
