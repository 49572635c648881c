"""The token endpoint: who may have a token, grant by grant."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import jwt

from ..checks import check, check_text
from ..ledger import Ledger
from ..settings import Settings
from ..wire.messages import Request, Response, base64url, json_response
from .clients import Clients
from .directory import Audience, Directory, RefreshToken, User
from .oauth_errors import Refusal
from .realms import Realm
from .tokens import OIDC_SCOPES, Mint, client_info, resource_of

_SHORT_NAMES: Final = {
    "urn:ietf:params:oauth:grant-type:device_code": "device_code",
    "urn:ietf:params:oauth:grant-type:jwt-bearer": "jwt-bearer",
    "urn:ietf:params:oauth:grant-type:saml2-bearer": "saml2-bearer",
    "urn:ietf:params:oauth:grant-type:saml1_1-bearer": "saml1_1-bearer",
}
#: Parameters that may come more than once (RFC 8693, RFC 8707).
_REPEATED: Final = frozenset({"resource", "audience"})
_NO_STORE: Final = (("Cache-Control", "no-store, no-cache"), ("Pragma", "no-cache"))


_MALFORMED: Final = Refusal("invalid_request", 50163, "The claims parameter isn't valid JSON of the right shape.")


def declares_cp1(claims: str | None) -> bool:
    """Return whether a claims request declares that its client handles claims challenges.

    Raises:
        Refusal: The claims aren't a JSON object.
    """
    values = _member(claims, "access_token", "xms_cc").get("values", [])
    return isinstance(values, list) and "cp1" in values


def context_in(claims: str | None) -> str | None:
    """Return the authentication context that a claims request wants of an ID token.

    Raises:
        Refusal: The claims aren't a JSON object.
    """
    value = _member(claims, "id_token", "acrs").get("value")
    return value if isinstance(value, str) else None


def _member(claims: str | None, part: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(claims).get(part, {}).get(name) if claims else None
    except (ValueError, AttributeError, RecursionError):
        raise replace(_MALFORMED) from None
    if found is None:  # which asks for it without saying more
        return {}
    if not isinstance(found, dict):
        raise replace(_MALFORMED)
    return found


class TokenEndpoint:
    """Redeems grants for tokens."""

    def __init__(self, directory: Directory, clients: Clients, ledger: Ledger, mint: Mint, settings: Settings) -> None:
        self._directory = directory
        self._clients = clients
        self._ledger = ledger
        self._mint = mint
        self._settings = settings
        self._denials: dict[str, Refusal] = {}
        self._grants: dict[str, Callable[[dict[str, str], Realm, str], Audience]] = {
            "client_credentials": self._client_credentials,
            "authorization_code": self._authorization_code,
            "refresh_token": self._refresh_token,
            "device_code": self._device_code,
            "password": self._password,
            "jwt-bearer": self._on_behalf_of,
            "saml2-bearer": self._saml,
            "saml1_1-bearer": self._saml,
            "user_fic": self._user_fic,
        }

    def deny(self, grant: str, refusal: Refusal) -> None:
        """Refuse a grant type from now on, by its short name or URN, or every one by `"*"`.

        Raises:
            ValueError: There is no such grant type.
        """
        self._denials[self._known(grant)] = refusal

    def allow(self, grant: str | None) -> None:
        """Stop refusing a grant type, or all of them.

        Raises:
            ValueError: There is no such grant type.
        """
        if grant is None:
            self._denials.clear()
        else:
            self._denials.pop(self._known(grant), None)

    def _known(self, grant: str) -> str:
        check_text("grant", grant, "client_credentials")
        name = _SHORT_NAMES.get(grant, grant)
        check(
            name == "*" or name in self._grants, f"unknown grant {grant!r}: use *, or one of {', '.join(self._grants)}"
        )
        return name

    def respond(self, request: Request, realm: Realm) -> Response:
        """Answer a token request.

        Raises:
            Refusal: The request gets no token.
        """
        form = request.form
        if request.method != "POST" or "grant_type" not in form:
            raise Refusal("invalid_request", 900144, "The request body must contain 'grant_type'.")
        if twice := [name for name, values in request.fields.items() if len(values) > 1 and name not in _REPEATED]:
            raise Refusal("invalid_request", 90023, f"The parameter '{twice[0][:100]}' is there more than once.")
        grant_type = _SHORT_NAMES.get(form["grant_type"], form["grant_type"])
        grant = self._grants.get(grant_type)
        if grant is None:
            raise Refusal("unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
        if realm.tenant.lower() in self._settings.missing_tenants:
            raise Refusal("invalid_request", 90002, f"Tenant '{realm.tenant}' not found.")
        denial = self._denials.get(grant_type) or self._denials.get("*")
        if denial:
            raise replace(denial)
        client_id = self._clients.authenticate(request, realm, grant_type)
        cae = declares_cp1(form.get("claims"))
        granted = grant(form, realm, client_id)
        resource = form.get("resource") or resource_of(granted.scopes)
        audience = replace(granted, resource=resource, cae=cae, expired=request.expired_tokens)
        return self._answer(realm, audience, form)

    def _answer(self, realm: Realm, audience: Audience, form: dict[str, str]) -> Response:
        access_token, issued = self._mint.access_token(realm, audience)
        lifetime = int(self._mint.lifetime(audience))
        times: dict[str, int] = {"expires_in": lifetime, "ext_expires_in": lifetime}
        if self._settings.refresh_in is not None:
            times["refresh_in"] = int(self._settings.refresh_in)
        if realm.kind in ("v1", "b2c"):
            times |= {"expires_on": int(issued.expires_at), "not_before": int(issued.issued_at)}
        answer: dict[str, Any] = {"token_type": "Bearer", "access_token": access_token}
        answer |= {name: str(value) for name, value in times.items()} if realm.kind == "v1" else times
        if realm.kind == "v1":
            answer["resource"] = audience.resource
        user = audience.user
        if user:
            asked = audience.scopes
            answer["scope"] = " ".join(s for s in asked if s not in OIDC_SCOPES) or " ".join(
                s for s in asked if s != "offline_access"
            )
            if realm.kind == "v1" or "openid" in asked:
                answer["id_token"] = self._mint.id_token(realm, audience)
            if realm.kind == "v1" or "offline_access" in asked:
                answer["refresh_token"] = audience.refresh or self._new_refresh_token(realm, audience, user)
            # An extension of Microsoft's, which other providers don't know.
            if form.get("client_info") == "1" and realm.kind not in ("adfs", "oidc"):
                answer["client_info"] = client_info(realm, user)
        return json_response(answer, headers=_NO_STORE, token_id=issued.jti)

    def _new_refresh_token(self, realm: Realm, audience: Audience, user: User) -> str:
        expires_at = time.time() + self._settings.refresh_token_lifetime
        text = self._directory.refresh_tokens.hand_out(
            RefreshToken(user, audience.client_id, audience.scopes, expires_at, realm.name, sid=audience.sid)
        )
        self._mint.refresh_token(realm, audience, text)
        return text

    def _client_credentials(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        if realm.shared:
            raise Refusal("invalid_request", 50059, "No tenant-identifying information found in the request.")
        scopes = _scopes(form)
        if realm.kind != "v1" and scopes and not all(scope.endswith("/.default") for scope in scopes):
            raise Refusal("invalid_scope", 1002012, "The scope of client credentials must end in '/.default'.")
        return Audience(client_id, None, _required(scopes, form))

    def _authorization_code(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        code = self._directory.codes.redeem(form.get("code", ""))
        if code is None:
            raise Refusal("invalid_grant", 54005, "The authorization code was already redeemed or doesn't exist.")
        if code.expires_at < time.time():
            raise Refusal("invalid_grant", 70008, "The authorization code has expired.")
        if code.realm != realm.name:
            raise Refusal("invalid_grant", 700016, "The authorization code was issued by another realm.")
        audience = code.audience
        if audience.client_id != client_id or code.redirect_uri != form.get("redirect_uri", ""):
            raise Refusal("invalid_grant", 500112, "Client or redirect_uri don't match those of the authorization.")
        verifier = form.get("code_verifier", "")
        # A verifier without a challenge is refused too: the code was asked for by somebody else (RFC 9700, 2.1.1).
        if (code.challenge or "") != (verifier and _challenge(verifier, code.challenge_method)):
            raise Refusal("invalid_grant", 501481, "The code_verifier doesn't match the code_challenge.")
        return replace(audience, scopes=_scopes(form) or audience.scopes)

    def _refresh_token(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        text = form.get("refresh_token", "")
        token = self._directory.refresh_tokens.find(text)
        if token is None or token.client_id != client_id or token.realm != realm.name:
            raise Refusal("invalid_grant", 9002313, "The refresh token is malformed or was issued to or by another.")
        if token.revoked:
            raise Refusal("invalid_grant", 50173, "The grant was revoked; sign in again.", suberror="bad_token")
        if token.expires_at < time.time() or (token.used and self._settings.one_time_refresh_tokens):
            raise Refusal("invalid_grant", 700082, "The refresh token has expired or was used before.")
        token.used = True
        scopes = _scopes(form) or token.scopes
        if self._settings.rotate == "never":
            return Audience(client_id, token.user, scopes, refresh=text, sid=token.sid)
        return Audience(client_id, token.user, tuple(dict.fromkeys((*scopes, "offline_access"))), sid=token.sid)

    def _device_code(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        secret = form.get("device_code") or form.get("code", "")
        waiting = self._directory.device_codes.find(secret)
        if waiting is None or waiting.client_id != client_id or waiting.realm != realm.name:
            raise Refusal("invalid_grant", 70020, "The device code doesn't exist or was redeemed.")
        now = time.monotonic()
        polled_before, waiting.polled_at = waiting.polled_at, now
        if waiting.expires_at < time.time():
            raise Refusal("expired_token", 70019, "The device code has expired.")
        # Half of the interval, because a client's timer and ours never agree to the millisecond.
        if polled_before is not None and now - polled_before < self._settings.device_code_interval / 2:
            raise Refusal("slow_down", 70016, "The client polls faster than it was asked to.")
        if waiting.user is None:
            raise Refusal("authorization_pending", 70016, "The user hasn't finished the sign-in yet.")
        self._directory.device_codes.redeem(secret)
        return Audience(client_id, waiting.user, waiting.scopes)

    def _password(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        user = self._directory.find_user(form.get("username", ""))
        if user is None:
            raise Refusal("invalid_grant", 50034, "The user account doesn't exist in the directory.")
        if user.password is None or form.get("password") != user.password:
            raise Refusal("invalid_grant", 50126, "Invalid username or password.")
        return Audience(client_id, user, _required(_scopes(form), form))

    def _on_behalf_of(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        assertion = form.get("assertion", "")
        if not assertion or form.get("requested_token_use") != "on_behalf_of":
            raise Refusal("invalid_request", 900144, "The body needs 'assertion' and 'requested_token_use'.")
        issued = self._ledger.lookup(assertion)
        if issued is None:
            return Audience(client_id, self._directory.user_of_assertion(assertion), _required(_scopes(form), form))
        if not self._ledger.is_valid(assertion):
            raise Refusal("invalid_grant", 500133, "The assertion is expired or revoked.")
        user = self._directory.find_user(issued.subject) or _user_in(assertion, issued.tenant)
        if user is None:
            raise Refusal("invalid_grant", 50000, "The assertion is an app's token and names no user.")
        return Audience(client_id, user, _required(_scopes(form), form))

    def _saml(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        assertion = form.get("assertion", "")
        if not assertion:
            raise Refusal("invalid_request", 900144, "The request body must contain 'assertion'.")
        return Audience(client_id, self._directory.user_of_assertion(assertion), _required(_scopes(form), form))

    def _user_fic(self, form: dict[str, str], realm: Realm, client_id: str) -> Audience:
        if not form.get("user_federated_identity_credential"):
            raise Refusal("invalid_request", 900144, "The body needs 'user_federated_identity_credential'.")
        user = self._directory.find_user(form.get("username") or form.get("user_id", ""))
        if user is None:
            raise Refusal("invalid_grant", 50034, "The user account doesn't exist in the directory.")
        return Audience(client_id, user, _required(_scopes(form), form))


def _scopes(form: dict[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form.get("scope", "").split()))


def _required(scopes: tuple[str, ...], form: dict[str, str]) -> tuple[str, ...]:
    if not scopes and not form.get("resource"):
        raise Refusal("invalid_request", 900144, "The request body must contain 'scope'.")
    return scopes


def _challenge(verifier: str, method: str) -> str:
    if method.upper() != "S256":
        return verifier
    return base64url(hashlib.sha256(verifier.encode()).digest())


def _user_in(assertion: str, tid: str) -> User | None:
    """Read a user who isn't in the directory out of a token of ours, as OBO chains of foreign assertions need."""
    claims = jwt.decode(assertion, options={"verify_signature": False})
    if claims.get("idtyp") == "app":
        return None
    name = str(claims.get("preferred_username") or claims.get("upn") or claims["oid"])
    return User(name, str(claims["oid"]), tid, str(claims.get("name", name)))
