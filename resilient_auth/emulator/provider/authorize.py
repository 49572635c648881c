"""The pages that a person meets: sign-in, device sign-in and sign-out."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt

from ..settings import Settings
from ..wire.messages import Request, Response, html_response, json_response, redirect
from .directory import CODE_LIFETIME, DEVICE_CODE_LIFETIME, Audience, Code, Directory, User
from .discovery import RESPONSE_MODES, RESPONSE_TYPES
from .grants import context_in
from .notices import Notices
from .oauth_errors import Refusal
from .realms import Realm
from .sessions import BrowserSession, BrowserSessions, cookie_of
from .tokens import Mint, client_info, resource_of

_CHOICE: Final = "emulator_user"
#: Of RFC 7636, section 4.2.
_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class SignIn:
    """Lets people sign in by choosing who they are."""

    def __init__(
        self, directory: Directory, mint: Mint, settings: Settings, sessions: BrowserSessions, notices: Notices
    ) -> None:
        self._sessions = sessions
        self._notices = notices
        self._directory = directory
        self._mint = mint
        self._settings = settings

    def authorize(self, request: Request, realm: Realm) -> Response:
        """Answer an authorization request: a page that lists the users, or what the choice leads to."""
        if request.segments[-1].lower() == "deviceauth":
            return self._device_page(request)
        asked = request.query | (request.form if request.method == "POST" else {})
        if urlsplit(asked.get("redirect_uri", "")).scheme not in ("http", "https") or not asked.get("client_id"):
            raise Refusal("invalid_request", 900971, "The request needs a client_id and an http(s) redirect_uri.")
        if refused := _refused(asked, realm):
            return _deliver(asked, refused)
        user = self._directory.find_user(asked.get(_CHOICE, ""))
        if user is None and asked.get("prompt") == "none":
            session = self._sessions.of(request)
            hint = asked.get("login_hint")
            if session is None or (hint and self._directory.find_user(hint) != session.user):
                return _deliver(asked, _error(asked, "login_required", "AADSTS50058: Nobody is signed in."))
            user = session.user
        if user is None:
            return self._user_page(asked)
        session = self._sessions.begin(user, request)
        answer = _deliver(asked, self.grant(asked, realm, user, session))
        return replace(answer, headers=(*answer.headers, cookie_of(session)))

    def grant(
        self, asked: dict[str, str], realm: Realm, user: User, session: BrowserSession | None = None
    ) -> dict[str, str]:
        """Return the parameters that the redirect carries after a user's consent, or where there can't be any."""
        if refused := _refused(asked, realm):
            return refused
        session = session or self._sessions.begin(user)
        scopes = tuple(asked.get("scope", "openid").split())
        audience = Audience(
            asked["client_id"], user, scopes, resource_of(scopes), nonce=asked.get("nonce"), sid=session.sid
        )
        kinds = asked.get("response_type", "code").split()
        answer = {}
        if "code" in kinds:
            answer["code"] = self._directory.codes.hand_out(
                Code(
                    replace(audience, context=context_in(asked.get("claims"))),
                    asked.get("redirect_uri", ""),
                    time.time() + CODE_LIFETIME,
                    realm.name,
                    asked.get("code_challenge"),
                    asked.get("code_challenge_method", "plain"),
                )
            )
        if "id_token" in kinds:
            answer["id_token"] = self._mint.id_token(realm, audience, answer.get("code"))
        if asked.get("client_info") == "1":
            answer["client_info"] = client_info(realm, user)
        return answer | _state(asked) | {"session_state": user.oid}

    def device_code(self, request: Request, realm: Realm) -> Response:
        """Answer a device authorization request (RFC 8628)."""
        form = request.form
        client_id = form.get("client_id", "")
        if request.method != "POST" or not client_id or not form.get("scope"):
            raise Refusal("invalid_request", 900144, "The request body must contain 'client_id' and 'scope'.")
        secret, user_code = self._directory.start_device_code(client_id, tuple(form["scope"].split()), realm.name)
        page = realm.endpoint("deviceauth")
        return json_response(
            {
                "user_code": user_code,
                "device_code": secret,
                "verification_uri": page,
                "expires_in": int(DEVICE_CODE_LIFETIME),
                "interval": self._settings.device_code_interval,
                "message": f"To sign in, open the page {page} and enter the code {user_code} to authenticate.",
            }
        )

    def logout(self, request: Request) -> Response:
        """Answer a sign-out: clients are told, and the browser goes back to the application that said where to."""
        asked = request.query | (request.form if request.method == "POST" else {})
        session = self._sessions.of(request)
        hint = asked.get("id_token_hint")
        if hint:
            session = self._sessions.find(self._hinted(hint).get("sid")) or session
        target = asked.get("post_logout_redirect_uri", "")
        if urlsplit(target).scheme not in ("http", "https"):
            target = ""
        elif state := _state(asked):
            target = _with_query(target, state)
        frames = [] if session is None else self._notices.frontchannel_urls(session)
        if session is not None:
            self.end(session)
        if target and not frames:
            return redirect(target)
        content = "<p>You signed out of your account.</p>"
        content += "".join(f'<iframe src="{escape(url)}" title="Sign-out" hidden></iframe>' for url in frames)
        if target:
            # All frames first: each tells one application.
            content += (
                f'<p><a id="back" href="{escape(target)}">Back to the application</a></p><script>'
                'addEventListener("load", () => location.replace(document.getElementById("back").href))</script>'
            )
        return html_response(_page("Signed out", content))

    def end(self, session: BrowserSession) -> None:
        """End a session, and tell the clients that want to know."""
        self._sessions.end(session.sid)
        self._notices.tell_of_end(session)

    def _hinted(self, id_token: str) -> dict[str, Any]:
        """Return the claims of an ID token of ours, which may have expired."""
        for key in self._mint.published:
            try:
                options: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
                claims: dict[str, Any] = jwt.decode(
                    id_token, key.private.public_key(), algorithms=["RS256"], options=options
                )
            except jwt.InvalidTokenError:
                continue
            return claims
        raise Refusal("invalid_request", 50027, "The id_token_hint isn't a token of this provider.")

    def _device_page(self, request: Request) -> Response:
        asked = request.query | (request.form if request.method == "POST" else {})
        user = self._directory.find_user(asked.get(_CHOICE, ""))
        if user is None:
            field = f'<p><input name="user_code" value="{escape(asked.get("user_code", ""))}" placeholder="Code"></p>'
            return html_response(_page("Enter code", f'<form method="post">{field}{self._user_buttons()}</form>'))
        try:
            self._directory.approve_device(asked.get("user_code", ""), user)
        except ValueError:
            return html_response(_page("Enter code", "<p>That code didn't work. Check the code and try again.</p>"))
        return html_response(_page("Signed in", "<p>You have signed in on your device. You may close this page.</p>"))

    def _user_page(self, asked: dict[str, str]) -> Response:
        hidden = _hidden({name: value for name, value in asked.items() if name != _CHOICE})
        form = f'<form method="post">{hidden}{self._user_buttons()}</form>'
        return html_response(_page("Pick an account", form))

    def _user_buttons(self) -> str:
        return "".join(
            f'<p><button name="{_CHOICE}" value="{escape(user.username)}">{escape(user.username)}</button></p>'
            for user in self._directory.users[:100]
        )


def _refused(asked: dict[str, str], realm: Realm) -> dict[str, str]:
    """Return what is said of a request for which nobody signs in; nothing of a good one."""
    kind, mode, challenge = asked.get("response_type", "code"), asked.get("response_mode"), asked.get("code_challenge")
    if kind not in RESPONSE_TYPES:
        return _error(asked, "unsupported_response_type", "AADSTS700052: The response_type isn't known.")
    wrong = ""
    if mode is not None and mode not in RESPONSE_MODES:
        wrong = "AADSTS900971: The response_mode isn't known."
    elif realm.kind in ("v2", "ciam", "b2c") and not asked.get("scope"):
        wrong = "AADSTS900144: The request must contain 'scope'."
    elif "id_token" in kind and "openid" not in asked.get("scope", "openid").split():
        wrong = "AADSTS70011: An ID token is for the scope 'openid'."
    elif "id_token" in kind and not asked.get("nonce"):
        wrong = "AADSTS90014: The required field 'nonce' is missing."
    elif "id_token" in kind and mode == "query":
        wrong = "AADSTS70007: 'query' is not a supported value of 'response_mode' when requesting a token."
    elif challenge is not None and not _CHALLENGE.fullmatch(challenge):
        wrong = "AADSTS501491: Invalid size of Code_Challenge parameter."
    elif challenge is not None and asked.get("code_challenge_method", "plain") not in ("plain", "S256"):
        wrong = "AADSTS501481: The code_challenge_method isn't known."
    return _error(asked, "invalid_request", wrong) if wrong else {}


def _error(asked: dict[str, str], error: str, description: str) -> dict[str, str]:
    return {"error": error, "error_description": description} | _state(asked)


def _deliver(asked: dict[str, str], answer: dict[str, str]) -> Response:
    target = asked["redirect_uri"]
    mode = asked.get("response_mode")
    hybrid = asked.get("response_type", "code") != "code"
    if mode == "form_post":
        form = f'<form method="post" action="{escape(target)}">{_hidden(answer)}<button>Continue</button></form>'
        return html_response(_page("Working...", f"{form}<script>document.forms[0].submit()</script>"))
    if mode == "fragment" or (hybrid and mode is None):
        return redirect(f"{target}#{urlencode(answer)}")
    return redirect(_with_query(target, answer))


def _hidden(fields: dict[str, str]) -> str:
    return "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )


def _with_query(target: str, parameters: dict[str, str]) -> str:
    parts = urlsplit(target)
    return parts._replace(query=urlencode([*parse_qsl(parts.query), *parameters.items()])).geturl()


def _state(asked: dict[str, str]) -> dict[str, str]:
    return {"state": asked["state"]} if "state" in asked else {}


def _page(title: str, content: str) -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
        f"<body><h1>{escape(title)}</h1>{content}</body></html>"
    )
