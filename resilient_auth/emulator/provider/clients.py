"""Who a client is: by its secret, its certificate, or an assertion of another provider's."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from ..checks import check_text, listed
from ..wire.messages import Request, basic_credentials
from .keys import KeyRing
from .oauth_errors import Refusal
from .realms import Realm, is_microsoft

_JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: Of the signature alone: the times are looked at, as Entra does, before whose it is.
_UNTIMED: Final[Any] = {f"verify_{name}": False for name in ("aud", "exp", "nbf", "iat")}
_CONFIDENTIAL_GRANTS: Final = frozenset({"client_credentials", "jwt-bearer", "user_fic"})
#: Seconds by which a client's clock may be ahead.
_SKEW: Final = 300.0
#: What a federated credential names, and how Entra says that it doesn't match.
_MISMATCHES: Final = {"iss": 700211, "aud": 700212, "sub": 700213}


@dataclass(frozen=True)
class Registered:
    """What a client may authenticate with."""

    secrets: frozenset[str]
    certificates: tuple[x509.Certificate, ...]
    #: Claims that an assertion must have, of each federated credential.
    federated: tuple[Mapping[str, str], ...]


class Clients:
    """Know the credentials of those clients that were registered; every other one may have any but `wrong`."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._registered: dict[str, Registered] = {}

    def register(
        self,
        client_id: str,
        secrets: Iterable[str],
        certificates: Iterable[bytes],
        federated: Iterable[Mapping[str, str]],
    ) -> None:
        """Take these credentials of a client from now on, and no others.

        Raises:
            ValueError: An argument is wrong.
        """
        check_text("client_id", client_id, "orders-app")
        texts = listed("secrets", secrets, str, "['s3cret']")
        pems = listed("certificates", certificates, bytes, "[pem]")
        records = listed("federated", federated, Mapping, "[{'iss': ..., 'sub': ...}]")
        loaded = tuple(x509.load_pem_x509_certificate(pem) for pem in pems)
        self._registered[client_id] = Registered(frozenset(texts), loaded, tuple(dict(one) for one in records))

    def authenticate(self, request: Request, realm: Realm, grant_type: str) -> str:
        """Return which client a request is from.

        Raises:
            Refusal: It isn't who it says, or doesn't say.
        """
        form = request.form
        basic = basic_credentials(request.headers.get("authorization", ""))
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret"))
        assertion = form.get("client_assertion")
        if not client_id:
            raise Refusal("invalid_request", 900144, "The request body must contain 'client_id'.")
        if len([one for one in (basic, form.get("client_secret"), assertion) if one]) > 1:
            raise Refusal("invalid_request", 90023, "A client must authenticate in one way alone.")
        if form.get("client_id", client_id) != client_id:
            raise Refusal("invalid_request", 90023, "The client_id isn't that of the Authorization header.")
        if assertion and form.get("client_assertion_type") != _JWT_BEARER:
            raise Refusal("invalid_request", 900144, f"The 'client_assertion_type' must be '{_JWT_BEARER}'.")
        known = self._registered.get(client_id)
        if secret == "wrong" or (secret and known and secret not in known.secrets):  # noqa: S105 (it is always refused)
            raise Refusal("invalid_client", 7000215, "Invalid client secret provided.", 401)
        if (known or grant_type in _CONFIDENTIAL_GRANTS) and not (secret or assertion):
            raise Refusal("invalid_client", 7000218, "The body needs 'client_assertion' or 'client_secret'.", 401)
        if assertion and known:
            self._check(assertion, client_id, known, _audiences(request, realm))
        return client_id

    def _check(self, assertion: str, client_id: str, known: Registered, audiences: frozenset[str]) -> None:
        try:
            header = jwt.get_unverified_header(assertion)
            claims = jwt.decode(assertion, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            raise Refusal("invalid_client", 50027, "The client assertion isn't a JWT.", 401) from None
        begins, ends = claims.get("nbf", 0), claims.get("exp")
        timed = isinstance(begins, int | float) and isinstance(ends, int | float) and ends >= time.time()
        if not timed or begins > time.time() + _SKEW:
            raise Refusal("invalid_client", 700024, "Client assertion is not within its valid time range.", 401)
        if claims.get("iss") == client_id:
            if claims.get("sub") != client_id:
                raise Refusal("invalid_client", 700021, "Client assertion's subject isn't the application.", 401)
            said = claims.get("aud")
            if not audiences & {_place(one) for one in (said if isinstance(said, list) else [said])}:
                raise Refusal("invalid_client", 700023, "Client assertion audience doesn't match Realm issuer.", 401)
            self._check_certificate(assertion, header, known)
        else:
            self._check_federated(assertion, claims, known)

    @staticmethod
    def _check_certificate(assertion: str, header: Mapping[str, Any], known: Registered) -> None:
        for certificate in known.certificates:
            shown = header.get("x5t#S256") == _thumbprint(certificate, SHA256()) or (
                "x5t#S256" not in header and header.get("x5t") == _thumbprint(certificate, SHA1())  # noqa: S303
            )
            if shown and _is_signed(assertion, certificate.public_key(), "PS256", "RS256"):
                return
        raise Refusal("invalid_client", 700027, "The certificate used to sign isn't registered on application.", 401)

    def _check_federated(self, assertion: str, claims: Mapping[str, Any], known: Registered) -> None:
        if not known.federated:
            raise Refusal("invalid_client", 70021, "No matching federated identity record found.", 401)
        mismatch = 0
        for record in known.federated:
            wrong = [name for name, value in record.items() if claims.get(name) != value]
            if not wrong:
                break
            mismatch = mismatch or _MISMATCHES.get(wrong[0], 70021)
        else:
            raise Refusal("invalid_client", mismatch, "No matching federated identity record found.", 401)
        if not any(_is_signed(assertion, key.private.public_key(), "RS256") for key in self._keys.published):
            raise Refusal("invalid_client", 700213, "The assertion's signature can't be verified.", 401)


def _is_signed(assertion: str, key: Any, *algorithms: str) -> bool:
    try:
        jwt.decode(assertion, key, algorithms=algorithms, options=_UNTIMED)
    except jwt.InvalidTokenError:
        return False
    return True


def _audiences(request: Request, realm: Realm) -> frozenset[str]:
    """Return what an assertion may be for: the token endpoint, by the names that it has, or the issuer."""
    own = (realm.endpoint("token"), f"{realm.origin}{request.path}", realm.issuer(realm.tid))
    return frozenset(_place(one) for one in own)


def _place(url: object) -> str:
    """Return an address without what is the same under another name of Entra's."""
    parts = urlsplit(url if isinstance(url, str) else "")
    return f"{'entra' if is_microsoft(parts.netloc) else parts.netloc}{parts.path}"


def _thumbprint(certificate: x509.Certificate, algorithm: SHA256 | SHA1) -> str:
    return base64.urlsafe_b64encode(certificate.fingerprint(algorithm)).decode()
