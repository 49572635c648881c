"""Calling an API as Entra and B2C do: with their time-out, and once more where it passes."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ..wire.messages import base64url
from ..wire.posting import post
from .contracts import B2C, ENTRA, Unfit, judge

__all__ = ["Attempt", "CalloutOptions", "CalloutOutcome", "Question", "events_claims", "send"]

#: The application as which Entra calls.
_AUTHENTICATION_EVENTS: Final = "99045fe1-7639-4a75-9d4a-577b6ca3810f"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_LARGEST: Final = 256 * 1024
_TIMED_OUT, _UNREACHED = 1003005, 1003027


class CalloutOptions(TypedDict, total=False):
    """What may be said of a call beside its address and event; see `Emulator.call_out`."""

    audience: str
    issuer: str | None
    tenant: str
    user: str | None
    basic: tuple[str, str] | None
    headers: Mapping[str, str] | None
    data: Mapping[str, Any] | None
    locale: str
    password: str | None
    encrypt_for: bytes | None
    correlation_id: str | None
    timeout: float | None
    retries: int
    ca_file: str | None


def events_claims(issued: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of the token with which Entra calls."""
    now = int(time.time())
    return {
        "sub": "authentication-events",
        "oid": "authentication-events",
        "azp": _AUTHENTICATION_EVENTS,
        "azpacr": "2",
        "uti": uuid.uuid4().hex[:22],
        "ver": "2.0",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        **issued,
    }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to the API, and what came of it."""

    seconds: float
    #: None where no answer came in time.
    status: int | None
    #: What Entra's sign-in log says; 0 where all is well, and for B2C.
    code: int
    #: The same in words; "" where all is well.
    reason: str


@dataclass(frozen=True, slots=True)
class CalloutOutcome:
    """What came of one call in the middle of a sign-in.

    Attributes:
        event: What was asked.
        correlation_id: The sign-in's.
        attempts: The first request, and the retry where one was made.
        action: What the API decided, by the contract's name; None where the sign-in failed.
        says: What the action holds: claims, a message.
    """

    event: str
    correlation_id: str
    attempts: tuple[Attempt, ...]
    action: str | None
    says: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def failed(self) -> bool:
        """Whether the sign-in fails."""
        return self.action is None

    @property
    def code(self) -> int:
        """What Entra's sign-in log says; 0 where all is well, and for B2C."""
        return 0 if self.action is not None else self.attempts[-1].code


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and of whom."""

    event: str
    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    correlation_id: str
    timeout: float
    retries: int
    nonce: str | None = field(default=None, repr=False)
    trust: ssl.SSLContext | None = None

    @classmethod
    def about(
        cls,
        event: str,
        url: str,
        tenant_id: str,
        user: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float,
        ca_file: str,
        *,
        locale: str = "en-us",
        data: Mapping[str, Any] | None = None,
        password: str | None = None,
        encrypt_for: bytes | None = None,
        correlation_id: str | None = None,
        retries: int = 1,
    ) -> Question:
        """Write a question as the provider does.

        Raises:
            ValueError: It can't be one.
        """
        if event not in ENTRA and event not in B2C:
            raise ValueError(f"event must be one of {', '.join((*ENTRA, *B2C))}, not {event!r}")
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ValueError("url must be https, or http of this machine")
        correlation = correlation_id or str(uuid.uuid4())
        nonce = None
        if event in ENTRA:
            body = _event(event, tenant_id, user, locale, correlation, data or {})
            if event == "passwordSubmit":
                if encrypt_for is None or password is None:
                    raise ValueError("passwordSubmit needs password, and encrypt_for: the API's public key in PEM")
                nonce = str(uuid.uuid4())
                inner = {"user-password": password, "nonce": nonce, "username": (user or {}).get("mail", "")}
                body["data"]["encryptedPasswordContext"] = _encrypted(inner, encrypt_for)
        else:
            body = {"ui_locales": locale, **({"step": "PostAttributeCollection"} if event == "apiConnector" else {})}
            body |= {"email": (user or {}).get("mail", ""), "objectId": (user or {}).get("id", ""), **(data or {})}
            if event == "restProfile":
                body.setdefault("correlationId", correlation)
        return cls(
            event=event,
            url=url,
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
            correlation_id=correlation,
            timeout=timeout,
            retries=retries,
            nonce=nonce,
            trust=ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None,
        )


def send(question: Question) -> CalloutOutcome:
    """Ask, and once more where no answer came or the API failed; return what came of it."""
    attempts: list[Attempt] = []
    while True:
        began = time.monotonic()
        status: int | None = None
        try:
            answer = post(
                question.url, question.body, question.headers, question.timeout, most=_LARGEST, trust=question.trust
            )
            status, kind = answer.status, answer.headers.get("content-type", "")
            judged = judge(question.event, status, kind, answer.body, nonce=question.nonce)
        except Unfit as error:
            code, reason = error.code, error.reason
        except (OSError, http.client.HTTPException) as error:
            late = time.monotonic() - began >= question.timeout
            code, reason = (_TIMED_OUT, "timed out") if late else (_UNREACHED, type(error).__name__)
            code *= question.event in ENTRA
        else:
            attempts.append(Attempt(time.monotonic() - began, status, 0, ""))
            return CalloutOutcome(question.event, question.correlation_id, tuple(attempts), judged.action, judged.says)
        attempts.append(Attempt(time.monotonic() - began, status, code, reason))
        again = status is None or status >= 500
        if not again or len(attempts) > question.retries:
            return CalloutOutcome(question.event, question.correlation_id, tuple(attempts), None)


def _event(
    event: str, tenant: str, user: Mapping[str, Any] | None, locale: str, correlation: str, data: Mapping[str, Any]
) -> dict[str, Any]:
    named = ENTRA[event][0]
    application = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, tenant)), "appId": "emulated-application"}
    application |= {"appDisplayName": "Emulated", "displayName": "Emulated"}
    context: dict[str, Any] = {
        "correlationId": correlation,
        "client": {"ip": "127.0.0.1", "locale": locale, "market": locale},
        "protocol": "OAUTH2.0",
        "clientServicePrincipal": application,
        "resourceServicePrincipal": application,
    }
    if user is not None:
        context["user"] = dict(user)
    return {
        "type": f"microsoft.graph.authenticationEvent.{event}",
        "source": f"/tenants/{tenant}/applications/emulated-application",
        "data": {
            "@odata.type": f"microsoft.graph.on{named}CalloutData",
            "tenantId": tenant,
            "authenticationEventListenerId": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"listener {event}")),
            "customAuthenticationExtensionId": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"extension {event}")),
            "authenticationContext": context,
            **data,
        },
    }


def _encrypted(claims: Mapping[str, Any], public_key: bytes) -> str:
    """Encrypt claims as Entra does: an unsecured token, in a JWE by RSA-OAEP-256 and A256GCM."""
    key = load_pem_public_key(public_key)
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("encrypt_for must be an RSA public key")  # noqa: TRY004 - of the text, not of the argument
    head, told = base64url(json.dumps({"alg": "none"}).encode()), base64url(json.dumps(claims).encode())
    inner = f"{head}.{told}.".encode()
    header = base64url(json.dumps({"alg": "RSA-OAEP-256", "enc": "A256GCM"}).encode())
    content_key, nonce = os.urandom(32), os.urandom(12)
    sealed = AESGCM(content_key).encrypt(nonce, inner, header.encode())
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    parts = (key.encrypt(content_key, oaep), nonce, sealed[:-16], sealed[-16:])
    return ".".join((header, *map(base64url, parts)))
