"""Contoso's web application in FastAPI: its users stay signed in while nobody can sign in.

It reads its configuration from the environment; see README.md.
"""

import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import resilient_auth as ra
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from resilient_auth.integrations.fastapi import SignIn, mount_health, mount_status_page
from resilient_auth.signin import IdentityProvider, SignInOptions, User
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import contoso

log = logging.getLogger("web")


def create_app(environ: Mapping[str, str] = os.environ) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # What is asked for and how much of it succeeds is counted, for the status page, and alerts are events (G25).
        with ra.telemetry.watch():
            yield
        await api.aclose()
        auth.close()
        store.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, default_response_class=HTMLResponse)
    # Sessions and tokens, sealed: a restart in an outage signs nobody out (G3).
    store = ra.FileStore(Path(environ["DATA"]) / "users.db")
    auth = SignIn(
        app,
        IdentityProvider.for_entra(
            environ["TENANT_ID"],
            client_id=environ["CLIENT_ID"],
            client_credential=environ["CLIENT_SECRET"],
            scopes=[environ["API_SCOPE"]],
            # `api_client` meets claims challenges; only who does that may say so (G17).
            client_capabilities=["cp1"],
            label="Our sign-in service",
        ),
        base_url=environ["BASE_URL"],
        store=store,
        options=SignInOptions(sessions=contoso.SESSIONS, render=contoso.sign_in_page),
    )
    api = auth.api_client(environ["API_URL"], [environ["API_SCOPE"]], options=contoso.API_WAITS)
    profiles = contoso.Profiles()
    signed_in = auth.signed_in(scopes=[environ["API_SCOPE"]])
    # An authentication context, which Entra's conditional access gives a meaning: here it is one more proof.
    stepped_up = auth.signed_in(acrs="c1")

    def shown(page: str, status: int, headers: dict[str, str]) -> HTMLResponse:
        return HTMLResponse(page, status, headers)

    @app.get("/")
    async def home() -> str:
        return contoso.page("home", await auth.current_user())

    @app.get("/profile")
    async def profile(user: Annotated[User, Depends(signed_in)]) -> HTMLResponse:
        fresh = True
        try:
            answer = await api.get("/api/me")
            profiles.keep(user, answer.raise_for_status().json()["claims"])
        except (httpx.HTTPError, ra.ProviderUnavailable) as error:
            log.warning("no profile: %s", contoso.one_line(error))
            fresh = False
        return shown(*contoso.profile_page(user, profiles.of(user), fresh=fresh))

    @app.get("/account")
    async def account(user: Annotated[User, Depends(stepped_up)]) -> HTMLResponse:
        return shown(*contoso.account_page(user))

    app.mount("/static", StaticFiles(directory=contoso.STATIC))
    # For probes: /health/ready fails where nobody would be served, /health/live never for the provider's sake.
    mount_health(app)
    operators = contoso.Operators(environ.get("OPERATOR_PASSWORD"))

    def for_operators(request: Request) -> None:
        if not operators.know(request.headers.get("Authorization")):
            raise HTTPException(401, headers=operators.ASKED)

    mount_status_page(app, guard=for_operators, title="Contoso")

    @app.get("/metrics", dependencies=[Depends(for_operators)])
    def metrics() -> Response:
        return Response(*operators.metrics())

    @app.middleware("http")
    async def protect(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        for name, value in contoso.HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[str(urlsplit(environ["BASE_URL"]).hostname)])

    @app.exception_handler(HTTPException)
    async def tell_of_an_error(_: Request, error: HTTPException) -> HTMLResponse:
        return HTMLResponse(contoso.error_page(error.status_code), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def tell_of_a_fault(_: Request, error: Exception) -> HTMLResponse:
        return HTMLResponse(contoso.error_page(500), 500, contoso.HEADERS)

    return app


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    base = urlsplit(os.environ["BASE_URL"])
    # On one machine, to try it out. Elsewhere a proxy in front may bring TLS.
    uvicorn.run(
        create_app(),
        host=str(base.hostname),
        port=base.port or 443,
        ssl_certfile=os.environ["CERTIFICATE_FILE"],
        ssl_keyfile=os.environ["KEY_FILE"],
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
