"""What Entra encrypts for this API alone: a JWE in compact form (RFC 7516), by RSA-OAEP and AES-256-GCM.

Few lines on `cryptography`, which is installed anyway; a JOSE library would be one more dependency for one algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .._policy.checks import require
from ..errors import ConfigurationError
from ..verify.errors import InvalidToken
from ..verify.jose.compact import NotStrict, decode_segment, json_object
from .contract import MalformedCallout

__all__ = ["KeyGiven", "decryption"]

#: A key in PEM as bytes or text, the path of one, or one that `cryptography` has loaded.
KeyGiven = bytes | str | Path | rsa.RSAPrivateKey

_SMALLEST_KEY: Final = 2048
_OAEP: Final = {"RSA-OAEP": SHA1, "RSA-OAEP-256": SHA256}


def decryption(keys: KeyGiven | Sequence[KeyGiven]) -> Callable[[str], dict[str, Any]]:
    """Return what opens a JWE whose plaintext is a JSON object, or a token with one as its payload.

    Who encrypted it isn't known by it: anybody can who has the public key. That the provider sent it is known by the
    request's own token.

    Args:
        keys: RSA private keys, all of which may open: the new one and the old one while a certificate is replaced.

    Raises:
        ConfigurationError: One isn't an RSA key of 2,048 bits or more.
    """
    several = isinstance(keys, Iterable)
    require(
        several or isinstance(keys, (Path, rsa.RSAPrivateKey)),
        f"decryption_keys must be RSA private keys in PEM, their paths, or loaded, not {type(keys).__name__}",
    )
    given = [keys] if isinstance(keys, (bytes, str, Path, rsa.RSAPrivateKey)) else list(keys)
    require(bool(given), "decryption_keys must hold a key")
    loaded = [_load(key) for key in given]

    def decrypt(text: str) -> dict[str, Any]:
        try:
            return _opened(text, loaded)
        except (InvalidToken, NotStrict) as error:
            raise MalformedCallout(f"the encrypted password isn't well-formed: {error}") from None

    return decrypt


def _opened(text: str, keys: Sequence[rsa.RSAPrivateKey]) -> dict[str, Any]:
    parts = text.encode("ascii", "replace").split(b".")
    if len(parts) != 5:
        raise MalformedCallout("the encrypted password isn't five segments")
    header = json_object(decode_segment(parts[0]))
    hashed = _OAEP.get(str(header.get("alg")))
    if hashed is None or header.get("enc") != "A256GCM" or "zip" in header or "crit" in header:
        raise MalformedCallout("the encrypted password isn't encrypted by RSA-OAEP or RSA-OAEP-256 with A256GCM")
    sealed_key, nonce, ciphertext, tag = map(decode_segment, parts[1:])
    if len(nonce) != 12 or len(tag) != 16:
        raise MalformedCallout("the encrypted password's nonce or tag is of a wrong length")
    scheme = padding.OAEP(mgf=padding.MGF1(hashed()), algorithm=hashed(), label=None)
    for key in keys:
        try:
            opened = AESGCM(_content_key(key, sealed_key, scheme)).decrypt(nonce, ciphertext + tag, parts[0])
        except (ValueError, InvalidTag):
            continue
        if opened[:1] != b"{" and opened.count(b".") == 2:
            opened = decode_segment(opened.split(b".")[1])
        return json_object(opened)
    # One message for all that can be wrong: it tells nobody which step failed (RFC 7516, section 11.5).
    raise MalformedCallout("the encrypted password can't be opened with the keys that are given")


def _content_key(key: rsa.RSAPrivateKey, sealed: bytes, scheme: padding.OAEP) -> bytes:
    opened = key.decrypt(sealed, scheme)
    if len(opened) != 32:
        raise ValueError("not a key for A256GCM")
    return opened


def _load(given: KeyGiven) -> rsa.RSAPrivateKey:
    key: object = given
    try:
        if isinstance(given, Path):
            given = given.read_bytes()
        if isinstance(given, (bytes, str)):
            key = load_pem_private_key(given.encode() if isinstance(given, str) else given, None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"decryption_keys: a key can't be read ({type(error).__name__})") from None
    fits = isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SMALLEST_KEY
    require(fits, f"decryption_keys must be RSA private keys of {_SMALLEST_KEY} bits or more")
    assert isinstance(key, rsa.RSAPrivateKey)  # noqa: S101 - it was looked at
    return key
