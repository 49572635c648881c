"""A request as sign-in sees it, and its answer, whichever framework carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from .._engine.steps import Steps

__all__ = ["Answer", "Arrival", "Cookie", "Route", "dropped", "leading_to"]

#: Parameters of one request, at most, and characters of each: further ones are as good as foreign.
MOST_PARAMETERS: Final = 50
LONGEST_PARAMETER: Final = 32_768


@dataclass(frozen=True, slots=True)
class Arrival:
    """Hold a request.

    Args:
        method: The HTTP method, in upper case.
        path: The path and, behind a question mark, the query, as the browser would ask for it again.
        query: The query's parameters, in order.
        form: The parameters of a body that is a form, in order.
        cookies: What the browser sent; of a name that came twice, the first.
        header: Returns a header by its name, "" where there is none.
        body: The body, where a route asks for it.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    form: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    header: Callable[[str], str] = field(default=lambda _: "", repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """Return the parameters where the method has them: a form's of a POST, else the query's."""
        return self.form if self.method == "POST" else self.query

    def only(self, name: str) -> str | None:
        """Return a parameter that came once; None where it is missing or came several times."""
        found = [value for key, value in self.parameters if key == name]
        return found[0] if len(found) == 1 else None

    @property
    def is_page(self) -> bool:
        """Return whether a person waits for a page: what a script fetches is answered and not led elsewhere."""
        if self.method not in ("GET", "HEAD"):
            return False
        mode = self.header("sec-fetch-mode")
        if mode:
            return mode == "navigate"
        wanted = self.header("accept")
        return self.header("x-requested-with") == "" and ("text/html" in wanted or wanted in ("", "*/*"))


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie to set: always secure, for this host and all of its paths, and read by no script.

    Args:
        name: Its name, which begins with `__Host-`.
        value: Its value; "" drops it.
        same_site: With whose requests it comes.
        max_age: Seconds that it lasts; None for as long as the browser runs.
    """

    name: str
    value: str = field(repr=False)
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    max_age: int | None = None


def dropped(name: str, same_site: Literal["Lax", "Strict", "None"] = "Lax") -> Cookie:
    """Return a cookie that takes one away from the browser."""
    return Cookie(name, "", same_site, 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered.

    Args:
        status: The HTTP status.
        body: The page, or JSON.
        headers: The headers, the content type among them.
        cookies: Cookies to set.
    """

    status: int
    body: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    cookies: tuple[Cookie, ...] = field(default=(), repr=False)

    def with_cookies(self, *cookies: Cookie) -> Answer:
        """Set these too."""
        return replace(self, cookies=(*self.cookies, *cookies))


def leading_to(address: str, *cookies: Cookie) -> Answer:
    """Return an answer that leads elsewhere: kept by no cache, and telling nobody where from."""
    headers = (("Location", address), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer"))
    return Answer(303, headers=headers, cookies=cookies)


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the application's that sign-in answers.

    Args:
        path: The path.
        methods: The methods.
        handle: Makes the answer, in steps.
        name: By which frameworks know it.
    """

    path: str
    methods: tuple[str, ...]
    handle: Callable[[Arrival], Steps[Answer]]
    name: str
