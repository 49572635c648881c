"""What the frameworks' faces of sign-in share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from ...signin.messages import Arrival, Cookie
from ...signin.pages import HEADERS
from ...signin.user import Visit

__all__ = ["LARGEST_BODY", "Serving", "arrival_of", "decorating", "headers_beside", "path_of", "set_cookie"]

_FORM: Final = "application/x-www-form-urlencoded"
#: Bytes of a body that is read: an ID token or a code fits in often.
LARGEST_BODY: Final = 128 * 1024
_MOST_FIELDS: Final = 200


class Serving:
    """One request as it is served: who it is of, and the cookies that go out with its answer."""

    def __init__(self) -> None:
        self.visit: Visit | None = None
        self.looked = False
        self._cookies: dict[str, Cookie] = {}

    def admitted(self, visit: Visit | None) -> None:
        """Note who it is of; a second look finds the same session, and takes away no cookie of the first one's."""
        self.looked, self.visit = True, visit
        if visit is not None:
            self._cookies |= {cookie.name: cookie for cookie in visit.cookies}

    def cookies(self, answered: Collection[str]) -> list[Cookie]:
        """Return those that may be set with an answer which has these `Set-Cookie` headers: its own are later ones."""
        there = {each.partition("=")[0].strip() for each in answered}
        return [cookie for name, cookie in self._cookies.items() if name not in there]


def path_of(path: str, query: str) -> str:
    """Return a decoded path and its query as a browser asks for them."""
    shown = quote(path, safe="/:@!$&'()*+,;=~-._")
    return f"{shown}?{query}" if query else shown


def arrival_of(
    method: str, path: str, query: str, cookies: Mapping[str, str], header: Callable[[str], str], content: bytes
) -> Arrival:
    """Return a request as sign-in sees it; see `Arrival`.

    Args:
        method: The HTTP method.
        path: The path and the query, as the browser would ask for them again.
        query: The query.
        cookies: What the browser sent.
        header: Returns a header by its name.
        content: The body, where the route asks for it.
    """
    is_form = header("content-type").partition(";")[0].strip().lower() == _FORM
    form = _parameters_in(content.decode("utf-8", "replace")) if is_form else ()
    return Arrival(method, path, _parameters_in(query), form, cookies, header, content)


def _parameters_in(text: str) -> tuple[tuple[str, str], ...]:
    """Return the parameters in a query or a form; none where there are far too many."""
    try:
        return tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        return ()


def set_cookie(cookie: Cookie) -> str:
    """Return the `Set-Cookie` header of a cookie."""
    lasts = "" if cookie.max_age is None else f"; Max-Age={cookie.max_age}"
    return f"{cookie.name}={cookie.value}; Path=/{lasts}; Secure; HttpOnly; SameSite={cookie.same_site}"


def headers_beside(given: Callable[[str], str | None], *, cookies: bool) -> list[tuple[str, str]]:
    """Return the headers to set on a page with a user, in the place of those of the same name.

    What the view has set stays; but a page that brings somebody their new id is kept by no cache, whoever may see it.

    Args:
        given: Returns a header that is there.
        cookies: Whether it sets cookies of ours.
    """
    vary = [each.strip() for each in (given("Vary") or "").split(",") if each.strip()]
    if "*" not in vary and "cookie" not in map(str.lower, vary):
        vary.append("Cookie")
    missing = {name: value for name, value in HEADERS if not given(name) or (cookies and name == "Cache-Control")}
    return [*missing.items(), ("Vary", ", ".join(vary))]


def decorating(decorate: Callable[[Any], Any], view: Any) -> Any:
    """Return a decorator's result, whether it was given options or the view itself."""
    return decorate if view is None else decorate(view)
