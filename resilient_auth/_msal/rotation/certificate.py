"""A private key and its certificate, out of a PEM or PFX file, as MSAL takes them."""

from __future__ import annotations

from typing import Any

from ..._process.loading import load

__all__ = ["Unusable", "end_of", "load_cryptography", "parse"]

_PEM = b"-----BEGIN "


class Unusable(Exception):
    """A client credential can't be used. The code is one of the events'; the detail quotes nothing of it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def load_cryptography() -> None:
    """Load what reads certificates, on the owner's thread."""
    load("cryptography.x509", "cryptography.hazmat.primitives.serialization.pkcs12")


def parse(data: bytes, passphrase: bytes | None) -> tuple[dict[str, Any], float]:
    """Return MSAL's `client_credential`, and when the certificate ends, in seconds since the epoch.

    Args:
        data: The file's content.
        passphrase: For its private key; None where that isn't encrypted.

    Raises:
        Unusable: There is no such thing in it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key, certificates = _in_pem(data, passphrase) if _PEM in data else _in_pfx(data, passphrase)
    except UnsupportedAlgorithm:
        raise Unusable("malformed", "its algorithm isn't known here") from None
    return _for_msal(key, certificates)


def _in_pem(data: bytes, passphrase: bytes | None) -> tuple[Any, list[Any]]:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    if b"PRIVATE KEY-----" not in data:
        raise Unusable("malformed", "no private key is in it: the file must hold the key and its certificate")
    try:
        certificates = load_pem_x509_certificates(data)
    except ValueError:
        raise Unusable("malformed", "no certificate is in it: the file must hold the key and its certificate") from None
    encrypted = b"ENCRYPTED" in data
    if encrypted and not passphrase:
        raise Unusable("locked", "its private key is encrypted, and no passphrase was given")
    try:
        return load_pem_private_key(data, passphrase if encrypted else None), certificates
    except (ValueError, TypeError):
        if encrypted:
            raise Unusable("locked", "its private key can't be decrypted with the passphrase") from None
        raise Unusable("malformed", "its private key can't be read") from None


def _in_pfx(data: bytes, passphrase: bytes | None) -> tuple[Any, list[Any]]:
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

    if data[:1] != b"\x30":  # what DER begins with
        raise Unusable("malformed", "it is neither PEM nor PFX")
    try:
        key, own, others = load_key_and_certificates(data, passphrase)
    except (ValueError, TypeError):
        raise Unusable("locked", "it is damaged, or its passphrase is missing or another one") from None
    return key, [certificate for certificate in (own, *others) if certificate is not None]


def _for_msal(key: Any, certificates: list[Any]) -> tuple[dict[str, Any], float]:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding

    if not isinstance(key, RSAPrivateKey):
        raise Unusable("malformed", "its private key must be there, and be one for RSA")
    public = key.public_key()
    own = next((certificate for certificate in certificates if certificate.public_key() == public), None)
    if own is None:
        raise Unusable("mismatched", "none of its certificates is its private key's")
    shown = own.public_bytes(Encoding.PEM)
    # With the certificate MSAL sends it along: whoever trusts its subject and issuer needs no new registration. The key
    # goes as it is: reading it from text costs a tenth of a second, each time that an assertion is signed.
    return {"private_key": key, "public_certificate": shown.decode()}, own.not_valid_after_utc.timestamp()


def end_of(credential: Any) -> float | None:
    """Return when the certificate in one of MSAL's credentials ends; None where none is shown."""
    from cryptography.x509 import load_pem_x509_certificate

    shown = credential.get("public_certificate") if isinstance(credential, dict) else None
    if not isinstance(shown, str):
        return None
    try:
        return load_pem_x509_certificate(shown.encode()).not_valid_after_utc.timestamp()
    except ValueError:
        return None
