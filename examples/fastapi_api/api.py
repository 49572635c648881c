"""An orders API: verifies its callers' tokens, and asks an inventory API on behalf of them.

While the identity provider is gone, every caller with a valid token is served: the keys that tokens are verified with
are kept, and so are the tokens for the inventory. What can't be had is left out, and said to be missing.

It reads its configuration from the environment; see README.md. Start it with `uvicorn --factory api:create_app`.
"""

import logging
import math
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import httpx
import resilient_auth as ra
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from resilient_auth import msal
from resilient_auth.integrations.fastapi import Authenticated, challenge, mount_health, mount_status_page
from resilient_auth.verify import Claims

log = logging.getLogger("orders")

#: What this API holds itself; a real one has a database.
ORDERS = {"1001": {"item": "tea", "pieces": 2}, "1002": {"item": "biscuits", "pieces": 1}}
#: The authentication context that a refund wants: the provider's conditional access says what a user must do for it.
STEP_UP = "c1"

#: The token of the request under way. Each request runs in a task of its own, and so has its own value.
assertion: ContextVar[str] = ContextVar("assertion")


class CallerMustAct(Exception):
    """The provider works and wants something of the user, who is at the caller's, not here.

    Args:
        claims: What the caller is to ask the provider for; None where it must sign in anew and no more is known.
    """

    def __init__(self, claims: str | None) -> None:
        super().__init__("the caller must get another token")
        self.claims = claims


class Inventory:
    """The API behind, asked on behalf of whoever calls."""

    def __init__(self, settings: ra.Settings) -> None:
        self._scope = os.environ["INVENTORY_SCOPE"]
        self._app = ra.aio.wrap(
            msal.ConfidentialClientApplication(
                os.environ["CLIENT_ID"],
                authority=f"https://login.microsoftonline.com/{os.environ['TENANT_ID']}",
                client_credential=os.environ["CLIENT_SECRET"],
                # Only who handles claims challenges may say so: the tokens then live long, since they can be revoked.
                client_capabilities=["cp1"],
                resilience=settings,
            )
        )
        # One client for all callers: they share the connections, the breaker and the bulkhead, and no token.
        self._client = ra.aio.api_client(
            os.environ["INVENTORY_URL"],
            self._on_behalf_of_the_caller,
            # Who waits for the orders doesn't wait any longer for the stock, its token included.
            options=ra.TransportOptions(deadline=2.0, attempt_timeout=1.0, connect_timeout=1.0),
        )

    async def stock(self) -> tuple[dict[str, Any] | None, str | None]:
        """Return what there is; or None, and what to tell the user (G19).

        Raises:
            CallerMustAct: The token for it needs the user.
        """
        try:
            answer = await self._client.get("/api/stock")
        except (httpx.TransportError, ra.ProviderUnavailable) as error:
            log.warning("no stock: %s", error)
            wait = getattr(error, "retry_after", None)
            hint = "later" if wait is None else f"in {max(1, math.ceil(wait))} s"
            return None, f"The stock can't be shown right now. Please try again {hint}."
        if answer.is_error:
            log.warning("no stock: the inventory answered %d", answer.status_code)
            return None, "The stock can't be shown right now."
        # The API of this sample answers with what it was asked; a real one would send its stock.
        told = answer.json()
        return {"at": told["path"], "for": told["claims"]["preferred_username"]}, None

    async def _on_behalf_of_the_caller(self, claims: str | None = None) -> dict[str, Any]:
        # The result is held for this very token of this very user, in the store too: no exchange for each request.
        result: dict[str, Any] = await self._app.acquire_token_on_behalf_of(
            assertion.get(), [self._scope], claims_challenge=claims
        )
        if result.get("error") in ("invalid_grant", "interaction_required"):
            # What the provider wants of the user goes before what the inventory wanted of the provider.
            raise CallerMustAct(result.get("claims") or claims)
        # Any other denial is our fault, such as a wrong secret: no stock, and no user can mend it.
        return result

    async def close(self) -> None:
        await self._client.aclose()
        await self._app.close()


def create_app() -> FastAPI:
    # Tokens for the inventory outlive a restart.
    store = ra.FileStore(Path(os.environ["DATA"]) / "tokens.db")
    settings = ra.Settings(store=store)
    inventory = Inventory(settings)
    verifier = ra.aio.ClaimsVerifier.for_entra(
        os.environ["TENANT_ID"],
        os.environ["AUDIENCE"],
        settings=settings,
        # A key set that was fetched, looked at and signed off: a start in an outage verifies with it.
        pinned_keys=os.environ.get("PINNED_KEYS"),
    )
    reader = Authenticated(verifier, scopes="orders.read", app_only=False)
    clerk = Authenticated(verifier, scopes="orders.refund", app_only=False)
    auditor = Authenticated(verifier, roles="Tasks.ReadWrite.All", app_only=True)

    # Without a password nobody is let in. An operators' sign-in of your own is better: a browser is all that it takes.
    password = os.environ.get("OPERATOR_PASSWORD") or secrets.token_urlsafe()

    def operator(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
        """Let those in who look after this API."""
        if not secrets.compare_digest(given.password.encode(), password.encode()):
            raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Without keys it starts all the same, and answers 503 until it has some: a restart doesn't make them come.
        with suppress(ra.VerificationUnavailable):
            await verifier.warm_up()
        # What is asked for and how much of it succeeds, for the status page, and alerts as events (G25).
        with ra.telemetry.watch(store=store):
            yield
        await inventory.close()
        await verifier.close()
        store.close()

    app = FastAPI(title="Orders", lifespan=lifespan)

    @app.exception_handler(CallerMustAct)
    async def hand_on(request: Request, error: CallerMustAct) -> Response:
        """Tell the caller what the provider wants, if it can do something about it; CAE through two APIs (G17)."""
        if error.claims is not None:
            # 401 with the claims where the caller declared cp1, 403 where it didn't.
            told = challenge(request.state.claims, error.claims)
        else:
            told = HTTPException(
                401,
                {"code": "sign_in_again", "message": "Please sign in again."},
                {"WWW-Authenticate": 'Bearer error="invalid_token"', "Cache-Control": "no-store"},
            )
        return await http_exception_handler(request, told)

    @app.get("/me")
    async def me(claims: Annotated[Claims, Depends(reader)]) -> dict[str, Any]:
        """Return who calls, which is all in the token: nobody is asked (G14)."""
        return {"name": claims.name, "username": claims.username, "keys": claims.provenance.keys}

    @app.get("/orders")
    async def orders(request: Request, claims: Annotated[Claims, Depends(reader)]) -> dict[str, Any]:
        """List the orders, with the stock where it can be had."""
        assertion.set(request.headers["Authorization"].split()[1])
        stock, reduced = await inventory.stock()
        # The orders are ours to give, to whoever was verified here, with the stock or without.
        return {"for": claims.username, "orders": ORDERS, "stock": stock, "reduced": reduced}

    @app.post("/orders/{number}/refund")
    async def refund(number: str, claims: Annotated[Claims, Depends(clerk)]) -> dict[str, str]:
        """Refund an order, for who has just proven more than a password."""
        if STEP_UP not in claims.raw.get("acrs", ()):
            raise challenge(claims, STEP_UP)
        if number not in ORDERS:
            raise HTTPException(404, {"code": "no_such_order", "message": "There is no such order."})
        return {"refunded": number}

    @app.get("/audit")
    async def audit(claims: Annotated[Claims, Depends(auditor)]) -> dict[str, Any]:
        """List what is open, for an application that acts for itself and has the role."""
        return {"for": claims.client_id, "open": sorted(ORDERS)}

    # /health/live for a liveness probe: a restart wouldn't mend the provider. /health/ready for a readiness probe.
    mount_health(app)
    # /status for who is on call, and /metrics for Prometheus: both name authorities and scopes, and are the operators'.
    mount_status_page(app, guard=operator, title="Orders")
    registry = CollectorRegistry()
    registry.register(ra.telemetry.prometheus_collector())

    @app.get("/metrics", dependencies=[Depends(operator)], include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


if __name__ == "__main__":
    # On one machine, to try it out. Elsewhere a proxy in front brings TLS, or uvicorn is given a certificate.
    uvicorn.run("api:create_app", factory=True, port=int(os.environ.get("PORT", "8000")), log_level="warning")
