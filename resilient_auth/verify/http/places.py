"""Where in a request its token is: the `Authorization` header, unless the owner chose otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

from ..._policy.checks import require
from ..errors import InvalidToken

__all__ = [
    "Arrived",
    "TokenCookie",
    "TokenHeader",
    "TokenPlace",
    "TokenQuery",
    "TokenSubprotocol",
    "bearer_token",
    "checked_places",
    "token_of",
]

#: RFC 6750, section 2.1: the scheme in any case, one space or more, and a b64token.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_BARE = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_OTHER_SCHEME = re.compile(r"(?!bearer\b)[A-Za-z0-9!#$%&'*+.^_`|~-]+( |$)", re.IGNORECASE)
#: What a header, a cookie, a subprotocol and a query parameter may be called (RFC 9110, section 5.6.2).
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_MOST_PARAMETERS = 200
#: Methods that change nothing, so that a page of somebody else's may as well have them sent (RFC 9110, section 9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True)
class Arrived:
    """Hold what of a request a token may be found in.

    Args:
        method: The HTTP method; "" for a web socket's handshake.
        query: The query's text, without the question mark.
        header: Returns every value of a header that is asked for by its name.
        url: Returns the address as the client wrote it, for proofs of possession.
    """

    method: str
    query: str
    header: Callable[[str], Sequence[str]]
    url: Callable[[], str] = str


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """Take the token from a header.

    Args:
        name: The header's; `Authorization` has the scheme `Bearer` before the token, others may.
    """

    name: str = "Authorization"

    def __post_init__(self) -> None:
        _check_name("header", self.name)

    def find(self, arrived: Arrived) -> str | None:
        """Return the token, None where there is none."""
        values = arrived.header(self.name)
        if self.name.lower() == "authorization":
            return _in_authorization(values)
        if len(values) > 1:
            raise InvalidToken("duplicated_header", f"the request has more than one {self.name} header")
        if not values or not values[0].strip(" \t"):
            return None
        value = values[0].strip(" \t")
        found = _BEARER.fullmatch(value)
        return found[1] if found else _bare(value, f"{self.name} header")


@dataclass(frozen=True, slots=True)
class TokenCookie:
    """Take the token from a cookie.

    A browser sends cookies whichever page makes it: so a request that may change something, and a web socket, must come
    from a page of this host, or of one of `origins`.

    Args:
        name: The cookie's.
        origins: Further origins whose pages may send requests, such as `("https://shop.example",)`; needed where a
            proxy in front changes the `Host` header.
    """

    name: str
    origins: Collection[str] = ()

    def __post_init__(self) -> None:
        _check_name("cookie", self.name)
        listed = isinstance(self.origins, Collection) and not isinstance(self.origins, str)
        fits = listed and all(_is_origin(one) for one in self.origins)
        require(fits, f"origins must be origins such as ('https://shop.example',), not {self.origins!r}")

    def find(self, arrived: Arrived) -> str | None:
        """Return the token, None where there is none."""
        values = [
            value.strip(" \t")
            for header in arrived.header("Cookie")
            for name, _, value in (pair.partition("=") for pair in header.split(";"))
            if name.strip(" \t") == self.name
        ]
        if not values or not values[0]:
            return None
        if len(values) > 1:
            # Somebody who may set cookies for a parent domain has set another one.
            raise InvalidToken("duplicated_header", f"the request has more than one cookie {self.name}")
        if arrived.method not in _SAFE and not self._of_own_page(arrived):
            raise InvalidToken("cross_site", "a page of another site had this request sent")
        return _bare(values[0].removeprefix('"').removesuffix('"'), f"cookie {self.name}")

    def _of_own_page(self, arrived: Arrived) -> bool:
        origins = arrived.header("Origin")
        if not origins:
            # Every browser says where from, in one header or the other; other clients have no pages.
            return not set(arrived.header("Sec-Fetch-Site")) - {"same-origin", "none"}
        host = [value.lower() for value in arrived.header("Host")]
        origin = origins[0].lower()
        return len(origins) == 1 and (
            origin in {one.lower() for one in self.origins} or [origin.partition("://")[2]] == host
        )


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """Take the token from a query parameter, where nothing else can be set; logs of servers and proxies show it.

    Args:
        name: The parameter's.
    """

    name: str = "access_token"

    def __post_init__(self) -> None:
        _check_name("query parameter", self.name)

    def find(self, arrived: Arrived) -> str | None:
        """Return the token, None where there is none."""
        try:
            pairs = parse_qsl(arrived.query, max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            raise InvalidToken("malformed_header", "the query has too many parameters") from None
        values = [value for name, value in pairs if name == self.name]
        if len(values) > 1:
            raise InvalidToken("duplicated_header", f"the query has more than one {self.name}")
        return _bare(values[0], f"query's {self.name}") if values else None


@dataclass(frozen=True, slots=True)
class TokenSubprotocol:
    """Take the token from a web socket's subprotocols, where a page can set nothing else.

    The page asks for `new WebSocket(url, ["bearer", token])`; the application accepts `name`, never the token.

    Args:
        name: The subprotocol that stands before the token.
    """

    name: str = "bearer"

    def __post_init__(self) -> None:
        _check_name("subprotocol", self.name)

    def find(self, arrived: Arrived) -> str | None:
        """Return the token, None where there is none."""
        if arrived.method:
            return None
        asked = [one.strip(" \t") for value in arrived.header("Sec-WebSocket-Protocol") for one in value.split(",")]
        if self.name not in asked:
            return None
        following = asked[asked.index(self.name) + 1 :]
        if asked.count(self.name) > 1 or len(following) != 1:
            raise InvalidToken("malformed_header", f"the subprotocol {self.name} must be followed by one token")
        return _bare(following[0], f"subprotocol after {self.name}")


TokenPlace: TypeAlias = TokenHeader | TokenCookie | TokenQuery | TokenSubprotocol


def checked_places(given: TokenPlace | Sequence[TokenPlace] | None) -> tuple[TokenPlace, ...]:
    """Return the places in which a token is looked for; the `Authorization` header when none is given.

    Raises:
        ConfigurationError: They aren't places.
    """
    if given is None:
        return (TokenHeader(),)
    places = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    fits = bool(places) and all(isinstance(place, TokenPlace) for place in places)
    require(fits, f"token_in must be a place such as TokenCookie('access_token'), or several, not {given!r}")
    return places


def token_of(arrived: Arrived, places: Sequence[TokenPlace]) -> str:
    """Find a request's token in the first of some places that has one.

    Raises:
        InvalidToken: There is none, more than one, or something else.
    """
    for place in places:
        token = place.find(arrived)
        if token is not None:
            return token
    raise InvalidToken("missing", "the request has no bearer token")


def bearer_token(values: Sequence[str]) -> str:
    """Find the token in a request's `Authorization` headers (RFC 6750, section 2.1).

    Args:
        values: Every value of that header.

    Raises:
        InvalidToken: There is none, more than one, or something else.
        ConfigurationError: The values aren't a list of texts.
    """
    fits = isinstance(values, Sequence) and not isinstance(values, (str, bytes))
    # One of them alone would be read letter by letter, and seen as many headers.
    require(
        fits and all(isinstance(value, str) for value in values),
        "values must be a list of the texts of all Authorization headers, such as request.headers.getlist(...)",
    )
    token = _in_authorization(values)
    if token is None:
        raise InvalidToken("missing", "the request has no bearer token")
    return token


def _in_authorization(values: Sequence[str]) -> str | None:
    if not values:
        return None
    if len(values) > 1:
        # Two readers of the same request might each take a different one.
        raise InvalidToken("duplicated_header", "the request has more than one Authorization header")
    found = _BEARER.fullmatch(values[0].strip(" \t"))
    if found is not None:
        return found[1]
    if _OTHER_SCHEME.match(values[0]):
        return None
    # A gateway that joins two headers by a comma ends up here.
    raise InvalidToken("malformed_header", "the Authorization header isn't 'Bearer' and one token")


def _bare(value: str, where: str) -> str:
    if _BARE.fullmatch(value) is None:
        raise InvalidToken("malformed_header", f"the {where} isn't one token")
    return value


def _check_name(what: str, name: object) -> None:
    fits = isinstance(name, str) and _NAME.fullmatch(name) is not None
    require(fits, f"the {what}'s name must be letters, digits and hyphens, not {name!r}")


def _is_origin(value: object) -> bool:
    if not isinstance(value, str) or not value.isascii():
        return False
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and value == f"{parts.scheme}://{parts.netloc}"
