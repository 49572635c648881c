"""A protected API that knows continuous access evaluation."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt

from .ledger import IssuedToken, Ledger
from .wire.messages import Request, Response, json_response

#: How the parameters of challenges are separated where they aren't quoted, by the first part of the path.
_SEPARATORS = {"unquoted": ", ", "blanks": " "}


class ProtectedApi:
    """Answers whoever brings a valid access token, and challenges whoever brings a revoked one.

    What is below `/forbidden` refuses every token. Below `/unquoted` and `/blanks` challenges are written as Dataverse
    and Azure DevOps, and as Storage, write theirs.
    """

    def __init__(self, ledger: Ledger, authorize_url: Callable[[], str]) -> None:
        self._ledger = ledger
        self._authorize_url = authorize_url

    @staticmethod
    def endpoint_of(request: Request) -> str:
        """Return the name of the one endpoint."""
        return "api"

    def respond(self, request: Request) -> Response:
        """Answer with the token's claims, or 401 with the reason in `WWW-Authenticate`."""
        answer = self._answer(request)
        separator = _SEPARATORS.get(request.segments[0]) if request.segments else None
        if answer.status != 401 or separator is None:
            return answer
        ((name, header),) = answer.headers
        parameters = [parameter.replace('"', "") for parameter in header.removeprefix("Bearer ").split(", ")]
        # What isn't quoted can be neither empty nor hold blanks.
        written = separator.join(p for p in parameters if " " not in p and not p.endswith("realm="))
        return replace(answer, headers=((name, f"Bearer {written}"),))

    def _answer(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return self._challenge(None)
        issued = self._ledger.lookup(token.strip())
        if issued is None or issued.kind != "access":
            return self._challenge(issued, "invalid_token", "The token wasn't issued for this API.")
        if time.time() >= issued.expires_at:
            return self._challenge(issued, "invalid_token", "The access token has expired.")
        if self._ledger.is_revoked(issued):
            if issued.cae:
                return self._claims_challenge(issued)
            return self._challenge(issued, "invalid_token", "The access token has been revoked.")
        if request.segments[:1] == ("forbidden",):
            return self._challenge(issued, "invalid_token", "No token will do here.")
        claims: dict[str, Any] = jwt.decode(token.strip(), options={"verify_signature": False})
        payload = {"method": request.method, "path": request.path, "claims": claims, "received": len(request.body)}
        return json_response(payload, token_id=issued.jti)

    def _claims_challenge(self, issued: IssuedToken) -> Response:
        # One second on, because `nbf` counts in seconds and a token of this second may be the revoked one.
        not_before = str(int(issued.issued_at) + 1)
        wanted = {"access_token": {"nbf": {"essential": True, "value": not_before}}}
        claims = base64.b64encode(json.dumps(wanted).encode()).decode()
        return self._challenge(
            issued, "insufficient_claims", "Continuous access evaluation resulted in a challenge.", claims
        )

    def _challenge(
        self, issued: IssuedToken | None, error: str = "", description: str = "", claims: str = ""
    ) -> Response:
        parts = {
            "realm": "",
            "authorization_uri": self._authorize_url(),
            "error": error,
            "error_description": description,
            "claims": claims,
        }
        header = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parts.items() if value or name == "realm")
        return json_response(
            {"error": {"code": "InvalidAuthenticationToken", "message": description or "Access token is empty."}},
            401,
            (("WWW-Authenticate", header),),
            issued.jti if issued else None,
        )
