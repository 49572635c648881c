"""Verified tokens in FastAPI and Starlette: a dependency with its OpenAPI scheme, and an ASGI middleware.

    verifier = resilient_auth.aio.ClaimsVerifier.for_entra(...)
    orders = Authenticated(verifier, scopes="orders.read")

    @app.get("/orders")
    async def read(claims: Annotated[Claims, Depends(orders)]): ...

    install(app)

Needs the extra: `pip install 'resilient-auth[fastapi]'`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .._policy.checks import require
from .._process.extras import raise_missing
from ..errors import ResilientAuthError
from ..verify.claims import Claims
from ..verify.http import (
    Arrived,
    Guard,
    Refusal,
    TokenCookie,
    TokenHeader,
    TokenPlace,
    TokenQuery,
    challenged,
    public_paths,
    refused,
)
from ..verify.trust import is_https

try:
    from fastapi import HTTPException
    from fastapi.openapi import models
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse
    from starlette.websockets import WebSocketState

    from .callout_routes.starlette import mount_callout
    from .health_routes.starlette import mount_health
    from .signals.starlette import mount_signals
    from .signing_in.starlette import SignIn, answer_groups
    from .status_page.starlette import mount_status_page
except ImportError as error:
    raise_missing(__name__, "fastapi", error)

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = [
    "Authenticated",
    "AuthorizationCode",
    "ClaimsMiddleware",
    "SignIn",
    "challenge",
    "handle_errors",
    "install",
    "mount_callout",
    "mount_health",
    "mount_signals",
    "mount_status_page",
]


@dataclass(frozen=True, kw_only=True)
class AuthorizationCode:
    """Describe to the docs page how a user signs in: OAuth 2.0's authorization code with PKCE (RFC 7636).

    Args:
        authorization_url: Where users sign in.
        token_url: Where codes are redeemed. The provider must let pages of the application's origin ask there, which
            Entra does for redirect addresses of the platform "single-page application".
        scopes: Scopes as they are asked for, each with what it allows: `{"api://orders/orders.read": "Read orders"}`.
        refresh_url: Where tokens are refreshed, if that is elsewhere.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    authorization_url: str
    token_url: str
    scopes: Mapping[str, str]
    refresh_url: str | None = None

    def __post_init__(self) -> None:
        for name in ("authorization_url", "token_url", "refresh_url"):
            url = getattr(self, name)
            fits = (url is None and name == "refresh_url") or is_https(url)
            require(fits, f"{name} must be an https address, not {url!r}")
        fits = isinstance(self.scopes, Mapping) and all(
            isinstance(text, str) and text for pair in self.scopes.items() for text in pair
        )
        require(
            fits and not any(c.isspace() for name in self.scopes for c in name),
            'scopes must be names with their descriptions, such as {"api://orders/orders.read": "Read orders"}',
        )

    @classmethod
    def of_authority(cls, authority: str, scopes: Mapping[str, str]) -> Self:
        """Describe it for an authority of Entra, B2C or External ID, such as `https://login.microsoftonline.com/contoso`.

        Args:
            authority: As MSAL takes it.
            scopes: As for the class.
        """
        base = authority.rstrip("/") if isinstance(authority, str) else authority
        return cls(
            authorization_url=f"{base}/oauth2/v2.0/authorize", token_url=f"{base}/oauth2/v2.0/token", scopes=scopes
        )

    def docs_page(self, client_id: str) -> dict[str, Any]:
        """Return what the docs page needs: `FastAPI(swagger_ui_init_oauth=scheme.docs_page("client id"))`.

        Args:
            client_id: The docs page's own, registered for `<the application's origin>/docs/oauth2-redirect`; public.
        """
        return {
            "clientId": client_id,
            "scopes": " ".join(self.scopes),
            "usePkceWithAuthorizationCodeGrant": True,
        }


class Authenticated(SecurityBase):
    """Depend on a verified token: gives `Claims`, and leaves them in `request.state.claims` too (G16).

    `Security(authenticated, scopes=["orders.write"])` asks for further scopes at one route.

    Args:
        verifier: `resilient_auth.aio.ClaimsVerifier`, which never blocks the loop.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        any_scopes: Scopes of which it must have one, or one of `any_roles`.
        any_roles: Roles of which it must have one, or one of `any_scopes`.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.
        token_in: Where the token is, such as `TokenCookie("access_token")`, or several places in order; the
            `Authorization` header when not given.
        auto_error: Refuse requests without a token. With False these give None in place of claims, for what anonymous
            users may do too, or other ways to sign in; a bad token is refused all the same.
        scheme_name: The name of the OpenAPI security scheme.
        description: What the scheme's documentation says.
        openid_connect_url: Where the provider's discovery document is; with it the scheme is OpenID Connect's, and
            documents show scopes.
        authorization_code: How users sign in at the docs page: its Authorize button then does so.

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
        any_scopes: str | Collection[str] = (),
        any_roles: str | Collection[str] = (),
        app_only: bool | None = None,
        grace: bool = False,
        realm: str | None = None,
        token_in: TokenPlace | Sequence[TokenPlace] | None = None,
        auto_error: bool = True,
        scheme_name: str = "bearer",
        description: str | None = None,
        openid_connect_url: str | None = None,
        authorization_code: AuthorizationCode | None = None,
    ) -> None:
        self._guard = _nonblocking(
            Guard(verifier, scopes, roles, any_scopes, any_roles, app_only, grace, realm, token_in)
        )
        require(isinstance(auto_error, bool), f"auto_error must be True or False, not {auto_error!r}")
        require(
            authorization_code is None or isinstance(authorization_code, AuthorizationCode),
            f"authorization_code must be AuthorizationCode(...), not {authorization_code!r}",
        )
        require(
            authorization_code is None or openid_connect_url is None,
            "authorization_code and openid_connect_url are two schemes: give one of them",
        )
        self._auto_error = auto_error
        self.scheme_name = scheme_name
        self.model = _scheme(self._guard.places[0], description, openid_connect_url, authorization_code)

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Claims | None:
        """Verify a request's token; None where there is none and `auto_error` is off."""
        try:
            claims = await self._guard.admit_async(_arrived(connection), tuple(security_scopes.scopes))
        except ResilientAuthError as error:
            if error.code == "missing" and not self._auto_error:
                return None
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
        any_scopes: As for `Authenticated`.
        any_roles: As for `Authenticated`.
        app_only: As for `Authenticated`.
        grace: As for `Authenticated`.
        realm: As for `Authenticated`.
        token_in: As for `Authenticated`.
        public: Paths that need no token, compared as a whole, as the application's own routes name them whatever it is
            mounted under: `("/health",)`.

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
        any_scopes: str | Collection[str] = (),
        any_roles: str | Collection[str] = (),
        app_only: bool | None = None,
        grace: bool = False,
        realm: str | None = None,
        token_in: TokenPlace | Sequence[TokenPlace] | None = None,
        public: Collection[str] = (),
    ) -> None:
        self._public = public_paths(public)
        self._app = app
        self._guard = _nonblocking(
            Guard(verifier, scopes, roles, any_scopes, any_roles, app_only, grace, realm, token_in)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "lifespan" or _route_path(scope) in self._public:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            connection.state.claims = await self._guard.admit_async(_arrived(connection))
        except ResilientAuthError as error:
            refusal = self._guard.refuse(error)
        else:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            # The server can't send an answer with a body then; it makes a 403 of this.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        await _response(refusal)(scope, receive, send)


def handle_errors(app: Starlette, *, realm: str | None = None) -> None:
    """Answer every error of this package that an endpoint or a dependency raises, as `Authenticated` answers its own.

    Tokens that are refused get 401 or 403, what can't be had now from the provider, an API, a claims service or a store
    gets 503 with `Retry-After`. Mistakes of the application's own (`ConfigurationError`) stay what they are. Handlers
    of the application's for an error's own class come first. A web socket that was accepted is closed.

    Args:
        app: The application, of FastAPI or Starlette; or one that is mounted.
        realm: The protection space's name in challenges.
    """

    async def handle(connection: Any, error: Any) -> Any:
        refusal = refused(error, realm=realm)
        if connection.scope["type"] != "websocket":
            return _response(refusal)
        if connection.application_state is WebSocketState.CONNECTED:
            await connection.close(_TRY_AGAIN_LATER if refusal.status == 503 else _POLICY_VIOLATION)
        elif "websocket.http.response" in connection.scope.get("extensions", {}):
            await connection.send_denial_response(_response(refusal))
        else:
            await connection.close(_POLICY_VIOLATION)
        return None

    app.add_exception_handler(ResilientAuthError, handle)
    answer_groups(app)


#: Its name in every framework.
install = handle_errors

#: Of RFC 6455, section 7.4.1, and of IANA's registry of close codes.
_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013


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


def _response(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.body, refusal.status, dict(refusal.headers))


def _arrived(connection: HTTPConnection) -> Arrived:
    scope = connection.scope
    query = scope.get("query_string", b"").decode("latin-1")
    return Arrived(scope.get("method", ""), query, connection.headers.getlist, lambda: str(connection.url))


def _route_path(scope: Scope) -> str:
    """Return the path as the application's own routes name it: below what it is mounted under, as Starlette routes."""
    path: str = scope["path"]
    mounted: str = scope.get("root_path", "")
    if mounted and (path == mounted or path.startswith(f"{mounted}/")):
        return path[len(mounted) :]
    return path


def _scheme(
    place: TokenPlace, description: str | None, openid_connect_url: str | None, code: AuthorizationCode | None
) -> models.SecurityBase:
    if code is not None:
        flow = models.OAuthFlowAuthorizationCode(
            authorizationUrl=code.authorization_url,
            tokenUrl=code.token_url,
            refreshUrl=code.refresh_url,
            scopes=dict(code.scopes),
        )
        return models.OAuth2(flows=models.OAuthFlows(authorizationCode=flow), description=description)
    if openid_connect_url is not None:
        return models.OpenIdConnect(openIdConnectUrl=openid_connect_url, description=description)
    kinds = {TokenCookie: "cookie", TokenQuery: "query", TokenHeader: "header"}
    if type(place) not in kinds or place == TokenHeader():
        return models.HTTPBearer(bearerFormat="JWT", description=description)
    return models.APIKey.model_validate({"in": kinds[type(place)], "name": place.name, "description": description})
