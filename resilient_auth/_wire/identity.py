"""What a wire is: its trust and its proxies by what they say, somebody's own client or TLS context by the object."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import ssl
import urllib.request
import weakref
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter

from .._policy.endpoint import WireIdentity
from .environment import bundle_of

__all__ = ["identity_of", "identity_of_client", "number_of", "said_by"]

#: Bytes; a bundle of all the world's authorities is a tenth of it.
_LARGEST_BUNDLE = 16 * 1024 * 1024

_numbers = itertools.count(1)
#: By `id`: an object that may be neither hashed nor compared, and its number, for as long as it lives.
_numbered: dict[int, tuple[weakref.ref[Any], int]] = {}


def identity_of(
    verify: bool | str | os.PathLike[str] | ssl.SSLContext | None, proxies: Mapping[str, Any]
) -> WireIdentity:
    """Return what a wire of ours is: alike for all that trust the same authorities and use the same proxies.

    Args:
        verify: As `HttpxWire` takes it.
        proxies: By scheme; the environment's are added.
    """
    ways = {scheme: "" if proxy is None else str(proxy) for scheme, proxy in sorted(proxies.items())}
    environment = dict(sorted(urllib.request.getproxies_environment().items()))
    hosts = ", ".join(sorted({_host_of(proxy) for proxy in ways.values() if proxy}))
    through = f"through {hosts}" if hosts else ""
    if isinstance(verify, ssl.SSLContext):
        number = number_of(verify)
        verified = verify.verify_mode == ssl.CERT_REQUIRED and verify.check_hostname
        label = f"own SSLContext {number} {through}".strip()
        return WireIdentity(f"context {number} {_digest([ways, environment])}", verified=verified, label=label)
    trust = "" if verify is False else _content(bundle_of(verify)[0])
    key = _digest([trust, ways, environment])
    named = f"verify={os.fspath(verify)}" if isinstance(verify, (str, os.PathLike)) else ""
    trusts = "unverified" if verify is False else named
    return WireIdentity(key, fleet=key, verified=verify is not False, label=f"{trusts} {through}".strip())


def said_by(client: Any) -> object:
    """Return what an owner's client says of its trust and its proxies; it is another wire when that changes."""
    if not _is_plain(client):
        return None
    environment = sorted(urllib.request.getproxies_environment().items())
    return [_trust_of(client), dict(client.proxies or {}), client.cert, client.trust_env, environment]


def identity_of_client(client: Any, number: int) -> WireIdentity:
    """Return what an owner's own client is: itself, and in other processes only what a plain session says of itself.

    Args:
        client: The owner's.
        number: What `number_of` gave for it.
    """
    key, label = f"client {number}", f"own http_client {number}"
    if not _is_plain(client):
        return WireIdentity(key, label=label)
    alike = identity_of(_trust_of(client), client.proxies or {})
    fleet = _digest([alike.fleet, client.cert, client.trust_env])
    return WireIdentity(key, fleet=fleet, verified=alike.verified, label=label)


def _trust_of(session: requests.Session) -> bool | str | None:
    """Return what a session trusts: the environment beats what it was told, unless it is told not to look there."""
    verify = session.verify
    if verify is False:
        return False
    if session.trust_env:
        verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or verify
    if verify == "":  # nobody, to requests
        return False
    return certifi.where() if verify is True and not session.trust_env else verify


def _is_plain(client: Any) -> bool:
    """Return whether this is a requests session that does what it says: `verify` and `proxies`, and nothing else."""
    if type(client) is not requests.Session or not isinstance(client.verify, (bool, str, os.PathLike)):
        return False
    request: Any = client.request
    if isinstance(request, functools.partial):  # MSAL's way, and the one it advises, of giving a time-out
        if request.args or request.keywords.keys() - {"timeout"}:
            return False
        request = request.func
    if getattr(request, "__func__", None) is not requests.Session.request:
        return False
    own = {"get", "post", "send", "merge_environment_settings", "get_adapter", "rebuild_proxies"} & vars(client).keys()
    return not own and all(type(adapter) is HTTPAdapter for adapter in client.adapters.values())


def number_of(thing: Any) -> int:
    """Number an object, the same for as long as it lives; an `id` may be another one's later."""
    place = id(thing)
    known = _numbered.get(place)
    if known is not None and known[0]() is thing:
        return known[1]
    number = next(_numbers)
    try:
        reference = weakref.ref(thing, lambda _: _numbered.pop(place, None))
    except TypeError:
        return number
    if known is not None and known[0]() is None:
        _numbered.pop(place, None)
    return _numbered.setdefault(place, (reference, number))[1]


def _content(path: str) -> str:
    """Return what authorities are, by their content: a path has others in another container, and a file many paths."""
    try:
        found = os.stat(path)
        return _content_of_file(path, found.st_mtime_ns, found.st_size, found.st_ino)
    except IsADirectoryError:
        return _digest(sorted((entry.name, entry.stat().st_size) for entry in os.scandir(path)))
    except OSError:
        return f"unreadable {os.path.abspath(path)}"


@functools.lru_cache(64)
def _content_of_file(path: str, *_: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read(_LARGEST_BUNDLE)).hexdigest()


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:32]


def _host_of(proxy: str) -> str:
    try:
        return urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    except ValueError:
        return "a proxy"
