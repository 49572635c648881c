"""Who calls: known before anything of the body is read.

basic       a name and a password, as a B2C API connector or technical profile sends them
certificate the client's, as the owner's own proxy has verified it and tells in a header
Entra       the token of Microsoft's "authentication events" application, through a `ClaimsVerifier`
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import inspect
import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from cryptography.x509 import load_der_x509_certificate

from .._engine.acquire import wait_within
from .._engine.steps import Steps
from .._policy.checks import require
from ..errors import ResilientAuthError
from ..verify.bound.presented import Presented
from ..verify.claims import Claims
from ..verify.errors import InvalidToken
from ..verify.http import bearer_token
from ..verify.rules.asked import Expected
from ..verify.verifier import Face

__all__ = [
    "AUTHENTICATION_EVENTS",
    "Admitted",
    "Arriving",
    "BasicCaller",
    "Caller",
    "CertificateCaller",
    "EntraCaller",
    "Stranger",
]

#: The application as which Entra and External ID call, the same in every tenant.
AUTHENTICATION_EVENTS: Final = "99045fe1-7639-4a75-9d4a-577b6ca3810f"
_LONGEST_HEADER: Final = 16_384


class Stranger(ResilientAuthError):
    """Say that a caller isn't who may call; the answer is 401.

    Args:
        message: Why, for a log.
        challenge: The `WWW-Authenticate` header's value.
    """

    code = "unauthenticated"

    def __init__(self, message: str, *, challenge: str = "") -> None:
        super().__init__(message)
        self.challenge = challenge


@dataclass(frozen=True, slots=True)
class Arriving:
    """What of a request is known before its body is read.

    Args:
        header: Returns every value of a header.
        peer: The address of whoever holds the connection, a proxy maybe; None where the server doesn't tell.
    """

    header: Callable[[str], Sequence[str]]
    peer: str | None = None


class Admitted(NamedTuple):
    """Say who calls: the tenant that they speak for, None where the proof names none; and which of several it is."""

    tenant: str | None = None
    name: str = ""


class Caller(Protocol):
    """Whoever may call.

    One whose `waits` is False is asked on the request's own thread or event loop; others may wait for a network.
    """

    def admit(self, arriving: Arriving) -> Admitted | str | None:
        """Return the tenant that the caller speaks for, None where the proof names none; or an `Admitted`.

        What is returned instead, a yes or no say, lets nobody in.

        Raises:
            Stranger: It isn't who may call.
            InvalidToken: Its token is refused.
            VerificationUnavailable: It can't be known now.
        """


@dataclass(frozen=True, slots=True)
class BasicCaller:
    """Admit who knows a name and a password, by comparing all of them in constant time.

    Args:
        credentials: Passwords by name; give the old and the new while one is replaced.
    """

    waits: ClassVar[bool] = False

    credentials: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        fits = isinstance(self.credentials, Mapping) and all(
            isinstance(part, str) and part for pair in self.credentials.items() for part in pair
        )
        require(fits and bool(self.credentials), "credentials must be passwords by name, such as {'b2c': '...'}")
        require(not any(":" in name for name in self.credentials), "a name in credentials can't hold a colon")
        try:
            "".join((*self.credentials, *self.credentials.values())).encode()
        except UnicodeEncodeError:
            require(False, "credentials hold what isn't text: an environment variable that isn't UTF-8, maybe")
        short = any(len(password) < 12 for password in self.credentials.values())
        require(not short, "a password in credentials must have 12 characters or more: it is typed by nobody")

    def admit(self, arriving: Arriving) -> Admitted:
        """Look at the `Authorization` header."""
        sent = arriving.header("Authorization")
        scheme, _, told = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        try:
            if scheme.lower() != "basic" or len(told) > _LONGEST_HEADER:
                raise ValueError  # noqa: TRY301
            given = base64.b64decode(told.strip(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        found = ""
        for name, password in self.credentials.items():
            # All are compared, whichever fits, and both parts at once: nothing is learned by the time that it takes.
            if hmac.compare_digest(_digest(given), _digest(f"{name}:{password}".encode())):
                found = name
        if not found:
            raise Stranger(
                "the Authorization header isn't a name and password that are known",
                challenge='Basic realm="callouts", charset="UTF-8"',
            )
        return Admitted(name=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateCaller:
    """Admit who holds one of some certificates, as a proxy of the owner's has verified and says in a header.

    Args:
        thumbprints: SHA-256 thumbprints in hex, of the certificates themselves; the old and the new while one is
            replaced.
        trusted_proxies: Addresses or networks from which the header is believed, such as `10.0.0.0/8`. The proxy must
            remove the header from what comes in from elsewhere.
        header: Where the proxy puts the certificate; Azure App Service's is the default.
        wall: Gives seconds since the epoch, for the certificate's dates.
    """

    waits: ClassVar[bool] = False

    thumbprints: Collection[str]
    trusted_proxies: Collection[str]
    header: str = "X-ARR-ClientCert"
    wall: Callable[[], float] = field(default=lambda: datetime.now(UTC).timestamp(), repr=False)

    def __post_init__(self) -> None:
        prints = [_bare(one) for one in _texts(self.thumbprints)]
        fits = bool(prints) and all(len(one) == 64 and not set(one) - set("0123456789abcdef") for one in prints)
        require(fits, "thumbprints must be SHA-256 thumbprints: 64 hexadecimal digits each")
        networks = _texts(self.trusted_proxies)
        try:
            for each in networks:
                ipaddress.ip_network(each, strict=False)
        except ValueError:
            networks = []
        require(bool(networks), "trusted_proxies must be addresses or networks, such as ('10.0.0.0/8',)")
        require(isinstance(self.header, str) and bool(self.header), "header must be a header's name")

    def admit(self, arriving: Arriving) -> Admitted:
        """Look at the proxy's address, and at the certificate that it tells of."""
        if not self._trusts(arriving.peer):
            raise Stranger("the request comes from no proxy that is trusted to tell of certificates")
        sent = arriving.header(self.header)
        text = sent[0].strip() if len(sent) == 1 else ""
        if text and not text.startswith(("-----", "%2D", ":")):
            text = f":{text}:"  # base64 alone, as App Service has it
        der = Presented(certificate=text).der() if text else None
        known = [_bare(one) for one in self.thumbprints]
        if der is None or hashlib.sha256(der).hexdigest() not in known:
            raise Stranger("the client's certificate isn't one that is known")
        try:
            certificate = load_der_x509_certificate(der)
            began, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        except ValueError:
            raise Stranger("the client's certificate can't be read") from None
        if not began.timestamp() <= self.wall() <= ends.timestamp():
            raise Stranger("the client's certificate isn't valid at this time")
        return Admitted(name=hashlib.sha256(der).hexdigest())

    def _trusts(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in ipaddress.ip_network(each, strict=False) for each in self.trusted_proxies)


@dataclass(frozen=True, slots=True)
class EntraCaller:
    """Admit Entra and External ID themselves, by the token that they send.

    Args:
        verifier: A `ClaimsVerifier` for the audience of this API's own registration, such as `for_entra` or
            `for_external_id` makes it; for threads, in asyncio's frameworks too.
    """

    verifier: Any

    def __post_init__(self) -> None:
        verify = getattr(self.verifier, "verify", None)
        require(callable(verify), f"verifier must be a ClaimsVerifier, not {type(self.verifier).__name__}")
        require(
            not inspect.iscoroutinefunction(verify),
            "an asyncio verifier: give resilient_auth.ClaimsVerifier, which is called on a thread",
        )

    def admit(self, arriving: Arriving) -> str | None:
        """Verify the bearer token, and look at whose it is."""
        return self._tenant(self.verifier.verify(bearer_token(list(arriving.header("Authorization")))))

    @property
    def steps(self) -> Callable[[Arriving, Callable[[], float]], Steps[str | None]] | None:
        """Give what does the same step by step; None where the verifier has no steps.

        Whoever calls with a token whose key is held needs no place of those who wait for keys, of which strangers with
        forged tokens would take all. It is given what tells how many seconds are left.
        """
        return self._steps if isinstance(self.verifier, Face) else None

    def _steps(self, arriving: Arriving, left: Callable[[], float]) -> Steps[str | None]:
        token = bearer_token(list(arriving.header("Authorization")))
        claims = self.verifier._core.seen(token)
        if claims is None:
            with wait_within(left):
                claims = yield from self.verifier._core.verifying(token, Expected())
        return self._tenant(claims)

    def _tenant(self, claims: Claims) -> str | None:
        if (claims.client_id or "").lower() != AUTHENTICATION_EVENTS:
            raise InvalidToken("client", "the token isn't one of the application that authentication events come from")
        return claims.tenant_id


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _texts(given: object) -> list[str]:
    """Return the texts of a collection of nothing else; none of what is no such collection."""
    texts = [] if isinstance(given, str) or not isinstance(given, Collection) else list(given)
    return texts if all(isinstance(one, str) for one in texts) else []


def _bare(thumbprint: str) -> str:
    return thumbprint.replace(":", "").replace(" ", "").lower()
