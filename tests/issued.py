"""Certificates for tests: self-signed, with keys that are made once a process."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

DAY = datetime.timedelta(days=1)


@functools.cache
def key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def elliptic_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    private: Any

    @property
    def shown(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def pem(self, passphrase: bytes | None = None) -> bytes:
        hidden: Any = serialization.NoEncryption()
        if passphrase is not None:
            hidden = serialization.BestAvailableEncryption(passphrase)
        form = serialization.PrivateFormat.PKCS8
        return self.private.private_bytes(serialization.Encoding.PEM, form, hidden) + self.shown

    def pfx(self, passphrase: bytes | None = None) -> bytes:
        hidden: Any = serialization.NoEncryption()
        if passphrase is not None:
            hidden = serialization.BestAvailableEncryption(passphrase)
        return pkcs12.serialize_key_and_certificates(b"app", self.private, self.certificate, None, hidden)


@functools.cache
def issue(number: int = 0, days: float = 365.0, private: Any = None) -> Issued:
    """Issue a certificate for the process's key of a number, which ends in so many days."""
    private = private or key(number)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"daemon {number}")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(now - DAY).not_valid_after(now + days * DAY).sign(private, hashes.SHA256())
    return Issued(signed, private)
