"""What this machine says of proxies and certificate authorities, by the rules of requests, which MSAL's users know.

`NO_PROXY` is read by the rules of httpx as well: what either asks directly is asked directly.
"""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.utils import resolve_proxies, select_proxy

from .._policy.endpoint import DEFAULT_PORTS
from .._process import forks
from ..errors import ConfigurationError

__all__ = ["Authorities", "bundle_of", "check_proxies", "proxy_for", "proxy_setting"]

_SOCKS = frozenset({"socks5", "socks5h"})
_SCHEMES = _SOCKS | {"http", "https"}
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
#: In the order in which they are looked at.
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
#: What a file that others are about to replace, or a mistake, looks like; anything else is this process's trouble.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})


def proxy_for(url: str, proxies: Mapping[str, str | None] | None, *, trust_env: bool = True) -> str | None:
    """Return the URL of the proxy through which requests would ask; None for none.

    Args:
        url: What is asked.
        proxies: As requests takes them: by scheme, scheme and host, or `all`; and `no_proxy` beside the environment's.
        trust_env: Whether the environment is looked at.

    Raises:
        ConfigurationError: It is no proxy that can be used; names the setting, and not its value, which may hold a
            password.
    """
    chosen, setting = _chosen(url, proxies, trust_env=trust_env)
    return _checked(chosen, setting) if chosen else None


def proxy_setting(url: str, proxies: Mapping[str, str | None] | None) -> str:
    """Return the name of what says through which proxy a URL is asked."""
    return _chosen(url, proxies, trust_env=True)[1]


def _chosen(url: str, proxies: Mapping[str, str | None] | None, *, trust_env: bool) -> tuple[str | None, str]:
    given = dict(proxies or {})
    excepted = given.get("no_proxy") or os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if excepted and trust_env:
        trust_env = not any(_excepts(entry.strip(), url) for entry in str(excepted).split(",") if entry.strip())
    chosen = select_proxy(url, resolve_proxies(requests.Request(url=url), given, trust_env))  # type: ignore[arg-type]
    if chosen is None:
        return None, ""
    for scheme, value in given.items():
        if value == chosen:
            return chosen, f"proxies[{scheme!r}]"
    return chosen, next((name for name in _PROXY_VARIABLES if os.environ.get(name) == chosen), "the system's proxy")


def _excepts(entry: str, url: str) -> bool:
    """Return whether an entry of `NO_PROXY` excepts a URL in a way that httpx knows and requests doesn't.

    These are `*` among others, `https://host`, and an address with a port; and networks of IPv6.
    """
    if entry == "*":
        return True
    scheme, _, rest = entry.rpartition("://")
    try:
        asked = urlsplit(url)
        host, port = asked.hostname or "", asked.port or DEFAULT_PORTS.get(asked.scheme)
        if scheme and scheme.lower() not in ("all", asked.scheme):
            return False
        address = _network(host)
        network = _network(rest.strip("[]"))
        if network is not None:
            return address is not None and address.network_address in network
        named = urlsplit(f"//{rest}")
        if named.port not in (None, port):
            return False
        if address is not None:
            return _network(named.hostname or "") == address
    except ValueError:  # no entry that could be read
        return False
    # Names alone are requests' own matter.
    name = named.hostname or ""
    if not scheme or not name.startswith("*"):
        return bool(scheme) and host == name
    bare = name.lstrip("*")
    return host == bare or host.endswith(bare if bare.startswith(".") else f".{bare}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def check_proxies(proxies: Mapping[str, Any] | None) -> None:
    """Refuse proxies that could never be used.

    Raises:
        ConfigurationError: Names the one.
    """
    if proxies is not None and not isinstance(proxies, Mapping):
        raise ConfigurationError(f"proxies must be a mapping such as {{'https': URL}}, not {type(proxies).__name__}")
    for scheme, proxy in (proxies or {}).items():
        if proxy and scheme != "no_proxy":
            _checked(proxy, f"proxies[{scheme!r}]")


def _checked(proxy: object, setting: str) -> str:
    fix = "write http://<host>:<port>"
    if not isinstance(proxy, str):
        raise ConfigurationError(f"{setting} must be a proxy's URL, not {type(proxy).__name__}: {fix}")
    try:
        # requests takes the name of a host without a dot, as in `proxy:3128`, for a scheme.
        url = proxy.strip() if "://" in proxy else f"http://{proxy.strip()}"
        parts = urlsplit(url)
        scheme, usable = parts.scheme.lower(), bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigurationError(f"{setting} isn't a proxy's URL: {fix}") from None
    if not usable:
        raise ConfigurationError(f"{setting} isn't a proxy's URL: {fix}")
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{setting} names a proxy of an unsupported kind: {fix}, or socks5h:// in place of socks://"
        )
    if scheme in _SOCKS and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            f"{setting} names a SOCKS proxy: pip install 'httpx[socks]', or name the hosts to ask directly in NO_PROXY"
        )
    return url


def bundle_of(verify: object) -> tuple[str, str]:
    """Return the path of the authorities that are trusted, and the setting that names it; "" where none does.

    As in requests, the environment's bundle beats a mere True.
    """
    if isinstance(verify, (str, os.PathLike)):
        return os.fspath(verify), "verify"
    for name in _BUNDLE_VARIABLES:
        if path := os.environ.get(name):
            return path, name
    return certifi.where(), ""


class Authorities:
    """Whom to trust: False, a file, a directory or a context that the owner names, or the environment's, or certifi's.

    Args:
        verify: As in requests, or an SSL context.
    """

    def __init__(self, verify: bool | str | os.PathLike[str] | ssl.SSLContext | None) -> None:
        self._verify = verify

    @property
    def named(self) -> bool:
        """Whether somebody chose a bundle, who would want to know that it can't be used."""
        return bool(self._bundle()[1])

    def state(self) -> object:
        """Return what tells a bundle from one that has replaced it: it is to be read again when that changes."""
        path, _ = self._bundle()
        if path is None:
            return None
        try:
            found = os.stat(path)
        except OSError:
            return path, None
        return path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def context(self) -> ssl.SSLContext:
        """Read the bundle.

        Raises:
            ConfigurationError: It can't be read; names the setting, and what to put there.
        """
        if isinstance(self._verify, ssl.SSLContext):
            return self._verify
        path, setting = self._bundle()
        if path is None:
            import httpx  # which who asks has loaded

            with forks.held_off():  # OpenSSL has locks, too
                return httpx.create_ssl_context(verify=False)
        setting = setting or "certifi"
        try:
            with forks.held_off():
                if os.path.isdir(path):
                    return ssl.create_default_context(capath=path)
                return ssl.create_default_context(cafile=path)
        except ssl.SSLError as error:
            reason = error.reason or "it isn't PEM"
            raise ConfigurationError(
                f"{setting} must name a file of CA certificates in PEM; {path} can't be read as one ({reason})"
            ) from None
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            told = "there is no" if error.errno == errno.ENOENT else f"{error.strerror}:"
            raise ConfigurationError(f"{setting} must be the path of a CA bundle or directory; {told} {path}") from None

    def _bundle(self) -> tuple[str | None, str]:
        """Return the path of the bundle, None where none is needed, and the setting that names it."""
        if self._verify is False or isinstance(self._verify, ssl.SSLContext):
            return None, ""
        return bundle_of(self._verify)
