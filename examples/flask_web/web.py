"""Contoso's web application in Flask: its users stay signed in while nobody can sign in.

It reads its configuration from the environment; see README.md.
"""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import resilient_auth as ra
from flask import Flask, request
from resilient_auth.integrations.flask import SignIn, mount_health, mount_status_page
from resilient_auth.signin import IdentityProvider, SignInOptions
from werkzeug.exceptions import HTTPException, InternalServerError, SecurityError
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

import contoso

log = logging.getLogger("web")


def create_app(environ: Mapping[str, str] = os.environ, *, settings: ra.Settings | None = None) -> Flask:
    app = Flask(__name__, static_folder=contoso.STATIC)
    app.config["TRUSTED_HOSTS"] = [urlsplit(environ["BASE_URL"]).hostname]
    closing = app.extensions["closing"] = ExitStack()
    # Sessions and tokens, sealed: a restart in an outage signs nobody out (G3).
    store = closing.enter_context(ra.FileStore(Path(environ["DATA"]) / "users.db"))
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
        settings=settings,
    )
    closing.callback(auth.close)
    app.extensions["sign_in"] = auth
    api = closing.enter_context(auth.api_client(environ["API_URL"], [environ["API_SCOPE"]], options=contoso.API_WAITS))
    profiles = contoso.Profiles()

    @app.get("/")
    def home() -> str:
        return contoso.page("home", auth.user)

    @app.get("/profile")
    @auth.login_required(scopes=[environ["API_SCOPE"]])
    def profile() -> Any:
        assert auth.user is not None  # who isn't signed in doesn't come here
        fresh = True
        try:
            profiles.keep(auth.user, api.get("/api/me").raise_for_status().json()["claims"])
        except (httpx.HTTPError, ra.ProviderUnavailable) as error:
            log.warning("no profile: %s", contoso.one_line(error))
            fresh = False
        return contoso.profile_page(auth.user, profiles.of(auth.user), fresh=fresh)

    @app.get("/account")
    # An authentication context, which Entra's conditional access gives a meaning: here it is one more proof.
    @auth.login_required(acrs="c1")
    def account() -> Any:
        assert auth.user is not None  # who isn't signed in doesn't come here
        return contoso.account_page(auth.user)

    # For probes: /health/ready fails where nobody would be served, /health/live never for the provider's sake.
    mount_health(app)
    operators = contoso.Operators(environ.get("OPERATOR_PASSWORD"))
    closing.callback(ra.telemetry.uninstrument)

    def for_operators(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if operators.know(request.headers.get("Authorization")):
                return view(*args, **kwargs)
            return "For operators.", 401, operators.ASKED

        return guarded

    mount_status_page(app, guard=for_operators, title="Contoso")
    app.get("/metrics")(for_operators(operators.metrics))

    @app.after_request
    def protect(response: Response) -> Response:
        for name, value in contoso.HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.errorhandler(HTTPException)
    def tell_of_an_error(error: HTTPException) -> Any:
        # No page for another host's name: no link of ours could be made.
        status = error.code or 500
        return "Bad request" if isinstance(error, SecurityError) else contoso.error_page(status), status

    @app.errorhandler(Exception)
    def tell_of_a_fault(error: Exception) -> Any:
        log.error("a page failed", exc_info=error)
        return tell_of_an_error(InternalServerError())

    return app


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    base = urlsplit(os.environ["BASE_URL"])
    # On one machine, to try it out. Elsewhere: a server such as gunicorn, and TLS there or in a proxy before it.
    certificate = os.environ["CERTIFICATE_FILE"], os.environ["KEY_FILE"]
    app = create_app()
    # What is asked for and how much of it succeeds is counted, for the status page, and alerts are events (G25).
    with app.extensions["closing"], ra.telemetry.watch():
        make_server(str(base.hostname), base.port or 443, app, threaded=True, ssl_context=certificate).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
