"""What a request presents beside its token: how it was sent, proofs, and the certificate of its connection."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from ..._policy.checks import require
from ..errors import InvalidToken

__all__ = ["Presented", "read_request"]

#: RFC 6750, section 2.1, and RFC 9449, section 7.1: the scheme in any case, one space or more, and a token68.
_SENT = re.compile(r"(bearer|dpop) +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_LARGEST_CERTIFICATE: Final = 32_768
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """Say what came with a token, for a verifier that has `binding=BindingOptions(...)`.

    Args:
        method: The request's method.
        url: Its address as the client wrote it, scheme and host included: behind a proxy, the outer one.
        proofs: Every value of its `DPoP` header.
        dpop: Whether the token came with the scheme `DPoP`, and not `Bearer`.
        certificate: The client's certificate, which this application's server or its proxy has verified: DER, PEM,
            PEM with URL escapes (nginx, AWS), or base64 between colons (RFC 9440). None where there is none. A header
            that a client could send itself proves nothing: the proxy must remove it from what comes in.

    Raises:
        ConfigurationError: One is of the wrong type.
    """

    method: str = ""
    url: str = ""
    proofs: Sequence[str] = field(default=(), repr=False)
    dpop: bool = False
    certificate: bytes | str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require(isinstance(self.method, str), f"method must be a text such as 'GET', not {type(self.method).__name__}")
        require(isinstance(self.url, str), f"url must be a text, not {type(self.url).__name__}: write str(request.url)")
        require(
            isinstance(self.proofs, Sequence) and not isinstance(self.proofs, (str, bytes)),
            "proofs must be a list of every value of the DPoP header, such as request.headers.getlist('DPoP')",
        )
        require(isinstance(self.dpop, bool), f"dpop must be True or False, not {self.dpop!r}")
        require(
            self.certificate is None or isinstance(self.certificate, (bytes, str)),
            f"certificate must be DER, PEM or None, not {type(self.certificate).__name__}",
        )

    def der(self) -> bytes | None:
        """Return the certificate's bytes; None where there is none that can be read."""
        if not self.certificate or len(self.certificate) > _LARGEST_CERTIFICATE:
            return None
        if isinstance(self.certificate, bytes) and not self.certificate.startswith(_BEGIN.encode()):
            return self.certificate
        text = self.certificate if isinstance(self.certificate, str) else self.certificate.decode("latin-1")
        text = unquote(text).strip()
        if text.startswith(":") and text.endswith(":"):
            body = text[1:-1]
        elif text.startswith(_BEGIN) and _END in text:
            # The client's own comes first, where the rest of its chain follows.
            body = text[len(_BEGIN) : text.index(_END)]
        else:
            return None
        try:
            # Some proxies write a line as one, with blanks in place of its ends.
            return base64.b64decode("".join(body.split()), validate=True) or None
        except (binascii.Error, ValueError):
            return None


def read_request(
    method: str,
    url: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    *,
    certificate: bytes | str | None = None,
) -> tuple[str, Presented]:
    """Read a request's token and what came with it, for a verifier that has `binding=`.

    Args:
        method: As for `Presented`.
        url: As for `Presented`.
        headers: Names and values, each value on its own: `request.headers.items()` in most frameworks. A mapping will
            do where the framework has no more.
        certificate: As for `Presented`.

    Returns:
        The token, and what to give to `verify(token, presented=...)`.

    Raises:
        InvalidToken: There is no token, more than one, or something else.
        ConfigurationError: The headers aren't texts.
    """
    listed = isinstance(headers, Iterable)
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers) if listed else []
    fits = listed and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(one, str) for one in pair) for pair in pairs
    )
    require(fits, "headers must be pairs of texts, such as request.headers.items()")
    named = [(name.lower(), value) for name, value in pairs]
    sent = [value for name, value in named if name == "authorization"]
    if not sent:
        raise InvalidToken("missing", "the request has no token")
    if len(sent) > 1:
        # Two readers of the same request might each take a different one.
        raise InvalidToken("duplicated_header", "the request has more than one Authorization header")
    found = _SENT.fullmatch(sent[0].strip(" \t"))
    if found is None:
        raise InvalidToken("malformed_header", "the Authorization header isn't 'Bearer' or 'DPoP' and one token")
    proofs = tuple(value for name, value in named if name == "dpop")
    dpop = found[1].lower() == "dpop"
    return found[2], Presented(method=method, url=url, proofs=proofs, dpop=dpop, certificate=certificate)
