"""Managed identity, as virtual machines (IMDS) and App Service offer it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..settings import Settings
from ..wire.messages import Request, Response, json_response
from .directory import Audience
from .realms import Realm
from .tokens import Mint

SYSTEM_ASSIGNED_CLIENT_ID = "5e1f0000-0000-4000-8000-000000000001"

_USER_ASSIGNED = ("client_id", "clientid", "object_id", "principal_id", "msi_res_id", "mi_res_id")


class ManagedIdentity:
    """Gives tokens to whoever can reach it, as the real ones do."""

    def __init__(self, mint: Mint, settings: Settings, host: Callable[[], str]) -> None:
        self._mint = mint
        self._settings = settings
        self._host = host

    @staticmethod
    def endpoint_of(request: Request) -> str:
        """Return the name of the endpoint that a request is for."""
        return "imds_compute" if request.segments[:2] == ("metadata", "instance") else "managed_identity"

    def respond(self, request: Request) -> Response:
        """Answer a request."""
        if request.method != "GET":
            return _imds_error(405, "method_not_allowed", "Only GET is allowed.")
        match request.segments:
            case ("metadata", "identity", "oauth2", "token"):
                return self._imds_token(request)
            case ("msi", "token"):
                return self._app_service_token(request)
            case ("metadata", "instance", "compute", *rest):
                return self._compute(request, rest)
        return _imds_error(404, "not_found", "There is no such endpoint.")

    def _imds_token(self, request: Request) -> Response:
        if request.headers.get("metadata", "").lower() != "true":
            return _imds_error(400, "invalid_request", "Required metadata header not specified")
        if not request.query.get("resource"):
            return _imds_error(400, "invalid_request", "Required query variable 'resource' is missing")
        if "api-version" not in request.query:
            return _imds_error(400, "invalid_request", "Required query variable 'api-version' is missing")
        if len(_chosen(request)) > 1:
            return _imds_error(400, "invalid_request", "Only one of client_id, object_id and msi_res_id is allowed")
        body, token_id = self._token(request)
        lifetime = "0" if request.expired_tokens else str(int(self._settings.token_lifetime))
        return json_response(body | {"expires_in": lifetime, "ext_expires_in": lifetime}, token_id=token_id)

    def _app_service_token(self, request: Request) -> Response:
        header = request.headers.get("x-identity-header", "")
        if not header or header == "wrong":
            return json_response({"statusCode": 401, "message": "The X-IDENTITY-HEADER is missing or wrong."}, 401)
        if not request.query.get("resource") or "api-version" not in request.query or len(_chosen(request)) > 1:
            wanted = "The request needs resource and api-version, and one identity at most."
            return json_response({"statusCode": 400, "message": wanted}, 400)
        body, token_id = self._token(request)
        return json_response(body, token_id=token_id)

    def _token(self, request: Request) -> tuple[dict[str, Any], str]:
        resource = request.query["resource"]
        client_id = next(iter(_chosen(request)), SYSTEM_ASSIGNED_CLIENT_ID)
        # Managed identities get v1 tokens, whatever the resource.
        realm = Realm("v1", self._host(), "contoso", "")
        audience = Audience(client_id, None, (f"{resource}/.default",), resource, expired=request.expired_tokens)
        text, issued = self._mint.access_token(realm, audience)
        body = {
            "access_token": text,
            "client_id": client_id,
            "expires_on": str(int(issued.expires_at)),
            "not_before": str(int(issued.issued_at)),
            "resource": resource,
            "token_type": "Bearer",
        }
        return body, issued.jti

    def _compute(self, request: Request, rest: list[str]) -> Response:
        if request.headers.get("metadata", "").lower() != "true":
            return _imds_error(400, "invalid_request", "Required metadata header not specified")
        if rest == ["location"]:
            return Response(200, self._settings.region.encode(), "text/plain; charset=utf-8")
        return json_response(
            {
                "azEnvironment": "AzurePublicCloud",
                "location": self._settings.region,
                "name": "emulated",
                "osType": "Linux",
                "vmSize": "Standard_A1_v2",
            }
        )


def _chosen(request: Request) -> list[str]:
    return [request.query[name] for name in _USER_ASSIGNED if request.query.get(name)]


def _imds_error(status: int, error: str, description: str) -> Response:
    return json_response({"error": error, "error_description": description}, status)
