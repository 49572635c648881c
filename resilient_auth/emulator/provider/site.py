"""The identity provider's site: from a request to the part that answers it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..wire.messages import Request, Response, html_response, json_response
from .authorize import SignIn
from .discovery import Discovery
from .grants import TokenEndpoint
from .oauth_errors import Refusal
from .realms import locate

#: What pages of other origins may ask, as single-page applications do.
_OF_PAGES: Final = frozenset({"discovery", "jwks", "token"})
_CORS: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
    ("Access-Control-Allow-Headers", "*"),
)


class IdentityProvider:
    """Serves discovery, keys, sign-in and tokens for whatever realm a path names."""

    def __init__(self, discovery: Discovery, sign_in: SignIn, tokens: TokenEndpoint) -> None:
        self._discovery = discovery
        self._sign_in = sign_in
        self._tokens = tokens

    @staticmethod
    def endpoint_of(request: Request) -> str:
        """Return the name of the endpoint that a request is for."""
        return locate(request.host, request.segments, request.query)[0]

    def respond(self, request: Request) -> Response:
        """Answer a request."""
        if "origin" not in request.headers or self.endpoint_of(request) not in _OF_PAGES:
            return self._answer(request)
        answer = Response(204) if request.method == "OPTIONS" else self._answer(request)
        return replace(answer, headers=(*answer.headers, *_CORS))

    def _answer(self, request: Request) -> Response:
        try:
            return self._route(request)
        except Refusal as refusal:
            return refusal.as_response(request)

    def _route(self, request: Request) -> Response:
        endpoint, realm = locate(request.host, request.segments, request.query)
        match endpoint, realm:
            case "discovery", None:
                return self._discovery.instances(request)
            case "userrealm", _:
                return self._discovery.user_realm(request)
            case _, None:
                return html_response(
                    "<!DOCTYPE html><title>404</title><h1>404 - File or directory not found.</h1>", 404
                )
            case "discovery", _:
                return self._discovery.openid_configuration(request, realm)
            case "jwks", _:
                return self._discovery.keys(realm)
            case "token", _:
                return self._tokens.respond(request, realm)
            case "devicecode", _:
                return self._sign_in.device_code(request, realm)
            case "authorize", _:
                return self._sign_in.authorize(request, realm)
            case "logout", _:
                return self._sign_in.logout(request)
        return json_response({"error": "not_found"}, 404)
