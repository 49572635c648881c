"""What the provider tells clients unasked: that somebody has signed out, and security events; good, and forged.

back-channel logout    OpenID Connect Back-Channel Logout 1.0
front-channel logout   OpenID Connect Front-Channel Logout 1.0
security events        RFC 8417, pushed as in RFC 8935
"""

from __future__ import annotations

import hmac
import http.client
import json
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..wire.messages import base64url
from ..wire.posting import post
from .keys import KeyRing
from .sessions import BrowserSession, Party

LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
FORGERIES: Final = ("none", "hs256", "signature", "payload")

_SECONDS: Final = 10.0
_LARGEST_ANSWER: Final = 65_536
_DELIVERY_LIMIT: Final = 10_000
_LOGOUT_LIFE: Final = 120


@dataclass(frozen=True)
class Delivery:
    """One thing that was told, and what came of it; `status` is 0 where nobody answered."""

    at: float
    kind: str
    url: str
    status: int
    body: str = ""
    content_type: str = ""
    cache_control: str = ""
    retry_after: str = ""


@dataclass(frozen=True)
class SignOutUris:
    """Where a client is told of a sign-out."""

    backchannel: str | None = None
    frontchannel: str | None = None
    ca_file: str | None = None


class Notices:
    """Make tokens that tell of something, and send them."""

    def __init__(self, keys: KeyRing, authority_pem: Callable[[], bytes]) -> None:
        self._keys = keys
        self._authority_pem = authority_pem
        self._clients: dict[str, SignOutUris] = {}
        self._deliveries: deque[Delivery] = deque(maxlen=_DELIVERY_LIMIT)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """All that was told so far, in the order of the answers."""
        return tuple(self._deliveries)

    def register(self, client_id: str, uris: SignOutUris) -> None:
        """Tell a client of sign-outs from now on."""
        self._clients[client_id] = uris

    def frontchannel_urls(self, session: BrowserSession) -> list[str]:
        """Return what a browser is to load, so that clients hear of a session's end."""
        urls = []
        for party in session.parties.values():
            uri = self._uris(party).frontchannel
            if uri:
                told = urlencode({"iss": party.issuer, "sid": session.sid})
                urls.append(f"{uri}{'&' if urlsplit(uri).query else '?'}{told}")
        return urls

    def tell_of_end(self, session: BrowserSession) -> None:
        """Send clients a logout token each, beside what else goes on."""
        for party in session.parties.values():
            uris = self._uris(party)
            if uris.backchannel:
                token = self.logout_token(party, session.sid)
                self.send_soon("logout", uris.backchannel, {"logout_token": token}, ca_file=uris.ca_file)

    def logout_token(self, party: Party, sid: str | None) -> str:
        """Make a logout token."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": party.issuer,
            "sub": party.subject,
            "aud": party.client_id,
            "iat": now,
            "exp": now + _LOGOUT_LIFE,
            "jti": uuid.uuid4().hex,
            "events": {LOGOUT_EVENT: {}},
        }
        return self.sign(claims | ({} if sid is None else {"sid": sid}), {"typ": "logout+jwt"})

    def sign(self, claims: dict[str, Any], header: dict[str, Any], forge: str | None = None) -> str:
        """Sign claims, or forge that.

        Args:
            claims: As they are to be.
            header: Members of the header.
            forge: None; or `none` (no signature, and `alg` says so), `hs256` (a MAC with the published key),
                `signature` (of another token), `payload` (changed after it was signed).

        Raises:
            ValueError: There is no such forgery.
        """
        token = self._keys.sign(claims, header)
        if forge is None:
            return token
        if forge not in FORGERIES:
            raise ValueError(f"unknown forgery {forge!r}: use one of {', '.join(FORGERIES)}")
        head, payload, signature = token.split(".")
        if forge == "signature":
            return f"{head}.{payload}.{self._keys.sign({'jti': 'another'}).rpartition('.')[2]}"
        if forge == "payload":
            return f"{head}.{base64url(json.dumps(claims | {'jti': uuid.uuid4().hex}).encode())}.{signature}"
        key = self._keys.current
        algorithm = "none" if forge == "none" else "HS256"
        head = base64url(json.dumps({"kid": key.kid} | header | {"alg": algorithm}).encode())
        if forge == "none":
            return f"{head}.{payload}."
        public = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return f"{head}.{payload}.{base64url(hmac.digest(public, f'{head}.{payload}'.encode(), 'sha256'))}"

    def send_soon(self, kind: str, url: str, content: Mapping[str, str] | str, **options: Any) -> None:
        """Send on a thread of its own."""
        threading.Thread(target=self.send, args=(kind, url, content), kwargs=options, daemon=True).start()

    def send(
        self,
        kind: str,
        url: str,
        content: Mapping[str, str] | str,
        *,
        content_type: str | None = None,
        bearer: str | None = None,
        ca_file: str | None = None,
    ) -> Delivery:
        """Send a form, or a text, and note what came of it.

        Args:
            kind: What it is, for the record.
            url: Where to.
            content: A form's fields, or the text.
            content_type: Of what kind it is said to be.
            bearer: A token to authenticate with.
            ca_file: Whose certificates the receiver has; the emulator's own authority is trusted too.

        Raises:
            ValueError: The URL isn't one.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} isn't an http(s) URL")
        usual = "application/secevent+jwt" if isinstance(content, str) else "application/x-www-form-urlencoded"
        headers = {"Content-Type": content_type or usual, "Accept": "application/json"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        body = content if isinstance(content, str) else urlencode(content)
        try:
            trust = None
            if parts.scheme == "https":
                trust = ssl.create_default_context(cafile=ca_file)
                trust.load_verify_locations(cadata=self._authority_pem().decode())
            answer = post(url, body, headers, _SECONDS, most=_LARGEST_ANSWER, trust=trust)
            told = (answer.headers.get(name, "") for name in ("content-type", "cache-control", "retry-after"))
            delivery = Delivery(
                time.time(), kind, parts.geturl(), answer.status, answer.body.decode("utf-8", "replace"), *told
            )
        except (OSError, http.client.HTTPException) as error:
            delivery = Delivery(time.time(), kind, url, 0, type(error).__name__)
        self._deliveries.append(delivery)
        return delivery

    def _uris(self, party: Party) -> SignOutUris:
        return self._clients.get(party.client_id, SignOutUris())
