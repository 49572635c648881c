"""Verified tokens in FastAPI and Starlette: a dependency with its OpenAPI scheme, and an ASGI middleware.

    verifier = resilient_auth.aio.ClaimsVerifier.for_entra(...)
    orders = Authenticated(verifier, scopes="orders.read")

    @app.get("/orders")
    async def read(claims: Annotated[Claims, Depends(orders)]): ...

Needs the extra: `pip install 'resilient-auth[fastapi]'`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from .._policy.checks import require
from .._process.extras import raise_missing
from ..verify.claims import Claims
from ..verify.errors import InvalidToken, VerificationUnavailable
from ..verify.http import Guard, Refusal, challenged, public_paths

try:
    from fastapi import HTTPException
    from fastapi.openapi.models import HTTPBearer, OpenIdConnect
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse
except ImportError as error:
    raise_missing(__name__, "fastapi", error)

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Authenticated", "ClaimsMiddleware", "challenge"]


class Authenticated(SecurityBase):
    """Depend on a verified token: gives `Claims`, and leaves them in `request.state.claims` too (G16).

    `Security(authenticated, scopes=["orders.write"])` asks for further scopes at one route.

    Args:
        verifier: `resilient_auth.aio.ClaimsVerifier`, which never blocks the loop.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.
        scheme_name: The name of the OpenAPI security scheme.
        description: What the scheme's documentation says.
        openid_connect_url: Where the provider's discovery document is; with it the scheme is OpenID Connect's, and
            documents show scopes.

    Raises:
        ConfigurationError: An argument is wrong.
        HTTPException: At a request: 401, 403 or 503, whose `detail` has a stable `code` and a `message` for the user.
    """

    def __init__(
        self,
        verifier: Any,
        *,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        app_only: bool | None = None,
        grace: bool = False,
        realm: str | None = None,
        scheme_name: str = "bearer",
        description: str | None = None,
        openid_connect_url: str | None = None,
    ) -> None:
        self._guard = _nonblocking(
            Guard(verifier, scopes=scopes, roles=roles, app_only=app_only, grace=grace, realm=realm)
        )
        self.scheme_name = scheme_name
        self.model = (
            HTTPBearer(bearerFormat="JWT", description=description)
            if openid_connect_url is None
            else OpenIdConnect(openIdConnectUrl=openid_connect_url, description=description)
        )

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Claims:
        """Verify a request's token."""
        try:
            claims = await self._guard.admit_async(
                connection.headers.getlist("Authorization"), tuple(security_scopes.scopes)
            )
        except (InvalidToken, VerificationUnavailable) as error:
            refusal = self._guard.refuse(error)
        else:
            connection.state.claims = claims
            return claims
        raise _exception(refusal)


class ClaimsMiddleware:
    """Let only requests with a verified token through, web sockets too; their claims are in `request.state.claims`.

    Around a whole application, or around one route: `Route(..., middleware=[Middleware(ClaimsMiddleware, ...)])`.
    Put CORS middleware outside of it, since preflight requests have no token.

    Args:
        app: The ASGI application inside.
        verifier: As for `Authenticated`.
        scopes: As for `Authenticated`.
        roles: As for `Authenticated`.
        app_only: As for `Authenticated`.
        grace: As for `Authenticated`.
        realm: As for `Authenticated`.
        public: Paths that need no token, compared as a whole: `("/health",)`.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: Any,
        *,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        app_only: bool | None = None,
        grace: bool = False,
        realm: str | None = None,
        public: Collection[str] = (),
    ) -> None:
        self._public = public_paths(public)
        self._app = app
        self._guard = _nonblocking(
            Guard(verifier, scopes=scopes, roles=roles, app_only=app_only, grace=grace, realm=realm)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "lifespan" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            connection.state.claims = await self._guard.admit_async(connection.headers.getlist("Authorization"))
        except (InvalidToken, VerificationUnavailable) as error:
            refusal = self._guard.refuse(error)
        else:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            # The server can't send an answer with a body then; it makes a 403 of this.
            await send({"type": "websocket.close", "code": 1008})
            return
        response = JSONResponse(refusal.body, refusal.status, dict(refusal.headers))
        await response(scope, receive, send)


def challenge(
    claims: Claims,
    required: Mapping[str, Any] | str,
    *,
    realm: str | None = None,
    authorization_uri: str | None = None,
) -> HTTPException:
    """Make the exception that asks a caller for more than its token has; see `claims_challenge` (G17).

    Returns:
        What to raise.
    """
    return _exception(challenged(claims, required, realm=realm, authorization_uri=authorization_uri))


def _nonblocking(guard: Guard) -> Guard:
    require(guard.asynchronous, "this verifier would block the event loop: use resilient_auth.aio.ClaimsVerifier")
    return guard


def _exception(refusal: Refusal) -> HTTPException:
    return HTTPException(refusal.status, refusal.body["detail"], dict(refusal.headers))
