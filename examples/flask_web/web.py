"""A web application whose users stay signed in while nobody can sign in.

Sign-in is the authorization code flow with PKCE, through MSAL; sessions are kept here, on the server, and roll (G13);
tokens are kept in a sealed file, so that a restart in an outage signs nobody out (G3).

It reads its configuration from the environment; see README.md.
"""

import functools
import json
import logging
import math
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import resilient_auth as ra
from cryptography import fernet
from flask import Flask, abort, g, redirect, render_template, request, url_for
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from provider import Provider
from resilient_auth import msal
from resilient_auth.clock import Clock, SystemClock
from resilient_auth.integrations.flask import mount_health, mount_status_page
from sessions import Limits, Sessions
from werkzeug.exceptions import Forbidden, HTTPException, InternalServerError, SecurityError
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

#: `__Host-` has browsers refuse such a cookie from anywhere but this very host, over TLS, for all of its paths.
SESSION_COOKIE, SIGN_IN_COOKIE = "__Host-session", "__Host-sign-in"
#: Seconds that a user may take at the provider's pages.
SIGN_IN_TAKES = 600
#: Seconds after a sign-in within which another one would help no more than that one did.
JUST_NOW = 30.0

log = logging.getLogger("web")


class SignInNeeded(Exception):
    """The provider works and gives no token for this user's API calls without the user.

    Args:
        claims: What the sign-in is to prove, where the API or the provider said so.
    """

    def __init__(self, claims: str | None) -> None:
        super().__init__("the user must sign in again")
        self.claims = claims


def create_app(
    environ: Mapping[str, str] = os.environ, *, limits: Limits | None = None, clock: Clock | None = None
) -> Flask:
    limits, clock = limits or Limits(), clock or SystemClock()
    app = Flask(__name__)
    base, authority, scope = environ["BASE_URL"], environ["AUTHORITY"], environ["API_SCOPE"]
    app.config["TRUSTED_HOSTS"] = [urlsplit(base).hostname]
    folder = Path(environ["DATA"])
    cookies = fernet.Fernet(environ["COOKIE_KEY"])
    closing = app.extensions["closing"] = ExitStack()
    store = closing.enter_context(ra.FileStore(folder / "tokens.db"))
    msal_app = closing.enter_context(
        msal.ConfidentialClientApplication(
            environ["CLIENT_ID"],
            authority=authority,
            client_credential=environ["CLIENT_SECRET"],
            # Claims challenges are handled below; only who does that may say so (G17).
            client_capabilities=["cp1"],
            # Somebody sits before the page: waits are shorter than a daemon's.
            resilience=ra.Settings(store=store, wait=5.0, attempt_timeout=4.0, connect_timeout=2.0),
        )
    )
    provider = Provider(authority, clock=clock)
    sessions = Sessions(
        folder / "sessions.db",
        limits=limits,
        nobody_can_sign_in=lambda: provider.retry_after() is not None,
        clock=clock,
    )

    def token_of_the_user(claims: str | None = None) -> dict[str, Any]:
        # A token that is due is served and refreshed in the background: it outlives an outage (G5).
        account = g.session.data["account"]
        result: dict[str, Any] | None = msal_app.acquire_token_silent_with_error(
            [scope], account, claims_challenge=claims
        )
        if result is None or result.get("error") in ("invalid_grant", "interaction_required"):
            raise SignInNeeded((result or {}).get("claims") or claims)
        return result

    # One client for all users: whose token goes out, and whom a refusal is held against, is decided request by request.
    options = ra.TransportOptions(deadline=6.0, attempt_timeout=2.0, connect_timeout=1.0)
    api = closing.enter_context(
        ra.api_client(environ["API_URL"], token_of_the_user, subject=lambda: g.session.user, options=options)
    )

    def fresh_profile() -> dict[str, Any] | None:
        """Ask the API; None where it can't tell right now."""
        try:
            answer = api.get("/api/me")
        except (httpx.TransportError, ra.ProviderUnavailable) as error:
            log.warning("no profile: %s", error)
            return None
        if answer.is_error:
            log.warning("no profile: the API answered %d", answer.status_code)
            return None
        # The API of this sample answers with the token's claims; a real one would tell more.
        told = answer.json()["claims"]
        names = {"Name": "name", "User name": "preferred_username", "Directory": "tid", "Permission": "scp"}
        return {"at": clock.wall(), "told": {label: told.get(name, "") for label, name in names.items()}}

    def signed_in(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if g.session is None:
                return redirect(url_for("sign_in", next=request.path), 303)
            return view(*args, **kwargs)

        return guarded

    @app.get("/")
    def home() -> str:
        return render_template("home.html", limits=limits)

    @app.get("/profile")
    @signed_in
    def profile() -> Any:
        fresh = fresh_profile()
        if fresh is not None:
            g.session.data["profile"] = fresh
            sessions.save(g.session)
        # Better what was true a moment ago than nothing, and said to be old (G19).
        kept = g.session.data.get("profile")
        if kept is None:
            return _unavailable(None, url_for("profile"))
        return render_template("profile.html", profile=kept, old=fresh is None)

    @app.get("/sign-in")
    def sign_in() -> Any:
        after = _own_path(request.args.get("next"))
        wait = provider.retry_after()
        if wait is not None:
            return _unavailable(wait, url_for("sign_in", next=after), signing_in=True)
        claims = g.session.data.get("claims") if g.session else None
        # State, nonce and PKCE are made here, and compared by `acquire_token_by_auth_code_flow`.
        flow = msal_app.initiate_auth_code_flow(
            [scope],
            redirect_uri=f"{base}{url_for('finish_sign_in')}",
            # The code comes in a form and not in an address: addresses end up in logs and histories (RFC 9700, 4.3.1).
            response_mode="form_post",
            claims_challenge=claims,
            login_hint=g.session.data["username"] if g.session else None,
        )
        response = redirect(flow["auth_uri"], 303)
        sealed = cookies.encrypt(json.dumps({"flow": flow, "after": after}).encode()).decode()
        # The provider's form is another site's: of our cookies, this one alone must come with it. It binds the answer
        # to this browser, and keeps nothing of visitors here.
        response.set_cookie(
            SIGN_IN_COOKIE, sealed, max_age=SIGN_IN_TAKES, secure=True, httponly=True, samesite="None", path="/"
        )
        return response

    @app.post("/signed-in")
    def finish_sign_in() -> Any:
        try:
            begun = json.loads(cookies.decrypt(request.cookies.get(SIGN_IN_COOKIE, ""), ttl=SIGN_IN_TAKES))
            result = msal_app.acquire_token_by_auth_code_flow(begun["flow"], request.form.to_dict())
        except (fernet.InvalidToken, ValueError, RuntimeError) as error:
            # No sign-in begun in this browser, or another state or nonce than it began with.
            log.warning("a sign-in was refused: %s", type(error).__name__)
            abort(400, "This sign-in took too long, or began in another browser. Please sign in again.")
        if "access_token" not in result:
            # It came with the browser's form: any visitor can write what they like there, line ends too.
            log.warning("a sign-in was denied: %.60r", result.get("error"))
            abort(403, "The sign-in failed. Please try again, or ask whoever looks after your account.")
        # It came from the token endpoint over TLS, which vouches for it (OpenID Connect Core, 3.1.3.7).
        told = result["id_token_claims"]
        account = next(
            one
            for one in msal_app.get_accounts(told["preferred_username"])
            if one["local_account_id"] == told.get("oid", told["sub"])
        )
        if g.session is not None:
            sessions.end(g.session)
        # A new secret at each sign-in: one that somebody planted before is worth nothing.
        secret = sessions.start(
            account["home_account_id"],
            {
                "account": account,
                "name": told.get("name") or told["preferred_username"],
                "username": told["preferred_username"],
                "form_key": secrets.token_urlsafe(32),
            },
        )
        response = redirect(begun["after"], 303)
        response.delete_cookie(SIGN_IN_COOKIE, secure=True, httponly=True, samesite="None", path="/")
        response.set_cookie(SESSION_COOKIE, secret, secure=True, httponly=True, samesite="Lax", path="/")
        return response

    @app.post("/sign-out")
    def sign_out() -> Any:
        if g.session is None:
            # Either it is over, or another site sent this, without the cookie: that must end nothing.
            return redirect(url_for("home"), 303)
        if not secrets.compare_digest(request.form.get("form_key", "").encode(), g.session.data["form_key"].encode()):
            abort(400, "This form is from elsewhere. You are still signed in.")
        # Here first, and whatever the provider does: who signs out in an outage is signed out.
        if sessions.end(g.session):
            try:
                msal_app.remove_account(g.session.data["account"])
            except ra.StoreUnavailable as error:
                # Signed out here; it is written as soon as the store is back, and told in health and events until then.
                log.warning("a sign-out isn't in the store yet: %s", error)
        if provider.retry_after() is None:
            there = {"post_logout_redirect_uri": f"{base}{url_for('signed_out')}"}
            response = redirect(f"{authority}/oauth2/v2.0/logout?{urlencode(there)}", 303)
        else:
            response = redirect(url_for("signed_out", here_only=1), 303)
        response.delete_cookie(SESSION_COOKIE, secure=True, httponly=True, samesite="Lax", path="/")
        return response

    @app.get("/signed-out")
    def signed_out() -> str:
        return render_template("signed_out.html", here_only="here_only" in request.args)

    # For probes: /health/ready fails where nobody would be served, /health/live never for the provider's sake.
    mount_health(app)

    # Without a password nobody is let in. A role of your own users is better: `signed_in`, and a look at who it is.
    password = environ.get("OPERATOR_PASSWORD") or secrets.token_urlsafe()

    def operators(view: Callable[..., Any]) -> Callable[..., Any]:
        """Let those in who look after this application."""

        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            given = (request.authorization.password if request.authorization else None) or ""
            if not secrets.compare_digest(given.encode(), password.encode()):
                return Response("For operators.", 401, {"WWW-Authenticate": "Basic"})
            return view(*args, **kwargs)

        return guarded

    # /status for who is on call, and /metrics for Prometheus: both name authorities and scopes.
    mount_status_page(app, guard=operators, title="Web application")
    registry = CollectorRegistry()
    registry.register(ra.telemetry.prometheus_collector())
    closing.callback(ra.telemetry.uninstrument)

    @app.get("/metrics")
    @operators
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @app.before_request
    def find_session() -> None:
        secret = request.cookies.get(SESSION_COOKIE)
        g.session = sessions.find(secret) if secret and request.endpoint != "static" else None

    @app.context_processor
    def tell_templates() -> dict[str, Any]:
        return {"session": g.get("session"), "reduced": provider.is_failing()}

    @app.template_filter("time")
    def time_of_day(at: float) -> str:
        return datetime.fromtimestamp(at, UTC).strftime("%H:%M UTC")

    @app.after_request
    def protect(response: Response) -> Response:
        # The provider is there for sign-out: a form's action counts where its redirect leads, too.
        provider_origin = "{0.scheme}://{0.netloc}".format(urlsplit(authority))
        # The status page has a stricter one.
        response.headers.setdefault(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action 'self' {provider_origin}",
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(SignInNeeded)
    def ask_to_sign_in(error: SignInNeeded) -> Any:
        if clock.wall() - g.session.started < JUST_NOW:
            text = "You are signed in, but not allowed to see this page. Please ask whoever looks after it."
            return tell_of_an_error(Forbidden(text))
        g.session.data["claims"] = error.claims
        sessions.save(g.session)
        return redirect(url_for("sign_in", next=request.path), 303)

    @app.errorhandler(ra.ProviderUnavailable)
    def tell_of_the_outage(error: ra.ProviderUnavailable) -> Any:
        log.warning("nobody can sign in: %s", error)
        return _unavailable(error.retry_after, url_for("sign_in"), signing_in=True)

    @app.errorhandler(HTTPException)
    def tell_of_an_error(error: HTTPException) -> Any:
        told = {404: "There is no such page.", 405: "There is no such page."}
        text = told.get(error.code or 500) or (error.description if error.code in (400, 403) else None)
        title = "Sorry, that failed"
        page = render_template(
            "message.html", title=title, text=text or "Something went wrong on our side. Please try again later."
        )
        return page, error.code or 500

    @app.errorhandler(SecurityError)
    def tell_nothing(_: SecurityError) -> Any:
        # For another host's name no link of ours could be made.
        return "Bad request", 400

    @app.errorhandler(Exception)
    def tell_of_a_fault(error: Exception) -> Any:
        log.error("a page failed", exc_info=error)
        return tell_of_an_error(InternalServerError())

    return app


def _unavailable(wait: float | None, again: str, *, signing_in: bool = False) -> tuple[str, int, dict[str, str]]:
    """Answer who can't be served right now: what is wrong, that it isn't their fault, and when to try again."""
    seconds = max(1, math.ceil(wait or 30.0))
    page = render_template("unavailable.html", seconds=seconds, again=again, signing_in=signing_in)
    return page, 503, {"Retry-After": str(seconds)}


def _own_path(path: str | None) -> str:
    """Return a path of this application; anything that might lead elsewhere becomes the home page."""
    # Browsers read a backslash as a slash, and two slashes as the beginning of a host.
    good = path and path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if path and good else "/"


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
